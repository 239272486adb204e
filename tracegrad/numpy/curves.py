"""Functions sampled at points: integrals, differences, interpolation, polynomials, convolution of sequences."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError, DTypeError, ShapeError
from tracegrad.numpy import arithmetic, creation, elementwise as ew, indexing, joining, reductions, selecting, shaping
from tracegrad.numpy.half import rounded_once
from tracegrad.numpy.promote import FLOAT64, Array, ArrayLike, Axis, array, cast, computed, float_dtype, one_axis
from tracegrad.numpy.promote import result_dtype, settle_axes, shown
from tracegrad.numpy.statistics import floats
from tracegrad.ops.conv import conv


def along(x: Array, axis: int, start: int | None, stop: int | None, step: int | None = None) -> Array:
    """Return x[start:stop:step] along one axis."""
    return indexing.getitem(x, (slice(None),) * axis + (slice(start, stop, step),))


def trapezoid(y: ArrayLike, x: ArrayLike = None, dx: ArrayLike = 1.0, axis: int = -1) -> Array:
    """Integrate along `axis` by the trapezoidal rule, as `numpy.trapezoid`.

    >>> trapezoid(np.array([1.0, 2.0, 3.0]))
    np.float64(4.0)
    """
    y = array("trapezoid", y)
    at = one_axis("trapezoid", axis, len(y.shape), y)
    width: Any = dx
    if x is not None:
        width = reductions.diff(x, axis=-1 if shaping.ndim(x) == 1 else axis)
        if width.ndim == 1:
            width = shaping.reshape(width, (-1, *(1,) * (len(y.shape) - at - 1)))
    return reductions.sum(width * (along(y, at, 1, None) + along(y, at, None, -1)) / 2.0, at)


def gradient(f: ArrayLike, *varargs: ArrayLike, axis: Axis = None, edge_order: int = 1) -> Any:
    """Return central differences, one-sided ones at the ends, as `numpy.gradient` with edge_order=1.

    `varargs` are one spacing, or per axis a spacing or the coordinates. One array for one axis, else a tuple.

    >>> gradient(np.array([1.0, 2.0, 4.0]))
    array([1. , 1.5, 2. ])
    """
    f = floats("gradient", f)
    axes = (axis,) if isinstance(axis, int) else axis
    axes = settle_axes("gradient", axis, f) if axes is None else tuple(settle_axes("gradient", a, f)[0] for a in axes)
    if edge_order != 1:
        raise ArgumentError(f"gradient: edge_order={edge_order} is not supported", fix="leave edge_order out")
    spacings: list[Any] = list(varargs) or [1.0]
    spacings = spacings * len(axes) if len(spacings) == 1 else spacings
    if len(spacings) != len(axes):
        raise ArgumentError(
            f"gradient: {len(spacings)} spacings for {len(axes)} axes", fix="give one for all, or one per axis"
        )
    found = tuple(slope(f, a, h) for a, h in zip(axes, spacings, strict=True))
    return found[0] if len(found) == 1 else found


def slope(f: Array, axis: int, spacing: ArrayLike) -> Array:
    """Return the differences along one axis over a spacing, or over the differences of coordinates."""
    n = f.shape[axis]
    if n < 2:
        raise ShapeError(f"gradient: axis {axis} of {shown(f)} has fewer than 2 elements", fix="check axis=")
    steps: Any = spacing
    if shaping.ndim(spacing):
        steps = shaping.reshape(reductions.diff(spacing), (-1, *(1,) * (len(f.shape) - axis - 1)))
    rise = reductions.diff(f, axis=axis) / steps
    ends = along(rise, axis, None, 1), along(rise, axis, -1, None)
    before, after = along(rise, axis, None, -1), along(rise, axis, 1, None)
    if not shaping.ndim(spacing):
        return joining.concatenate([ends[0], (before + after) / 2.0, ends[1]], axis)
    left, right = steps[:-1], steps[1:]
    return joining.concatenate([ends[0], (right * before + left * after) / (left + right), ends[1]], axis)


def interp(x: ArrayLike, xp: ArrayLike, fp: ArrayLike, left: ArrayLike = None, right: ArrayLike = None) -> Array:
    """Interpolate linearly between points (xp, fp), xp growing, constant outside, as `numpy.interp`.

    >>> interp(np.array([0.5, 5.0]), np.array([0.0, 1.0]), np.array([0.0, 10.0]))
    array([ 5., 10.])
    """
    x, xp, fp = floats("interp", x), floats("interp", xp), floats("interp", fp)
    if len(xp.shape) != 1 or xp.shape != fp.shape or not xp.shape[0]:
        raise ShapeError(f"interp: the points {shown(xp)} and {shown(fp)} differ in shape", fix="pass two vectors")
    n = xp.shape[0]
    after = arithmetic.clip(selecting.searchsorted(xp, x, side="right"), 1, max(n - 1, 1))
    low, high = after - 1, ew.minimum(after, n - 1)
    x0, x1, y0, y1 = xp[low], xp[high], fp[low], fp[high]
    width = x1 - x0
    apart = width > 0
    part = arithmetic.where(apart, (x - x0) / arithmetic.where(apart, width, 1.0), 0.0)
    found = arithmetic.where(x <= xp[0], fp[0] if left is None else left, y0 + part * (y1 - y0))
    found = arithmetic.where(x >= xp[-1], fp[-1] if right is None else right, found)
    at_ends = arithmetic.where(x == xp[0], fp[0], arithmetic.where(x == xp[-1], fp[-1], found))
    return cast("interp", arithmetic.where(ew.isnan(x), np.nan, at_ends), FLOAT64)


def convolve(a: ArrayLike, v: ArrayLike, mode: str = "full") -> Array:
    """Return the convolution of two vectors, as `numpy.convolve`; `mode` is "full", "same" or "valid".

    >>> convolve(np.array([1.0, 2.0, 3.0]), np.array([0.0, 1.0]))
    array([0., 1., 2., 3.])
    """
    a, v = array("convolve", a), array("convolve", v)
    if len(a.shape) != 1 or len(v.shape) != 1 or not a.shape[0] or not v.shape[0]:
        raise ShapeError(f"convolve: {shown(a)} and {shown(v)} are not two vectors of 1 element or more")
    if a.shape[0] < v.shape[0]:
        a, v = v, a
    n, k = a.shape[0], v.shape[0]
    before = {"full": (k - 1, k - 1), "same": (k // 2, k - 1 - k // 2), "valid": (0, 0)}.get(mode)
    if before is None:
        raise ArgumentError(f"convolve: mode={mode!r} is not known", fix='use "full", "same" or "valid"')
    dtype = result_dtype([a, v])
    a, v = cast("convolve", a, dtype), cast("convolve", v, dtype)
    if dtype.kind == "f":
        lines = shaping.reshape(a, (1, 1, n)), shaping.reshape(shaping.flip(v), (1, 1, k))
        found = conv(*lines, stride=(1,), padding=(before,), dilation=(1,), groups=1)
        return shaping.reshape(found, (-1,))
    padded = joining.pad(a, before)
    places = np.arange(n + sum(before) - k + 1)[:, None] + np.arange(k)
    return reductions.sum(indexing.getitem(padded, places) * shaping.flip(v), 1, dtype=dtype)


def correlate(a: ArrayLike, v: ArrayLike, mode: str = "valid") -> Array:
    """Return the cross-correlation of two vectors, as `numpy.correlate`."""
    a, v = array("correlate", a), array("correlate", v)
    if mode == "same" and a.size < v.size:
        raise ArgumentError("correlate: mode='same' of a shorter first vector is not supported", fix='use mode="full"')
    return convolve(a, shaping.flip(v), mode)


def polyval(p: ArrayLike, x: ArrayLike) -> Array:
    """Return the polynomial with the coefficients p, the highest power first, at x, as `numpy.polyval`.

    >>> polyval(np.array([1.0, 0.0, 2.0]), 3.0)
    np.float64(11.0)
    """
    p, x = array("polyval", p), array("polyval", x)
    if len(p.shape) != 1:
        raise ShapeError(f"polyval: the coefficients {shown(p)} are not a vector")
    found: Any = ew.multiply(x, 0)
    for i in range(p.shape[0]):
        found = found * x + p[i]
    return found


@computed
@rounded_once
def sinc(x: ArrayLike) -> Array:
    """sin(pi x) / (pi x), 1 at 0, as `numpy.sinc`; the first two derivatives at 0 are 0 and -pi**2 / 3."""
    angle = floats("sinc", x) * np.pi
    small = ew.absolute(angle) < 1e-4
    safe = arithmetic.where(small, 1.0, angle)
    squared = arithmetic.where(small, angle * angle, 0.0)
    return arithmetic.where(small, 1.0 - squared / 6.0 + squared * squared / 120.0, ew.sin(safe) / safe)


def ldexp(x: ArrayLike, i: ArrayLike) -> Array:
    """x * 2**i for integers i, as `numpy.ldexp`, for i whose power of two is a number."""
    x, i = array("ldexp", x), array("ldexp", i)
    if i.dtype.kind not in "iub":
        raise DTypeError(f"ldexp: the exponents {shown(i)} are not integers", fix="use x * np.exp2(i)")
    x = cast("ldexp", x, float_dtype(x.dtype))
    return x * ew.exp2(creation.astype(i, x.dtype))


def cumulative_sum(x: ArrayLike, /, *, axis: int | None = None, dtype: Any = None) -> Array:
    """Running sum: the array-API name of `cumsum`."""
    return reductions.cumsum(x, axis, dtype=dtype)


def cumulative_prod(x: ArrayLike, /, *, axis: int | None = None, dtype: Any = None) -> Array:
    """Running product: the array-API name of `cumprod`."""
    return reductions.cumprod(x, axis, dtype=dtype)


def ediff1d(x: ArrayLike) -> Array:
    """Differences of neighbours of the flat array, as `numpy.ediff1d`."""
    return reductions.diff(shaping.ravel(x))


@computed
@rounded_once
def unwrap(p: ArrayLike, discont: float | None = None, axis: int = -1, *, period: float = 2.0 * np.pi) -> Array:
    """Take jumps of more than half a period out of a row of angles, as `numpy.unwrap`.

    >>> unwrap(np.array([0.0, 3.0, -3.0])).round(3)
    array([0.   , 3.   , 3.283])
    """
    x = floats("unwrap", p)
    at = reductions.diff_axis("unwrap", x, axis)
    steps = reductions.diff(x, axis=at)
    half = period / 2.0
    kept = ew.remainder(steps + half, period) - half
    kept = arithmetic.where((kept == -half) & (steps > 0.0), half, kept)
    fixed = arithmetic.where(ew.absolute(steps) < (half if discont is None else max(discont, half)), 0.0, kept - steps)
    widths = [(int(a == at), 0) for a in range(len(x.shape))]
    return x + joining.pad(reductions.cumsum(fixed, at), widths)


def modf(x: ArrayLike, /) -> tuple[Array, Array]:
    """Return the fraction and the whole number of each element, with its sign, as `numpy.modf`."""
    x = floats("modf", x)
    number = ew.trunc(x)
    fraction = arithmetic.where(ew.isinf(x), 0.0, x - arithmetic.where(ew.isinf(x), 0.0, number))
    return arithmetic.copysign(fraction, x), number


__all__ = [
    "convolve", "correlate", "cumulative_prod", "cumulative_sum", "ediff1d", "gradient", "interp", "ldexp", "modf",
    "polyval", "sinc", "trapezoid", "unwrap",
]  # fmt: skip
