"""Packed weights of forward and data-gradient convolutions: panels for the tile, made once for all images."""

from __future__ import annotations

from typing import Any

from tracegrad.codegen import conv_layout as words
from tracegrad.codegen.addresses import KERNEL_TYPES, load_word, loader, minimum, store_word, storer
from tracegrad.codegen.gemm_kernels import packing, panel_start
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan_conv_runs import depth_blocks
from tracegrad.codegen.plan_gemm import K_BLOCK
from tracegrad.codegen.row_loops import row_probe
from tracegrad.codegen.tile_shape import TileShape

WORD = 8
CHANNELS_AT_A_TIME = 8  # of weights that are gathered: whole lines of few pages


@kernel
def run_address(plan: int, index: int) -> int:
    """Return the address of a run of a plan."""
    return plan + (words.RUN_TABLE + index * words.RUN_WORDS) * WORD


def panel_packing(bits: int, shape: TileShape) -> Any:
    """Return the kernel pack_panel(plan, weights, packed, panel, panels): one panel, k are neighbours in memory."""
    size = bits // 8
    panel_rows = shape.rows
    depth_limit = K_BLOCK[size]
    pack = packing(bits, shape)

    @kernel
    def pack_panel(plan: int, weights: int, packed: int, panel: int, panels: int) -> None:
        run = run_address(plan, 0)
        outputs = load_word(plan, words.OUTPUTS)
        output_stride = load_word(plan, words.W_OUTPUT)
        first = panel_start(outputs, panel, panels)
        rows = panel_start(outputs, panel + 1, panels) - first
        depth = load_word(plan, words.CHANNELS) * load_word(run, words.TAPS)
        blocks = depth_blocks(depth, depth_limit)
        source = weights + first * output_stride * size
        for block in range(blocks):
            k0 = depth * block // blocks
            k1 = depth * (block + 1) // blocks
            target = packed + (block * panels + panel) * load_word(run, words.PANEL_BYTES)
            pack(source + k0 * size, output_stride, 1, rows, k1 - k0, target, panel_rows)

    return pack_panel


def tap_vectors(lanes: int) -> Any:
    """Return the kernel vector_taps(tap_table, taps), for vectors of so many lanes."""

    @kernel
    def vector_taps(tap_table: int, taps: int) -> int:
        """Return how many taps of a channel are transposed in registers: those that are neighbours, in whole vectors.

        What the last vectors spill is covered by the taps behind them, so there must be one.
        """
        is_dense = load_word(tap_table, taps - 1) - load_word(tap_table, 0) == taps - 1
        return taps // lanes * lanes if is_dense and taps % lanes else 0

    return vector_taps


def element_packing(bits: int, panel_rows: int) -> Any:
    """Return the kernel pack_element(element, stride, rows, target)."""
    load = loader(f"float{bits}")
    store = storer(f"float{bits}")

    @kernel
    def pack_element(element: int, stride: int, rows: int, target: int) -> None:
        """Store an element of every row; a whole panel's are written out."""
        if rows == panel_rows:
            for i in range(panel_rows):
                store(target, i, load(element, i * stride))
        else:
            for i in range(rows):
                store(target, i, load(element, i * stride))

    return pack_element


def channel_packing(bits: int, shape: TileShape) -> Any:
    """Return the kernel pack_channels(plan, run, source, rows, packed, panels, first, end).

    It packs some channels of one panel of a run, whose first row is at `source`, into its blocks from `packed` on.
    """
    size = bits // 8
    panel_rows = shape.rows
    depth_limit = K_BLOCK[size]
    pack, pack_element = packing(bits, shape), element_packing(bits, panel_rows)
    vector_taps = tap_vectors(shape.lanes(size))

    @kernel
    def pack_channels(
        plan: int, run: int, source: int, rows: int, packed: int, panels: int, first: int, end: int
    ) -> None:
        taps = load_word(run, words.TAPS)
        tap_table = plan + load_word(run, words.TAP_TABLE) * WORD
        depth = load_word(plan, words.CHANNELS) * taps
        blocks = depth_blocks(depth, depth_limit)
        block_bytes = panels * load_word(run, words.PANEL_BYTES)
        output_stride = load_word(plan, words.W_OUTPUT)
        channel_stride = load_word(plan, words.W_CHANNEL)
        k = first * taps
        block = k * blocks // depth
        next_start = depth * (block + 1) // blocks
        target = packed + block * block_bytes + (k - depth * block // blocks) * panel_rows * size
        vectors = vector_taps(tap_table, taps)
        for channel in range(first, end):
            done = 0
            if vectors and k + taps <= next_start:
                element = source + (channel * channel_stride + load_word(tap_table, 0)) * size
                pack(element, output_stride, 1, rows, vectors, target, panel_rows)
                target += vectors * panel_rows * size
                k += vectors
                done = vectors
            for tap in range(done, taps):
                while k >= next_start:
                    block += 1
                    next_start = depth * (block + 1) // blocks
                    target = packed + block * block_bytes
                element = source + (channel * channel_stride + load_word(tap_table, tap)) * size
                pack_element(element, output_stride, rows, target)
                target += panel_rows * size
                k += 1

    return pack_channels


def slice_packing(bits: int, shape: TileShape) -> Any:
    """Return the kernel pack_slice(plan, weights, scratch, group, slice_, panels): one of as many slices of k."""
    size = bits // 8
    pack_channels = channel_packing(bits, shape)

    @kernel
    def pack_slice(plan: int, weights: int, scratch: int, group: int, slice_: int, panels: int) -> None:
        """Pack a few channels of all panels of all runs at a time: neighbours in memory, and few pages."""
        outputs = load_word(plan, words.OUTPUTS)
        channels = load_word(plan, words.CHANNELS)
        stop = channels * (slice_ + 1) // panels
        for channel in range(channels * slice_ // panels, stop, CHANNELS_AT_A_TIME):
            last = minimum(stop, channel + CHANNELS_AT_A_TIME)
            first = 0
            for panel in range(panels):
                end = panel_start(outputs, panel + 1, panels)
                source = weights + first * load_word(plan, words.W_OUTPUT) * size
                for index in range(load_word(plan, words.RUNS)):
                    run = run_address(plan, index)
                    if load_word(run, words.TAPS):
                        target = packed_weights(run, scratch, group) + panel * load_word(run, words.PANEL_BYTES)
                        pack_channels(plan, run, source, end - first, target, panels, channel, last)
                first = end

    return pack_slice


@kernel
def packed_weights(run: int, scratch: int, group: int) -> int:
    """Return where the packed weights of a run and a group are."""
    return scratch + load_word(run, words.PACKED_BYTES) + group * load_word(run, words.GROUP_BYTES)


def packing_task(bits: int, shape: TileShape) -> Any:
    """Return the task that packs a share of the weights; all tasks together look for NaN and inf among them."""
    size = bits // 8
    panel_rows = shape.rows
    pack_panel = panel_packing(bits, shape)
    pack_slice = slice_packing(bits, shape)
    probe = row_probe(f"float{bits}")
    zero = KERNEL_TYPES[f"float{bits}"](0)

    @kernel
    def pack_task(scratch: int, task: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        weights = load_word(load_word(scratch, 1), 1)
        panels = (load_word(plan, words.OUTPUTS) + panel_rows - 1) // panel_rows
        group = task // panels
        group_weights = weights + group * load_word(plan, words.W_GROUP) * size
        if load_word(plan, words.ORDERED_TAPS):
            packed = packed_weights(run_address(plan, 0), scratch, group)
            pack_panel(plan, group_weights, packed, task % panels, panels)
        else:
            pack_slice(plan, group_weights, scratch, group, task % panels, panels)
        if load_word(plan, words.EXACT_PLAN):
            tasks = load_word(plan, words.PACK_TASKS)
            items = load_word(plan, words.GROUPS) * load_word(plan, words.W_GROUP)
            first = items * task // tasks
            if probe(weights + first * size, items * (task + 1) // tasks - first) != zero:
                store_word(scratch, words.IS_FINITE, 0)

    return pack_task
