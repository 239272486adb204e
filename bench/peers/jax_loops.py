"""The loops in JAX: `fori_loop` and `scan` with known lengths, `while_loop` where the length depends on the data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bench.loops_cases import (
    GRAVITY,
    ORBIT,
    RATE,
    SPAN,
    X0,
    A,
    B,
    Maker,
    Program,
    Refused,
    lstm_data,
    signal,
    stop,
)

jax.config.update("jax_enable_x64", True)


def version() -> str:
    """Return the library's version."""
    return str(jax.__version__)


def program(fn: Callable[..., Any], *arguments: Any) -> Program:
    """Compile a function; the program waits until its results are there."""
    run = jax.jit(fn)
    placed = jax.tree.map(jnp.asarray, arguments)
    return lambda: tuple(jax.block_until_ready(run(*placed)))


def logistic(rounds: int) -> Callable[..., Any]:
    return lambda r, x: jax.lax.fori_loop(0, rounds, lambda i, x: r * x * (1.0 - x), x)


def until(r: Any, x: Any, tolerance: Any) -> Any:
    def body(state: Any) -> Any:
        x, _, n = state
        y = r * x * (1.0 - x)
        return y, jnp.abs(y - x), n + 1

    x, _, n = jax.lax.while_loop(lambda state: state[1] > tolerance, body, (x, jnp.ones_like(x), 0))
    return x, n


def slope(k: Any, y: Any) -> Any:
    px, py, vx, vy = y
    r2 = px * px + py * py
    pull = -k / (r2 * jnp.sqrt(r2))
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

    return lambda k, *y: jax.lax.fori_loop(0, steps, lambda i, y: step(k, y), y)


def filtered(a: Any, b: Any, x: Any) -> Any:
    """A scan whose carry are the last two values: JAX's arrays are not filled."""

    def step(last: Any, now: Any) -> Any:
        y = a * last[0] + b * last[1] + now
        return (y, last[0]), y

    ys = jax.lax.scan(step, (x[1], x[0]), x[2:])[1]
    return ((ys * ys).sum() + x[0] ** 2 + x[1] ** 2) / x.size


def lstm(wx: Any, wh: Any, b: Any, x: Any) -> Any:
    batch, width = x.shape[1:]

    def cell(state: Any, x: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(x @ wx + h @ wh + b, 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    zero = jnp.zeros((batch, width), jnp.float32)
    hs = jax.lax.scan(cell, (zero, zero), x)[1]
    return (hs * hs).mean()


def while_gradient(rounds: int) -> Program:
    run = program(jax.value_and_grad(lambda *a: until(*a)[0], argnums=(0, 1)), RATE, X0, stop(rounds))
    try:
        run()
    except ValueError as error:
        raise Refused(str(error).partition(". ")[0]) from None
    return run


def rk4_gradient(steps: int) -> Program:
    whole = rk4(steps)
    return program(jax.value_and_grad(lambda k, *y: whole(k, *y)[0], argnums=(0, 1, 2, 3, 4)), GRAVITY, *ORBIT)


def lstm_gradient(length: int) -> Program:
    x, *weights = lstm_data(length)
    return program(jax.value_and_grad(lstm, argnums=(0, 1, 2)), *weights, x)


PROGRAMS: dict[str, Maker] = {
    "logistic-forward": lambda n: program(lambda r, x: (logistic(n)(r, x),), RATE, X0),
    "logistic-gradient": lambda n: program(jax.value_and_grad(logistic(n), argnums=(0, 1)), RATE, X0),
    "while-forward": lambda n: program(until, RATE, X0, stop(n)),
    "while-gradient": while_gradient,
    "rk4-forward": lambda n: program(rk4(n), GRAVITY, *ORBIT),
    "rk4-gradient": rk4_gradient,
    "filter-forward": lambda n: program(lambda *at: (filtered(*at),), A, B, signal(n)),
    "filter-gradient": lambda n: program(jax.value_and_grad(filtered, argnums=(0, 1, 2)), A, B, signal(n)),
    "lstm-gradient": lstm_gradient,
}
