"""Activations as modules."""

from __future__ import annotations

from typing import Any

from tracegrad.nn import functional as F
from tracegrad.nn.module import Module


class ReLU(Module):
    """max(x, 0)."""

    def __call__(self, x: Any) -> Any:
        return F.relu(x)


class GELU(Module):
    """x times the normal distribution function; `approximate="tanh"` uses its tanh approximation."""

    def __init__(self, approximate: str = "none"):
        self.approximate = approximate

    def __call__(self, x: Any) -> Any:
        return F.gelu(x, self.approximate)


class SiLU(Module):
    """x sigmoid(x)."""

    def __call__(self, x: Any) -> Any:
        return F.silu(x)


class Tanh(Module):
    """tanh(x)."""

    def __call__(self, x: Any) -> Any:
        return F.tanh(x)


class Sigmoid(Module):
    """1 / (1 + exp(-x)), without overflow."""

    def __call__(self, x: Any) -> Any:
        return F.sigmoid(x)


class Softplus(Module):
    """log(1 + exp(beta x)) / beta, without overflow."""

    def __init__(self, beta: float = 1.0):
        self.beta = beta

    def __call__(self, x: Any) -> Any:
        return F.softplus(x, self.beta)


class Softmax(Module):
    """exp(x) over its sum along `dim`, without overflow."""

    def __init__(self, dim: int = -1):
        self.dim = dim

    def __call__(self, x: Any) -> Any:
        return F.softmax(x, self.dim)


class LogSoftmax(Module):
    """The logarithm of Softmax; its gradient does not vanish where Softmax saturates."""

    def __init__(self, dim: int = -1):
        self.dim = dim

    def __call__(self, x: Any) -> Any:
        return F.log_softmax(x, self.dim)
