"""A schedule -> one LLVM module with one entry, compiled by Numba's code generator.

    i64 tg_entry(i64 table)              runs the steps of the plan (`entry`)
      tg_entry.task_k(table, i, thread)  finds the buffers of a shared kernel and runs part i of it; equal kernels have
      one function
      inner_k(table)                     the body of a loop or a branch (`regions`)
      tg_gemm_f32(plan, ...)             library kernels are called by name

Small kernels are called directly, large ones through `tg_par_for`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tracegrad.codegen.entry import Entry, Module
from tracegrad.codegen.loops import LOOP_HINT
from tracegrad.codegen.native import compile_ir
from tracegrad.codegen.rewind_region import SPLIT
from tracegrad.codegen.source import show_kernel
from tracegrad.schedule.body import buffer_name
from tracegrad.schedule.kernel import Kernel
from tracegrad.schedule.memory import Memory, assign_memory
from tracegrad.schedule.plan import Plan, Region

DECLARATIONS = """declare void @tg_par_for(i64, i64, i64, i64)
declare ptr @realloc(ptr, i64)
declare void @free(ptr)
declare i32 @tg_gil_ensure()
declare i32 @tg_check_signals()
declare void @tg_clear_error()
declare void @tg_gil_release(i32)
define internal i64 @tg_poll() noinline {
  %state = call i32 @tg_gil_ensure()
  %raised = call i32 @tg_check_signals()
  %stop = icmp ne i32 %raised, 0
  br i1 %stop, label %clear, label %done
clear:
  call void @tg_clear_error()
  br label %done
done:
  call void @tg_gil_release(i32 %state)
  %answer = zext i1 %stop to i64
  ret i64 %answer
}
"""
"""What programs may call. `tg_poll` lets Python handle signals in the middle of a loop; 1: a handler raised."""


@dataclass(frozen=True)
class Emitted:
    """Object code of a program, with what the runtime must know about it."""

    data: bytes
    text: str
    memory: Memory
    arena_bytes: int
    families: tuple[str, ...]
    symbols: tuple[str, ...]
    steps: tuple[str, ...]
    parallel: bool
    timings: dict[str, float]


def module_text(module: Module) -> str:
    """Return the assembly of a module whose functions are written."""
    declared = "".join(f"declare void @{s}(i64, i64, i64, i64)\n" for s in module.symbols)
    declared += SPLIT if any("@tg_split(" in f for f in module.functions) else ""
    parts = [DECLARATIONS + declared, *module.constants, *module.functions, module.emitter.definitions(), LOOP_HINT]
    return "\n".join(parts)


def emit(
    plan: Plan,
    donate: Sequence[int],
    threads: int,
    *,
    profile: bool = False,
    announce: Callable[[Sequence[str]], object] = list,
) -> Emitted:
    """Place the buffers of a plan, write its module and compile it; with `profile`, every step is timed.

    `announce` is told the library families that the program needs before it is compiled.
    """
    began = time.perf_counter()
    module = Module(threads)
    entry = Entry(module, plan, donate, symbol="tg_entry", profile=profile)
    text = module_text(module)
    announce(["pool", *module.families])
    written = time.perf_counter()
    timings = {"emit": written - began}
    data = compile_ir(text, "tracegrad_program", timings)
    return Emitted(
        data,
        text,
        entry.memory,
        entry.arena_bytes,
        tuple(module.families),
        tuple(module.symbols),
        tuple(module.steps),
        bool(module.symbols) or "call void @tg_par_for" in text,
        timings,
    )


def show_source(plan: Plan, memory: Memory) -> str:
    """Return the readable source of all kernels, in order; the bodies of loops and branches are indented."""
    names = {name: str(place).replace("+", "_") for name, place in memory.places.items()}
    parts = []
    for step in plan.steps:
        if isinstance(step, Kernel):
            parts.append(show_kernel(step, {b: f"{names[b]}" for b in step.buffers()}))
            continue
        args = ", ".join(names[buffer_name(v.node)] for v in step.operands)
        if isinstance(step, Region):
            results = ", ".join(names[r] for r in step.results)
            inner = "\n".join(f"{p.graph.name}:\n{show_source(p, assign_memory(p))}" for p in step.plans)
            body = "\n".join(f"    {line}" for line in inner.split("\n"))
            parts.append(f"{results} = {step.name}({args})  # {step.node.aval}\n{body}")
        else:
            parts.append(f"{names[buffer_name(step.node)]} = {step.name}({args})  # {step.node.aval}")
            if step.epilogue is not None:
                text = show_kernel(step.epilogue, {b: names[b] for b in step.epilogue.buffers()})
                parts.append(f"# on each finished block of {names[buffer_name(step.node)]}:\n{text}")
    return "\n\n".join(parts)
