"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.ir import Aval
from tracegrad.nn import functional as F
from tracegrad.nn import init
from tracegrad.nn.buffers import latest, update
from tracegrad.nn.module import Module
from tracegrad.ops.elementwise import stop_gradient


class BatchNorm(Module):
    """What the batch normalisations share; `ranks` are the numbers of axes that an input may have.

    In training, mean and variance of the batch normalise it and move the running ones (the variance's estimate without
    bias) by `momentum`, or, with momentum=None, to the mean over all batches so far; in evaluation the running ones
    normalise. With track_running_stats=False there are none, and the batch's are used always.
    """

    buffer_names = ("running_mean", "running_var", "num_batches_tracked")
    ranks: tuple[int, ...] = ()
    axes = ""

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        *,
        dtype: Any = np.float32,
    ):
        shape = (num_features,)
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.weight = init.ones(shape, dtype) if affine else None
        self.bias = init.zeros(shape, dtype) if affine else None
        self.running_mean = init.zeros(shape, dtype) if track_running_stats else None
        self.running_var = init.ones(shape, dtype) if track_running_stats else None
        self.num_batches_tracked = np.zeros((), np.int64) if track_running_stats else None

    def __call__(self, x: Any, *, training: bool = False) -> Any:
        x = tnp.asarray(x)
        name = type(self).__name__
        if x.ndim not in self.ranks or x.shape[1] != self.num_features:
            raise ShapeError(
                f"{name}: {Aval(tuple(x.shape), x.dtype)} is not {self.axes} with C = {self.num_features}",
                fix="check num_features, or add a batch axis with x[None]",
            )
        if self.track_running_stats and self.running_mean is None:
            raise ArgumentError(
                f"{name}: its running statistics were split off", fix="call nn.merge(params, buffers)(x)"
            )
        if not self.track_running_stats or training:
            y = F.batch_norm(x, None, None, self.weight, self.bias, True, eps=self.eps)
            if self.track_running_stats:
                self.move(x)
            return y
        mean, variance = stop_gradient(self.running_mean), stop_gradient(self.running_var)
        return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=self.eps)

    def move(self, x: Any) -> None:
        """Hand over the running statistics after this batch, in the dtypes they have: no step traces again."""
        old = latest(self)
        count = old["num_batches_tracked"] + 1
        mean, variance = old["running_mean"], old["running_var"]
        share = tnp.astype(1.0 / count, mean.dtype) if self.momentum is None else self.momentum
        moved = [tnp.astype(stop_gradient(v), mean.dtype) for v in F.batch_statistics(x, mean, variance, share)]
        update(self, running_mean=moved[0], running_var=moved[1], num_batches_tracked=count)


class BatchNorm1d(BatchNorm):
    """(x - mean) / sqrt(variance + eps) * weight + bias for each channel of [N, C] or [N, C, L] (Ioffe and Szegedy,
    2015).

    Arguments as torch.nn.BatchNorm1d. `bn(x)` uses the running statistics; in training, `bn(x, training=True)`, they
    change, and `nn.functional_call` returns them. Raises ShapeError for other axes or channels, ArgumentError when the
    new statistics would be lost.

    >>> BatchNorm1d(3)(np.ones((2, 3), np.float32)).shape
    (2, 3)
    """

    ranks = (2, 3)
    axes = "[N, C] or [N, C, L]"


class BatchNorm2d(BatchNorm):
    """Batch normalisation of images [N, C, H, W]; see BatchNorm1d.

    >>> list(BatchNorm2d(3).state_dict())
    ['weight', 'bias', 'running_mean', 'running_var', 'num_batches_tracked']
    """

    ranks = (4,)
    axes = "[N, C, H, W]"


class BatchNorm3d(BatchNorm):
    """Batch normalisation of volumes [N, C, D, H, W]; see BatchNorm1d."""

    ranks = (5,)
    axes = "[N, C, D, H, W]"


class LayerNorm(Module):
    """(x - mean) / sqrt(variance + eps) over the trailing axes `normalized_shape`, times weight, plus bias.

    >>> LayerNorm(4)(np.ones((2, 4), np.float32)).shape
    (2, 4)
    """

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        dtype: Any = np.float32,
    ):
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
        self.normalized_shape = shape
        self.eps = eps
        self.weight = init.ones(shape, dtype) if elementwise_affine else None
        self.bias = init.zeros(shape, dtype) if elementwise_affine and bias else None

    def __call__(self, x: Any) -> Any:
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class GroupNorm(Module):
    """(x - mean) / sqrt(variance + eps) over groups of channels of [N, C, ...], times weight[C], plus bias[C] (Wu and
    He, 2018).

    >>> GroupNorm(2, 4)(np.ones((2, 4, 5), np.float32)).shape
    (2, 4, 5)
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, *, dtype: Any = np.float32
    ):
        if num_groups < 1 or num_channels % num_groups:
            raise ShapeError(
                f"GroupNorm: num_groups={num_groups} does not divide num_channels={num_channels}",
                fix="choose num_channels as a multiple of num_groups",
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.weight = init.ones((num_channels,), dtype) if affine else None
        self.bias = init.zeros((num_channels,), dtype) if affine else None

    def __call__(self, x: Any) -> Any:
        shape = tuple(np.shape(x)) if not hasattr(x, "shape") else tuple(x.shape)
        if len(shape) < 2 or shape[1] != self.num_channels:
            raise ShapeError(
                f"GroupNorm: an input of shape {shape} is not [N, C, ...] with C = {self.num_channels}",
                fix="check num_channels, or add a batch axis with x[None]",
            )
        return F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
