"""The tape of tracegrad."""

from __future__ import annotations

from typing import Any

import numpy as np

import tracegrad as tg
from bench.tape_cases import LAYERS, OPS, data
from tracegrad.nn import functional as F


def version() -> str:
    """Return the library's version."""
    return tg.__version__


def chain(v: dict[str, Any]) -> Any:
    y = v["x"]
    for _ in range(OPS):
        y = y * v["x"]
    return y.sum()


def mlp(v: dict[str, Any]) -> Any:
    y = v["x"]
    for i in range(LAYERS):
        y = np.tanh(y @ v[f"w{i}"] + v[f"b{i}"])
    return (y * y).mean()


def cnn(v: dict[str, Any]) -> Any:
    y = v["x"]
    for name in ("w0", "w1"):
        y = F.relu(F.conv2d(y, v[name], padding=1))
    return (y * y).mean()


class Session:
    """Forward and backward of one case."""

    def __init__(self, case: str):
        self.function = {"chain": chain, "mlp": mlp, "cnn": cnn}[case]
        self.values = {k: tg.tensor(a, requires_grad=case == "chain" or k != "x") for k, a in data(case).items()}

    def run(self, n: int) -> float:
        """Do n steps; return the last value."""
        for _ in range(n):
            for value in self.values.values():
                value.grad = None
            loss = self.function(self.values)
            loss.backward()
        return float(loss.item())


SESSIONS = {"tracegrad": Session}
