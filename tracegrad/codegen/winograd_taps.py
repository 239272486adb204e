"""The 3 x 3 weights of Winograd's convolutions (`winograd_kernels`) in panels of maps: packed, and transformed."""

from __future__ import annotations

from functools import cache
from typing import Any

from tracegrad.codegen import winograd_layout as words
from tracegrad.codegen.addresses import load_word, loader, minimum, storer
from tracegrad.codegen.gemm_kernels import packing
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.row_loops import row_clearing
from tracegrad.codegen.tile_shape import TileShape
from tracegrad.codegen.winograd_transforms import transform_intrinsic


@cache  # one kernel, though several call it
def panel_packing(bits: int, shape: TileShape) -> Any:
    """Return the kernel pack_panel(scratch, panel, c, count, buffer): taps of a panel's maps, [c, tap, o]."""
    size = bits // 8
    lanes = shape.lanes(size)
    columns = shape.columns(size)
    pack = packing(bits, shape)
    load = loader(f"float{bits}")
    store = storer(f"float{bits}")
    whole = words.TAPS // lanes * lanes

    @kernel
    def pack_taps(source: int, step: int, width: int, target: int) -> None:
        """Pack the taps of `width` maps of one channel; those that fill no vector one by one."""
        if whole:
            pack(source, step, 1, width, whole, target, columns)
        for tap in range(whole, words.TAPS):
            for i in range(width):
                store(target, tap * columns + i, load(source, i * step + tap))

    @kernel
    def pack_panel(scratch: int, panel: int, c: int, count: int, buffer: int) -> None:
        """Pack channels c..c+count-1 of a panel, which are counted group by group."""
        plan = load_word(scratch, 0)
        panels = load_word(plan, words.W_PANELS)
        output_step = load_word(plan, words.W_OUTPUT_STEP)
        channel_step = load_word(plan, words.W_CHANNEL_STEP)
        first = panel % panels * columns
        width = minimum(columns, load_word(plan, words.W_OUTPUTS) - first)
        source = load_word(load_word(scratch, 1), 1) + panel // panels * load_word(plan, words.W_GROUP_STEP) * size
        source += (first * output_step + c * channel_step) * size
        if channel_step == words.TAPS:
            pack(source, output_step, 1, width, count * words.TAPS, buffer, columns)
        else:
            for k in range(count):
                place = buffer + k * words.TAPS * columns * size
                pack_taps(source + k * channel_step * size, output_step, width, place)

    return pack_panel


@cache  # one kernel, though several call it
def weight_transform(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel transform_weights(scratch, panel, u, buffer): U of a panel of maps, [point, c, o]."""
    size = bits // 8
    lanes = shape.lanes(size)
    columns = shape.columns(size)
    n = m + 2
    pitch = columns * size
    pack_panel = panel_packing(bits, shape)
    transform = transform_intrinsic(bits, "weight", m)
    clear = row_clearing(f"float{bits}")

    @kernel
    def transform_weights(scratch: int, panel: int, u: int, buffer: int) -> None:
        plan = load_word(scratch, 0)
        channels = load_word(plan, words.W_CHANNELS)
        point = load_word(plan, words.W_U_POINT)
        width = minimum(columns, load_word(plan, words.W_OUTPUTS) - panel % load_word(plan, words.W_PANELS) * columns)
        step = -pitch if load_word(plan, words.W_IS_FLIPPED) else pitch
        start = buffer + (words.TAPS - 1) * pitch if load_word(plan, words.W_IS_FLIPPED) else buffer
        for c in range(0, channels, words.WEIGHT_CHANNELS):
            count = minimum(words.WEIGHT_CHANNELS, channels - c)
            pack_panel(scratch, panel, c, count, buffer)
            for o in range(0, width, lanes):
                transform(start + o * size, 3 * step, step, words.TAPS * pitch,
                          u + c * pitch + o * size, n * point, point, pitch, count, 0)  # fmt: skip
        for p in range(n * n):
            clear(u + p * point + channels * pitch, (load_word(plan, words.W_DEPTH) - channels) * columns)

    return transform_weights
