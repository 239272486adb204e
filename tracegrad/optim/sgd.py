"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any, NamedTuple

from tracegrad import tree
from tracegrad.errors import ArgumentError
from tracegrad.optim.optimizer import Optimizer, PyTree, Rate, beside, rate_at, start, unzip, zeros


class SgdState(NamedTuple):
    """Updates made, and the momentum buffers (None without momentum)."""

    count: Any
    momentum: PyTree


def sgd(learning_rate: Rate, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0) -> Optimizer:
    """Return stochastic gradient descent; with momentum m the buffer is b = m b + g and the step b, or g + m b
    (Nesterov).

    As torch.optim.SGD (Sutskever et al., 2013). `weight_decay` adds itself times params to the gradient.

    >>> import numpy as np
    >>> optimizer = sgd(0.1, momentum=0.9)
    >>> state = optimizer.init(np.ones(1))
    >>> optimizer.update(np.ones(1), state, np.ones(1))[0].tolist()
    [-0.1]
    """
    if nesterov and not momentum:
        raise ArgumentError("sgd: nesterov needs momentum", fix="pass momentum=0.9")

    def init(params: PyTree) -> SgdState:
        return SgdState(start(), zeros(params) if momentum else None)

    def update(grads: PyTree, state: SgdState, params: PyTree) -> tuple[PyTree, SgdState]:
        rate = rate_at(learning_rate, state.count)

        def single(g: Any, p: Any, b: Any) -> tuple[Any, Any]:
            g = g + weight_decay * p if weight_decay else g
            b = momentum * b + g if momentum else b
            d = g + momentum * b if nesterov else b if momentum else g
            return d * -beside(rate, g), b

        leaves = tree.leaves(grads)
        held = tree.leaves(state.momentum) if momentum else [None] * len(leaves)
        rows = [single(*row) for row in zip(leaves, tree.leaves(params), held, strict=True)]
        updates, buffers = unzip(params, rows, 2)
        return updates, SgdState(state.count + 1, buffers if momentum else None)

    return Optimizer(init, update)
