"""Convolutions (cross-correlations)."""

from __future__ import annotations

from typing import Any

import numpy as np

import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.ir import Aval, Primitive
from tracegrad.numpy.half import rounded_once
from tracegrad.ops.conv import conv
from tracegrad.ops.shape import broadcast
from tracegrad.trace import Tracer

Size = int | tuple[int, ...]
Pads = tuple[tuple[int, int], ...]
Around = Size | Pads | str
AXES = {n: f"[C, {s}] or [N, C, {s}]" for n, s in {1: "L", 2: "H, W", 3: "D, H, W"}.items()}


@rounded_once
def conv1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Size = 1,
    padding: Around = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Any:
    """Return the cross-correlation of [N, C, L] or [C, L] with weight [O, C / groups, K], plus bias [O].

    The result's length is (L + 2 padding - dilation (K - 1) - 1) // stride + 1. `padding` is a size, a pair ((low,
    high),), "valid" (none) or "same" (the input's length; stride 1 only). Raises ShapeError when channels, groups or
    sizes do not fit, DTypeError unless both operands have one floating-point dtype.

    >>> conv1d(np.ones((1, 4)), np.ones((1, 1, 2))).tolist()
    [[2.0, 2.0, 2.0]]
    """
    return convolve("conv1d", input, weight, bias, stride, padding, dilation, groups, 1)


@rounded_once
def conv2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Size = 1,
    padding: Around = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Any:
    """Return the cross-correlation of [N, C, H, W] or [C, H, W] with weight [O, C / groups, KH, KW], plus bias [O].

    Every size is one number or one for each axis; padding may be a pair (low, high) for each axis. See conv1d.

    >>> conv2d(np.ones((1, 1, 4, 4)), np.ones((2, 1, 3, 3)), padding="same").shape
    (1, 2, 4, 4)
    """
    return convolve("conv2d", input, weight, bias, stride, padding, dilation, groups, 2)


@rounded_once
def conv3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Size = 1,
    padding: Around = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Any:
    """Return the cross-correlation of [N, C, D, H, W] or [C, D, H, W] with weight [O, C / groups, KD, KH, KW].

    See conv1d and conv2d.

    >>> conv3d(np.ones((1, 1, 4, 4, 4)), np.ones((2, 1, 3, 3, 3)), padding=(0, 1, 1)).shape
    (1, 2, 2, 4, 4)
    """
    return convolve("conv3d", input, weight, bias, stride, padding, dilation, groups, 3)


def convolve(
    name: str,
    input: Any,
    weight: Any,
    bias: Any,
    stride: Size,
    padding: Around,
    dilation: Size,
    groups: int,
    n: int,
) -> Any:
    x, w = operands(name, input, weight, n)
    step, spread = sized(name, "stride", stride, n), sized(name, "dilation", dilation, n)
    around = spatial_padding(name, padding, tuple(w.shape[2:]), step, spread)
    batched = x if x.ndim == n + 2 else x[None]
    y = with_bias(name, apply(conv, batched, w, stride=step, padding=around, dilation=spread, groups=groups), bias)
    return y if x.ndim == n + 2 else y[0]


def operands(name: str, input: Any, weight: Any, n: int) -> tuple[Any, Any]:
    """Return both operands as arrays; wrong numbers of axes are refused."""
    x, w = tnp.asarray(input), tnp.asarray(weight)
    if x.ndim not in (n + 1, n + 2) or w.ndim != n + 2:
        raise ShapeError(
            f"{name}: x {shown(x)} is not {AXES[n]}, or weight {shown(w)} does not have {n + 2} axes",
            fix="check the axes",
        )
    return x, w


def shown(x: Any) -> str:
    """Return dtype and shape as messages show them."""
    return str(Aval(tuple(x.shape), x.dtype))


def with_bias(name: str, y: Any, bias: Any) -> Any:
    """Add bias [O] to y [N, O, ...]."""
    if bias is None:
        return y
    if tuple(bias.shape) != (y.shape[1],):
        raise ShapeError(
            f"{name}: the bias has shape {tuple(bias.shape)}, not ({y.shape[1]},)", fix="check out_channels"
        )
    return y + broadcast(tnp.asarray(bias), shape=tuple(y.shape), axes=(1,))


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
    if isinstance(padding, (tuple, list)) and padding and all(isinstance(p, (tuple, list)) for p in padding):
        if len(padding) != len(kernel):
            raise ArgumentError(
                f"{name}: padding={padding!r} does not have a pair for each of the kernel's sizes {kernel}",
                fix=f"pass padding={((1, 1),) * len(kernel)}",
            )
        low, high = ([sized(name, "padding", p, 2)[side] for p in padding] for side in (0, 1))
        return tuple(zip(low, high, strict=True))
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
