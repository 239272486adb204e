"""The programs in JAX: as they stand, with `jax.numpy` for NumPy, or with loops and changes in place written its way.

Loops of up to 31 rounds are left to tracing, which unrolls them; longer ones are `scan` and `fori_loop`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from bench.loops_cases import Maker, Program, Refused, Values
from bench.peers.jax_loops import version
from bench.programs_cases import CASES, arguments, as_tuple, rewritten


def heat(u: Any, steps: int = 100) -> Any:
    def step(_: Any, u: Any) -> Any:
        change = u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4.0 * u[1:-1, 1:-1]
        return u.at[1:-1, 1:-1].add(0.2 * change)

    return lax.fori_loop(0, steps, step, u)


def mandelbrot(x: Any, y: Any, rounds: int = 50) -> Any:
    cx, cy = jnp.broadcast_arrays(x[None, :], y[:, None])

    def step(_: Any, state: Any) -> Any:
        zx, zy, count = state
        inside = zx * zx + zy * zy <= 4.0
        zx, zy = jnp.where(inside, zx * zx - zy * zy + cx, zx), jnp.where(inside, 2.0 * zx * zy + cy, zy)
        return zx, zy, count + inside

    zero = jnp.zeros(cx.shape)
    return lax.fori_loop(0, rounds, step, (zero, zero, jnp.zeros(cx.shape, dtype=jnp.int64)))[2]


def laplacian(u: Any) -> Any:
    return jnp.roll(u, 1, 0) + jnp.roll(u, -1, 0) + jnp.roll(u, 1, 1) + jnp.roll(u, -1, 1) - 4.0 * u


def gray_scott(u: Any, v: Any, feed: float, kill: float, steps: int = 50) -> Any:
    def step(_: Any, state: Any) -> Any:
        u, v = state
        reaction = u * v * v
        du = 0.16 * laplacian(u) - reaction + feed * (1.0 - u)
        return u + du, v + 0.08 * laplacian(v) + reaction - (feed + kill) * v

    return lax.fori_loop(0, steps, step, (u, v))


def life(board: Any, steps: int = 50) -> Any:
    def step(_: Any, board: Any) -> Any:
        near = (
            board[:-2, :-2] + board[:-2, 1:-1] + board[:-2, 2:] + board[1:-1, :-2]
            + board[1:-1, 2:] + board[2:, :-2] + board[2:, 1:-1] + board[2:, 2:]
        )  # fmt: skip
        born = (near == 3) & (board[1:-1, 1:-1] == 0)
        stays = ((near == 2) | (near == 3)) & (board[1:-1, 1:-1] == 1)
        return jnp.zeros_like(board).at[1:-1, 1:-1].set((born | stays).astype(board.dtype))

    return lax.fori_loop(0, steps, step, board)


def kalman(observed: Any, transition: Any, seen: Any, process: Any, noise: Any) -> Any:
    def step(carry: Any, y: Any) -> Any:
        state, covariance, total = carry
        state = transition @ state
        covariance = transition @ covariance @ transition.T + process
        error = y - seen @ state
        spread = seen @ covariance @ seen.T + noise
        gain = covariance @ seen.T @ jnp.linalg.inv(spread)
        fit = error @ jnp.linalg.solve(spread, error) + jnp.log(jnp.linalg.det(2.0 * jnp.pi * spread))
        return (state + gain @ error, covariance - gain @ seen @ covariance, total - 0.5 * fit), None

    n = transition.shape[0]
    return lax.scan(step, (jnp.zeros(n), jnp.eye(n), 0.0), observed)[0][2]


def hidden_markov(start: Any, transition: Any, emission: Any, observed: Any) -> Any:
    def step(log_p: Any, symbol: Any) -> Any:
        paths = log_p[:, None] + transition
        top = paths.max(axis=0)
        return top + jnp.log(jnp.exp(paths - top).sum(axis=0)) + emission[:, symbol], None

    log_p = lax.scan(step, start + emission[:, observed[0]], observed[1:])[0]
    top = log_p.max()
    return top + jnp.log(jnp.exp(log_p - top).sum())


def viterbi(start: Any, transition: Any, emission: Any, observed: Any) -> Any:
    def step(best: Any, symbol: Any) -> Any:
        paths = best[:, None] + transition
        return paths.max(axis=0) + emission[:, symbol], paths.argmax(axis=0)

    def before(state: Any, back: Any) -> Any:
        return back[state], back[state]

    best, back = lax.scan(step, start + emission[:, observed[0]], observed[1:])
    last = best.argmax()
    states = lax.scan(before, last, back, reverse=True)[1]
    return jnp.concatenate((states, last[None]))


def lstm(wx: Any, wh: Any, bias: Any, x: Any) -> Any:
    width = wh.shape[0]

    def cell(state: Any, x: Any) -> Any:
        h, c = state
        gates = x @ wx + h @ wh + bias
        i, f = jax.nn.sigmoid(gates[:, :width]), jax.nn.sigmoid(gates[:, width : 2 * width])
        g, o = jnp.tanh(gates[:, 2 * width : 3 * width]), jax.nn.sigmoid(gates[:, 3 * width :])
        c = f * c + i * g
        return (o * jnp.tanh(c), c), None

    zero = jnp.zeros((x.shape[1], width), dtype=x.dtype)
    return jnp.mean(lax.scan(cell, (zero, zero), x)[0][0] ** 2)


def markov_chain(transition: Any, power: int = 64) -> Any:
    after = jnp.linalg.matrix_power(transition, power)
    p = jnp.full(len(transition), 1.0 / len(transition))
    p = lax.fori_loop(0, 200, lambda _, p: p @ transition, p)
    return after, jnp.abs(after - p).max()


def lotka_volterra(rates: Any, start: Any, steps: int = 2000) -> Any:
    dt = 0.005

    def slope(y: Any) -> Any:
        return jnp.array([y[0] * (rates[0] - rates[1] * y[1]), y[1] * (rates[2] * y[0] - rates[3])])

    def step(y: Any, _: Any) -> Any:
        k1 = slope(y)
        k2 = slope(y + 0.5 * dt * k1)
        k3 = slope(y + 0.5 * dt * k2)
        k4 = slope(y + dt * k3)
        y = y + dt / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        return y, y

    return jnp.concatenate((start[None], lax.scan(step, start, None, length=steps)[1]))


def time_warping(a: Any, b: Any) -> Any:
    def row(above: Any, at: Any) -> Any:
        def element(left: Any, what: Any) -> Any:
            b, up, diagonal = what
            cost = jnp.abs(at - b) + jnp.minimum(jnp.minimum(up, left), diagonal)
            return cost, cost

        costs = lax.scan(element, jnp.inf, (b, above[1:], above[:-1]))[1]
        return jnp.concatenate((jnp.full(1, jnp.inf), costs)), None

    first = jnp.full(len(b) + 1, jnp.inf).at[0].set(0.0)
    return lax.scan(row, first, a)[0][-1]


def cholesky(a: Any) -> Any:
    n = len(a)

    def element(i: Any, j: Any, lower: Any) -> Any:
        s = a[i, j] - jnp.sum(jnp.where(jnp.arange(n) < j, lower[i] * lower[j], 0.0))
        return lower.at[i, j].set(jnp.where(i == j, jnp.sqrt(s), s / lower[j, j]))

    def row(i: Any, lower: Any) -> Any:
        return lax.fori_loop(0, i + 1, lambda j, lower: element(i, j, lower), lower)

    return lax.fori_loop(0, n, row, jnp.zeros((n, n)))


def shortest_paths(distance: Any) -> Any:
    def over(k: Any, distance: Any) -> Any:
        return jnp.minimum(distance, distance[:, k, None] + distance[None, k, :])

    return lax.fori_loop(0, len(distance), over, distance)


def power_iteration(matrix: Any) -> Any:
    def body(state: Any) -> Any:
        v, value, _ = state
        w = matrix @ v
        new = v @ w
        return w / jnp.sqrt(jnp.sum(w * w)), new, jnp.abs(new - value)

    v = jnp.ones(len(matrix)) / jnp.sqrt(len(matrix))
    return lax.while_loop(lambda state: state[2] > 1e-10, body, (v, 0.0, 1.0))[1]


WRITTEN = (
    heat, mandelbrot, gray_scott, life, kalman, hidden_markov, viterbi, lstm, markov_chain, lotka_volterra,
    time_warping, cholesky, shortest_paths, power_iteration,
)  # fmt: skip


def program(case: str, size: int) -> Program:
    """Return a case as a program to run, which waits until its results are there."""
    written, data = CASES[case], arguments(case, size)
    fn = rewritten(written.fn, {"np": jnp} | {fn.__name__: fn for fn in WRITTEN})
    run = jax.jit(jax.value_and_grad(fn, argnums=written.wrt) if written.wrt else fn)
    placed = jax.tree.map(jnp.asarray, data)

    def wait() -> Values:
        try:
            return as_tuple(jax.block_until_ready(run(*placed)))
        except (TypeError, ValueError, jax.errors.JAXTypeError) as error:
            raise Refused(str(error).partition("\n")[0]) from None

    return wait


PROGRAMS: dict[str, Maker] = {case: partial(program, case) for case in CASES}
__all__ = ["PROGRAMS", "version"]
