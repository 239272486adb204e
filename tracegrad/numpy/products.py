"""Matrix products and contractions: all become `dot`, with its axes named."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.ir.aval import is_float
from tracegrad.numpy import elementwise as ew, reductions, selecting, shaping
from tracegrad.numpy.half import rounded_once
from tracegrad.numpy.promote import computed
from tracegrad.numpy.promote import BOOL, INT64, Array, ArrayLike, DType, array, broadcast_array, broadcast_shape, cast
from tracegrad.numpy.promote import mark, one_axis, operand, result_dtype, shown
from tracegrad.ops.contract import dot as contract
from tracegrad.trace import Tracer

Ints = tuple[int, ...]


def pair(name: str, a: ArrayLike, b: ArrayLike) -> tuple[Array, Array, bool]:
    """Accept two operands and promote them; bools are counted in int64, and the last result says so."""
    if isinstance(a, Tracer) and isinstance(b, Tracer) and a.dtype == b.dtype and is_float(a.dtype):
        return a, b, False
    xs = [operand(name, a), operand(name, b)]
    dtype = result_dtype(xs)
    chosen = INT64 if dtype == BOOL else dtype
    first, second = (array(name, cast(name, x, chosen)) for x in xs)
    return first, second, dtype == BOOL


def contracted(
    a: Array, b: Array, axes: tuple[Ints, Ints], batch: tuple[Ints, Ints] = ((), ()), *, truth: bool
) -> Array:
    """Apply the primitive; products of bools say whether any pair was true."""
    found = contract(a, b, contract=axes, batch=batch)
    return mark(ew.not_equal(found, 0) if truth else found, False)


@computed
def matmul(a: ArrayLike, b: ArrayLike, /) -> Array:
    """Matrix product over the last axis of a and the second-last of b, batch axes broadcast, as `numpy.matmul`.

    Raises ShapeError when the inner sizes differ, or for scalars.

    >>> matmul(np.array([[1.0, 2.0]]), np.array([3.0, 4.0]))
    array([11.])
    """
    x, y, truth = pair("matmul", a, b)
    if not x.shape or not y.shape:
        raise ShapeError(f"matmul: {shown(x)} @ {shown(y)}: a scalar is not a matrix", fix="use * for scalars")
    inner = len(y.shape) - 2 if len(y.shape) > 1 else 0
    if x.shape[-1] != y.shape[inner]:
        raise ShapeError(
            f"matmul: {shown(x)} @ {shown(y)}: the inner sizes {x.shape[-1]} and {y.shape[inner]} differ",
            fix="transpose one side, or check the layer sizes on that line",
        )
    if len(y.shape) <= 2:
        return contracted(x, y, ((len(x.shape) - 1,), (inner,)), truth=truth)
    if len(x.shape) == 1:
        return contracted(x, y, ((0,), (inner,)), truth=truth)
    return batched(x, y, truth)


def batched(x: Array, y: Array, truth: bool) -> Array:
    """Multiply stacks of matrices."""
    try:
        lead = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise ShapeError(
            f"matmul: {shown(x)} @ {shown(y)}: "
            f"the batch axes {x.shape[:-2]} and {y.shape[:-2]} cannot be broadcast together",
            fix="make the sizes equal or 1",
        ) from None
    x, y = (broadcast_array(v, (*lead, *v.shape[-2:])) for v in (x, y))
    axes = tuple(range(len(lead)))
    return contracted(x, y, ((len(lead) + 1,), (len(lead),)), (axes, axes), truth=truth)


@computed
def dot(a: ArrayLike, b: ArrayLike) -> Array:
    """Product over the last axis of a and the second-last (or only) axis of b, as `numpy.dot`; scalars multiply."""
    x, y, truth = pair("dot", a, b)
    if not x.shape or not y.shape:
        return ew.multiply(a, b)
    inner = max(len(y.shape) - 2, 0)
    if x.shape[-1] != y.shape[inner]:
        raise ShapeError(
            f"dot: {shown(x)} and {shown(y)}: the inner sizes {x.shape[-1]} and {y.shape[inner]} differ",
            fix="transpose one side",
        )
    return contracted(x, y, ((len(x.shape) - 1,), (inner,)), truth=truth)


def vdot(a: ArrayLike, b: ArrayLike) -> Array:
    """Sum of the products of all elements, as `numpy.vdot`."""
    x, y, truth = pair("vdot", shaping.ravel(a), shaping.ravel(b))
    if x.shape != y.shape:
        raise ShapeError(f"vdot: {shown(x)} and {shown(y)} differ in size", fix="check the shapes")
    return contracted(x, y, ((0,), (0,)), truth=truth)


@computed
def inner(a: ArrayLike, b: ArrayLike) -> Array:
    """Products summed over the last axes, as `numpy.inner`; scalars multiply."""
    x, y, truth = pair("inner", a, b)
    if not x.shape or not y.shape:
        return ew.multiply(a, b)
    if x.shape[-1] != y.shape[-1]:
        raise ShapeError(f"inner: {shown(x)} and {shown(y)}: the last sizes differ", fix="transpose one side")
    return contracted(x, y, ((len(x.shape) - 1,), (len(y.shape) - 1,)), truth=truth)


def outer(a: ArrayLike, b: ArrayLike) -> Array:
    """All products of the elements of two vectors, as `numpy.outer`."""
    return ew.multiply(shaping.expand_dims(shaping.ravel(a), 1), shaping.ravel(b))


@computed
def vecdot(a: ArrayLike, b: ArrayLike, /, *, axis: int = -1) -> Array:
    """Products summed over one axis, the others broadcast, as `numpy.vecdot`."""
    x, y, truth = pair("vecdot", a, b)
    x = shaping.moveaxis(x, axis, -1)
    y = shaping.moveaxis(y, axis, -1)
    if x.shape[-1] != y.shape[-1]:
        raise ShapeError(f"vecdot: {shown(x)} and {shown(y)}: the sizes to sum over differ", fix="check axis=")
    shape = broadcast_shape("vecdot", [x, y])
    x, y = broadcast_array(x, shape), broadcast_array(y, shape)
    lead = tuple(range(len(shape) - 1))
    return contracted(x, y, ((len(lead),), (len(lead),)), (lead, lead), truth=truth)


@computed
def tensordot(a: ArrayLike, b: ArrayLike, axes: int | Sequence[Any] = 2) -> Array:
    """Products summed over the given axes of both, as `numpy.tensordot`.

    `axes` is a number (the last of a with the first of b) or a pair of lists. Raises ShapeError when sizes differ.

    >>> float(tensordot(np.ones((2, 3)), np.ones((2, 3)), 2))
    6.0
    """
    x, y, truth = pair("tensordot", a, b)
    if isinstance(axes, (int, np.integer)):
        count = int(axes)
        left, right = list(range(len(x.shape) - count, len(x.shape))), list(range(count))
    else:
        left, right = ([v] if isinstance(v, int) else list(v) for v in axes)
    first = tuple(one_axis("tensordot", i, len(x.shape), x) for i in left)
    second = tuple(one_axis("tensordot", i, len(y.shape), y) for i in right)
    if len(first) != len(second) or any(x.shape[i] != y.shape[j] for i, j in zip(first, second, strict=True)):
        raise ShapeError(
            f"tensordot: {shown(x)} and {shown(y)} do not match along axes {first} and {second}", fix="check axes="
        )
    return contracted(x, y, (first, second), truth=truth)


@computed
def trace(x: ArrayLike, offset: int = 0, axis1: int = 0, axis2: int = 1, dtype: DType = None) -> Array:
    """Sum of a diagonal, as `numpy.trace`."""
    return reductions.sum(selecting.diagonal(x, offset, axis1, axis2), -1, dtype=dtype)


@computed
def kron(a: ArrayLike, b: ArrayLike) -> Array:
    """Kronecker product, as `numpy.kron`."""
    x, y = array("kron", a), array("kron", b)
    ndim = max(len(x.shape), len(y.shape))
    first, second = ((1,) * (ndim - len(v.shape)) + v.shape for v in (x, y))
    wide = shaping.as_shape(x, tuple(s for n in first for s in (n, 1)))
    deep = shaping.as_shape(y, tuple(s for n in second for s in (1, n)))
    return shaping.as_shape(ew.multiply(wide, deep), tuple(n * m for n, m in zip(first, second, strict=True)))


@rounded_once(of_operands=True)
def cross(a: ArrayLike, b: ArrayLike, axis: int = -1) -> Array:
    """Cross product of vectors of size 3 along `axis`, as `numpy.cross`."""
    x, y = shaping.moveaxis(a, axis, -1), shaping.moveaxis(b, axis, -1)
    if x.shape[-1] != 3 or y.shape[-1] != 3:
        raise ShapeError(f"cross: {shown(x)} and {shown(y)} do not hold vectors of size 3", fix="check axis=")
    order, other = [1, 2, 0], [2, 0, 1]
    first = ew.multiply(selecting.take(x, order, -1), selecting.take(y, other, -1))
    second = ew.multiply(selecting.take(x, other, -1), selecting.take(y, order, -1))
    return shaping.moveaxis(ew.subtract(first, second), -1, axis)


@computed
@rounded_once
def matrix_power(x: ArrayLike, n: int) -> Array:
    """Multiply a square matrix n >= 0 times with itself, as `numpy.linalg.matrix_power`."""
    x = array("matrix_power", x)
    if len(x.shape) < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"matrix_power: {shown(x)} is not square", fix="pass square matrices")
    if n < 1:
        raise ArgumentError(f"matrix_power: the exponent {n} is not positive", fix="use n >= 1, or np.eye(n) for 0")
    found, base = None, x
    while n:
        if n & 1:
            found = base if found is None else matmul(found, base)
        n >>= 1
        base = matmul(base, base) if n else base
    return found


__all__ = [
    "cross", "dot", "inner", "kron", "matmul", "matrix_power", "outer", "tensordot", "trace", "vdot", "vecdot",
]  # fmt: skip
