"""Functions that pick elements: take, sort, search, triangles."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.ir.aval import is_float
from tracegrad.numpy import arithmetic, elementwise as ew, indexing, reductions, shaping
from tracegrad.numpy.promote import computed, readonly_view
from tracegrad.numpy.promote import BOOL, INT64, Array, ArrayLike, array, broadcast_array, cast, one_axis, shown
from tracegrad.ops import elementwise as ops
from tracegrad.ops import index as index_ops
from tracegrad.ops.shape import iota
from tracegrad.ops.shape import pad as ops_pad


@computed
def take(x: ArrayLike, indices: ArrayLike, axis: int | None = None, *, mode: str = "raise") -> Array:
    """Return the elements at `indices` along `axis` (of the flat array when None), as `numpy.take`.

    `mode` is "raise", "clip" or "wrap". Raises IndexOutOfBounds for an index known to be outside.

    >>> take(np.array([10.0, 20.0, 30.0]), [2, 0])
    array([30., 10.])
    """
    x = array("take", x)
    if axis is None:
        x, axis = shaping.ravel(x), 0
    at = one_axis("take", axis, len(x.shape), x)
    n = x.shape[at]
    match mode:
        case "clip":
            indices = arithmetic.clip(indices, 0, n - 1)
        case "wrap":
            indices = ew.remainder(indices, n)
        case "raise":
            pass
        case _:
            raise ArgumentError(f"take: mode {mode!r} is not known", fix='use "raise", "clip" or "wrap"')
    index = list(indices) if isinstance(indices, tuple) else indices
    return indexing.getitem(x, (*(slice(None),) * at, index))


def along(name: str, x: Array, indices: Array, axis: int) -> tuple[Array, tuple[Array, ...]]:
    """Return x and one index array per axis for an index along one axis."""
    if len(x.shape) != len(indices.shape):
        raise ShapeError(
            f"{name}: {shown(x)} and {shown(indices)} differ in rank", fix="give both the same number of axes"
        )
    shape = list(np.broadcast_shapes(without(x.shape, axis), without(indices.shape, axis)))
    target = tuple(indices.shape[axis] if a == axis else n for a, n in enumerate(shape))
    source = tuple(x.shape[axis] if a == axis else n for a, n in enumerate(shape))
    full = broadcast_array(indices, target)
    others = [iota.beside(full, shape=target, axis=a, dtype=INT64) for a in range(len(target))]
    return broadcast_array(x, source), tuple(full if a == axis else o for a, o in enumerate(others))


def without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return tuple(1 if a == axis else n for a, n in enumerate(shape))


@computed
def take_along_axis(x: ArrayLike, indices: ArrayLike, axis: int | None = -1) -> Array:
    """Return x at `indices` along one axis, the other axes side by side, as `numpy.take_along_axis`.

    >>> take_along_axis(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1], [0]]), axis=1)
    array([[2.],
           [3.]])
    """
    x, indices = array("take_along_axis", x), array("take_along_axis", indices)
    if axis is None:
        x, indices, axis = shaping.ravel(x), shaping.ravel(indices), 0
    at = one_axis("take_along_axis", axis, len(x.shape), x)
    x, points = along("take_along_axis", x, indices, at)
    return index_ops.gather(x, *points, axes=tuple(range(len(x.shape))))


def argsort(x: ArrayLike, axis: int | None = -1, *, stable: bool = True, kind: str | None = None) -> Array:
    """Return the positions that sort x along `axis`, stable, NaN last, as `numpy.argsort`: int64."""
    del stable, kind
    x = array("argsort", x)
    if axis is None:
        x, axis = shaping.ravel(x), 0
    at = one_axis("argsort", axis, len(x.shape), x)
    return shaping.swapaxes(index_ops.argsort(shaping.swapaxes(x, at, -1)), at, -1)


@computed
def sort(x: ArrayLike, axis: int | None = -1, *, stable: bool = True, kind: str | None = None) -> Array:
    """Sort along `axis`, NaN last, as `numpy.sort`; the gradient follows the elements.

    >>> sort(np.array([3.0, 1.0, 2.0]))
    array([1., 2., 3.])
    """
    del stable, kind
    x = array("sort", x)
    if axis is None:
        x, axis = shaping.ravel(x), 0
    at = one_axis("sort", axis, len(x.shape), x)
    last = shaping.swapaxes(x, at, -1)
    return shaping.swapaxes(take_along_axis(last, index_ops.argsort(last), -1), at, -1)


@computed
def median(x: ArrayLike, axis: int | None = None, *, keepdims: bool = False) -> Array:
    """Middle element, or the mean of the two middle ones, over `axis`, as `numpy.median`; NaN wins."""
    x = array("median", x)
    at = 0 if axis is None else one_axis("median", axis, len(x.shape), x)
    ordered = sort(x, axis)
    n = ordered.shape[at]
    if n == 0:
        raise ShapeError(f"median: {shown(x)} is empty", fix="check the shape first")
    lead = (slice(None),) * at
    middle = reductions.mean(indexing.getitem(ordered, (*lead, slice((n - 1) // 2, n // 2 + 1))), at)
    largest = indexing.getitem(ordered, (*lead, n - 1))
    found = arithmetic.where(ew.isnan(largest), np.nan, middle) if is_float(x.dtype) else middle
    if not keepdims:
        return found
    return shaping.reshape(found, tuple(1 if axis is None or a == at else m for a, m in enumerate(x.shape)))


FEW_TO_SEARCH = 128
"""Vectors up to this size are compared with in whole, which vectorises."""


def searchsorted(a: ArrayLike, v: ArrayLike, side: str = "left") -> Array:
    """Return where to insert `v` into the sorted vector `a` to keep it sorted, as `numpy.searchsorted`: int64.

    NaN comes last, as NumPy sorts it.
    """
    a, v = array("searchsorted", a), array("searchsorted", v)
    if len(a.shape) != 1:
        raise ShapeError(f"searchsorted: {shown(a)} is not a vector", fix="pass a sorted vector")
    before = ew.less if side == "left" else ew.less_equal
    if a.shape[0] > FEW_TO_SEARCH:
        found = bisected(a, v, before)
    else:
        found = reductions.sum(before(a, shaping.expand_dims(v, -1)), -1)
    if not is_float(v.dtype):
        return found
    numbers = reductions.sum(ew.equal(a, a)) if side == "left" and is_float(a.dtype) else a.shape[0]
    return arithmetic.where(ew.isnan(v), numbers, found)


def bisected(a: Array, v: Array, before: Any) -> Array:
    """Count the elements of a sorted vector `before` each v, by halving what may be the next one: no index leaves a."""
    first: Array = np.int64(0)
    left = a.shape[0]
    while left > 1:
        half = left // 2
        first = arithmetic.where(before(take(a, first + (half - 1)), v), first + half, first)
        left -= half
    return first + cast("searchsorted", before(take(a, first), v), INT64)


def triangle(name: str, x: ArrayLike, k: int, *, lower: bool) -> Array:
    """Keep one side of the diagonal k of the last two axes."""
    x = array(name, x)
    ndim = len(x.shape)
    if ndim < 2:
        raise ShapeError(f"{name}: {shown(x)} has fewer than 2 axes", fix="pass a matrix")
    row = iota.beside(x, shape=x.shape, axis=ndim - 2, dtype=INT64)
    column = iota.beside(x, shape=x.shape, axis=ndim - 1, dtype=INT64)
    limit = ops.add(row, np.int64(k)) if k else row
    mask = ops.less_equal(column, limit) if lower else ops.greater_equal(column, limit)
    return ops.bitwise_and(x, mask) if x.dtype == BOOL else ops.where(mask, x, x.dtype.type(0))


@computed
def tril(x: ArrayLike, k: int = 0) -> Array:
    """Keep what is on and below diagonal k, zeros above, as `numpy.tril`."""
    return triangle("tril", x, k, lower=True)


@computed
def triu(x: ArrayLike, k: int = 0) -> Array:
    """Keep what is on and above diagonal k, zeros below, as `numpy.triu`."""
    return triangle("triu", x, k, lower=False)


def diagonal(x: ArrayLike, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Array:
    """Return the diagonals of the planes of two axes as the last axis, as `numpy.diagonal`."""
    x = array("diagonal", x)
    if len(x.shape) < 2:
        raise ShapeError(f"diagonal: {shown(x)} has fewer than 2 axes", fix="pass a matrix, or use diag")
    whole = x
    x = shaping.moveaxis(x, (axis1, axis2), (-2, -1))
    rows, columns = x.shape[-2:]
    n = max(0, min(rows + min(offset, 0), columns - max(offset, 0)))
    points = iota.beside(x, shape=(n,), axis=0, dtype=INT64)
    first = ops.add(points, np.int64(-offset)) if offset < 0 else points
    second = ops.add(points, np.int64(offset)) if offset > 0 else points
    found = indexing.getitem(x, (..., first, second))
    return readonly_view(whole, found, diagonal, offset=offset, axis1=axis1, axis2=axis2)


def diag(x: ArrayLike, k: int = 0) -> Array:
    """Return the diagonal k of a matrix, or the matrix with a vector on it, as `numpy.diag`."""
    x = array("diag", x)
    if len(x.shape) == 2:
        return diagonal(x, k)
    if len(x.shape) != 1:
        raise ShapeError(f"diag: {shown(x)} is neither a vector nor a matrix", fix="use diagonal for more axes")
    n = x.shape[0] + abs(k)
    row = iota.beside(x, shape=(n, n), axis=0, dtype=INT64)
    column = iota.beside(x, shape=(n, n), axis=1, dtype=INT64)
    on = ops.equal(column, ops.add(row, np.int64(k)) if k else row)
    column_of_x = ops_pad(shaping.as_shape(x, (x.shape[0], 1)), low=(max(0, -k), 0), high=(max(0, k), 0), gap=(0, 0))
    return arithmetic.where(on, broadcast_array(column_of_x, (n, n)), x.dtype.type(0))


__all__ = [
    "argsort", "diag", "diagonal", "median", "searchsorted", "sort", "take", "take_along_axis", "tril", "triu",
]  # fmt: skip
