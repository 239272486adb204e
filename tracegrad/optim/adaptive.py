"""Optimizers that scale each element by the size of its past gradients.

Counts, bias corrections and schedules are computed in float64 and rounded once, when they meet the parameters.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tracegrad.numpy as tnp
from tracegrad import tree
from tracegrad.errors import ArgumentError
from tracegrad.optim.optimizer import Optimizer, PyTree, Rate, as_float, beside, rate_at, rows, start, unzip, zeros


class AdamState(NamedTuple):
    """Updates made, the running means of gradients and of their squares, and (amsgrad) the largest of the latter."""

    count: Any
    mean: PyTree
    square: PyTree
    largest: PyTree = None


class RmspropState(NamedTuple):
    """Updates made; running means of squares and (if centred) of gradients; momentum buffers."""

    count: Any
    square: PyTree
    mean: PyTree
    momentum: PyTree


class AdagradState(NamedTuple):
    """Updates made, and the sums of squares."""

    count: Any
    total: PyTree


def adam(
    learning_rate: Rate = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    amsgrad: bool = False,
) -> Optimizer:
    """Return Adam (Kingma and Ba, 2015), as torch.optim.Adam; `weight_decay` adds itself times params to the gradient.

        m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)

    With amsgrad the largest v so far takes its place in the step (Reddi et al., 2018).

    >>> import numpy as np
    >>> optimizer = adam(0.1)
    >>> updates, state = optimizer.update(np.ones(1), optimizer.init(np.ones(1)), np.ones(1))
    >>> updates.round(6).tolist()
    [-0.1]
    """
    return adam_like(learning_rate, betas, eps, weight_decay, amsgrad, decoupled=False)


def adamw(
    learning_rate: Rate = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
    amsgrad: bool = False,
) -> Optimizer:
    """Return Adam with decoupled decay, p -= lr weight_decay p (Loshchilov and Hutter, 2019), as torch.optim.AdamW."""
    return adam_like(learning_rate, betas, eps, weight_decay, amsgrad, decoupled=True)


def adam_like(
    rate: Rate, betas: tuple[float, float], eps: float, decay: float, amsgrad: bool, *, decoupled: bool
) -> Optimizer:
    b1, b2 = checked_betas(betas)

    def init(params: PyTree) -> AdamState:
        return AdamState(start(), zeros(params), zeros(params), zeros(params) if amsgrad else None)

    def update(grads: PyTree, state: AdamState, params: PyTree) -> tuple[PyTree, AdamState]:
        t = as_float(state.count + 1)
        now = rate_at(rate, state.count)
        size = now / (1.0 - b1**t)
        root = 1.0 / (1.0 - b2**t) ** 0.5

        def single(g: Any, p: Any, m: Any, v: Any, top: Any) -> tuple[Any, ...]:
            g = g + decay * p if decay and not decoupled else g
            m = b1 * m + (1.0 - b1) * g
            v = b2 * v + (1.0 - b2) * (g * g)
            top = tnp.maximum(top, v) if amsgrad else None
            u = (m * -beside(size, g)) / (tnp.sqrt(top if amsgrad else v) * beside(root, g) + eps)
            return u - p * beside(now * decay, g) if decay and decoupled else u, m, v, top

        found = [single(*row) for row in rows(params, grads, state.mean, state.square, state.largest)]
        updates, mean, square, largest = unzip(params, found, 4)
        return updates, AdamState(state.count + 1, mean, square, largest if amsgrad else None)

    return Optimizer(init, update)


def checked_betas(betas: tuple[float, float]) -> tuple[float, float]:
    if not all(0.0 <= beta < 1.0 for beta in betas):
        raise ArgumentError(f"optim: betas={betas} are not in [0, 1)", fix="use betas=(0.9, 0.999)")
    return betas


def lamb(
    learning_rate: Rate = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    weight_decay: float = 0.0,
) -> Optimizer:
    """Return LAMB (You et al., 2020): Adam's step r plus weight_decay p, scaled for each array by |p| / |r|.

        r = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps) + weight_decay p;  p -= lr |p| / |r| r

    Where |p| or |r| is 0, the scale is 1.

    >>> import numpy as np
    >>> optimizer = lamb(0.1)
    >>> updates, state = optimizer.update(np.ones(2), optimizer.init(np.ones(2)), np.ones(2))
    >>> updates.round(6).tolist()
    [-0.1, -0.1]
    """
    b1, b2 = checked_betas(betas)

    def init(params: PyTree) -> AdamState:
        return AdamState(start(), zeros(params), zeros(params))

    def update(grads: PyTree, state: AdamState, params: PyTree) -> tuple[PyTree, AdamState]:
        t = as_float(state.count + 1)
        now = rate_at(learning_rate, state.count)
        size, root = 1.0 / (1.0 - b1**t), 1.0 / (1.0 - b2**t) ** 0.5

        def single(g: Any, p: Any, m: Any, v: Any) -> tuple[Any, ...]:
            m = b1 * m + (1.0 - b1) * g
            v = b2 * v + (1.0 - b2) * (g * g)
            r = (m * beside(size, g)) / (tnp.sqrt(v) * beside(root, g) + eps)
            r = r + weight_decay * p if weight_decay else r
            of_p, of_r = tnp.sqrt(tnp.sum(tnp.square(p))), tnp.sqrt(tnp.sum(tnp.square(r)))
            known = (of_p > 0) & (of_r > 0)
            trust = tnp.where(known, of_p / tnp.where(known, of_r, 1.0), 1.0)
            return r * (beside(trust, g) * -beside(now, g)), m, v

        found = [single(*row) for row in rows(params, grads, state.mean, state.square)]
        updates, mean, square = unzip(params, found, 3)
        return updates, AdamState(state.count + 1, mean, square)

    return Optimizer(init, update)


def rmsprop(
    learning_rate: Rate = 1e-2,
    alpha: float = 0.99,
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    momentum: float = 0.0,
    centered: bool = False,
) -> Optimizer:
    """Return RMSprop (Hinton, 2012), as torch.optim.RMSprop: v = a v + (1 - a) g^2; p -= lr g / (sqrt(v) + eps).

    `centered` subtracts the squared running mean of g from v.
    """

    def init(params: PyTree) -> RmspropState:
        mean = zeros(params) if centered else None
        return RmspropState(start(), zeros(params), mean, zeros(params) if momentum else None)

    def update(grads: PyTree, state: RmspropState, params: PyTree) -> tuple[PyTree, RmspropState]:
        rate = rate_at(learning_rate, state.count)

        def single(g: Any, p: Any, v: Any, m: Any, b: Any) -> tuple[Any, Any, Any, Any]:
            g = g + weight_decay * p if weight_decay else g
            v = alpha * v + (1.0 - alpha) * (g * g)
            m = alpha * m + (1.0 - alpha) * g if centered else m
            d = g / (tnp.sqrt(v - m * m if centered else v) + eps)
            b = momentum * b + d if momentum else b
            return (b if momentum else d) * -beside(rate, g), v, m, b

        found = [single(*row) for row in rows(params, grads, state.square, state.mean, state.momentum)]
        updates, square, mean, buffers = unzip(params, found, 4)
        after = RmspropState(state.count + 1, square, mean if centered else None, buffers if momentum else None)
        return updates, after

    return Optimizer(init, update)


def adagrad(
    learning_rate: Rate = 1e-2,
    lr_decay: float = 0.0,
    weight_decay: float = 0.0,
    initial_accumulator_value: float = 0.0,
    eps: float = 1e-10,
) -> Optimizer:
    """Return Adagrad (Duchi et al., 2011), as torch.optim.Adagrad: s += g^2; p -= lr / (1 + n lr_decay) g / (sqrt(s) +
    eps)."""

    def init(params: PyTree) -> AdagradState:
        return AdagradState(start(), tree.map(lambda z: z + initial_accumulator_value, zeros(params)))

    def update(grads: PyTree, state: AdagradState, params: PyTree) -> tuple[PyTree, AdagradState]:
        rate = rate_at(learning_rate, state.count) / (1.0 + lr_decay * as_float(state.count))

        def single(g: Any, p: Any, s: Any) -> tuple[Any, Any]:
            g = g + weight_decay * p if weight_decay else g
            s = s + g * g
            return (g * -beside(rate, g)) / (tnp.sqrt(s) + eps), s

        updates, total = unzip(params, [single(*row) for row in rows(params, grads, state.total)], 2)
        return updates, AdagradState(state.count + 1, total)

    return Optimizer(init, update)
