"""The loops in plain Numba, with adjoints written by hand: what an expert types without a compiler of gradients."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from bench.loops_cases import GRAVITY, ORBIT, RATE, SPAN, X0, A, B, Maker, Program, lstm_data, signal, stop


def version() -> str:
    """Return the library's version."""
    return str(numba.__version__)


@numba.njit
def logistic(n: int, r: float, x: float) -> float:
    for _ in range(n):
        x = r * x * (1.0 - x)
    return x


@numba.njit
def pulled(xs: Any, n: int, r: float) -> tuple[float, float]:
    """Return the derivatives of xs[n] by r and by xs[0]."""
    ct, by_r = 1.0, 0.0
    for i in range(n - 1, -1, -1):
        x = xs[i]
        by_r += ct * x * (1.0 - x)
        ct *= r * (1.0 - 2.0 * x)
    return by_r, ct


@numba.njit
def logistic_gradient(n: int, r: float, x: float) -> Any:
    xs = np.empty(n)
    for i in range(n):
        xs[i] = x
        x = r * x * (1.0 - x)
    return x, pulled(xs, n, r)


@numba.njit
def until(r: float, x: float, tolerance: float) -> tuple[float, int]:
    change, n = 1.0, 0
    while change > tolerance:
        y = r * x * (1.0 - x)
        change, x, n = abs(y - x), y, n + 1
    return x, n


@numba.njit
def until_gradient(r: float, x: float, tolerance: float) -> Any:
    xs = np.empty(64)
    change, n = 1.0, 0
    while change > tolerance:
        if n == xs.size:
            grown = np.empty(2 * n)
            grown[:n] = xs
            xs = grown
        xs[n] = x
        y = r * x * (1.0 - x)
        change, x, n = abs(y - x), y, n + 1
    return x, pulled(xs, n, r)


@numba.njit
def slope(k: float, px: float, py: float, vx: float, vy: float) -> Any:
    r2 = px * px + py * py
    pull = -k / (r2 * math.sqrt(r2))
    return vx, vy, pull * px, pull * py


@numba.njit
def slope_adjoint(k: float, y: Any, ct: Any) -> Any:
    """Return the cotangents of k and of the state; pull = -k r2^(-3/2), so d pull / d r2 = -3/2 pull / r2."""
    px, py, _, _ = y
    r2 = px * px + py * py
    unit = -1.0 / (r2 * math.sqrt(r2))
    pull = k * unit
    by_pull = ct[2] * px + ct[3] * py
    by_r2 = -1.5 * pull / r2 * by_pull
    return by_pull * unit, (pull * ct[2] + 2.0 * px * by_r2, pull * ct[3] + 2.0 * py * by_r2, ct[0], ct[1])


@numba.njit
def ahead(y: Any, h: float, d: Any) -> Any:
    return y[0] + h * d[0], y[1] + h * d[1], y[2] + h * d[2], y[3] + h * d[3]


@numba.njit
def stages(k: float, y: Any, h: float) -> Any:
    """Return the states at which a step takes slopes, and the slopes."""
    k1 = slope(k, y[0], y[1], y[2], y[3])
    y2 = ahead(y, 0.5 * h, k1)
    k2 = slope(k, y2[0], y2[1], y2[2], y2[3])
    y3 = ahead(y, 0.5 * h, k2)
    k3 = slope(k, y3[0], y3[1], y3[2], y3[3])
    y4 = ahead(y, h, k3)
    return (y, y2, y3, y4), (k1, k2, k3, slope(k, y4[0], y4[1], y4[2], y4[3]))


@numba.njit
def step(k: float, y: Any, h: float) -> Any:
    _, (k1, k2, k3, k4) = stages(k, y, h)
    y = ahead(ahead(y, h / 6.0, k1), h / 3.0, k2)
    return ahead(ahead(y, h / 3.0, k3), h / 6.0, k4)


@numba.njit
def rk4(n: int, k: float, a: float, b: float, c: float, d: float) -> Any:
    y, h = (a, b, c, d), SPAN / n
    for _ in range(n):
        y = step(k, y, h)
    return y


@numba.njit
def scaled(h: float, ct: Any) -> Any:
    return h * ct[0], h * ct[1], h * ct[2], h * ct[3]


@numba.njit
def step_adjoint(k: float, y: Any, h: float, ct: Any) -> Any:
    """Return the cotangents of k and of the state before a step."""
    (y1, y2, y3, y4), _ = stages(k, y, h)
    g4, c4 = slope_adjoint(k, y4, scaled(h / 6.0, ct))
    g3, c3 = slope_adjoint(k, y3, ahead(scaled(h / 3.0, ct), h, c4))
    g2, c2 = slope_adjoint(k, y2, ahead(scaled(h / 3.0, ct), 0.5 * h, c3))
    g1, c1 = slope_adjoint(k, y1, ahead(scaled(h / 6.0, ct), 0.5 * h, c2))
    ct = ahead(ahead(ahead(ahead(ct, 1.0, c1), 1.0, c2), 1.0, c3), 1.0, c4)
    return g1 + g2 + g3 + g4, ct


@numba.njit
def rk4_gradient(n: int, k: float, a: float, b: float, c: float, d: float) -> Any:
    y, h = (a, b, c, d), SPAN / n
    kept = np.empty((n, 4))
    for i in range(n):
        kept[i, 0], kept[i, 1], kept[i, 2], kept[i, 3] = y
        y = step(k, y, h)
    ct, by_k = (1.0, 0.0, 0.0, 0.0), 0.0
    for i in range(n - 1, -1, -1):
        before = (kept[i, 0], kept[i, 1], kept[i, 2], kept[i, 3])
        g, ct = step_adjoint(k, before, h, ct)
        by_k += g
    return y[0], (by_k, ct)


@numba.njit(fastmath={"contract"})
def filtered(a: float, b: float, x: Any) -> Any:
    y, total = x.copy(), x[0] ** 2 + x[1] ** 2
    for i in range(2, x.size):
        y[i] = a * y[i - 1] + b * y[i - 2] + x[i]
        total += y[i] * y[i]
    return total / x.size, y


@numba.njit(fastmath={"contract"})
def filter_gradient(a: float, b: float, x: Any) -> Any:
    loss, y = filtered(a, b, x)
    ct = 2.0 / x.size * y
    by_a = by_b = 0.0
    for i in range(x.size - 1, 1, -1):
        by_a += ct[i] * y[i - 1]
        by_b += ct[i] * y[i - 2]
        ct[i - 1] += a * ct[i]
        ct[i - 2] += b * ct[i]
    return loss, (by_a, by_b, ct)


def filter_program(fn: Any, length: int) -> Program:
    x = signal(length)
    return lambda: fn(A, B, x)


@numba.njit(fastmath={"contract"})
def lstm(wx: Any, wh: Any, b: Any, x: Any) -> Any:
    """Forward: all products with the inputs at once, then a product with the state and the gates a round."""
    n, batch, width = x.shape
    z = np.dot(x.reshape(n * batch, width), wx).reshape(n, batch, 4 * width)
    hs, cs = np.zeros((n + 1, batch, width), x.dtype), np.zeros((n + 1, batch, width), x.dtype)
    one, total = np.float32(1), 0.0
    for t in range(n):
        product = np.dot(hs[t], wh)
        for s in range(batch):
            for j in range(width):
                i = one / (one + math.exp(-(z[t, s, j] + product[s, j] + b[j])))
                f = one / (one + math.exp(-(z[t, s, j + width] + product[s, j + width] + b[j + width])))
                g = math.tanh(z[t, s, j + 2 * width] + product[s, j + 2 * width] + b[j + 2 * width])
                o = one / (one + math.exp(-(z[t, s, j + 3 * width] + product[s, j + 3 * width] + b[j + 3 * width])))
                cs[t + 1, s, j] = f * cs[t, s, j] + i * g
                hs[t + 1, s, j] = o * math.tanh(cs[t + 1, s, j])
                total += hs[t + 1, s, j] ** 2
                z[t, s, j], z[t, s, j + width], z[t, s, j + 2 * width], z[t, s, j + 3 * width] = i, f, g, o
    return total / (n * batch * width), z, hs, cs


@numba.njit(fastmath={"contract"})
def lstm_gradient(wx: Any, wh: Any, b: Any, x: Any) -> Any:
    """Backward: the gates' cotangents replace the gates; the weights' gradients are one product each, at the end."""
    n, batch, width = x.shape
    loss, z, hs, cs = lstm(wx, wh, b, x)
    dh, dc = np.zeros((batch, width), x.dtype), np.zeros((batch, width), x.dtype)
    back = np.ascontiguousarray(wh.T)
    one, scale = np.float32(1), np.float32(2.0 / (n * batch * width))
    for t in range(n - 1, -1, -1):
        for s in range(batch):
            for j in range(width):
                i, f, g, o = z[t, s, j], z[t, s, j + width], z[t, s, j + 2 * width], z[t, s, j + 3 * width]
                th = math.tanh(cs[t + 1, s, j])
                ct = dh[s, j] + scale * hs[t + 1, s, j]
                cc = dc[s, j] + ct * o * (one - th * th)
                dc[s, j] = cc * f
                z[t, s, j] = cc * g * i * (one - i)
                z[t, s, j + width] = cc * cs[t, s, j] * f * (one - f)
                z[t, s, j + 2 * width] = cc * i * (one - g * g)
                z[t, s, j + 3 * width] = ct * th * o * (one - o)
        dh = np.dot(z[t], back)
    flat = z.reshape(n * batch, 4 * width)
    by_wx = np.dot(x.reshape(n * batch, width).T, flat)
    by_wh = np.dot(hs[:n].reshape(n * batch, width).T, flat)
    return loss, (by_wx, by_wh, flat.sum(0))


def lstm_program(length: int) -> Program:
    x, *weights = lstm_data(length)
    return lambda: lstm_gradient(*weights, x)


PROGRAMS: dict[str, Maker] = {
    "logistic-forward": lambda n: lambda: (logistic(n, RATE, X0),),
    "logistic-gradient": lambda n: lambda: logistic_gradient(n, RATE, X0),
    "while-forward": lambda n: lambda: until(RATE, X0, stop(n)),
    "while-gradient": lambda n: lambda: until_gradient(RATE, X0, stop(n)),
    "rk4-forward": lambda n: lambda: rk4(n, GRAVITY, *ORBIT),
    "rk4-gradient": lambda n: lambda: rk4_gradient(n, GRAVITY, *ORBIT),
    "filter-forward": lambda n: filter_program(lambda *at: filtered(*at)[:1], n),
    "filter-gradient": lambda n: filter_program(filter_gradient, n),
    "lstm-gradient": lstm_program,
}
