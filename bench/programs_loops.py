"""Programs with loops of Python's, as they are written for NumPy: every library gets this text."""

from __future__ import annotations

from typing import Any

import numpy as np


def heat(u: Any, steps: int = 100) -> Any:
    """Explicit steps of the heat equation on a plate whose border keeps its temperature."""
    u = u.copy()
    for _ in range(steps):
        u[1:-1, 1:-1] += 0.2 * (u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4.0 * u[1:-1, 1:-1])
    return u


def heat_left(u: Any) -> Any:
    return np.mean(heat(u) ** 2)


def bodies(position: Any, velocity: Any, mass: Any, steps: int = 10) -> Any:
    """Leapfrog steps of bodies under gravity, with softening."""
    dt, softening = 0.01, 0.1
    for _ in range(steps):
        apart = position[None, :, :] - position[:, None, :]
        square = (apart**2).sum(axis=-1) + softening**2
        pull = (mass[None, :, None] * apart / square[:, :, None] ** 1.5).sum(axis=1)
        velocity = velocity + dt * pull
        position = position + dt * velocity
    return position, velocity


def mandelbrot(x: Any, y: Any, rounds: int = 50) -> Any:
    """Rounds until z = z^2 + c leaves the disk of radius 2."""
    cx, cy = np.broadcast_arrays(x[None, :], y[:, None])
    zx, zy = np.zeros(cx.shape), np.zeros(cx.shape)
    count = np.zeros(cx.shape, dtype=np.int64)
    for _ in range(rounds):
        inside = zx * zx + zy * zy <= 4.0
        count += inside
        zx, zy = (
            np.where(inside, zx * zx - zy * zy + cx, zx),
            np.where(inside, 2.0 * zx * zy + cy, zy),
        )
    return count


def laplacian(u: Any) -> Any:
    return np.roll(u, 1, 0) + np.roll(u, -1, 0) + np.roll(u, 1, 1) + np.roll(u, -1, 1) - 4.0 * u


def gray_scott(u: Any, v: Any, feed: float, kill: float, steps: int = 50) -> Any:
    """Two chemicals that react and diffuse on a torus."""
    for _ in range(steps):
        reaction = u * v * v
        du = 0.16 * laplacian(u) - reaction + feed * (1.0 - u)
        dv = 0.08 * laplacian(v) + reaction - (feed + kill) * v
        u, v = u + du, v + dv
    return u, v


def life(board: Any, steps: int = 50) -> Any:
    """Conway's game of life inside a dead border."""
    board = board.copy()
    for _ in range(steps):
        near = (
            board[:-2, :-2] + board[:-2, 1:-1] + board[:-2, 2:] + board[1:-1, :-2]
            + board[1:-1, 2:] + board[2:, :-2] + board[2:, 1:-1] + board[2:, 2:]
        )  # fmt: skip
        born = (near == 3) & (board[1:-1, 1:-1] == 0)
        stays = ((near == 2) | (near == 3)) & (board[1:-1, 1:-1] == 1)
        board[...] = 0
        board[1:-1, 1:-1][born | stays] = 1
    return board


def kalman(observed: Any, transition: Any, seen: Any, process: Any, noise: Any) -> Any:
    """Log likelihood of a series of observations under a linear Gaussian model."""
    n = transition.shape[0]
    state, covariance = np.zeros(n), np.eye(n)
    total = 0.0
    for t in range(len(observed)):
        state = transition @ state
        covariance = transition @ covariance @ transition.T + process
        error = observed[t] - seen @ state
        spread = seen @ covariance @ seen.T + noise
        gain = covariance @ seen.T @ np.linalg.inv(spread)
        total -= 0.5 * (error @ np.linalg.solve(spread, error) + np.log(np.linalg.det(2.0 * np.pi * spread)))
        state = state + gain @ error
        covariance = covariance - gain @ seen @ covariance
    return total


def hidden_markov(start: Any, transition: Any, emission: Any, observed: Any) -> Any:
    """Log probability of a series of symbols: the forward algorithm, in logarithms."""
    log_p = start + emission[:, observed[0]]
    for t in range(1, len(observed)):
        paths = log_p[:, None] + transition
        top = paths.max(axis=0)
        log_p = top + np.log(np.exp(paths - top).sum(axis=0)) + emission[:, observed[t]]
    top = log_p.max()
    return top + np.log(np.exp(log_p - top).sum())


def viterbi(start: Any, transition: Any, emission: Any, observed: Any) -> Any:
    """The most likely states behind a series of symbols."""
    n = len(observed)
    best = np.zeros((n, len(start)))
    back = np.zeros((n, len(start)), dtype=np.int64)
    best[0] = start + emission[:, observed[0]]
    for t in range(1, n):
        paths = best[t - 1][:, None] + transition
        back[t] = paths.argmax(axis=0)
        best[t] = paths.max(axis=0) + emission[:, observed[t]]
    states = np.zeros(n, dtype=np.int64)
    states[n - 1] = best[n - 1].argmax()
    for t in range(n - 2, -1, -1):
        states[t] = back[t + 1, states[t + 1]]
    return states


def sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


def lstm(wx: Any, wh: Any, bias: Any, x: Any) -> Any:
    """Mean square of the last state of an LSTM, run over the first axis of x."""
    width = wh.shape[0]
    h = np.zeros((x.shape[1], width), dtype=x.dtype)
    c = np.zeros((x.shape[1], width), dtype=x.dtype)
    for t in range(x.shape[0]):
        gates = x[t] @ wx + h @ wh + bias
        i, f = sigmoid(gates[:, :width]), sigmoid(gates[:, width : 2 * width])
        g, o = np.tanh(gates[:, 2 * width : 3 * width]), sigmoid(gates[:, 3 * width :])
        c = f * c + i * g
        h = o * np.tanh(c)
    return np.mean(h * h)


def markov_chain(transition: Any, power: int = 64) -> Any:
    """Where a chain is after many steps, and how far that is from its stationary distribution."""
    after = np.linalg.matrix_power(transition, power)
    p = np.full(len(transition), 1.0 / len(transition))
    for _ in range(200):
        p = p @ transition
    return after, np.abs(after - p).max()


def lotka_volterra(rates: Any, start: Any, steps: int = 2000) -> Any:
    """Prey and predators over time, by Runge-Kutta steps."""
    dt = 0.005

    def slope(y: Any) -> Any:
        return np.array([y[0] * (rates[0] - rates[1] * y[1]), y[1] * (rates[2] * y[0] - rates[3])])

    path = np.zeros((steps + 1, 2))
    path[0] = start
    for i in range(steps):
        y = path[i]
        k1 = slope(y)
        k2 = slope(y + 0.5 * dt * k1)
        k3 = slope(y + 0.5 * dt * k2)
        k4 = slope(y + dt * k3)
        path[i + 1] = y + dt / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
    return path


def population(rates: Any, start: Any) -> Any:
    return np.mean(lotka_volterra(rates, start) ** 2)


def time_warping(a: Any, b: Any) -> Any:
    """The cost of the best alignment of two series."""
    cost = np.full((len(a) + 1, len(b) + 1), np.inf)
    cost[0, 0] = 0.0
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            step = min(cost[i - 1, j], cost[i, j - 1], cost[i - 1, j - 1])
            cost[i, j] = abs(a[i - 1] - b[j - 1]) + step
    return cost[len(a), len(b)]


def cholesky(a: Any) -> Any:
    """The lower factor of a positive definite matrix, element by element."""
    n = len(a)
    lower = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1):
            s = a[i, j] - np.sum(lower[i, :j] * lower[j, :j])
            if i == j:
                lower[i, j] = np.sqrt(s)
            else:
                lower[i, j] = s / lower[j, j]
    return lower


def shortest_paths(distance: Any) -> Any:
    """Floyd and Warshall's algorithm: distances between all pairs of nodes."""
    distance = distance.copy()
    for k in range(len(distance)):
        distance = np.minimum(distance, distance[:, k, None] + distance[None, k, :])
    return distance


def power_iteration(matrix: Any) -> Any:
    """The largest eigenvalue of a symmetric matrix, to a tolerance."""
    v = np.ones(len(matrix)) / np.sqrt(len(matrix))
    value, change = 0.0, 1.0
    while change > 1e-10:
        w = matrix @ v
        new = v @ w
        change = abs(new - value)
        value = new
        v = w / np.sqrt(np.sum(w * w))
    return value
