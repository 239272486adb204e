"""A schedule -> one LLVM module with one entry, compiled by Numba's code generator.

    i64 tg_entry(i64 table)         table: [pool, arena, status, arguments..., results...], all addresses
      task_k(table, i, thread)      finds the buffers of kernel k and runs part i of it
      tg_gemm_f32(plan, ...)        library kernels are called by name

The entry runs the steps in order: small kernels directly, large ones through `tg_par_for`. It returns the status: 0, or the code
of the first index check that failed.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from tracegrad.codegen.calls import plan_call
from tracegrad.codegen.loops import LOOP_HINT, Function
from tracegrad.codegen.native import compile_ir
from tracegrad.codegen.plan import LibraryCall, round_up
from tracegrad.codegen.scalar import Emitter
from tracegrad.codegen.source import show_kernel
from tracegrad.schedule.body import buffer_name
from tracegrad.schedule.kernel import Kernel
from tracegrad.schedule.memory import Memory, Place
from tracegrad.schedule.plan import Call, Plan

HEADER = 3
SERIAL_WORK = 24_000
TASK_WORK = 12_000
TASKS_PER_THREAD = 4
DECLARATIONS = "declare void @tg_par_for(i64, i64, i64, i64)\n"


@dataclass(frozen=True)
class Emitted:
    """Object code of a program, with what the runtime must know about it."""

    data: bytes
    text: str
    arena_bytes: int
    families: tuple[str, ...]
    symbols: tuple[str, ...]
    steps: tuple[str, ...]
    timings: dict[str, float]


class Module:
    """Writes the module of one program."""

    def __init__(self, plan: Plan, memory: Memory, threads: int, *, profile: bool = False):
        self.plan = plan
        self.memory = memory
        self.threads = threads
        self.profile = profile
        self.emitter = Emitter()
        self.functions: list[str] = []
        self.symbols_of: dict[tuple[str, str], str] = {}
        self.constants: list[str] = []
        self.entry: list[str] = []
        self.families: dict[str, None] = {}
        self.symbols: dict[str, None] = {}
        self.steps: list[str] = []
        self.scratch = round_up(memory.arena_bytes)
        self.scratch_bytes = 0
        self.arguments = len(plan.graph.inputs)

    def text(self) -> str:
        self.stamp(0)
        for number, step in enumerate(self.plan.steps):
            if isinstance(step, Kernel):
                self.kernel(step, number)
            else:
                self.call(step, number)
            self.stamp(number + 1)
        entry = [
            "define i64 @tg_entry(i64 %address) {",
            "  %table = inttoptr i64 %address to ptr",
            "  %status = getelementptr i64, ptr %table, i64 2",
            "  store i64 0, ptr %status",
            "  %pool = load i64, ptr %table",
            "  %arenaslot = getelementptr i64, ptr %table, i64 1",
            "  %arena = load i64, ptr %arenaslot",
            *self.entry,
            "  %result = load i64, ptr %status",
            "  ret i64 %result",
            "}",
        ]
        declared = "".join(f"declare void @{s}(i64, i64, i64, i64)\n" for s in self.symbols)
        parts = [DECLARATIONS + declared, *self.constants, *self.functions, "\n".join(entry), self.emitter.definitions(), LOOP_HINT]
        return "\n".join(parts)

    def stamp(self, number: int) -> None:
        """When profiling, write the cycle counter into the array behind the last slot of the table."""
        if self.profile:
            slot = HEADER + self.arguments + len(self.plan.outputs)
            self.entry += [
                f"  %clock{number} = call i64 @llvm.readcyclecounter()",
                f"  %stamps{number} = getelementptr i64, ptr %table, i64 {slot}",
                f"  %stamp{number} = load ptr, ptr %stamps{number}",
                f"  %at{number} = getelementptr i64, ptr %stamp{number}, i64 {number}",
                f"  store i64 %clock{number}, ptr %at{number}",
            ]

    # --- kernels ------------------------------------------------------------------------------------------------------

    def tasks(self, kernel: Kernel) -> int:
        """Return into how many tasks to cut a kernel; one means that it is called directly."""
        if self.threads == 1 or kernel.work < SERIAL_WORK or kernel.extent < 2:
            return 1
        return max(1, min(kernel.extent, TASKS_PER_THREAD * self.threads, kernel.work // TASK_WORK))

    def kernel(self, kernel: Kernel, number: int) -> None:
        text = Function(kernel, self.emitter).text()
        symbol = self.symbols_of.get(text)
        if symbol is None:
            symbol = self.symbols_of[text] = f"kernel{len(self.symbols_of)}"
            params, body = text
            self.functions.append(f"define internal void @{symbol}({params}) noinline nounwind {{\n{body}\n}}")
        tasks = self.tasks(kernel)
        self.functions.append(self.task(kernel, number, symbol, tasks))
        if tasks == 1:
            self.entry.append(f"  call void @task{number}(i64 %address, i64 0, i64 0)")
        else:
            task = f"ptrtoint (ptr @task{number} to i64)"
            self.entry.append(f"  call void @tg_par_for(i64 %pool, i64 {task}, i64 %address, i64 {tasks})")
        self.steps.append(f"{kernel.name}: {kernel.extent} rounds in {tasks} task{'s' if tasks > 1 else ''}")

    def task(self, kernel: Kernel, number: int, symbol: str, tasks: int) -> str:
        """Find the buffers and the range of rounds of one task."""
        lines = [
            f"define internal void @task{number}(i64 %address, i64 %i, i64 %thread) {{",
            "  %table = inttoptr i64 %address to ptr",
            "  %status = getelementptr i64, ptr %table, i64 2",
        ]
        args = []
        for i, name in enumerate(kernel.buffers()):
            lines += self.pointer(f"%b{i}", self.memory.places[name])
            args.append(f"ptr %b{i}")
        lines += [f"  %low = mul i64 %i, {kernel.extent}", f"  %lo = udiv i64 %low, {tasks}"]
        lines += [f"  %high = add i64 %low, {kernel.extent}", f"  %hi = udiv i64 %high, {tasks}"]
        args += ["i64 %lo", "i64 %hi", "ptr %status"]
        return "\n".join([*lines, f"  call void @{symbol}({', '.join(args)})", "  ret void", "}"])

    def slot(self, place: Place) -> int:
        return HEADER + place.slot + (self.arguments if place.kind == "result" else 0)

    def pointer(self, name: str, place: Place) -> list[str]:
        """Return the instructions that find a buffer's address."""
        if place.kind == "arena":
            return [
                f"  {name}.a = getelementptr i64, ptr %table, i64 1",
                f"  {name}.p = load ptr, ptr {name}.a",
                f"  {name} = getelementptr i8, ptr {name}.p, i64 {place.slot}",
            ]
        return [
            f"  {name}.a = getelementptr i64, ptr %table, i64 {self.slot(place)}",
            f"  {name} = load ptr, ptr {name}.a",
        ]

    # --- library calls ------------------------------------------------------------------------------------------------

    def call(self, step: Call, number: int) -> None:
        """Call library kernels with their plan as a constant and their operands in a small table on the stack."""
        for part, planned in enumerate(plan_call(step, self.threads)):
            self.library_call(step, f"{number}.{part}", planned)

    def library_call(self, step: Call, number: str, planned: LibraryCall) -> None:
        self.families[planned.family] = None
        self.symbols[planned.symbol] = None
        self.scratch_bytes = max(self.scratch_bytes, planned.scratch_bytes)
        words = ", ".join(f"i64 {w}" for w in planned.plan)
        self.constants.append(f"@plan{number} = internal constant [{len(planned.plan)} x i64] [{words}], align 64")
        names = [buffer_name(v.node) for v in step.operands] + [buffer_name(step.node)]
        table = f"%ops{number}"
        self.entry.append(f"  {table} = alloca [{len(names)} x i64]")
        for i, name in enumerate(names):
            pointer = f"%p{number}.{i}"
            self.entry += self.pointer(pointer, self.memory.places[name])
            offset = step.operands[i].offset * step.operands[i].node.dtype.itemsize if i < len(step.operands) else 0
            self.entry += [
                f"  {pointer}.i = ptrtoint ptr {pointer} to i64",
                f"  {pointer}.o = add i64 {pointer}.i, {offset}",
                f"  {pointer}.s = getelementptr i64, ptr {table}, i64 {i}",
                f"  store i64 {pointer}.o, ptr {pointer}.s",
            ]
        self.entry += [
            f"  {table}.i = ptrtoint ptr {table} to i64",
            f"  %scratch{number} = add i64 %arena, {self.scratch}",
            f"  call void @{planned.symbol}(i64 ptrtoint (ptr @plan{number} to i64), i64 {table}.i, i64 %scratch{number}, i64 %pool)",
        ]
        self.steps.append(f"{step.name} {step.node.aval}: {planned.symbol}, {planned.flops / 1e6:.3g} Mflop")


def emit(plan: Plan, memory: Memory, threads: int, *, profile: bool = False) -> Emitted:
    """Write and compile the module of a plan; with `profile`, every step is timed."""
    began = time.perf_counter()
    module = Module(plan, memory, threads, profile=profile)
    text = module.text()
    written = time.perf_counter()
    data = compile_ir(text, "tracegrad_program")
    done = time.perf_counter()
    return Emitted(
        data,
        text,
        module.scratch + round_up(module.scratch_bytes) + 64,
        tuple(module.families),
        tuple(module.symbols),
        tuple(module.steps),
        {"emit": written - began, "llvm": done - written},
    )


def show_source(plan: Plan, memory: Memory) -> str:
    """Return the readable source of all kernels, in order."""
    names = {name: str(place).replace("+", "_") for name, place in memory.places.items()}
    parts = []
    for step in plan.steps:
        if isinstance(step, Kernel):
            parts.append(show_kernel(step, {b: f"{names[b]}" for b in step.buffers()}))
        else:
            args = ", ".join(names[buffer_name(v.node)] for v in step.operands)
            parts.append(f"{names[buffer_name(step.node)]} = {step.name}({args})  # {step.node.aval}")
    return "\n\n".join(parts)
