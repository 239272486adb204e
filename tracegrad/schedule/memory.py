"""Where every buffer lives: in an argument, in a result, or at an offset in the arena.

The arena holds what lives between two steps only. Buffers whose lifetimes do not meet share memory; offsets are
multiples of 64 bytes. A result may take over the memory of a donated argument when nothing reads the argument
afterwards, or when the one kernel that writes the result reads the argument at exactly the element it writes; the
epilogue of a library call counts as such a kernel. A result of a library call that only its epilogue reads lies where a
value of the epilogue replaces it. A value that is read for the last time where it is copied (to be scattered to, or as
the start of a loop's carry) is that copy: `codegen.entry` and `codegen.regions` leave out the copying.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tracegrad.ir.aval import DTYPES
from tracegrad.schedule.body import buffer_name
from tracegrad.schedule.index import Affine
from tracegrad.schedule.kernel import Kernel, Load, Loop, Stmt, Store, walk
from tracegrad.schedule.plan import Call, Plan, taken_over, touched

ALIGNMENT = 64


@dataclass(frozen=True)
class Place:
    """A buffer's memory: argument or result number `slot`, or the arena at `offset`."""

    kind: str
    slot: int
    nbytes: int

    def __str__(self) -> str:
        return f"arena+{self.slot}" if self.kind == "arena" else f"{self.kind}{self.slot}"


@dataclass(frozen=True)
class Memory:
    """All places, the arena's size in bytes, and which results live in which donated argument."""

    places: dict[str, Place]
    arena_bytes: int
    donated: dict[int, int]


def round_up(n: int) -> int:
    return -(-n // ALIGNMENT) * ALIGNMENT


def assign_memory(plan: Plan, donate: Sequence[int] = (), *, carries: bool = False) -> Memory:
    """Give every buffer of a plan its place; of a loop's carries, result i may only take over argument i."""
    sizes = {name: DTYPES[dtype].itemsize * size for name, (dtype, size) in plan.buffers.items()}
    places: dict[str, Place] = {}
    for slot, node in enumerate(plan.graph.inputs):
        name = buffer_name(node)
        places[name] = Place("argument", slot, node.aval.nbytes)
    steps: dict[str, list[int]] = {}
    for at, step in enumerate(plan.steps):
        for name in touched(step):
            steps.setdefault(name, []).append(at)
    order = {name: i for i, name in enumerate(steps)}
    moved = moves(plan, steps, {*places, *plan.outputs})
    donated = match_donations(plan, donate, steps, moved, carries)
    for slot, name in enumerate(plan.outputs):
        if slot in donated:
            places[name] = places[buffer_name(plan.graph.inputs[donated[slot]])]
        else:
            places[name] = Place("result", slot, sizes[name])
    lifetimes = {name: (found[0], found[-1]) for name, found in steps.items() if name not in places}
    for name in plan.tapes:
        lifetimes[name] = (0, len(plan.steps))
    replaced = replacements(plan, lifetimes, places, moved)
    for name in replaced:
        del lifetimes[name]
    arena = Arena()
    for name in sorted(lifetimes, key=lambda n: (-sizes[n], lifetimes[n], order[n])):
        places[name] = Place("arena", arena.take(round_up(max(sizes[name], 1)), *lifetimes[name]), sizes[name])
    places |= {name: places[other] for name, other in moved.items()}
    places |= {name: places[other] for name, other in replaced.items()}
    return Memory(places, arena.size, donated)


def moves(plan: Plan, steps: dict[str, list[int]], fixed: Container[str]) -> dict[str, str]:
    """Return, for the values that are read for the last time where they are copied, the copies: they are one buffer.

    The steps of a value are counted as its copy's from then on. `fixed` are arguments and results.
    """
    found: dict[str, str] = {}
    for at in reversed(range(len(plan.steps))):
        for source, copy in taken_over(plan.steps[at]).items():
            if source in found or source in fixed or plan.buffers.get(source) != plan.buffers.get(copy):
                continue
            home = found.get(copy, copy)
            if steps[source][-1] == at and steps[home][0] == at:
                found[source] = home
                steps[home] = [*steps.pop(source), *steps[home]]
    return found


def replacements(
    plan: Plan, lifetimes: dict[str, tuple[int, int]], places: dict[str, Place], moved: Mapping[str, str]
) -> dict[str, str]:
    """Return, for the results of calls that only their epilogue reads, the value that is written over them.

    It has the same dtype, and does not live in an argument that the call or its epilogue reads.
    """
    found: dict[str, str] = {}
    arguments = [buffer_name(n) for n in plan.graph.inputs]
    for at, step in enumerate(plan.steps):
        if not isinstance(step, Call) or step.epilogue is None:
            continue
        name = buffer_name(step.node)
        if lifetimes.get(name) != (at, at):
            continue
        read = {places[b] for b in touched(step) if b in arguments}
        for stored in walk(step.epilogue.body):
            if not isinstance(stored, Store) or plan.buffers.get(stored.buffer) != plan.buffers[name]:
                continue
            home = places.get(moved.get(stored.buffer, stored.buffer))
            if home not in read and is_overwritten(step.epilogue.body, name, stored.buffer):
                found[name] = stored.buffer
                break
    return found


def is_overwritten(body: Sequence[Stmt], name: str, by: str) -> bool:
    """Say whether a block of `name` is read for the last time where `by` is written, at the same element."""
    last = max((i for i, s in enumerate(body) if isinstance(s, Loop) and mentions(s.body, name, by)), default=None)
    if last is None:
        return same_element(body, name, by)
    loop = body[last]
    assert isinstance(loop, Loop)
    return not mentions(body[:last], by) and not mentions([s for s in body[last:] if s is not loop], name, by) and (
        same_element(loop.body, name, by)
    )


class Arena:
    """What lies where from which step to which: a table of start, stop, first and last step, in order of the starts.

    Every buffer meets a good part of all others in a graph with its gradient, so what looks at one pair at a time takes
    longer than everything else in a schedule of thousands of steps.
    """

    def __init__(self) -> None:
        self.table = np.zeros((4, 0), np.int64)
        self.size = 0

    def take(self, size: int, first: int, last: int) -> int:
        """Take the lowest `size` bytes that are free from step `first` to `last`; return their offset."""
        meets = (self.table[2] <= last) & (self.table[3] >= first)
        starts, stops = self.table[:2, meets]
        reached = np.maximum.accumulate(np.concatenate([[0], stops]))
        gaps = np.flatnonzero(starts - reached[:-1] >= size)
        offset = int(reached[gaps[0] if gaps.size else -1])
        at = int(np.searchsorted(self.table[0], offset))
        self.table = np.insert(self.table, at, (offset, offset + size, first, last), axis=1)
        self.size = max(self.size, offset + size)
        return offset


def match_donations(
    plan: Plan, donate: Sequence[int], steps: Mapping[str, list[int]], moved: Mapping[str, str], carries: bool
) -> dict[int, int]:
    """Return result number -> argument number for the donations that are safe; `steps` are those of each buffer."""
    free = [i for i in donate if plan.graph.inputs[i].aval.size]
    found: dict[int, int] = {}
    for slot, name in enumerate(plan.outputs):
        aval = plan.graph.outputs[slot].aval
        for argument in free:
            given = plan.graph.inputs[argument]
            if carries and argument != slot:
                continue
            if given.aval == aval and is_safe(plan, buffer_name(given), name, steps, moved):
                found[slot] = argument
                free.remove(argument)
                break
    return found


def is_safe(
    plan: Plan, given: str, result: str, steps: Mapping[str, list[int]], moved: Mapping[str, str]
) -> bool:
    """Say whether `result` may be written into the memory of `given`."""
    writes, reads = steps.get(result, []), steps.get(given, [])
    if not writes:
        return False
    first = writes[0]
    if any(at > first for at in reads):
        return False
    if first not in reads:
        return True
    step = plan.steps[first]
    copy = taken_over(step).get(given, "")
    if copy and moved.get(copy, copy) == result:
        return True
    if isinstance(step, Call):
        kernel = None if given in {buffer_name(v.node) for v in step.operands} else step.epilogue
    else:
        kernel = step if isinstance(step, Kernel) else None
    return kernel is not None and same_element(kernel.body, given, result)


def same_element(body: Sequence[Stmt], given: str, result: str) -> bool:
    """Say whether every read of `given` stands in the same loop as the one write of `result`, at the same index,
    before it."""
    for s in body:
        if isinstance(s, Loop) and mentions(s.body, given, result):
            inside = [x for x in body if x is not s]
            return not mentions(inside, given, result) and same_element(s.body, given, result)
    indices: set[Affine] = set()
    stored = 0
    for s in body:
        if isinstance(s, Load) and s.buffer == given:
            if stored or s.guard is not None:
                return False
            indices.add(s.index)
        elif isinstance(s, Load) and s.buffer == result:
            return False
        elif isinstance(s, Store) and s.buffer == result:
            stored += 1
            indices.add(s.index)
    return stored == 1 and len(indices) == 1


def mentions(body: Sequence[Stmt], *names: str) -> bool:
    return any(
        (isinstance(s, (Load, Store)) and s.buffer in names) or (isinstance(s, Loop) and mentions(s.body, *names))
        for s in body
    )
