"""The machine's peak: independent fused multiply-adds on full vector registers, in every core that the process has.

As a "library" of the benchmark of contractions, it has two cases, peak-float32 and peak-float64; a run does FLOPS
operations.
"""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Any

from tracegrad.codegen.native import compile_ir
from tracegrad.codegen.tile_shape import tile_shape
from tracegrad.runtime.objects import load_object

CHAINS = 12
ROUNDS = 100_000


def version() -> str:
    """Return what is measured."""
    return f"{CHAINS} chains of {tile_shape().lanes(4)} float32"


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def flops(dtype: str) -> int:
    """Return the operations of one run on all cores."""
    return 2 * CHAINS * ROUNDS * lanes(dtype) * cores()


def lanes(dtype: str) -> int:
    return tile_shape().lanes(4 if dtype == "float32" else 8)


def assembly(dtype: str) -> str:
    """Return a function of LLVM assembly that multiplies and adds in CHAINS registers."""
    scalar = "float" if dtype == "float32" else "double"
    n = lanes(dtype)
    kind, fma = f"<{n} x {scalar}>", f"@llvm.fma.v{n}f{32 if scalar == 'float' else 64}"
    starts = [f"  %a{k} = phi {kind} [ %start{k}, %entry ], [ %b{k}, %loop ]" for k in range(CHAINS)]
    steps = [f"  %b{k} = call {kind} {fma}({kind} %a{k}, {kind} %factor, {kind} %factor)" for k in range(CHAINS)]
    loads = [
        line
        for k in range(CHAINS)
        for line in (
            f"  %place{k} = getelementptr {kind}, ptr %data, i64 {k}",
            f"  %start{k} = load {kind}, ptr %place{k}",
        )
    ]
    stores = [f"  store {kind} %b{k}, ptr %place{k}" for k in range(CHAINS)]
    return "\n".join(
        [
            f"declare {kind} {fma}({kind}, {kind}, {kind})",
            "define void @peak(i64 %address) {",
            "entry:",
            "  %data = inttoptr i64 %address to ptr",
            *loads,
            f"  %last = getelementptr {kind}, ptr %data, i64 {CHAINS}",
            f"  %factor = load {kind}, ptr %last",
            "  br label %loop",
            "loop:",
            "  %i = phi i64 [ 0, %entry ], [ %next, %loop ]",
            *starts,
            *steps,
            "  %next = add i64 %i, 1",
            f"  %more = icmp ult i64 %next, {ROUNDS}",
            "  br i1 %more, label %loop, label %end",
            "end:",
            *stores,
            "  ret void",
            "}",
        ]
    )


class Session:
    """One dtype on all cores."""

    def __init__(self, case: str):
        data = compile_ir(assembly(case.rpartition("-")[2]), "peak")
        self.keep: Any = data
        self.call = ctypes.CFUNCTYPE(None, ctypes.c_int64)(load_object(data, ["peak"])["peak"])
        self.memory = [(ctypes.c_char * (64 * (CHAINS + 2)))() for _ in range(cores())]

    def work(self, memory: Any, n: int) -> None:
        address = -(-ctypes.addressof(memory) // 64) * 64
        for _ in range(n):
            self.call(address)

    def run(self, n: int) -> float:
        """Run n times on each core."""
        threads = [threading.Thread(target=self.work, args=(m, n)) for m in self.memory[1:]]
        for thread in threads:
            thread.start()
        self.work(self.memory[0], n)
        for thread in threads:
            thread.join()
        return 0.0


SESSIONS = {"peak": Session}
