"""The gradient of convolution weights: a product over positions for each tap (`plan_conv`).

    dW[tap][o, c] += sum_p  dY[o, p] * padded[c, p + offset(tap)]

p counts positions with the pitch of the padded copy (`conv_kernels`); dY is zero where a position is no output.  Both
operands have p as their contiguous axis but the tile wants it outermost, so each is transposed once per chunk.

* Many input channels ("wide"): vectors run over c.  dY is packed in panels of rows o, the input transposed to [p, c],
  and the tap is an offset into it.
* Few: vectors run over o, and the panel of A is gathered from the copy: rows (c, tap), whatever their offsets.

Every task takes a fixed share of the chunks and sums into an array of its own; a last region adds them up. Where the
weights are large, tasks also differ in their block of output maps, and there are fewer arrays of sums. With many
groups, tasks take whole groups, and there is one array.

Positions that are no output multiply the input by zero, so an inf or NaN of the input also shows in taps of its
channel that it does not belong to: sums that are not finite are computed again in plain loops.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen import conv_layout as words
from tracegrad.codegen.addresses import (
    KERNEL_TYPES,
    load_word,
    loader,
    minimum,
    par_for,
    store_word,
    storer,
    task_address,
)
from tracegrad.codegen.conv_input import padded_copy
from tracegrad.codegen.conv_packing import WORD
from tracegrad.codegen.direct_kernels import exact_tap_gradient
from tracegrad.codegen.finish import finish
from tracegrad.codegen.gemm_kernels import ENTRY_SIGNATURE, TASK_SIGNATURE, packing, panel_start
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import HEADER_BYTES, SHORT_NAMES
from tracegrad.codegen.row_loops import row_probe
from tracegrad.codegen.tile import tile_intrinsic, tile_part
from tracegrad.codegen.tile_moves import transpose_intrinsic, transpose_part
from tracegrad.codegen.tile_shape import TileShape


def turned_gradient(bits: int, pack: Any) -> Any:
    """Return the kernel turn(dy, plan, rows, width, first, count, panel_width, target): a panel target[p, o] of dY.

    dy: the chunk's first position in the first output map; width: of its rows.  Positions that are no output are zero.
    """
    size = bits // 8
    store = storer(f"float{bits}")
    zero = KERNEL_TYPES[f"float{bits}"](0)

    @kernel
    def turn(dy: int, plan: int, rows: int, width: int, first: int, count: int, panel_width: int, target: int) -> None:
        out_w = load_word(plan, words.G_OUT_W)
        plane = load_word(plan, words.G_OUT_D) * load_word(plan, words.G_OUT_H) * out_w
        pitch = load_word(plan, words.G_PITCH)
        for r in range(rows):
            place = target + r * pitch * panel_width * size
            pack(dy + (first * plane + r * out_w) * size, plane, 1, count, width, place, panel_width)
            for i in range(width * panel_width, pitch * panel_width):
                store(place, i, zero)

    return turn


def tap_gradients(bits: int, shape: TileShape) -> Any:
    """Return the kernel add_taps(plan, dy, x, k, o, rows, c, sums)."""
    size = bits // 8
    columns = shape.columns(size)
    tile = tile_intrinsic(bits, indirect=False)

    @kernel
    def add_taps(plan: int, dy: int, x: int, k: int, o: int, rows: int, c: int, sums: int) -> None:
        """Add sum_p dY[o.., p] * X[p + offset, c..] to every tap's block of dW."""
        outputs = load_word(plan, words.G_OUTPUTS)
        channels = load_word(plan, words.G_CHANNELS)
        offsets = plan + load_word(plan, words.G_OFFSET_TABLE) * WORD
        pitch = (channels + columns - 1) // columns * columns
        for tap in range(load_word(plan, words.G_TAPS)):
            b = x + load_word(offsets, tap) * columns * size
            target = sums + ((tap * outputs + o) * pitch + c) * size
            tile(rows, k, dy, b, columns * size, target, pitch * size, channels - c, 1)

    return add_taps


def wide_gradient(bits: int, shape: TileShape, pack: Any, turn: Any) -> Any:
    """Return the kernel wide(dy, x, x_plane, x_positions, plan, rows, width, block, turned_dy, turned_x, sums)."""
    size = bits // 8
    columns = shape.columns(size)
    panel_rows = shape.rows
    slack = 4 + columns // panel_rows
    add_taps = tap_gradients(bits, shape)

    @kernel
    def wide(
        dy: int, x: int, x_plane: int, x_positions: int, plan: int, rows: int, width: int, block: int, turned_dy: int,
        turned_x: int, sums: int,
    ) -> None:  # fmt: skip
        outputs = load_word(plan, words.G_OUTPUTS)
        channels = load_word(plan, words.G_CHANNELS)
        plane = load_word(plan, words.G_PLANE)
        phases = load_word(plan, words.G_PHASES)
        panels = (outputs + panel_rows - 1) // panel_rows
        positions = rows * load_word(plan, words.G_PITCH)
        panel_items = (load_word(plan, words.G_ROWS) * load_word(plan, words.G_PITCH) + slack) * panel_rows
        blocks = load_word(plan, words.G_MAP_BLOCKS)
        first_panel = panels * block // blocks
        end_panel = panels * (block + 1) // blocks
        for panel in range(first_panel, end_panel):
            first = panel_start(outputs, panel, panels)
            count = panel_start(outputs, panel + 1, panels) - first
            turn(dy, plan, rows, width, first, count, panel_rows, turned_dy + panel * panel_items * size)
        for c in range(0, channels, columns):
            for phase in range(phases):
                source = x + (phase * channels + c) * x_plane * size
                target = turned_x + (c // columns * phases + phase) * plane * columns * size
                pack(source, x_plane, 1, minimum(columns, channels - c), x_positions, target, columns)
        for p in range(0, positions, words.POSITION_BLOCK):
            k = minimum(words.POSITION_BLOCK, positions - p)
            for c in range(0, channels, columns):
                for panel in range(first_panel, end_panel):
                    o = panel_start(outputs, panel, panels)
                    count = panel_start(outputs, panel + 1, panels) - o
                    a = turned_dy + (panel * panel_items + p * panel_rows) * size
                    b = turned_x + (c // columns * phases * plane + p) * columns * size
                    add_taps(plan, a, b, k, o, count, c, sums)

    return wide


def narrow_gradient(bits: int, shape: TileShape, turn: Any) -> Any:
    """Return the kernel narrow(dy, x, plan, rows, width, block, turned_dy, panel, sums)."""
    size = bits // 8
    lanes = shape.lanes(size)
    columns = shape.columns(size)
    panel_rows = shape.rows
    gather = transpose_intrinsic(bits, indirect=True)
    tile = tile_intrinsic(bits, indirect=False)

    @kernel
    def gather_panel(x: int, offsets: int, count: int, k: int, panel: int) -> None:
        """Compute panel[p, i] = x[p + offset of row i], for k positions (descending: see `packing`)."""
        for i in range((count - 1) // lanes * lanes, -1, -lanes):
            gather(x, offsets + i * WORD, minimum(lanes, count - i), k, panel + i * size, panel_rows * size)

    @kernel
    def narrow(
        dy: int, x: int, plan: int, rows: int, width: int, block: int, turned_dy: int, panel: int, sums: int
    ) -> None:
        outputs = load_word(plan, words.G_OUTPUTS)
        offsets = plan + load_word(plan, words.G_OFFSET_TABLE) * WORD
        depth = load_word(plan, words.G_CHANNELS) * load_word(plan, words.G_TAPS)
        panels = (depth + panel_rows - 1) // panel_rows
        positions = rows * load_word(plan, words.G_PITCH)
        dy_pitch = load_word(plan, words.G_ROWS) * load_word(plan, words.G_PITCH)
        sums_pitch = (outputs + columns - 1) // columns * columns
        vectors = (outputs + columns - 1) // columns
        blocks = load_word(plan, words.G_MAP_BLOCKS)
        first_map = vectors * block // blocks * columns
        end_map = minimum(outputs, vectors * (block + 1) // blocks * columns)
        for o in range(first_map, end_map, columns):
            target = turned_dy + o // columns * dy_pitch * columns * size
            turn(dy, plan, rows, width, o, minimum(columns, outputs - o), columns, target)
        for p in range(0, positions, words.POSITION_BLOCK):
            k = minimum(words.POSITION_BLOCK, positions - p)
            for q in range(panels):
                first = panel_start(depth, q, panels)
                count = panel_start(depth, q + 1, panels) - first
                gather_panel(x + p * size, offsets + first * WORD, count, k, panel)
                for o in range(first_map, end_map, columns):
                    b = turned_dy + (o // columns * dy_pitch + p) * columns * size
                    target = sums + (first * sums_pitch + o) * size
                    tile(count, k, panel, b, columns * size, target, sums_pitch * size, outputs - o, 1)

    return narrow


def row_repair(bits: int) -> Any:
    """Return the kernel repair(exact, operands, row, channels, taps, slices), for a row of dW.

    Where a sum of a channel is not finite its taps are computed again; exact: the plan of the plain loops.
    """
    size = bits // 8
    store = storer(f"float{bits}")
    exact_tap = exact_tap_gradient(f"float{bits}")
    probe = row_probe(f"float{bits}")
    zero = KERNEL_TYPES[f"float{bits}"](0)

    @kernel
    def repair(exact: int, operands: int, row: int, channels: int, taps: int, slices: int) -> None:
        """Channels count depth taps, too, as many as there are slices."""
        result = load_word(operands, 2) + row * channels * taps * size
        if probe(result, channels * taps) != zero:
            x, dy = load_word(operands, 0), load_word(operands, 1)
            for c in range(channels):
                if probe(result + c * taps * size, taps) != zero:
                    for tap in range(taps):
                        found = exact_tap(exact, x, dy, row, c // slices, c % slices * taps + tap)
                        store(result, c * taps + tap, found)

    return repair


def fold_task(bits: int, shape: TileShape) -> Any:
    """Return the task that adds the shares' sums of one output map into dW[o, c, tap]; c counts depth taps, too."""
    size = bits // 8
    columns = shape.columns(size)
    load = loader(f"float{bits}")
    store = storer(f"float{bits}")
    repair = row_repair(bits)

    @kernel
    def add_shares(plan: int, sums: int, step: int, target: int, target_step: int, count: int) -> None:
        """Add up the sums of all shares: elements 0, step, ... of each."""
        for i in range(count):
            store(target, i * target_step, load(sums, i * step))
        for share in range(1, load_word(plan, words.G_SHARES)):
            other = sums + share * load_word(plan, words.G_SUMS_BYTES)
            for i in range(count):
                store(target, i * target_step, load(target, i * target_step) + load(other, i * step))

    @kernel
    def fold(scratch: int, task: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        outputs = load_word(plan, words.G_OUTPUTS)
        channels = load_word(plan, words.G_CHANNELS)
        taps = load_word(plan, words.G_TAPS)
        o = task % outputs
        sums = scratch + HEADER_BYTES + task // outputs * load_word(plan, words.G_GROUP_SUMS) * size
        result = load_word(load_word(scratch, 1), 2) + task * channels * taps * size
        c_pitch = (channels + columns - 1) // columns * columns
        o_pitch = (outputs + columns - 1) // columns * columns
        if load_word(plan, words.G_WIDE):
            for tap in range(taps):
                add_shares(plan, sums + (tap * outputs + o) * c_pitch * size, 1, result + tap * size, taps, channels)
        else:
            add_shares(plan, sums + o * size, o_pitch, result, 1, channels * taps)
        exact = plan + load_word(plan, words.G_EXACT_PLAN) * WORD
        repair(exact, load_word(scratch, 1), task, channels, taps, load_word(plan, words.G_SLICES))
        finish(load_word(scratch, 1), task * channels * taps, 1, channels * taps, channels * taps)

    return fold


def clearing_task(bits: int) -> Any:
    """Return the task that clears one share's sums of a group."""
    size = bits // 8
    store = storer(f"float{bits}")
    zero = KERNEL_TYPES[f"float{bits}"](0)

    @kernel
    def clear_task(scratch: int, task: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        groups, items = load_word(plan, words.G_GROUPS), load_word(plan, words.G_GROUP_SUMS)
        target = scratch + HEADER_BYTES + task // groups * load_word(plan, words.G_SUMS_BYTES)
        target += task % groups * items * size
        for i in range(items):
            store(target, i, zero)

    return clear_task


def chunk_gradient(bits: int, shape: TileShape) -> Any:
    """Return the kernel add_chunk(scratch, task, share, block, thread)."""
    size = bits // 8
    pad = padded_copy(bits, shape)
    pack = packing(bits, shape)
    turn = turned_gradient(bits, pack)
    wide = wide_gradient(bits, shape, pack, turn)
    narrow = narrow_gradient(bits, shape, turn)

    @kernel
    def add_chunk(scratch: int, task: int, share: int, block: int, thread: int) -> None:
        """Add one chunk of one image to a share's sums; they are counted by groups, whose sums stay in the cache."""
        plan = load_word(scratch, 0)
        operands = load_word(scratch, 1)
        column_chunks = load_word(plan, words.G_COLUMN_CHUNKS)
        chunks = load_word(plan, words.G_CHUNKS)
        out_d = load_word(plan, words.G_OUT_D)
        slice_ = task // (chunks * column_chunks) % out_d
        groups = load_word(plan, words.G_GROUPS)
        images = load_word(plan, words.G_IMAGES) // groups
        job = task // (chunks * column_chunks * out_d)
        group = job // images
        image = job % images * groups + group
        chunk = task // column_chunks % chunks
        out_h = load_word(plan, words.G_OUT_H)
        out_w = load_word(plan, words.G_OUT_W)
        first = out_h * chunk // chunks
        rows = out_h * (chunk + 1) // chunks - first
        first_column = out_w * (task % column_chunks) // column_chunks
        cut_width = out_w * (task % column_chunks + 1) // column_chunks - first_column
        slices = load_word(plan, words.G_SLICES)
        channels = load_word(plan, words.G_CHANNELS) // slices
        depth = load_word(plan, words.G_DEPTH)
        height = load_word(plan, words.G_HEIGHT)
        width = load_word(plan, words.G_WIDTH)
        plane = load_word(plan, words.G_PLANE)
        items = channels * depth * height * width
        x = load_word(operands, 0) + image * items * size
        end = load_word(operands, 0) + load_word(plan, words.G_IMAGES) * items * size
        dy_row = (image * load_word(plan, words.G_OUTPUTS) * out_d + slice_) * out_h + first
        dy = load_word(operands, 1) + (dy_row * out_w + first_column) * size
        work = scratch + load_word(plan, words.G_WORK_OFFSET) + thread * load_word(plan, words.G_WORK_BYTES)
        turned_dy = work + load_word(plan, words.G_DY_OFFSET)
        turned_x = work + load_word(plan, words.G_X_OFFSET)
        sums = scratch + HEADER_BYTES + share * load_word(plan, words.G_SUMS_BYTES)
        sums += group * load_word(plan, words.G_GROUP_SUMS) * size
        padded = work
        x_plane = plane
        x_positions = plane
        if load_word(plan, words.G_IN_PLACE):
            padded = x + (slice_ * height + first) * width * size
            x_plane = depth * height * width
            x_positions = rows * width
        else:
            left = load_word(plan, words.G_LEFT) - first_column * load_word(plan, words.G_STRIDE_W)
            pad(x, end, channels, depth, height, width, slice_ * load_word(plan, words.G_STRIDE_D),
                plan + load_word(plan, words.G_SLICE_TABLE) * WORD, slices, load_word(plan, words.G_TOP), left,
                load_word(plan, words.G_STRIDE_H), load_word(plan, words.G_STRIDE_W), first,
                rows + load_word(plan, words.G_HALO), load_word(plan, words.G_PITCH), plane,
                plan + load_word(plan, words.G_PHASE_TABLE) * WORD, load_word(plan, words.G_PHASES), work)  # fmt: skip
        if load_word(plan, words.G_WIDE):
            wide(dy, padded, x_plane, x_positions, plan, rows, cut_width, block, turned_dy, turned_x, sums)
        else:
            narrow(dy, padded, plan, rows, cut_width, block, turned_dy, turned_x, sums)

    return add_chunk


def summing_task(bits: int, shape: TileShape) -> Any:
    """Return the task that adds its part of all chunks of all images, for its block of maps, to its share's sums.

    Parts are fixed, not claimed: which numbers are added in which order must not depend on timing.
    """
    add_chunk = chunk_gradient(bits, shape)

    @kernel
    def sum_task(scratch: int, index: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        blocks, parts = load_word(plan, words.G_MAP_BLOCKS), load_word(plan, words.G_PARTS)
        part = index // blocks
        share = part * load_word(plan, words.G_SHARES) // parts
        chunks = load_word(plan, words.G_IMAGES) * load_word(plan, words.G_OUT_D)
        chunks *= load_word(plan, words.G_CHUNKS) * load_word(plan, words.G_COLUMN_CHUNKS)
        units = load_word(plan, words.G_UNITS)
        first, end = units * part // parts, units * (part + 1) // parts
        for task in range(chunks // units * first, chunks // units * end):
            add_chunk(scratch, task, share, index % blocks, thread)

    return sum_task


def convw_entries(bits: int, shape: TileShape) -> dict[str, tuple[Any, Any]]:
    """Return the entry of the weight gradient and its tasks."""
    name = SHORT_NAMES[f"float{bits}"]
    clear_address = task_address(f"tg_convw_{name}_clear")
    sum_address = task_address(f"tg_convw_{name}_sum")
    fold_address = task_address(f"tg_convw_{name}_fold")

    @kernel
    def convw(plan: int, operands: int, scratch: int, pool: int) -> None:
        store_word(scratch, 0, plan)
        store_word(scratch, 1, operands)
        par_for(pool, clear_address(), scratch, load_word(plan, words.G_SHARES) * load_word(plan, words.G_GROUPS))
        par_for(pool, sum_address(), scratch, load_word(plan, words.G_PARTS) * load_word(plan, words.G_MAP_BLOCKS))
        par_for(pool, fold_address(), scratch, load_word(plan, words.G_GROUPS) * load_word(plan, words.G_OUTPUTS))

    return {
        f"tg_convw_{name}": (convw, ENTRY_SIGNATURE),
        f"tg_convw_{name}_clear": (clearing_task(bits), TASK_SIGNATURE),
        f"tg_convw_{name}_sum": (summing_task(bits, shape), TASK_SIGNATURE),
        f"tg_convw_{name}_fold": (fold_task(bits, shape), TASK_SIGNATURE),
    }


def convw_parts(bits: int, shape: TileShape) -> list[ir.Module]:
    """Return the finished modules that the weight gradient calls."""
    return [
        tile_part(bits, shape, indirect=False),
        transpose_part(bits, shape),
        transpose_part(bits, shape, indirect=True),
    ]
