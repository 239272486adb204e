"""Changes in place of traced values: `x[i] = v` and `x += v`, with NumPy's meaning (`tracegrad.memory`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.errors import DTypeError, ShapeError
from tracegrad.numpy import arithmetic, creation, elementwise as ew, indexing, products
from tracegrad.numpy.creation import astype
from tracegrad.numpy.promote import Array, shown
from tracegrad.numpy.selection import Selected, elementwise, written
from tracegrad.numpy.slices import Part, by_slice, place_of
from tracegrad.numpy.updates import Update
from tracegrad.numpy.shaping import as_shape, ndim
from tracegrad.memory import ELEMENT, WRITERS, write_out
from tracegrad.trace import Tracer

OPERATORS: dict[str, Callable[..., Any]] = {
    "__iadd__": ew.add, "__isub__": ew.subtract, "__imul__": ew.multiply, "__itruediv__": ew.divide,
    "__ifloordiv__": ew.floor_divide, "__imod__": ew.remainder, "__ipow__": arithmetic.power,
    "__imatmul__": products.matmul, "__iand__": ew.bitwise_and, "__ior__": ew.bitwise_or, "__ixor__": ew.bitwise_xor,
    "__ilshift__": ew.left_shift, "__irshift__": ew.right_shift,
}  # fmt: skip


def setitem(self: Tracer, index: Any, value: Any) -> None:
    """x[index] = value: values are converted to x's dtype; where a place repeats, the last value stays."""
    if value is ELEMENT:
        return
    at = place_of(self, index)
    if at is None and (part := by_slice(self, index)) is not None:
        assign(part, value)
        return
    if isinstance(value, Selected) and isinstance(index, Tracer):
        self.changed(written(self, index, value), "item assignment")
        return
    if isinstance(index, Tracer) and index.dtype == np.bool_:
        self.changed(masked(self, index, stored(self, value)), "item assignment")
        return
    at = at or indexing.Place(indexing.plan(index, self))
    if not is_place(self, at, value):
        self.changed(Update(self, at.how).set(stored(self, value)), "item assignment")


def assign(part: Part, value: Any) -> None:
    """Store a value in x[start:stop] for bounds that are not known."""
    if part.is_place_of(value):
        return
    whole = part._whole
    if isinstance(value, Selected):
        found = written(whole, part._mask, value)
    else:
        found = masked(whole, part._mask, stored(whole, value))
    write_out(found, whole, "item assignment")


def masked(x: Tracer, mask: Tracer, value: Any) -> Array:
    """Return x with `value` wherever a mask holds: one value for all places, as their number is not known."""
    rest = x.ndim - mask.ndim
    if mask.shape != x.shape[: mask.ndim]:
        raise ShapeError(
            f"item assignment: the mask {shown(mask)} does not fit {shown(x)}", fix="check the shape of the mask"
        )
    if ndim(value) > rest:
        raise ShapeError(
            f"item assignment: {shown(value)} in the places of a traced mask or slice, whose number is not known",
            fix="choose with x = np.where(mask, values, x), values of the shape of x",
        )
    return arithmetic.where(as_shape(mask, (*mask.shape, *(1,) * rest)), value, x)


def is_place(x: Tracer, at: indexing.Place, value: Any) -> bool:
    """Say whether a value is x[index] itself, changed in place: what `x[index] += v` assigns at its end."""
    if not isinstance(value, Tracer) or value._memory is None or value._memory is not x._memory:
        return False
    if at.how.points:
        return bool(value._steps == (*x._steps, (indexing.place, {"at": at})))
    there = indexing.read(x, at.how)
    return isinstance(there, Tracer) and there._memory is x._memory and there._steps == value._steps


def stored(x: Tracer, value: Any) -> Any:
    """Return what an assignment stores in x: NumPy converts values to x's dtype, whatever they are."""
    fits = not isinstance(value, (Tracer, np.ndarray, np.generic)) or np.can_cast(value.dtype, x.dtype, "same_kind")
    return value if fits else astype(value, x.dtype)


def check_stored(found: Array, x: Array, name: str) -> None:
    """Refuse to store a result of an operator like `+=` in an array of another kind of numbers."""
    if not np.can_cast(found.dtype, x.dtype, "same_kind"):
        raise DTypeError(
            f"{name}: the result is {shown(found)}, which cannot be stored in {shown(x)}",
            fix="write x = x + y, which may have another dtype",
        )


def in_place(name: str, function: Callable[..., Any]) -> Callable[[Tracer, Any], Any]:
    """Make an operator like `+=` of a function."""
    shown_name = f"{name.strip('_')}"

    def operator(self: Tracer, other: Any) -> Any:
        number = not self.shape and not self._steps
        if number or not self.can_change() or other is None or isinstance(other, (str, bytes, dict, set)):
            return NotImplemented  # a number of NumPy's is not changed: the variable gets a new one
        found = function(self, other)
        if found.shape != self.shape:
            raise ShapeError(
                f"{shown_name}: the result is {shown(found)}, which does not fit into {shown(self)}",
                fix="write x = x + y, which may have another shape",
            )
        check_stored(found, self, shown_name)
        self.changed(found if found.dtype == self.dtype else astype(found, self.dtype), shown_name)
        return self

    operator.__name__ = name
    operator.__doc__ = f"Change the array in place, as NumPy's `{name}`."
    return operator


def in_selection(name: str, function: Callable[..., Any]) -> Callable[[Selected, Any], Any]:
    """Make an operator like `+=` of a function, for x[mask], a copy that may have several names, and x[start:stop]."""
    shown_name = f"{name.strip('_')}"

    def operator(self: Selected, other: Any) -> Selected:
        found, whole = elementwise(function, shown_name, self, other), self._whole
        check_stored(found._whole, whole, shown_name)
        if isinstance(self, Part) or isinstance(whole, Tracer):
            write_out(written(whole, self._mask, found), whole, shown_name)
        else:
            self._whole = astype(found._whole, whole.dtype)
        return self

    return operator


for name, function in OPERATORS.items():
    if name != "__imatmul__":
        setattr(Selected, name, in_selection(name, function))


def fill(self: Tracer, value: Any) -> None:
    """Set every element, as `ndarray.fill`."""
    setitem(self, ..., value)


def copyto(dst: Any, src: Any) -> None:
    """Store an array in another one, as `numpy.copyto`."""
    write_out(src, dst, "numpy.copyto")


def fill_diagonal(a: Any, val: Any, wrap: bool = False) -> None:
    """Set the diagonal of a matrix, as `numpy.fill_diagonal`."""
    places = np.arange(min(np.shape(a)))
    if np.ndim(a) != 2 or (wrap and np.shape(a)[0] > np.shape(a)[1]):
        raise ShapeError(f"fill_diagonal: {shown(a)} is not a matrix that fits", fix="set x[i, i] = v with arrays i")
    now = creation.asarray(a)
    write_out(Update(now, indexing.plan((places, places), now)).set(stored(now, val)), a, "numpy.fill_diagonal")


AT = {"add": "add", "subtract": "subtract", "multiply": "multiply", "divide": "divide", "power": "power",
      "maximum": "max", "minimum": "min"}  # fmt: skip
"""The ufuncs that have `at`, and the methods of `x.at[index]` that do the same."""


def at_method(name: str, method_name: str) -> Callable[..., None]:
    """Make what `np.add.at(x, index, values)` and its like call."""

    def at(x: Any, index: Any, values: Any) -> None:
        now = creation.asarray(x)
        write_out(getattr(Update(now, indexing.plan(index, now)), method_name)(values), x, f"numpy.{name}.at")

    return at


WRITERS["place"] = lambda x, value, at: Update(x, at.how).set(value)
METHODS: dict[str, Callable[..., Any]] = {
    "__setitem__": setitem, **{name: in_place(name, function) for name, function in OPERATORS.items()}
}
