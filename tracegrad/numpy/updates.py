"""x.at[index]: new arrays that differ from x at an index."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError, DTypeError, ShapeError
from tracegrad.numpy import arithmetic, elementwise as ew, indexing
from tracegrad.numpy.promote import Array, ArrayLike, array, broadcast_array, cast, dtype_of, is_weak, operand, shape_of
from tracegrad.numpy.promote import shown
from tracegrad.numpy.shaping import as_shape
from tracegrad.ops import index as ops


class At:
    """What `x.at` is: index it, then call `set`, `add`, `multiply`, ...; x stays as it was."""

    __slots__ = ("_x",)

    def __init__(self, x: Array):
        self._x = x

    def __getitem__(self, index: Any) -> Update:
        return Update(self._x, indexing.plan(index, self._x))


class Update:
    """One place of an array. Each method returns a new array of the same shape and dtype."""

    __slots__ = ("_how", "_x")

    def __init__(self, x: Array, how: indexing.Plan):
        self._x = x
        self._how = how

    def get(self) -> Array:
        """Return x[index]."""
        return indexing.read(self._x, self._how)

    def set(self, values: ArrayLike) -> Array:
        """Return x with x[index] replaced; where a place repeats, the last value stays."""
        return self.write(self.fit(values), ops.scatter_set)

    def add(self, values: ArrayLike) -> Array:
        """Return x with values added at the index; where a place repeats, all are added."""
        fitted = self.fit(values)
        return self.write(fitted, ops.scatter_add) if self._how.points else self.set(ew.add(self.get(), fitted))

    def subtract(self, values: ArrayLike) -> Array:
        """Return x with values subtracted at the index; where a place repeats, all are subtracted."""
        return self.add(ew.negative(self.fit(values)))

    def multiply(self, values: ArrayLike) -> Array:
        """Return x with x[index] multiplied. Raises ArgumentError when a place may repeat."""
        return self.combine("multiply", ew.multiply, values)

    def divide(self, values: ArrayLike) -> Array:
        """Return x with x[index] divided. Raises ArgumentError when a place may repeat."""
        return self.combine("divide", ew.divide, values)

    def power(self, values: ArrayLike) -> Array:
        """Return x with x[index] raised to a power. Raises ArgumentError when a place may repeat."""
        return self.combine("power", arithmetic.power, values)

    def min(self, values: ArrayLike) -> Array:
        """Return x with the smaller of x[index] and values. Raises ArgumentError when a place may repeat."""
        return self.combine("min", ew.minimum, values)

    def max(self, values: ArrayLike) -> Array:
        """Return x with the larger of x[index] and values. Raises ArgumentError when a place may repeat."""
        return self.combine("max", ew.maximum, values)

    def combine(self, name: str, function: Any, values: ArrayLike) -> Array:
        if indexing.repeats(self._how):
            raise ArgumentError(
                f"at[].{name}: the index arrays may name one place twice, and {name} would see only one of the values",
                fix="use at[].add, or index arrays known while tracing that name each place once",
            )
        return self.set(function(self.get(), operand("at", values)))

    def fit(self, values: ArrayLike) -> Array:
        """Return values in x's dtype, broadcast to the shape of x[index]."""
        values = operand("at", values)
        dtype, shape = self._x.dtype, self._how.shape
        if not is_weak(values) and not np.can_cast(dtype_of(values), dtype, "same_kind"):
            raise DTypeError(
                f"at: {shown(values)} cannot be stored in {shown(self._x)}", fix="convert it with .astype(...)"
            )
        have = shape_of(values)
        lead = len(have) - len(shape)
        fits = have[max(lead, 0) :]
        if any(n != 1 for n in have[: max(lead, 0)]) or any(
            n not in (1, m) for n, m in zip(fits[::-1], shape[::-1], strict=False)
        ):
            raise ShapeError(
                f"at: {shown(values)} does not fit x[index] of shape {shape}", fix="check the shape of the values"
            )
        fitted = array("at", cast("at", values, dtype))
        return broadcast_array(as_shape(fitted, fits), shape)

    def write(self, values: Array, scatter: Any) -> Array:
        x, how = self._x, self._how
        updates = indexing.as_updates(values, how)
        if how.points:
            updates = scatter(indexing.slice_part(x, how), updates, *how.points, axes=how.axes)
        return ops.set_slice(x, updates, start=how.start, step=how.step) if how.sliced else updates


def at(x: ArrayLike) -> At:
    """Return what `x.at` is on traced values, for NumPy arrays as well.

    >>> at(np.zeros(3))[1].set(5.0)
    array([0., 5., 0.])
    """
    return At(array("at", x))
