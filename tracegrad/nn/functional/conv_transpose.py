"""Transposed convolutions: the gradient of a convolution's data, as a function of its own.

    <conv(x, w), y> = <x, conv_transpose(y, w)>        with one w: [O, C / groups, K] is [in, out / groups, K] here
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.errors import DTypeError, ShapeError
from tracegrad.ir.aval import is_float
from tracegrad.nn.functional.conv import Size, apply, operands, shown, sized, with_bias
from tracegrad.numpy.half import rounded_once
from tracegrad.ops.conv import conv_dx
from tracegrad.ops.shape import pad

Ints = tuple[int, ...]


@rounded_once
def conv_transpose1d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Any:
    """Return the transposed convolution of [N, C, L] or [C, L] with weight [C, O / groups, K], plus bias [O].

    Every input element adds its multiple of the kernel to the result, `stride` apart; `padding` is cut off both ends,
    `output_padding` (less than stride or dilation) is added to the high one: the length is
    (L - 1) stride - 2 padding + dilation (K - 1) + output_padding + 1. Raises ShapeError when channels, groups or sizes
    do not fit, DTypeError unless both operands have one floating-point dtype.

    >>> conv_transpose1d(np.array([[[1.0, 2.0]]]), np.array([[[1.0, 10.0, 100.0]]]), stride=2).tolist()
    [[[1.0, 10.0, 102.0, 20.0, 200.0]]]
    """
    return transposed("conv_transpose1d", input, weight, bias, stride, padding, output_padding, groups, dilation, 1)


@rounded_once
def conv_transpose2d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Any:
    """Return the transposed convolution of [N, C, H, W] or [C, H, W] with weight [C, O / groups, KH, KW], plus bias.

    Every size is one number or one for each axis. See conv_transpose1d.

    >>> conv_transpose2d(np.ones((1, 3, 8, 8)), np.ones((3, 2, 4, 4)), stride=2, padding=1).shape
    (1, 2, 16, 16)
    """
    return transposed("conv_transpose2d", input, weight, bias, stride, padding, output_padding, groups, dilation, 2)


@rounded_once
def conv_transpose3d(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Any:
    """Return the transposed convolution of [N, C, D, H, W] or [C, D, H, W] with weight [C, O / groups, KD, KH, KW].

    See conv_transpose1d.

    >>> conv_transpose3d(np.ones((1, 3, 2, 4, 4)), np.ones((3, 2, 2, 2, 2)), stride=2).shape
    (1, 2, 4, 8, 8)
    """
    return transposed("conv_transpose3d", input, weight, bias, stride, padding, output_padding, groups, dilation, 3)


def transposed(
    name: str,
    input: Any,
    weight: Any,
    bias: Any,
    stride: Size,
    padding: Size,
    output_padding: Size,
    groups: int,
    dilation: Size,
    n: int,
) -> Any:
    x, w = operands(name, input, weight, n)
    batched = x if x.ndim == n + 2 else x[None]
    step, spread = sized(name, "stride", stride, n), sized(name, "dilation", dilation, n)
    cut, extra = sized(name, "padding", padding, n), sized(name, "output_padding", output_padding, n)
    check_operands(name, batched, w, groups)
    check_sizes(name, x, w, step, cut, extra, spread)
    full = out_sizes(tuple(batched.shape[2:]), tuple(w.shape[2:]), step, cut, extra, spread)
    # An extra below the stride is the remainder of a size that the stride does not divide; one that is not below it
    # (but below the dilation) takes back what padding cuts off the high end, and adds zeros when nothing is left there.
    highs = [p if e < s else max(0, p - e) for p, e, s in zip(cut, extra, step, strict=True)]
    beyond = [max(0, e - p) if e >= s else 0 for p, e, s in zip(cut, extra, step, strict=True)]
    y = apply(
        conv_dx,
        batched,
        w,
        stride=step,
        padding=tuple(zip(cut, highs, strict=True)),
        dilation=spread,
        groups=groups,
        size=tuple(m - b for m, b in zip(full, beyond, strict=True)),
    )
    if any(beyond):
        y = pad(y, low=(0,) * (n + 2), high=(0, 0, *beyond), gap=(0,) * (n + 2))
    y = with_bias(name, y, bias)
    return y if x.ndim == n + 2 else y[0]


def out_sizes(size: Ints, kernel: Ints, stride: Ints, padding: Ints, extra: Ints, dilation: Ints) -> Ints:
    """Return the spatial sizes of the result."""
    axes = zip(size, kernel, stride, padding, extra, dilation, strict=True)
    return tuple((n - 1) * s - 2 * p + d * (k - 1) + e + 1 for n, k, s, p, e, d in axes)


def check_operands(name: str, x: Any, w: Any, groups: int) -> None:
    """Refuse dtypes, channels and groups that do not fit."""
    if x.dtype != w.dtype or not is_float(np.dtype(x.dtype)):
        raise DTypeError(
            f"{name}: x {shown(x)} and weight {shown(w)} must have one floating-point dtype",
            fix="convert with x.astype(...)",
        )
    if x.shape[1] != w.shape[0]:
        raise ShapeError(
            f"{name}: x {shown(x)} has {x.shape[1]} channels but weight {shown(w)} expects {w.shape[0]}",
            fix="pass a weight [in_channels, out_channels / groups, ...]",
        )
    if groups < 1 or x.shape[1] % groups:
        raise ShapeError(
            f"{name}: groups={groups} does not divide the {x.shape[1]} channels of x {shown(x)} and weight {shown(w)}",
            fix="choose groups that divide in_channels",
        )


def check_sizes(name: str, x: Any, w: Any, stride: Ints, padding: Ints, extra: Ints, dilation: Ints) -> None:
    """Refuse sizes that no transposed convolution has."""
    both = f"of x {shown(x)} and weight {shown(w)}"
    if min(stride) < 1 or min(dilation) < 1 or min(padding) < 0 or min(w.shape[2:]) < 1:
        raise ShapeError(
            f"{name} {both}: stride {stride}, dilation {dilation} and the kernel's sizes must be positive, "
            f"padding {padding} not negative",
            fix="use stride=1, dilation=1, padding=0, and change one at a time",
        )
    if any(e < 0 or e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
        raise ShapeError(
            f"{name} {both}: output_padding {extra} must be at least 0 and less than stride {stride} or "
            f"dilation {dilation}",
            fix="use a smaller output_padding; pad the result for more",
        )
    size = tuple(x.shape[-len(stride) :])
    out = out_sizes(size, tuple(w.shape[2:]), stride, padding, extra, dilation)
    if min(size) < 1 or min(out) < 1:
        raise ShapeError(
            f"{name} {both}: the result would have the sizes {out} = (size - 1) * stride - 2 * padding + "
            "dilation * (kernel - 1) + output_padding + 1, and inputs and results must not be empty",
            fix="use less padding",
        )
