"""Initial values of parameters: functions of a key and a shape. Weights are [out, in, *kernel], as in PyTorch.

    variance of kaiming = gain^2 / fan        of xavier = 2 gain^2 / (fan_in + fan_out)
    fan_in = in * prod(kernel), fan_out = out * prod(kernel); uniform on +-sqrt(3 variance)

He et al., "Delving deep into rectifiers", 2015; Glorot and Bengio, "Understanding the difficulty ...", 2010.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tracegrad import random
from tracegrad.errors import ArgumentError, ShapeError

Shape = tuple[int, ...]
F32 = np.dtype(np.float32)


class DefaultKeys:
    """The sequence of keys that modules take when none is given."""

    def __init__(self) -> None:
        self.key = random.key(0)
        self.count = 0

    def restart(self, n: int) -> None:
        self.key, self.count = random.key(n), 0

    def next(self) -> Any:
        self.count += 1
        return random.fold_in(self.key, self.count)


DEFAULT = DefaultKeys()


def seed(n: int) -> None:
    """Restart the default keys: modules made without `key=` afterwards get the same parameters every time.

    The sequence is shared by the whole process and starts at seed 0. Pass `key=` where threads or order matter.

    >>> from tracegrad import nn
    >>> nn.seed(1); a = nn.Linear(2, 2); nn.seed(1); b = nn.Linear(2, 2)
    >>> bool((a.weight == b.weight).all())
    True
    """
    DEFAULT.restart(n)


def key_or_default(key: Any) -> Any:
    return DEFAULT.next() if key is None else key


def fans(shape: Shape) -> tuple[int, int]:
    """Return fan_in and fan_out of a weight."""
    if len(shape) < 2:
        raise ShapeError(f"init: a weight of shape {shape} has no fan", fix="use a shape [out, in, ...]")
    kernel = math.prod(shape[2:])
    return shape[1] * kernel, shape[0] * kernel


def calculate_gain(nonlinearity: str, param: float = 0.01) -> float:
    """Return the factor by which a non-linearity shrinks a signal's deviation, inverted; names as in PyTorch.

    >>> round(calculate_gain("relu"), 4)
    1.4142
    """
    match nonlinearity:
        case "linear" | "sigmoid" | "conv1d" | "conv2d" | "conv3d":
            return 1.0
        case "tanh":
            return 5.0 / 3.0
        case "relu":
            return math.sqrt(2.0)
        case "leaky_relu":
            return math.sqrt(2.0 / (1.0 + param * param))
        case "selu":
            return 0.75
    raise ArgumentError(f"init: the non-linearity {nonlinearity!r} is not known", fix="use 'relu' or 'linear'")


def kaiming_std(shape: Shape, a: float, mode: str, nonlinearity: str) -> float:
    if mode not in ("fan_in", "fan_out"):
        raise ArgumentError(f"init: the mode {mode!r} is not known", fix="use mode='fan_in' or mode='fan_out'")
    fan = fans(shape)[mode == "fan_out"]
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fan, 1))


def uniform(key: Any, shape: Shape, a: float = 0.0, b: float = 1.0, dtype: Any = F32) -> Any:
    """Return draws from the uniform distribution on [a, b)."""
    return random.uniform(key, shape, dtype, a, b)


def normal(key: Any, shape: Shape, mean: float = 0.0, std: float = 1.0, dtype: Any = F32) -> Any:
    """Return draws from the normal distribution."""
    dtype = np.dtype(dtype)
    return random.normal(key, shape, dtype) * dtype.type(std) + dtype.type(mean)


def zeros(shape: Shape, dtype: Any = F32) -> Any:
    return np.zeros(shape, dtype)


def ones(shape: Shape, dtype: Any = F32) -> Any:
    return np.ones(shape, dtype)


def constant(shape: Shape, value: float, dtype: Any = F32) -> Any:
    return np.full(shape, value, dtype)


def trunc_normal(
    key: Any, shape: Shape, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0, dtype: Any = F32
) -> Any:
    """Return draws from the normal distribution, those outside [a, b] drawn again.

    The key must be known: not a traced value. Raises ArgumentError when [a, b] holds less than a hundredth of the
    distribution.

    >>> draws = trunc_normal(random.key(0), (1000,), std=2.0)
    >>> bool((abs(draws) <= 2.0).all())
    True
    """
    below = [math.erf((end - mean) / (std * math.sqrt(2.0))) / 2.0 for end in (a, b)]
    if not below[1] - below[0] >= 0.01:
        raise ArgumentError(
            f"init.trunc_normal: [{a}, {b}] holds too little of the distribution of mean {mean}, deviation {std}",
            fix="use a wider interval, or uniform(key, shape, a, b)",
        )
    values = np.array(normal(key, shape, mean, std, dtype))
    flat, count = values.reshape(-1), 0
    while (outside := np.flatnonzero(~((flat >= a) & (flat <= b)))).size:
        count += 1
        flat[outside] = normal(random.fold_in(key, count), (outside.size,), mean, std, dtype)
    return values


def orthogonal(key: Any, shape: Shape, gain: float = 1.0, dtype: Any = F32) -> Any:
    """Return gain times a matrix [shape[0], rest] with orthonormal rows or columns, whichever are fewer.

    Saxe et al., "Exact solutions to the nonlinear dynamics of learning ...", 2013. The key must be known: not a traced
    value.

    >>> w = orthogonal(random.key(0), (3, 5), dtype=np.float64)
    >>> bool(np.allclose(w @ w.T, np.eye(3)))
    True
    """
    if len(shape) < 2:
        raise ShapeError(f"init.orthogonal: the shape {shape} has fewer than 2 axes", fix="use a shape [out, in, ...]")
    rows, columns = shape[0], math.prod(shape[1:])
    draws = np.array(normal(key, (max(rows, columns), min(rows, columns)), dtype=np.float64))
    q, r = np.linalg.qr(draws)
    q = q * np.where(np.diag(r) < 0, -1.0, 1.0)
    return (gain * (q if rows >= columns else q.T)).reshape(shape).astype(dtype)


def kaiming_uniform(
    key: Any, shape: Shape, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", dtype: Any = F32
) -> Any:
    """Return uniform draws with variance gain^2 / fan.

    >>> kaiming_uniform(random.key(0), (4, 3)).shape
    (4, 3)
    """
    bound = math.sqrt(3.0) * kaiming_std(shape, a, mode, nonlinearity)
    return uniform(key, shape, -bound, bound, dtype)


def kaiming_normal(
    key: Any, shape: Shape, a: float = 0.0, mode: str = "fan_in", nonlinearity: str = "leaky_relu", dtype: Any = F32
) -> Any:
    """Return normal draws with variance gain^2 / fan."""
    return normal(key, shape, 0.0, kaiming_std(shape, a, mode, nonlinearity), dtype)


def xavier_uniform(key: Any, shape: Shape, gain: float = 1.0, dtype: Any = F32) -> Any:
    """Return uniform draws with variance 2 gain^2 / (fan_in + fan_out)."""
    bound = gain * math.sqrt(6.0 / sum(fans(shape)))
    return uniform(key, shape, -bound, bound, dtype)


def xavier_normal(key: Any, shape: Shape, gain: float = 1.0, dtype: Any = F32) -> Any:
    """Return normal draws with variance 2 gain^2 / (fan_in + fan_out)."""
    return normal(key, shape, 0.0, gain * math.sqrt(2.0 / sum(fans(shape))), dtype)


def linear_weight_and_bias(
    key: Any, shape: Shape, bias: bool, dtype: Any, outputs: int | None = None
) -> tuple[Any, Any]:
    """Return PyTorch's default for Linear and Conv: both uniform on +-1/sqrt(fan_in), from two keys.

    outputs: the size of the bias, shape[0] by default.
    """
    first, second = random.split(key)
    weight = kaiming_uniform(first, shape, a=math.sqrt(5.0), dtype=dtype)
    if not bias:
        return weight, None
    bound = 1.0 / math.sqrt(max(fans(shape)[0], 1))
    return weight, uniform(second, (shape[0] if outputs is None else outputs,), -bound, bound, dtype)
