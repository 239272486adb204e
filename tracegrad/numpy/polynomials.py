"""Polynomials by their coefficients, the highest power first, as in `numpy.polyval`."""

from __future__ import annotations

import numpy as np

from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.numpy import curves, creation, elementwise as ew, joining, reductions, shaping
from tracegrad.numpy.decompositions import lstsq
from tracegrad.numpy.promote import FLOAT64, Array, ArrayLike, array, cast, computed, float_dtype, result_dtype, shown


def coefficients(name: str, p: ArrayLike) -> Array:
    """Accept a vector of coefficients; a number is a polynomial of degree 0."""
    x = shaping.atleast_1d(array(name, p))
    if len(x.shape) != 1 or not x.shape[0]:
        raise ShapeError(f"{name}: the coefficients {shown(x)} are not a vector", fix="pass a vector of 1 or more")
    return x


def aligned(name: str, a: ArrayLike, b: ArrayLike) -> tuple[Array, Array]:
    """Return two vectors of coefficients with zeros in front of the shorter one."""
    x, y = coefficients(name, a), coefficients(name, b)
    n = max(x.shape[0], y.shape[0])
    return joining.pad(x, (n - x.shape[0], 0)), joining.pad(y, (n - y.shape[0], 0))


def polyadd(a1: ArrayLike, a2: ArrayLike) -> Array:
    """Return the sum of two polynomials, as `numpy.polyadd`.

    >>> polyadd([1.0, 2.0], [3.0])
    array([1., 5.])
    """
    return ew.add(*aligned("polyadd", a1, a2))


def polysub(a1: ArrayLike, a2: ArrayLike) -> Array:
    """Return the difference of two polynomials, as `numpy.polysub`."""
    return ew.subtract(*aligned("polysub", a1, a2))


def polymul(a1: ArrayLike, a2: ArrayLike) -> Array:
    """Return the product of two polynomials, as `numpy.polymul`; zeros in front are kept.

    >>> polymul([1.0, 2.0], [1.0, 0.0, 3.0])
    array([1., 2., 3., 6.])
    """
    return curves.convolve(coefficients("polymul", a1), coefficients("polymul", a2))


@computed
def polyder(p: ArrayLike, m: int = 1) -> Array:
    """Return the m-th derivative of a polynomial, as `numpy.polyder`.

    >>> polyder([1.0, 2.0, 3.0])
    array([2., 2.])
    """
    x = coefficients("polyder", p)
    if m < 0:
        raise ArgumentError(f"polyder: m={m} is negative", fix="use polyint")
    for _ in range(m):
        n = x.shape[0] - 1
        x = ew.multiply(x[:-1], np.arange(n, 0, -1))
    return x


@computed
def polyint(p: ArrayLike, m: int = 1, k: ArrayLike = None) -> Array:
    """Return the m-th integral of a polynomial, with the constants k (zeros unless told), as `numpy.polyint`.

    >>> polyint([2.0, 2.0])
    array([1., 2., 0.])
    """
    x = coefficients("polyint", p)
    if m < 0:
        raise ArgumentError(f"polyint: m={m} is negative", fix="use polyder")
    constants = creation.zeros((m,), FLOAT64) if k is None else shaping.atleast_1d(array("polyint", k))
    if constants.shape[0] == 1 < m:
        constants = shaping.broadcast_to(constants, (m,))
    if constants.shape != (m,):
        raise ShapeError(f"polyint: {shown(constants)} are not {m} constants", fix="pass one for each integral")
    for i in range(m):
        whole = ew.divide(x, np.arange(x.shape[0], 0, -1))
        x = joining.concatenate([whole, constants[i : i + 1]])
    return x


def polyfit(x: ArrayLike, y: ArrayLike, deg: int, rcond: float | None = None, *, w: ArrayLike = None) -> Array:
    """Return the polynomial of degree `deg` through points with the least squares of its errors, weighted by w, as
    `numpy.polyfit`.

    x [m]; y [m] or [m, k] gives [deg + 1] or [deg + 1, k]. The gradient is also that in x.

    >>> polyfit(np.array([0.0, 1.0, 2.0]), np.array([1.0, 3.0, 5.0]), 1).round(9)
    array([2., 1.])
    """
    x, y = array("polyfit", x), array("polyfit", y)
    if len(x.shape) != 1 or len(y.shape) not in (1, 2) or x.shape[0] != y.shape[0] or not x.shape[0]:
        raise ShapeError(f"polyfit: {shown(x)} and {shown(y)} are not points", fix="pass x [m] and y [m] or [m, k]")
    if deg < 0:
        raise ArgumentError(f"polyfit: the degree {deg} is negative", fix="use 0 or more")
    dtype = float_dtype(result_dtype([x, y]))
    x, y = cast("polyfit", x, dtype), cast("polyfit", y, dtype)
    left, right = creation.vander(x, deg + 1), y
    if w is not None:
        weights = cast("polyfit", array("polyfit", w), dtype)
        if weights.shape != x.shape:
            raise ShapeError(f"polyfit: the weights {shown(weights)} do not fit {shown(x)}", fix="pass one per point")
        left, right = left * weights[:, None], right * (weights if len(y.shape) == 1 else weights[:, None])
    scale = ew.sqrt(reductions.sum(left * left, 0))
    cutoff = x.shape[0] * float(np.finfo(dtype).eps) if rcond is None else rcond
    found = lstsq(left / scale, right, cutoff)[0]
    return found / (scale if len(y.shape) == 1 else scale[:, None])


__all__ = ["polyadd", "polyder", "polyfit", "polyint", "polymul", "polysub"]
