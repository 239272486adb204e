"""The functions that scalar code may call, on f32 and f64.

Each name stands for a version per dtype (`exp` is `exp_f32` or `exp_f64`); the functions written out here serve both.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tracegrad.codegen import maths_f32, maths_f64, maths_special
from tracegrad.codegen.maths_builtin import Scalar, bit_width, copysign, f32, fabs, floor, maximum, minimum, sqrt

INF, NAN = float("inf"), float("nan")
LN2 = 0.6931471805599453


def by_dtype(name: str) -> Callable[..., Scalar]:
    """The Python meaning of a name: the version for the dtype of the operands, f64 for others than f32."""
    versions = vars(maths_f32) | vars(maths_f64) | vars(maths_special)
    on_f32, on_f64 = versions[f"{name}_f32"], versions[f"{name}_f64"]

    def dispatch(*args: Scalar) -> Scalar:
        if any(isinstance(arg, f32) for arg in args):
            return on_f32(*map(f32, args))
        return on_f64(*map(np.float64, args))

    return dispatch


exp, exp2, expm1, half_exp = by_dtype("exp"), by_dtype("exp2"), by_dtype("expm1"), by_dtype("half_exp")
log, log2, log10, log1p = by_dtype("log"), by_dtype("log2"), by_dtype("log10"), by_dtype("log1p")
sin, cos, tan, tanh = by_dtype("sin"), by_dtype("cos"), by_dtype("tan"), by_dtype("tanh")
asin, acos, atan, atan2 = by_dtype("asin"), by_dtype("acos"), by_dtype("atan"), by_dtype("atan2")
pow, cbrt, sinh_poly = by_dtype("pow"), by_dtype("cbrt"), by_dtype("sinh_poly")  # noqa: A001 (the name in expressions)
erf, erfc, erfinv = by_dtype("erf"), by_dtype("erfc"), by_dtype("erfinv")
lgamma, digamma, fmod = by_dtype("lgamma"), by_dtype("digamma"), by_dtype("fmod")


def sign(x: Scalar) -> Scalar:
    return 1 if x > 0 else -1 if x < 0 else 0 if x == 0 else x


def square(x: Scalar) -> Scalar:
    return x * x


def sigmoid(x: Scalar) -> Scalar:
    e = exp(-fabs(x))
    return (1.0 if x >= 0.0 else e) / (e + 1.0)


def log_sigmoid(x: Scalar) -> Scalar:
    return (x if x < 0.0 else 0.0 * x) - log1p(exp(-fabs(x)))


def softplus(x: Scalar) -> Scalar:
    return (x if x > 0.0 else 0.0 * x) + log1p(exp(-fabs(x)))


def logaddexp(x: Scalar, y: Scalar) -> Scalar:
    difference = x - y
    larger = x if difference > 0.0 else y
    value = larger + log1p(exp(-fabs(difference)))
    return x + LN2 if x == y else value


def sinh(x: Scalar) -> Scalar:
    a = fabs(x)
    h = half_exp(a)
    return copysign(sinh_poly(a) if a < 1.0 else h - 0.25 / h, x)


def cosh(x: Scalar) -> Scalar:
    h = half_exp(fabs(x))
    return h + 0.25 / h


def asinh(x: Scalar) -> Scalar:
    a = fabs(x)
    large = a > 1152921504606846976.0
    t = a if large else a + a * a / (sqrt(a * a + 1.0) + 1.0)
    return copysign(log1p(t) + (LN2 if large else 0.0), x)


def acosh(x: Scalar) -> Scalar:
    large = x > 1152921504606846976.0
    t = x - 1.0
    value = log1p(t if large else t + sqrt(t * (t + 2.0))) + (LN2 if large else 0.0)
    return NAN if x < 1.0 else value


def atanh(x: Scalar) -> Scalar:
    a = fabs(x)
    t = a + a
    value = 0.5 * log1p(t / (1.0 - a))
    return copysign(value, x) if a > 1e-9 else x


def hypot(x: Scalar, y: Scalar) -> Scalar:
    a, b = fabs(x), fabs(y)
    top = maximum(a, b)
    t = minimum(a, b) / (1.0 if top == 0.0 else top)
    value = top * sqrt(t * t + 1.0)
    return INF if (a == INF) | (b == INF) else value


def mod(x: Scalar, y: Scalar) -> Scalar:
    """`np.mod`, Python's `%`: the sign of the divisor."""
    r = fmod(x, y)
    r = r + y if (r != 0.0) & ((r < 0.0) ^ (y < 0.0)) else r
    return copysign(r, y) if r == 0.0 else r


def floor_divide(x: Scalar, y: Scalar) -> Scalar:
    """`np.floor_divide`: consistent with `mod`, and x / y where y is 0."""
    r = fmod(x, y)
    r = 0.0 if (r != r) & (fabs(x) < INF) & (y == y) else r
    down = (r != 0.0) & ((r < 0.0) ^ (y < 0.0))
    q = (x - r) / y - (1.0 if down else 0.0)
    whole = floor(q)
    whole = whole + 1.0 if q - whole > 0.5 else whole
    whole = whole if q != 0.0 else copysign(0.0 * whole, x / y)
    return x / y if y == 0.0 else whole


def pow_int(x: Scalar, y: Scalar) -> Scalar:
    """Integer power with wrap-around; a negative exponent gives 0, but for bases 1 and -1."""
    result, base, left = x * 0 + 1, x, y
    for _ in range(bit_width(x)):
        result = result * base if (left & 1) != 0 else result
        base = base * base
        left = left >> 1
    return result if (y >= 0) | (x * x == 1) else x * 0
