"""Winograd's gradient of weights where it is not finite: the maps that are marked, by plain sums of products.

A NaN in a map's cotangents makes its whole row of the gradient NaN; one in an input channel all taps that meet it, for
all maps.  So these are looked for first, and a training that has diverged computes nothing again.
"""

from __future__ import annotations

from typing import Any

from tracegrad.codegen import winograd_layout as words
from tracegrad.codegen.addresses import KERNEL_TYPES, load_word, maximum, minimum, store_word, storer
from tracegrad.codegen.direct_kernels import exact_tap_gradient
from tracegrad.codegen.finish import finish
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.row_loops import nan_search, row_probe

WORD = 8


@kernel
def clear_marks(plan: int, scratch: int) -> None:
    """Mark no map."""
    store_word(scratch, words.IS_FINITE, 1)
    for o in range(load_word(plan, words.W_OUTPUTS)):
        store_word(scratch + load_word(plan, words.G_MARKS_OFFSET), o, 0)


@kernel
def mark_map(plan: int, scratch: int, o: int) -> None:
    """Say that a map is to be computed again."""
    store_word(scratch + load_word(plan, words.G_MARKS_OFFSET), o, 1)
    store_word(scratch, words.IS_FINITE, 0)


@kernel
def finish_map(plan: int, operands: int, o: int) -> None:
    items = load_word(plan, words.W_CHANNELS) * words.TAPS
    finish(operands, o * items, 1, items, items)


@kernel
def finish_unmarked(plan: int, scratch: int, o: int) -> None:
    if load_word(scratch + load_word(plan, words.G_MARKS_OFFSET), o) == 0:
        finish_map(plan, load_word(scratch, 1), o)


@kernel
def lost_taps(plan: int, scratch: int, c: int) -> int:
    """Return where it stands, for each tap, whether it meets a NaN of an input channel."""
    return scratch + load_word(plan, words.G_LOST_OFFSET) + c * words.TAPS * WORD


def search_task(bits: int) -> Any:
    """Return the task that looks for NaN in an input channel."""
    size = bits // 8
    has_nan = nan_search(f"float{bits}")

    @kernel
    def is_clean(plan: int, x: int, c: int) -> int:
        """Say whether channel c has no NaN."""
        items = load_word(plan, words.W_HEIGHT) * load_word(plan, words.W_WIDTH)
        for image in range(load_word(plan, words.W_IMAGES)):
            if has_nan(x + (image * load_word(plan, words.W_CHANNELS) + c) * items * size, items):
                return 0
        return 1

    @kernel
    def meets_nan(plan: int, x: int, c: int, tap: int) -> int:
        """Say whether a tap meets a NaN in channel c."""
        height = load_word(plan, words.W_HEIGHT)
        width = load_word(plan, words.W_WIDTH)
        below = tap // 3 - load_word(plan, words.W_TOP)
        right = tap % 3 - load_word(plan, words.W_LEFT)
        low = maximum(0, right)
        count = minimum(width, load_word(plan, words.W_OUT_W) + right) - low
        for image in range(load_word(plan, words.W_IMAGES)):
            plane = (image * load_word(plan, words.W_CHANNELS) + c) * height
            for p in range(maximum(0, below), minimum(height, load_word(plan, words.W_OUT_H) + below)):
                if has_nan(x + ((plane + p) * width + low) * size, count):
                    return 1
        return 0

    @kernel
    def search(scratch: int, c: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        x = load_word(load_word(scratch, 1), 0)
        clean = is_clean(plan, x, c)
        for tap in range(words.TAPS):
            found = 0 if clean else meets_nan(plan, x, c, tap)
            store_word(lost_taps(plan, scratch, c), tap, found)

    return search


def exact_task(bits: int) -> Any:
    """Return the task that computes again what is not finite of a map that is marked."""
    dtype = f"float{bits}"
    size = bits // 8
    store = storer(dtype)
    has_nan = nan_search(dtype)
    probe = row_probe(dtype)
    exact_tap = exact_tap_gradient(dtype)
    zero = KERNEL_TYPES[dtype](0)
    nan = KERNEL_TYPES[dtype](float("nan"))

    @kernel
    def is_lost(plan: int, dy: int, o: int) -> int:
        """Say whether a cotangent of a map is NaN."""
        items = load_word(plan, words.W_OUT_H) * load_word(plan, words.W_OUT_W)
        outputs = load_word(plan, words.W_OUTPUTS)
        for image in range(load_word(plan, words.W_IMAGES)):
            if has_nan(dy + (image * outputs + o) * items * size, items):
                return 1
        return 0

    @kernel
    def compute_taps(scratch: int, o: int, c: int, result: int) -> None:
        """Compute the taps of a pair of map and channel."""
        plan = load_word(scratch, 0)
        x = load_word(load_word(scratch, 1), 0)
        dy = load_word(load_word(scratch, 1), 1)
        exact = plan + load_word(plan, words.G_EXACT_PLAN) * WORD
        for tap in range(words.TAPS):
            if load_word(lost_taps(plan, scratch, c), tap):
                store(result, tap, nan)
            else:
                store(result, tap, exact_tap(exact, x, dy, o, c, tap))

    @kernel
    def exact_map(scratch: int, o: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        operands = load_word(scratch, 1)
        channels = load_word(plan, words.W_CHANNELS)
        if load_word(scratch + load_word(plan, words.G_MARKS_OFFSET), o) == 0:
            return
        result = load_word(operands, 2) + o * channels * words.TAPS * size
        if is_lost(plan, load_word(operands, 1), o):
            for i in range(channels * words.TAPS):
                store(result, i, nan)
        else:
            for c in range(channels):
                taps = result + c * words.TAPS * size
                if probe(taps, words.TAPS) != zero:
                    compute_taps(scratch, o, c, taps)
        finish_map(plan, operands, o)

    return exact_map
