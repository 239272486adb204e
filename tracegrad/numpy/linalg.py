"""`tracegrad.numpy.linalg`: norms, products, and what needs a factorisation, by their names in `numpy.linalg`."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.ir import Aval
from tracegrad.ir.aval import is_float
from tracegrad.numpy import arithmetic, elementwise as ew, factorisations, reductions, shaping
from tracegrad.numpy.decompositions import eigh, eigvalsh, lstsq, matrices, matrix_rank, one_matrix, pinv, qr, svd
from tracegrad.numpy.decompositions import svdvals
from tracegrad.numpy.half import rounded_once
from tracegrad.numpy.products import cross, matmul, matrix_power, outer, tensordot, trace, vecdot
from tracegrad.numpy.promote import FLOAT64, Array, ArrayLike, Axis, array, broadcast_array, cast, common_shape, mark
from tracegrad.numpy.promote import settle_axes, shown
from tracegrad.numpy.selecting import diagonal
from tracegrad.numpy.shaping import matrix_transpose


@rounded_once
def norm(x: ArrayLike, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> Array:
    """Norm of vectors (one axis) or matrices (two axes), as `numpy.linalg.norm`.

    Vectors: any number, inf, -inf, 0; None is the Euclidean norm, over all axes when `axis` is None. Matrices: None,
    "fro", "nuc", 1, -1, 2, -2, inf, -inf. The gradient of a Euclidean norm at 0 is 0. Raises ArgumentError for other
    orders.

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


SPECTRAL: dict[Any, Any] = {
    2: lambda values: values[..., 0], -2: lambda values: values[..., -1],
    "nuc": lambda values: reductions.sum(values, -1),
}  # fmt: skip
"""Norms of matrices by their singular values."""


def matrix_order(x: Array, order: Any, rows: int, columns: int, keepdims: bool) -> Array:
    """Return the largest or smallest sum of sizes along rows or columns."""
    if order in SPECTRAL:
        values = svdvals(shaping.moveaxis(x, (rows, columns), (-2, -1)))
        return shaping.expand_dims(SPECTRAL[order](values), (rows, columns)) if keepdims else SPECTRAL[order](values)
    if order not in (1, -1, math.inf, -math.inf):
        raise ArgumentError(
            f"norm: ord={order!r} of matrices is not supported",
            fix='use None, "fro", "nuc", 1, -1, 2, -2, np.inf or -np.inf',
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


def cholesky(a: ArrayLike, /, *, upper: bool = False) -> Array:
    """Return the lower L with L @ L.T = a, or its transpose with `upper`, as `numpy.linalg.cholesky`.

    Only that triangle of a is read; the gradient is the one of a symmetric matrix, and symmetric. A matrix that is not
    positive definite gives NaN. Raises ShapeError where a is not square.

    >>> cholesky(np.array([[4.0, 2.0], [2.0, 5.0]]))
    array([[2., 0.],
           [1., 2.]])
    """
    (x,) = matrices("cholesky", a)
    return matrix_transpose(factorisations.cholesky(matrix_transpose(x))) if upper else factorisations.cholesky(x)


def solve(a: ArrayLike, b: ArrayLike, /) -> Array:
    """Return x with a @ x = b, for a vector or (stacks of) matrices b, as `numpy.linalg.solve`.

    A singular matrix gives inf or NaN. Raises ShapeError where a is not square or b does not fit.

    >>> solve(np.array([[2.0, 0.0], [0.0, 4.0]]), np.array([2.0, 2.0]))
    array([1. , 0.5])
    """
    x, y = matrices("solve", a, b)
    factorisations.square("solve", Aval(x.shape, x.dtype))
    vector = len(y.shape) == 1
    y = y[:, None] if vector else y
    if y.shape[-2] != x.shape[-1]:
        raise ShapeError(f"solve: {shown(y)} does not fit {shown(x)}", fix="check the right side's shape")
    lead = common_shape(x.shape[:-2], y.shape[:-2])
    if lead is None:
        raise ShapeError(f"solve: {shown(y)} does not fit {shown(x)}", fix="check the axes before the last two")
    x, y = (broadcast_array(v, (*lead, *v.shape[-2:])) for v in (x, y))
    found = factorisations.solve_any(x, y)
    return found[..., 0] if vector else found


def inv(a: ArrayLike) -> Array:
    """Return the inverse of (stacks of) square matrices, as `numpy.linalg.inv`; a singular one gives inf or NaN.

    >>> inv(np.array([[2.0, 0.0], [0.0, 4.0]]))
    array([[0.5 , 0.  ],
           [0.  , 0.25]])
    """
    (x,) = matrices("inv", a)
    factorisations.square("inv", Aval(x.shape, x.dtype))
    return factorisations.inverse(x)


def det(a: ArrayLike) -> Array:
    """Return the determinant, as `numpy.linalg.det`; its gradient is NaN or inf where the matrix is singular.

    >>> det(np.array([[1.0, 2.0], [3.0, 5.0]])).round(9)
    np.float64(-1.0)
    """
    (x,) = matrices("det", a)
    return mark(factorisations.det(x), False)


class SlogdetResult(NamedTuple):
    """The sign of a determinant, and the logarithm of its size."""

    sign: Array
    logabsdet: Array


def slogdet(a: ArrayLike) -> SlogdetResult:
    """Return the sign of the determinant and the logarithm of its size, as `numpy.linalg.slogdet`.

    >>> slogdet(np.array([[2.0, 0.0], [0.0, 0.5]]))
    SlogdetResult(sign=np.float64(1.0), logabsdet=np.float64(0.0))
    """
    (x,) = matrices("slogdet", a)
    return SlogdetResult(mark(factorisations.sign_of_det(x), False), mark(factorisations.logabsdet(x), False))


def cond(x: ArrayLike, p: Any = None) -> Array:
    """Return the condition number: the largest singular value by the smallest, or norm(x, p) * norm(inv(x), p), as
    `numpy.linalg.cond`.

    >>> cond(np.array([[4.0, 0.0], [0.0, 2.0]]))
    np.float64(2.0)
    """
    x = one_matrix("cond", x)
    if p in (None, 2, -2):
        values = svdvals(x)
        return values[..., -1] / values[..., 0] if p == -2 else values[..., 0] / values[..., -1]
    return norm(x, p, (-2, -1)) * norm(inv(x), p, (-2, -1))


def tensorsolve(a: ArrayLike, b: ArrayLike) -> Array:
    """Return x with tensordot(a, x, x.ndim) = b, as `numpy.linalg.tensorsolve` without `axes`."""
    a, b = matrices("tensorsolve", a, b)
    rest = a.shape[len(b.shape) :]
    if a.shape[: len(b.shape)] != b.shape or math.prod(rest) != b.size:
        raise ShapeError(f"tensorsolve: {shown(b)} does not fit {shown(a)}", fix="check the shapes")
    return shaping.reshape(solve(shaping.reshape(a, (b.size, b.size)), shaping.ravel(b)), rest)


def tensorinv(a: ArrayLike, ind: int = 2) -> Array:
    """Return the inverse of tensordot(a, x, ind) in x, as `numpy.linalg.tensorinv`."""
    (x,) = matrices("tensorinv", a)
    head, tail = x.shape[:ind], x.shape[ind:]
    if ind < 1 or math.prod(head) != math.prod(tail):
        raise ShapeError(f"tensorinv: {shown(x)} is not square at ind={ind}", fix="check ind=")
    return shaping.reshape(inv(shaping.reshape(x, (math.prod(head), -1))), (*tail, *head))


__all__ = [
    "cholesky", "cond", "cross", "det", "diagonal", "eigh", "eigvalsh", "inv", "lstsq", "matmul", "matrix_norm",
    "matrix_power", "matrix_rank", "matrix_transpose", "multi_dot", "norm", "outer", "pinv", "qr", "slogdet", "solve",
    "svd", "svdvals", "tensorinv", "tensorsolve", "tensordot", "trace", "vecdot", "vector_norm",
]  # fmt: skip
