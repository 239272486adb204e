"""`tracegrad.numpy.linalg`: norms and products by their names in `numpy.linalg`."""

from __future__ import annotations

import math
from typing import Any


from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.ir.aval import is_float
from tracegrad.numpy import arithmetic, elementwise as ew, reductions, shaping
from tracegrad.numpy.half import rounded_once
from tracegrad.numpy.products import cross, matmul, matrix_power, outer, tensordot, trace, vecdot
from tracegrad.numpy.promote import FLOAT64, Array, ArrayLike, Axis, array, cast, settle_axes, shown
from tracegrad.numpy.selecting import diagonal
from tracegrad.numpy.shaping import matrix_transpose


@rounded_once
def norm(x: ArrayLike, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Array:
    """Norm of vectors (one axis) or matrices (two axes), as `numpy.linalg.norm`.

    Vectors: any number, inf, -inf, 0; None is the Euclidean norm, over all axes when `axis` is None. Matrices: None,
    "fro", 1, -1, inf, -inf. The gradient of a Euclidean norm at 0 is 0. Raises ArgumentError for other orders.

    >>> norm([3.0, 4.0])
    np.float64(5.0)
    """
    x = array("norm", x)
    x = x if is_float(x.dtype) else cast("norm", x, FLOAT64)
    axes = settle_axes("norm", axis, x)
    if ord is None or (ord == 2 and len(axes) == 1) or ord == "fro":
        return reductions.root(reductions.sum(ew.square(x), axes, keepdims=keepdims))
    if (axis is None and len(x.shape) > 2) or not 1 <= len(axes) <= 2:
        raise ShapeError(f"norm: ord={ord!r} needs one or two axes, {shown(x)} has {len(x.shape)}", fix="give axis=")
    if len(axes) == 1:
        return vector_order(x, ord, axes[0], keepdims)
    first, second = (settle_axes("norm", a, x)[0] for a in (axis if isinstance(axis, (tuple, list)) else axes))
    return matrix_order(x, ord, first, second, keepdims)


def vector_order(x: Array, order: Any, axis: int, keepdims: bool) -> Array:
    """Return the norm of one order along an axis."""
    size = ew.absolute(x)
    if isinstance(order, str):
        raise ArgumentError(f"norm: ord={order!r} is not a norm of vectors", fix="use a number, np.inf or None")
    if order == math.inf:
        return reductions.max(size, axis, keepdims=keepdims)
    if order == -math.inf:
        return reductions.min(size, axis, keepdims=keepdims)
    if order == 0:
        return cast("norm", array("norm", reductions.count_nonzero(x, axis, keepdims=keepdims)), x.dtype)
    if order == 1:
        return reductions.sum(size, axis, keepdims=keepdims)
    return arithmetic.power(reductions.sum(arithmetic.power(size, order), axis, keepdims=keepdims), 1.0 / order)


def matrix_order(x: Array, order: Any, rows: int, columns: int, keepdims: bool) -> Array:
    """Return the largest or smallest sum of sizes along rows or columns."""
    if order not in (1, -1, math.inf, -math.inf):
        raise ArgumentError(
            f"norm: ord={order!r} of matrices is not supported", fix='use None, "fro", 1, -1, np.inf or -np.inf'
        )
    inner, other = (rows, columns) if abs(order) == 1 else (columns, rows)
    sums = reductions.sum(ew.absolute(x), inner, keepdims=True)
    found = (reductions.max if order > 0 else reductions.min)(sums, other, keepdims=True)
    return found if keepdims else shaping.squeeze(found, (rows, columns))


def vector_norm(x: ArrayLike, *, axis: Axis = None, keepdims: bool = False, ord: Any = 2) -> Array:
    """Norm of the flat array, or along `axis`, as `numpy.linalg.vector_norm`."""
    x = array("vector_norm", x)
    if axis is None and not keepdims:
        return norm(shaping.ravel(x), ord)
    axes = settle_axes("vector_norm", axis, x)
    if len(axes) == 1:
        return norm(x, ord, axes[0], keepdims)
    moved = shaping.moveaxis(x, axes, tuple(range(len(axes))))
    flat = shaping.reshape(moved, (-1, *moved.shape[len(axes) :]))
    found = norm(flat, ord, 0)
    sizes = tuple(1 if a in axes else n for a, n in enumerate(x.shape))
    return shaping.reshape(found, sizes) if keepdims else found


def matrix_norm(x: ArrayLike, *, keepdims: bool = False, ord: Any = "fro") -> Array:
    """Norm of the matrices in the last two axes, as `numpy.linalg.matrix_norm`."""
    return norm(x, ord, (-2, -1), keepdims)


def multi_dot(arrays: list[ArrayLike]) -> Array:
    """Product of several matrices, from left to right."""
    found, *rest = arrays
    for x in rest:
        found = matmul(found, x)
    return found


__all__ = [
    "cross", "diagonal", "matmul", "matrix_norm", "matrix_power", "matrix_transpose", "multi_dot", "norm", "outer",
    "tensordot", "trace", "vecdot", "vector_norm",
]  # fmt: skip
