"""Activations as modules."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError
from tracegrad.nn import functional as F
from tracegrad.nn.init import constant
from tracegrad.nn.module import Module


def not_in_place(name: str, inplace: bool) -> None:
    """Refuse PyTorch's `inplace=True`: arrays are never written to."""
    if inplace:
        raise ArgumentError(f"{name}: inplace=True is not supported", fix="leave it out: compiled code reuses memory")


class ReLU(Module):
    """max(x, 0)."""

    def __init__(self, inplace: bool = False):
        not_in_place("ReLU", inplace)

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

    def __init__(self, inplace: bool = False):
        not_in_place("SiLU", inplace)

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


class LeakyReLU(Module):
    """x where x > 0, else negative_slope * x."""

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False):
        not_in_place("LeakyReLU", inplace)
        self.negative_slope = negative_slope

    def __call__(self, x: Any) -> Any:
        return F.leaky_relu(x, self.negative_slope)


class PReLU(Module):
    """x where x > 0, else weight * x; the weight is a parameter, one or one for each channel (He et al., 2015)."""

    def __init__(self, num_parameters: int = 1, init: float = 0.25, *, dtype: Any = np.float32):
        self.weight = constant((num_parameters,), init, dtype)

    def __call__(self, x: Any) -> Any:
        return F.prelu(x, self.weight)


class ELU(Module):
    """x where x > 0, else alpha (exp(x) - 1)."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        not_in_place("ELU", inplace)
        self.alpha = alpha

    def __call__(self, x: Any) -> Any:
        return F.elu(x, self.alpha)


class CELU(Module):
    """x where x > 0, else alpha (exp(x / alpha) - 1)."""

    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        not_in_place("CELU", inplace)
        self.alpha = alpha

    def __call__(self, x: Any) -> Any:
        return F.celu(x, self.alpha)


class SELU(Module):
    """The self-normalising ELU of Klambauer et al., 2017."""

    def __init__(self, inplace: bool = False):
        not_in_place("SELU", inplace)

    def __call__(self, x: Any) -> Any:
        return F.selu(x)


class Hardtanh(Module):
    """x kept between min_val and max_val."""

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False):
        not_in_place("Hardtanh", inplace)
        self.min_val = min_val
        self.max_val = max_val

    def __call__(self, x: Any) -> Any:
        return F.hardtanh(x, self.min_val, self.max_val)


class ReLU6(Module):
    """x kept between 0 and 6."""

    def __init__(self, inplace: bool = False):
        not_in_place("ReLU6", inplace)

    def __call__(self, x: Any) -> Any:
        return F.relu6(x)


class Hardsigmoid(Module):
    """(x + 3) / 6 kept between 0 and 1."""

    def __init__(self, inplace: bool = False):
        not_in_place("Hardsigmoid", inplace)

    def __call__(self, x: Any) -> Any:
        return F.hardsigmoid(x)


class Hardswish(Module):
    """x times Hardsigmoid of x."""

    def __init__(self, inplace: bool = False):
        not_in_place("Hardswish", inplace)

    def __call__(self, x: Any) -> Any:
        return F.hardswish(x)


class Mish(Module):
    """x tanh(softplus(x))."""

    def __init__(self, inplace: bool = False):
        not_in_place("Mish", inplace)

    def __call__(self, x: Any) -> Any:
        return F.mish(x)


class Softsign(Module):
    """x / (1 + |x|)."""

    def __call__(self, x: Any) -> Any:
        return F.softsign(x)


class LogSigmoid(Module):
    """log(sigmoid(x)), without overflow."""

    def __call__(self, x: Any) -> Any:
        return F.logsigmoid(x)


class GLU(Module):
    """a sigmoid(b) for the halves a and b of x along `dim`."""

    def __init__(self, dim: int = -1):
        self.dim = dim

    def __call__(self, x: Any) -> Any:
        return F.glu(x, self.dim)


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
