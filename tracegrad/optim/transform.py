"""Transformations of gradients, to `chain` in front of an optimizer."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import tracegrad.numpy as tnp
from tracegrad import tree
from tracegrad.numpy.half import wide
from tracegrad.optim.optimizer import Optimizer, PyTree, beside

Rule = Callable[[PyTree, PyTree], PyTree]


def stateless(rule: Rule) -> Optimizer:
    """Make an optimizer of a function of gradients and params."""
    return Optimizer(lambda params: (), lambda grads, state, params: (rule(grads, params), state), descends=False)


def global_norm(grads: PyTree) -> Any:
    """Return the root of the sum of the squares of all elements.

    >>> import numpy as np
    >>> float(global_norm({"a": np.array([3.0]), "b": np.array([4.0])}))
    5.0
    """
    squares = [tnp.sum(tnp.square(wide(g))) for g in tree.leaves(grads)]
    return tnp.sqrt(reduce(lambda a, b: a + b, squares)) if squares else 0.0


def clip_by_global_norm(max_norm: float, eps: float = 1e-6) -> Optimizer:
    """Scale all gradients by min(1, max_norm / (norm + eps)), as torch.nn.utils.clip_grad_norm_ (Pascanu et al.,
    2013)."""

    def rule(grads: PyTree, params: PyTree) -> PyTree:
        factor = tnp.minimum(max_norm / (global_norm(grads) + eps), 1.0)
        return tree.map(lambda g: g * beside(factor, g), grads)

    return stateless(rule)


def clip_by_value(limit: float) -> Optimizer:
    """Keep every element of the gradients between -limit and limit."""
    return stateless(lambda grads, params: tree.map(lambda g: tnp.minimum(tnp.maximum(g, -limit), limit), grads))


def scale(factor: Any) -> Optimizer:
    """Multiply all gradients by a factor."""
    return stateless(lambda grads, params: tree.map(lambda g: g * beside(factor, g), grads))


def weight_decay(rate: float) -> Optimizer:
    """Add rate * w to the gradient of w, as PyTorch's `weight_decay`."""
    return stateless(lambda grads, params: tree.map(lambda g, p: g + rate * p, grads, params))


def l2_decay(alpha: float) -> Optimizer:
    """Add the gradient of the penalty alpha |w|^2: with sgd, w becomes (1 - 2 eta alpha) w - eta dC/dw (ridge)."""
    return weight_decay(2.0 * alpha)


def l1_decay(alpha: float) -> Optimizer:
    """Add the gradient of the penalty alpha |w|_1, which is alpha sign(w) (lasso)."""
    return stateless(lambda grads, params: tree.map(lambda g, p: g + alpha * tnp.sign(p), grads, params))
