"""Convolutions over signals [N, C, L] and images [N, C, H, W]; the batch axis may be missing."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.nn import functional as F
from tracegrad.nn import init
from tracegrad.nn.functional.conv import PADDING_MODES, pairs, sized, spatial_padding
from tracegrad.nn.module import Module

Size = int | tuple[int, ...]


class Conv(Module):
    """What the convolutions share; `spatial` is the number of axes a kernel slides along."""

    spatial = 0

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype: Any = np.float32,
        key: Any = None,
    ):
        name = type(self).__name__
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ShapeError(
                f"{name}: groups={groups} does not divide in_channels={in_channels} and out_channels={out_channels}",
                fix="choose channel counts that are multiples of groups",
            )
        if padding_mode not in PADDING_MODES:
            raise ArgumentError(
                f"{name}: padding_mode={padding_mode!r} is not known", fix=f"use one of {', '.join(PADDING_MODES)}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = sized(name, "kernel_size", kernel_size, self.spatial)
        self.stride = sized(name, "stride", stride, self.spatial)
        self.padding = padding if isinstance(padding, str) else sized(name, "padding", padding, self.spatial)
        self.dilation = sized(name, "dilation", dilation, self.spatial)
        self.groups = groups
        self.padding_mode = padding_mode
        spatial_padding(name, self.padding, self.kernel_size, self.stride, self.dilation)
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight, self.bias = init.linear_weight_and_bias(init.key_or_default(key), shape, bias, dtype)

    def __call__(self, x: Any) -> Any:
        name = f"conv{self.spatial}d"
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            around = spatial_padding(name, padding, self.kernel_size, self.stride, self.dilation)
            x = F.pad(x, pairs(around), self.padding_mode)
            padding = 0
        convolve = F.conv1d if self.spatial == 1 else F.conv2d
        return convolve(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)


class Conv1d(Conv):
    """Cross-correlation of a signal [N, C, L] with weight [out_channels, in_channels / groups, kernel_size].

    Arguments as torch.nn.Conv1d: padding is a size, "same" (stride 1 only) or "valid"; padding_mode is "zeros",
    "circular", "reflect" or "replicate". The result's length is
    (L + 2 padding - dilation (kernel_size - 1) - 1) // stride + 1.

    >>> Conv1d(2, 16, 3)(np.ones((1, 2, 64), np.float32)).shape
    (1, 16, 62)
    """

    spatial = 1


class Conv2d(Conv):
    """Cross-correlation of an image [N, C, H, W] with weight [out_channels, in_channels / groups, KH, KW].

    Arguments as torch.nn.Conv2d; every size is one number, or one for each axis. See Conv1d.

    >>> Conv2d(20, 16, (3, 5), padding=(1, 2))(np.ones((1, 20, 6, 8), np.float32)).shape
    (1, 16, 6, 8)
    """

    spatial = 2
