"""Packed weights of forward and data-gradient convolutions: panels for the tile, made once for all images."""

from __future__ import annotations

from typing import Any

from tracegrad.codegen import conv_layout as words
from tracegrad.codegen.addresses import KERNEL_TYPES, load_word, loader, minimum, store_word, storer
from tracegrad.codegen.direct_kernels import row_probe
from tracegrad.codegen.gemm_kernels import packing, panel_start
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan_gemm import K_BLOCK
from tracegrad.codegen.tile_shape import TileShape

WORD = 8
CHANNELS_AT_A_TIME = 8  # of weights that are gathered: whole lines of few pages


@kernel
def find_run(plan: int, first_word: int, task: int) -> int:
    """Return the address of the run that a task belongs to: the last one that starts at or before it."""
    found = plan + words.RUN_TABLE * WORD
    for index in range(1, load_word(plan, words.RUNS)):
        run = plan + (words.RUN_TABLE + index * words.RUN_WORDS) * WORD
        if load_word(run, first_word) <= task:
            found = run
    return found


def weight_packing(bits: int, shape: TileShape) -> tuple[Any, Any]:
    """Return the kernels that pack weights in panels, a panel per block of k.

        pack_panel(run, weights, packed, panel, panels)              one panel of weights whose k are neighbours
        pack_slice(run, plan, weights, packed, slice_, panels)       one of as many slices of k, of all panels
    """
    size = bits // 8
    panel_rows = shape.rows
    depth_limit = K_BLOCK[size]
    pack = packing(bits, shape)
    load = loader(f"float{bits}")
    store = storer(f"float{bits}")

    @kernel
    def pack_panel(run: int, weights: int, packed: int, panel: int, panels: int) -> None:
        outputs = load_word(run, words.OUTPUTS)
        output_stride = load_word(run, words.W_OUTPUT)
        first = panel_start(outputs, panel, panels)
        rows = panel_start(outputs, panel + 1, panels) - first
        depth = load_word(run, words.CHANNELS) * load_word(run, words.TAPS)
        blocks = (depth + depth_limit - 1) // depth_limit
        source = weights + first * output_stride * size
        for block in range(blocks):
            k0 = depth * block // blocks
            k1 = depth * (block + 1) // blocks
            target = packed + (block * panels + panel) * load_word(run, words.PANEL_BYTES)
            pack(source + k0 * size, output_stride, 1, rows, k1 - k0, target, panel_rows)

    @kernel
    def pack_channels(
        run: int, tap_table: int, source: int, rows: int, packed: int, panels: int, first: int, end: int
    ) -> None:
        """Pack some channels of one panel, whose first row is at `source`, into its blocks from `packed` on."""
        taps = load_word(run, words.TAPS)
        depth = load_word(run, words.CHANNELS) * taps
        blocks = (depth + depth_limit - 1) // depth_limit
        block_bytes = panels * load_word(run, words.PANEL_BYTES)
        output_stride = load_word(run, words.W_OUTPUT)
        channel_stride = load_word(run, words.W_CHANNEL)
        k = first * taps
        block = k * blocks // depth
        next_start = depth * (block + 1) // blocks
        target = packed + block * block_bytes + (k - depth * block // blocks) * panel_rows * size
        for channel in range(first, end):
            for tap in range(taps):
                while k >= next_start:
                    block += 1
                    next_start = depth * (block + 1) // blocks
                    target = packed + block * block_bytes
                element = source + (channel * channel_stride + load_word(tap_table, tap)) * size
                for i in range(rows):
                    store(target, i, load(element, i * output_stride))
                target += panel_rows * size
                k += 1

    @kernel
    def pack_slice(run: int, plan: int, weights: int, packed: int, slice_: int, panels: int) -> None:
        """Pack a few channels of all panels at a time: neighbours in memory, and few pages."""
        outputs = load_word(run, words.OUTPUTS)
        channels = load_word(run, words.CHANNELS)
        output_stride = load_word(run, words.W_OUTPUT)
        tap_table = plan + load_word(run, words.TAP_TABLE) * WORD
        stop = channels * (slice_ + 1) // panels
        for channel in range(channels * slice_ // panels, stop, CHANNELS_AT_A_TIME):
            first = 0
            for panel in range(panels):
                end = panel_start(outputs, panel + 1, panels)
                source = weights + first * output_stride * size
                target = packed + panel * load_word(run, words.PANEL_BYTES)
                last = minimum(stop, channel + CHANNELS_AT_A_TIME)
                pack_channels(run, tap_table, source, end - first, target, panels, channel, last)
                first = end

    return pack_panel, pack_slice


def packing_task(bits: int, shape: TileShape) -> Any:
    """Return the task that packs a share of one run's weights; all tasks together look for NaN and inf among them."""
    size = bits // 8
    panel_rows = shape.rows
    pack_panel, pack_slice = weight_packing(bits, shape)
    probe = row_probe(f"float{bits}")
    zero = KERNEL_TYPES[f"float{bits}"](0)

    @kernel
    def pack_task(scratch: int, task: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        weights = load_word(load_word(scratch, 1), 1)
        run = find_run(plan, words.FIRST_PACK, task)
        panels = (load_word(run, words.OUTPUTS) + panel_rows - 1) // panel_rows
        index = task - load_word(run, words.FIRST_PACK)
        group = index // panels
        packed = scratch + load_word(run, words.PACKED_BYTES) + group * load_word(run, words.GROUP_BYTES)
        group_weights = weights + group * load_word(run, words.W_GROUP) * size
        if load_word(run, words.ORDERED_TAPS):
            pack_panel(run, group_weights, packed, index % panels, panels)
        else:
            pack_slice(run, plan, group_weights, packed, index % panels, panels)
        if load_word(plan, words.EXACT_PLAN):
            tasks = load_word(plan, words.PACK_TASKS)
            items = load_word(plan, words.GROUPS) * load_word(run, words.W_GROUP)
            first = items * task // tasks
            if probe(weights + first * size, items * (task + 1) // tasks - first) != zero:
                store_word(scratch, words.IS_FINITE, 0)

    return pack_task
