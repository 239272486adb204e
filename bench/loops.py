"""The loops in tracegrad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tracegrad as tg
from bench.loops_cases import GRAVITY, ORBIT, RATE, SPAN, X0, A, B, Maker, Program, lstm_data, signal, stop
from tracegrad.nn import functional as F


def version() -> str:
    """Return the library's version."""
    return tg.__version__


def logistic(rounds: int) -> Callable[..., Any]:
    return lambda r, x: tg.fori_loop(0, rounds, lambda i, x: r * x * (1.0 - x), x)


def until(r: Any, x: Any, tolerance: Any) -> tuple[Any, Any]:
    """Return the last value and the number of rounds."""

    def body(state: Any) -> Any:
        x, _, n = state
        y = r * x * (1.0 - x)
        return y, np.abs(y - x), n + 1

    x, _, n = tg.while_loop(lambda state: state[1] > tolerance, body, (x, np.float64(1.0), 0))
    return x, n


def slope(k: Any, y: Any) -> Any:
    px, py, vx, vy = y
    r2 = px * px + py * py
    pull = -k / (r2 * np.sqrt(r2))
    return vx, vy, pull * px, pull * py


def ahead(y: Any, h: float, d: Any) -> Any:
    return tuple(a + h * b for a, b in zip(y, d, strict=True))


def rk4(steps: int) -> Callable[..., Any]:
    h = SPAN / steps

    def step(k: Any, y: Any) -> Any:
        k1 = slope(k, y)
        k2 = slope(k, ahead(y, 0.5 * h, k1))
        k3 = slope(k, ahead(y, 0.5 * h, k2))
        k4 = slope(k, ahead(y, h, k3))
        return tuple(a + h / 6.0 * (b + 2.0 * c + 2.0 * d + e) for a, b, c, d, e in zip(y, k1, k2, k3, k4, strict=True))

    return lambda k, *y: tg.fori_loop(0, steps, lambda i, y: step(k, y), y)


def filtered(a: Any, b: Any, x: Any) -> Any:
    """Written as for NumPy: the loop over a known range stays a loop."""
    y = x.copy()
    for i in range(2, len(x)):
        y[i] = a * y[i - 1] + b * y[i - 2] + x[i]
    return (y * y).mean()


def lstm(wx: Any, wh: Any, b: Any, x: Any) -> Any:
    batch, width = x.shape[1:]

    def cell(state: Any, x: Any) -> Any:
        h, c = state
        i, f, g, o = np.split(x @ wx + h @ wh + b, 4, axis=1)
        c = F.sigmoid(f) * c + F.sigmoid(i) * np.tanh(g)
        h = F.sigmoid(o) * np.tanh(c)
        return (h, c), h

    zero = np.zeros((batch, width), np.float32)
    hs = tg.scan(cell, (zero, zero), x)[1]
    return (hs * hs).mean()


def logistic_forward(rounds: int) -> Program:
    run = tg.jit(logistic(rounds))
    return lambda: (run(RATE, X0),)


def logistic_gradient(rounds: int) -> Program:
    run = tg.value_and_grad(logistic(rounds), argnums=(0, 1))
    return lambda: run(RATE, X0)


def while_forward(rounds: int) -> Program:
    run, tolerance = tg.jit(until), stop(rounds)
    return lambda: run(RATE, X0, tolerance)


def while_gradient(rounds: int) -> Program:
    run, tolerance = tg.value_and_grad(lambda *a: until(*a)[0], argnums=(0, 1)), stop(rounds)
    return lambda: run(RATE, X0, tolerance)


def rk4_forward(steps: int) -> Program:
    run = tg.jit(rk4(steps))
    return lambda: (run(GRAVITY, *ORBIT),)


def rk4_gradient(steps: int) -> Program:
    whole = rk4(steps)
    run = tg.value_and_grad(lambda k, *y: whole(k, *y)[0], argnums=(0, 1, 2, 3, 4))
    return lambda: run(GRAVITY, *ORBIT)


def filter_forward(length: int) -> Program:
    run, x = tg.jit(filtered), signal(length)
    return lambda: (run(A, B, x),)


def filter_gradient(length: int) -> Program:
    run, x = tg.value_and_grad(filtered, argnums=(0, 1, 2)), signal(length)
    return lambda: run(A, B, x)


def lstm_gradient(length: int) -> Program:
    x, *weights = lstm_data(length)
    run = tg.value_and_grad(lstm, argnums=(0, 1, 2))
    return lambda: run(*weights, x)


PROGRAMS: dict[str, Maker] = {
    "logistic-forward": logistic_forward,
    "logistic-gradient": logistic_gradient,
    "while-forward": while_forward,
    "while-gradient": while_gradient,
    "rk4-forward": rk4_forward,
    "rk4-gradient": rk4_gradient,
    "filter-forward": filter_forward,
    "filter-gradient": filter_gradient,
    "lstm-gradient": lstm_gradient,
}
