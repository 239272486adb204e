"""Reductions over axes that are given as a sorted tuple of non-negative numbers; the axes are dropped.

    y[i] = sum_r x[i, r]      <ct, sum(x)> = <expand(ct), x>:  the vjp of a sum is a broadcast, and the other way round.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tracegrad.errors import ShapeError
from tracegrad.ir.aval import Aval
from tracegrad.ir.primitive import Primitive, as_eager
from tracegrad.ops.elementwise import convert, equal, where
from tracegrad.ops.shape import broadcast

Axes = tuple[int, ...]


def kept(ndim: int, axes: Axes) -> Axes:
    return tuple(a for a in range(ndim) if a not in axes)


def expand(y: Any, x: Any, axes: Axes) -> Any:
    """Broadcast a reduced value back over the axes of x."""
    return broadcast(y, shape=tuple(x.shape), axes=kept(len(x.shape), axes))


class Reduce(Primitive):
    """A reduction; `combine` is the scalar code of one step, `identity` the value of an empty one for each dtype
    kind."""

    kind = "reduce"
    combine = ""
    samples = [
        {"shapes": [(3, 4)], "params": {"axes": axes}, "dtype": np.float64} for axes in [(0,), (1,), (0, 1), ()]
    ] + [{"shapes": [(2, 3, 4)], "params": {"axes": (0, 2)}, "dtype": np.float64}]

    def identity(self, dtype: np.dtype[Any]) -> Any:
        return 0

    def aval(self, x: Aval, *, axes: Axes) -> Aval:  # type: ignore[override]
        if any(not 0 <= a < x.ndim for a in axes) or list(axes) != sorted(set(axes)):
            raise ShapeError(f"{self.name}: the axes {axes} do not fit {x}", fix=f"use axes from 0 to {x.ndim - 1}")
        if self.identity(x.dtype) is None and any(x.shape[a] == 0 for a in axes):
            raise ShapeError(f"{self.name}: {x} is empty along {axes}, so it has no largest or smallest element")
        return Aval(tuple(x.shape[a] for a in kept(x.ndim, axes)), x.dtype)


class Sum(Reduce):
    name = "reduce_sum"
    combine = "{0} + {1}"
    linear = True

    def eager(self, x: Any, *, axes: Axes) -> Any:
        return as_eager(np.add.reduce(x, axes, x.dtype), x.dtype)

    def vjp(self, ct: Any, y: Any, x: Any, *, axes: Axes) -> Any:
        return expand(ct, x, axes)


reduce_sum = Sum()


class Extremum(Reduce):
    """The largest or smallest element; tied ones share the cotangent equally."""

    picks = True

    def vjp(self, ct: Any, y: Any, x: Any, *, axes: Axes) -> Any:
        hit = equal(x, expand(y, x, axes))
        count = reduce_sum(convert(hit, dtype=x.dtype), axes=axes)
        return where(hit, expand(ct / count, x, axes), 0.0)

    def jvp(self, ts: tuple[Any, ...], y: Any, x: Any, *, axes: Axes) -> Any:
        hit = equal(x, expand(y, x, axes))
        count = reduce_sum(convert(hit, dtype=x.dtype), axes=axes)
        return reduce_sum(where(hit, ts[0], 0.0), axes=axes) / count

    def identity(self, dtype: np.dtype[Any]) -> Any:
        return None


class Max(Extremum):
    name = "reduce_max"
    combine = "maximum({0}, {1})"

    def eager(self, x: Any, *, axes: Axes) -> Any:
        return as_eager(np.max(x, axis=axes), x.dtype)


class Min(Extremum):
    name = "reduce_min"
    combine = "minimum({0}, {1})"

    def eager(self, x: Any, *, axes: Axes) -> Any:
        return as_eager(np.min(x, axis=axes), x.dtype)


class Prod(Reduce):
    """The product. Its gradient needs the products of all the others: the public `prod` of floats multiplies in a
    tree."""

    name = "reduce_prod"
    combine = "{0} * {1}"
    samples = [{"shapes": [(3, 4)], "params": {"axes": (1,)}, "dtype": np.int64, "order": 0}]

    def identity(self, dtype: np.dtype[Any]) -> Any:
        return 1

    def eager(self, x: Any, *, axes: Axes) -> Any:
        return as_eager(np.prod(x, axis=axes, dtype=x.dtype), x.dtype)

    def vjp(self, ct: Any, y: Any, x: Any, *, axes: Axes) -> Any:
        return None


class ArgExtremum(Primitive):
    """The position of the first largest or smallest element along one axis, as int64; NaN counts as extreme."""

    kind = "reduce"
    combine = ""
    better = ""
    samples = [{"shapes": [(3, 4)], "params": {"axes": axes}, "dtype": np.float64, "order": 0} for axes in [(0,), (1,)]]

    def aval(self, x: Aval, *, axes: Axes) -> Aval:  # type: ignore[override]
        if len(axes) != 1 or not 0 <= axes[0] < x.ndim:
            raise ShapeError(f"{self.name}: axis {axes} does not fit {x}", fix=f"use an axis from 0 to {x.ndim - 1}")
        if x.shape[axes[0]] == 0:
            raise ShapeError(f"{self.name}: {x} is empty along axis {axes[0]}", fix="check the shape first")
        return Aval(tuple(x.shape[a] for a in kept(x.ndim, axes)), np.dtype(np.int64))

    def vjp(self, ct: Any, y: Any, x: Any, *, axes: Axes) -> Any:
        return None


class Argmax(ArgExtremum):
    name = "argmax"
    better = ">"

    def eager(self, x: Any, *, axes: Axes) -> Any:
        return as_eager(np.argmax(x, axis=axes[0]), np.dtype(np.int64))


class Argmin(ArgExtremum):
    name = "argmin"
    better = "<"

    def eager(self, x: Any, *, axes: Axes) -> Any:
        return as_eager(np.argmin(x, axis=axes[0]), np.dtype(np.int64))


class Cumsum(Primitive):
    """Running sums along one axis. The vjp is the running sum from the other end."""

    name = "cumsum"
    kind = "opaque"
    linear = True
    samples = [
        {"shapes": [(3, 4)], "params": {"axis": axis, "reverse": reverse}, "dtype": np.float64}
        for axis, reverse in [(0, False), (1, False), (1, True)]
    ]

    def aval(self, x: Aval, *, axis: int, reverse: bool) -> Aval:  # type: ignore[override]
        if not 0 <= axis < x.ndim:
            raise ShapeError(f"cumsum: axis {axis} does not fit {x}", fix=f"use an axis from 0 to {x.ndim - 1}")
        return x

    def eager(self, x: Any, *, axis: int, reverse: bool) -> Any:
        if reverse:
            return np.flip(np.cumsum(np.flip(x, axis), axis=axis, dtype=x.dtype), axis)
        return np.cumsum(x, axis=axis, dtype=x.dtype)

    def vjp(self, ct: Any, y: Any, x: Any, *, axis: int, reverse: bool) -> Any:
        return cumsum(ct, axis=axis, reverse=not reverse)


reduce_max, reduce_min, reduce_prod, argmax, argmin, cumsum = Max(), Min(), Prod(), Argmax(), Argmin(), Cumsum()


def count(shape: tuple[int, ...], axes: Axes) -> int:
    """Return the number of elements that a reduction over `axes` joins."""
    return math.prod(shape[a] for a in axes)
