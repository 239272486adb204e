"""Activations. Softmax and its logarithm subtract the maximum, which keeps every exponential at 1 or below."""

from __future__ import annotations

import math
from typing import Any

import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.numpy.half import rounded_once
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


@rounded_once
def leaky_relu(input: Any, negative_slope: float = 0.01) -> Any:
    """Return x where x > 0, else negative_slope * x."""
    x = tnp.asarray(input)
    return x * elementwise.where(x > 0, x.dtype.type(1), x.dtype.type(negative_slope))


@rounded_once
def elu(input: Any, alpha: float = 1.0) -> Any:
    """Return x where x > 0, else alpha (exp(x) - 1)."""
    x = tnp.asarray(input)
    return tnp.where(x > 0, x, alpha * tnp.expm1(x))


@rounded_once
def celu(input: Any, alpha: float = 1.0) -> Any:
    """Return x where x > 0, else alpha (exp(x / alpha) - 1) (Barron, 2017)."""
    x = tnp.asarray(input)
    return tnp.where(x > 0, x, alpha * tnp.expm1(x / alpha))


@rounded_once
def selu(input: Any) -> Any:
    """Return s x where x > 0, else s a (exp(x) - 1), with the constants of Klambauer et al., 2017."""
    return 1.0507009873554805 * elu(input, 1.6732632423543772)


@rounded_once
def prelu(input: Any, weight: Any) -> Any:
    """Return x where x > 0, else weight * x; weight has one element, or one for each channel (axis 1)."""
    x, w = tnp.asarray(input), tnp.asarray(weight)
    if w.size != 1 and (w.ndim != 1 or x.ndim < 2 or w.shape[0] != x.shape[1]):
        raise ShapeError(
            f"prelu: a weight of shape {tuple(w.shape)} does not fit the channels of {tuple(x.shape)}",
            fix="use one weight, or one for each channel (axis 1)",
        )
    w = tnp.reshape(w, (1,) * x.ndim if w.size == 1 else (1, -1, *(1,) * (x.ndim - 2)))
    return tnp.where(x > 0, x, w * x)


@rounded_once
def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    """Return x kept between min_val and max_val; the gradient at both is 0."""
    if min_val >= max_val:
        raise ArgumentError(f"hardtanh: min_val={min_val} is not below max_val={max_val}", fix="swap them")
    x = tnp.asarray(input)
    return tnp.where(x <= min_val, min_val, tnp.where(x >= max_val, max_val, x))


@rounded_once
def relu6(input: Any) -> Any:
    """Return x kept between 0 and 6."""
    return hardtanh(input, 0.0, 6.0)


@rounded_once
def hardsigmoid(input: Any) -> Any:
    """Return (x + 3) / 6 kept between 0 and 1."""
    return relu6(tnp.asarray(input) + 3.0) * (1.0 / 6.0)


@rounded_once
def hardswish(input: Any) -> Any:
    """Return x hardsigmoid(x) (Howard et al., 2019)."""
    x = tnp.asarray(input)
    return tnp.where(x <= -3.0, 0.0, tnp.where(x < 3.0, x * (x + 3.0) * (1.0 / 6.0), x))


@rounded_once
def mish(input: Any) -> Any:
    """Return x tanh(softplus(x)) (Misra, 2019)."""
    x = tnp.asarray(input)
    return x * tnp.tanh(softplus(x))


@rounded_once
def softsign(input: Any) -> Any:
    """Return x / (1 + |x|)."""
    x = tnp.asarray(input)
    return x / (1.0 + tnp.abs(x))


@rounded_once
def glu(input: Any, dim: int = -1) -> Any:
    """Return a sigmoid(b) for the halves a and b of x along `dim` (Dauphin et al., 2017).

    >>> import numpy as np
    >>> glu(np.array([4.0, 0.0])).tolist()
    [2.0]
    """
    x = tnp.asarray(input)
    if not -x.ndim <= dim < x.ndim or x.shape[dim] % 2:
        raise ShapeError(
            f"glu: an array of shape {tuple(x.shape)} has no halves along dim {dim}", fix="use an axis of even size"
        )
    a, b = tnp.split(x, 2, axis=dim)
    return a * elementwise.sigmoid(b)


@rounded_once
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


@rounded_once
def silu(input: Any) -> Any:
    """Return x sigmoid(x)."""
    x = tnp.asarray(input)
    return x * elementwise.sigmoid(x)


@rounded_once
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


@rounded_once
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


@rounded_once
def softmax(input: Any, dim: int = -1) -> Any:
    """Return exp(x) / sum(exp(x)) along `dim`.

    >>> import numpy as np
    >>> softmax(np.array([1000.0, 1000.0])).tolist()
    [0.5, 0.5]
    """
    z, axes = shifted(tnp.asarray(input), dim, "softmax")
    e = elementwise.exp(z)
    return e / expand(reduce_sum(e, axes=axes), e, axes)


@rounded_once
def log_softmax(input: Any, dim: int = -1) -> Any:
    """Return x - log(sum(exp(x))) along `dim`; finite for inputs of any finite size.

    >>> import numpy as np
    >>> log_softmax(np.array([0.0, -1000.0])).tolist()
    [0.0, -1000.0]
    """
    z, axes = shifted(tnp.asarray(input), dim, "log_softmax")
    return z - expand(log_partition(z, axes), z, axes)
