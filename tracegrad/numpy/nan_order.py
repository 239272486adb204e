"""Positions and quantiles of what is not NaN, and running sums and products that leave NaN out."""

from __future__ import annotations

import numpy as np

from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.numpy import arithmetic, creation, elementwise as ew, joining, reductions, selecting, shaping
from tracegrad.numpy.nan_reductions import without_nan
from tracegrad.numpy.promote import INT64, Array, ArrayLike, Axis, DType, array, computed, mark, settle_axes, shown
from tracegrad.numpy.statistics import floats
from tracegrad.trace import Tracer


@computed
def nanprod(x: ArrayLike, axis: Axis = None, dtype: DType = None, *, keepdims: bool = False) -> Array:
    """Product of what is not NaN, as `numpy.nanprod`."""
    return reductions.prod(without_nan("nanprod", x, 1.0), axis, dtype=dtype, keepdims=keepdims)


@computed
def nancumsum(x: ArrayLike, axis: int | None = None, dtype: DType = None) -> Array:
    """Running sums, with NaN as 0, as `numpy.nancumsum`."""
    return reductions.cumsum(without_nan("nancumsum", x, 0.0), axis, dtype=dtype)


@computed
def nancumprod(x: ArrayLike, axis: int | None = None, dtype: DType = None) -> Array:
    """Running products, with NaN as 1, as `numpy.nancumprod`."""
    return reductions.cumprod(without_nan("nancumprod", x, 1.0), axis, dtype=dtype)


def nanargmax(x: ArrayLike, axis: int | None = None, *, keepdims: bool = False) -> Array:
    """Position of the largest element that is not NaN, as `numpy.nanargmax`; 0 where all are NaN (NumPy raises)."""
    return reductions.argmax(without_nan("nanargmax", x, -np.inf), axis, keepdims=keepdims)


def nanargmin(x: ArrayLike, axis: int | None = None, *, keepdims: bool = False) -> Array:
    """Position of the smallest element that is not NaN, as `numpy.nanargmin`; 0 where all are NaN (NumPy raises)."""
    return reductions.argmin(without_nan("nanargmin", x, np.inf), axis, keepdims=keepdims)


@computed
def nanquantile(
    a: ArrayLike, q: ArrayLike, axis: Axis = None, *, method: str = "linear", keepdims: bool = False
) -> Array:
    """Return what a share `q` of the elements along `axis` that are not NaN lies below, as `numpy.nanquantile`; NaN
    where there is none.

    Raises ArgumentError for a `method` other than "linear".

    >>> nanquantile(np.array([1.0, np.nan, 3.0]), 0.5)
    np.float64(2.0)
    """
    if method != "linear":
        raise ArgumentError(f"nanquantile: method={method!r} is not supported", fix='use method="linear"')
    x = floats("nanquantile", a)
    axes = settle_axes("nanquantile", axis, x)
    rest = tuple(n for i, n in enumerate(x.shape) if i not in axes)
    last = shaping.moveaxis(x, axes, tuple(range(-len(axes), 0)))
    rows = shaping.reshape(last, (*rest, -1)) if axes else x[..., None]
    if not rows.shape[-1]:
        raise ShapeError(f"nanquantile: {shown(x)} has no element along axis={axis}", fix="check the shape first")
    ordered = selecting.sort(rows, -1)  # NaN last
    count = reductions.sum(ew.logical_not(ew.isnan(rows)), -1, keepdims=True)
    share = array("nanquantile", q if isinstance(q, Tracer) else np.asarray(q, x.dtype))
    found = [at_share(ordered, count, part) for part in shaping.ravel(share)]
    whole = shaping.reshape(joining.stack(found), (*share.shape, *rest))
    if not keepdims:
        return mark(whole, False)
    return shaping.reshape(whole, (*share.shape, *(1 if i in axes else n for i, n in enumerate(x.shape))))


def at_share(ordered: Array, count: Array, share: Array) -> Array:
    """Return the quantile of the first `count` elements of sorted rows."""
    place = share * creation.astype(arithmetic.clip(count - 1, 0), ordered.dtype)
    below = ew.floor(place)
    low, high = (
        selecting.take_along_axis(ordered, creation.astype(p, INT64), -1) for p in (below, ew.ceil(place))
    )
    return (low + (high - low) * (place - below))[..., 0]


def nanpercentile(
    a: ArrayLike, q: ArrayLike, axis: Axis = None, *, method: str = "linear", keepdims: bool = False
) -> Array:
    """Return quantiles for `q` in per cent, as `numpy.nanpercentile`; see `nanquantile`."""
    q = ew.divide(q, 100.0) if isinstance(q, Tracer) else np.true_divide(q, 100.0)
    return nanquantile(a, q, axis, method=method, keepdims=keepdims)


def nanmedian(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Array:
    """Median of what is not NaN, as `numpy.nanmedian`; NaN where there is none."""
    return nanquantile(x, 0.5, axis, keepdims=keepdims)


__all__ = [
    "nanargmax", "nanargmin", "nancumprod", "nancumsum", "nanmedian", "nanpercentile", "nanprod", "nanquantile",
]  # fmt: skip
