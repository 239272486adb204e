"""Normalisation. Variances are means of squared deviations from the mean, in two steps: no cancellation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError, DTypeError, ShapeError
from tracegrad.ir import Aval
from tracegrad.ir.aval import is_float
from tracegrad.numpy.half import rounded_once
from tracegrad.ops.elementwise import rsqrt
from tracegrad.ops.reduce import expand, reduce_sum
from tracegrad.ops.shape import broadcast


def moments(x: Any, axes: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """Return mean, x - mean (of x's shape) and the biased variance; mean and variance without `axes`."""
    if not is_float(x.dtype):
        raise DTypeError(
            f"normalisation of {Aval(tuple(x.shape), x.dtype)}: not floating point", fix="use x.astype(np.float32)"
        )
    share = 1.0 / max(math.prod(x.shape[a] for a in axes), 1)
    mean = reduce_sum(x, axes=axes) * share
    centred = x - expand(mean, x, axes)
    return mean, centred, reduce_sum(centred * centred, axes=axes) * share


def affine(y: Any, weight: Any, bias: Any, axes: tuple[int, ...]) -> Any:
    """Return y * weight + bias with both broadcast along all but `axes`."""
    if weight is not None:
        y = y * broadcast(tnp.asarray(weight), shape=tuple(y.shape), axes=axes)
    return y if bias is None else y + broadcast(tnp.asarray(bias), shape=tuple(y.shape), axes=axes)


@rounded_once
def layer_norm(
    input: Any, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """Return (x - mean) / sqrt(var + eps) * weight + bias over the trailing axes `normalized_shape` (Ba et al., 2016).

    >>> import numpy as np
    >>> layer_norm(np.array([[1.0, 3.0]]), (2,), eps=0.0).tolist()
    [[-1.0, 1.0]]
    """
    x = tnp.asarray(input)
    shape = tuple(normalized_shape)
    if not shape or tuple(x.shape[-len(shape) :]) != shape:
        raise ShapeError(
            f"layer_norm: the trailing axes of {Aval(tuple(x.shape), x.dtype)} are not {shape}",
            fix="check normalized_shape",
        )
    for name, given in (("weight", weight), ("bias", bias)):
        if given is not None and tuple(given.shape) != shape:
            raise ShapeError(
                f"layer_norm: the {name} has shape {tuple(given.shape)}, not {shape}", fix="check normalized_shape"
            )
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    _, centred, variance = moments(x, axes)
    return affine(centred * expand(rsqrt(variance + eps), x, axes), weight, bias, axes)


@rounded_once
def batch_norm(
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float | None = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Return (x - mean) / sqrt(var + eps) * weight + bias for each channel (axis 1) of [N, C, ...].

    Ioffe and Szegedy, "Batch normalization", 2015.

    With `training`, mean and variance are those of the batch; else the running ones are used, and required. Nothing is
    updated in place: take the new running statistics from `batch_statistics`, which uses `momentum`.
    Raises ShapeError for a training batch with one value per channel, whose variance means nothing.
    """
    del momentum
    x = tnp.asarray(input)
    if x.ndim < 2:
        raise ShapeError(f"batch_norm: {Aval(tuple(x.shape), x.dtype)} is not [N, C, ...]", fix="add a batch axis")
    others = tuple(a for a in range(x.ndim) if a != 1)
    for name, given in (
        ("running_mean", running_mean),
        ("running_var", running_var),
        ("weight", weight),
        ("bias", bias),
    ):
        if given is not None and tuple(given.shape) != (x.shape[1],):
            raise ShapeError(
                f"batch_norm: {name} has shape {tuple(given.shape)}, not ({x.shape[1]},)", fix="check num_features"
            )
    if training:
        if math.prod(x.shape[a] for a in others) == 1:
            raise ShapeError(
                f"batch_norm: {Aval(tuple(x.shape), x.dtype)} has one value per channel, which has no variance",
                fix="train on more than one example, or normalise with layer_norm",
            )
        _, centred, variance = moments(x, others)
    elif running_mean is None or running_var is None:
        raise ArgumentError(
            "batch_norm: evaluation needs running_mean and running_var", fix="pass them, or training=True"
        )
    else:
        centred = x - expand(tnp.asarray(running_mean), x, others)
        variance = tnp.asarray(running_var)
    return affine(centred * expand(rsqrt(variance + eps), x, others), weight, bias, (1,))


@rounded_once
def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Return (x - mean) / sqrt(var + eps) * weight[C] + bias[C] over groups of channels of [N, C, ...].

    Wu and He, "Group normalization", 2018. Raises ShapeError when num_groups does not divide C.

    >>> import numpy as np
    >>> group_norm(np.array([[1.0, 3.0, 5.0, 9.0]]), 2, eps=0.0).tolist()
    [[-1.0, 1.0, -1.0, 1.0]]
    """
    x = tnp.asarray(input)
    shape = tuple(x.shape)
    if x.ndim < 2 or num_groups < 1 or shape[1] % num_groups:
        raise ShapeError(
            f"group_norm: {Aval(shape, x.dtype)} is not [N, C, ...] with channels for {num_groups} groups",
            fix="choose num_groups as a divisor of the number of channels",
        )
    for name, given in (("weight", weight), ("bias", bias)):
        if given is not None and tuple(given.shape) != shape[1:2]:
            raise ShapeError(
                f"group_norm: the {name} has shape {tuple(given.shape)}, not ({shape[1]},)", fix="check num_channels"
            )
    rows = tnp.reshape(x, (shape[0], num_groups, math.prod(shape[1:]) // num_groups))
    _, centred, variance = moments(rows, (2,))
    y = tnp.reshape(centred * expand(rsqrt(variance + eps), rows, (2,)), shape)
    return affine(y, weight, bias, (1,))


@rounded_once
def batch_statistics(input: Any, running_mean: Any, running_var: Any, momentum: float = 0.1) -> tuple[Any, Any]:
    """Return the running mean and (unbiased) variance, moved by `momentum` towards the batch's as in PyTorch."""
    x = tnp.asarray(input)
    axes = tuple(a for a in range(x.ndim) if a != 1)
    mean, _, variance = moments(x, axes)
    n = math.prod(x.shape[a] for a in axes)
    unbiased = variance * (n / max(n - 1, 1))
    return (1 - momentum) * running_mean + momentum * mean, (1 - momentum) * running_var + momentum * unbiased


@rounded_once
def normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Any:
    """Return x / max(norm, eps) with the p-norm along `dim`; the gradient at x = 0 is finite.

    >>> import numpy as np
    >>> normalize(np.array([[3.0, 4.0]])).tolist()
    [[0.6, 0.8]]
    """
    x = tnp.asarray(input)
    if p == 2:
        total = tnp.sum(x * x, axis=dim, keepdims=True)
        return x / tnp.sqrt(tnp.maximum(total, eps * eps))
    if p == 1:
        return x / tnp.maximum(tnp.sum(tnp.abs(x), axis=dim, keepdims=True), eps)
    if p == math.inf:
        return x / tnp.maximum(tnp.max(tnp.abs(x), axis=dim, keepdims=True), eps)
    if p <= 0:
        raise ArgumentError(f"normalize: p is {p}, not positive", fix="use p=2")
    total = tnp.sum(tnp.abs(x) ** p, axis=dim, keepdims=True)
    return x / tnp.maximum(total, eps**p) ** (1.0 / p)
