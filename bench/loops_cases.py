"""The loops to measure: sizes, start values and data, the same for every library.

    logistic   x = r x (1 - x) for a given number of rounds; r = 3, where x comes to rest slowly, like 1 / sqrt(rounds)
    while      the same until two values in a row differ by less than a tolerance, after about as many rounds
    rk4        Runge-Kutta steps of a planet's orbit: four scalars, the strength of gravity is the parameter
    filter     y[i] = a y[i-1] + b y[i-2] + x[i], an array filled in a loop; the loss is the mean of y squared
    lstm       a recurrent network, float32: batch = length / 2, width = 4 length; the loss is the mean of all states
               squared

A `gradient` is by the parameter and the start values (by the weights for the LSTM, by a, b and x for the filter), and
comes with the value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

Values = tuple[Any, ...]
Program = Callable[[], Values]
Maker = Callable[[int], Program]


class Refused(Exception):
    """The library cannot do this."""


@dataclass(frozen=True)
class Case:
    """One program: its number of rounds when measured, and the one at which all libraries are compared."""

    size: int
    check: int
    tolerance: float


CASES = {
    "logistic-forward": Case(1_000_000, 1000, 1e-9),
    "logistic-gradient": Case(1_000_000, 1000, 1e-6),
    "while-forward": Case(1_000_000, 1000, 1e-9),
    "while-gradient": Case(1_000_000, 1000, 1e-6),
    "rk4-forward": Case(10_000, 100, 1e-9),
    "rk4-gradient": Case(10_000, 100, 1e-6),
    "filter-forward": Case(100_000, 100, 1e-9),
    "filter-gradient": Case(100_000, 100, 1e-6),
    "lstm-gradient": Case(64, 64, 2e-3),
}
RATE, X0 = 3.0, 0.4
GRAVITY, ORBIT, SPAN = 1.0, (1.0, 0.0, 0.0, 1.2), 5.0


A, B = 1.2, -0.5


def signal(length: int) -> Any:
    """Return what is filtered: `length` float64 numbers, normally distributed."""
    return np.random.default_rng(0).normal(size=length)


def stop(rounds: int) -> float:
    """Return the tolerance at which the logistic map stops after about so many rounds.

    Near the fixed point 2/3 the distance d falls by 9 d^3 a round: d = 1 / sqrt(18 rounds), and a step has length 2 d.
    """
    return 2.0 / math.sqrt(18.0 * rounds)


def lstm_data(length: int) -> tuple[Any, ...]:
    """Return inputs [length, batch, width], weights of inputs and of states [width, 4 width], and biases [4 width]."""
    rng = np.random.default_rng(0)
    batch, width = length // 2, 4 * length

    def normal(*shape: int) -> Any:
        return (rng.normal(size=shape) / math.sqrt(width)).astype(np.float32)

    x = math.sqrt(width) * normal(length, batch, width)
    return x.astype(np.float32), normal(width, 4 * width), normal(width, 4 * width), normal(4 * width)
