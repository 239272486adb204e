"""HIPS autograd: NumPy's functions, recorded op by op."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import autograd
import autograd.numpy as anp

from bench.tape_cases import LAYERS, OPS, data


def version() -> str:
    """Return the library's version."""
    return metadata.version("autograd")


def chain(v: dict[str, Any], fixed: dict[str, Any]) -> Any:
    y = v["x"]
    for _ in range(OPS):
        y = y * v["x"]
    return anp.sum(y)


def mlp(v: dict[str, Any], fixed: dict[str, Any]) -> Any:
    y = fixed["x"]
    for i in range(LAYERS):
        y = anp.tanh(anp.dot(y, v[f"w{i}"]) + v[f"b{i}"])
    return anp.mean(y * y)


class Session:
    """Forward and backward of one case."""

    def __init__(self, case: str):
        if case == "cnn":
            raise ValueError("refused: no convolution of images")
        values = data(case)
        self.fixed = {} if case == "chain" else {"x": values.pop("x")}
        self.values = values
        self.gradient = autograd.value_and_grad({"chain": chain, "mlp": mlp}[case])

    def run(self, n: int) -> float:
        """Do n steps; return the last value."""
        for _ in range(n):
            value, _ = self.gradient(self.values, self.fixed)
        return float(value)


SESSIONS = {"autograd": Session}
