"""Convolutions plane by plane (depthwise), forward and both gradients: see `plan_conv_planes` for the formulas.

A thread copies a plane into its scratch, with zeros around it; the vector code of `plane_taps` does the rest. The zeros
are written once: every plane of a convolution has the same shape.

What is not finite goes to the plain loops of `direct_kernels`: zeros that stand for nothing would turn it into NaN.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen import plan_conv_planes as words
from tracegrad.codegen.addresses import (
    NUMBA_TYPES,
    load_word,
    loader,
    maximum,
    minimum,
    par_for,
    store_word,
    storer,
    task_address,
)
from tracegrad.codegen.direct_kernels import (
    data_plane,
    end_inside,
    exact_tap_gradient,
    first_inside,
    row_clearing,
)
from tracegrad.codegen.finish import finish as finish_block
from tracegrad.codegen.gemm_kernels import ENTRY_SIGNATURE, TASK_SIGNATURE
from tracegrad.codegen.native import kernel
from tracegrad.codegen.plan import ITEM_SIZES, SHORT_NAMES
from tracegrad.codegen.plan_conv_planes import ROWS, TAPS
from tracegrad.codegen.plane_taps import (
    move_intrinsic,
    pick_intrinsic,
    taps_rows_intrinsic,
    taps_rows_part,
    taps_sums_intrinsic,
    taps_sums_part,
)
from tracegrad.codegen.tile_moves import copy_intrinsic, even_copy_intrinsic
from tracegrad.codegen.tile_shape import TileShape


def plane_copy(dtype: str, shape: TileShape) -> Any:
    """Return the kernels copy_dense(source, target, count) of a row, and copy_plane(plan, source, target)."""
    size = ITEM_SIZES[dtype]
    lanes = shape.lanes(size)
    load, store = loader(dtype), storer(dtype)
    copy = copy_intrinsic(8 * size, shape, masked=False, vectors=1)
    copy_even = even_copy_intrinsic(8 * size, shape)
    move = move_intrinsic(8 * size, shape)
    pick_even, pick_odd = (pick_intrinsic(8 * size, shape, first) for first in (0, 1))

    @kernel
    def copy_dense(source: int, target: int, count: int) -> None:
        """Copy a row; the last vector overlaps the one before, or is masked if it is the only one."""
        if count >= lanes:
            for j in range(0, count, lanes):
                at = minimum(j, count - lanes) * size
                move(source + at, target + at)
        elif count > 0:
            copy(source, target, count)

    @kernel
    def copy_second(source: int, target: int, count: int, before: int, behind: int) -> None:
        """Copy every second element; `before` and `behind` are the elements of the row around those that are read."""
        if count >= lanes and before > 0:
            for j in range(0, count, lanes):
                at = minimum(j, count - lanes) * size
                pick_odd(source + 2 * at - size, target + at)
        elif count >= lanes and behind > 0:
            for j in range(0, count, lanes):
                at = minimum(j, count - lanes) * size
                pick_even(source + 2 * at, target + at)
        else:
            for j in range(0, count, lanes):
                copy_even(source + 2 * j * size, target + j * size, count - j)

    @kernel
    def copy_row(row: int, first: int, stride: int, width: int, target: int, count: int) -> None:
        """Copy elements first, first + stride, ... of a row."""
        source = row + first * size
        if stride == 1:
            copy_dense(source, target, count)
        elif stride == 2:
            copy_second(source, target, count, first, width - 1 - (first + 2 * (count - 1)))
        else:
            for j in range(count):
                store(target, j, load(source, j * stride))

    @kernel
    def copy_plane(plan: int, source: int, target: int) -> None:
        """Copy what the phases have of a plane. What spills beyond a row is zero, and the next row covers it."""
        height, width = load_word(plan, words.HEIGHT), load_word(plan, words.WIDTH)
        phases_h, phases_w = load_word(plan, words.PHASES_H), load_word(plan, words.PHASES_W)
        pitch, rows = load_word(plan, words.PITCH), load_word(plan, words.COPY_ROWS)
        top, left = load_word(plan, words.TOP), load_word(plan, words.LEFT)
        step_h, step_w = load_word(plan, words.STEP_H), load_word(plan, words.STEP_W)
        for a in range(phases_h):
            low = first_inside(a - top, step_h)
            high = end_inside(a - top, step_h, height, rows)
            for b in range(phases_w):
                first = first_inside(b - left, step_w)
                count = end_inside(b - left, step_w, width, pitch) - first
                phase = target + (a * phases_w + b) * rows * pitch * size
                for i in range(low, high):
                    row = source + (i * step_h + a - top) * width * size
                    place = phase + (i * pitch + first) * size
                    copy_row(row, first * step_w + b - left, step_w, width, place, count)

    return copy_dense, copy_plane


def plane_run(dtype: str, shape: TileShape) -> Any:
    """Return the kernel run(plan, run, copy, weights, target, line): the output positions of one run."""
    size = ITEM_SIZES[dtype]
    lanes = shape.lanes(size)
    vector = shape.vector_bytes
    load, store = loader(dtype), storer(dtype)
    taps_rows = taps_rows_intrinsic(8 * size)

    @kernel
    def rows_block(plan: int, run: int, copy: int, weights: int, target: int, step: int, i: int) -> None:
        """Compute ROWS rows; the last vector of a row overlaps the one before, or spills if there is none."""
        columns, pitch = load_word(run, words.R_COLUMNS), load_word(plan, words.PITCH) * size
        offsets, taps = plan + load_word(run, words.R_OFFSETS) * 8, load_word(run, words.R_TAPS)
        source = copy + i * pitch
        last = maximum(columns - lanes, 0)
        for j in range(0, columns, lanes):
            at = minimum(j, last) * size
            taps_rows(source + at, pitch, offsets, weights, taps, target + at, step, lanes, 0)

    @kernel
    def one_row(plan: int, run: int, copy: int, weights: int, target: int, i: int) -> None:
        """Compute a row, ROWS vectors at a time."""
        columns, pitch = load_word(run, words.R_COLUMNS), load_word(plan, words.PITCH) * size
        offsets, taps = plan + load_word(run, words.R_OFFSETS) * 8, load_word(run, words.R_TAPS)
        source = copy + i * pitch
        for j in range(0, columns, ROWS * lanes):
            at = j * size
            taps_rows(source + at, vector, offsets, weights, taps, target + at, vector, columns - j, lanes)

    @kernel
    def spread(line: int, pitch: int, target: int, row: int, column: int, rows: int, columns: int) -> None:
        """Store rows of a line buffer with a distance between their elements."""
        for k in range(rows):
            for j in range(columns):
                store(target, k * row + j * column, load(line + k * pitch, j))

    @kernel
    def run_plane(plan: int, run: int, copy: int, weights: int, target: int, line: int) -> None:
        """Rows that follow each other in memory may spill: they are computed in order, and each covers what spilled."""
        rows, columns = load_word(run, words.R_ROWS), load_word(run, words.R_COLUMNS)
        row, column = load_word(run, words.R_ROW), load_word(run, words.R_COLUMN)
        line_pitch, items = load_word(plan, words.LINE_PITCH), load_word(plan, words.Y_ITEMS)
        for block in range(0, rows, ROWS):
            i = minimum(block, maximum(rows - ROWS, 0))
            first = load_word(run, words.R_FIRST) + i * row
            place = target + first * size
            spills = columns < lanes and (row != columns or first + (ROWS - 1) * row + lanes > items)
            if rows >= ROWS and column == 1 and not spills:
                rows_block(plan, run, copy, weights, place, row * size, i)
            elif rows >= ROWS:
                rows_block(plan, run, copy, weights, line, line_pitch, i)
                spread(line, line_pitch, place, row, column, ROWS, columns)
            else:
                for k in range(rows):
                    one_row(plan, run, copy, weights, line, k)
                    spread(line, line_pitch, target + (first + k * row) * size, row, column, 1, columns)

    return run_plane


def plane_result(dtype: str, shape: TileShape) -> Any:
    """Return the kernel compute(plan, copy, weights, target, work): all runs of one plane of the result."""
    load, store = loader(dtype), storer(dtype)
    run_plane = plane_run(dtype, shape)

    @kernel
    def compute(plan: int, copy: int, weights: int, target: int, work: int) -> None:
        chosen = work + load_word(plan, words.WEIGHT_OFFSET)
        line = work + load_word(plan, words.LINE_OFFSET)
        for r in range(load_word(plan, words.RUNS)):
            run = plan + (load_word(plan, words.RUN_TABLE) + r * words.RUN_WORDS) * 8
            numbers = plan + load_word(run, words.R_WEIGHTS) * 8
            for t in range(load_word(run, words.R_TAPS)):
                store(chosen, t, load(weights, load_word(numbers, t)))
            run_plane(plan, run, copy, chosen, target, line)

    return compute


def forward_images(dtype: str, shape: TileShape) -> Any:
    """Return the kernel forward(plan, x, weights, y, image, work)."""
    size = ITEM_SIZES[dtype]
    _, copy_plane = plane_copy(dtype, shape)
    compute = plane_result(dtype, shape)

    @kernel
    def forward(plan: int, x: int, weights: int, y: int, image: int, work: int) -> None:
        outputs = load_word(plan, words.OUTPUTS)
        items = load_word(plan, words.HEIGHT) * load_word(plan, words.WIDTH)
        copy_plane(plan, x + image * items * size, work)
        for o in range(outputs):
            map_ = image % load_word(plan, words.GROUPS) * outputs + o
            target = y + (image * outputs + o) * load_word(plan, words.Y_ITEMS) * size
            compute(plan, work, weights + map_ * load_word(plan, words.TAP_COUNT) * size, target, work)

    return forward


def data_images(dtype: str, shape: TileShape) -> Any:
    """Return the kernel data(plan, dy, weights, dx, image, work); a plane has one map."""
    size = ITEM_SIZES[dtype]
    load = loader(dtype)
    _, copy_plane = plane_copy(dtype, shape)
    compute = plane_result(dtype, shape)
    exact = data_plane(dtype)
    zero = NUMBA_TYPES[dtype](0)

    @kernel
    def data(plan: int, dy: int, weights: int, dx: int, image: int, work: int) -> None:
        taps = load_word(plan, words.TAP_COUNT)
        own = weights + image % load_word(plan, words.GROUPS) * taps * size
        probe = zero  # becomes NaN at the first weight that is NaN or inf
        for t in range(taps):
            probe += load(own, t) * zero
        if probe != zero:
            exact(plan + load_word(plan, words.EXACT_PLAN) * 8, dy, weights, dx, image)
        else:
            items = load_word(plan, words.HEIGHT) * load_word(plan, words.WIDTH)
            copy_plane(plan, dy + image * items * size, work)
            compute(plan, work, own, dx + image * load_word(plan, words.Y_ITEMS) * size, work)

    return data


def weight_groups(dtype: str, shape: TileShape) -> Any:
    """Return the kernel weight(plan, x, dy, dw, group, work)."""
    size = ITEM_SIZES[dtype]
    lanes = shape.lanes(size)
    load, store = loader(dtype), storer(dtype)
    copy_dense, copy_plane = plane_copy(dtype, shape)
    clear = row_clearing(dtype)
    taps_sums = taps_sums_intrinsic(8 * size)
    exact_tap = exact_tap_gradient(dtype)
    zero = NUMBA_TYPES[dtype](0)

    @kernel
    def add_plane(plan: int, copy: int, ct: int, values: int, sums: int) -> None:
        """Add the share of one plane of dy to the sums of all taps, with the pitch of the copy and zeros in between."""
        run = plan + load_word(plan, words.RUN_TABLE) * 8
        pitch = load_word(plan, words.PITCH)
        rows, columns = load_word(run, words.R_ROWS), load_word(run, words.R_COLUMNS)
        offsets = plan + load_word(run, words.R_OFFSETS) * 8
        for i in range(rows):
            copy_dense(ct + i * columns * size, values + i * pitch * size, columns)
        for t in range(0, load_word(plan, words.TAP_COUNT), TAPS):
            taps_sums(copy, offsets + t * 8, values, rows * pitch, sums + t * lanes * size)

    @kernel
    def finish(plan: int, x: int, dy: int, result: int, map_: int, sums: int) -> None:
        """Add up the lanes of the sums of a map; NaN and inf are left to the plain loops."""
        taps = load_word(plan, words.TAP_COUNT)
        probe = zero
        for t in range(taps):
            total = zero
            for lane in range(lanes):
                total += load(sums, t * lanes + lane)
            probe += total * zero
            store(result, map_ * taps + t, total)
        if probe != zero:
            for t in range(taps):
                plain = plan + load_word(plan, words.EXACT_PLAN) * 8
                store(result, map_ * taps + t, exact_tap(plain, x, dy, map_, 0, t))

    @kernel
    def weight(plan: int, x: int, dy: int, result: int, group: int, work: int) -> None:
        outputs, groups = load_word(plan, words.OUTPUTS), load_word(plan, words.GROUPS)
        taps = load_word(plan, words.TAP_COUNT)
        map_items = (taps + TAPS - 1) // TAPS * TAPS * lanes
        sums = work + load_word(plan, words.WEIGHT_OFFSET)
        items = load_word(plan, words.HEIGHT) * load_word(plan, words.WIDTH)
        clear(sums, outputs * map_items)
        for image in range(group, load_word(plan, words.IMAGES), groups):
            copy_plane(plan, x + image * items * size, work)
            for o in range(outputs):
                ct = dy + (image * outputs + o) * load_word(plan, words.Y_ITEMS) * size
                add_plane(plan, work, ct, work + load_word(plan, words.LINE_OFFSET), sums + o * map_items * size)
        for o in range(outputs):
            finish(plan, x, dy, result, group * outputs + o, sums + o * map_items * size)

    return weight


KINDS = {
    "forward": (forward_images, words.IMAGES),
    "data": (data_images, words.IMAGES),
    "weight": (weight_groups, words.GROUPS),
}


def plane_entries(dtype: str, kind: str, shape: TileShape) -> dict[str, tuple[Any, Any]]:
    """Return the entry of a kind and its task, which computes a range of images, or of groups."""
    symbol = f"tg_planes_{kind}_{SHORT_NAMES[dtype]}"
    make, count_word = KINDS[kind]
    compute = make(dtype, shape)
    clear = row_clearing(dtype)
    address = task_address(f"{symbol}_task")

    @kernel
    def planes_task(scratch: int, index: int, thread: int) -> None:
        plan, operands = load_word(scratch, 0), load_word(scratch, 1)
        count, tasks = load_word(plan, count_word), load_word(plan, words.TASKS)
        first, second, result = load_word(operands, 0), load_word(operands, 1), load_word(operands, 2)
        work = scratch + load_word(plan, words.WORK_OFFSET) + thread * load_word(plan, words.WORK_BYTES)
        clear(work, load_word(plan, words.COPY_ITEMS))
        clear(work + load_word(plan, words.LINE_OFFSET), load_word(plan, words.LINE_ITEMS))
        for i in range(count * index // tasks, count * (index + 1) // tasks):
            compute(plan, first, second, result, i, work)
            items = load_word(plan, words.JOB_ITEMS)
            finish_block(operands, i * items, 1, items, items)

    @kernel
    def entry(plan: int, operands: int, scratch: int, pool: int) -> None:
        store_word(scratch, 0, plan)
        store_word(scratch, 1, operands)
        par_for(pool, address(), scratch, load_word(plan, words.TASKS))

    return {symbol: (entry, ENTRY_SIGNATURE), f"{symbol}_task": (planes_task, TASK_SIGNATURE)}


def plane_parts(dtype: str, kind: str, shape: TileShape) -> list[ir.Module]:
    """Return the finished modules that a kind calls."""
    bits = 8 * ITEM_SIZES[dtype]
    return [taps_sums_part(bits, shape) if kind == "weight" else taps_rows_part(bits, shape)]
