"""Indexing: gather, scatter and static slice updates.

    gather(x, i0, i1, ...; axes)[p, r] = x[i0[p], i1[p], ... at `axes`; r elsewhere]
    result: the indices' common shape, then the axes of x that are not indexed. Negative indices count from the end.
    <ct, gather(x, i)> = <scatter_add(0, ct, i), x>:  gather and scatter_add are each other's transpose.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tracegrad.errors import DTypeError, IndexOutOfBounds, ShapeError
from tracegrad.ir.aval import Aval
from tracegrad.ir.primitive import PRIMITIVES, Primitive
from tracegrad.ops.elementwise import where
from tracegrad.ops.shape import broadcast, iota, reshape, slice_, slices

Ints = tuple[int, ...]


def gathered_shape(name: str, x: Aval, indices: tuple[Aval, ...], axes: Ints) -> Ints:
    """Check the operands of a gather and return the result's shape."""
    if len(indices) != len(axes) or not indices:
        raise ShapeError(f"{name}: {len(indices)} index arrays for axes {axes} of {x}")
    for i in indices:
        if i.dtype.kind not in "iu":
            raise DTypeError(f"{name}: the index {i} is not an integer array", fix="convert it with i.astype(np.int64)")
        if i.shape != indices[0].shape:
            raise ShapeError(f"{name}: the index arrays {indices[0]} and {i} differ in shape")
    return indices[0].shape + tuple(n for a, n in enumerate(x.shape) if a not in axes)


def to_front(x: Any, axes: Ints) -> Any:
    rest = [a for a in range(np.ndim(x)) if a not in axes]
    return np.transpose(x, (*axes, *rest))


def checked(name: str, front: Any, indices: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the indices as NumPy takes them, or raise IndexOutOfBounds."""
    for axis, i in enumerate(indices):
        n = front.shape[axis]
        i = np.asarray(i)
        if i.size and (i.min() < -n or i.max() >= n):
            bad = int(i.min()) if i.min() < -n else int(i.max())
            raise IndexOutOfBounds(
                f"{name}: index {bad} is out of bounds for an axis of size {n}",
                fix=f"use indices from {-n} to {n - 1}" if n else "the axis is empty",
            )
    return tuple(np.asarray(i) for i in indices)


INDEX_SAMPLES: list[dict[str, Any]] = [
    {"x": (4, 3), "indices": [np.array([1, 3, 1])], "axes": (0,)},
    {"x": (4, 3), "indices": [np.array([[0, -1], [2, 1]])], "axes": (1,)},
    {"x": (4, 3, 2), "indices": [np.array([0, 3]), np.array([1, 1])], "axes": (0, 2)},
    {"x": (4, 3), "indices": [np.array(2)], "axes": (0,)},
]


class Gather(Primitive):
    name = "gather"
    kind = "gather"
    moves = True
    linear = True
    samples = [
        {"shapes": [s["x"]], "constants": s["indices"], "params": {"axes": s["axes"]}, "dtype": np.float64}
        for s in INDEX_SAMPLES
    ]

    def aval(self, x: Aval, *indices: Aval, axes: Ints) -> Aval:  # type: ignore[override]
        return x.with_shape(gathered_shape("index", x, indices, axes))

    def eager(self, x: Any, *indices: Any, axes: Ints) -> Any:
        front = to_front(x, axes)
        return front[checked("index", front, indices)]

    def vjp(self, ct: Any, y: Any, x: Any, *indices: Any, axes: Ints) -> Any:
        zeros = broadcast.beside(ct, ct.dtype.type(0), shape=tuple(x.shape), axes=())
        return (scatter_add(zeros, ct, *indices, axes=axes), *(None for _ in indices))


class Scatter(Primitive):
    """Base: `updates` has the shape that gathering at the same indices gives."""

    kind = "scatter"

    def aval(self, x: Aval, updates: Aval, *indices: Aval, axes: Ints) -> Aval:  # type: ignore[override]
        shape = gathered_shape(self.name, x, indices, axes)
        if updates.shape != shape or updates.dtype != x.dtype:
            raise ShapeError(f"{self.name}: the update {updates} does not fit {x.with_shape(shape)}")
        return x

    def front(self, x: Any, indices: tuple[Any, ...], axes: Ints) -> tuple[Any, Any, tuple[Any, ...]]:
        out = np.array(x)
        front = to_front(out, axes)
        return out, front, checked(self.name, front, indices)


SCATTER_SAMPLES: list[dict[str, Any]] = [
    {
        "shapes": [s["x"], to_front(np.empty(s["x"]), s["axes"])[tuple(s["indices"])].shape],
        "constants": s["indices"],
        "params": {"axes": s["axes"]},
        "dtype": np.float64,
    }
    for s in INDEX_SAMPLES
]


class ScatterAdd(Scatter):
    name = "scatter_add"
    linear = True
    samples = SCATTER_SAMPLES

    def eager(self, x: Any, updates: Any, *indices: Any, axes: Ints) -> Any:
        out, front, index = self.front(x, indices, axes)
        np.add.at(front, index, updates)
        return out

    def vjp(self, ct: Any, y: Any, x: Any, updates: Any, *indices: Any, axes: Ints) -> Any:
        return (ct, gather(ct, *indices, axes=axes), *(None for _ in indices))


class ScatterSet(Scatter):
    """Of updates to one place the last one stays, and only it has a gradient."""

    name = "scatter_set"
    linear = True
    moves = True
    samples = SCATTER_SAMPLES

    def eager(self, x: Any, updates: Any, *indices: Any, axes: Ints) -> Any:
        out, front, index = self.front(x, indices, axes)
        front[index] = updates
        return out

    def vjp(self, ct: Any, y: Any, x: Any, updates: Any, *indices: Any, axes: Ints) -> Any:
        shape = tuple(updates.shape)
        zeros = broadcast.beside(ct, ct.dtype.type(0), shape=shape, axes=())
        if math.prod(indices[0].shape) <= 1:  # one place: no update is overwritten by another one
            found = gather(ct, *indices, axes=axes)  # before the next line, which can then be done in place
            return (scatter_set(ct, zeros, *indices, axes=axes), found, *(None for _ in indices))
        number = iota.beside(ct, shape=(math.prod(shape),), axis=0, dtype=np.dtype(np.int64))
        number = reshape(number, shape=shape)
        blank = broadcast.beside(ct, np.int64(0), shape=tuple(x.shape), axes=())
        last = gather(scatter_set(blank, number, *indices, axes=axes), *indices, axes=axes) == number
        base = scatter_set(ct, zeros, *indices, axes=axes)
        return (base, where(last, gather(ct, *indices, axes=axes), 0.0), *(None for _ in indices))


class SetSlice(Primitive):
    """x with x[start : ... : step] replaced by `updates`; every number is static."""

    name = "set_slice"
    kind = "scatter"
    moves = True
    linear = True
    samples = [
        {"shapes": [(5, 6), size], "params": {"start": start, "step": step}, "dtype": np.float64}
        for start, size, step in [((1, 0), (3, 6), (1, 1)), ((0, 1), (3, 2), (2, 3))]
    ]

    def aval(self, x: Aval, updates: Aval, *, start: Ints, step: Ints) -> Aval:  # type: ignore[override]
        PRIMITIVES["slice"].aval(x, start=start, size=updates.shape, step=step)
        return x

    def eager(self, x: Any, updates: Any, *, start: Ints, step: Ints) -> Any:
        out = np.array(x)
        out[slices(start, updates.shape, step)] = updates
        return out

    def vjp(self, ct: Any, y: Any, x: Any, updates: Any, *, start: Ints, step: Ints) -> Any:
        size = tuple(updates.shape)
        zeros = broadcast.beside(ct, ct.dtype.type(0), shape=size, axes=())
        return set_slice(ct, zeros, start=start, step=step), slice_(ct, start=start, size=size, step=step)


class Argsort(Primitive):
    """The permutation that sorts the last axis, stable, NaN last, as int64."""

    name = "argsort"
    kind = "opaque"
    samples = [{"shapes": [shape], "dtype": np.float64, "order": 0} for shape in [(7,), (3, 5)]]

    def aval(self, x: Aval) -> Aval:  # type: ignore[override]
        if x.ndim == 0:
            raise ShapeError(f"argsort: {x} has no axis to sort along")
        return x.with_dtype(np.int64)

    def eager(self, x: Any) -> Any:
        return np.argsort(x, axis=-1, kind="stable")

    def vjp(self, ct: Any, y: Any, x: Any) -> Any:
        return None


gather, scatter_add, scatter_set, set_slice, argsort = Gather(), ScatterAdd(), ScatterSet(), SetSlice(), Argsort()
