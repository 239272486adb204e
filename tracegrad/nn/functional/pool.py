"""Pooling: the maximum and the mean of windows along the trailing axes."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.ir import Aval
from tracegrad.ir.aval import is_float
from tracegrad.nn.functional.conv import Pads, apply, sized
from tracegrad.numpy.half import rounded_once
from tracegrad.ops.pool import max_pool, sum_pool

Size = int | tuple[int, ...]


def max_pool1d(
    input: Any,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Any:
    """Return the largest element of every window of [N, C, L] or [C, L]; positions outside count as -inf.

    The stride is the window by default; dilation other than 1 is not supported. `ceil_mode` keeps a last window that
    sticks out. Raises ShapeError when the window does not fit, or the padding is more than half of it.
    """
    return pooled("max_pool1d", input, kernel_size, stride, padding, dilation, ceil_mode, 1)


def max_pool2d(
    input: Any,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    dilation: Size = 1,
    ceil_mode: bool = False,
) -> Any:
    """Return the largest element of every window of [N, C, H, W] or [C, H, W]; see `max_pool1d`.

    >>> max_pool2d(np.arange(16.0).reshape(1, 4, 4), 2).tolist()
    [[[5.0, 7.0], [13.0, 15.0]]]
    """
    return pooled("max_pool2d", input, kernel_size, stride, padding, dilation, ceil_mode, 2)


@rounded_once
def avg_pool1d(
    input: Any,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Any:
    """Return the mean of every window of [N, C, L] or [C, L].

    Zeros of the padding count as elements unless count_include_pad=False; what `ceil_mode` adds never counts.
    """
    return averaged("avg_pool1d", input, kernel_size, stride, padding, ceil_mode, count_include_pad, None, 1)


@rounded_once
def avg_pool2d(
    input: Any,
    kernel_size: Size,
    stride: Size | None = None,
    padding: Size = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: float | None = None,
) -> Any:
    """Return the mean of every window of [N, C, H, W] or [C, H, W]; see `avg_pool1d`. A `divisor_override` divides the
    sums instead of the number of elements.

    >>> avg_pool2d(np.arange(16.0).reshape(1, 4, 4), 2).tolist()
    [[[2.5, 4.5], [10.5, 12.5]]]
    """
    return averaged(
        "avg_pool2d", input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override, 2
    )


@rounded_once
def adaptive_avg_pool1d(input: Any, output_size: int | tuple[int | None, ...]) -> Any:
    """Return the means of `output_size` windows along the last axis of [N, C, L] or [C, L].

    Window i reaches from floor(i L / n) to ceil((i + 1) L / n).

    >>> adaptive_avg_pool1d(np.arange(5.0)[None], 2).tolist()
    [[1.0, 3.0]]
    """
    return adaptive("adaptive_avg_pool1d", input, output_size, 1)


@rounded_once
def adaptive_avg_pool2d(input: Any, output_size: int | tuple[int | None, ...]) -> Any:
    """Return the means of windows of [N, C, H, W] or [C, H, W]; a size of None keeps that axis. See
    `adaptive_avg_pool1d`.

    >>> adaptive_avg_pool2d(np.arange(16.0).reshape(1, 4, 4), 1).tolist()
    [[[7.5]]]
    """
    return adaptive("adaptive_avg_pool2d", input, output_size, 2)


def adaptive(name: str, input: Any, output_size: Any, n: int) -> Any:
    x = tnp.asarray(input)
    if x.ndim not in (n + 1, n + 2) or not is_float(x.dtype):
        axes = "[C, L] or [N, C, L]" if n == 1 else "[C, H, W] or [N, C, H, W]"
        raise ShapeError(
            f"{name}: {Aval(tuple(x.shape), x.dtype)} is not a floating-point array {axes}", fix="check the input"
        )
    wanted = output_size if isinstance(output_size, (tuple, list)) else (output_size,) * n
    spatial = x.shape[x.ndim - n :]
    if len(wanted) == n:
        wanted = [d if w is None else w for w, d in zip(wanted, spatial, strict=True)]
    sizes = sized(name, "output_size", wanted, n)
    if min(sizes) < 1 or min(spatial) < 1:
        raise ShapeError(f"{name}: {tuple(spatial)} cannot be pooled to {sizes}", fix="use sizes of 1 or more")
    if all(size == 1 for size in sizes):
        return tnp.mean(x, axis=tuple(range(x.ndim - n, x.ndim)), keepdims=True)
    if all(d % size == 0 for d, size in zip(spatial, sizes, strict=True)):
        window = tuple(d // size for d, size in zip(spatial, sizes, strict=True))
        total = apply(sum_pool, x, window=window, stride=window, padding=((0, 0),) * n)
        return total * (1.0 / float(np.prod(window)))
    for axis, size in zip(range(x.ndim - n, x.ndim), sizes, strict=True):
        x = window_means(x, axis, size)
    return x


def window_means(x: Any, axis: int, n: int) -> Any:
    """Return the means of `n` windows along one axis; what lies outside a window is selected away, never multiplied
    by 0."""
    length = x.shape[axis]
    if length == n:
        return x
    start = np.arange(n) * length // n
    stop = -(-(np.arange(n) + 1) * length // n)
    index = start[:, None] + np.arange(int((stop - start).max()))
    inside = index < stop[:, None]
    rows = tnp.take(x, np.minimum(index, length - 1), axis=axis)
    after = (1,) * (x.ndim - axis - 1)
    total = tnp.sum(tnp.where(inside.reshape(*inside.shape, *after), rows, 0.0), axis=axis + 1)
    return total * (1.0 / (stop - start)).astype(x.dtype).reshape(n, *after)


def pooled(
    name: str,
    input: Any,
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    dilation: Size,
    ceil_mode: bool,
    n: int,
) -> Any:
    if any(d != 1 for d in sized(name, "dilation", dilation, n)):
        raise ArgumentError(
            f"{name}: dilation={dilation} is not supported", fix="use dilation=1, or slice the input first"
        )
    x, window, step, pads = geometry(name, input, kernel_size, stride, padding, ceil_mode, n)
    return apply(max_pool, x, window=window, stride=step, padding=pads)


def averaged(
    name: str,
    input: Any,
    kernel_size: Size,
    stride: Size | None,
    padding: Size,
    ceil_mode: bool,
    include: bool,
    divisor: float | None,
    n: int,
) -> Any:
    if divisor == 0:
        raise ArgumentError(f"{name}: divisor_override is 0", fix="leave it out")
    x, window, step, pads = geometry(name, input, kernel_size, stride, padding, ceil_mode, n)
    total = apply(sum_pool, x, window=window, stride=step, padding=pads)
    if divisor is not None:
        return total * (1.0 / divisor)
    counts = [
        axis_counts(size, k, s, pad, include) for size, k, s, pad in zip(x.shape[-n:], window, step, pads, strict=True)
    ]
    if all((c == c[0]).all() for c in counts):
        return total * (1.0 / float(np.prod([c[0] for c in counts])))
    weight = reduce(np.multiply.outer, [1.0 / c for c in counts]).astype(x.dtype)
    return total * weight


def geometry(
    name: str, input: Any, kernel_size: Size, stride: Size | None, padding: Size, ceil_mode: bool, n: int
) -> tuple[Any, tuple[int, ...], tuple[int, ...], Pads]:
    """Check the arguments; return the array, window, stride and the padding on both sides of each axis."""
    x = tnp.asarray(input)
    if x.ndim not in (n + 1, n + 2):
        axes = "[C, L] or [N, C, L]" if n == 1 else "[C, H, W] or [N, C, H, W]"
        raise ShapeError(f"{name}: {Aval(tuple(x.shape), x.dtype)} is not {axes}", fix="check the axes of the input")
    window = sized(name, "kernel_size", kernel_size, n)
    step = window if stride is None else sized(name, "stride", stride, n)
    around = sized(name, "padding", padding, n)
    if any(2 * p > k for p, k in zip(around, window, strict=True)):
        raise ShapeError(
            f"{name}: the padding {around} is more than half of the window {window}", fix="use less padding"
        )
    high = list(around)
    if ceil_mode:
        for axis, (size, k, s, p) in enumerate(zip(x.shape[-n:], window, step, around, strict=True)):
            out = -(-(size + 2 * p - k) // s) + 1
            if (out - 1) * s >= size + p:
                out -= 1
            high[axis] += max(0, (out - 1) * s + k - size - 2 * p)
    return x, window, step, tuple(zip(around, high, strict=True))


def axis_counts(size: int, k: int, stride: int, pad: tuple[int, int], include: bool) -> Any:
    """Return how many elements of each window along one axis count: those inside, or also those in the padding."""
    low, high = pad
    start = np.arange((size + low + high - k) // stride + 1) * stride - low
    stop = np.minimum(start + k, size + low)
    return stop - start if include else np.minimum(stop, size) - np.maximum(start, 0)
