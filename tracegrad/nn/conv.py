"""Convolutions over signals [N, C, L], images [N, C, H, W] and volumes [N, C, D, H, W]; N may be missing."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.nn import functional as F
from tracegrad.nn import init
from tracegrad.nn.functional.conv import Around, sized, spatial_padding
from tracegrad.nn.functional.conv_transpose import out_sizes
from tracegrad.nn.functional.padding import PADDING_MODES, pairs
from tracegrad.nn.module import Module

Size = int | tuple[int, ...]


def check_groups(name: str, groups: int, in_channels: int, out_channels: int) -> None:
    if groups < 1 or in_channels % groups or out_channels % groups:
        raise ShapeError(
            f"{name}: groups={groups} does not divide in_channels={in_channels} and out_channels={out_channels}",
            fix="choose channel counts that are multiples of groups",
        )


class Conv(Module):
    """What the convolutions share; `spatial` is the number of axes a kernel slides along."""

    spatial = 0

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Around = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        dtype: Any = np.float32,
        key: Any = None,
    ):
        name = type(self).__name__
        check_groups(name, groups, in_channels, out_channels)
        if padding_mode not in PADDING_MODES:
            raise ArgumentError(
                f"{name}: padding_mode={padding_mode!r} is not known", fix=f"use one of {', '.join(PADDING_MODES)}"
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = sized(name, "kernel_size", kernel_size, self.spatial)
        self.stride = sized(name, "stride", stride, self.spatial)
        self.dilation = sized(name, "dilation", dilation, self.spatial)
        around = spatial_padding(name, padding, self.kernel_size, self.stride, self.dilation)
        is_even = all(low == high for low, high in around)
        self.padding = padding if isinstance(padding, str) else tuple(p for p, _ in around) if is_even else around
        self.groups = groups
        self.padding_mode = padding_mode
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.weight, self.bias = init.linear_weight_and_bias(init.key_or_default(key), shape, bias, dtype)

    def __call__(self, x: Any) -> Any:
        name = f"conv{self.spatial}d"
        padding: Any = self.padding
        if x.ndim not in (self.spatial + 1, self.spatial + 2):
            padding = 0  # the function refuses x
        elif self.padding_mode != "zeros":
            around = spatial_padding(name, padding, self.kernel_size, self.stride, self.dilation)
            x = F.pad(x, pairs(around), self.padding_mode)
            padding = 0
        convolve = (F.conv1d, F.conv2d, F.conv3d)[self.spatial - 1]
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


class Conv3d(Conv):
    """Cross-correlation of a volume [N, C, D, H, W] with weight [out_channels, in_channels / groups, KD, KH, KW].

    Arguments as torch.nn.Conv3d; every size is one number, or one for each axis. See Conv1d.

    >>> Conv3d(3, 8, 3, padding=1)(np.ones((1, 3, 4, 6, 8), np.float32)).shape
    (1, 8, 4, 6, 8)
    """

    spatial = 3


class ConvTranspose(Module):
    """What the transposed convolutions share; `spatial` is the number of axes a kernel slides along."""

    spatial = 0

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        *,
        dtype: Any = np.float32,
        key: Any = None,
    ):
        name = type(self).__name__
        check_groups(name, groups, in_channels, out_channels)
        if padding_mode != "zeros":
            raise ArgumentError(
                f"{name}: padding_mode={padding_mode!r} is not possible, padding is cut off the result here",
                fix='use padding_mode="zeros"',
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = sized(name, "kernel_size", kernel_size, self.spatial)
        self.stride = sized(name, "stride", stride, self.spatial)
        self.padding = sized(name, "padding", padding, self.spatial)
        self.output_padding = sized(name, "output_padding", output_padding, self.spatial)
        self.groups = groups
        self.dilation = sized(name, "dilation", dilation, self.spatial)
        self.padding_mode = padding_mode
        shape = (in_channels, out_channels // groups, *self.kernel_size)
        keys = init.key_or_default(key)
        self.weight, self.bias = init.linear_weight_and_bias(keys, shape, bias, dtype, out_channels)

    def __call__(self, x: Any, output_size: tuple[int, ...] | None = None) -> Any:
        """Return the result; `output_size` (its last axes) picks one of the sizes that the stride allows."""
        extra = self.output_padding if output_size is None else self.extra_for(x, tuple(output_size))
        transpose = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self.spatial - 1]
        return transpose(
            x, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
        )  # fmt: skip

    def extra_for(self, x: Any, output_size: tuple[int, ...]) -> tuple[int, ...]:
        """Return the output_padding that gives a size."""
        n = self.spatial
        zero = (0,) * n
        least = out_sizes(tuple(x.shape[-n:]), self.kernel_size, self.stride, self.padding, zero, self.dilation)
        wanted = output_size[-n:]
        extra = tuple(w - m for w, m in zip(wanted, least, strict=False))
        if len(output_size) not in (n, n + 2) or any(not 0 <= e < s for e, s in zip(extra, self.stride, strict=True)):
            most = tuple(m + s - 1 for m, s in zip(least, self.stride, strict=True))
            raise ShapeError(
                f"{type(self).__name__}: output_size={output_size} is not between {least} and {most}",
                fix=f"use output_size={least}",
            )
        return extra


class ConvTranspose1d(ConvTranspose):
    """Transposed convolution of a signal [N, C, L] with weight [in_channels, out_channels / groups, kernel_size].

    Arguments as torch.nn.ConvTranspose1d. The result's length is
    (L - 1) stride - 2 padding + dilation (kernel_size - 1) + output_padding + 1.

    >>> ConvTranspose1d(2, 4, 4, stride=2, padding=1)(np.ones((1, 2, 8), np.float32)).shape
    (1, 4, 16)
    """

    spatial = 1


class ConvTranspose2d(ConvTranspose):
    """Transposed convolution of an image [N, C, H, W] with weight [in_channels, out_channels / groups, KH, KW].

    Arguments as torch.nn.ConvTranspose2d; every size is one number, or one for each axis. See ConvTranspose1d.

    >>> ConvTranspose2d(2, 4, 3, stride=2)(np.ones((1, 2, 5, 6), np.float32), output_size=(12, 14)).shape
    (1, 4, 12, 14)
    """

    spatial = 2


class ConvTranspose3d(ConvTranspose):
    """Transposed convolution of a volume [N, C, D, H, W] with weight [in_channels, out_channels / groups, KD, KH, KW].

    Arguments as torch.nn.ConvTranspose3d; every size is one number, or one for each axis. See ConvTranspose1d.

    >>> ConvTranspose3d(2, 4, 2, stride=2)(np.ones((1, 2, 3, 4, 5), np.float32)).shape
    (1, 4, 6, 8, 10)
    """

    spatial = 3
