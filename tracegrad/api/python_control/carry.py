"""What a compiled loop carries: the numbers in its variables, and the arrays that its rounds change in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracegrad import memory, tree
from tracegrad.api.python_control.effects import Surroundings
from tracegrad.api.python_control.state import (
    Getter,
    Region,
    Setter,
    Undefined,
    Unreturned,
    as_weak,
    aval_of,
    cast,
    closed,
    is_number,
    is_weak,
    joined,
    refuse_unset,
    same,
    show,
    trace_region,
    zero_like,
)
from tracegrad.errors import Mismatch, user_line
from tracegrad.ir import Aval
from tracegrad.journal import about_to_change
from tracegrad.memory import ROW, Memory, entangle, has_a_double, kin, known_as, link, memories_of, memory_of
from tracegrad.trace import STATE, Tracer

ATTEMPTS = 12


@dataclass(frozen=True)
class Variables:
    """The variables a loop may change, with how to read and write them."""

    names: tuple[str, ...]
    get: Getter
    set: Setter
    code: tuple[Callable[..., Any], ...]
    """the loop's body and test"""


def lives_on(end: Any) -> bool:
    """Say whether what a variable holds after a round is an array from outside of the loop."""
    if not isinstance(end, Tracer):
        return True
    return any(memory.alive() for memory in kin(end))


class Rebound(Exception):
    """A variable whose array is changed in place gets a new one in the same round."""

    def __init__(self, memory: Memory):
        super().__init__()
        self.memory = memory


class Carry:
    """The numbers in a loop's variables, as the carry of a compiled loop.

    The body is traced until what it is given and what it returns agree: Python numbers take the dtype that the body
    gives them, and a variable without a value takes zeros if the first round is sure to run (`certain`).
    """

    def __init__(self, what: str, variables: Variables, certain: bool):
        self.what = what
        self.variables = variables
        self.certain = certain
        self.where = user_line()
        self.names = list(variables.names)
        self.entry = variables.get()
        self.values = list(self.entry)
        self.around = Surroundings(variables.code, variables.names)
        self.filled: set[int] = set()
        self.lost: dict[int, Undefined] = {}
        self.ends: list[Any] = []
        self.arrays: list[Memory] = []
        self.replaced: list[Memory] = []
        self.inputs: Sequence[Tracer] = ()
        self.taken: list[Memory] = []
        self.measure()

    def is_carried(self, leaf: Any) -> bool:
        """Say whether a number is a variable's own; arrays that are changed in place are carried by themselves."""
        return is_number(leaf) and memory_of(leaf) not in self.arrays

    def leaves(self) -> list[Any]:
        return [x for v in self.values for x in tree.flatten(v)[0] if self.is_carried(x)]

    def measure(self) -> None:
        leaves = self.leaves()
        self.avals = [aval_of(x) for x in leaves]
        self.weak = [is_weak(x) for x in leaves]

    def rebuilt(self, leaves: Sequence[Any]) -> tuple[Any, ...]:
        """Put numbers in the place of the carry's."""
        rest = iter(leaves)
        return tuple(
            v if isinstance(v, Undefined) else tree.map(lambda x: next(rest) if self.is_carried(x) else x, v)
            for v in self.values
        )

    def trace(self, body: Callable[..., None], extra: Sequence[Aval] = ()) -> Region:
        """Trace the body, and settle the carry on the way."""

        def run(*tracers: Tracer) -> tuple[Any, ...]:
            n, m = len(self.avals), len(self.avals) + len(self.arrays)
            self.inputs = tracers[:n]
            for leaf, tracer in zip(self.leaves(), tracers, strict=False):
                known_as(tracer, leaf, self.replaced)
            for row in tracers[m:]:
                Memory(row, ROW)
            self.variables.set(self.rebuilt(tracers[:n]))
            with self.around.watched(self.what):
                body(*tracers[m:])
            found, ends = self.variables.get(), [array.value() for array in self.arrays]
            with suppress(memory.Written):  # of an element of an array: it is set again outside
                self.variables.set(self.entry)
            self.around.check(self.what)
            self.taken = self.changed_by_value()
            return (*(closed(v) for v in found), *ends)

        attempts = 0
        while attempts < ATTEMPTS:
            try:
                region = trace_region(run, self.what, *self.signature(extra), carries=True, within=self.within)
            except memory.Written as written:
                self.variables.set(self.entry)
                if written.memory in self.replaced:
                    raise self.two_names(written.memory.node.aval) from None
                if written.memory in self.arrays:  # the variable of a loop around: that one is to carry it
                    raise
                self.arrays.append(written.memory)
                self.measure()
                continue
            self.variables.set(self.entry)
            attempts += 1
            try:
                if self.settled(region):
                    self.check_names(region)
                    return region
            except Rebound as rebound:
                self.arrays.remove(rebound.memory)
                self.replaced.append(rebound.memory)
                self.measure()
        raise Mismatch(
            f"{self.what}: the dtypes of its variables change from round to round", fix="convert with .astype"
        )

    def within(self, tracers: Sequence[Tracer]) -> AbstractContextManager[None]:
        return memory.carried(self.arrays, tracers[len(self.avals) : len(self.avals) + len(self.arrays)])

    def check_names(self, region: Region) -> None:
        """Refuse arrays that are changed in place in rounds and have a second name there: one name's value is stale."""
        ends = []
        for value, after in zip(self.values, region.values, strict=False):
            if isinstance(after, Undefined):
                continue
            kept = [False] * len(tree.flatten(after)[0])
            if not isinstance(value, Undefined):
                kept = [is_number(x) and not self.is_carried(x) for x in tree.flatten(value)[0]]
            leaves = [x for x, fixed in zip(tree.flatten(after)[0], kept, strict=True) if not fixed]
            ends += [x for x in leaves if is_number(x) and np.shape(x)]
        for end in ends:
            if any(memory in self.arrays for memory in kin(end)):
                raise self.two_names(end.aval)
        if self.taken:
            owners = [owner for x in ends for owner in {id(memory) for memory in kin(x) or [x]}]
            if any(map(lives_on, ends)) or len(set(owners)) < len(owners):
                raise self.two_names(aval_of(ends[0]))
        here = STATE.get().traces[-1]
        starts = [memory_of(leaf) for leaf in self.leaves()]
        for array in self.taken:
            if array.trace is not here or starts.count(array) > 1 or has_a_double(array):
                raise self.two_names(array.node.aval)
        nodes = {id(node) for array in self.taken for _, _, node in array.current()}
        for value in region.traced.captures:
            if isinstance(value, Tracer) and id(value._node) in nodes:
                raise self.two_names(value.aval)

    def changed_by_value(self) -> list[Memory]:
        """Return the arrays of variables before the loop that the loop changes in place as values of its own."""
        touched = [(own := memory_of(t)) is not None and own.touched for t in self.inputs]
        starts = [memory_of(leaf) for leaf, one in zip(self.leaves(), touched, strict=True) if one]
        return [*self.replaced, *(start for start in starts if start is not None and start not in self.replaced)]

    def written(self) -> list[Memory]:
        """Return the arrays from before the loop that its rounds change in place."""
        return [*self.arrays, *self.taken]

    def two_names(self, aval: Aval) -> Mismatch:
        return Mismatch(
            f"{self.what}: an array {aval} that it changes in place has two names, one of which gets a new array",
            fix="write x = x + v instead of x += v, or copy the array: y = x.copy()",
            where=self.where,
        )

    def signature(self, extra: Sequence[Aval] = ()) -> tuple[list[Aval], list[bool]]:
        """Return the avals of a round's inputs (variables, arrays, what comes beside them), and which are weak."""
        avals = [*self.avals, *(array.node.aval for array in self.arrays), *extra]
        return avals, [*self.weak, *(False for _ in avals[len(self.weak) :])]

    def settled(self, region: Region) -> bool:
        """Compare what a round gives with what it takes; change what it takes, or refuse."""
        before, n = list(self.values), 0
        inputs = region.traced.graph.inputs
        self.lost, self.ends = {}, []
        for index, (name, value, after) in enumerate(zip(self.names, before, region.values, strict=False)):
            if isinstance(after, Undefined):
                if not isinstance(value, Undefined):
                    raise self.refusal(name, value, after)
                continue
            if isinstance(value, Undefined):
                inside = "[" in name or "." in name  # of a dictionary or an object: code can see whether it is there
                if inside and self.certain:
                    raise self.refusal(name, value, after)
                if self.certain or isinstance(value, Unreturned):
                    self.values[index] = zero_like(after)
                    self.filled.add(index)
                else:
                    self.lost[index] = Undefined(
                        name, f"it is set inside the loop at {self.where}, which may run no round"
                    )
                continue
            leaves, treedef = tree.flatten(value)
            results, after_tree = tree.flatten(after)
            if treedef != after_tree:
                raise self.refusal(name, value, after)
            new = []
            for leaf, result in zip(leaves, results, strict=True):
                if self.is_carried(leaf) and is_number(result):
                    unchanged = isinstance(result, Tracer) and result._node is inputs[n]
                    self.ends.append(result)
                    new.append(leaf if unchanged else self.adjusted(index, leaf, self.weak[n], result, value, after))
                    n += 1
                elif memory.one_place(leaf, result) if is_number(leaf) else same(leaf, result):
                    new.append(leaf)
                elif is_number(leaf):
                    raise Rebound(leaf._memory)
                else:
                    raise self.refusal(name, value, after)
            self.values[index] = tree.unflatten(treedef, new)
        found = [
            type(v) is type(w) and all(map(same, *(tree.flatten(x)[0] for x in (v, w))))
            for v, w in zip(before, self.values, strict=True)
        ]
        self.measure()
        return all(found)

    def adjusted(self, index: int, leaf: Any, weak: bool, result: Any, value: Any, after: Any) -> Any:
        """Return the leaf to start from, so that the round's result has its dtype."""
        aval = joined(leaf, result)
        if aval is None:
            raise self.refusal(self.names[index], value, after)
        if aval[0].dtype == aval_of(leaf).dtype and (aval[1] or not weak):
            return leaf
        return as_weak(cast(leaf, aval[0].dtype), aval[1])

    def refusal(self, name: str, before: Any, after: Any) -> Mismatch:
        shown = ["not set" if isinstance(v, Undefined) else show(v) for v in (before, after)]
        what = "the result" if name.startswith("retval_") else name
        if shown[0] == shown[1]:
            shown = [repr(before), repr(after)]
        return Mismatch(
            f"{self.what}: {what} is {shown[0]} before a round and {shown[1]} after it",
            fix="start from a value of the final structure, shape and dtype, for instance np.zeros(3)",
        )

    def initial(self) -> tuple[Any, ...]:
        start = tuple(cast(x, a.dtype) for x, a in zip(self.leaves(), self.avals, strict=True))
        return (*start, *(array.value() for array in self.arrays))

    def step(self, region: Region, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Replay a round on the carry (and what comes beside it); return the new carry."""
        outputs = iter(region.outputs(inputs))
        found = []
        for value, after in zip(self.values, region.values, strict=False):
            leaves = (
                [] if isinstance(after, Undefined) else [next(outputs) for x in tree.flatten(after)[0] if is_number(x)]
            )
            if not isinstance(value, Undefined):
                numbers = [x for x in tree.flatten(value)[0] if is_number(x)]
                found += [new for old, new in zip(numbers, leaves, strict=True) if self.is_carried(old)]
        return (*(cast(x, a.dtype) for x, a in zip(found, self.avals, strict=True)), *outputs)

    def may_be(self, first: Any, end: Any, start: Sequence[Any], ends: Sequence[Any]) -> list[Memory]:
        """Return the arrays that a variable may be after the loop, `first` before it and `end` after a round."""
        known = [end] if end is not None else ends
        inside = {id(memory_of(t)) for t in self.inputs}
        if end is None or any(id(memory) in inside for value in known for memory in kin(value)):
            return memories_of([*known, *start])
        return memories_of(known if self.certain else [first, *known])

    def finish(self, region: Region, results: Sequence[Any]) -> tuple[Any, ...]:
        """Return what the variables hold after the loop: what no round changes is what it was."""
        results = memory.settle(self.arrays, results)
        for array in self.taken:
            about_to_change(array).stale = f"the {self.what} loop at {self.where}"
        ends = [x for v in region.values[: len(self.names)] for x in tree.flatten(v)[0] if self.is_carried(x)]
        inputs = region.traced.graph.inputs
        start = self.leaves()
        keep = not self.lost and not self.filled and len(ends) == len(start)
        leaves, origins = [], []
        for i, (first, result, weak) in enumerate(zip(start, results, self.weak, strict=True)):
            end = ends[i] if keep else None
            unchanged = isinstance(end, Tracer) and end._node is inputs[i]
            leaves.append(first if unchanged else link(as_weak(result, weak), self.may_be(first, end, start, ends)))
            origins.append(() if unchanged else (end,))
        entangle(leaves, origins)
        refuse_unset(self.what, self.names, [self.lost.get(i) for i in range(len(self.names))])
        return tuple(self.lost.get(i, v) for i, v in enumerate(self.rebuilt(leaves)))
