"""Special functions of single elements: the inverse error function, log |gamma| and its derivative.

In compiled code they are polynomials (`codegen.maths_special`). Formulas: M. Abramowitz and I. Stegun, "Handbook of
Mathematical Functions", chapters 6 and 7.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tracegrad.ops.elementwise import erf, erfc, exp, reciprocal, sin, square, unary, where

SHIFTS = 10
"""How far the argument is moved up by the recurrence: the asymptotic series is exact enough from there on."""
BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)
HALF_ROOT_PI = 0.886226925452758


def log_gamma(x: float) -> float:
    """log |gamma(x)|, inf at the poles."""
    try:
        return math.lgamma(x)
    except ValueError:
        return math.inf


def log_gamma_array(x: Any) -> Any:
    return np.asarray(np.frompyfunc(log_gamma, 1, 1)(np.asarray(x, np.float64)), np.float64)


def digamma_array(x: Any) -> Any:
    """Recurrence and asymptotic series; by reflection below 0, where it is NaN at the poles."""
    x = np.asarray(x, np.float64)
    with np.errstate(all="ignore"):
        y = np.where(x < 0.0, 1.0 - x, x)
        total = -sum(1.0 / (y + k) for k in range(SHIFTS))
        far = y + SHIFTS
        inverse = 1.0 / (far * far)
        series = np.polyval([b / (2 * n) for n, b in reversed(list(enumerate(BERNOULLI, 1)))], inverse) * inverse
        found = np.where(np.isinf(y), y, np.log(far) - 0.5 / far - series + total)
        fraction = x - np.rint(x)
        reflected = np.where((fraction == 0.0) | np.isinf(x), np.nan, found - np.pi / np.tan(np.pi * fraction))
        return np.where(x == 0.0, np.copysign(np.inf, -x), np.where(x < 0.0, reflected, found))


def trigamma(x: Any) -> Any:
    """The derivative of digamma, of primitives: it can be differentiated like any other."""
    y = where(x < 0.0, 1.0 - x, x)
    total = sum((reciprocal(square(y + float(k))) for k in range(1, SHIFTS)), reciprocal(square(y)))
    v = reciprocal(y + float(SHIFTS))
    series: Any = v * 0.0
    for b in reversed(BERNOULLI):
        series = (series + b) * (v * v)
    found = total + v + 0.5 * (v * v) + series * v
    below = x < 0.0
    sine = where(below, sin(x * math.pi), 1.0)
    return where(below, math.pi**2 / (sine * sine) - found, found)


def erfinv_array(x: Any) -> Any:
    """Halley's method, from Winitzki's approximation."""
    x = np.asarray(x, np.float64)
    with np.errstate(all="ignore"):
        size = np.abs(x)
        log = np.log1p(-size * size)
        middle = 2.0 / (np.pi * 0.147) + 0.5 * log
        y = np.sqrt(np.sqrt(middle * middle - log / 0.147) - middle)
        for _ in range(3):
            off = np.where(size < 0.5, erf.eager(y) - size, (1.0 - size) - erfc.eager(y))
            step = off * HALF_ROOT_PI * np.exp(y * y)
            y = y - step / (1.0 + y * step)
        return np.copysign(np.where(size == 1.0, np.inf, np.where(size == 0.0, 0.0, y)), x)


erfinv = unary(
    "erfinv", erfinv_array, "math.erfinv({0})", lambda ct, y, x: ct * (HALF_ROOT_PI * exp(y * y)),
    domain=(-0.9, 0.9), cost=40, costly=64,
)  # fmt: skip
digamma = unary(
    "digamma", digamma_array, "math.digamma({0})", lambda ct, y, x: ct * trigamma(x), domain=(0.4, 4.0), cost=60,
    costly=64,
)  # fmt: skip
lgamma = unary(
    "lgamma", log_gamma_array, "math.lgamma({0})", lambda ct, y, x: ct * digamma(x), domain=(0.4, 4.0), cost=60,
    costly=64,
)  # fmt: skip
