"""A learning rate that falls when a measured value stops to improve: its state is arrays, so nothing compiles again.

    plateau = optim.plateau(0.1, factor=0.5, patience=3)
    slow = plateau.init()
    params, state = optim.adam(slow.rate).step(grads, state, params)    # in the compiled step, `slow` an argument
    slow = plateau.update(slow, validation_loss)                        # once per epoch, anywhere
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError
from tracegrad.optim.optimizer import as_float


class PlateauState(NamedTuple):
    """The rate now, the best value so far, updates without a better one, and updates that are left to wait."""

    rate: Any
    best: Any
    bad: Any
    waiting: Any


@dataclass(frozen=True)
class Plateau:
    """A pair of pure functions, made by `plateau`."""

    learning_rate: float
    mode: str
    factor: float
    patience: int
    threshold: float
    threshold_mode: str
    cooldown: int
    min_lr: float
    eps: float

    def init(self) -> PlateauState:
        """Return the state before the first value."""
        worst = np.inf if self.mode == "min" else -np.inf
        zero = np.zeros((), np.int64)
        return PlateauState(np.array(self.learning_rate, np.float64), np.array(worst), zero, zero)

    def update(self, state: PlateauState, value: Any) -> PlateauState:
        """Return the state after another value; numbers and traced values alike."""
        value = as_float(value)
        better = self.better(value, state.best)
        waiting = state.waiting > 0
        bad = tnp.where(better | waiting, 0, state.bad + 1)
        falls = bad > self.patience
        lower = tnp.maximum(state.rate * self.factor, self.min_lr)
        return PlateauState(
            rate=tnp.where(falls & (state.rate - lower > self.eps), lower, state.rate),
            best=tnp.where(better, value, state.best),
            bad=tnp.where(falls, 0, bad),
            waiting=tnp.where(falls, self.cooldown, tnp.where(waiting, state.waiting - 1, state.waiting)),
        )

    def better(self, value: Any, best: Any) -> Any:
        sign = 1.0 if self.mode == "min" else -1.0
        if self.threshold_mode == "abs":
            return sign * value < sign * best - self.threshold
        return sign * value < sign * best * (1.0 - sign * self.threshold)


def plateau(
    learning_rate: float,
    mode: str = "min",
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    threshold_mode: str = "rel",
    cooldown: int = 0,
    min_lr: float = 0.0,
    eps: float = 1e-8,
) -> Plateau:
    """Return a schedule whose rate is multiplied by `factor` after more than `patience` values without a better one.

    As torch's ReduceLROnPlateau: a value is better when it is below best (1 - threshold), or best - threshold with
    threshold_mode="abs"; above, for mode="max". After a fall, `cooldown` values are not counted. Falls of less than
    `eps` are left out.

    >>> schedule = plateau(1.0, factor=0.5, patience=1)
    >>> state = schedule.init()
    >>> for value in (3.0, 2.0, 2.0, 2.0):
    ...     state = schedule.update(state, value)
    >>> float(state.rate)
    0.5
    """
    if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
        raise ArgumentError(
            f"plateau: mode={mode!r} or threshold_mode={threshold_mode!r} is not known",
            fix='use mode="min" or "max", threshold_mode="rel" or "abs"',
        )
    if not 0 <= factor < 1:
        raise ArgumentError(f"plateau: factor is {factor}, and the rate would not fall", fix="use 0 <= factor < 1")
    return Plateau(learning_rate, mode, factor, patience, threshold, threshold_mode, cooldown, min_lr, eps)
