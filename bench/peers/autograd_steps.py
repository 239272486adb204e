"""The steps in HIPS autograd: gradients on a tape of NumPy calls, nothing compiled. It has no convolutions."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import autograd.numpy as anp
import numpy as np
from autograd import grad

from bench.cases import data, parameters

Params = dict[str, Any]


def loss(p: Params, x: Any, y: Any) -> Any:
    h = anp.maximum(x @ p["w1"] + p["b1"], 0.0)
    scores = anp.maximum(h @ p["w2"] + p["b2"], 0.0) @ p["w3"] + p["b3"]
    top = anp.max(scores, axis=1, keepdims=True)
    logp = scores - top - anp.log(anp.sum(anp.exp(scores - top), axis=1, keepdims=True))
    return -anp.mean(logp[anp.arange(len(y)), y])


class Autograd:
    """Adam on the network of `mlp`."""

    def __init__(self, case: str):
        if case != "mlp":
            raise NotImplementedError(f"autograd has no convolutions and no embeddings for {case}")
        self.params = parameters(case)
        self.m, self.v = ({k: np.zeros_like(w) for k, w in self.params.items()} for _ in range(2))
        self.x, self.y = data(case)
        self.t = 0
        self.gradient = grad(loss)

    def run(self, n: int) -> float:
        for _ in range(n):
            self.t += 1
            g = self.gradient(self.params, self.x, self.y)
            first, second = 1.0 / (1.0 - 0.9**self.t), 1.0 / (1.0 - 0.999**self.t)
            for k, d in g.items():
                self.m[k] = 0.9 * self.m[k] + 0.1 * d
                self.v[k] = 0.999 * self.v[k] + 0.001 * d * d
                self.params[k] = self.params[k] - 1e-3 * (self.m[k] * first) / (np.sqrt(self.v[k] * second) + 1e-8)
        return float(loss(self.params, self.x, self.y))


def version() -> str:
    """Return the library's version."""
    return metadata.version("autograd")


SESSIONS = {"autograd": Autograd}
