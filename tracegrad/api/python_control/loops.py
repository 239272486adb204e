"""`while` and `for`: plain Python while their conditions are known, `while_loop` and `scan` when they are traced.

    while traced:                    while_loop
    while known, then traced:        while_loop from the round at which it is traced (the first one, if a `break` is)
    for x in array:                  scan; while_loop with a `break` or `return` inside
    for i in range(traced):          while_loop
    for i in range(known):           Python, unrolled; while_loop if a `break` or `return` depends on a traced value;
                                     scan where it would make a long program (`rolling`)
    for x in anything else:          Python, unrolled; each further round is a branch if a `break` is traced

Where a loop body needs its loop variable as a Python integer (`layers[i]`), or changes the shape of what it carries,
loops with a known number of rounds are unrolled, up to UNROLL_LIMIT rounds.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from tracegrad import memory
from tracegrad.api.control import scan, while_loop
from tracegrad.api.python_control import ROLLING
from tracegrad.api.python_control.branches import and_, if_stmt, negates, truth
from tracegrad.api.python_control.calls import Rows, TracedRange, counter
from tracegrad.api.python_control.carry import Carry, Variables
from tracegrad.api.python_control.effects import Surroundings, refuse_next
from tracegrad.api.python_control.rolling import MOST_FAILURES, MOST_NODES, check_integers
from tracegrad.api.python_control.state import (
    Getter,
    Region,
    Setter,
    aval_of,
    careful,
    is_number,
    is_traced,
    same,
    trace_region,
)
from tracegrad.errors import Mismatch, TracerBoolError, TracerError
from tracegrad.journal import Journal, journal
from tracegrad.numpy.creation import arange
from tracegrad.trace import Tracer, current_trace

UNROLL_LIMIT = 256
Test = Callable[[], Any]


def nothing() -> None:
    """Do nothing: the other branch of a guarded round."""


def compiled_while(test: Test, body: Callable[[], None], variables: Variables, certain: bool) -> None:
    """Build a `while_loop` from the variables as they are now."""
    entry = variables.get()
    carry = Carry("while", variables, certain)
    try:
        region = carry.trace(body)
        decided: list[Any] = []

        n = len(carry.avals)

        def decide(*tracers: Tracer) -> tuple[Any, ...]:
            with memory.carried(carry.arrays, tracers[n:]):
                variables.set(carry.rebuilt(tracers[:n]))
                before = [array.node for array in carry.arrays]
                found = test()
                if any(a.node is not node for a, node in zip(carry.arrays, before, strict=True)):
                    raise TracerError("while: its condition changes an array in place", fix="change it in the loop")
            decided.append(found)
            return (truth(found) if is_traced(found) else bool(found),)

        condition = trace_region(decide, "condition", *carry.signature())
        results = while_loop(
            lambda leaves: condition.outputs(leaves)[0], lambda leaves: carry.step(region, leaves), carry.initial()
        )
    except BaseException:
        variables.set(entry)
        raise
    found = [Tracer(r._trace, r._node) if isinstance(r, Tracer) else r for r in results]
    ended = (
        [negates(decided[0], Tracer(decided[0]._trace, n)) for n in condition.traced.graph.inputs[:n]]
        if is_traced(decided[0])
        else []
    )
    values = carry.finish(region, found)
    if any(ended):
        flags = [f for f, over in zip(found, ended, strict=False) if over]
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
    if not decision:
        return
    start = Start(variables, begins_again=True)
    start.run(body)
    decision = test()
    first = True
    while not is_traced(decision):
        if not decision:
            return
        body()
        decision = test()
        first = False
    certain = first and start.can_begin_again()
    if certain:
        start.again()
    compiled_while(test, body, variables, certain)


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
    refuse_next([iterated])
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
            context = ROLLING.get()
            check = None
            if context is not None and context.rows:
                check = functools.partial(check_integers, counter=range(n))
            try:
                scanned(rows, body, variables, check)
            except memory.RowWritten:
                scanned(Rows((np.arange(n),), lambda number: rows[number[0]]), body, variables, check)
    except (TracerBoolError, Mismatch):
        variables.set(entry)
        if n > UNROLL_LIMIT:
            raise
        unrolled(rows, extra_test, body, variables)


def scanned(
    rows: Rows, body: Callable[[Any], None], variables: Variables, check: Callable[[Carry, Region], None] | None = None
) -> None:
    """Build a `scan` over rows, if what a round is passes the check."""
    entry = variables.get()
    carry = Carry("for", variables, certain=True)
    parts = tuple(rows.arrays)
    try:
        region = carry.trace(lambda *row: body(rows.item(row)), [aval_of(p).with_shape(p.shape[1:]) for p in parts])
        if any(memory.memory_of(part) in carry.written() for part in parts if isinstance(part, Tracer)):
            raise memory.RowWritten("for: the loop changes the array that it goes over", fix="go over a copy of it")
        if check is not None:
            check(carry, region)
        results, _ = scan(lambda leaves, row: (carry.step(region, [*leaves, *row]), None), carry.initial(), parts)
    except BaseException:
        variables.set(entry)
        raise
    variables.set(carry.finish(region, list(results)))


def unrolled(
    iterated: Iterable[Any], extra_test: Test | None, body: Callable[[Any], None], variables: Variables
) -> None:
    """A Python loop; once a `break` depends on a traced value, a range is compiled and other rounds are branches."""
    rolls = ROLLING.get() is not None or extra_test is not None
    start = Start(variables, begins_again=rolls and isinstance(iterated, range) and len(iterated) > 1)
    for rounds, item in enumerate(iterated):
        if rounds and extra_test is None and rolled(iterated, rounds, start, body):
            return
        decision = True if extra_test is None else extra_test()
        if not is_traced(decision):
            if not decision:
                return
            start.run(body, item)
            continue
        if isinstance(iterated, range) and compiled_range(iterated, rounds, start, extra_test, body):
            return
        round_ = functools.partial(body, item)
        if_stmt(decision, round_, nothing, variables.get, variables.set, variables.names, len(variables.names))


class Start:
    """The variables and arrays before the first round of a loop, to begin it once more if `begins_again`.

    That cannot be where rounds have changed lists, objects or the like: only variables and traced arrays are set back.
    """

    def __init__(self, variables: Variables, begins_again: bool):
        self.variables = variables
        self.entry = variables.get()
        self.changes = Journal() if begins_again else None
        self.around = Surroundings(variables.code, variables.names) if begins_again else None
        self.nodes = 0

    def run(self, body: Callable[..., None], *item: Any) -> None:
        """Run a round that can be taken back."""
        if self.changes is None:
            body(*item)
            return
        here = current_trace()
        before = len(here.builder.nodes) if here is not None else 0
        with journal(self.changes):
            body(*item)
        if here is not None and not here.computes:
            self.nodes += len(here.builder.nodes) - before

    def can_begin_again(self) -> bool:
        return self.around is not None and not any(self.around.changes())

    def again(self) -> None:
        """Let everything be as before the first round, or, the second time, as after the last one."""
        now = self.variables.get()
        if self.changes is not None:
            self.changes.exchange()
        self.variables.set(self.entry)
        self.entry = now

    def close(self) -> None:
        """Stop following the rounds: the loop does not begin again."""
        self.changes = self.around = None


def numbered(numbers: range) -> Rows:
    """Return a range as rows, whose numbers are known to lie in it."""
    rows = (arange(numbers.start, numbers.stop, numbers.step),)
    return Rows(rows, lambda row: counter(row[0], numbers[0], numbers[-1]))


def rolled(numbers: Iterable[Any], rounds: int, start: Start, body: Callable[[Any], None]) -> bool:
    """Compile a loop over a range that would be long, as its first rounds show; say whether that can be."""
    context = ROLLING.get()
    if context is None or not isinstance(numbers, range) or start.around is None:
        return False
    if len(numbers) < 3 or start.nodes * len(numbers) <= MOST_NODES * rounds:
        return False
    code, again = body.__code__, start.can_begin_again()
    rest = numbers if again else numbers[rounds:]
    if context.failed[code] >= MOST_FAILURES or len(rest) < 3:
        start.close()
        return False
    if again:
        start.again()
    try:
        scanned(numbered(rest), body, start.variables, functools.partial(check_integers, counter=rest))
    except Exception:  # whatever a round does with a traced counter: it is unrolled
        context.failed[code] += 1
        if again:
            start.again()
        start.close()
        return False
    return True


def compiled_range(
    numbers: range, rounds: int, start: Start, extra_test: Test | None, body: Callable[[Any], None]
) -> bool:
    """Compile the rest of a range (all of it after one round); say whether that can be."""
    again = rounds == 1 and start.can_begin_again()
    rest = numbers if again else numbers[rounds:]
    now = start.variables.get()
    if again:
        start.again()
    try:
        counted(TracedRange(rest.start, rest.stop, rest.step), extra_test, body, start.variables, certain=again)
    except (TracerBoolError, Mismatch) as error:
        if again:
            start.again()
        start.variables.set(now)
        if len(rest) > UNROLL_LIMIT:
            raise TracerError(error.message, fix=error.fix, where=error.where) from None
        return False
    return True
