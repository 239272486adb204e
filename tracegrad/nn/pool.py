"""Pooling over windows of signals and images."""

from __future__ import annotations

from typing import Any

from tracegrad.errors import ArgumentError
from tracegrad.nn import functional as F
from tracegrad.nn.module import Module

Size = int | tuple[int, ...]


class MaxPool(Module):
    """What the maximum pools share."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ):
        if return_indices:
            raise ArgumentError(f"{type(self).__name__}: return_indices=True is not supported", fix="leave it out")
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.dilation = dilation
        self.ceil_mode = ceil_mode


class MaxPool1d(MaxPool):
    """The largest element of every window of [N, C, L] or [C, L]; the stride is the window by default.

    Positions outside count as -inf. The first of tied elements takes the gradient.
    """

    def __call__(self, x: Any) -> Any:
        return F.max_pool1d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)


class MaxPool2d(MaxPool):
    """The largest element of every window of [N, C, H, W] or [C, H, W]; see MaxPool1d.

    >>> import numpy as np
    >>> MaxPool2d(2)(np.arange(16.0).reshape(1, 4, 4)).tolist()
    [[[5.0, 7.0], [13.0, 15.0]]]
    """

    def __call__(self, x: Any) -> Any:
        return F.max_pool2d(x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)


class AvgPool(Module):
    """What the average pools share."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):
        self.kernel_size = kernel_size
        self.stride = stride
        self.padding = padding
        self.ceil_mode = ceil_mode
        self.count_include_pad = count_include_pad


class AvgPool1d(AvgPool):
    """The mean of every window of [N, C, L] or [C, L]; zeros of the padding count unless count_include_pad=False."""

    def __call__(self, x: Any) -> Any:
        return F.avg_pool1d(x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad)


class AvgPool2d(AvgPool):
    """The mean of every window of [N, C, H, W] or [C, H, W]; see AvgPool1d."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: float | None = None,
    ):
        super().__init__(kernel_size, stride, padding, ceil_mode, count_include_pad)
        self.divisor_override = divisor_override

    def __call__(self, x: Any) -> Any:
        return F.avg_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad,
            self.divisor_override,
        )  # fmt: skip


class AdaptiveAvgPool(Module):
    """What the adaptive pools share."""

    def __init__(self, output_size: int | tuple[int | None, ...]):
        self.output_size = output_size


class AdaptiveAvgPool1d(AdaptiveAvgPool):
    """The means of `output_size` windows that cover the last axis of [N, C, L] or [C, L]."""

    def __call__(self, x: Any) -> Any:
        return F.adaptive_avg_pool1d(x, self.output_size)


class AdaptiveAvgPool2d(AdaptiveAvgPool):
    """The means of windows that cover [N, C, H, W] or [C, H, W]; a size of None keeps that axis.

    >>> import numpy as np
    >>> AdaptiveAvgPool2d((1, None))(np.ones((2, 3, 4, 5))).shape
    (2, 3, 1, 5)
    """

    def __call__(self, x: Any) -> Any:
        return F.adaptive_avg_pool2d(x, self.output_size)
