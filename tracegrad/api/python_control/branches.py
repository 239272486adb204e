"""`if`, conditional expressions, `and`, `or`, `not`: plain Python for known conditions, `cond` for traced ones."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracegrad import memory, tree
from tracegrad.api.control import cond
from tracegrad.api.python_control.effects import Surroundings
from tracegrad.api.python_control.known import fact, guards_of, learn
from tracegrad.api.python_control.state import (
    Getter,
    Guarded,
    Region,
    Setter,
    Undefined,
    Unreturned,
    as_weak,
    careful,
    cast,
    is_number,
    is_traced,
    joined,
    opened,
    refuse_unset,
    same,
    show,
    trace_region,
    zero_like,
)
from tracegrad.errors import Mismatch, TracerError, user_line
from tracegrad.ir import Node
from tracegrad.memory import Memory, entangle, link, memories_of
from tracegrad.numpy.arithmetic import where
from tracegrad.numpy.elementwise import logical_and, logical_not, logical_or
from tracegrad.ops.elementwise import logical_not as not_primitive
from tracegrad.trace import STATE, Tracer

CHEAP = 8


def truth(value: Any) -> Any:
    """Return a traced value as one traced bool."""
    value = value.reshape(()) if value.shape and value.size == 1 else value
    return value if value.dtype == np.bool_ else value.astype(np.bool_)


def negates(value: Any, other: Any) -> bool:
    """Say whether the traced bool `value` is `not other`."""
    if not (isinstance(value, Tracer) and isinstance(other, Tracer)):
        return False
    node = value._node
    return getattr(node, "prim", None) is not_primitive and node.operands[0] is other._node  # type: ignore[union-attr]


def knowing(values: tuple[Any, ...], predicate: Any, holds: bool) -> tuple[Any, ...]:
    """Replace the flags among `values` whose value follows from the predicate: `not done` is false where done holds."""

    def known(value: Any) -> Any:
        if isinstance(value, Tracer) and isinstance(predicate, Tracer):
            if same(value, predicate):
                return holds
            if negates(predicate, value) or negates(value, predicate):
                return not holds
        return value

    return tuple(known(v) if isinstance(v, Tracer) else v for v in values)


@dataclass(frozen=True)
class Choice:
    """A leaf that `cond` gives: its place among its results, whether it is weak, and what the branches have there."""

    place: int
    weak: bool
    values: tuple[Any, Any]


class Merge:
    """What the variables hold after a branch: known values stay, the others are chosen by `cond`."""

    def __init__(self, predicate: Any, names: tuple[str, ...], yes: tuple[Any, ...], no: tuple[Any, ...]):
        self.predicate = predicate
        self.dtypes: list[np.dtype[Any]] = []
        self.where = user_line()
        flags = list(zip(yes, no, strict=True))
        guards = [self.guards(a, b, [*flags, (True, False)]) for a, b in flags]
        pairs = [self.filled(a, b, g) for (a, b), g in zip(flags, guards, strict=True)]
        self.yes, self.no = tuple(a for a, _ in pairs), tuple(b for _, b in pairs)
        self.merged = [self.value(n, a, b, g) for n, (a, b), g in zip(names, pairs, guards, strict=True)]

    def guards(self, a: Any, b: Any, flags: Sequence[tuple[Any, Any]]) -> list[tuple[int, bool]] | None:
        """Return where a variable is set that is not set on every path, None for one that is; the last flag is the
        predicate."""
        sometimes = any(isinstance(v, Undefined) and not isinstance(v, Unreturned) for v in (a, b))
        return guards_of(a, b, flags) if sometimes else None

    def filled(self, a: Any, b: Any, guards: Sequence[Any] | None) -> tuple[Any, Any]:
        """Give a variable a value where it is not set, if a flag keeps it from being read there."""
        x, y = opened(a), opened(b)
        if isinstance(x, Undefined) and not isinstance(y, Undefined) and (guards or isinstance(x, Unreturned)):
            return zero_like(y), y
        if isinstance(y, Undefined) and not isinstance(x, Undefined) and (guards or isinstance(y, Unreturned)):
            return x, zero_like(x)
        return x, y

    def value(self, name: str, a: Any, b: Any, guards: Sequence[Any] | None) -> Any:
        """Return the structure of one variable with leaves that are values or Choices."""
        if isinstance(a, Undefined) and isinstance(b, Undefined):
            return a
        reason = f"it is set in only one branch of the `if` at {self.where}, whose condition is traced"
        if isinstance(a, Undefined) or isinstance(b, Undefined) or guards == []:
            return Undefined(name, reason)
        left, left_tree = tree.flatten(a)
        right, right_tree = tree.flatten(b)
        if left_tree != right_tree:
            raise self.refusal(name, a, b)
        found = tree.unflatten(left_tree, [self.leaf(name, x, y, a, b) for x, y in zip(left, right, strict=True)])
        return found if guards is None else Guarded(name, reason, found, guards)

    def leaf(self, name: str, x: Any, y: Any, a: Any, b: Any) -> Any:
        if x is y:
            return x
        if same(x, y):
            memories = memories_of((x, y))
            return link(x.owned(), memories) if memories else x
        if (x is True and y is False) or (x is False and y is True):
            return truth(self.predicate) if x else not_(self.predicate)
        found = joined(x, y) if is_number(x) and is_number(y) else None
        if found is None:
            raise self.refusal(name, a, b)
        self.dtypes.append(found[0].dtype)
        return Choice(len(self.dtypes) - 1, found[1], (x, y))

    def refusal(self, name: str, a: Any, b: Any) -> Mismatch:
        what = "the result" if name.startswith("retval_") else name
        shown = (show(a), show(b)) if show(a) != show(b) else (repr(a), repr(b))
        return Mismatch(
            f"if: {what} is {shown[0]} in one branch and {shown[1]} in the other",
            fix="give it the same structure, shape and dtype in both branches",
        )

    def chosen(self, region: Region, values: tuple[Any, ...], original: tuple[Any, ...]) -> list[Any]:
        """Return the leaves to choose between as one branch computes them, replayed in the innermost trace."""
        outputs = iter(region.outputs())
        computed = []
        for value, first in zip(values, original, strict=True):
            leaves = tree.flatten(value)[0]
            fresh = isinstance(opened(first), Undefined) and not isinstance(value, Undefined)
            computed.append([x if fresh or not is_number(x) else next(outputs) for x in leaves])
        found: list[Any] = [None] * len(self.dtypes)
        for merged, leaves in zip(self.merged, computed, strict=True):
            for target, leaf in zip(tree.flatten(opened(merged))[0], leaves, strict=False):
                if isinstance(target, Choice):
                    found[target.place] = cast(leaf, self.dtypes[target.place])
        return found

    def put(self, results: list[Any]) -> tuple[Any, ...]:
        """Put the results of `cond` in place."""

        choices: list[Choice] = []
        chosen: list[Any] = []

        def leaf(target: Any) -> Any:
            if not isinstance(target, Choice):
                return target
            choices.append(target)
            chosen.append(link(as_weak(results[target.place], target.weak), memories_of(target.values)))
            return chosen[-1]

        found = [v if isinstance(v, Undefined) else tree.map(leaf, v) for v in self.merged]
        for place, value in enumerate(self.merged):
            if isinstance(value, Guarded):
                flags = [*found, self.predicate]
                guards = [fact(flags[i], holds) for i, holds in value.guards if isinstance(flags[i], Tracer)]
                found[place] = Guarded(value.name, value.reason, tree.map(leaf, value.value), guards)
        entangle(chosen, [choice.values for choice in choices])
        return tuple(found)


def choose(
    predicate: Any,
    yes: Callable[[], tuple[Any, ...]],
    no: Callable[[], tuple[Any, ...]],
    names: tuple[str, ...],
    around: Surroundings,
) -> tuple[Any, ...]:
    """Trace both branches; return what the variables hold after the one that the traced predicate takes."""
    line = user_line()
    carried: list[Memory] = []

    def deciding(run: Callable[[], tuple[Any, ...]], holds: bool) -> Callable[[], tuple[Any, ...]]:
        def decided() -> tuple[Any, ...]:
            learn(predicate, holds)
            with around.watched("if"):
                found = run()
            around.check("if")
            return (*found, *(m.value() for m in carried))

        return decided

    def within(_: Sequence[Tracer]) -> AbstractContextManager[None]:
        here = STATE.get().traces[-1]
        return memory.carried(carried, [Tracer(here, here.lift(m.value())) for m in carried])

    while True:
        try:
            regions = [
                trace_region(deciding(run, holds), f"if_{holds}".lower(), carries=True, within=within)
                for run, holds in ((yes, True), (no, False))
            ]
            break
        except memory.Written as written:
            if written.memory in carried:  # the variable of a loop around: the loop is to carry it
                raise
            carried.append(written.memory)
        except RecursionError:
            raise TracerError(
                "recursion: it ends on a traced condition, so tracing it does not end",
                fix="write it as a loop",
                where=line,
            ) from None
        except Exception as error:
            error.add_note(f"while tracing the branches of the condition at {line}: it is traced, so both are traced")
            raise
    names = (*names, *(f"array {i}" for i in range(len(carried))))
    merge = Merge(predicate, names, regions[0].values, regions[1].values)
    left = functools.partial(merge.chosen, regions[0], merge.yes, regions[0].values)
    right = functools.partial(merge.chosen, regions[1], merge.no, regions[1].values)
    results: list[Any] = []
    if merge.dtypes and all(only_numbers(region) for region in regions):
        results = [where(truth(predicate), a, b) for a, b in zip(left(), right(), strict=True)]
    elif merge.dtypes:
        results = cond(truth(predicate), left, right)
    found = merge.put(results)
    return memory.settle(carried, found)


def only_numbers(region: Region) -> bool:
    """Say whether a branch computes nothing and gives numbers: those are chosen by `where`, which fuses."""
    graph = region.traced.graph
    return not graph.nodes and all(output.aval.shape == () for output in graph.outputs)


def if_stmt(
    condition: Any,
    body: Callable[[], None],
    orelse: Callable[[], None],
    get_state: Getter,
    set_state: Setter,
    names: tuple[str, ...],
    n_outputs: int,
) -> None:
    """`if condition: body else: orelse`, on the variables `names`, of which the first `n_outputs` are read later."""
    if not is_traced(condition):
        (body if condition else orelse)()
        return
    entry = get_state()
    set_state = careful(set_state, names)

    def branch(run: Callable[[], None], holds: bool) -> Callable[[], tuple[Any, ...]]:
        def traced() -> tuple[Any, ...]:
            set_state(knowing(entry, condition, holds))
            run()
            found = get_state()
            set_state(entry)
            return found[:n_outputs]

        return traced

    around = Surroundings((body, orelse), names)
    try:
        found = choose(condition, branch(body, True), branch(orelse, False), names[:n_outputs], around)
        refuse_unset("if", names, found)
        set_state((*found, *entry[n_outputs:]))
    except BaseException:
        set_state(entry)
        raise


def if_exp(condition: Any, yes: Callable[[], Any], no: Callable[[], Any], text: str = "") -> Any:
    """`yes if condition else no`."""
    if not is_traced(condition):
        return yes() if condition else no()
    names = ("the conditional expression",)
    return choose(condition, lambda: (yes(),), lambda: (no(),), names, Surroundings((yes, no), ()))[0]


def and_(left: Callable[[], Any], right: Callable[[], Any]) -> Any:
    """`left and right`; a traced left side decides at run time whether the right side is computed."""
    first = left()
    if not is_traced(first):
        return first and right()
    if first.dtype == np.bool_ and (second := cheap(right)) is not None:
        return logical_and(truth(first), second)
    return if_exp(first, right, lambda: False if first.dtype == np.bool_ else first)


def or_(left: Callable[[], Any], right: Callable[[], Any]) -> Any:
    """`left or right`; a traced left side decides at run time whether the right side is computed."""
    first = left()
    if not is_traced(first):
        return first or right()
    if first.dtype == np.bool_ and (second := cheap(right)) is not None:
        return logical_or(truth(first), second)
    return if_exp(first, lambda: True if first.dtype == np.bool_ else first, right)


def cheap(right: Callable[[], Any]) -> Any:
    """Return the traced bool `right()` if it takes only a few elementwise operations, which cannot fail, else None."""
    region = trace_region(lambda: (right(),), "right_side")
    nodes = region.traced.graph.nodes
    value = region.values[0]
    if len(nodes) > CHEAP or any(n.prim.kind != "elementwise" or n.shape for n in nodes) or not is_traced(value):
        return None
    return region.outputs()[0] if value.dtype == np.bool_ and not value.shape else None


def not_(value: Any) -> Any:
    """`not value`; of `not x` it is x as one bool, so that flags are recognised."""
    if not is_traced(value):
        return not value
    node = value._node
    if getattr(node, "prim", None) is not_primitive and isinstance(node.operands[0], Node):
        return Tracer(value._trace, node.operands[0])
    return logical_not(truth(value))


def asserted(value: Any) -> Any:
    """`assert value`."""
    if is_traced(value):
        raise TracerError(
            "assert: its condition is traced, so it is not known before the program runs",
            fix="return the condition and check it outside, or run in tg.eager()",
        )
    return value


def filtered(value: Any) -> Any:
    """`[... for ... if value]`."""
    if is_traced(value):
        raise TracerError(
            "comprehension: it keeps elements on a traced condition, so its length is not known while tracing",
            fix="use np.where(condition, x, 0.0) for the elements, or a `for` with an `if` inside",
        )
    return value


def raising() -> None:
    """Come before `raise`."""
    if any(trace.known for trace in STATE.get().traces):
        raise TracerError(
            "raise: whether it is reached depends on a traced condition",
            fix="return the condition and check it outside, or run in tg.eager()",
        )
