"""Activations. Softmax and its logarithm subtract the maximum, which keeps every exponential at 1 or below."""

from __future__ import annotations

import math
from typing import Any

import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.ops import elementwise
from tracegrad.ops.elementwise import stop_gradient
from tracegrad.ops.reduce import expand, reduce_max, reduce_sum


def relu(input: Any) -> Any:
    """Return max(x, 0); the gradient at 0 is 0, and NaN stays NaN.

    >>> import numpy as np
    >>> relu(np.array([-1.0, 2.0])).tolist()
    [0.0, 2.0]
    """
    return elementwise.relu(tnp.asarray(input))


def leaky_relu(input: Any, negative_slope: float = 0.01) -> Any:
    """Return x where x > 0, else negative_slope * x."""
    x = tnp.asarray(input)
    return x * elementwise.where(x > 0, x.dtype.type(1), x.dtype.type(negative_slope))


def elu(input: Any, alpha: float = 1.0) -> Any:
    """Return x where x > 0, else alpha (exp(x) - 1)."""
    x = tnp.asarray(input)
    return tnp.where(x > 0, x, alpha * tnp.expm1(x))


def gelu(input: Any, approximate: str = "none") -> Any:
    """Return x Phi(x), Phi the normal distribution function; `approximate="tanh"` as in Hendrycks and Gimpel, 2016.

    >>> import numpy as np
    >>> round(float(gelu(np.float64(1.0))), 6)
    0.841345
    """
    x = tnp.asarray(input)
    match approximate:
        case "none":
            return 0.5 * x * (1.0 + elementwise.erf(x * math.sqrt(0.5)))
        case "tanh":
            return 0.5 * x * (1.0 + tnp.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x))))
    raise ArgumentError(f"gelu: approximate={approximate!r} is not known", fix='use "none" or "tanh"')


def sigmoid(input: Any) -> Any:
    """Return 1 / (1 + exp(-x)), without overflow."""
    return elementwise.sigmoid(tnp.asarray(input))


def silu(input: Any) -> Any:
    """Return x sigmoid(x)."""
    x = tnp.asarray(input)
    return x * elementwise.sigmoid(x)


def softplus(input: Any, beta: float = 1.0) -> Any:
    """Return log(1 + exp(beta x)) / beta, exact for large x of either sign (so PyTorch's `threshold` is not needed).

    >>> import numpy as np
    >>> softplus(np.array([-1000.0, 1000.0])).tolist()
    [0.0, 1000.0]
    """
    x = tnp.asarray(input)
    if beta == 1.0:
        return tnp.maximum(x, 0.0) + tnp.log1p(tnp.exp(-tnp.abs(x)))
    return softplus(beta * x) / beta


def logsigmoid(input: Any) -> Any:
    """Return log(sigmoid(x)) without overflow."""
    return -softplus(-tnp.asarray(input))


def tanh(input: Any) -> Any:
    """Return tanh(x)."""
    return tnp.tanh(input)


def shifted(x: Any, dim: int, name: str) -> tuple[Any, tuple[int, ...]]:
    """Return x minus its maximum along `dim`, and the axis; the shift cancels later, so it needs no gradient."""
    if not -x.ndim <= dim < x.ndim:
        raise ShapeError(f"{name}: dim {dim} does not exist in an array of shape {tuple(x.shape)}", fix="check dim")
    axes = (dim % x.ndim,)
    return x - expand(stop_gradient(reduce_max(x, axes=axes)), x, axes), axes


def log_partition(z: Any, axes: tuple[int, ...]) -> Any:
    """Return log(sum(exp(z))) over `axes`, which are dropped; z is shifted, so that its largest element is 0."""
    return elementwise.log(reduce_sum(elementwise.exp(z), axes=axes))


def softmax(input: Any, dim: int = -1) -> Any:
    """Return exp(x) / sum(exp(x)) along `dim`.

    >>> import numpy as np
    >>> softmax(np.array([1000.0, 1000.0])).tolist()
    [0.5, 0.5]
    """
    z, axes = shifted(tnp.asarray(input), dim, "softmax")
    e = elementwise.exp(z)
    return e / expand(reduce_sum(e, axes=axes), e, axes)


def log_softmax(input: Any, dim: int = -1) -> Any:
    """Return x - log(sum(exp(x))) along `dim`; finite for inputs of any finite size.

    >>> import numpy as np
    >>> log_softmax(np.array([0.0, -1000.0])).tolist()
    [0.0, -1000.0]
    """
    z, axes = shifted(tnp.asarray(input), dim, "log_softmax")
    return z - expand(log_partition(z, axes), z, axes)
