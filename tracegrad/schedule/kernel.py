"""The Kernel IR: a loop nest over scalars. It prints as the Python loop nest that is its own reference interpreter.

    Kernel(lo, hi)           parallel: `p` runs over lo..hi of the product of `outer` extents, which are the outer loops
      Loop                   one sequential loop; the innermost is what LLVM vectorises
        Load Compute Store   one scalar each
        Accumulate           acc = combine(acc, value)

Values have names and dtypes. Indices are affine in loop variables and in integer values (that is how gather reads).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from tracegrad.errors import Where
from tracegrad.schedule.index import Affine


@dataclass(frozen=True, slots=True)
class Const:
    """A scalar constant."""

    value: bool | int | float
    dtype: str


Value: TypeAlias = str | Const


@dataclass(frozen=True, slots=True)
class Guard:
    """Conditions `low <= index < high`, all of which must hold for a load to happen."""

    conditions: tuple[tuple[Affine, int, int], ...]


@dataclass(frozen=True, slots=True)
class Load:
    """name = buffer[index], or `fill` where the guard does not hold."""

    name: str
    dtype: str
    buffer: str
    index: Affine
    guard: Guard | None = None
    fill: float = 0.0


@dataclass(frozen=True, slots=True)
class Compute:
    """name = text with {0}, {1}, ... replaced by args; text is a primitive's scalar code."""

    name: str
    dtype: str
    text: str
    args: tuple[tuple[Value, str], ...]
    where: Where | None = None


@dataclass(frozen=True, slots=True)
class IndexValue:
    """name = an index as a number."""

    name: str
    dtype: str
    index: Affine


@dataclass(frozen=True, slots=True)
class Test:
    """name = whether the guard holds."""

    name: str
    guard: Guard


@dataclass(frozen=True, slots=True)
class Checked:
    """name = an index made non-negative; out of bounds it raises error `code` and reads position 0."""

    name: str
    value: Value
    dtype: str
    size: int
    code: int


@dataclass(frozen=True, slots=True)
class Store:
    """buffer[index] = value, where the guard holds."""

    buffer: str
    index: Affine
    value: Value
    dtype: str
    guard: Guard | None = None


@dataclass(frozen=True, slots=True)
class Declare:
    """acc = init: an accumulator that lives in a register."""

    name: str
    dtype: str
    init: Const


@dataclass(frozen=True, slots=True)
class Accumulate:
    """acc = combine(acc, value), in any order."""

    acc: str
    dtype: str
    text: str
    value: Value


@dataclass(frozen=True, slots=True)
class ReadAcc:
    """name = acc."""

    name: str
    dtype: str
    acc: str


@dataclass(frozen=True, slots=True)
class Local:
    """A small array on the stack of the running task."""

    name: str
    dtype: str
    size: int


@dataclass(frozen=True, slots=True)
class Loop:
    """for var in range(start, min(start + extent, limit)): body"""

    var: str
    extent: int
    body: tuple[Stmt, ...]
    start: Affine = Affine()
    limit: int | None = None


Stmt: TypeAlias = (
    Load | Compute | IndexValue | Test | Checked | Store | Declare | Accumulate | ReadAcc | Local | Loop
)


@dataclass(frozen=True)
class Kernel:
    """A loop nest; `outer` are the loops that tasks share, `buffers` name -> dtype in order of first use."""

    name: str
    outer: tuple[tuple[str, int], ...]
    body: tuple[Stmt, ...]
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    work: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def extent(self) -> int:
        total = 1
        for _, n in self.outer:
            total *= n
        return total

    def buffers(self) -> dict[str, str]:
        """Map the buffers that the body touches to their dtypes; arrays on the stack are left out."""
        local = {s.name for s in walk(self.body) if isinstance(s, Local)}
        found: dict[str, str] = {}
        for s in walk(self.body):
            if isinstance(s, (Load, Store)) and s.buffer not in local:
                found.setdefault(s.buffer, s.dtype)
        return found


def walk(body: tuple[Stmt, ...]) -> Iterator[Stmt]:
    """Yield every statement, outermost first."""
    for s in body:
        yield s
        if isinstance(s, Loop):
            yield from walk(s.body)


def affines(body: tuple[Stmt, ...]) -> Iterator[Affine]:
    """Yield every index expression of a body."""
    for s in walk(body):
        match s:
            case Load(index=index, guard=guard):
                yield index
                if guard is not None:
                    yield from (a for a, _, _ in guard.conditions)
            case Test(guard=guard):
                yield from (a for a, _, _ in guard.conditions)
            case Store(index=index, guard=guard):
                yield index
                if guard is not None:
                    yield from (a for a, _, _ in guard.conditions)
            case IndexValue(index=index):
                yield index
            case Loop(start=start):
                yield start


def substitute(body: tuple[Stmt, ...], values: dict[str, Affine]) -> tuple[Stmt, ...]:
    """Replace loop variables in every index expression."""
    def within(guard: Guard) -> Guard:
        return Guard(tuple((a.substitute(values), lo, hi) for a, lo, hi in guard.conditions))

    out: list[Stmt] = []
    for s in body:
        match s:
            case Load() | Store():
                guard = within(s.guard) if s.guard is not None else None
                out.append(replace(s, index=s.index.substitute(values), guard=guard))
            case Test():
                out.append(replace(s, guard=within(s.guard)))
            case IndexValue():
                out.append(replace(s, index=s.index.substitute(values)))
            case Loop():
                out.append(replace(s, start=s.start.substitute(values), body=substitute(s.body, values)))
            case _:
                out.append(s)
    return tuple(out)


def rename_buffers(body: tuple[Stmt, ...], names: dict[str, str]) -> tuple[Stmt, ...]:
    """Replace buffer names, for instance after two buffers have been put into one place."""
    out: list[Stmt] = []
    for s in body:
        match s:
            case Load() | Store() if s.buffer in names:
                out.append(replace(s, buffer=names[s.buffer]))
            case Loop():
                out.append(replace(s, body=rename_buffers(s.body, names)))
            case _:
                out.append(s)
    return tuple(out)


def copied(body: Sequence[Stmt]) -> tuple[str, str]:
    """Return which buffer a kernel copies as it is to which other one, empty names if it does anything else."""
    match body:
        case [Loop(body=inside)]:
            return copied(inside)
        case [Load(guard=None) as load, Store(guard=None) as store]:
            if (load.index, load.name) == (store.index, store.value):
                return load.buffer, store.buffer
    return "", ""
