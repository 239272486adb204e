"""Convolutions (cross-correlations) and padding."""

from __future__ import annotations

from typing import Any

import numpy as np

import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.ir import Aval, Primitive
from tracegrad.ops import shape as shapes
from tracegrad.ops.conv import conv
from tracegrad.ops.shape import broadcast, concat, flip, slice_
from tracegrad.trace import Tracer

Size = int | tuple[int, ...]
Pads = tuple[tuple[int, int], ...]
PADDING_MODES = ("zeros", "circular", "reflect", "replicate")


def conv1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Any:
    """Return the cross-correlation of [N, C, L] or [C, L] with weight [O, C / groups, K], plus bias [O].

    `padding` is a size, "valid" (none) or "same" (the input's length; stride 1 only). Raises ShapeError when channels,
    groups or sizes do not fit.

    >>> conv1d(np.ones((1, 4)), np.ones((1, 1, 2))).tolist()
    [[2.0, 2.0, 2.0]]
    """
    return convolve("conv1d", input, weight, bias, stride, padding, dilation, groups, 1)


def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Any:
    """Return the cross-correlation of [N, C, H, W] or [C, H, W] with weight [O, C / groups, KH, KW], plus bias [O].

    >>> conv2d(np.ones((1, 1, 4, 4)), np.ones((2, 1, 3, 3)), padding="same").shape
    (1, 2, 4, 4)
    """
    return convolve("conv2d", input, weight, bias, stride, padding, dilation, groups, 2)


def convolve(
    name: str,
    input: Any,
    weight: Any,
    bias: Any,
    stride: Size,
    padding: Size | str,
    dilation: Size,
    groups: int,
    n: int,
) -> Any:
    x, w = tnp.asarray(input), tnp.asarray(weight)
    axes = "[C, L] or [N, C, L]" if n == 1 else "[C, H, W] or [N, C, H, W]"
    if x.ndim not in (n + 1, n + 2) or w.ndim != n + 2:
        shown = [str(Aval(tuple(v.shape), v.dtype)) for v in (x, w)]
        raise ShapeError(
            f"{name}: x {shown[0]} is not {axes}, or weight {shown[1]} does not have {n + 2} axes", fix="check the axes"
        )
    step, spread = sized(name, "stride", stride, n), sized(name, "dilation", dilation, n)
    around = spatial_padding(name, padding, tuple(w.shape[2:]), step, spread)
    batched = x if x.ndim == n + 2 else x[None]
    y = apply(conv, batched, w, stride=step, padding=around, dilation=spread, groups=groups)
    if bias is not None:
        if tuple(bias.shape) != (w.shape[0],):
            raise ShapeError(
                f"{name}: the bias has shape {tuple(bias.shape)}, not ({w.shape[0]},)", fix="check out_channels"
            )
        y = y + broadcast(tnp.asarray(bias), shape=tuple(y.shape), axes=(1,))
    return y if x.ndim == n + 2 else y[0]


def apply(prim: Primitive, *operands: Any, **params: Any) -> Any:
    """Apply a primitive; on arrays its shape rule is run first, so that errors are the same as when tracing."""
    if not any(isinstance(o, Tracer) for o in operands):
        prim.aval(*(Aval(tuple(o.shape), o.dtype) for o in operands), **params)
    return prim(*operands, **params)


def sized(name: str, what: str, value: Any, n: int) -> tuple[int, ...]:
    """Return a size as one integer per axis."""
    sizes = (
        (value,) * n
        if isinstance(value, (int, np.integer))
        else tuple(value)
        if isinstance(value, (tuple, list))
        else None
    )
    if sizes is None or len(sizes) != n or not all(isinstance(s, (int, np.integer)) for s in sizes):
        raise ArgumentError(
            f"{name}: {what}={value!r} is not an integer or {n} of them", fix=f"pass {what}=1 or {(1,) * n}"
        )
    return tuple(int(s) for s in sizes)


def spatial_padding(
    name: str, padding: Any, kernel: tuple[int, ...], stride: tuple[int, ...], dilation: tuple[int, ...]
) -> Pads:
    """Return the padding on both sides of every axis. "same" puts the odd one on the high side, as PyTorch does."""
    if not isinstance(padding, str):
        return tuple((p, p) for p in sized(name, "padding", padding, len(kernel)))
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding != "same":
        raise ArgumentError(f"{name}: padding={padding!r} is not known", fix='use an integer, "same" or "valid"')
    if any(s != 1 for s in stride):
        raise ArgumentError(f'{name}: padding="same" needs stride 1, not {stride}', fix="give the padding as a number")
    totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    return tuple((t // 2, t - t // 2) for t in totals)


def pairs(around: Pads) -> tuple[int, ...]:
    """Return widths in the order of `pad`: last axis first."""
    return tuple(width for axis in reversed(around) for width in axis)


def pad(input: Any, pad: tuple[int, ...], mode: str = "constant", value: float = 0.0) -> Any:
    """Return x with `pad` = (low, high) of the last axis, then of the one before it, and so on.

    Modes: "constant" (or "zeros"), "circular", "reflect", "replicate". Negative widths crop, in constant mode only.

    >>> pad(np.array([1.0, 2.0, 3.0]), (1, 2), "circular").tolist()
    [3.0, 1.0, 2.0, 3.0, 1.0, 2.0]
    """
    x = tnp.asarray(input)
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ShapeError(
            f"pad: {len(pad)} widths do not fit an array of shape {tuple(x.shape)}", fix="pass 2 for each axis"
        )
    if mode not in (*PADDING_MODES, "constant"):
        raise ArgumentError(
            f"pad: mode={mode!r} is not known", fix='use "constant", "circular", "reflect" or "replicate"'
        )
    widths = {x.ndim - 1 - i: (int(pad[2 * i]), int(pad[2 * i + 1])) for i in range(len(pad) // 2)}
    if mode in ("constant", "zeros"):
        return pad_constant(x, widths, value)
    for axis, (low, high) in widths.items():
        if (low, high) != (0, 0):
            x = pad_axis(x, axis, low, high, mode)
    return x


def pad_constant(x: Any, widths: dict[int, tuple[int, int]], value: float) -> Any:
    """Crop by the negative widths, then add the others."""
    for axis, (low, high) in widths.items():
        if low < 0 or high < 0:
            x = cut(x, axis, max(0, -low), x.shape[axis] - max(0, -high))
    lows = tuple(max(0, widths.get(a, (0, 0))[0]) for a in range(x.ndim))
    highs = tuple(max(0, widths.get(a, (0, 0))[1]) for a in range(x.ndim))
    if not any((*lows, *highs)):
        return x
    gap = (0,) * x.ndim
    padded = shapes.pad(x, low=lows, high=highs, gap=gap)
    if value == 0.0:
        return padded
    inside = shapes.pad(tnp.ones_like(x), low=lows, high=highs, gap=gap) != 0
    return tnp.where(inside, padded, value)


def cut(x: Any, axis: int, start: int, stop: int) -> Any:
    """Return x[start:stop] along one axis."""
    if not 0 <= start < stop <= x.shape[axis]:
        raise ShapeError(f"pad: the widths crop axis {axis} of shape {tuple(x.shape)} to nothing", fix="crop less")
    size = tuple(stop - start if a == axis else n for a, n in enumerate(x.shape))
    return slice_(x, start=tuple(start if a == axis else 0 for a in range(x.ndim)), size=size, step=(1,) * x.ndim)


def pad_axis(x: Any, axis: int, low: int, high: int, mode: str) -> Any:
    """Extend one axis by copies of its own elements."""
    n = x.shape[axis]
    limit = {"circular": n, "reflect": n - 1, "replicate": np.inf if n else 0}[mode]
    if min(low, high) < 0 or max(low, high) > limit:
        raise ShapeError(
            f"pad: widths ({low}, {high}) do not fit axis {axis} of shape {tuple(x.shape)} in mode {mode!r}",
            fix=f"use widths from 0 to {limit}",
        )
    parts = []
    match mode:
        case "circular":
            parts = [cut(x, axis, n - low, n)] if low else []
            parts += [x, cut(x, axis, 0, high)] if high else [x]
        case "reflect":
            parts = [flip(cut(x, axis, 1, low + 1), [axis])] if low else []
            parts += [x, flip(cut(x, axis, n - 1 - high, n - 1), [axis])] if high else [x]
        case "replicate":
            parts = [tnp.repeat(cut(x, axis, 0, 1), low, axis=axis)] if low else []
            parts += [x, tnp.repeat(cut(x, axis, n - 1, n), high, axis=axis)] if high else [x]
    return concat(*parts, axis=axis)
