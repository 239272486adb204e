"""The sizes of a convolution, with three spatial axes: one that is missing has size 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Triple = tuple[int, int, int]
Padding = Sequence[tuple[int, int]]


@dataclass(frozen=True)
class Geometry:
    """Sizes of a convolution; channels and outputs are those of one group, images are counted once per group."""

    images: int
    groups: int
    channels: int
    outputs: int
    size: Triple
    kernel: Triple
    stride: Triple
    low: Triple
    dilation: Triple
    out: Triple
    has_padding: bool

    @property
    def taps(self) -> int:
        return math.prod(self.kernel)

    @property
    def flops(self) -> int:
        return 2 * self.images * self.channels * self.outputs * self.taps * math.prod(self.out)

    @property
    def is_empty(self) -> bool:
        return min(self.images, self.channels, self.outputs, *self.kernel, *self.out) <= 0

    @property
    def is_pointwise(self) -> bool:
        """Say whether every output position reads the one input position at the same place."""
        return self.taps == 1 and self.stride == (1, 1, 1) and not self.has_padding

    @property
    def is_whole(self) -> bool:
        """Say whether the only window is all of the input."""
        axes = zip(self.size, self.kernel, self.dilation, strict=True)
        return not self.has_padding and self.out == (1, 1, 1) and all(n == k and (d == 1 or k == 1) for n, k, d in axes)

    @property
    def is_window_outside(self) -> bool:
        """Say whether a window may lie in the padding as a whole: at an end, or with its taps on both sides of x."""
        axes = zip(self.size, self.kernel, self.stride, self.low, self.dilation, self.out, strict=True)
        return any(
            low > d * (k - 1) or (out - 1) * s - low >= n or (n < d and self.has_padding)
            for n, k, s, low, d, out in axes
        )


def geometry(
    x: Sequence[int],
    w: Sequence[int],
    stride: Sequence[int],
    padding: Padding,
    dilation: Sequence[int],
    groups: int,
) -> Geometry:
    """Return the geometry of x [n, c, *size] by w [o, c / groups, *kernel]."""
    size, kernel = triple(x[2:], 1), triple(w[2:], 1)
    step, spread = triple(stride, 1), triple(dilation, 1)
    low, high = triple([p[0] for p in padding], 0), triple([p[1] for p in padding], 0)
    axes = zip(size, kernel, step, low, high, spread, strict=True)
    out = triple([(n + a + b - d * (k - 1) - 1) // s + 1 for n, k, s, a, b, d in axes], 1)
    return Geometry(
        x[0] * groups, groups, x[1] // groups, w[0] // groups, size, kernel, step, low, spread, out, any((*low, *high))
    )


def triple(values: Sequence[int], fill: int) -> Triple:
    """Give a geometry of fewer axes first axes of one position."""
    depth, height, width = (*[fill] * (3 - len(values)), *values)
    return depth, height, width
