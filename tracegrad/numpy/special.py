"""Functions of `scipy.special`, by their names there, for traced values and arrays.

SciPy's own element-wise functions, called with traced values, lead here as well.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from tracegrad.errors import ArgumentError
from tracegrad.numpy import arithmetic, elementwise as ew
from tracegrad.numpy.half import rounded_once
from tracegrad.numpy.promote import Array, ArrayLike, computed, mark
from tracegrad.numpy.reductions import logsumexp
from tracegrad.numpy.statistics import floats
from tracegrad.numpy.torch_names import log_softmax, softmax
from tracegrad.ops import elementwise as ops
from tracegrad.ops import special as special_ops

ROOT_HALF = math.sqrt(0.5)


def by_primitive(name: str, prim: Callable[[Any], Any], doc: str) -> Callable[[ArrayLike], Array]:
    @computed
    @rounded_once
    def function(x: ArrayLike, /) -> Array:
        return mark(prim(floats(name, x)), False)

    function.__name__ = function.__qualname__ = name
    function.__doc__ = doc
    return function


erf = by_primitive("erf", ops.erf, "The error function, as `scipy.special.erf`.")
erfc = by_primitive("erfc", ops.erfc, "1 - erf(x), exact for large x, as `scipy.special.erfc`.")
erfinv = by_primitive("erfinv", special_ops.erfinv, "The inverse of erf, as `scipy.special.erfinv`.")
expit = by_primitive("expit", ops.sigmoid, "1 / (1 + exp(-x)) without overflow, as `scipy.special.expit`.")
gammaln = by_primitive("gammaln", special_ops.lgamma, "log |gamma(x)|, as `scipy.special.gammaln`.")
digamma = by_primitive("digamma", special_ops.digamma, "The derivative of gammaln, as `scipy.special.digamma`.")


@computed
@rounded_once
def logit(x: ArrayLike, /) -> Array:
    """log(x / (1 - x)), as `scipy.special.logit`."""
    x = floats("logit", x)
    return ew.subtract(ew.log(x), ew.log1p(ew.negative(x)))


@computed
@rounded_once
def log_expit(x: ArrayLike, /) -> Array:
    """log(expit(x)) without overflow, as `scipy.special.log_expit`."""
    return ew.negative(arithmetic.logaddexp(0.0, ew.negative(floats("log_expit", x))))


def gamma(x: ArrayLike, /) -> Array:
    """The gamma function, exp(gammaln(x)) with its sign, as `scipy.special.gamma`; NaN at negative whole numbers.

    >>> gamma(5.0).round(9)
    np.float64(24.0)
    """
    x = floats("gamma", x)
    odd = ew.equal(ew.remainder(ew.floor(x), 2.0), 1.0)
    size = ew.exp(gammaln(x))
    found = arithmetic.where(((x < 0.0) & odd) | (ew.equal(x, 0.0) & arithmetic.signbit(x)), -size, size)
    return arithmetic.where((x < 0.0) & ew.equal(x, ew.floor(x)), math.nan, found)


def betaln(a: ArrayLike, b: ArrayLike, /) -> Array:
    """log |beta(a, b)|, as `scipy.special.betaln`."""
    a, b = floats("betaln", a), floats("betaln", b)
    return gammaln(a) + gammaln(b) - gammaln(a + b)


def beta(a: ArrayLike, b: ArrayLike, /) -> Array:
    """gamma(a) gamma(b) / gamma(a + b) for positive a and b, as `scipy.special.beta`."""
    return ew.exp(betaln(a, b))


def polygamma(n: int, x: ArrayLike, /) -> Array:
    """The n-th derivative of digamma, for n of 0 or 1, as `scipy.special.polygamma`."""
    if n not in (0, 1):
        raise ArgumentError(f"polygamma: n={n!r} is not supported", fix="use n=0 or n=1, and tg.grad for more")
    return digamma(x) if n == 0 else trigamma(x)


trigamma = by_primitive("trigamma", special_ops.trigamma, "The derivative of digamma.")


def xlogy(x: ArrayLike, y: ArrayLike, /) -> Array:
    """x log(y), 0 where x is 0, as `scipy.special.xlogy`."""
    return product_with_log(ew.log, floats("xlogy", x), floats("xlogy", y))


def xlog1py(x: ArrayLike, y: ArrayLike, /) -> Array:
    """x log(1 + y), 0 where x is 0, as `scipy.special.xlog1py`."""
    return product_with_log(ew.log1p, floats("xlog1py", x), floats("xlog1py", y))


def product_with_log(log: Callable[[Any], Any], x: Array, y: Array) -> Array:
    none = (x == 0.0) & ew.logical_not(ew.isnan(y))
    return arithmetic.where(none, 0.0, x * log(arithmetic.where(none, 1.0, y)))


def entr(x: ArrayLike, /) -> Array:
    """-x log(x), 0 at 0 and -inf below, as `scipy.special.entr`."""
    x = floats("entr", x)
    return arithmetic.where(x < 0.0, -math.inf, ew.negative(xlogy(x, x)))


def rel_entr(x: ArrayLike, y: ArrayLike, /) -> Array:
    """x log(x / y), 0 for x = 0 <= y, inf outside, as `scipy.special.rel_entr`."""
    x, y = floats("rel_entr", x), floats("rel_entr", y)
    both = (x > 0.0) & (y > 0.0)
    found = x * ew.log(arithmetic.where(both, x, 1.0) / arithmetic.where(both, y, 1.0))
    none = (x == 0.0) & (y >= 0.0)
    bad = ew.isnan(x) | ew.isnan(y)
    return arithmetic.where(both | bad, found + 0.0 * y, arithmetic.where(none, 0.0, math.inf))


def kl_div(x: ArrayLike, y: ArrayLike, /) -> Array:
    """x log(x / y) - x + y, as `scipy.special.kl_div`."""
    x, y = floats("kl_div", x), floats("kl_div", y)
    found = rel_entr(x, y)
    return arithmetic.where(ew.isinf(found), found, found - x + y)


def ndtr(x: ArrayLike, /) -> Array:
    """The normal distribution function, as `scipy.special.ndtr`."""
    return ew.multiply(erfc(floats("ndtr", x) * -ROOT_HALF), 0.5)


def ndtri(p: ArrayLike, /) -> Array:
    """The inverse of ndtr, as `scipy.special.ndtri`; by erfinv, so that tails below 1e-16 are lost."""
    return ew.multiply(erfinv(2.0 * floats("ndtri", p) - 1.0), math.sqrt(2.0))


psi = digamma
SCIPY: dict[str, Callable[..., Any]] = {
    f.__name__: f
    for f in (
        beta, betaln, entr, erf, erfc, erfinv, expit, gamma, gammaln, kl_div, log_expit, logit, ndtr, ndtri, rel_entr,
        xlog1py, xlogy,
    )
} | {"psi": digamma}  # fmt: skip
"""SciPy's ufuncs by their own names."""
__all__ = [
    "beta", "betaln", "digamma", "entr", "erf", "erfc", "erfinv", "expit", "gamma", "gammaln", "kl_div", "log_expit",
    "log_softmax", "logit", "logsumexp", "ndtr", "ndtri", "polygamma", "psi", "rel_entr", "softmax", "xlog1py", "xlogy",
]  # fmt: skip
