"""Plain NumPy programs as scientists write them, with their data: the same text for every library.

A `gradient` comes with the value, by the arguments named in `wrt`; where the program gives arrays, it is that of a sum
or a mean of these. The size is that of the longest axis.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import numpy as np

from bench import programs_arrays as arrays
from bench import programs_loops as loops
from bench.loops_cases import Case, Values

Function = Callable[..., Any]
Data = Callable[[Any, int], Values]


@dataclass(frozen=True)
class Written(Case):
    """A program as a case: its function, what makes its data, and by which arguments it is differentiated."""

    fn: Function
    data: Data
    wrt: tuple[int, ...] = ()


def arguments(case: str, size: int) -> Values:
    """Return the data of a case, the same in every process."""
    return CASES[case].data(np.random.default_rng(0), size)


def as_tuple(found: Any) -> Values:
    return found if isinstance(found, tuple) else (found,)


def rewritten(fn: Function, names: Mapping[str, Any], wrap: Function = lambda fn: fn) -> Function:
    """Return a program in which names of its module mean something else, and all functions there are wrapped."""
    assert isinstance(fn, FunctionType)
    known = fn.__globals__ | dict(names)
    for name, value in fn.__globals__.items():
        if isinstance(value, FunctionType) and value.__module__ == fn.__module__ and name not in names:
            known[name] = wrap(FunctionType(value.__code__, known, name, value.__defaults__))
    found: Function = known[fn.__name__]
    return found


def options(rng: Any, n: int) -> Values:
    return rng.uniform(50.0, 150.0, n), rng.uniform(50.0, 150.0, n), rng.uniform(0.1, 3.0, n), 0.03, 0.25


def plane(rng: Any, n: int) -> Values:
    return rng.normal(size=(n // 2, 2)), rng.normal(size=(n, 2)), 0.3


def clusters(rng: Any, n: int) -> Values:
    centers = 3.0 * rng.normal(size=(16, 8))
    return centers[rng.integers(0, 16, n)] + rng.normal(size=(n, 8)), centers + 0.5 * rng.normal(size=(16, 8))


def labelled(rng: Any, n: int) -> Values:
    return 0.1 * rng.normal(size=50), 0.2, rng.normal(size=(n, 50)), rng.integers(0, 2, n).astype(np.float64), 1e-3


def scores(rng: Any, n: int) -> Values:
    return (3.0 * rng.normal(size=(n // 2, n))).astype(np.float32), rng.integers(0, n, n // 2)


def curve(rng: Any, n: int) -> Values:
    x = np.sort(rng.uniform(0.0, 10.0, n))
    return x, np.sin(x) + 0.1 * rng.normal(size=n), 1.0, 0.01


def cloud(rng: Any, n: int) -> Values:
    return (rng.normal(size=(n, 16)) * np.arange(1, 17) @ rng.normal(size=(16, 16)),)


def series(rng: Any, n: int) -> Values:
    return (rng.uniform(size=n),)


def table(rng: Any, n: int) -> Values:
    knots = np.linspace(0.0, 10.0, 500)
    return rng.uniform(0.0, 10.0, n), knots, np.sin(knots)


def vectors(rng: Any, n: int) -> Values:
    return rng.normal(size=(n, 32, 24)), rng.normal(size=(24, 24)), rng.normal(size=(n, 32, 24))


def impulse(rng: Any, n: int) -> Values:
    return rng.normal(size=n), np.hanning(31) / 15.0


def picture(rng: Any, n: int) -> Values:
    return (rng.uniform(size=(n, n)),)


def masses(rng: Any, n: int) -> Values:
    return rng.normal(size=(n, 3)), 0.1 * rng.normal(size=(n, 3)), rng.uniform(0.5, 1.5, n) / n


def window(_: Any, n: int) -> Values:
    return np.linspace(-2.0, 0.6, n), np.linspace(-1.2, 1.2, n)


def chemicals(rng: Any, n: int) -> Values:
    u, v = np.ones((n, n)), np.zeros((n, n))
    middle = slice(n // 2 - n // 8, n // 2 + n // 8)
    u[middle, middle], v[middle, middle] = 0.5, 0.25
    return u + 0.01 * rng.normal(size=(n, n)), v, 0.037, 0.06


def board(rng: Any, n: int) -> Values:
    cells = np.zeros((n, n), np.int64)
    cells[1:-1, 1:-1] = rng.integers(0, 2, (n - 2, n - 2))
    return (cells,)


def tracking(rng: Any, n: int) -> Values:
    transition = np.eye(4) + 0.1 * np.eye(4, k=2)
    return np.cumsum(rng.normal(size=(n, 2)), axis=0), transition, np.eye(4)[:2], 0.01 * np.eye(4), 0.25 * np.eye(2)


def symbols(rng: Any, n: int) -> Values:
    def log_shares(*shape: int) -> Any:
        return np.log(rng.dirichlet(np.ones(shape[-1]), shape[:-1]))

    return log_shares(16), log_shares(16, 16), log_shares(16, 10), rng.integers(0, 10, n)


def sequence(rng: Any, n: int) -> Values:
    def normal(*shape: int) -> Any:
        return (rng.normal(size=shape) / 8.0).astype(np.float32)

    return normal(32, 256), normal(64, 256), normal(256), 8.0 * normal(n, 32, 32)


def chain(rng: Any, n: int) -> Values:
    return (rng.dirichlet(np.ones(n), n),)


def rates(_: Any, n: int) -> Values:
    return np.array([1.1, 0.4, 0.1, 0.4]), np.array([10.0, 5.0])


def two_series(rng: Any, n: int) -> Values:
    return np.cumsum(rng.normal(size=n)), np.cumsum(rng.normal(size=n))


def definite(rng: Any, n: int) -> Values:
    a = rng.normal(size=(n, n))
    return (a @ a.T / n + np.eye(n),)


def roads(rng: Any, n: int) -> Values:
    distance = np.where(rng.uniform(size=(n, n)) < 0.1, rng.uniform(size=(n, n)), np.inf)
    distance[np.arange(n), np.arange(n) - 1] = 1.0  # a ring: every node can be reached, so that no sum is inf - inf
    np.fill_diagonal(distance, 0.0)
    return (distance,)


CASES = {
    "option-prices": Written(500_000, 1000, 1e-9, arrays.black_scholes, options),
    "option-prices-gradient": Written(500_000, 1000, 1e-9, arrays.value_of_book, options, (0, 4)),
    "kernel-density": Written(2000, 50, 1e-9, arrays.kernel_density, plane),
    "kernel-density-gradient": Written(2000, 50, 1e-8, arrays.mean_density, plane, (0, 2)),
    "kmeans": Written(20_000, 100, 1e-9, arrays.kmeans_step, clusters),
    "logistic-regression": Written(20_000, 100, 1e-9, arrays.logistic_loss, labelled),
    "logistic-regression-gradient": Written(20_000, 100, 1e-9, arrays.logistic_loss, labelled, (0, 1)),
    "cross-entropy": Written(1000, 20, 1e-4, arrays.cross_entropy, scores),
    "cross-entropy-gradient": Written(1000, 20, 1e-3, arrays.cross_entropy, scores, (0,)),
    "gaussian-process": Written(200, 20, 1e-7, arrays.gaussian_process, curve),
    "gaussian-process-gradient": Written(200, 20, 1e-5, arrays.gaussian_process, curve, (2, 3)),
    "principal-components": Written(50_000, 100, 1e-8, arrays.principal_components, cloud),
    "moving-average": Written(1_000_000, 100, 1e-9, arrays.moving_average, series),
    "histogram": Written(100_000, 100, 1e-9, arrays.histogram, series),
    "interpolation": Written(200_000, 100, 1e-9, arrays.interpolate, table),
    "interpolation-gradient": Written(200_000, 100, 1e-9, arrays.misfit, table, (2,)),
    "bilinear-form": Written(500, 4, 1e-9, arrays.bilinear_form, vectors),
    "fir-filter": Written(500_000, 100, 1e-9, arrays.fir_filter, impulse),
    "fir-filter-gradient": Written(500_000, 100, 1e-9, arrays.filter_power, impulse, (0, 1)),
    "sobel": Written(1000, 20, 1e-9, arrays.sobel, picture),
    "heat": Written(256, 16, 1e-9, loops.heat, picture),
    "heat-gradient": Written(256, 16, 1e-9, loops.heat_left, picture, (0,)),
    "bodies": Written(256, 16, 1e-9, loops.bodies, masses),
    "mandelbrot": Written(400, 20, 1e-3, loops.mandelbrot, window),
    "gray-scott": Written(256, 16, 1e-9, loops.gray_scott, chemicals),
    "life": Written(256, 16, 1e-9, loops.life, board),
    "kalman": Written(500, 4, 1e-8, loops.kalman, tracking),
    "kalman-gradient": Written(500, 4, 1e-6, loops.kalman, tracking, (1, 3, 4)),
    "hidden-markov": Written(1000, 20, 1e-9, loops.hidden_markov, symbols),
    "hidden-markov-gradient": Written(1000, 20, 1e-8, loops.hidden_markov, symbols, (0, 1, 2)),
    "viterbi": Written(1000, 20, 1e-9, loops.viterbi, symbols),
    "lstm": Written(50, 5, 1e-3, loops.lstm, sequence),
    "lstm-gradient": Written(50, 5, 2e-3, loops.lstm, sequence, (0, 1, 2)),
    "markov-chain": Written(100, 10, 1e-7, loops.markov_chain, chain),
    "lotka-volterra": Written(2000, 2000, 1e-8, loops.lotka_volterra, rates),
    "lotka-volterra-gradient": Written(2000, 2000, 1e-6, loops.population, rates, (0, 1)),
    "time-warping": Written(300, 12, 1e-9, loops.time_warping, two_series),
    "time-warping-gradient": Written(300, 12, 1e-9, loops.time_warping, two_series, (0, 1)),
    "cholesky": Written(128, 8, 1e-9, loops.cholesky, definite),
    "shortest-paths": Written(200, 20, 1e-9, loops.shortest_paths, roads),
    "power-iteration": Written(200, 10, 1e-7, loops.power_iteration, definite),
}
