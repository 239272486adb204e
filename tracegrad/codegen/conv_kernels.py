"""Convolutions as products over a padded copy of the input: forward, and the gradient of the data (`plan_conv`).

A chunk of output rows (of parts of rows, if they are long) needs some rows of the input.  They are copied once into
scratch, with zeros around them and a fixed pitch.  When output positions are counted with the same pitch,
p = i * pitch + j, every (channel, tap) k is a constant offset into the copy, and the chunk is one product whose rows of
B lie where the offset table says:

    Y[m, p] = sum_k A[m, k] * padded[offset[k] + p]        A = the packed weights, p < rows * pitch

No im2col, no blocked layout.  Positions j >= out_w are junk; compaction to the real result drops them, and is the place
for an epilogue.  With strides the copy is split into phases, so that offsets stay constant.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen import conv_layout as words
from tracegrad.codegen.addresses import (
    KERNEL_TYPES,
    load_word,
    loader,
    maximum,
    minimum,
    par_for,
    store_word,
    storer,
    task_address,
)
from tracegrad.codegen.conv_packing import WORD, find_run, packing_task
from tracegrad.codegen.direct_kernels import direct_entries
from tracegrad.codegen.finish import finish
from tracegrad.codegen.gemm_kernels import ENTRY_SIGNATURE, TASK_SIGNATURE, panel_start
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import SHORT_NAMES
from tracegrad.codegen.plan_gemm import K_BLOCK
from tracegrad.codegen.row_moves import row_copy, row_pick, row_wipe
from tracegrad.codegen.tile import tile_intrinsic, tile_part
from tracegrad.codegen.tile_moves import transpose_part
from tracegrad.codegen.tile_shape import TileShape


def padded_copy(bits: int, shape: TileShape) -> Any:
    """Return the kernel pad(x, end, channels, depth, height, width, slice_, slices, slice_count, top, left, ...).

    It copies rows first..first+rows-1 (of each phase: row r of phase (a, b) is row r*sh + a of the padded input, column
    q is column q*sw + b) of every channel's slices slice_ + slices[t], with zeros where the input has none, to
    target[phase, channel, t, plane].  end: that of the array which x lies in; up to there whole vectors are read.
    """
    size = bits // 8
    vector = shape.vector_bytes
    wipe = row_wipe(bits, shape)
    copy_row = row_copy(bits, shape)
    pick_row = row_pick(bits, shape)

    @kernel
    def pad_row(row: int, room: int, stride: int, low: int, high: int, pitch: int, target: int) -> None:
        """Copy elements of a row to columns low..high-1; what spills is covered by what follows, or cleared."""
        wipe(target, low)
        if stride == 1:
            copy_row(row, target + low * size, high - low, room)
        else:
            pick_row(row, stride, target + low * size, high - low, room)
        wipe(target + high * size, pitch - high)

    @kernel
    def pad(
        x: int, end: int, channels: int, depth: int, height: int, width: int, slice_: int, slices: int,
        slice_count: int, top: int, left: int, sh: int, sw: int, first: int, rows: int, pitch: int, plane: int,
        phases: int, phase_count: int, target: int,
    ) -> None:  # fmt: skip
        for phase in range(phase_count):
            a = load_word(phases, 2 * phase)
            shift = left - load_word(phases, 2 * phase + 1)
            low = minimum(pitch, maximum(0, (shift + sw - 1) // sw))
            high = maximum(low, minimum(pitch, (width - 1 + shift) // sw + 1))
            for copy in range(channels * slice_count):
                start = target + (phase * channels * slice_count + copy) * plane * size
                d = slice_ + load_word(slices, copy % slice_count)
                is_slice = d >= 0 and d < depth
                top_row = (copy // slice_count * depth + d) * height
                for r in range(rows):
                    row = (first + r) * sh + a - top
                    place = start + r * pitch * size
                    if is_slice and row >= 0 and row < height:
                        source = x + ((top_row + row) * width + low * sw - shift) * size
                        pad_row(source, end - vector - source, sw, low, high, pitch, place)
                    else:
                        wipe(place, pitch)
                wipe(start + rows * pitch * size, plane - rows * pitch)

    return pad


def chunk_sweep(bits: int, shape: TileShape) -> Any:
    """Return the kernel sweep(packed, panel_bytes, outputs, depth, padded, offsets, y, y_pitch, positions)."""
    size = bits // 8
    columns = shape.columns(size)
    panel_rows = shape.rows
    depth_limit = K_BLOCK[size]
    tile = tile_intrinsic(bits, indirect=True)

    @kernel
    def sweep(
        packed: int, panel_bytes: int, outputs: int, depth: int, padded: int, offsets: int, y: int, y_pitch: int,
        positions: int,
    ) -> None:  # fmt: skip
        """Y[m, p] = sum_k A[m, k] * padded[offsets[k] + p]: for each strip of positions all panels of weights."""
        blocks = (depth + depth_limit - 1) // depth_limit
        panels = (outputs + panel_rows - 1) // panel_rows
        for block in range(blocks):
            k0 = depth * block // blocks
            k_count = depth * (block + 1) // blocks - k0
            table = offsets + k0 * WORD
            for p in range(0, positions, columns):
                a = packed + block * panels * panel_bytes
                first = 0
                for panel in range(panels):
                    end = panel_start(outputs, panel + 1, panels)
                    c = y + (first * y_pitch + p) * size
                    tile(end - first, k_count, a, padded + p * size, table, c, y_pitch * size, positions - p, block)
                    a += panel_bytes
                    first = end

    return sweep


def result_copy(bits: int, shape: TileShape) -> Any:
    """Return the kernel compact(run, y, y_pitch, target, rows, width).

    It writes a chunk to its place in the result, which starts at `target`, without the junk positions.
    """
    size = bits // 8
    vector = shape.vector_bytes
    copy_row = row_copy(bits, shape)
    load = loader(f"float{bits}")
    store = storer(f"float{bits}")
    zero = KERNEL_TYPES[f"float{bits}"](0)

    @kernel
    def compact(run: int, y: int, y_pitch: int, target: int, rows: int, width: int) -> None:
        pitch = load_word(run, words.PITCH)
        row_stride = load_word(run, words.Y_ROW)
        column_stride = load_word(run, words.Y_COLUMN)
        has_taps = load_word(run, words.TAPS)
        row_bytes = row_stride * size
        spill = (rows - 1) * row_bytes if row_stride == width else 0  # of a row that others of the chunk follow
        for m in range(load_word(run, words.OUTPUTS)):
            first = target + m * load_word(run, words.Y_PLANE) * size
            for r in range(rows):
                source = y + (m * y_pitch + r * pitch) * size
                place = first + r * row_bytes
                if has_taps == 0:
                    for j in range(width):
                        store(place, j * column_stride, zero)
                elif column_stride == 1:
                    room = maximum(0, spill - r * row_bytes) + width * size - vector
                    copy_row(source, place, width, room)
                else:
                    for j in range(width):
                        store(place, j * column_stride, load(source, j))

    return compact


@kernel
def finish_chunk(run: int, operands: int, origin: int, rows: int, width: int) -> None:
    """Finish a chunk that begins at element `origin`: map by map, or all maps at once if it has all of their rows."""
    outputs = load_word(run, words.OUTPUTS)
    plane = load_word(run, words.Y_PLANE)
    if rows * width == plane:
        finish(operands, origin, outputs, plane, plane)
    else:
        for m in range(outputs):
            finish(operands, origin + m * plane, rows, load_word(run, words.Y_ROW), width)


def chunk_task(bits: int, shape: TileShape) -> Any:
    """Return the task that computes one chunk of one image of a run."""
    size = bits // 8
    columns = shape.columns(size)
    pad = padded_copy(bits, shape)
    sweep = chunk_sweep(bits, shape)
    compact = result_copy(bits, shape)

    @kernel
    def conv_task(scratch: int, task: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        operands = load_word(scratch, 1)
        run = find_run(plan, words.FIRST_TASK, task)
        index = task - load_word(run, words.FIRST_TASK)
        column_chunks = load_word(run, words.COLUMN_CHUNKS)
        chunks = load_word(run, words.CHUNKS)
        out_d = load_word(run, words.OUT_D)
        slice_ = index // (chunks * column_chunks) % out_d
        image = index // (chunks * column_chunks * out_d)
        chunk = index // column_chunks % chunks
        out_w = load_word(run, words.OUT_W)
        first_column = out_w * (index % column_chunks) // column_chunks
        cut_width = out_w * (index % column_chunks + 1) // column_chunks - first_column
        out_h = load_word(run, words.OUT_H)
        first_row = out_h * chunk // chunks
        rows = out_h * (chunk + 1) // chunks - first_row
        channels = load_word(run, words.CHANNELS)
        depth = load_word(run, words.DEPTH)
        height = load_word(run, words.HEIGHT)
        width = load_word(run, words.WIDTH)
        pitch = load_word(run, words.PITCH)
        outputs = load_word(run, words.OUTPUTS)
        padded = scratch + load_word(plan, words.WORK_OFFSET) + thread * load_word(plan, words.WORK_BYTES)
        origin = image * load_word(run, words.Y_IMAGE) + slice_ * load_word(run, words.Y_SLICE)
        origin += first_row * load_word(run, words.Y_ROW) + first_column * load_word(run, words.Y_COLUMN)
        origin += load_word(run, words.Y_FIRST)
        target = load_word(operands, 2) + origin * size
        y = target
        y_pitch = load_word(run, words.Y_PLANE)
        if load_word(run, words.IN_PLACE) == 0:
            y = padded + load_word(run, words.Y_BYTES)
            y_pitch = (load_word(run, words.ROWS) * pitch + columns - 1) // columns * columns
        if load_word(run, words.TAPS):
            items = channels * depth * height * width
            x = load_word(operands, 0) + image * items * size
            end = load_word(operands, 0) + load_word(plan, words.IMAGES) * items * size
            left = load_word(run, words.LEFT) - first_column * load_word(run, words.STRIDE_W)
            halo_rows = rows + load_word(run, words.HALO)
            phases = plan + load_word(run, words.PHASE_TABLE) * WORD
            pad(x, end, channels, depth, height, width, slice_ * load_word(run, words.STRIDE_D),
                plan + load_word(run, words.SLICE_TABLE) * WORD, load_word(run, words.SLICES),
                load_word(run, words.TOP), left,
                load_word(run, words.STRIDE_H), load_word(run, words.STRIDE_W), first_row, halo_rows, pitch,
                load_word(run, words.PLANE), phases, load_word(run, words.PHASES), padded)  # fmt: skip
            group = image % load_word(plan, words.GROUPS)
            packed = scratch + load_word(run, words.PACKED_BYTES) + group * load_word(run, words.GROUP_BYTES)
            offsets = plan + load_word(run, words.OFFSET_TABLE) * WORD
            sweep(packed, load_word(run, words.PANEL_BYTES), outputs, channels * load_word(run, words.TAPS),
                  padded, offsets, y, y_pitch, (rows - 1) * pitch + cut_width)  # fmt: skip
        if load_word(run, words.IN_PLACE) == 0:
            compact(run, y, y_pitch, target, rows, cut_width)
        finish_chunk(run, operands, origin, rows, cut_width)

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
    return [tile_part(bits, shape, indirect=True), transpose_part(bits, shape)]
