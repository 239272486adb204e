"""Losses on values. Input and target must have one shape: broadcasting (n,) against (n, 1) is refused, not guessed."""

from __future__ import annotations

from typing import Any

import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.ir import Aval
from tracegrad.nn.functional.activation import softplus
from tracegrad.numpy.half import rounded_once
from tracegrad.ops.elementwise import stop_gradient

REDUCTIONS = ("none", "mean", "sum")


def checked_reduction(name: str, reduction: str) -> None:
    if reduction not in REDUCTIONS:
        raise ArgumentError(f"{name}: reduction={reduction!r} is not known", fix='use "mean", "sum" or "none"')


def reduced(name: str, loss: Any, reduction: str) -> Any:
    """Apply a reduction by name."""
    checked_reduction(name, reduction)
    match reduction:
        case "mean":
            return tnp.mean(loss)
        case "sum":
            return tnp.sum(loss)
    return loss


def matching(name: str, input: Any, target: Any) -> tuple[Any, Any]:
    """Return both as arrays of one shape, or raise ShapeError."""
    x, y = tnp.asarray(input), tnp.asarray(target)
    if x.shape != y.shape:
        shown = [str(Aval(tuple(v.shape), v.dtype)) for v in (x, y)]
        raise ShapeError(
            f"{name}: the input {shown[0]} and the target {shown[1]} differ in shape",
            fix="reshape one of them, for instance target[:, None]",
        )
    return x, y


@rounded_once
def mse_loss(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """Return the squared difference, averaged, summed or as it is.

    >>> import numpy as np
    >>> float(mse_loss(np.array([1.0, 3.0]), np.array([0.0, 0.0])))
    5.0
    """
    x, y = matching("mse_loss", input, target)
    return reduced("mse_loss", tnp.square(x - y), reduction)


@rounded_once
def l1_loss(input: Any, target: Any, *, reduction: str = "mean") -> Any:
    """Return the absolute difference, averaged, summed or as it is."""
    x, y = matching("l1_loss", input, target)
    return reduced("l1_loss", tnp.abs(x - y), reduction)


@rounded_once
def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0) -> Any:
    """Return d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2) (Huber, 1964)."""
    if isinstance(delta, (int, float)) and delta <= 0:
        raise ArgumentError(f"huber_loss: delta is {delta}, not positive", fix="use l1_loss")
    x, y = matching("huber_loss", input, target)
    d = tnp.abs(x - y)
    return reduced("huber_loss", tnp.where(d <= delta, 0.5 * d * d, delta * (d - 0.5 * delta)), reduction)


@rounded_once
def smooth_l1_loss(input: Any, target: Any, *, reduction: str = "mean", beta: float = 1.0) -> Any:
    """Return `huber_loss` with delta = beta, divided by beta."""
    if beta <= 0:
        raise ArgumentError(f"smooth_l1_loss: beta is {beta}, not positive", fix="use l1_loss, which is its limit at 0")
    return huber_loss(input, target, reduction, beta) / beta


@rounded_once
def binary_cross_entropy(input: Any, target: Any, weight: Any = None, *, reduction: str = "mean") -> Any:
    """Return -(t log x + (1 - t) log(1 - x)) for probabilities x, with logarithms of at least -100 and a derivative
    whose denominator x (1 - x) is at least 1e-12, as in PyTorch. Probabilities outside [0, 1] give NaN.

    `binary_cross_entropy_with_logits` is exact for scores of any size, and to be preferred.

    >>> import numpy as np
    >>> float(binary_cross_entropy(np.array([0.5, 1.0]), np.array([1.0, 0.0])).round(3))
    50.347
    """
    x, t = matching("binary_cross_entropy", input, target)
    t = t if t.dtype == x.dtype else t.astype(x.dtype)
    inside = x * (1.0 - x) >= 1e-12
    safe = tnp.where(inside, x, 0.5)
    loss = -(t * tnp.log(safe) + (1.0 - t) * tnp.log1p(-safe))
    held = stop_gradient(x)
    limit = -(t * tnp.maximum(tnp.log(held), -100.0) + (1.0 - t) * tnp.maximum(tnp.log1p(-held), -100.0))
    slope = stop_gradient((x - t) * 1e12)
    loss = tnp.where(inside, loss, limit + (x - held) * slope)
    return reduced("binary_cross_entropy", loss if weight is None else loss * weight, reduction)


@rounded_once
def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None
) -> Any:
    """Return -(p t log sigmoid(x) + (1 - t) log(1 - sigmoid(x))) with p = pos_weight, without overflow.

    >>> import numpy as np
    >>> float(binary_cross_entropy_with_logits(np.array([1000.0, -1000.0]), np.array([1.0, 0.0])))
    0.0
    """
    x, t = matching("binary_cross_entropy_with_logits", input, target)
    t = t if t.dtype == x.dtype else t.astype(x.dtype)
    if pos_weight is None:
        loss = softplus(x) - x * t
    else:
        loss = (1.0 - t) * x + (1.0 + (tnp.asarray(pos_weight) - 1.0) * t) * softplus(-x)
    return reduced("binary_cross_entropy_with_logits", loss if weight is None else loss * weight, reduction)


@rounded_once
def kl_div(input: Any, target: Any, *, reduction: str = "mean", log_target: bool = False) -> Any:
    """Return t (log t - x) for log-probabilities x and probabilities t (or their logarithms), 0 where t is 0.

    "batchmean" divides the sum by the number of rows, which is the divergence of the definition.
    """
    x, t = matching("kl_div", input, target)
    if log_target:
        loss = tnp.exp(t) * (t - x)
    else:
        positive = t > 0
        loss = tnp.where(positive, t * tnp.log(tnp.where(positive, t, 1.0)), 0.0) - t * x
    if reduction == "batchmean":
        return tnp.sum(loss) / x.shape[0]
    return reduced("kl_div", loss, reduction)
