"""`if`, conditional expressions, `and`, `or`, `not`: plain Python for known conditions, `cond` for traced ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracegrad import tree
from tracegrad.api.control import cond
from tracegrad.api.python_control.state import (
    Getter,
    Mismatch,
    Region,
    Setter,
    Undefined,
    Unreturned,
    as_weak,
    cast,
    is_number,
    is_traced,
    joined,
    same,
    show,
    trace_region,
    zero_like,
)
from tracegrad.errors import user_line
from tracegrad.ir import Node
from tracegrad.numpy.elementwise import logical_and, logical_not, logical_or
from tracegrad.ops.elementwise import logical_not as not_primitive
from tracegrad.trace import Tracer

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
    """A leaf that `cond` gives: its place among its result, and whether it is weak."""

    place: int
    weak: bool


class Merge:
    """What the variables hold after a branch: known values stay, the others are chosen by `cond`."""

    def __init__(self, predicate: Any, names: tuple[str, ...], yes: tuple[Any, ...], no: tuple[Any, ...]):
        self.predicate = predicate
        self.dtypes: list[np.dtype[Any]] = []
        self.where = user_line()
        pairs = [self.defined(n, a, b) for n, a, b in zip(names, yes, no, strict=True)]
        self.yes, self.no = tuple(a for a, _ in pairs), tuple(b for _, b in pairs)
        self.merged = [self.value(n, a, b) for n, (a, b) in zip(names, pairs, strict=True)]

    def defined(self, name: str, a: Any, b: Any) -> tuple[Any, Any]:
        """Give the result a value where it is not returned yet: a flag says that nobody reads it."""
        if isinstance(a, Unreturned) and not isinstance(b, Undefined):
            return zero_like(b), b
        if isinstance(b, Unreturned) and not isinstance(a, Undefined):
            return a, zero_like(a)
        return a, b

    def value(self, name: str, a: Any, b: Any) -> Any:
        """Return the structure of one variable with leaves that are values or Choices."""
        if isinstance(a, Undefined) or isinstance(b, Undefined):
            if isinstance(a, Unreturned) and isinstance(b, Unreturned):
                return a
            if isinstance(a, Undefined) and isinstance(b, Undefined):
                return a
            return Undefined(
                name, f"it is set in only one branch of the `if` at {self.where}, whose condition is traced"
            )
        left, left_tree = tree.flatten(a)
        right, right_tree = tree.flatten(b)
        if left_tree != right_tree:
            raise self.refusal(name, a, b)
        return tree.unflatten(left_tree, [self.leaf(name, x, y, a, b) for x, y in zip(left, right, strict=True)])

    def leaf(self, name: str, x: Any, y: Any, a: Any, b: Any) -> Any:
        if same(x, y):
            return x
        if (x is True and y is False) or (x is False and y is True):
            return truth(self.predicate) if x else not_(self.predicate)
        found = joined(x, y) if is_number(x) and is_number(y) else None
        if found is None:
            raise self.refusal(name, a, b)
        self.dtypes.append(found[0].dtype)
        return Choice(len(self.dtypes) - 1, found[1])

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
            fresh = isinstance(first, Undefined) and not isinstance(value, Undefined)
            computed.append([x if fresh or not is_number(x) else next(outputs) for x in leaves])
        found: list[Any] = [None] * len(self.dtypes)
        for merged, leaves in zip(self.merged, computed, strict=True):
            for target, leaf in zip(tree.flatten(merged)[0], leaves, strict=False):
                if isinstance(target, Choice):
                    found[target.place] = cast(leaf, self.dtypes[target.place])
        return found

    def put(self, results: list[Any]) -> tuple[Any, ...]:
        """Put the results of `cond` in place."""

        def leaf(target: Any) -> Any:
            if not isinstance(target, Choice):
                return target
            return as_weak(results[target.place], target.weak)

        return tuple(v if isinstance(v, Undefined) else tree.map(leaf, v) for v in self.merged)


def choose(
    predicate: Any, yes: Callable[[], tuple[Any, ...]], no: Callable[[], tuple[Any, ...]], names: tuple[str, ...]
) -> tuple[Any, ...]:
    """Trace both branches; return what the variables hold after the one that the traced predicate takes."""
    where = user_line()
    try:
        regions = trace_region(yes, "if_true"), trace_region(no, "if_false")
    except Exception as error:
        error.add_note(f"while tracing the branches of the condition at {where}: it is traced, so both are traced")
        raise
    merge = Merge(predicate, names, regions[0].values, regions[1].values)
    if not merge.dtypes:
        return merge.put([])
    results = cond(
        truth(predicate),
        lambda: merge.chosen(regions[0], merge.yes, regions[0].values),
        lambda: merge.chosen(regions[1], merge.no, regions[1].values),
    )
    return merge.put(results)


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

    def branch(run: Callable[[], None], holds: bool) -> Callable[[], tuple[Any, ...]]:
        def traced() -> tuple[Any, ...]:
            set_state(knowing(entry, condition, holds))
            run()
            return get_state()[:n_outputs]

        return traced

    try:
        found = choose(condition, branch(body, True), branch(orelse, False), names[:n_outputs])
    except BaseException:
        set_state(entry)
        raise
    set_state((*found, *entry[n_outputs:]))


def if_exp(condition: Any, yes: Callable[[], Any], no: Callable[[], Any], text: str = "") -> Any:
    """`yes if condition else no`."""
    if not is_traced(condition):
        return yes() if condition else no()
    return choose(condition, lambda: (yes(),), lambda: (no(),), ("the conditional expression",))[0]


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
