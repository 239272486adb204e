"""What the code of every loop and branch is made of: the table of a body, its call, and what ends a loop early."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tracegrad.codegen.caller_layout import INTERRUPTED
from tracegrad.codegen.table_layout import HEADER
from tracegrad.ops.control import scan, while_loop
from tracegrad.ops.rewind import rewind
from tracegrad.schedule.body import buffer_name
from tracegrad.schedule.kernel import Kernel
from tracegrad.schedule.memory import Memory, Place
from tracegrad.schedule.plan import Plan, Region

POLL_ROUNDS = 1 << 16
POLL_WORK = 1 << 22
"""Ctrl-C is looked for after this many rounds, or after about this many operations of them."""
LONG_SCAN = 1 << 30
SCAN_POLL_WORK = 1 << 28
"""A scan of about so many operations takes a second: shorter ones are not interrupted. To ask takes Python's lock,
which other threads may hold for milliseconds, so long scans ask seldom."""


class Parent(Protocol):
    """The function that a region is written into, and the functions of its graphs."""

    lines: list[str]
    memory: Memory
    plan: Plan
    symbol: str

    def pointer(self, name: str, place: Place) -> list[str]: ...

    def reserve(self, name: str, kind: str) -> None: ...


def round_work(plan: Plan) -> int:
    """Return about how many operations one run of a plan takes."""
    total = 16
    for step in plan.steps:
        match step:
            case Kernel(work=work):
                total += work
            case Region(node=node, plans=plans):
                rounds = node.params["length"] if node.prim is scan else 64
                total += rounds * sum(round_work(p) for p in plans)
            case _:
                total += 1 << 14
    return total


def rounds_of(plan: Plan, work: int) -> int:
    """Return how many runs of a plan take about so many operations: a power of two."""
    return 1 << max(0, -(-work // round_work(plan)) - 1).bit_length()


def is_long(step: Region) -> bool:
    """Say whether a region is a scan that a user may want to stop."""
    return step.node.prim is scan and step.node.params["length"] * round_work(step.plans[0]) >= LONG_SCAN


def may_stop(step: Region) -> bool:
    """Say whether a region can end early: with a long loop in it, which Ctrl-C or a full memory ends."""
    return step.node.prim in (while_loop, rewind) or is_long(step) or any(has_stop(plan) for plan in step.plans)


def has_stop(plan: Plan) -> bool:
    return any(isinstance(step, Region) and may_stop(step) for step in plan.steps)


class RegionText:
    """The lines of one region; every name starts with `%` and the region's own prefix."""

    def __init__(self, parent: Parent, step: Region, bodies: Sequence[Parent], prefix: str):
        self.parent = parent
        self.step = step
        self.bodies = bodies
        self.prefix = prefix
        self.lines = parent.lines
        self.block = ""
        self.values = 0
        self.tapes: list[int] = []

    def begin(self) -> None:
        """Name the addresses of operands, results and workspace."""
        self.start_block(f"{self.prefix}.begin", jump=True)
        for i, view in enumerate(self.step.operands):
            self.address(f"op{i}", buffer_name(view.node))
        for i, name in enumerate(self.step.results):
            self.address(f"out{i}", name)
        for i, name in enumerate(self.step.workspace):
            self.address(f"work{i}", name)

    def add(self, line: str) -> None:
        self.lines.append(f"  {line}")

    def name(self, text: str) -> str:
        return f"%{self.prefix}.{text}"

    def start_block(self, label: str, *, jump: bool = False) -> None:
        if jump:
            self.add(f"br label %{label}")
        self.lines.append(f"{label}:")
        self.block = label

    def address(self, short: str, buffer: str) -> None:
        """Define `%prefix.short` as the address of a buffer, as a pointer."""
        self.lines += self.parent.pointer(self.name(short), self.parent.memory.places[buffer])

    def table(self, short: str, body: Parent) -> None:
        """Reserve the table of a body and fill in what does not change: pool, arena, status."""
        slots = HEADER + len(body.plan.graph.inputs) + len(body.plan.outputs)
        table = self.name(short)
        self.parent.reserve(table, f"[{slots} x i64]")
        self.add(f"{table}.i = ptrtoint ptr {table} to i64")
        self.add(f"{table}.arena = ptrtoint ptr {self.name('work0')} to i64")
        for slot, value in enumerate(("%pool", f"{table}.arena", "0")):
            self.add(f"{table}.h{slot} = getelementptr i64, ptr {table}, i64 {slot}")
            self.add(f"store i64 {value}, ptr {table}.h{slot}")

    def put(self, short: str, slot: int, pointer: str, suffix: str = "") -> None:
        """Store a pointer into a slot of a table."""
        place = f"{self.name(short)}.s{slot}{suffix}"
        self.add(f"{place} = getelementptr i64, ptr {self.name(short)}, i64 {slot}")
        self.add(f"store ptr {pointer}, ptr {place}")

    def call(self, short: str, body: Parent) -> None:
        self.add(f"call i64 @{body.symbol}(i64 {self.name(short)}.i)")

    def copy(self, target: str, source: str, nbytes: str | int) -> None:
        self.add(f"call void @llvm.memcpy.p0.p0.i64(ptr {target}, ptr {source}, i64 {nbytes}, i1 false)")

    def pass_status(self, *shorts: str) -> None:
        """Hand a failed index check of a body on to the caller."""
        for short in shorts:
            name = f"{self.name(short)}.st"
            self.add(f"{name} = load i64, ptr {self.name(short)}.h2")
            self.add(f"{name}.own = load i64, ptr %status")
            self.add(f"{name}.any = icmp ne i64 {name}, 0")
            self.add(f"{name}.new = select i1 {name}.any, i64 {name}, i64 {name}.own")
            self.add(f"store i64 {name}.new, ptr %status")

    def stop_on_failure(self, short: str, body: Parent, after: str) -> None:
        """Leave the loop when a loop inside of its body has ended early; other bodies are not asked."""
        if not has_stop(body.plan):
            return
        name = f"{self.name(short)}.now"
        self.add(f"{name} = load i64, ptr {self.name(short)}.h2")
        self.add(f"{name}.fails = icmp ne i64 {name}, 0")
        self.add(f"br i1 {name}.fails, label %{after}, label %{self.prefix}.{short}.fine")
        self.start_block(f"{self.prefix}.{short}.fine")

    def row_of(self, short: str, row: str, nbytes: int) -> str:
        """Return the address of one slice."""
        name = f"{self.name(short)}.slice"
        self.add(f"{name}.o = mul i64 {row}, {nbytes}")
        self.add(f"{name} = getelementptr i8, ptr {self.name(short)}, i64 {name}.o")
        return name

    def poll(self, i: str, after: str, part: str = "") -> None:
        """Now and then ask whether the user wants to stop: Ctrl-C ends the loop with its own status."""
        plan = self.step.plans[-1]
        is_scan = self.step.node.prim is scan
        period = rounds_of(plan, SCAN_POLL_WORK) if is_scan else min(POLL_ROUNDS, rounds_of(plan, POLL_WORK))
        due, asked, go_on = (f"{self.prefix}.{short}{part}" for short in ("due", "asked", "go"))
        self.add(f"{i}.phase = and i64 {i}, {period - 1}")
        self.add(f"{i}.due = icmp eq i64 {i}.phase, {period - 1}")
        self.add(f"br i1 {i}.due, label %{due}, label %{go_on}")
        self.start_block(due)
        self.add(f"{i}.stop = call i64 @tg_poll()")
        self.add(f"{i}.stops = icmp ne i64 {i}.stop, 0")
        self.add(f"br i1 {i}.stops, label %{asked}, label %{go_on}")
        self.start_block(asked)
        self.add(f"store i64 {INTERRUPTED}, ptr %status")
        self.add(f"br label %{after}")
        self.start_block(go_on)
