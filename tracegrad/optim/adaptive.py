"""Optimizers that scale each element by the size of its past gradients.

Counts, bias corrections and schedules are computed in float64 and rounded once, when they meet the parameters.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tracegrad.numpy as tnp
from tracegrad import tree
from tracegrad.optim.optimizer import Optimizer, PyTree, Rate, as_float, beside, rate_at, start, unzip, zeros


class AdamState(NamedTuple):
    """Updates made, and the running means of gradients and of their squares."""

    count: Any
    mean: PyTree
    square: PyTree


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
) -> Optimizer:
    """Return Adam (Kingma and Ba, 2015), as torch.optim.Adam; `weight_decay` adds itself times params to the gradient.

        m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  p -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)

    >>> import numpy as np
    >>> optimizer = adam(0.1)
    >>> updates, state = optimizer.update(np.ones(1), optimizer.init(np.ones(1)), np.ones(1))
    >>> updates.round(6).tolist()
    [-0.1]
    """
    return adam_like(learning_rate, betas, eps, weight_decay, decoupled=False)


def adamw(
    learning_rate: Rate = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> Optimizer:
    """Return Adam with decoupled decay, p -= lr weight_decay p (Loshchilov and Hutter, 2019), as torch.optim.AdamW."""
    return adam_like(learning_rate, betas, eps, weight_decay, decoupled=True)


def adam_like(rate: Rate, betas: tuple[float, float], eps: float, decay: float, *, decoupled: bool) -> Optimizer:
    b1, b2 = betas

    def init(params: PyTree) -> AdamState:
        return AdamState(start(), zeros(params), zeros(params))

    def update(grads: PyTree, state: AdamState, params: PyTree) -> tuple[PyTree, AdamState]:
        t = as_float(state.count + 1)
        now = rate_at(rate, state.count)
        size = now / (1.0 - b1**t)
        root = 1.0 / (1.0 - b2**t) ** 0.5

        def single(g: Any, p: Any, m: Any, v: Any) -> tuple[Any, Any, Any]:
            g = g + decay * p if decay and not decoupled else g
            m = b1 * m + (1.0 - b1) * g
            v = b2 * v + (1.0 - b2) * (g * g)
            u = (m * -beside(size, g)) / (tnp.sqrt(v) * beside(root, g) + eps)
            return u - p * beside(now * decay, g) if decay and decoupled else u, m, v

        columns = [tree.leaves(t) for t in (grads, params, state.mean, state.square)]
        updates, mean, square = unzip(params, [single(*row) for row in zip(*columns, strict=True)], 3)
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

        leaves = tree.leaves(grads)
        none = [None] * len(leaves)
        rows = zip(
            leaves,
            tree.leaves(params),
            tree.leaves(state.square),
            tree.leaves(state.mean) if centered else none,
            tree.leaves(state.momentum) if momentum else none,
            strict=True,
        )
        updates, square, mean, buffers = unzip(params, [single(*row) for row in rows], 4)
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
        return AdagradState(start(), tree.map(lambda p: tnp.full_like(p, initial_accumulator_value), params))

    def update(grads: PyTree, state: AdagradState, params: PyTree) -> tuple[PyTree, AdagradState]:
        rate = rate_at(learning_rate, state.count) / (1.0 + lr_decay * as_float(state.count))

        def single(g: Any, p: Any, s: Any) -> tuple[Any, Any]:
            g = g + weight_decay * p if weight_decay else g
            s = s + g * g
            return (g * -beside(rate, g)) / (tnp.sqrt(s) + eps), s

        columns = [tree.leaves(t) for t in (grads, params, state.total)]
        updates, total = unzip(params, [single(*row) for row in zip(*columns, strict=True)], 2)
        return updates, AdagradState(state.count + 1, total)

    return Optimizer(init, update)
