"""Convolutions as products over a padded copy of the input: forward, and the gradient of the data (`plan_conv`).

A chunk of output rows (of parts of rows, if they are long) needs some rows of the input.  They are copied once into
scratch, with zeros around them and a fixed pitch.  When output positions are counted with the same pitch,
p = i * pitch + j, every (channel, tap) k is a constant offset into the copy, and the chunk is one product whose rows of
B lie where the offset table says:

    Y[m, p] = sum_k A[m, k] * padded[offset[k] + p]        A = the packed weights, p < rows * pitch

No im2col, no blocked layout.  Positions j >= out_w are junk; they are dropped when the chunk is written to its place in
the result.  Rows of whole vectors may be products of their own, in place (`plan_conv_runs.choose_place`).  Where the
convolution has strides, the copy of the forward direction is split into phases, so that offsets stay constant, and the
result of the gradient is: a run for each phase of dx, all over one copy (`plan_conv_runs`).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen import conv_layout as words
from tracegrad.codegen.addresses import load_word, minimum, par_for, store_word, task_address
from tracegrad.codegen.conv_input import padded_copy
from tracegrad.codegen.conv_packing import WORD, packed_weights, packing_task, run_address
from tracegrad.codegen.conv_result import result_rows
from tracegrad.codegen.direct_kernels import direct_entries
from tracegrad.codegen.finish import finish
from tracegrad.codegen.gemm_kernels import ENTRY_SIGNATURE, TASK_SIGNATURE, panel_start
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import SHORT_NAMES
from tracegrad.codegen.plan_conv_runs import depth_blocks
from tracegrad.codegen.plan_gemm import K_BLOCK
from tracegrad.codegen.row_moves import row_wipe
from tracegrad.codegen.tile import thin_tile_intrinsic, thin_tile_part, tile_intrinsic, tile_part
from tracegrad.codegen.tile_moves import transpose_part
from tracegrad.codegen.tile_shape import THIN_ROWS, TileShape, thin_vectors


def strip_product(tile: Any) -> Any:
    """Return the kernel multiply(packed, panel_bytes, outputs, panels, depth, padded, table, y, y_bytes, n, block)."""

    @kernel
    def multiply(
        packed: int, panel_bytes: int, outputs: int, panels: int, depth: int, padded: int, table: int, y: int,
        y_bytes: int, n: int, block: int,
    ) -> None:  # fmt: skip
        """Run the tile over all panels of weights, for one strip of positions."""
        a = packed
        first = 0
        for panel in range(panels):
            end = panel_start(outputs, panel + 1, panels)
            tile(end - first, depth, a, padded, table, y + first * y_bytes, y_bytes, n, block)
            a += panel_bytes
            first = end

    return multiply


def chunk_sweep(bits: int, shape: TileShape) -> Any:
    """Return the kernel sweep(packed, panel_bytes, outputs, depth, padded, offsets, y, y_pitch, positions)."""
    size = bits // 8
    lanes = shape.lanes(size)
    columns = shape.columns(size)
    panel_rows = shape.rows
    depth_limit = K_BLOCK[size]
    multiply = strip_product(tile_intrinsic(bits, indirect=True))
    multiply_thin = strip_product(thin_tile_intrinsic(bits))

    @kernel
    def sweep(
        packed: int, panel_bytes: int, outputs: int, depth: int, padded: int, offsets: int, y: int, y_pitch: int,
        positions: int,
    ) -> None:  # fmt: skip
        """Y[m, p] = sum_k A[m, k] * padded[offsets[k] + p]: for each strip of positions all panels of weights."""
        blocks = depth_blocks(depth, depth_limit)
        panels = (outputs + panel_rows - 1) // panel_rows
        rows = minimum(outputs, 2 * (((outputs + 1) // 2 + panels - 1) // panels))  # of the tallest panel
        for block in range(blocks):
            k0 = depth * block // blocks
            k_count = depth * (block + 1) // blocks - k0
            table = offsets + k0 * WORD
            a = packed + block * panels * panel_bytes
            p = 0
            if rows <= THIN_ROWS:
                width = lanes * thin_vectors(rows)
                while p + width <= positions:
                    multiply_thin(a, panel_bytes, outputs, panels, k_count, padded + p * size, table, y + p * size,
                                  y_pitch * size, width, block)  # fmt: skip
                    p += width
            while p < positions:
                multiply(a, panel_bytes, outputs, panels, k_count, padded + p * size, table, y + p * size,
                         y_pitch * size, positions - p, block)  # fmt: skip
                p += columns

    return sweep


def row_sweep(bits: int, shape: TileShape) -> Any:
    """Return the kernel sweep_rows(plan, run, scratch, group, padded, y, rows): rows of the result.

    A panel of weights meets all rows before the next one does: so few streams are written that the CPU sees them, and
    3 channels by 3 x 3 taps to 64 maps are 1.2 to 1.8 times as fast.
    """
    size = bits // 8
    columns, panel_rows = shape.columns(size), shape.rows
    tile = tile_intrinsic(bits, indirect=True)

    @kernel
    def sweep_rows(plan: int, run: int, scratch: int, group: int, padded: int, y: int, rows: int) -> None:
        outputs, out_w = load_word(plan, words.OUTPUTS), load_word(plan, words.OUT_W)
        pitch_bytes = load_word(plan, words.PITCH) * size
        plane_bytes = load_word(plan, words.OUT_D) * load_word(plan, words.OUT_H) * out_w * size
        depth = load_word(plan, words.CHANNELS) * load_word(run, words.TAPS)
        panels = (outputs + panel_rows - 1) // panel_rows
        a = packed_weights(run, scratch, group)
        table = plan + load_word(run, words.OFFSET_TABLE) * WORD
        for panel in range(panels):
            m = panel_start(outputs, panel, panels)
            count = panel_start(outputs, panel + 1, panels) - m
            for r in range(rows):
                target = y + m * plane_bytes + r * out_w * size
                for p in range(0, out_w, columns):
                    tile(count, depth, a, padded + r * pitch_bytes + p * size, table, target + p * size, plane_bytes,
                         out_w - p, 0)  # fmt: skip
            a += load_word(run, words.PANEL_BYTES)

    return sweep_rows


def run_sweep(bits: int, shape: TileShape) -> Any:
    """Return the kernel sweep_run(plan, run, scratch, group, padded, y, y_pitch, positions)."""
    sweep = chunk_sweep(bits, shape)
    wipe = row_wipe(bits, shape)

    @kernel
    def sweep_run(
        plan: int, run: int, scratch: int, group: int, padded: int, y: int, y_pitch: int, positions: int
    ) -> None:
        outputs = load_word(plan, words.OUTPUTS)
        taps = load_word(run, words.TAPS)
        if taps:
            offsets = plan + load_word(run, words.OFFSET_TABLE) * WORD
            depth = load_word(plan, words.CHANNELS) * taps
            packed = packed_weights(run, scratch, group)
            sweep(packed, load_word(run, words.PANEL_BYTES), outputs, depth, padded, offsets, y, y_pitch, positions)
        else:
            wipe(y, outputs * y_pitch)

    return sweep_run


def input_copy(bits: int, shape: TileShape) -> Any:
    """Return the kernel copy_input(plan, operands, image, slice_, first_row, first_column, rows, run, padded).

    It makes the padded copy for the runs of a slice of the result, whose first one is `run`.
    """
    size = bits // 8
    pad = padded_copy(bits, shape)

    @kernel
    def copy_input(
        plan: int, operands: int, image: int, slice_: int, first_row: int, first_column: int, rows: int, run: int,
        padded: int,
    ) -> None:  # fmt: skip
        channels = load_word(plan, words.CHANNELS)
        depth = load_word(plan, words.DEPTH)
        height = load_word(plan, words.HEIGHT)
        width = load_word(plan, words.WIDTH)
        items = channels * depth * height * width
        x = load_word(operands, 0) + image * items * size
        end = load_word(operands, 0) + load_word(plan, words.IMAGES) * items * size
        left = load_word(plan, words.LEFT) - first_column * load_word(plan, words.STRIDE_W)
        pad(x, end, channels, depth, height, width, slice_ * load_word(plan, words.STRIDE_D),
            plan + load_word(run, words.SLICE_TABLE) * WORD, load_word(run, words.SLICES),
            load_word(plan, words.TOP), left, load_word(plan, words.STRIDE_H), load_word(plan, words.STRIDE_W),
            first_row, rows + load_word(plan, words.HALO), load_word(plan, words.PITCH), load_word(plan, words.PLANE),
            plan + load_word(plan, words.PHASE_TABLE) * WORD, load_word(plan, words.PHASES), padded)  # fmt: skip

    return copy_input


@kernel
def finish_chunk(plan: int, operands: int, first: int, rows: int, columns: int) -> None:
    """Finish a chunk that begins at element `first`: map by map, or all maps at once if it has all of their rows."""
    outputs = load_word(plan, words.OUTPUTS)
    width = load_word(plan, words.OUT_W)
    plane = load_word(plan, words.OUT_D) * load_word(plan, words.OUT_H) * width
    if rows * columns == plane:
        finish(operands, first, outputs, plane, plane)
    else:
        for m in range(outputs):
            finish(operands, first + m * plane, rows, width, columns)


def chunk_runs(bits: int, shape: TileShape) -> Any:
    """Return the kernel run_chunk(plan, scratch, group, runs, padded, target, rows, columns).

    It computes all runs, the first of which is `runs`, for rows x columns of the result, which begin at `target`.
    """
    size = bits // 8
    lanes = shape.lanes(size)
    tile_columns, depth_limit = shape.columns(size), K_BLOCK[size]
    sweep_run, sweep_rows = run_sweep(bits, shape), row_sweep(bits, shape)
    place_rows = result_rows(bits, shape)

    @kernel
    def run_chunk(
        plan: int, scratch: int, group: int, runs: int, padded: int, target: int, rows: int, columns: int
    ) -> None:
        outputs = load_word(plan, words.OUTPUTS)
        pitch = load_word(plan, words.PITCH)
        in_place = load_word(plan, words.IN_PLACE)
        step_h = load_word(plan, words.STEP_H)
        step_w = load_word(plan, words.STEP_W)
        run_columns = load_word(plan, words.RUN_COLUMNS)
        out_w = load_word(plan, words.OUT_W)
        y = target
        y_pitch = load_word(plan, words.OUT_D) * load_word(plan, words.OUT_H) * out_w
        if in_place == 0:
            y = padded + load_word(plan, words.Y_BYTES)
            y_pitch = (load_word(plan, words.ROWS) * pitch + tile_columns - 1) // tile_columns * tile_columns
        if in_place == words.ROW_BY_ROW:
            depth = load_word(plan, words.CHANNELS) * load_word(runs, words.TAPS)
            if outputs > THIN_ROWS and depth_blocks(depth, depth_limit) == 1:
                sweep_rows(plan, runs, scratch, group, padded, target, rows)
                return
            for r in range(rows):
                row = padded + r * pitch * size
                sweep_run(plan, runs, scratch, group, row, target + r * out_w * size, y_pitch, columns)
            return
        for a in range(minimum(rows, load_word(plan, words.RUN_ROWS))):
            run_rows = (rows - a + step_h - 1) // step_h
            for b in range(run_columns):
                run = runs + (a * run_columns + b) * words.RUN_WORDS * WORD
                positions = (run_rows - 1) * pitch + (columns - b + step_w - 1) // step_w
                if in_place == 0:  # Y has room for whole vectors: no store is masked
                    positions = (positions + lanes - 1) // lanes * lanes
                sweep_run(plan, run, scratch, group, padded, y + b * outputs * y_pitch * size, y_pitch, positions)
            if in_place == 0:
                place_rows(plan, y, y_pitch, target, a, run_rows, columns)

    return run_chunk


def chunk_task(bits: int, shape: TileShape) -> Any:
    """Return the task that computes one chunk of one slice of an image."""
    size = bits // 8
    copy_input = input_copy(bits, shape)
    run_chunk = chunk_runs(bits, shape)

    @kernel
    def conv_task(scratch: int, task: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        operands = load_word(scratch, 1)
        column_chunks = load_word(plan, words.COLUMN_CHUNKS)
        chunks = load_word(plan, words.CHUNKS)
        out_d = load_word(plan, words.OUT_D)
        part = task % column_chunks
        chunk = task // column_chunks % chunks
        slice_ = task // (chunks * column_chunks) % out_d
        groups = load_word(plan, words.GROUPS)
        images = load_word(plan, words.IMAGES) // groups
        job = task // (chunks * column_chunks * out_d)
        group = job // images  # one after the other: the weights of a group stay in the cache
        image = job % images * groups + group
        grid_h = load_word(plan, words.GRID_H)
        grid_w = load_word(plan, words.GRID_W)
        first_row = grid_h * chunk // chunks
        end_row = grid_h * (chunk + 1) // chunks
        first_column = grid_w * part // column_chunks
        end_column = grid_w * (part + 1) // column_chunks
        step_d = load_word(plan, words.STEP_D)
        phase = slice_ % step_d * load_word(plan, words.RUN_ROWS) * load_word(plan, words.RUN_COLUMNS)
        runs = run_address(plan, phase)
        padded = scratch + load_word(plan, words.WORK_OFFSET) + thread * load_word(plan, words.WORK_BYTES)
        copy_input(plan, operands, image, slice_ // step_d, first_row, first_column, end_row - first_row, runs, padded)
        out_h = load_word(plan, words.OUT_H)
        out_w = load_word(plan, words.OUT_W)
        step_h = load_word(plan, words.STEP_H)
        step_w = load_word(plan, words.STEP_W)
        rows = minimum(out_h, end_row * step_h) - first_row * step_h
        columns = minimum(out_w, end_column * step_w) - first_column * step_w
        first = (image * load_word(plan, words.OUTPUTS) * out_d + slice_) * out_h * out_w
        first += first_row * step_h * out_w + first_column * step_w
        target = load_word(operands, 2) + first * size
        run_chunk(plan, scratch, group, runs, padded, target, rows, columns)
        finish_chunk(plan, operands, first, rows, columns)

    return conv_task


def conv_entries(bits: int, shape: TileShape) -> dict[str, tuple[Any, Any]]:
    """Return the entry of forward and data-gradient convolutions, and its tasks."""
    name = SHORT_NAMES[f"float{bits}"]
    pack_task = packing_task(bits, shape)
    conv_task = chunk_task(bits, shape)
    pack_address = task_address(f"tg_conv_{name}_pack")
    conv_address = task_address(f"tg_conv_{name}_task")
    exact_entries = direct_entries(f"float{bits}", "data", f"tg_conv_{name}_exact")
    run_exact = exact_entries.pop(f"tg_conv_{name}_exact")[0]

    @kernel
    def conv(plan: int, operands: int, scratch: int, pool: int) -> None:
        store_word(scratch, 0, plan)
        store_word(scratch, 1, operands)
        store_word(scratch, words.IS_FINITE, 1)
        par_for(pool, pack_address(), scratch, load_word(plan, words.PACK_TASKS))
        exact_plan = load_word(plan, words.EXACT_PLAN)
        if exact_plan != 0 and load_word(scratch, words.IS_FINITE) == 0:
            # The tile multiplies every weight by the zeros around dy, too: a NaN or inf would reach too far.
            run_exact(plan + exact_plan * WORD, operands, scratch, pool)
        else:
            par_for(pool, conv_address(), scratch, load_word(plan, words.TASKS))

    return {
        f"tg_conv_{name}": (conv, ENTRY_SIGNATURE),
        f"tg_conv_{name}_pack": (pack_task, TASK_SIGNATURE),
        f"tg_conv_{name}_task": (conv_task, TASK_SIGNATURE),
        **exact_entries,
    }


def conv_parts(bits: int, shape: TileShape) -> list[ir.Module]:
    """Return the finished modules that the convolution calls."""
    return [tile_part(bits, shape, indirect=True), thin_tile_part(bits, shape), transpose_part(bits, shape)]
