"""Between which numbers a traced integer lies, where that follows from the counters of loops alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from tracegrad.ir import Literal, Node, Operand
from tracegrad.trace import Trace, Tracer

Interval: TypeAlias = tuple[float, float]
"""The least and the largest value of an integer: Python's integers, or infinities where nothing is known."""
ALL: Interval = (float("-inf"), float("inf"))


def corners(operation: Callable[[Any, Any], Any]) -> Callable[..., Interval]:
    """Bound an operation that is monotonous in each operand by what it gives at the ends; inf * 0 is anything."""

    def bound(a: Interval, b: Interval) -> Interval:
        found = [operation(x, y) for x in a for y in b]
        return ALL if any(map(math.isnan, found)) else (min(found), max(found))

    return bound


def power(a: Interval, b: Interval) -> Interval:
    if ALL in (a, b) or b[0] < 0 or b[1] > 64:
        return ALL
    most = max(1, *map(abs, a)) ** b[1]
    return -most, most


def remainder(a: Interval, b: Interval) -> Interval:
    return min(b[0], 0), max(b[1], 0)


BOUNDS: dict[str, Callable[..., Interval]] = {
    "abs": lambda a: (0, max(map(abs, a))),
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "convert": lambda a: a,
    "floor_divide": lambda a, b: ALL if b[0] <= 0 <= b[1] or ALL in (a, b) else corners(lambda x, y: x // y)(a, b),
    "maximum": corners(max),
    "minimum": corners(min),
    "mod": remainder,
    "mul": lambda a, b: ALL if ALL in (a, b) else corners(lambda x, y: x * y)(a, b),
    "neg": lambda a: (-a[1], -a[0]),
    "power": power,
    "square": lambda a: (0, max(x * x for x in a)),
    "sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "where": lambda _, a, b: (min(a[0], b[0]), max(a[1], b[1])),
}


def origin(trace: Trace, operand: Operand) -> tuple[Trace, Operand]:
    """Return where a value was made that a loop or branch reads from outside."""
    for captured in trace.captures:
        if captured.node is operand and type(captured.value) is Tracer:
            return origin(captured.value._trace, captured.value._node)
    return trace, operand


def interval(value: Any, depth: int = 20) -> Interval:
    """Return the bounds of a number; of one that is computed in more steps than `depth`, none."""
    if not isinstance(value, Tracer):
        return int(value), int(value)
    trace, operand = origin(value._trace, value._node)
    if isinstance(operand, Literal):
        return (operand.value, operand.value) if operand.dtype.kind in "iu" else ALL
    if operand in trace.bounds:
        return trace.bounds[operand]
    rule = BOUNDS.get(operand.prim.name) if depth else None
    if rule is None:
        return ALL
    first, last = rule(*(interval(Tracer(trace, part), depth - 1) for part in operand.operands))
    return (first, last) if operand.dtype.kind == "f" or fits(first, last, operand.dtype) else ALL


def fits(first: float, last: float, dtype: np.dtype[Any]) -> bool:
    """Say whether integers of a dtype hold these numbers: others would wrap."""
    return dtype.kind in "iu" and np.iinfo(dtype).min <= first and last <= np.iinfo(dtype).max


def difference(first: Any, second: Any) -> int | None:
    """Return second - first where both are one number plus integers that are known, else None."""
    (base, start), (other, stop) = base_and_offset(first), base_and_offset(second)
    return stop - start if base is other else None


def base_and_offset(value: Any) -> tuple[Operand | None, int]:
    """Return the node and the integer that a number is the sum of."""
    if not isinstance(value, Tracer):
        return None, int(value)
    trace, operand = origin(value._trace, value._node)
    offset = 0
    while True:
        match operand:
            case Node(prim=prim, operands=(part, Literal(value=int(step)))) if prim.name in ("add", "sub"):
                offset += step if prim.name == "add" else -step
            case Node(prim=prim, operands=(Literal(value=int(step)), part)) if prim.name == "add":
                offset += step
            case _:
                return operand, offset
        trace, operand = origin(trace, part)
