"""What memory traced values would share if they were NumPy's arrays, so that `x[i] = v` and `x += v` mean the same.

Nodes of a graph never change; a tracer only points at one. A change in place makes a new node, and everyone who would
see the change is pointed at it: the tracer itself, the array it is a view of, and that array's other views.

    y = x[1:]       y is x's memory, by the steps [slice]
    y[0] = 5.0      x becomes set_slice(x, new y), and every other view of x takes its steps from the new x

What an operation makes is taken to lie in row-major order. NumPy keeps the order of transposed operands, so that
`(x.T * 2).reshape(-1)` is a copy there and a view here: the one place known where the two differ.
"""

from __future__ import annotations

import gc
import opcode
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

from tracegrad.errors import Mismatch, TracerError, TracerValueError
from tracegrad.ir import PRIMITIVES, Operand, Primitive
from tracegrad.journal import about_to_change

Tracer: TypeAlias = Any
Step = tuple[Callable[..., Any], dict[str, Any]]
"""A primitive, or a function of several, with its parameters."""
VIEWS = frozenset(("broadcast", "reshape", "slice", "transpose"))
"""Primitives whose results NumPy makes without copying."""
BUFFER_FIX = "tnp.zeros(n), np.zeros_like(x) for an array to fill"
WRITERS: dict[str, Callable[..., Any]] = {}
"""How values are written through steps that are functions, by their names."""
ELEMENT = object()
"""What a variable like `y[i]` holds where y is a traced array, carried as a whole: assigning this does nothing."""
STORE_ITEM = opcode.opmap["STORE_SUBSCR"]
LOCAL = "a variable of a traced loop or branch"
"""What is given to the body of Python's own loops: `+=` gives the variable a new value, in the next round, too."""


ROW = "a row of the array that a traced loop goes over"


class RowWritten(Mismatch):
    """A traced loop changes an array while it goes over its rows, which must be read when their round begins."""


class Written(BaseException):
    """A traced loop or branch changes an array from outside of it, which it must carry in and out: none of the user's
    handlers may see this."""

    def __init__(self, memory: Memory):
        super().__init__()
        self.memory = memory


class Memory:
    """One array of the user's, by the node that it is now; `given` says what it is if it must not be changed.

    `links` are memories that may be this one: a traced condition decides, so that no change can reach the right ones.
    `origin` is the memory of the variable that a loop carries, as it was before the loop. `stale` says what has changed
    the array in a way that no graph holds: nobody may read it any more. `touched` says that a variable of a loop is
    changed in place.
    """

    __slots__ = ("__weakref__", "given", "links", "make", "members", "node", "origin", "stale", "touched", "trace")

    def __init__(self, owner: Tracer, given: str = ""):
        self.make = type(owner)
        self.trace: Any = owner._trace
        self.node: Operand = owner._node
        self.given = given
        self.origin: Memory | None = None
        self.stale = ""
        self.touched = False
        self.members: list[weakref.ref[Tracer]] = []
        self.links: list[weakref.ref[Memory]] = []
        self.add(owner, ())

    def refuse(self) -> None:
        """Refuse to read an array that is stale."""
        raise TracerError(
            f"an array {self.node.aval} is read by another name after {self.stale}, which changes it in place and then "
            "gives the variable a new array",
            fix="write x = x + v in the loop, or copy the array before it: x = x.copy()",
        )

    def value(self) -> Tracer:
        """Return the array as a value of its trace, with memory of its own."""
        return self.make(self.trace, self.node)

    def current(self) -> list[tuple[weakref.ref[Tracer], Any, Operand]]:
        """Return the members that are there, with their traces (an inner one may have made a view) and nodes."""
        found = [(ref, ref()) for ref in self.members]
        return [(ref, x._trace, x._node) for ref, x in found if x is not None and x._trace.live]

    def become(self, value: Tracer) -> None:
        """Let the array be another value of its trace from now on: its own tracer and its views follow."""
        kept = []
        for ref in self.members:
            member = ref()
            if member is not None and member._trace.live:
                kept.append(ref)
                found: Any = self.make(value._trace, value._node)
                for prim, params in member._steps:
                    found = prim(found, **params)
                member._trace, member._node = value._trace, found._node
        self.members = kept
        self.node = value._node

    def state(self) -> tuple[Any, ...]:
        """Return what changes when the array is changed."""
        return self.trace, self.node, self.stale, list(self.links), self.current()

    def restore(self, state: tuple[Any, ...]) -> None:
        """Let the array be again what it was."""
        self.trace, self.node, self.stale, links, members = state
        self.links = list(links)
        self.members = [ref for ref, _, _ in members]
        for ref, trace, node in members:
            if (member := ref()) is not None:
                member._trace, member._node = trace, node

    def alive(self) -> bool:
        """Say whether the trace that the array belongs to is still going on."""
        return any(member._trace.live for ref in self.members if (member := ref()) is not None)

    def add(self, tracer: Tracer, steps: tuple[Step, ...]) -> None:
        tracer._memory = self
        tracer._steps = steps
        self.members.append(weakref.ref(tracer))


def name_of(step: Callable[..., Any]) -> str:
    """Return the name of a primitive or a function."""
    return step.name if isinstance(step, Primitive) else step.__name__


def note_view(source: Tracer, found: Tracer, prim: Callable[..., Any], params: dict[str, Any]) -> None:
    """Let `found`, which `prim` made of `source`, share its memory where NumPy's arrays would."""
    if not source.shape and not source._steps:
        return  # a number of NumPy's is copied
    if name_of(prim) == "reshape" and not reshapes_in_place(source, params["shape"]):
        return
    memory = source._memory or Memory(source)
    memory.add(found, (*source._steps, (prim, params)))


def reshapes_in_place(source: Tracer, shape: tuple[int, ...]) -> bool:
    """Say whether NumPy reshapes without a copy: what was made by an operation lies in order, views of it may not."""
    if not source._steps or [n for n in source.shape if n != 1] == [n for n in shape if n != 1]:
        return True
    try:
        stand_in(source).reshape(shape, copy=False)
    except ValueError:
        return False
    return True


def lies_in_order(source: Tracer) -> bool:
    """Say whether the elements of NumPy's array would lie in order in memory, without gaps."""
    try:
        return not source._steps or stand_in(source).flags.c_contiguous
    except ValueError:
        return False


def stand_in(source: Tracer) -> np.ndarray[Any, Any]:
    """Return an array with the strides of NumPy's, whose elements must not be read; raises ValueError if it repeats."""
    start = source._memory.node.aval.shape if source._memory else source.shape
    strides = np.cumprod((1, *start[:0:-1]), dtype=np.intp)[::-1]
    found = np.lib.stride_tricks.as_strided(np.empty(1, np.int8), start, tuple(strides[: len(start)]))
    for prim, params in source._steps:
        found = stepped(found, prim, params)
    return found


def stepped(x: np.ndarray[Any, Any], prim: Callable[..., Any], params: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Apply a step to an array whose elements must not be read."""
    match name_of(prim):
        case "reshape":
            return x.reshape(params["shape"], copy=False)
        case "transpose":
            return x.transpose(params["perm"])
        case "slice":
            ranges = zip(params["start"], params["size"], params["step"], strict=True)
            return x[tuple(slice(a, a + n * s if a + n * s >= 0 else None, s) for a, n, s in ranges)]
        case "place":  # the strides are those of any index
            how = params["at"].how
            sizes = dict(zip(how.axes, params["at"].sizes, strict=True))
            parts = zip(how.start, how.size, how.step, range(len(how.size)), strict=True)
            part = x[
                tuple(slice(0, sizes[axis]) if axis in sizes else slice(a, a + n * s, s) for a, n, s, axis in parts)
            ]
            return part.reshape(how.shape, copy=False)
    raise ValueError("repeated elements have no place of their own")


def write_out(found: Any, out: Any, what: str) -> Any:
    """Store a result in the array that a caller gave as `out=`."""
    if not hasattr(out, "changed"):
        raise TracerValueError(
            f"{what}: out= is an array of NumPy's, which cannot hold a traced value", fix=f"use {BUFFER_FIX}"
        )
    out[...] = found
    return out


def refuse_storing(value: Any) -> None:
    """Refuse to give the number of an eager trace's value to an array of NumPy's: its gradient would be lost."""
    frame = sys._getframe(2)
    if value._trace.computes and frame.f_code.co_code[frame.f_lasti] == STORE_ITEM:
        raise TracerValueError(
            "item assignment: an array of NumPy's cannot hold a traced value", fix=f"use {BUFFER_FIX}"
        )


def shares(tracer: Tracer, values: Any) -> bool:
    """Say whether a tracer is one of some values, nested in lists, or shares memory with one."""
    for value in values:
        if isinstance(value, (list, tuple)):
            if shares(tracer, value):
                return True
        elif value is tracer or (
            tracer._memory is not None and getattr(value, "_memory", None) is tracer._memory  # views of one array
        ):
            return True
    return False


def one_place(a: Any, b: Any) -> bool:
    """Say whether two traced arrays are one, or the same view of one."""
    own = memory_of(a)
    return a is b or (own is not None and own is memory_of(b) and a._steps == b._steps)


def known_as(carry: Tracer, value: Any, apart: Sequence[Memory]) -> None:
    """Remember the array that a loop's variable holds before the loop: changes in place are its, unless it is apart."""
    if hasattr(value, "_memory") and value.shape and carry._memory is not None:
        origin = value._memory or Memory(value)
        if origin.given in ("", LOCAL) and origin not in apart:
            carry._memory.origin = origin


def touch(memory: Memory) -> None:
    """Note that the variable of a loop is changed in place; the array that it was before must be carried instead."""
    while memory.given == LOCAL:
        memory.touched = True
        if memory.origin is None:
            return
        memory = memory.origin
    raise Written(memory)


def memory_of(value: Any) -> Memory | None:
    """Return the memory that a traced value is known to share, None for all else."""
    return getattr(value, "_memory", None)


def kin(value: Any) -> list[Memory]:
    """Return the memory of a traced value and all that may be the same; it gets one while its trace is on."""
    if not hasattr(value, "_memory") or not value.shape:
        return []
    if value._memory is None and value._trace.live:
        Memory(value)
    return [] if value._memory is None else relatives(value._memory)


def relatives(memory: Memory) -> list[Memory]:
    """Return a memory and all that may be the same."""
    return [memory, *(other for ref in memory.links if (other := ref()) is not None)]


def has_a_double(memory: Memory) -> bool:
    """Say whether there is another variable that may be the same array; what only garbage refers to is none."""
    others = relatives(memory)[1:]
    if not any(other.alive() for other in others):
        return False
    gc.collect()
    return any(other.alive() for other in others)


def memories_of(values: Sequence[Any]) -> list[Memory]:
    """Return the memories that these values may have, of those that live on outside of the branch or loop."""
    return [memory for value in values for memory in kin(value) if memory.alive()]


def link(found: Tracer, memories: Sequence[Memory]) -> Tracer:
    """Note that a result of a traced branch or loop may be one of some arrays, or a view; return it.

    `memories` hold all that may be one of them, too (`kin`): what is linked stays so when a name between them is gone.
    """
    if memories and found.shape:
        own = found._memory or Memory(found)
        for other in memories:
            if other is not own:
                own.links.append(weakref.ref(other))
                about_to_change(other).links.append(weakref.ref(own))
    return found


def entangle(results: Sequence[Any], origins: Sequence[Sequence[Any]]) -> None:
    """Link the results of a branch or loop that may be one array: `origins` are the values that each may be."""
    owners: dict[int, list[Tracer]] = {}
    for result, values in zip(results, origins, strict=True):
        if not hasattr(result, "_memory"):
            continue
        for value in values:
            for key in [id(value), *map(id, kin(value))]:
                others = owners.setdefault(key, [])
                for other in others:
                    if other is not result:
                        link(result, kin(other))
                others.append(result)


def can_change(x: Tracer, here: Any) -> bool:
    """Say whether an operator like `+=` changes x in place in the trace `here` (`Tracer.can_change`)."""
    owner = x._memory
    if owner is not None and owner.given == LOCAL and here.carries:
        touch(owner)
    if here.carries and (here is not x._trace if owner is None else here is not owner.trace):
        owner = owner or Memory(x)
        if owner.given in ("", LOCAL):
            raise Written(owner)
    return here is x._trace or bool(here.computes)


def change(x: Tracer, value: Tracer, what: str) -> None:
    """Make `value`, of x's shape and dtype and of the innermost trace, what x is from now on."""
    if not x.shape and not x._steps:
        raise TracerError(f"{what}: a number is not changed in place", fix="give the variable a new one: x = v")
    write(x._memory or Memory(x), x._steps, value, what)


def write(memory: Memory, steps: tuple[Step, ...], value: Tracer, what: str) -> None:
    """Write `value`, of the innermost trace, where the steps lead."""
    if memory.given == LOCAL and value._trace.carries:
        touch(memory)
    if has_a_double(memory):
        raise TracerError(
            f"{what}: it would change {memory.node.aval} in place, which may be the array of another variable as well: "
            "a traced condition or loop decides",
            fix="change a copy: x = x.copy()",
        )
    place(memory, steps, value, what)


def place(memory: Memory, steps: tuple[Step, ...], value: Tracer, what: str) -> None:
    """Write, where all that may be the same array has its new value already."""
    if memory.given == LOCAL and value._trace.carries:
        touch(memory)
    if memory.given and memory.given != LOCAL:
        error = RowWritten if memory.given == ROW else TracerError
        raise error(
            f"{what}: it would change {memory.given} in place, and a traced function cannot do that",
            fix="change a copy, x = x.copy(), and return it",
        )
    if value._trace is not memory.trace:
        if value._trace.carries:
            raise Written(memory)
        raise TracerError(
            f"{what}: it would change {memory.node.aval} in place, which was made outside of this loop, branch or "
            "function",
            fix="give a variable a new array: x = x.at[index].set(v)",
        )
    changed = put(memory.value(), steps, value)
    about_to_change(memory).become(changed)


@contextmanager
def carried(memories: Sequence[Memory], values: Sequence[Tracer]) -> Iterator[None]:
    """Within the body of a loop or branch, let memories from outside be values of its trace."""
    before = [(about_to_change(memory), memory.state()) for memory in memories]
    try:
        for memory, value in zip(memories, values, strict=True):
            memory.trace = value._trace
            memory.become(value)
        yield
    finally:
        for memory, state in before:
            stale, links = memory.stale, memory.links
            memory.restore(state)
            memory.stale, memory.links = stale, links


def settle(memories: Sequence[Memory], found: Sequence[Any]) -> tuple[Any, ...]:
    """After a loop or branch, let the memories it has carried be the last of what it has found; return the rest.

    Variables that may be one of them have got their values: what was in doubt before was refused inside.
    """
    first = len(found) - len(memories)
    for memory, value in zip(memories, found[first:], strict=True):
        place(memory, (), value, "in place")
    return tuple(found[:first])


def put(x: Any, steps: Sequence[Step], value: Any) -> Any:
    """Return x with `value` written where the steps lead."""
    if not steps:
        return value
    (prim, params), rest = steps[0], steps[1:]
    inside = put(prim(x, **params), rest, value) if rest else value
    match name_of(prim):
        case "reshape":
            return prim(inside, shape=x.shape)
        case "transpose":
            return prim(inside, perm=tuple(int(p) for p in np.argsort(params["perm"])))
        case "slice":
            return PRIMITIVES["set_slice"](x, inside, start=params["start"], step=params["step"])
        case name if name in WRITERS:
            return WRITERS[name](x, inside, **params)
    raise TracerError(
        f"in place: the array that {name_of(prim)} gives is part of another one, and NumPy's is read-only",
        fix="change a copy: x = x.copy()",
    )
