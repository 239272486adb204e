"""Convolutions by 3 x 3 taps in plain loops, for parts of maps whose Winograd sums are not finite."""

from __future__ import annotations

from typing import Any

from tracegrad.codegen import winograd_layout as words
from tracegrad.codegen.addresses import KERNEL_TYPES, load_word, loader, maximum, minimum, storer
from tracegrad.codegen.direct_kernels import row_addition, row_clearing
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import ITEM_SIZES


def exact_map(dtype: str) -> Any:
    """Return the kernel exact(plan, x, weights, y, first_row, end_row, first, end) for a part of a map y.

    x: the image; weights: the map's.  Where the plan says so, the zeros around x are multiplied, too.
    """
    size = ITEM_SIZES[dtype]
    load = loader(dtype)
    store = storer(dtype)
    clear = row_clearing(dtype)
    add_scaled = row_addition(dtype)
    zero = KERNEL_TYPES[dtype](0)

    @kernel
    def add_tap(plan: int, source: int, is_inside: int, shift: int, factor, y: int, first: int, end: int) -> None:
        """Add factor * a row of x, shifted, to columns first..end-1 of a row of y."""
        width = load_word(plan, words.W_WIDTH)
        low = maximum(first, minimum(end, -shift))
        high = maximum(low, minimum(end, width - shift))
        if is_inside == 0:
            low = first
            high = first
        add_scaled(y + low * size, 1, source + (low + shift) * size, 1, factor, high - low)
        if load_word(plan, words.W_MEETS_ZEROS):
            outside = factor * zero  # NaN if the weight is not finite
            for j in range(first, low):
                store(y, j, load(y, j) + outside)
            for j in range(high, end):
                store(y, j, load(y, j) + outside)

    @kernel
    def exact(plan: int, x: int, weights: int, y: int, first_row: int, end_row: int, first: int, end: int) -> None:
        height = load_word(plan, words.W_HEIGHT)
        width = load_word(plan, words.W_WIDTH)
        out_w = load_word(plan, words.W_OUT_W)
        left = load_word(plan, words.W_LEFT)
        channel_step = load_word(plan, words.W_CHANNEL_STEP)
        is_flipped = load_word(plan, words.W_IS_FLIPPED)
        for i in range(first_row, end_row):
            row = y + i * out_w * size
            clear(row + first * size, end - first)
            for c in range(load_word(plan, words.W_CHANNELS)):
                for tap in range(words.TAPS):
                    p = i + tap // 3 - load_word(plan, words.W_TOP)
                    source = x + (c * height + p) * width * size
                    place = words.TAPS - 1 - tap if is_flipped else tap
                    factor = load(weights, c * channel_step + place)
                    add_tap(plan, source, p >= 0 and p < height, tap % 3 - left, factor, row, first, end)

    return exact
