"""Reductions and running sums. `axis` is None (all), an integer or a tuple; negative axes count from the end."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.numpy import arithmetic, elementwise as ew
from tracegrad.ir.aval import is_float, is_half
from tracegrad.ir.primitive import as_float32
from tracegrad.numpy.half import rounded_once
from tracegrad.numpy.reduction_options import optional
from tracegrad.numpy.promote import computed
from tracegrad.numpy.promote import BOOL, FLOAT32, FLOAT64, INT64, Array, ArrayLike, Axis, DType, array
from tracegrad.numpy.promote import broadcast_array, cast, mark, one_axis, settle_axes, settle_dtype, shown, sized
from tracegrad.ops import elementwise as ops
from tracegrad.ops import reduce as reduce_ops
from tracegrad.ops.shape import broadcast, concat, reshape, slice_, transpose

Axes = tuple[int, ...]


def sum_dtype(dtype: np.dtype[np.generic]) -> np.dtype[np.generic]:
    """Return the dtype NumPy sums in: integers narrower than 64 bits are widened."""
    if dtype.kind == "u":
        return np.dtype(np.uint64)
    return INT64 if dtype.kind in "ib" else dtype


def keep(y: Array, x: Array, axes: Axes, keepdims: bool) -> Array:
    """Put reduced axes back with size 1 when asked for."""
    if keepdims and axes:
        y = reshape(y, shape=tuple(1 if a in axes else n for a, n in enumerate(x.shape)))
    return mark(y, False)


def expand(y: Array, x: Array, axes: Axes) -> Array:
    """Broadcast a reduced value back over the axes of x."""
    return broadcast(y, shape=x.shape, axes=reduce_ops.kept(len(x.shape), axes))


def reduced(prim: reduce_ops.Reduce, x: Array, axes: Axes) -> Array:
    """Apply a reduction; over no axis it is the identity."""
    return prim(x, axes=axes) if axes else x


@optional(fill=0, combine=ew.add)
@computed
def sum(x: ArrayLike, axis: Axis = None, dtype: DType = None, *, keepdims: bool = False) -> Array:  # noqa: A001
    """Sum over `axis`, as `numpy.sum`: integers are summed in 64 bits.

    Raises ShapeError for an axis that does not exist.

    >>> sum(np.array([[1.0, 2.0], [3.0, 4.0]]), axis=0)
    array([4., 6.])
    """
    x = array("sum", x)
    axes = settle_axes("sum", axis, x)
    x = cast("sum", x, sum_dtype(x.dtype) if dtype is None else settle_dtype(dtype, "sum"))
    return keep(reduced(reduce_ops.reduce_sum, x, axes), x, axes, keepdims)


@computed
def mean(
    x: ArrayLike, axis: Axis = None, dtype: DType = None, *, keepdims: bool = False, where: ArrayLike = True
) -> Array:
    """Mean over `axis`, of the elements for which `where` holds, as `numpy.mean`: of integers in float64; of no
    elements NaN.

    >>> mean(np.array([1, 2, 6]))
    np.float64(3.0)
    """
    x = array("mean", x)
    axes = settle_axes("mean", axis, x)
    chosen = settle_dtype(dtype, "mean") if dtype is not None else x.dtype if is_float(x.dtype) else FLOAT64
    if where is not True:
        total = sum(x, axis, FLOAT32 if is_half(chosen) else chosen, keepdims=keepdims, where=where)
        count = sum(broadcast_array(array("mean", where), x.shape), axis, total.dtype, keepdims=keepdims)
        return cast("mean", ew.divide(total, count), chosen)
    found = mean_over(as_float32(cast("mean", x, chosen)), axes)
    return keep(cast("mean", found, chosen), x, axes, keepdims)


def mean_over(x: Array, axes: Axes) -> Array:
    """Divide the sum of floats by the number of elements."""
    return ops.div(reduced(reduce_ops.reduce_sum, x, axes), x.dtype.type(sized(x.shape, axes)))


@computed
def var(
    x: ArrayLike,
    axis: Axis = None,
    dtype: DType = None,
    *,
    ddof: float = 0,
    keepdims: bool = False,
    correction: float | None = None,
) -> Array:
    """Variance over `axis`: the mean of squared deviations in two passes, as `numpy.var`; `ddof` lowers the divisor.

    >>> var(np.array([1.0, 3.0]), ddof=1)
    np.float64(2.0)
    """
    found, chosen = variance("var", x, axis, dtype, ddof if correction is None else correction, keepdims)
    return cast("var", found, chosen)


def variance(
    name: str, x: ArrayLike, axis: Axis, dtype: DType, ddof: float, keepdims: bool
) -> tuple[Array, np.dtype[np.generic]]:
    """Return the variance as it was computed, and the dtype that it is to have."""
    x = array(name, x)
    axes = settle_axes(name, axis, x)
    chosen = settle_dtype(dtype, name) if dtype is not None else x.dtype if is_float(x.dtype) else FLOAT64
    x = as_float32(cast(name, x, chosen))
    deviation = ops.sub(x, expand(mean_over(x, axes), x, axes))
    total = reduced(reduce_ops.reduce_sum, ops.square(deviation), axes)
    count = x.dtype.type(max_number(sized(x.shape, axes) - ddof, 0))
    return keep(ops.div(total, count), x, axes, keepdims), chosen


def max_number(a: float, b: float) -> float:
    return a if a > b else b


@computed
def std(
    x: ArrayLike,
    axis: Axis = None,
    dtype: DType = None,
    *,
    ddof: float = 0,
    keepdims: bool = False,
    correction: float | None = None,
) -> Array:
    """Standard deviation over `axis`, as `numpy.std`; where it is 0, so is its gradient.

    >>> std(np.array([1.0, 3.0]))
    np.float64(1.0)
    """
    found, chosen = variance("std", x, axis, dtype, ddof if correction is None else correction, keepdims)
    return cast("std", root(found), chosen)


def root(x: Array) -> Array:
    """Return the square root whose gradient at 0 is that of x, for x that is 0 only at a minimum."""
    x = array("sqrt", x)
    return mark(ops.where(ops.greater(x, x.dtype.type(0)), ops.sqrt(x), x), False)


def extremum(name: str, prim: reduce_ops.Reduce, x: ArrayLike, axis: Axis, keepdims: bool) -> Array:
    x = array(name, x)
    axes = settle_axes(name, axis, x)
    if sized(x.shape, axes) == 0:
        raise ShapeError(
            f"{name}: {shown(x)} is empty along {axes}, so it has no largest or smallest element",
            fix="check the shape first, or concatenate a starting value",
        )
    if x.dtype == BOOL:
        found = ops.not_equal(reduced(prim, ops.convert(x, dtype=np.dtype(np.uint8)), axes), np.uint8(0))
    else:
        found = reduced(prim, x, axes)
    return keep(found, x, axes, keepdims)


@optional(fill=None, combine=ew.maximum)
@computed
def max(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Array:  # noqa: A001 (NumPy's name)
    """Largest element over `axis`, as `numpy.max`: NaN wins, tied elements share the gradient equally.

    Raises ShapeError when there is no element.

    >>> max(np.array([1.0, 4.0, 2.0]))
    np.float64(4.0)
    """
    return extremum("max", reduce_ops.reduce_max, x, axis, keepdims)


@optional(fill=None, combine=ew.minimum)
@computed
def min(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Array:  # noqa: A001 (NumPy's name)
    """Smallest element over `axis`, as `numpy.min`: NaN wins, tied elements share the gradient equally.

    >>> min(np.array([1.0, 4.0, 2.0]))
    np.float64(1.0)
    """
    return extremum("min", reduce_ops.reduce_min, x, axis, keepdims)


def ptp(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Array:
    """Largest minus smallest element, as `numpy.ptp`."""
    return ew.subtract(max(x, axis, keepdims=keepdims), min(x, axis, keepdims=keepdims))


@optional(fill=1, combine=ew.multiply)
@computed
def prod(x: ArrayLike, axis: Axis = None, dtype: DType = None, *, keepdims: bool = False) -> Array:
    """Product over `axis`, as `numpy.prod`. Floats are multiplied in a tree, so gradients are right at 0.

    >>> prod(np.array([2.0, 3.0, 4.0]))
    np.float64(24.0)
    """
    x = array("prod", x)
    axes = settle_axes("prod", axis, x)
    x = cast("prod", x, sum_dtype(x.dtype) if dtype is None else settle_dtype(dtype, "prod"))
    if is_float(x.dtype) and axes and sized(x.shape, axes):
        return keep(cast("prod", product_tree(as_float32(x), axes), x.dtype), x, axes, keepdims)
    return keep(reduced(reduce_ops.reduce_prod, x, axes), x, axes, keepdims)


def product_tree(x: Array, axes: Axes) -> Array:
    """Multiply halves until one element is left."""
    rest = reduce_ops.kept(len(x.shape), axes)
    lead = tuple(x.shape[a] for a in rest)
    n = sized(x.shape, axes)
    perm = (*axes, *rest)
    front = x if perm == tuple(range(len(perm))) else transpose(x, perm=perm)
    front = reshape(front, shape=(n, *lead))
    while n > 1:
        half = n // 2
        found = ops.mul(rows(front, 0, half), rows(front, half, half))
        front = concat(found, rows(front, 2 * half, 1), axis=0) if n % 2 else found
        n = half + n % 2
    return reshape(front, shape=lead)


def rows(x: Array, start: int, size: int) -> Array:
    """Return x[start : start + size]."""
    rest = x.shape[1:]
    return slice_(x, start=(start, *(0 for _ in rest)), size=(size, *rest), step=(1,) * len(x.shape))


def truths(name: str, prim: reduce_ops.Reduce, x: ArrayLike, axis: Axis, keepdims: bool, empty: bool) -> Array:
    x = array("any", ew.truth(name, x))
    axes = settle_axes(name, axis, x)
    if sized(x.shape, axes) == 0:
        lead = tuple(x.shape[a] for a in reduce_ops.kept(len(x.shape), axes))
        return keep(broadcast.beside(x, np.bool_(empty), shape=lead, axes=()), x, axes, keepdims)
    found = reduced(prim, ops.convert(x, dtype=np.dtype(np.uint8)), axes)
    return keep(ops.not_equal(found, np.uint8(0)), x, axes, keepdims)


@optional(fill=False)
def any(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Array:  # noqa: A001 (NumPy's name)
    """Tell whether any element is true, as `numpy.any`."""
    return truths("any", reduce_ops.reduce_max, x, axis, keepdims, False)


@optional(fill=True)
def all(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Array:  # noqa: A001 (NumPy's name)
    """Tell whether all elements are true, as `numpy.all`."""
    return truths("all", reduce_ops.reduce_min, x, axis, keepdims, True)


def count_nonzero(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Array:
    """Number of elements that are not zero, as `numpy.count_nonzero`."""
    return sum(ew.truth("count_nonzero", x), axis, keepdims=keepdims)


def position(name: str, prim: reduce_ops.ArgExtremum, x: ArrayLike, axis: int | None, keepdims: bool) -> Array:
    x = array(name, x)
    if axis is None:
        flat = reshape(x, shape=(math.prod(x.shape),))
        return keep(prim(flat, axes=(0,)), x, tuple(range(len(x.shape))), keepdims)
    axes = (one_axis(name, axis, len(x.shape), x),)
    return keep(prim(x, axes=axes), x, axes, keepdims)


def argmax(x: ArrayLike, axis: int | None = None, *, keepdims: bool = False) -> Array:
    """Position of the first largest element (of the flat array when `axis` is None), as `numpy.argmax`: int64.

    >>> argmax(np.array([1.0, 4.0, 4.0]))
    np.int64(1)
    """
    return position("argmax", reduce_ops.argmax, x, axis, keepdims)


def argmin(x: ArrayLike, axis: int | None = None, *, keepdims: bool = False) -> Array:
    """Position of the first smallest element (of the flat array when `axis` is None), as `numpy.argmin`: int64."""
    return position("argmin", reduce_ops.argmin, x, axis, keepdims)


def flat_axis(name: str, x: Array, axis: int | None) -> tuple[Array, int]:
    """Return x and the axis to run along; None runs along the flat array."""
    if axis is None:
        return reshape(x, shape=(math.prod(x.shape),)), 0
    return x, one_axis(name, axis, len(x.shape), x)


@computed
def cumsum(x: ArrayLike, axis: int | None = None, dtype: DType = None) -> Array:
    """Running sums along `axis` (of the flat array when None), as `numpy.cumsum`.

    >>> cumsum(np.array([1.0, 2.0, 3.0]))
    array([1., 3., 6.])
    """
    x, at = flat_axis("cumsum", array("cumsum", x), axis)
    x = cast("cumsum", x, sum_dtype(x.dtype) if dtype is None else settle_dtype(dtype, "cumsum"))
    return reduce_ops.cumsum(x, axis=at, reverse=False)


@computed
def cumprod(x: ArrayLike, axis: int | None = None, dtype: DType = None) -> Array:
    """Running products along `axis` (of the flat array when None), as `numpy.cumprod`, by doubling strides."""
    x, at = flat_axis("cumprod", array("cumprod", x), axis)
    chosen = sum_dtype(x.dtype) if dtype is None else settle_dtype(dtype, "cumprod")
    x = as_float32(cast("cumprod", x, chosen))
    return cast("cumprod", running(x, at, ops.mul, 1), chosen)


def running(x: Array, at: int, combine: Callable[[Array, Array], Array], unit: float) -> Array:
    """Combine each element with all before it along an axis."""
    n, stride, step = x.shape[at], 1, (1,) * len(x.shape)
    while stride < n:
        head = tuple(stride if a == at else s for a, s in enumerate(x.shape))
        body = tuple(n - stride if a == at else s for a, s in enumerate(x.shape))
        shifted = slice_(x, start=(0,) * len(x.shape), size=body, step=step)
        x = combine(x, concat(broadcast.beside(x, x.dtype.type(unit), shape=head, axes=()), shifted, axis=at))
        stride *= 2
    return x


@computed
def running_extremum(name: str, x: ArrayLike, axis: int, *, largest: bool) -> Array:
    """Return the largest or smallest element so far along an axis, as `numpy.maximum.accumulate`; NaN stays."""
    x = array(name, x)
    at = one_axis(name, axis, len(x.shape), x)
    if x.dtype == BOOL:
        return ops.convert(running_extremum(name, ops.convert(x, dtype=INT64), at, largest=largest), dtype=BOOL)
    limits = (-np.inf, np.inf) if is_float(x.dtype) else (np.iinfo(x.dtype).min, np.iinfo(x.dtype).max)
    return running(x, at, ops.maximum if largest else ops.minimum, limits[not largest])


@computed
@rounded_once
def logsumexp(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Array:
    """log(sum(exp(x))) over `axis` without overflow; rows of -inf give -inf, with gradient 0.

    >>> logsumexp(np.array([1000.0, 1000.0]))
    np.float64(1000.6931471805599)
    """
    x = array("logsumexp", x)
    axes = settle_axes("logsumexp", axis, x)
    x = x if is_float(x.dtype) else cast("logsumexp", x, FLOAT64)
    zero = x.dtype.type(0)
    largest = ops.stop_gradient(extremum("logsumexp", reduce_ops.reduce_max, x, axes, False))
    shift = ops.where(ops.isfinite(largest), largest, zero)
    total = reduced(reduce_ops.reduce_sum, ops.exp(ops.sub(x, expand(array("logsumexp", shift), x, axes))), axes)
    logarithm = ops.where(ops.equal(total, zero), x.dtype.type(-np.inf), ops.log(total))
    return keep(ops.add(logarithm, shift), x, axes, keepdims)


@computed
@rounded_once(of_operands=True)
def average(x: ArrayLike, axis: Axis = None, weights: ArrayLike = None, *, keepdims: bool = False) -> Array:
    """Mean weighted by `weights`, of the shape of x or of its one `axis`, as `numpy.average`."""
    if weights is None:
        return mean(x, axis, keepdims=keepdims)
    x, w = array("average", x), array("average", weights)
    if w.shape != x.shape:
        if not isinstance(axis, int) or len(w.shape) != 1:
            raise ShapeError(
                f"average: the weights {shown(w)} do not fit {shown(x)}", fix="pass weights of the same shape"
            )
        at = one_axis("average", axis, len(x.shape), x)
        if w.shape[0] != x.shape[at]:
            raise ShapeError(f"average: the weights {shown(w)} do not fit axis {at} of {shown(x)}", fix="check axis=")
        w = broadcast(w, shape=x.shape, axes=(at,))
    total = sum(ew.multiply(x, w), axis, keepdims=keepdims)
    return ew.divide(total, sum(w, axis, keepdims=keepdims))


def allclose(x: ArrayLike, y: ArrayLike, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Array:
    """Tell whether all elements are close, as `numpy.allclose`."""
    return all(arithmetic.isclose(x, y, rtol, atol, equal_nan))


def array_equal(x: ArrayLike, y: ArrayLike) -> Array:
    """Tell whether shapes and all elements are equal, as `numpy.array_equal`."""
    x, y = array("array_equal", x), array("array_equal", y)
    return all(ew.equal(x, y)) if x.shape == y.shape else np.bool_(False)


def diff_axis(name: str, x: Array, axis: int) -> int:
    if not x.shape:
        raise ArgumentError(f"{name}: {shown(x)} is a scalar", fix="pass an array of at least one axis")
    return one_axis(name, axis, len(x.shape), x)


@computed
def diff(x: ArrayLike, n: int = 1, axis: int = -1) -> Array:
    """Differences of neighbours along `axis`, taken n times, as `numpy.diff`.

    >>> diff(np.array([1.0, 4.0, 9.0]))
    array([3., 5.])
    """
    x = array("diff", x)
    at = diff_axis("diff", x, axis)
    for _ in range(n):
        size = tuple(s - (1 if s else 0) if a == at else s for a, s in enumerate(x.shape))
        step = (1,) * len(size)
        ahead = tuple(int(a == at and size[at] > 0) for a in range(len(size)))
        later = slice_(x, start=ahead, size=size, step=step)
        former = slice_(x, start=(0,) * len(size), size=size, step=step)
        x = ew.not_equal(later, former) if x.dtype == BOOL else ops.sub(later, former)
    return x


__all__ = [
    "all", "allclose", "any", "argmax", "argmin", "array_equal", "average", "count_nonzero", "cumprod", "cumsum",
    "diff", "logsumexp", "max", "mean", "min", "prod", "ptp", "std", "sum", "var",
]  # fmt: skip
