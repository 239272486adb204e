"""Winograd's convolutions where their sums are not finite: the strips that are marked, with one product per tap.

    X[p, c]: a strip's part of x, with zeros around it       W[tap, c, o]: the weights
    Y[i, j, o] = sum_{r, s, c} X[(i + r, j + s), c] * W[(r, s), c, o]

X and W take the places of the transformed tiles and weights (`winograd_kernels`), which are larger, and are shared in
the same way.  These are 9 products per output where Winograd's are 4 or 2.25; where every position has met a NaN, as
in a training that has diverged, nothing is multiplied.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from tracegrad.codegen import winograd_layout as words
from tracegrad.codegen.addresses import KERNEL_TYPES, load_word, maximum, minimum, storer
from tracegrad.codegen.gemm_kernels import panel_start
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.row_loops import nan_search
from tracegrad.codegen.tile_moves import copy_rows_intrinsic
from tracegrad.codegen.tile_shape import TileShape
from tracegrad.codegen.winograd_output import mark_address, strip_finish, strip_placing, strip_start
from tracegrad.codegen.winograd_strips import spreading, strip_extent, strip_image, tile_column, tile_row
from tracegrad.codegen.winograd_taps import panel_packing
from tracegrad.codegen.winograd_tasks import Stage
from tracegrad.codegen.winograd_tile import row_tile_intrinsic


@cache  # one kernel, though several call it
def weight_copy(bits: int, shape: TileShape) -> Any:
    """Return the kernel copy_weights(scratch, panel, target, buffer): W of a panel of maps."""
    columns = shape.columns(bits // 8)
    pitch = columns * bits // 8
    pack_panel = panel_packing(bits, shape)
    copy_rows = copy_rows_intrinsic(bits)

    @kernel
    def copy_weights(scratch: int, panel: int, target: int, buffer: int) -> None:
        plan = load_word(scratch, 0)
        channels = load_word(plan, words.W_CHANNELS)
        for c in range(0, channels, words.WEIGHT_CHANNELS):
            count = minimum(words.WEIGHT_CHANNELS, channels - c)
            pack_panel(scratch, panel, c, count, buffer)
            for tap in range(words.TAPS):
                source = words.TAPS - 1 - tap if load_word(plan, words.W_IS_FLIPPED) else tap
                copy_rows(buffer + source * pitch, words.TAPS * pitch, count, columns,
                          target + (tap * load_word(plan, words.W_DEPTH) + c) * pitch, pitch)  # fmt: skip

    return copy_weights


@cache  # one kernel, though several call it
def strip_copy(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel copy_strip(scratch, strip, first, end, target, buffer): X of some channels, if it is needed."""
    size = bits // 8
    lanes = shape.lanes(size)
    vector = lanes * size
    spread = spreading(bits, shape)
    copy_rows = copy_rows_intrinsic(bits)
    rows_of, columns_of = strip_extent(m)

    @kernel
    def is_marked(plan: int, scratch: int, strip: int) -> int:
        for panel in range(load_word(plan, words.W_PANELS)):
            if load_word(mark_address(plan, scratch, strip, panel), 0):
                return 1
        return 0

    @kernel
    def copy_strip(scratch: int, strip: int, first: int, end: int, target: int, buffer: int) -> None:
        plan = load_word(scratch, 0)
        height = load_word(plan, words.W_HEIGHT)
        width = load_word(plan, words.W_WIDTH)
        top = load_word(plan, words.W_TOP) - tile_row(plan, strip) * m
        left = load_word(plan, words.W_LEFT) - tile_column(plan, strip) * m
        rows = rows_of(plan, strip) + 2
        columns = columns_of(plan, strip) + 2
        plane = strip_image(plan, strip) * load_word(plan, words.W_CHANNELS)
        if is_marked(plan, scratch, strip) == 0:
            return
        for c in range(first, end, lanes):
            x = load_word(load_word(scratch, 1), 0) + (plane + c) * height * width * size
            spread(x, height, width, end - c, top, left, rows, columns, buffer)
            copy_rows(buffer, vector, rows * columns, minimum(lanes, end - c),
                      target + c * size, load_word(plan, words.W_V_ROW))  # fmt: skip

    return copy_strip


def tap_products(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel multiply(plan, x, weights, strip, first_panel, panels, target): Y of a strip and some panels.

    `x`: of the strip; `weights`: of the first panel.  Y has the pitch of Winograd's products.
    """
    size = bits // 8
    width = shape.columns(size)
    panel_rows = shape.rows
    tile = row_tile_intrinsic(bits, is_along=True)
    rows_of, columns_of = strip_extent(m)

    @kernel
    def multiply_row(count: int, depth: int, a: int, b: int, step: int, c: int, pitch: int, maps: int) -> None:
        """Add a tap's products to `count` positions of a row."""
        blocks = (count + panel_rows - 1) // panel_rows
        for q in range(blocks):
            j = panel_start(count, q, blocks)
            rows = panel_start(count, q + 1, blocks) - j
            tile(rows, depth, a + j * step, b, step, c + j * pitch, pitch, maps, 1)

    @kernel
    def multiply_tap(plan: int, x: int, weights: int, strip: int, tap: int, target: int, maps: int) -> None:
        """Add a tap's products, where the plan says so only those with what is inside of x."""
        step = load_word(plan, words.W_V_ROW)
        pitch = load_word(plan, words.W_M_ROW)
        columns = columns_of(plan, strip)
        low = 0
        high = columns
        first_row = tile_row(plan, strip) * m + tap // 3 - load_word(plan, words.W_TOP)
        meets_zeros = load_word(plan, words.W_MEETS_ZEROS)
        if meets_zeros == 0:
            first = tile_column(plan, strip) * m + tap % 3 - load_word(plan, words.W_LEFT)
            low = maximum(0, -first)
            high = minimum(columns, load_word(plan, words.W_WIDTH) - first)
        for i in range(rows_of(plan, strip)):
            row = first_row + i
            if meets_zeros or (row >= 0 and row < load_word(plan, words.W_HEIGHT)):
                a = x + ((i + tap // 3) * (columns + 2) + tap % 3 + low) * step
                multiply_row(high - low, load_word(plan, words.W_CHANNELS), a, weights, step,
                             target + (i * columns + low) * pitch, pitch, maps)  # fmt: skip

    @kernel
    def multiply(plan: int, x: int, weights: int, strip: int, first_panel: int, panels: int, target: int) -> None:
        outputs = load_word(plan, words.W_OUTPUTS)
        tap_bytes = load_word(plan, words.W_DEPTH) * width * size
        for panel in range(panels):
            for tap in range(words.TAPS):
                multiply_tap(plan, x, weights + (panel * words.TAPS + tap) * tap_bytes, strip, tap,
                             target + panel * width * size, outputs - (first_panel + panel) * width)  # fmt: skip

    return multiply


def loss_search(bits: int, m: int) -> Any:
    """Return the kernel is_lost(plan, x, strip): whether each position's middle tap meets a NaN."""
    has_nan = nan_search(f"float{bits}")
    rows_of, columns_of = strip_extent(m)

    @kernel
    def is_lost(plan: int, x: int, strip: int) -> int:
        step = load_word(plan, words.W_V_ROW)
        columns = columns_of(plan, strip)
        for i in range(rows_of(plan, strip)):
            for j in range(columns):
                if has_nan(x + ((i + 1) * (columns + 2) + j + 1) * step, load_word(plan, words.W_CHANNELS)) == 0:
                    return 0
        return 1

    return is_lost


def exact_strip(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel compute(scratch, x, weights, strip, panel, panels, work): a strip for some panels."""
    dtype = f"float{bits}"
    size = bits // 8
    lanes = shape.lanes(size)
    width = shape.columns(size)
    store = storer(dtype)
    zero = KERNEL_TYPES[dtype](0)
    nan = KERNEL_TYPES[dtype](float("nan"))
    multiply = tap_products(bits, shape, m)
    is_lost = loss_search(bits, m)
    rows_of, columns_of = strip_extent(m)
    start = strip_start(m)
    place = strip_placing(bits, shape, m)
    finish_strip = strip_finish(m)

    @kernel
    def fill(target: int, count: int, value) -> None:
        for i in range(count):
            store(target, i, value)

    @kernel
    def compute(scratch: int, x: int, weights: int, strip: int, panel: int, panels: int, work: int) -> None:
        plan = load_word(scratch, 0)
        operands = load_word(scratch, 1)
        target = work + load_word(plan, words.W_M_OFFSET)
        pitch = load_word(plan, words.W_M_ROW)
        columns = columns_of(plan, strip)
        items = rows_of(plan, strip) * columns * pitch // size
        if is_lost(plan, x, strip):
            fill(target, items, nan)
        else:
            fill(target, items, zero)
            multiply(plan, x, weights, strip, panel, panels, target)
        first = panel * width
        maps = minimum(panels * width, load_word(plan, words.W_OUTPUTS) - first)
        for o in range(0, maps, lanes):
            y = load_word(operands, 2) + start(plan, strip, first + o) * size
            place(plan, strip, target + o * size, columns * pitch, pitch, minimum(lanes, maps - o), y)
        finish_strip(plan, operands, strip, first, maps)

    return compute


@cache  # one kernel, though several call it
def exact_bytes(bits: int, shape: TileShape, m: int) -> tuple[Any, Any]:
    """Return the kernels strip_bytes(plan) and panel_bytes(plan): from one strip of X, or panel of W, to the next."""
    pitch = shape.columns(bits // 8) * bits // 8

    @kernel
    def strip_bytes(plan: int) -> int:
        return load_word(plan, words.W_STRIP_TILES) * (m + 2) * (m + 2) * load_word(plan, words.W_V_ROW)

    @kernel
    def panel_bytes(plan: int) -> int:
        return words.TAPS * load_word(plan, words.W_DEPTH) * pitch

    return strip_bytes, panel_bytes


def marked_block(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel compute(scratch, weights, x, panels from and to, strips from and to, work): what is marked."""
    strip_bytes, panel_bytes = exact_bytes(bits, shape, m)
    compute_strip = exact_strip(bits, shape, m)

    @kernel
    def compute(
        scratch: int, weights: int, x: int, first_panel: int, end_panel: int, first: int, end: int, work: int
    ) -> None:
        plan = load_word(scratch, 0)
        most = load_word(plan, words.W_M_PANELS)
        for panel in range(first_panel, end_panel, most):
            panels = minimum(most, end_panel - panel)
            taps = weights + (panel - first_panel) * panel_bytes(plan)
            for strip in range(first, end):
                if load_word(mark_address(plan, scratch, strip, panel), 0):
                    source = x + (strip - first) * strip_bytes(plan)
                    compute_strip(scratch, source, taps, strip, panel, panels, work)

    return compute


def exact_stage(bits: int, shape: TileShape, m: int) -> Stage:
    """Return what computes the marked strips again."""
    return Stage(
        weight_copy(bits, shape), strip_copy(bits, shape, m), marked_block(bits, shape, m), *exact_bytes(bits, shape, m)
    )
