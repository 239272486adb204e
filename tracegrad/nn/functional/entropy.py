"""Cross-entropy of class scores.

    z = x - max(x);  loss[n] = log(sum_c exp(z[n, c])) - sum_c where(c == y[n], z[n, c], 0)

The class of a row is picked by comparing 0, 1, 2, ... along the class axis with it: in a compiled program this stays
inside the loop over the row that computes the softmax; a gather would not.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tracegrad.numpy as tnp
from tracegrad.errors import DTypeError, IndexOutOfBounds, ShapeError
from tracegrad.ir import Aval
from tracegrad.ir.aval import is_float
from tracegrad.nn.functional.activation import log_partition, log_softmax, shifted
from tracegrad.nn.functional.loss import checked_reduction, reduced
from tracegrad.numpy.half import rounded_once
from tracegrad.ops.elementwise import where
from tracegrad.ops.reduce import expand, reduce_sum
from tracegrad.ops.shape import broadcast
from tracegrad.trace import Tracer, current_trace


@rounded_once
def cross_entropy(
    input: Any,
    target: Any,
    weight: Any = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:
    """Return the cross-entropy between scores and classes.

    `input` is [N, C], [N, C, d1, ...] or [C]. `target` is either integers of input's shape without the class axis, or
    probabilities of input's own shape. `weight` [C] scales the classes. With reduction "mean" the sum is divided by the
    (weighted) number of rows that are not `ignore_index`.

    An index outside 0 to C - 1 raises IndexOutOfBounds when the indices are known; in compiled code its row, and the
    row's gradient, are NaN.

    >>> float(cross_entropy(np.zeros((2, 4)), np.array([0, 3])).round(6))
    1.386294
    """
    scores, y = operands("cross_entropy", input, target)
    if is_float(y.dtype):
        return soft_cross_entropy(scores, y, weight, reduction, label_smoothing)
    z, axes = shifted(scores, class_axis(scores), "cross_entropy")
    return class_loss("cross_entropy", z, log_partition(z, axes), y, weight, ignore_index, reduction, label_smoothing)


@rounded_once
def nll_loss(input: Any, target: Any, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean") -> Any:
    """Return the loss of log-probabilities [N, C, ...] or [C] at the classes `target`; see `cross_entropy`."""
    logp, y = operands("nll_loss", input, target)
    return class_loss("nll_loss", logp, None, y, weight, ignore_index, reduction, 0.0)


def class_axis(scores: Any) -> int:
    return 0 if scores.ndim == 1 else 1


def operands(name: str, input: Any, target: Any) -> tuple[Any, Any]:
    """Check and return scores and target as arrays."""
    scores, y = tnp.asarray(input), tnp.asarray(target)
    if scores.ndim == 0 or not is_float(scores.dtype):
        raise DTypeError(f"{name}: the input {shown(scores)} is not a floating-point array [N, C]", fix="pass scores")
    axis = class_axis(scores)
    rows = (*scores.shape[:axis], *scores.shape[axis + 1 :])
    if y.dtype.kind in "iu" and y.shape != rows:
        raise ShapeError(
            f"{name}: the classes {shown(y)} do not fit the input {shown(scores)}",
            fix=f"pass integers of shape {rows}; the class axis is axis {axis}",
        )
    if is_float(y.dtype) and (y.shape != scores.shape or name == "nll_loss"):
        raise ShapeError(
            f"{name}: the probabilities {shown(y)} do not fit the input {shown(scores)}",
            fix="pass integer classes, or probabilities of the input's shape",
        )
    if y.dtype.kind == "b":
        raise DTypeError(f"{name}: the target {shown(y)} is bool", fix="pass y.astype(np.int64)")
    return scores, y


def shown(x: Any) -> str:
    return str(Aval(tuple(x.shape), x.dtype))


def soft_cross_entropy(scores: Any, p: Any, weight: Any, reduction: str, smoothing: float) -> Any:
    """Return -sum_c weight[c] p[c] logp[c]; the mean is over rows, as in PyTorch."""
    checked_reduction("cross_entropy", reduction)
    axis = class_axis(scores)
    p = p if p.dtype == scores.dtype else p.astype(scores.dtype)
    if smoothing:
        p = p * (1.0 - smoothing) + smoothing / scores.shape[axis]
    if weight is not None:
        p = p * broadcast(class_weight(weight, scores), shape=tuple(scores.shape), axes=(axis,))
    return reduced("cross_entropy", -tnp.sum(p * log_softmax(scores, axis), axis=axis), reduction)


def class_loss(
    name: str, z: Any, partition: Any, y: Any, weight: Any, ignore: int, reduction: str, smoothing: float
) -> Any:
    """Return the loss at integer classes of log-probabilities z - partition; a partition of None is 0.

    The factor of a row is its class's weight, 0 if it is ignored and NaN if its class does not exist: NaN reaches the
    gradient through a product, where a `where` would leave it 0.
    """
    checked_reduction(name, reduction)
    axis = class_axis(z)
    n = z.shape[axis]
    zero, one, nan = (z.dtype.type(v) for v in (0, 1, np.nan))
    check_classes(name, y, n, ignore)
    y = y if y.dtype == np.int64 else y.astype(np.int64)
    factor = tnp.where(y == ignore, zero, tnp.where((y >= 0) & (y < n), one, nan))
    chosen = expand(y.astype(np.int32), z, (axis,)) == line(n, z, axis)
    rows = -reduce_sum(where(chosen, z, zero), axes=(axis,))
    rows = rows if partition is None else partition + rows
    weight = None if weight is None else broadcast(class_weight(weight, z), shape=tuple(z.shape), axes=(axis,))
    scale = factor if weight is None else factor * reduce_sum(where(chosen, weight, zero), axes=(axis,))
    total = rows * scale
    if smoothing:
        even = z if partition is None else z - expand(partition, z, (axis,))
        even = reduce_sum(even if weight is None else even * weight, axes=(axis,))
        total = (1.0 - smoothing) * total - (smoothing / n) * (even * factor)
    if reduction != "mean":
        return reduced(name, total, reduction)
    whole = tnp.sum(scale)
    some = whole != 0.0  # where all rows are ignored the mean is NaN, and its gradient 0, as in PyTorch
    return tnp.where(some, tnp.sum(total) / tnp.where(some, whole, 1.0), np.nan)


def line(n: int, z: Any, axis: int) -> Any:
    """Return 0, 1, ..., n - 1 along `axis`, int32, in the shape of z."""
    return broadcast(tnp.arange(n, dtype=np.int32), shape=tuple(z.shape), axes=(axis,))


def check_classes(name: str, y: Any, n: int, ignore_index: int) -> None:
    """Refuse classes that are known and wrong; while a graph is built the values are not known."""
    if isinstance(y, Tracer):
        if not y._trace.computes:
            return
        y = y.concrete(name, "")
        if isinstance(y, Tracer):
            return
    elif current_trace() is not None:
        return
    wrong = np.asarray((y != ignore_index) & ((y < 0) | (y >= n)))
    if wrong.any():
        bad = int(np.asarray(y)[wrong].flat[0])
        raise IndexOutOfBounds(
            f"{name}: class {bad} is out of bounds for {n} classes", fix=f"use classes from 0 to {n - 1}"
        )


def class_weight(weight: Any, scores: Any) -> Any:
    """Return the weight of each class, checked, in the dtype of the scores."""
    weight = tnp.asarray(weight)
    n = scores.shape[class_axis(scores)]
    if tuple(weight.shape) != (n,):
        raise ShapeError(f"cross_entropy: the weight {shown(weight)} is not [{n}]", fix="pass one weight per class")
    return weight if weight.dtype == scores.dtype else weight.astype(scores.dtype)
