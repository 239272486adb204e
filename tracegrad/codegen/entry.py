"""One plan -> one LLVM function that runs its steps in order.

    i64 entry(i64 table)       table: [pool, arena, status, arguments..., results...], all addresses

The main entry and the bodies of loops and branches are the same kind of function: a loop fills the table of its body
anew in every round and calls it. The status is 0, or the code of an index check that failed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from textwrap import indent

from tracegrad.codegen.blocks import BLOCK, on_blocks
from tracegrad.codegen.calls import plan_call
from tracegrad.codegen.loops import Function
from tracegrad.codegen.module import Module
from tracegrad.codegen.plan import EPILOGUE, EPILOGUE_TABLE, LibraryCall, round_up
from tracegrad.codegen.region_text import may_stop
from tracegrad.codegen.regions import RegionWriter
from tracegrad.codegen.rewind_region import RewindWriter
from tracegrad.codegen.table_layout import HEADER
from tracegrad.ops.rewind import rewind
from tracegrad.schedule.body import buffer_name
from tracegrad.schedule.kernel import Kernel, copied, rename_buffers
from tracegrad.schedule.memory import Memory, Place, assign_memory
from tracegrad.schedule.plan import Call, Plan, Region

SERIAL_WORK = 24_000
TASK_WORK = 12_000
TASKS_PER_THREAD = 4
INLINED_WORK = 64
"""Kernels of loop bodies up to this much work become part of the loop."""
TABLE = ("  %table = inttoptr i64 %address to ptr", "  %status = getelementptr i64, ptr %table, i64 2")


class Entry:
    """Writes the function of one plan. Sizes are known once it is written: `arena_bytes` includes scratch and
    inner plans."""

    def __init__(
        self, module: Module, plan: Plan, donate: Sequence[int] = (), *, symbol: str = "", profile: bool = False
    ):
        self.module = module
        self.plan = plan
        self.inner = symbol == ""
        self.symbol = symbol or f"inner{module.entries}"
        self.steps: list[str] = []
        module.entries += 1
        self.profile = profile
        self.lines: list[str] = []
        self.stack: list[str] = []
        self.block = "entry"
        self.arguments = len(plan.graph.inputs)
        self.bodies: dict[int, list[Entry]] = {}
        self.prepare()
        self.memory: Memory = assign_memory(plan, donate, carries=self.inner)
        if self.inner:
            self.keep_scalars()
        self.scratch = round_up(self.memory.arena_bytes)
        self.scratch_bytes = 0
        self.write()

    @property
    def arena_bytes(self) -> int:
        return self.scratch + round_up(self.scratch_bytes) + 64

    def prepare(self) -> None:
        """Write the functions of loop bodies and branches first: their memory is part of this plan's arena."""
        for number, step in enumerate(self.plan.steps):
            if isinstance(step, Region):
                bodies = self.bodies[number] = [
                    Entry(self.module, plan, same_places(step, plan)) for plan in step.plans
                ]
                self.plan.buffers[step.workspace[0]] = ("u8", max(b.arena_bytes for b in bodies))

    def keep_scalars(self) -> None:
        """Give the scalars between the steps of a loop body stack slots, which LLVM turns into registers.

        What tasks and the epilogues of library calls read or write stays: those are functions of their own.
        """
        shared = {b for s in self.plan.steps if isinstance(s, Kernel) and self.tasks(s) > 1 for b in s.buffers()}
        epilogues = [s.epilogue for s in self.plan.steps if isinstance(s, Call) and s.epilogue is not None]
        shared |= {b for epilogue in epilogues for b in epilogue.buffers()}
        for name, place in self.memory.places.items():
            if place.kind == "arena" and name not in shared and self.plan.buffers[name][1] == 1:
                self.memory.places[name] = Place("stack", len(self.stack), place.nbytes)
                self.reserve(f"%local{len(self.stack)}", f"[{place.nbytes} x i8]")

    def reserve(self, name: str, kind: str) -> None:
        """Reserve memory on the stack, once per call and not per round of a loop in it."""
        self.stack.append(f"  {name} = alloca {kind}, align 8")

    def write(self) -> None:
        self.stamp(0)
        for number, step in enumerate(self.plan.steps):
            match step:
                case Kernel():
                    self.steps.append(self.kernel(step, number))
                case Call():
                    self.steps.append(self.call(step, number))
                case Region():
                    self.steps.append(self.region(step, number))
            self.stamp(number + 1)
        if not self.inner:
            self.module.steps = self.steps
        clear = [] if self.inner else ["  store i64 0, ptr %status"]
        first, last = self.tapes()
        body = [
            "entry:",
            *self.stack,
            *TABLE,
            *clear,
            "  %pool = load i64, ptr %table",
            "  %arenaslot = getelementptr i64, ptr %table, i64 1",
            "  %arena = load i64, ptr %arenaslot",
            *first,
            *self.lines,
            "  br label %finish",
            "finish:",
            *last,
            "  %result = load i64, ptr %status",
            "  ret i64 %result",
        ]
        self.module.define(f"i64 @{self.symbol}(i64 %address)", "\n".join(body))

    def tapes(self) -> tuple[list[str], list[str]]:
        """Return the instructions that mark tapes as empty at the start, and free them at the end."""
        first: list[str] = []
        last: list[str] = []
        for i, name in enumerate(self.plan.tapes):
            first += [*self.pointer(f"%tape{i}", self.memory.places[name]), f"  store i64 0, ptr %tape{i}"]
            last += [f"  %rows{i} = load ptr, ptr %tape{i}", f"  call void @free(ptr %rows{i})"]
        return first, last

    def stamp(self, number: int) -> None:
        """When profiling, write the cycle counter into the array behind the last slot of the table."""
        if self.profile:
            slot = HEADER + self.arguments + len(self.plan.outputs)
            self.lines += [
                f"  %clock{number} = call i64 @llvm.readcyclecounter()",
                f"  %stamps{number} = getelementptr i64, ptr %table, i64 {slot}",
                f"  %stamp{number} = load ptr, ptr %stamps{number}",
                f"  %at{number} = getelementptr i64, ptr %stamp{number}, i64 {number}",
                f"  store i64 %clock{number}, ptr %at{number}",
            ]

    # --- kernels ------------------------------------------------------------------------------------------------------

    def tasks(self, kernel: Kernel) -> int:
        """Return into how many tasks to cut a kernel; one means that it is called directly."""
        if self.module.threads == 1 or kernel.work < SERIAL_WORK or kernel.extent < 2:
            return 1
        return max(1, min(kernel.extent, TASKS_PER_THREAD * self.module.threads, kernel.work // TASK_WORK))

    def kernel(self, kernel: Kernel, number: int) -> str:
        module = self.module
        kernel = self.without_aliases(kernel)
        source, copy = copied(kernel.body)
        if source and source == copy:
            return f"{kernel.name}: in place, nothing to copy"
        inlined = self.inner and kernel.work <= INLINED_WORK
        symbol = module.kernel(Function(kernel, module.emitter).text(), "alwaysinline" if inlined else "noinline")
        tasks = self.tasks(kernel)
        name = f"{self.symbol}.task{number}"
        if tasks > 1:
            module.define(f"void @{name}(i64 %address, i64 %i, i64 %thread)", self.task(kernel, symbol, tasks), symbol)
            address = f"ptrtoint (ptr @{name} to i64)"
            self.lines.append(f"  call void @tg_par_for(i64 %pool, i64 {address}, i64 %address, i64 {tasks})")
        elif self.inner:  # it may use the stack
            finds, args = self.arguments_of(kernel, f"%k{number}.")
            args += ["i64 0", f"i64 {kernel.extent}", "ptr %status"]
            self.lines += [*finds, f"  call void @{symbol}({', '.join(args)})"]
            module.called.add(symbol)
        else:
            module.define(f"void @{name}(i64 %address)", self.task(kernel, symbol, 1), symbol)
            self.lines.append(f"  call void @{name}(i64 %address)")
        return f"{kernel.name}: {kernel.extent} rounds in {tasks} task{'s' if tasks > 1 else ''}"

    def without_aliases(self, kernel: Kernel) -> Kernel:
        """Give buffers in one place, such as a donated argument and its result, one name: parameters are `noalias`."""
        first: dict[Place, str] = {}
        for name in kernel.buffers():
            first.setdefault(self.memory.places[name], name)
        names = {name: first[self.memory.places[name]] for name in kernel.buffers()}
        twice = {old: new for old, new in names.items() if old != new}
        return replace(kernel, body=rename_buffers(kernel.body, twice)) if twice else kernel

    def task(self, kernel: Kernel, symbol: str, tasks: int) -> str:
        """Return the body of a task, number %i of `tasks`: it finds the buffers, and its range of rounds."""
        finds, args = self.arguments_of(kernel, "%")
        lines = [*TABLE, *finds]
        if tasks == 1:
            args += ["i64 0", f"i64 {kernel.extent}"]
        else:
            lines += [f"  %low = mul i64 %i, {kernel.extent}", f"  %lo = udiv i64 %low, {tasks}"]
            lines += [f"  %high = add i64 %low, {kernel.extent}", f"  %hi = udiv i64 %high, {tasks}"]
            args += ["i64 %lo", "i64 %hi"]
        return "\n".join([*lines, f"  call void @{symbol}({', '.join(args)}, ptr %status)", "  ret void"])

    def arguments_of(self, kernel: Kernel, prefix: str) -> tuple[list[str], list[str]]:
        """Return the instructions that find a kernel's buffers, and the arguments that hand them over."""
        finds: list[str] = []
        buffers = kernel.buffers()
        for i, buffer in enumerate(buffers):
            finds += self.pointer(f"{prefix}b{i}", self.memory.places[buffer])
        return finds, [f"ptr {prefix}b{i}" for i in range(len(buffers))]

    def slot(self, place: Place) -> int:
        return HEADER + place.slot + (self.arguments if place.kind == "result" else 0)

    def pointer(self, name: str, place: Place) -> list[str]:
        """Return the instructions that find a buffer's address."""
        if place.kind == "stack":
            return [f"  {name} = getelementptr i8, ptr %local{place.slot}, i64 0"]
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

    def call(self, step: Call, number: int) -> str:
        """Call library kernels with their plan as a constant and their operands in a small table on the stack."""
        planned = plan_call(step, self.module.threads)
        epilogue = ""
        if step.epilogue is not None and len(planned) == 1 and planned[0].takes_epilogue:
            epilogue = self.epilogue(step.epilogue, step.node.aval.size, planned[0].grain, number)
        for part, one in enumerate(planned):
            self.library_call(step, f"{number}.{part}", one, epilogue or "0")
        flops = sum(one.flops for one in planned) / 1e6
        why = "".join(f"; {one.why}" for one in planned if one.why)
        text = f"{step.name} {step.node.aval}: {', '.join(one.symbol for one in planned)}, {flops:.3g} Mflop{why}"
        if epilogue and step.epilogue:
            return f"{text}; {step.epilogue.name} on its blocks"
        return f"{text}; then {self.kernel(step.epilogue, number)}" if step.epilogue else text

    def epilogue(self, kernel: Kernel, size: int, grain: int, number: int) -> str:
        """Write the function that a library kernel calls for each block; return its address, or "" if there is none."""
        blocks = on_blocks(self.without_aliases(kernel), size, grain, self.module.emitter)
        if blocks is None:
            return ""
        symbol = self.module.kernel(blocks.function.text())
        name = f"{self.symbol}.block{number}"
        self.module.define(f"void @{name}({BLOCK})", blocks.task(self, symbol), symbol)
        return f"ptrtoint (ptr @{name} to i64)"

    def library_call(self, step: Call, number: str, planned: LibraryCall, epilogue: str = "0") -> None:
        self.module.families[planned.family] = None
        self.module.symbols[planned.symbol] = None
        self.scratch_bytes = max(self.scratch_bytes, planned.scratch_bytes)
        words = ", ".join(f"i64 {w}" for w in planned.plan)
        constant = f"@{self.symbol}.plan{number}"
        self.module.constants.append(f"{constant} = internal constant [{len(planned.plan)} x i64] [{words}], align 64")
        names = [buffer_name(v.node) for v in step.operands] + [buffer_name(step.node)]
        table = f"%ops{number}"
        self.reserve(table, f"[{max(len(names), EPILOGUE_TABLE + 1)} x i64]")
        for i, name in enumerate(names):
            pointer = f"%p{number}.{i}"
            self.lines += self.pointer(pointer, self.memory.places[name])
            offset = step.operands[i].offset * step.operands[i].node.dtype.itemsize if i < len(step.operands) else 0
            self.lines += [
                f"  {pointer}.i = ptrtoint ptr {pointer} to i64",
                f"  {pointer}.o = add i64 {pointer}.i, {offset}",
                f"  {pointer}.s = getelementptr i64, ptr {table}, i64 {i}",
                f"  store i64 {pointer}.o, ptr {pointer}.s",
            ]
        for i, word in ((EPILOGUE, epilogue), (EPILOGUE_TABLE, "%address")) if len(names) <= EPILOGUE else ():
            self.lines += [
                f"  %e{number}.{i} = getelementptr i64, ptr {table}, i64 {i}",
                f"  store i64 {word}, ptr %e{number}.{i}",
            ]
        args = f"i64 ptrtoint (ptr {constant} to i64), i64 {table}.i, i64 %scratch{number}, i64 %pool"
        self.lines += [
            f"  {table}.i = ptrtoint ptr {table} to i64",
            f"  %scratch{number} = add i64 %arena, {self.scratch}",
            f"  call void @{planned.symbol}({args})",
        ]

    # --- control flow -------------------------------------------------------------------------------------------------

    def region(self, step: Region, number: int) -> str:
        """Write a loop or a branch around the functions of its graphs; when it ends early, nothing else runs."""
        writer = RewindWriter if step.node.prim is rewind else RegionWriter
        text = writer(self, step, self.bodies[number], f"r{number}").write()
        if may_stop(step):
            state = f"%state{number}"
            self.lines += [
                f"  {state} = load i64, ptr %status",
                f"  {state}.fine = icmp eq i64 {state}, 0",
                f"  br i1 {state}.fine, label %go{number}, label %finish",
                f"go{number}:",
            ]
        inner = [f"{b.plan.graph.name}: {line}" for b in self.bodies[number] for line in b.steps]
        return "\n".join([text, *(indent(line, "     ") for line in inner)])


def same_places(step: Region, plan: Plan) -> tuple[int, ...]:
    """Return the carries that a loop body may update in place."""
    if step.node.prim is rewind:
        return tuple(range(len(plan.outputs)))
    carries = len(step.workspace) - 2
    return tuple(range(carries)) if carries and plan is step.plans[-1] else ()

