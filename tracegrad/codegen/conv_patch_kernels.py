"""The gradient of convolution weights as a product with patches of the input: see `plan_conv_patches` for the formula.

    pack dy: panels of the tile's height, position by position
    for blocks of columns k = (channel, tap):
        for chunks of positions:
            copy the channels of the block, with zeros around them
            for panels of columns:  transpose what their taps meet; for panels of maps:  the tile, added to dw
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen import plan_conv_patches as words
from tracegrad.codegen.addresses import load_word, minimum, par_for, store_word, task_address
from tracegrad.codegen.conv_input import padded_copy
from tracegrad.codegen.finish import finish
from tracegrad.codegen.gemm_kernels import ENTRY_SIGNATURE, TASK_SIGNATURE, packing, panel_start
from tracegrad.codegen.gemm_tile import product_tile_intrinsic, product_tile_part
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import HEADER_BYTES, SHORT_NAMES
from tracegrad.codegen.plan_conv_patches import PATCH_WORDS, TAP_WORDS, WORD
from tracegrad.codegen.tile_moves import transpose_intrinsic, transpose_part
from tracegrad.codegen.tile_shape import TileShape


def gradient_packing(bits: int, shape: TileShape) -> Any:
    """Return the task that packs a panel of maps of dy: [position, map], all positions of all images."""
    size = bits // 8
    panel_rows = shape.rows
    pack = packing(bits, shape)

    @kernel
    def pack_task(scratch: int, panel: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        outputs, slices = load_word(plan, words.OUTPUTS), load_word(plan, words.OUT_D)
        positions = load_word(plan, words.OUT_H) * load_word(plan, words.OUT_W)
        panels = (outputs + panel_rows - 1) // panel_rows
        first = panel_start(outputs, panel, panels)
        count = panel_start(outputs, panel + 1, panels) - first
        target = scratch + HEADER_BYTES + panel * load_word(plan, words.DY_BYTES)
        for plane in range(load_word(plan, words.IMAGES) * slices):
            place = (plane // slices * outputs + first) * slices + plane % slices
            dy = load_word(load_word(scratch, 1), 1) + place * positions * size
            pack(dy, slices * positions, 1, count, positions, target, panel_rows)
            target += positions * panel_rows * size

    return pack_task


def channel_copy(bits: int, shape: TileShape) -> Any:
    """Return the kernel copy(plan, operands, plane, first, rows, channel, channels, target).

    It makes the padded copy of some channels, of what some rows of a plane of dy meet.
    """
    size = bits // 8
    pad = padded_copy(bits, shape)

    @kernel
    def copy(
        plan: int, operands: int, plane: int, first: int, rows: int, channel: int, channels: int, target: int
    ) -> None:
        all_channels, depth = load_word(plan, words.CHANNELS), load_word(plan, words.DEPTH)
        height, width = load_word(plan, words.HEIGHT), load_word(plan, words.WIDTH)
        out_d = load_word(plan, words.OUT_D)
        items = depth * height * width
        x = load_word(operands, 0) + (plane // out_d * all_channels + channel) * items * size
        end = load_word(operands, 0) + load_word(plan, words.IMAGES) * all_channels * items * size
        pad(x, end, channels, depth, height, width, plane % out_d * load_word(plan, words.STRIDE_D),
            plan + load_word(plan, words.SLICE_TABLE) * WORD, load_word(plan, words.SLICES),
            load_word(plan, words.TOP), load_word(plan, words.LEFT), load_word(plan, words.STRIDE_H),
            load_word(plan, words.STRIDE_W), first, rows + load_word(plan, words.HALO), load_word(plan, words.PITCH),
            load_word(plan, words.PLANE), plan + load_word(plan, words.PHASE_TABLE) * WORD,
            load_word(plan, words.PHASES), target)  # fmt: skip

    return copy


@kernel
def write_offsets(plan: int, first: int, end: int, channel: int, channels: int, size: int, table: int) -> None:
    """Write where columns first..end-1 are in the padded copies of some channels, the first of which is `channel`."""
    taps, slices = load_word(plan, words.TAPS), load_word(plan, words.SLICES)
    for k in range(first, end):
        tap = plan + (PATCH_WORDS + k % taps * TAP_WORDS) * WORD
        copy = load_word(tap, words.PHASE) * channels + k // taps - channel
        place = (copy * slices + load_word(tap, words.SLICE)) * load_word(plan, words.PLANE)
        store_word(table, k - first, (place + load_word(tap, words.PLACE)) * size)


def patch_panel(bits: int, shape: TileShape) -> Any:
    """Return the kernel gather(plan, copies, copy_bytes, planes, rows, offsets, count, panel): panel[position, k]."""
    size = bits // 8
    lanes = shape.lanes(size)
    row_bytes = shape.columns(size) * size
    transpose = transpose_intrinsic(bits, indirect=True)

    @kernel
    def gather(
        plan: int, copies: int, copy_bytes: int, planes: int, rows: int, offsets: int, count: int, panel: int
    ) -> None:
        width = load_word(plan, words.OUT_W)
        pitch_bytes = load_word(plan, words.PITCH) * size
        place = panel
        for plane in range(planes):
            for row in range(rows):  # what a row of positions spills, the next one covers
                source = copies + plane * copy_bytes + row * pitch_bytes
                for i in range(0, count, lanes):
                    few = minimum(lanes, count - i)
                    transpose(source, offsets + i * WORD, few, width, place + i * size, row_bytes)
                place += width * row_bytes

    return gather


def column_task(bits: int, shape: TileShape) -> Any:
    """Return the task that computes a block of columns of dw."""
    size = bits // 8
    columns, panel_rows = shape.columns(size), shape.rows
    copy, gather, tile = channel_copy(bits, shape), patch_panel(bits, shape), product_tile_intrinsic(bits)

    @kernel
    def add_columns(
        plan: int, operands: int, packed: int, depth: int, panel: int, column: int, count: int, accumulate: int
    ) -> None:
        """Add the products of all maps of dy, packed from a chunk's first position on, and a panel of columns."""
        outputs = load_word(plan, words.OUTPUTS)
        step = load_word(plan, words.CHANNELS) * load_word(plan, words.TAPS) * size
        panels = (outputs + panel_rows - 1) // panel_rows
        a = packed
        for q in range(panels):
            row = panel_start(outputs, q, panels)
            target = load_word(operands, 2) + row * step + column * size
            tile(panel_start(outputs, q + 1, panels) - row, depth, a, size, panel_rows * size, panel, columns * size,
                 target, step, count, accumulate)  # fmt: skip
            a += load_word(plan, words.DY_BYTES)

    @kernel
    def add_chunk(
        scratch: int, chunk: int, first: int, end: int, channel: int, channels: int, copies: int
    ) -> None:
        """Add a chunk of positions to columns first..end-1, which are of some channels."""
        plan, operands = load_word(scratch, 0), load_word(scratch, 1)
        chunks, row_chunks = load_word(plan, words.CHUNKS), load_word(plan, words.ROW_CHUNKS)
        height, width = load_word(plan, words.OUT_H), load_word(plan, words.OUT_W)
        planes = load_word(plan, words.IMAGES) * load_word(plan, words.OUT_D)
        plane, end_plane = planes * chunk // chunks, planes * (chunk + 1) // chunks
        if row_chunks > 1:
            plane, end_plane = chunk // row_chunks, chunk // row_chunks + 1
        row, end_row = height * (chunk % row_chunks) // row_chunks, height * (chunk % row_chunks + 1) // row_chunks
        copy_bytes = load_word(plan, words.PHASES) * channels * load_word(plan, words.SLICES)
        copy_bytes *= load_word(plan, words.PLANE) * size
        for p in range(plane, end_plane):
            copy(plan, operands, p, row, end_row - row, channel, channels, copies + (p - plane) * copy_bytes)
        packed = scratch + HEADER_BYTES + (plane * height + row) * width * panel_rows * size
        depth = (end_plane - plane) * (end_row - row) * width
        panel, table = copies + load_word(plan, words.PANEL_OFFSET), copies + load_word(plan, words.OFFSET_TABLE)
        for k in range(first, end, columns):
            count = minimum(columns, end - k)
            gather(plan, copies, copy_bytes, end_plane - plane, end_row - row, table + (k - first) * WORD, count, panel)
            add_columns(plan, operands, packed, depth, panel, k, count, chunk)

    @kernel
    def columns_task(scratch: int, block: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        taps, blocks = load_word(plan, words.TAPS), load_word(plan, words.BLOCKS)
        depth = load_word(plan, words.CHANNELS) * taps
        panels = (depth + columns - 1) // columns
        first = panels * block // blocks * columns
        end = minimum(depth, panels * (block + 1) // blocks * columns)
        channel = first // taps
        channels = (end - 1) // taps + 1 - channel
        copies = scratch + load_word(plan, words.WORK_OFFSET) + thread * load_word(plan, words.WORK_BYTES)
        write_offsets(plan, first, end, channel, channels, size, copies + load_word(plan, words.OFFSET_TABLE))
        for chunk in range(load_word(plan, words.CHUNKS)):
            add_chunk(scratch, chunk, first, end, channel, channels, copies)
        finish(load_word(scratch, 1), first, load_word(plan, words.OUTPUTS), depth, end - first)

    return columns_task


def convu_entries(bits: int, shape: TileShape) -> dict[str, tuple[Any, Any]]:
    """Return the entry of the gradient of the weights by patches, and its tasks."""
    name = SHORT_NAMES[f"float{bits}"]
    panel_rows = shape.rows
    pack_address = task_address(f"tg_convu_{name}_pack")
    column_address = task_address(f"tg_convu_{name}_columns")

    @kernel
    def convu(plan: int, operands: int, scratch: int, pool: int) -> None:
        store_word(scratch, 0, plan)
        store_word(scratch, 1, operands)
        par_for(pool, pack_address(), scratch, (load_word(plan, words.OUTPUTS) + panel_rows - 1) // panel_rows)
        par_for(pool, column_address(), scratch, load_word(plan, words.BLOCKS))

    return {
        f"tg_convu_{name}": (convu, ENTRY_SIGNATURE),
        f"tg_convu_{name}_pack": (gradient_packing(bits, shape), TASK_SIGNATURE),
        f"tg_convu_{name}_columns": (column_task(bits, shape), TASK_SIGNATURE),
    }


def convu_parts(bits: int, shape: TileShape) -> list[ir.Module]:
    """Return the finished modules that the gradient calls."""
    return [
        product_tile_part(bits, shape),
        transpose_part(bits, shape),
        transpose_part(bits, shape, indirect=True),
    ]
