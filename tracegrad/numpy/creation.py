"""Functions that make arrays. Inside a trace they add nodes (a broadcast number, a count), outside arrays."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from tracegrad.ir.aval import is_half
from tracegrad.numpy import arithmetic, elementwise as ew, joining, shaping
from tracegrad.numpy.half import rounded_once
from tracegrad.numpy.promote import computed
from tracegrad.numpy.promote import FLOAT32, INT64, Array, ArrayLike, DType, array, array_of, broadcast_array, cast
from tracegrad.numpy.promote import dtype_of, operand, result_dtype, settle_dtype, settle_shape
from tracegrad.ops import shape as ops
from tracegrad.trace import Tracer, current_trace, is_scalar


def filled(shape: tuple[int, ...], value: Any, dtype: np.dtype[Any]) -> Array:
    """Return an array of one number."""
    trace = current_trace()
    if trace is None:
        return np.full(shape, value, dtype)
    return trace.bind(ops.broadcast, [dtype.type(value)], {"shape": shape, "axes": ()})


def counted(shape: tuple[int, ...], axis: int, dtype: np.dtype[Any]) -> Array:
    """Return the position along one axis."""
    if is_half(dtype):
        return cast("arange", counted(shape, axis, FLOAT32), dtype)
    trace = current_trace()
    params = {"shape": shape, "axis": axis, "dtype": dtype}
    return ops.iota(**params) if trace is None else trace.bind(ops.iota, [], params)


def zeros(shape: Any, dtype: DType = np.float64) -> Array:
    """Return zeros, float64 unless told, as `numpy.zeros`."""
    return filled(settle_shape("zeros", shape), 0, settle_dtype(dtype, "zeros"))


def ones(shape: Any, dtype: DType = np.float64) -> Array:
    """Return ones, float64 unless told, as `numpy.ones`."""
    return filled(settle_shape("ones", shape), 1, settle_dtype(dtype, "ones"))


def empty(shape: Any, dtype: DType = np.float64) -> Array:
    """Return zeros: an array whose elements do not matter, as `numpy.empty`."""
    return zeros(shape, dtype)


@computed
def full(shape: Any, fill_value: ArrayLike, dtype: DType = None) -> Array:
    """Return an array filled with a value, which is broadcast, as `numpy.full`.

    >>> full((2,), 7.0)
    array([7., 7.])
    """
    target = settle_shape("full", shape)
    value = operand("full", fill_value)
    chosen = dtype_of(value) if dtype is None else settle_dtype(dtype, "full")
    value = cast("full", value, chosen)
    if isinstance(value, np.generic):
        return filled(target, value, chosen)
    found = shaping.broadcast_to(value, target)
    return found if isinstance(found, Tracer) else np.array(found)


def like_of(x: ArrayLike, dtype: DType, shape: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    x = operand("like", x)
    sizes = (tuple(x.shape) if hasattr(x, "shape") else ()) if shape is None else settle_shape("like", shape)
    return sizes, dtype_of(x) if dtype is None else settle_dtype(dtype, "like")


def zeros_like(x: ArrayLike, dtype: DType = None, *, shape: Any = None) -> Array:
    """Return zeros of the shape and dtype of x, as `numpy.zeros_like`."""
    sizes, chosen = like_of(x, dtype, shape)
    return filled(sizes, 0, chosen)


def ones_like(x: ArrayLike, dtype: DType = None, *, shape: Any = None) -> Array:
    """Return ones of the shape and dtype of x, as `numpy.ones_like`."""
    sizes, chosen = like_of(x, dtype, shape)
    return filled(sizes, 1, chosen)


def empty_like(x: ArrayLike, dtype: DType = None, *, shape: Any = None) -> Array:
    """Return zeros of the shape and dtype of x, as `numpy.empty_like`."""
    return zeros_like(x, dtype, shape=shape)


@computed
def full_like(x: ArrayLike, fill_value: ArrayLike, dtype: DType = None, *, shape: Any = None) -> Array:
    """Return an array of the shape and dtype of x, filled with a value, as `numpy.full_like`."""
    sizes, chosen = like_of(x, dtype, shape)
    return full(sizes, fill_value, chosen)


def arange(start: float, stop: float | None = None, step: float = 1, dtype: DType = None) -> Array:
    """Return start, start + step, ... before stop, all known while tracing, as `numpy.arange`.

    >>> arange(3)
    array([0, 1, 2])
    """
    ends: list[Any] = [
        x.concrete("an end of arange", "make it static") if isinstance(x, Tracer) else x for x in (start, stop, step)
    ]
    line = (
        np.arange(ends[0], **({} if dtype is None else {"dtype": dtype}))
        if stop is None
        else np.arange(*ends, dtype=dtype)
    )
    settle_dtype(line.dtype, "arange")
    if current_trace() is None:
        return line
    if line.size < 2:
        return shaping.as_shape(array_of(line[0]), (1,)) if line.size else zeros(0, line.dtype)
    gap, first = line[1] - line[0], line[0]
    found = counted(line.shape, 0, line.dtype)
    found = found if gap == 1 else ew.multiply(found, gap)
    return found if first == 0 else ew.add(found, first)


@rounded_once
def linspace(
    start: ArrayLike, stop: ArrayLike, num: int = 50, endpoint: bool = True, *, dtype: DType = None, axis: int = 0
) -> Array:
    """Return `num` evenly spaced numbers from start to stop, as `numpy.linspace`; the ends may be traced.

    >>> linspace(0.0, 1.0, 3)
    array([0. , 0.5, 1. ])
    """
    num = operator.index(num)
    a, b = operand("linspace", start), operand("linspace", stop)
    kind = result_dtype([a, b, 1.0])
    a, b = shaping.broadcast_arrays(*(array("linspace", cast("linspace", v, kind)) for v in (a, b)))
    shape = (num, *a.shape)
    count = counted(shape, 0, kind)
    step = ew.divide(ew.subtract(b, a), max(num - 1 if endpoint else num, 1))
    found = ew.add(ew.multiply(count, broadcast_array(array_of(step), shape)), a)
    if endpoint and num > 1:
        found = arithmetic.where(ew.equal(count, num - 1), b, found)
    found = shaping.moveaxis(found, 0, axis)
    return found if dtype is None else astype(ew.floor(found) if np.dtype(dtype).kind in "iu" else found, dtype)


@rounded_once
def logspace(start: ArrayLike, stop: ArrayLike, num: int = 50, endpoint: bool = True, base: float = 10.0) -> Array:
    """Return `num` numbers from base**start to base**stop, evenly spaced in their logarithms, as `numpy.logspace`."""
    return arithmetic.power(base, linspace(start, stop, num, endpoint))


def eye(n: int, m: int | None = None, k: int = 0, dtype: DType = np.float64) -> Array:
    """Return ones on diagonal k and zeros elsewhere, as `numpy.eye`."""
    shape = settle_shape("eye", (n, n if m is None else m))
    chosen = settle_dtype(dtype, "eye")
    if current_trace() is None:
        return np.eye(shape[0], shape[1], k, dtype=chosen)
    on = ew.equal(counted(shape, 1, INT64), ew.add(counted(shape, 0, INT64), k) if k else counted(shape, 0, INT64))
    return cast("eye", on, chosen)


def identity(n: int, dtype: DType = np.float64) -> Array:
    """Return the identity matrix, as `numpy.identity`."""
    return eye(n, dtype=dtype)


def tri(n: int, m: int | None = None, k: int = 0, dtype: DType = np.float64) -> Array:
    """Return ones on and below diagonal k, as `numpy.tri`."""
    shape = settle_shape("tri", (n, n if m is None else m))
    chosen = settle_dtype(dtype, "tri")
    if current_trace() is None:
        return np.tri(shape[0], shape[1], k, dtype=chosen)
    return cast("tri", ew.less_equal(counted(shape, 1, INT64), ew.add(counted(shape, 0, INT64), k)), chosen)


def asarray(x: ArrayLike, dtype: DType = None, order: Any = None, *, copy: bool | None = None) -> Array:
    """Return x as an array: inside a trace a traced value, outside a NumPy array, as `numpy.asarray`.

    `order` does not matter to values: arrays are row-major. Lists may hold traced values. Raises ArgumentError for what
    is not numbers, DTypeError for unsupported dtypes.

    >>> asarray([1, 2], dtype=np.float32)
    array([1., 2.], dtype=float32)
    """
    if copy:
        return new_array(x, dtype)
    x = operand("asarray", x)
    x = dtype_of(x).type(x) if is_scalar(x) else x
    return array_of(x if dtype is None else cast("asarray", x, settle_dtype(dtype, "asarray")))


def new_array(
    x: ArrayLike, dtype: DType = None, *, copy: bool | None = True, order: Any = None, subok: bool = False,
    ndmin: int = 0,
) -> Array:
    """Return x as a new array of `ndmin` axes or more, as `numpy.array`; see `asarray`.

    >>> new_array([[1.0, 2.0]]).shape
    (1, 2)
    """
    del order, subok  # arrays are row-major, and of one class
    found = asarray(x, dtype)
    found = shaping.as_shape(found, (1,) * (ndmin - len(found.shape)) + found.shape)
    if not copy:
        return found
    return np.array(found) if isinstance(found, np.ndarray) else found.apart((x,))


def copy(x: ArrayLike) -> Array:
    """Return a copy, as `numpy.copy`."""
    return new_array(x)


def astype(x: ArrayLike, dtype: DType, /, *, copy: bool = True) -> Array:
    """Convert x to another dtype, as `numpy.astype`; the gradient is converted back.

    Raises DTypeError for dtypes that a graph cannot hold.

    >>> astype(np.array([1.7]), np.int64)
    array([1])
    """
    x = array("astype", x)
    target = settle_dtype(dtype, "astype")
    if isinstance(x, np.ndarray):
        return x.astype(target, copy=copy)
    if x.weak and x.dtype == target:
        return Tracer(x._trace, x._node)
    return x.owned() if copy and x.dtype == target else cast("astype", x, target)


def own(x: Array) -> Array:
    """Return an array with memory of its own."""
    return x.owned() if isinstance(x, Tracer) else x.copy()


def meshgrid(*arrays: ArrayLike, indexing: str = "xy", sparse: bool = False) -> list[Array]:
    """Return coordinate arrays from vectors, as `numpy.meshgrid`."""
    xs = [shaping.ravel(x) for x in arrays]
    order = list(range(len(xs)))
    if indexing == "xy" and len(xs) > 1:
        order[:2] = [1, 0]
    shape = tuple(xs[i].shape[0] for i in order)
    found = []
    for axis, i in enumerate(order):
        line = xs[i]
        wide = shaping.as_shape(line, tuple(line.shape[0] if a == axis else 1 for a in range(len(xs))))
        found.append((i, own(wide if sparse else broadcast_array(wide, shape))))
    return [x for _, x in sorted(found, key=operator.itemgetter(0))]


def tril_indices(n: int, k: int = 0, m: int | None = None) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the row and column numbers of the lower triangle as NumPy arrays, as `numpy.tril_indices`."""
    return np.tril_indices(n, k, m)


def triu_indices(n: int, k: int = 0, m: int | None = None) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the row and column numbers of the upper triangle as NumPy arrays, as `numpy.triu_indices`."""
    return np.triu_indices(n, k, m)


@rounded_once
def vander(x: ArrayLike, n: int | None = None, increasing: bool = False) -> Array:
    """Return the powers of a vector as columns, as `numpy.vander`."""
    x = array("vander", x)
    x = cast("vander", x, result_dtype([x, np.int64(0)]))
    count = x.shape[0] if n is None else n
    powers = range(count) if increasing else reversed(range(count))
    return joining.stack([arithmetic.power(x, p) for p in powers], axis=1)


__all__ = [
    "arange", "asarray", "astype", "copy", "empty", "empty_like", "eye", "full", "full_like", "identity", "linspace",
    "logspace", "meshgrid", "ones", "ones_like", "tri", "tril_indices", "triu_indices", "vander", "zeros", "zeros_like",
]  # fmt: skip
