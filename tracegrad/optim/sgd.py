"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any, NamedTuple

import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError
from tracegrad.optim.optimizer import Optimizer, PyTree, Rate, beside, rate_at, rows, start, unzip, zeros


class SgdState(NamedTuple):
    """Updates made, and the momentum buffers (None without momentum)."""

    count: Any
    momentum: PyTree


def sgd(
    learning_rate: Rate,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    dampening: float = 0.0,
) -> Optimizer:
    """Return stochastic gradient descent; with momentum m the buffer is b = m b + (1 - dampening) g, g at first, and
    the step b, or g + m b (Nesterov).

    As torch.optim.SGD (Sutskever et al., 2013). `weight_decay` adds itself times params to the gradient.

    >>> import numpy as np
    >>> optimizer = sgd(0.1, momentum=0.9)
    >>> state = optimizer.init(np.ones(1))
    >>> optimizer.update(np.ones(1), state, np.ones(1))[0].tolist()
    [-0.1]
    """
    if nesterov and (not momentum or dampening):
        raise ArgumentError("sgd: nesterov needs momentum, and no dampening", fix="pass momentum=0.9, dampening=0.0")

    def init(params: PyTree) -> SgdState:
        held = zeros(params)
        return SgdState(start(), held if momentum else None)

    def update(grads: PyTree, state: SgdState, params: PyTree) -> tuple[PyTree, SgdState]:
        rate = rate_at(learning_rate, state.count)
        share = tnp.where(state.count == 0, 1.0, 1.0 - dampening)

        def single(g: Any, p: Any, b: Any) -> tuple[Any, Any]:
            g = g + weight_decay * p if weight_decay else g
            b = momentum * b + (g * beside(share, g) if dampening else g) if momentum else b
            d = g + momentum * b if nesterov else b if momentum else g
            return d * -beside(rate, g), b

        found = [single(*row) for row in rows(params, grads, state.momentum)]
        updates, buffers = unzip(params, found, 2)
        return updates, SgdState(state.count + 1, buffers if momentum else None)

    return Optimizer(init, update)
