"""The steps in PyTensor: a graph of symbols, compiled by its default linker. It has no batch normalisation, no maximum
pooling and no embeddings, so the network of `mlp` is the one that it shares with the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytensor
import pytensor.tensor as pt

from bench.cases import data, parameters


def loss_of(p: dict[str, Any], x: Any, y: Any) -> Any:
    h = pt.maximum(x @ p["w1"] + p["b1"], 0.0)
    scores = pt.maximum(h @ p["w2"] + p["b2"], 0.0) @ p["w3"] + p["b3"]
    return -pt.mean(pt.special.log_softmax(scores, axis=1)[pt.arange(y.shape[0]), y])


class PyTensor:
    """Adam on the network of `mlp`, its state in shared variables."""

    def __init__(self, case: str):
        if case != "mlp":
            raise NotImplementedError(f"PyTensor has not all layers of {case}")
        self.x, self.y = data(case)
        params = {k: pytensor.shared(w, k) for k, w in parameters(case).items()}
        x, y, t = pt.matrix("x", dtype="float32"), pt.vector("y", dtype="int64"), pt.scalar("t", dtype="float32")
        loss = loss_of(params, x, y)
        one = np.float32(1.0)
        first, second = one / (one - np.float32(0.9) ** t), one / (one - np.float32(0.999) ** t)
        updates = []
        for p, g in zip(params.values(), pytensor.grad(loss, list(params.values())), strict=True):
            m, v = (pytensor.shared(np.zeros_like(p.get_value())) for _ in range(2))
            new_m = np.float32(0.9) * m + np.float32(0.1) * g
            new_v = np.float32(0.999) * v + np.float32(0.001) * g * g
            change = np.float32(1e-3) * (new_m * first) / (pt.sqrt(new_v * second) + np.float32(1e-8))
            updates += [(m, new_m), (v, new_v), (p, p - change)]
        self.step = pytensor.function([x, y, t], loss, updates=updates)
        self.t = 0

    def run(self, n: int) -> float:
        loss = np.float32(0)
        for _ in range(n):
            self.t += 1
            loss = self.step(self.x, self.y, np.float32(self.t))
        return float(loss)


def version() -> str:
    """Return the library's version."""
    return str(pytensor.__version__)


SESSIONS = {"pytensor": PyTensor}
