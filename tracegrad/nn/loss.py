"""Losses as modules; class weights are buffers, so no gradient is taken for them."""

from __future__ import annotations

from typing import Any

import tracegrad.numpy as tnp
from tracegrad.nn import functional as F
from tracegrad.nn.functional.loss import checked_reduction
from tracegrad.nn.module import Module


def array_or_none(value: Any) -> Any:
    return None if value is None else tnp.asarray(value)


class Loss(Module):
    """What the losses share: a reduction, "mean", "sum" or "none"."""

    def __init__(self, *, reduction: str = "mean"):
        checked_reduction(type(self).__name__, reduction)
        self.reduction = reduction


class CrossEntropyLoss(Loss):
    """Cross-entropy of scores [N, C, ...] with integer classes or probabilities; see `functional.cross_entropy`.

    >>> import numpy as np
    >>> round(float(CrossEntropyLoss()(np.zeros((2, 4)), np.array([0, 3]))), 6)
    1.386294
    """

    buffer_names = ("weight",)

    def __init__(
        self, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0
    ):
        super().__init__(reduction=reduction)
        self.weight = array_or_none(weight)
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing

    def __call__(self, input: Any, target: Any) -> Any:
        return F.cross_entropy(
            input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction,
            label_smoothing=self.label_smoothing,
        )  # fmt: skip


class NLLLoss(Loss):
    """The loss of log-probabilities [N, C, ...] at integer classes."""

    buffer_names = ("weight",)

    def __init__(self, weight: Any = None, *, ignore_index: int = -100, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.weight = array_or_none(weight)
        self.ignore_index = ignore_index

    def __call__(self, input: Any, target: Any) -> Any:
        return F.nll_loss(input, target, self.weight, ignore_index=self.ignore_index, reduction=self.reduction)


class MSELoss(Loss):
    """The squared difference."""

    def __call__(self, input: Any, target: Any) -> Any:
        return F.mse_loss(input, target, reduction=self.reduction)


class L1Loss(Loss):
    """The absolute difference."""

    def __call__(self, input: Any, target: Any) -> Any:
        return F.l1_loss(input, target, reduction=self.reduction)


class HuberLoss(Loss):
    """Half the squared difference up to delta, and a line from there (Huber, 1964)."""

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        super().__init__(reduction=reduction)
        self.delta = delta

    def __call__(self, input: Any, target: Any) -> Any:
        return F.huber_loss(input, target, self.reduction, self.delta)


class SmoothL1Loss(Loss):
    """HuberLoss with delta = beta, divided by beta."""

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0):
        super().__init__(reduction=reduction)
        self.beta = beta

    def __call__(self, input: Any, target: Any) -> Any:
        return F.smooth_l1_loss(input, target, reduction=self.reduction, beta=self.beta)


class BCELoss(Loss):
    """Binary cross-entropy of probabilities."""

    buffer_names = ("weight",)

    def __init__(self, weight: Any = None, *, reduction: str = "mean"):
        super().__init__(reduction=reduction)
        self.weight = array_or_none(weight)

    def __call__(self, input: Any, target: Any) -> Any:
        return F.binary_cross_entropy(input, target, self.weight, reduction=self.reduction)


class BCEWithLogitsLoss(Loss):
    """Binary cross-entropy of scores, without overflow; pos_weight scales the positive terms."""

    buffer_names = ("weight", "pos_weight")

    def __init__(self, weight: Any = None, *, reduction: str = "mean", pos_weight: Any = None):
        super().__init__(reduction=reduction)
        self.weight = array_or_none(weight)
        self.pos_weight = array_or_none(pos_weight)

    def __call__(self, input: Any, target: Any) -> Any:
        return F.binary_cross_entropy_with_logits(
            input, target, self.weight, reduction=self.reduction, pos_weight=self.pos_weight
        )


class KLDivLoss(Loss):
    """Divergence of log-probabilities from probabilities (or, with log_target, from their logarithms)."""

    def __init__(self, *, reduction: str = "mean", log_target: bool = False):
        super().__init__(reduction="mean" if reduction == "batchmean" else reduction)
        self.reduction = reduction
        self.log_target = log_target

    def __call__(self, input: Any, target: Any) -> Any:
        return F.kl_div(input, target, reduction=self.reduction, log_target=self.log_target)
