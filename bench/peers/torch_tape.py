"""PyTorch, eager."""

from __future__ import annotations

from typing import Any

import torch

from bench.tape_cases import LAYERS, OPS, data


def version() -> str:
    """Return the library's version."""
    return str(torch.__version__)


def chain(v: dict[str, Any]) -> Any:
    y = v["x"]
    for _ in range(OPS):
        y = y * v["x"]
    return y.sum()


def mlp(v: dict[str, Any]) -> Any:
    y = v["x"]
    for i in range(LAYERS):
        y = torch.tanh(y @ v[f"w{i}"] + v[f"b{i}"])
    return (y * y).mean()


def cnn(v: dict[str, Any]) -> Any:
    y = v["x"]
    for name in ("w0", "w1"):
        y = torch.relu(torch.conv2d(y, v[name], padding=1))
    return (y * y).mean()


class Session:
    """Forward and backward of one case."""

    def __init__(self, case: str):
        self.function = {"chain": chain, "mlp": mlp, "cnn": cnn}[case]
        self.values = {}
        for k, a in data(case).items():
            self.values[k] = torch.from_numpy(a).requires_grad_(case == "chain" or k != "x")

    def run(self, n: int) -> float:
        """Do n steps; return the last value."""
        for _ in range(n):
            for value in self.values.values():
                value.grad = None
            loss = self.function(self.values)
            loss.backward()
        return float(loss.item())


SESSIONS = {"torch": Session}
