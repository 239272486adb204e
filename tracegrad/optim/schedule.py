"""Learning rates as functions of the count of updates made so far: 0 at the first update.

The count may be a Python int or a traced integer, so one compiled step serves every count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError
from tracegrad.optim.optimizer import as_float

Schedule = Callable[[Any], Any]


def positive(name: str, what: str, value: int) -> None:
    if value < 1:
        raise ArgumentError(f"{name}: {what} is {value}", fix=f"use {what} of 1 or more")


def constant(value: float) -> Schedule:
    """Return `value` always."""
    return lambda count: value


def step_decay(learning_rate: float, step_size: int, gamma: float = 0.1) -> Schedule:
    """Multiply by gamma every `step_size` updates, as torch's StepLR.

    >>> float(step_decay(1.0, 10, 0.5)(25))
    0.25
    """
    positive("step_decay", "step_size", step_size)
    return lambda count: learning_rate * gamma ** tnp.floor(as_float(count) / step_size)


def multistep(learning_rate: float, milestones: Sequence[int], gamma: float = 0.1) -> Schedule:
    """Multiply by gamma when the count reaches each of the milestones, as torch's MultiStepLR.

    >>> [float(multistep(1.0, [2, 4], 0.5)(n)) for n in (1, 2, 3, 4)]
    [1.0, 0.5, 0.5, 0.25]
    """
    steps = tuple(milestones)

    def at(count: Any) -> Any:
        n = as_float(count)
        return learning_rate * gamma ** sum((tnp.where(n >= m, 1.0, 0.0) for m in steps), 0.0)

    return at


def linear(learning_rate: float, steps: int, start: float = 1.0 / 3.0, end: float = 1.0) -> Schedule:
    """Go in a line from the fraction `start` to the fraction `end` in `steps` updates, and stay there, as torch's
    LinearLR."""
    positive("linear", "steps", steps)
    return lambda count: learning_rate * (start + (end - start) * tnp.minimum(as_float(count) / steps, 1.0))


def polynomial(learning_rate: float, steps: int, power: float = 1.0) -> Schedule:
    """Fall as (1 - count / steps)^power to 0 at `steps`, and stay there, as torch's PolynomialLR.

    >>> float(polynomial(1.0, 4, 2.0)(2))
    0.25
    """
    positive("polynomial", "steps", steps)
    return lambda count: learning_rate * (1.0 - tnp.minimum(as_float(count) / steps, 1.0)) ** power


def exponential(learning_rate: float, gamma: float, steps: int = 1) -> Schedule:
    """Fall smoothly by the factor gamma in every `steps` updates; with steps=1 as torch's ExponentialLR."""
    positive("exponential", "steps", steps)
    return lambda count: learning_rate * gamma ** (as_float(count) / steps)


def cosine(learning_rate: float, steps: int, minimum: float = 0.0) -> Schedule:
    """Fall along half a cosine to `minimum` at `steps`, and stay there (Loshchilov and Hutter, 2017).

    >>> round(float(cosine(1.0, 100)(50)), 6)
    0.5
    """
    positive("cosine", "steps", steps)

    def at(count: Any) -> Any:
        t = tnp.minimum(as_float(count) / steps, 1.0)
        return minimum + (learning_rate - minimum) * 0.5 * (1.0 + tnp.cos(math.pi * t))

    return at


def cosine_restarts(learning_rate: float, steps: int, factor: int = 1, minimum: float = 0.0) -> Schedule:
    """Fall along half a cosine in `steps` updates, start again, and so on; every period is `factor` times as long as
    the one before. As torch's CosineAnnealingWarmRestarts (Loshchilov and Hutter, 2017).

    >>> [round(float(cosine_restarts(1.0, 2, 2)(n)), 3) for n in range(7)]
    [1.0, 0.5, 1.0, 0.854, 0.5, 0.146, 1.0]
    """
    positive("cosine_restarts", "steps", steps)
    positive("cosine_restarts", "factor", factor)

    def first_of(period: Any) -> Any:
        return steps * (tnp.rint(float(factor) ** period) - 1.0) / (factor - 1.0)

    def at(count: Any) -> Any:
        n = as_float(count)
        if factor == 1:
            done = n % float(steps) / steps
        else:
            period = tnp.floor(tnp.log(n * (factor - 1.0) / steps + 1.0) / math.log(factor))
            period = tnp.where(n < first_of(period), period - 1.0, period)
            period = tnp.where(n >= first_of(period + 1.0), period + 1.0, period)
            done = (n - first_of(period)) / (steps * tnp.rint(float(factor) ** period))
        return minimum + (learning_rate - minimum) * 0.5 * (1.0 + tnp.cos(math.pi * done))

    return at


def warmup(schedule: float | Schedule, steps: int, start: float = 0.0) -> Schedule:
    """Rise in a line from the fraction `start` to 1 of the schedule over `steps` updates; the schedule begins after it.

    >>> [round(float(warmup(1.0, 4)(n)), 2) for n in (0, 2, 4, 6)]
    [0.0, 0.5, 1.0, 1.0]
    """
    positive("warmup", "steps", steps)
    after: Schedule = schedule if callable(schedule) else constant(schedule)

    def at(count: Any) -> Any:
        n = as_float(count)
        rise = tnp.minimum(start + (1.0 - start) * n / steps, 1.0)
        return rise * after(tnp.maximum(n - steps, 0.0))

    return at


def one_cycle(
    max_lr: float,
    total_steps: int,
    pct_start: float = 0.3,
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
) -> Schedule:
    """Rise from max_lr / div_factor to max_lr, then fall to the first rate / final_div_factor, both along half cosines.

    As torch's OneCycleLR (Smith and Topin, 2018).
    """
    positive("one_cycle", "total_steps", total_steps)
    first = max_lr / div_factor
    last = first / final_div_factor
    turn = pct_start * total_steps - 1.0
    end = total_steps - 1.0

    def between(a: float, b: float, t: Any) -> Any:
        return b + (a - b) * 0.5 * (1.0 + tnp.cos(math.pi * t))

    def at(count: Any) -> Any:
        n = tnp.minimum(as_float(count), end)
        rising = between(first, max_lr, n / turn if turn > 0 else 1.0)
        falling = between(max_lr, last, (n - turn) / max(end - turn, 1e-12))
        return tnp.where(n <= turn, rising, falling)

    return at
