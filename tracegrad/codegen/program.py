"""A schedule -> LLVM modules with one entry (`module`), compiled side by side by Numba's code generator.

    i64 tg_entry(i64 table)              runs the steps of the plan (`entry`)
      tg_entry.task_k(table, i, thread)  finds the buffers of a shared kernel and runs part i of it, or all of a small
                                         one; equal kernels have one function
      inner_k(table)                     the body of a loop or a branch (`regions`)
      tg_gemm_f32(plan, ...)             library kernels are called by name

Small kernels are called directly, large ones through `tg_par_for`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Protocol

from tracegrad.codegen.entry import Entry
from tracegrad.codegen.module import Module
from tracegrad.codegen.native import compile_ir
from tracegrad.codegen.source import show_kernel
from tracegrad.schedule.body import buffer_name
from tracegrad.schedule.kernel import Kernel
from tracegrad.schedule.memory import Memory, assign_memory
from tracegrad.schedule.plan import Plan, Region


class Job(Protocol):
    """A call that may have begun."""

    def result(self) -> Any: ...


class Workers(Protocol):
    """Threads that compile."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Job: ...


@dataclass(frozen=True)
class Emitted:
    """Object code of a program, in one or more parts, with what the runtime must know about it."""

    objects: list[bytes]
    memory: Memory
    arena_bytes: int
    families: tuple[str, ...]
    steps: tuple[str, ...]
    parallel: bool
    timings: dict[str, float]


def emit(
    plan: Plan,
    donate: Sequence[int],
    threads: int,
    workers: Workers,
    *,
    profile: bool = False,
    announce: Callable[[Any, Sequence[str]], object] = lambda workers, families: None,
) -> Emitted:
    """Place the buffers of a plan, write its modules and compile them, all but the first by `workers`.

    With `profile`, every step is timed. `announce` is told the library families that the program needs, and who may
    compile them, before the program is compiled.
    """
    began = time.perf_counter()
    module = Module(threads)
    entry = Entry(module, plan, donate, symbol="tg_entry", profile=profile)
    parts = module.parts(threads)
    written = time.perf_counter()
    announce(workers, ["pool", *module.families])
    spents: list[dict[str, float]] = [{} for _ in parts]
    jobs = [workers.submit(compile_ir, *one) for one in zip(parts[1:], repeat("tracegrad_program"), spents[1:])]
    objects = [compile_ir(parts[0], "tracegrad_program", spents[0]), *(job.result() for job in jobs)]
    return Emitted(
        objects,
        entry.memory,
        entry.arena_bytes,
        tuple(module.families),
        tuple(module.steps),
        bool(module.symbols) or any("call void @tg_par_for" in text for text in parts),
        {"emit": written - began, **shared_out(time.perf_counter() - written, spents)},
    )


def shared_out(seconds: float, spents: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the seconds of each stage of what took so many in all, side by side."""
    totals = {stage: sum(spent[stage] for spent in spents) for stage in spents[0]}
    return {stage: seconds * total / sum(totals.values()) for stage, total in totals.items()}


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
