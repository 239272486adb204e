"""`while` and `for`: plain Python while their conditions are known, `while_loop` and `scan` when they are traced.

    while traced:                    while_loop
    while known, then traced:        while_loop from the round at which it is traced (the first one, if a `break` is)
    for x in array:                  scan; while_loop with a `break` or `return` inside
    for i in range(traced):          while_loop
    for i in range(known):           Python, unrolled; while_loop if a `break` or `return` depends on a traced value
    for x in anything else:          Python, unrolled; each further round is a branch if a `break` is traced

Where a loop body needs its loop variable as a Python integer (`layers[i]`), or changes the shape of what it carries,
loops with a known number of rounds are unrolled, up to UNROLL_LIMIT rounds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracegrad import tree
from tracegrad.api.control import scan, while_loop
from tracegrad.api.python_control.branches import and_, if_stmt, negates, truth
from tracegrad.api.python_control.calls import Rows, TracedRange
from tracegrad.api.python_control.effects import Surroundings
from tracegrad.api.python_control.state import (
    Getter,
    Region,
    Setter,
    Undefined,
    Unreturned,
    as_weak,
    aval_of,
    careful,
    cast,
    closed,
    is_number,
    is_traced,
    is_weak,
    joined,
    refuse_unset,
    same,
    show,
    trace_region,
    zero_like,
)
from tracegrad.errors import Mismatch, TracerBoolError, TracerError, user_line
from tracegrad.ir import Aval
from tracegrad.memory import LOCAL, Memory, entangle, link, memories_of
from tracegrad.trace import Tracer

UNROLL_LIMIT = 256
ATTEMPTS = 12
Test = Callable[[], Any]


def nothing() -> None:
    """Do nothing: the other branch of a guarded round."""


@dataclass(frozen=True)
class Variables:
    """The variables a loop may change, with how to read and write them."""

    names: tuple[str, ...]
    get: Getter
    set: Setter
    code: tuple[Callable[..., Any], ...]
    """the loop's body and test"""


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
        self.measure()

    def measure(self) -> None:
        leaves = [x for v in self.values for x in tree.flatten(v)[0] if is_number(x)]
        self.avals = [aval_of(x) for x in leaves]
        self.weak = [is_weak(x) for x in leaves]

    def rebuilt(self, leaves: Sequence[Any]) -> tuple[Any, ...]:
        """Put numbers in the place of the carry's."""
        rest = iter(leaves)
        return tuple(
            v if isinstance(v, Undefined) else tree.map(lambda x: next(rest) if is_number(x) else x, v)
            for v in self.values
        )

    def trace(self, body: Callable[..., None], extra: Sequence[Aval] = ()) -> Region:
        """Trace the body, and settle the carry on the way."""

        def run(*tracers: Tracer) -> tuple[Any, ...]:
            n = len(self.avals)
            self.variables.set(self.rebuilt(tracers[:n]))
            body(*tracers[n:])
            found = self.variables.get()
            self.variables.set(self.entry)
            self.around.check(self.what)
            return tuple(closed(v) for v in found)

        for _ in range(ATTEMPTS):
            region = trace_region(run, self.what, [*self.avals, *extra], [*self.weak, *(False for _ in extra)])
            if self.settled(region):
                return region
        raise Mismatch(
            f"{self.what}: the dtypes of its variables change from round to round", fix="convert with .astype"
        )

    def settled(self, region: Region) -> bool:
        """Compare what a round gives with what it takes; change what it takes, or refuse."""
        before, n = list(self.values), 0
        inputs = region.traced.graph.inputs
        self.lost = {}
        for index, (name, value, after) in enumerate(zip(self.names, before, region.values, strict=True)):
            if isinstance(after, Undefined):
                if not isinstance(value, Undefined):
                    raise self.refusal(name, value, after)
                continue
            if isinstance(value, Undefined):
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
                if is_number(leaf) and is_number(result):
                    unchanged = isinstance(result, Tracer) and result._node is inputs[n]
                    new.append(leaf if unchanged else self.adjusted(index, leaf, self.weak[n], result, value, after))
                    n += 1
                elif same(leaf, result):
                    new.append(leaf)
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
        leaves = [x for v in self.values for x in tree.flatten(v)[0] if is_number(x)]
        return tuple(cast(x, a.dtype) for x, a in zip(leaves, self.avals, strict=True))

    def step(self, region: Region, inputs: Sequence[Any]) -> tuple[Any, ...]:
        """Replay a round on the carry (and what comes beside it); return the new carry."""
        outputs = iter(region.outputs(inputs))
        found = []
        for value, after in zip(self.values, region.values, strict=True):
            leaves = (
                [] if isinstance(after, Undefined) else [next(outputs) for x in tree.flatten(after)[0] if is_number(x)]
            )
            found += [] if isinstance(value, Undefined) else leaves
        return tuple(cast(x, a.dtype) for x, a in zip(found, self.avals, strict=True))

    def may_be(self, first: Any, end: Any, start: Sequence[Any], ends: Sequence[Any]) -> list[Memory]:
        """Return the arrays that a variable may be after the loop, `first` before it and `end` after a round."""
        if end is None:
            return memories_of([*start, *ends])
        if isinstance(end, Tracer) and end._memory is not None and end._memory.given == LOCAL:
            return memories_of(start)
        return memories_of([end] if self.certain else [first, end])

    def finish(self, region: Region, results: Sequence[Any]) -> tuple[Any, ...]:
        """Return what the variables hold after the loop: what no round changes is what it was."""
        ends = [x for v in region.values for x in tree.flatten(v)[0] if is_number(x)]
        inputs = region.traced.graph.inputs
        start = [x for v in self.values for x in tree.flatten(v)[0] if is_number(x)]
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


def compiled_while(test: Test, body: Callable[[], None], variables: Variables, certain: bool) -> None:
    """Build a `while_loop` from the variables as they are now."""
    entry = variables.get()
    carry = Carry("while", variables, certain)
    try:
        region = carry.trace(body)
        decided: list[Any] = []

        def decide(*tracers: Tracer) -> tuple[Any, ...]:
            variables.set(carry.rebuilt(tracers))
            found = test()
            decided.append(found)
            return (truth(found) if is_traced(found) else bool(found),)

        condition = trace_region(decide, "condition", carry.avals, carry.weak)
        results = while_loop(
            lambda leaves: condition.outputs(leaves)[0], lambda leaves: carry.step(region, leaves), carry.initial()
        )
    except BaseException:
        variables.set(entry)
        carry.around.forget_unset()
        raise
    found = [Tracer(r._trace, r._node) if isinstance(r, Tracer) else r for r in results]
    ended = (
        [negates(decided[0], Tracer(decided[0]._trace, n)) for n in condition.traced.graph.inputs[: len(found)]]
        if is_traced(decided[0])
        else []
    )
    values = carry.finish(region, found)
    if any(ended):
        flags = [f for f, over in zip(found, ended, strict=True) if over]
        values = tuple(True if isinstance(v, Tracer) and any(same(v, f) for f in flags) else v for v in values)
    variables.set(values)


def while_stmt(
    test: Test, body: Callable[[], None], get_state: Getter, set_state: Setter, names: tuple[str, ...], options: Any
) -> None:
    """`while test(): body()`, on the variables `names`."""
    del options
    variables = Variables(names, get_state, careful(set_state, names), (body, test))
    decision = test()
    if is_traced(decision):
        compiled_while(test, body, variables, certain=False)
        return
    entry, rounds = get_state(), 0
    while decision:
        body()
        rounds += 1
        decision = test()
        if is_traced(decision):
            if rounds == 1:
                set_state(entry)
            compiled_while(test, body, variables, certain=rounds == 1)
            return


def for_stmt(
    iterated: Any,
    extra_test: Test | None,
    body: Callable[[Any], None],
    get_state: Getter,
    set_state: Setter,
    names: tuple[str, ...],
    options: Any,
) -> None:
    """`for item in iterated: body(item)`, as long as `extra_test()` holds, on the variables `names`."""
    del options
    code = (body,) if extra_test is None else (body, extra_test)
    variables = Variables(names, get_state, careful(set_state, names), code)
    if isinstance(iterated, TracedRange):
        counted(iterated, extra_test, body, variables, certain=False)
        return
    if isinstance(iterated, (Tracer, np.ndarray)) and iterated.ndim and is_traced_or_numeric(iterated):
        iterated = Rows((iterated,), lambda row: row[0])
    if isinstance(iterated, Rows):
        over_rows(iterated, extra_test, body, variables)
    else:
        unrolled(iterated, extra_test, body, variables)


def is_traced_or_numeric(value: Any) -> bool:
    return is_traced(value) or (isinstance(value, np.ndarray) and is_number(value))


def counted(
    numbers: TracedRange, extra_test: Test | None, body: Callable[[Any], None], variables: Variables, certain: bool
) -> None:
    """A `for` over numbers as a `while`: the number is one more variable."""
    place = [numbers.start]

    def write(values: tuple[Any, ...]) -> None:
        place[0] = values[0]
        variables.set(values[1:])

    names = ("the loop's counter", *variables.names)
    around = Variables(names, lambda: (place[0], *variables.get()), write, variables.code)

    def test() -> Any:
        inside = numbers.holds(place[0])
        return inside if extra_test is None else and_(lambda: inside, extra_test)

    def step() -> None:
        number = place[0]
        body(number)
        place[0] = number + numbers.step

    compiled_while(test, step, around, certain)


def over_rows(rows: Rows, extra_test: Test | None, body: Callable[[Any], None], variables: Variables) -> None:
    """A `for` over the rows of arrays: a scan, or a `while` that can stop early; unrolled if it must be."""
    n = len(rows)
    if n == 0:
        return
    entry = variables.get()
    try:
        if extra_test is not None:
            numbers = TracedRange(0, n, 1)
            counted(numbers, extra_test, lambda i: body(rows[i]), variables, certain=True)
        else:
            scanned(rows, body, variables)
    except (TracerBoolError, Mismatch):
        variables.set(entry)
        if n > UNROLL_LIMIT:
            raise
        unrolled(rows, extra_test, body, variables)


def scanned(rows: Rows, body: Callable[[Any], None], variables: Variables) -> None:
    """Build a `scan` over rows."""
    entry = variables.get()
    carry = Carry("for", variables, certain=True)
    parts = tuple(rows.arrays)
    try:
        region = carry.trace(lambda *row: body(rows.item(row)), [aval_of(p).with_shape(p.shape[1:]) for p in parts])
        results, _ = scan(lambda leaves, row: (carry.step(region, [*leaves, *row]), None), carry.initial(), parts)
    except BaseException:
        variables.set(entry)
        carry.around.forget_unset()
        raise
    variables.set(carry.finish(region, list(results)))


def unrolled(
    iterated: Iterable[Any], extra_test: Test | None, body: Callable[[Any], None], variables: Variables
) -> None:
    """A Python loop; once a `break` depends on a traced value, a range is compiled and other rounds are branches."""
    if extra_test is None:
        for item in iterated:
            body(item)
        return
    entry = variables.get()
    for rounds, item in enumerate(iterated):
        decision = extra_test()
        if not is_traced(decision):
            if not decision:
                return
            body(item)
            continue
        if isinstance(iterated, range) and compiled_range(iterated, rounds, entry, extra_test, body, variables):
            return
        round_ = functools.partial(body, item)
        if_stmt(decision, round_, nothing, variables.get, variables.set, variables.names, len(variables.names))


def compiled_range(
    numbers: range,
    rounds: int,
    entry: tuple[Any, ...],
    extra_test: Test,
    body: Callable[[Any], None],
    variables: Variables,
) -> bool:
    """Compile the rest of a range (all of it if its first `break` was traced); say whether that can be."""
    if rounds == 1:
        now = variables.get()
        variables.set(entry)
        rest = numbers
    else:
        now, rest = variables.get(), numbers[rounds:]
    try:
        counted(TracedRange(rest.start, rest.stop, rest.step), extra_test, body, variables, certain=rounds == 1)
    except (TracerBoolError, Mismatch) as error:
        variables.set(now)
        if len(rest) > UNROLL_LIMIT:
            raise TracerError(error.message, fix=error.fix, where=error.where) from None
        return False
    return True
