"""Inputs with mean 0 and standard deviation 1 per channel."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracegrad.errors import DTypeError, ShapeError
from tracegrad.ir.aval import is_float, kind_of

Axes = int | tuple[int, ...]
PART = 1 << 20
"""Elements that are converted to float64 at a time."""


@dataclass(frozen=True, eq=False)
class Normaliser:
    """The mean and deviation of a training set, to apply to other data: `(x - mean) / deviation`.

    >>> fit = Normaliser.fit(np.array([[0.0, 5.0], [2.0, 5.0]]), axis=0)
    >>> fit(np.array([4.0, 6.0])).round(3).tolist()
    [3.0, 1000.0]
    """

    mean: Any
    deviation: Any

    @classmethod
    def fit(cls, x: Any, axis: Axes = 0, eps: float = 1e-3) -> Normaliser:
        """Measure mean and deviation over `axis`; the deviation is at least `eps`, so that a constant channel stays
        finite.

        Sums run in float64, over some rows at a time: a memory-mapped array is never held as a whole. Floating-point
        data keep their dtype; integers give float32. For images [N, C, H, W] take axis=(0, 2, 3). Raises
        ShapeError when there is nothing to average over.
        """
        x = np.asarray(x)
        if kind_of(x.dtype) not in "fiub":
            raise DTypeError(f"normalise: the data have dtype {x.dtype}", fix="pass an array of real numbers")
        dtype = x.dtype if is_float(x.dtype) else np.dtype(np.float32)
        axes = (axis,) if isinstance(axis, int) else tuple(axis)
        if any(not -x.ndim <= a < x.ndim for a in axes):
            raise ShapeError(
                f"normalise: axis {axis} does not fit data of shape {x.shape}", fix="use axes of the data, once each"
            )
        axes = tuple(sorted({a % x.ndim for a in axes}))
        if x.size == 0:
            raise ShapeError(f"normalise: the data of shape {x.shape} are empty", fix="pass at least one example")
        count = math.prod(x.shape[a] for a in axes)
        mean = sum(np.sum(part, axes, np.float64, keepdims=True) for part in parts(x, axes)) / count
        squares = sum(np.sum(np.square(part - mean), axes, keepdims=True) for part in parts(x, axes))
        deviation = np.sqrt(squares / count)
        return cls(mean.astype(dtype), np.maximum(deviation, eps).astype(dtype))

    def __call__(self, x: Any) -> Any:
        """Return `x` normalised; an unbatched example works, too."""
        return (x - self.fitted(self.mean, x)) / self.fitted(self.deviation, x)

    def inverse(self, x: Any) -> Any:
        """Undo the normalisation."""
        return x * self.fitted(self.deviation, x) + self.fitted(self.mean, x)

    @staticmethod
    def fitted(statistic: Any, x: Any) -> Any:
        """Drop leading axes of size 1 that `x` does not have."""
        extra = max(0, statistic.ndim - len(np.shape(x)))
        return statistic.reshape(statistic.shape[extra:]) if set(statistic.shape[:extra]) <= {1} else statistic


def parts(x: Any, axes: tuple[int, ...]) -> Iterator[Any]:
    """Yield the array some rows at a time where rows are averaged over, else as a whole."""
    rows = max(1, PART // max(math.prod(x.shape[1:]), 1)) if 0 in axes else max(len(x), 1)
    return (x[start : start + rows] for start in range(0, len(x), rows))


def normalise(x: Any, axis: Axes = 0, eps: float = 1e-3) -> tuple[Any, Any, Any]:
    """Return `((x - mean) / max(sigma, eps), mean, max(sigma, eps))`; mean and sigma keep the reduced axes with size 1.

    >>> y, mean, deviation = normalise(np.array([1.0, 3.0]))
    >>> y.tolist(), mean.tolist(), deviation.tolist()
    ([-1.0, 1.0], [2.0], [1.0])
    """
    fit = Normaliser.fit(x, axis, eps)
    return fit(np.asarray(x)), fit.mean, fit.deviation
