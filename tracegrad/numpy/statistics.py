"""Quantiles, covariances and counts."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.ir.aval import is_float
from tracegrad.numpy import arithmetic, creation, elementwise as ew, indexing, joining, products, reductions
from tracegrad.numpy import selecting, shaping
from tracegrad.numpy.half import rounded_once
from tracegrad.numpy.nan_reductions import nanmean
from tracegrad.numpy.promote import FLOAT64, INT64, Array, ArrayLike, Axis, array, cast, computed, settle_axes
from tracegrad.numpy.promote import shown
from tracegrad.numpy.updates import at
from tracegrad.trace import Tracer, is_scalar

METHODS = {
    "linear": lambda low, high, part: low + (high - low) * part,
    "lower": lambda low, high, part: low,
    "higher": lambda low, high, part: arithmetic.where(part > 0, high, low),
    "midpoint": lambda low, high, part: arithmetic.where(part > 0, (low + high) / 2, low),
    "nearest": lambda low, high, part: arithmetic.where(ew.rint(part) > 0, high, low),
}


def floats(name: str, x: ArrayLike) -> Array:
    """Accept an operand as an array of floats."""
    x = array(name, x)
    return x if is_float(x.dtype) else cast(name, x, FLOAT64)


def quantile(
    a: ArrayLike, q: ArrayLike, axis: Axis = None, *, method: str = "linear", keepdims: bool = False
) -> Array:
    """Return what a share `q` of the elements along `axis` lies below, as `numpy.quantile`; NaN wins.

    `method` is "linear", "lower", "higher", "midpoint" or "nearest"; others raise ArgumentError. The gradient goes to
    the one or two elements that the result is made of.

    >>> quantile(np.array([1.0, 2.0, 4.0]), 0.75)
    np.float64(3.0)
    """
    if method not in METHODS or method == "nearest":
        raise ArgumentError(
            f"quantile: method={method!r} is not supported", fix='use "linear", "lower", "higher" or "midpoint"'
        )
    a = floats("quantile", a)
    axes = settle_axes("quantile", axis, a)
    rest = [n for i, n in enumerate(a.shape) if i not in axes]
    last = shaping.moveaxis(a, axes, tuple(range(-len(axes), 0)))
    rows = shaping.reshape(last, (*rest, -1)) if axes else a[..., None]
    n = rows.shape[-1]
    if n == 0:
        raise ShapeError(f"quantile: {shown(a)} has no element along axis={axis}", fix="check the shape first")
    ordered = shaping.moveaxis(selecting.sort(rows, -1), -1, 0)
    share = q if isinstance(q, Tracer) else np.asarray(q, a.dtype if is_scalar(q) else None)
    place = ew.multiply(array("quantile", share), float(n - 1))
    below = ew.floor(place)
    low = arithmetic.clip(creation.astype(below, INT64), 0, n - 1)
    high = arithmetic.clip(creation.astype(ew.ceil(place), INT64), 0, n - 1)
    part = shaping.reshape(place - below, (*place.shape, *(1,) * len(rest)))
    found = METHODS[method](indexing.getitem(ordered, low), indexing.getitem(ordered, high), part)
    found = arithmetic.where(ew.isnan(indexing.getitem(ordered, n - 1)), np.nan, found)
    if not keepdims:
        return found
    return shaping.reshape(found, (*place.shape, *(1 if i in axes else m for i, m in enumerate(a.shape))))


def percentile(
    a: ArrayLike, q: ArrayLike, axis: Axis = None, *, method: str = "linear", keepdims: bool = False
) -> Array:
    """Return quantiles for `q` in per cent, as `numpy.percentile`; see `quantile`."""
    q = q / 100.0 if is_scalar(q) else ew.divide(q, 100.0) if isinstance(q, Tracer) else np.true_divide(q, 100.0)
    return quantile(a, q, axis, method=method, keepdims=keepdims)


@computed
@rounded_once
def nanvar(x: ArrayLike, axis: Axis = None, *, ddof: float = 0, keepdims: bool = False) -> Array:
    """Variance of what is not NaN, as `numpy.nanvar`."""
    x = floats("nanvar", x)
    known = ew.logical_not(ew.isnan(x))
    off = arithmetic.where(known, x - nanmean(x, axis, keepdims=True), 0.0)
    count = creation.astype(reductions.sum(known, axis, keepdims=keepdims), x.dtype)
    return ew.divide(reductions.sum(off * off, axis, keepdims=keepdims), count - ddof)


@computed
@rounded_once
def nanstd(x: ArrayLike, axis: Axis = None, *, ddof: float = 0, keepdims: bool = False) -> Array:
    """Standard deviation of what is not NaN, as `numpy.nanstd`."""
    return reductions.root(nanvar(x, axis, ddof=ddof, keepdims=keepdims))


def cov(m: ArrayLike, y: ArrayLike = None, rowvar: bool = True, bias: bool = False, ddof: int | None = None) -> Array:
    """Return the covariances of rows (of columns without `rowvar`), as `numpy.cov` without weights, in float64.

    >>> cov(np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]))
    array([[ 1., -1.],
           [-1.,  1.]])
    """
    rows = [shaping.atleast_2d(cast("cov", array("cov", v), FLOAT64)) for v in (m, y) if v is not None]
    rows = [x if rowvar or shaping.ndim(v) < 2 else x.T for x, v in zip(rows, (m, y), strict=False)]
    x = joining.concatenate(rows, 0) if len(rows) > 1 else rows[0]
    free = x.shape[1] - ((0 if bias else 1) if ddof is None else ddof)
    off = x - reductions.mean(x, 1, keepdims=True)
    return shaping.squeeze(products.matmul(off, off.T) / float(max(free, 0)))


def corrcoef(x: ArrayLike, y: ArrayLike = None, rowvar: bool = True) -> Array:
    """Return the correlations of rows (of columns without `rowvar`), as `numpy.corrcoef`."""
    c = cov(x, y, rowvar)
    if not shaping.ndim(c):
        return c / c
    size = ew.sqrt(selecting.diagonal(c))
    return arithmetic.clip(c / size[:, None] / size[None, :], -1.0, 1.0)


def bincount(x: ArrayLike, weights: ArrayLike = None, minlength: int = 0) -> Array:
    """Count the numbers 0, 1, ... in x, or sum their weights, as `numpy.bincount`.

    Of traced numbers the largest is not known: the result has `minlength` elements (ArgumentError without), and a
    larger number in x raises IndexOutOfBounds when the program runs.

    >>> bincount(np.array([0, 2, 2]), minlength=4)
    array([1, 0, 2, 0])
    """
    if not any(isinstance(v, Tracer) for v in (x, weights)) and not isinstance(array("bincount", x), Tracer):
        return np.bincount(x, weights, minlength)
    if minlength < 1:
        raise ArgumentError("bincount: the size of the result is not known while tracing", fix="give minlength=")
    x = array("bincount", x)
    if weights is None:
        return at(creation.zeros(minlength, INT64))[x].add(creation.ones(x.shape, INT64))
    return at(creation.zeros(minlength, FLOAT64))[x].add(creation.astype(array("bincount", weights), FLOAT64))


def digitize(x: ArrayLike, bins: ArrayLike, right: bool = False) -> Array:
    """Return the bin that each element lies in, for bins that grow, as `numpy.digitize`: int64."""
    return selecting.searchsorted(bins, x, side="left" if right else "right")


def isin(element: ArrayLike, test_elements: ArrayLike, *, invert: bool = False) -> Array:
    """Say of each element whether it is one of `test_elements`, as `numpy.isin`."""
    tests = shaping.ravel(array("isin", test_elements))
    found = reductions.any(ew.equal(shaping.expand_dims(array("isin", element), -1), tests), -1)
    return ew.logical_not(found) if invert else found


def partition(a: ArrayLike, kth: Any, axis: int | None = -1) -> Array:
    """Return the elements sorted along `axis`, which is one of the orders that `numpy.partition` may give."""
    del kth
    return selecting.sort(a, axis)


def argpartition(a: ArrayLike, kth: Any, axis: int | None = -1) -> Array:
    """Return the order that sorts `axis`, which is one of those that `numpy.argpartition` may give."""
    del kth
    return selecting.argsort(a, axis)


def histogram(a: ArrayLike, bins: Any = 10, range: tuple[float, float] | None = None) -> tuple[Array, Array]:
    """Count the elements between the edges of bins, as `numpy.histogram`; return counts and edges.

    `bins` is a number of bins, between the least and the largest element or over `range`, or edges that grow.
    """
    if isinstance(bins, int):
        low, high = (reductions.min(a), reductions.max(a)) if range is None else range
        bins = creation.linspace(low, high, bins + 1)
    edges, x = array("histogram", bins), shaping.ravel(array("histogram", a))
    upto = reductions.sum(ew.less(x[:, None], edges), 0)
    last = reductions.sum(ew.less_equal(x, edges[-1]))
    ends = joining.concatenate([upto[:-1], shaping.reshape(last, (1,))])
    return ends[1:] - ends[:-1], edges


__all__ = [
    "argpartition", "bincount", "corrcoef", "cov", "digitize", "histogram", "isin", "nanstd", "nanvar", "partition",
    "percentile", "quantile",
]  # fmt: skip
