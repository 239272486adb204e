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
from tracegrad.codegen.direct_kernels import data_plane, exact_tap_gradient
from tracegrad.codegen.finish import finish as finish_block
from tracegrad.codegen.gemm_kernels import ENTRY_SIGNATURE, TASK_SIGNATURE
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import ITEM_SIZES, SHORT_NAMES
from tracegrad.codegen.plan_conv_planes import MANY_TAPS, ROWS, TAPS
from tracegrad.codegen.plane_copy import dense_rows, fetch_planes, plane_copy, weave_intrinsic
from tracegrad.codegen.plane_taps import (
    lane_sum_intrinsic,
    taps_plane_intrinsic,
    taps_plane_part,
    taps_sums_intrinsic,
    taps_sums_part,
)
from tracegrad.codegen.row_loops import row_clearing
from tracegrad.codegen.tile_shape import TileShape


def run_rows(dtype: str, shape: TileShape) -> Any:
    """Return the kernel compute_rows(plan, run, copy, weights, target, target_pitch, rows): some rows of a run.

    A row that is shorter than a vector is written as a whole vector.  Of a single row, vectors run together.
    """
    size = ITEM_SIZES[dtype]
    lanes = shape.lanes(size)
    vector = shape.vector_bytes
    taps_plane = taps_plane_intrinsic(8 * size)

    @kernel
    def compute_rows(plan: int, run: int, copy: int, weights: int, target: int, target_pitch: int, rows: int) -> None:
        columns, height = load_word(run, words.R_COLUMNS), load_word(run, words.R_HEIGHT)
        groups = plan + load_word(run, words.R_GROUPS) * 8
        if load_word(run, words.R_ROWS) > 1:
            pitch = load_word(plan, words.PITCH) * size
            taps_plane(copy, pitch, groups, weights, target, target_pitch, rows, height, maximum(columns, lanes))
            return
        taps_plane(copy, vector, groups, weights, target, vector, columns // lanes, height, lanes)
        if columns % lanes:
            last = maximum(columns - lanes, 0) * size
            taps_plane(copy + last, vector, groups, weights, target + last, vector, 1, 1, lanes)

    return compute_rows


def plane_run(dtype: str, shape: TileShape) -> Any:
    """Return the kernel run_plane(plan, run, copy, weights, target, end, line): the output positions of one run."""
    size = ITEM_SIZES[dtype]
    lanes = shape.lanes(size)
    load, store = loader(dtype), storer(dtype)
    compute_rows = run_rows(dtype, shape)

    @kernel
    def spread(line: int, pitch: int, target: int, row: int, column: int, rows: int, columns: int) -> None:
        """Store rows of a line buffer with a distance between their elements."""
        for k in range(rows):
            for j in range(columns):
                store(target, k * row + j * column, load(line + k * pitch, j))

    @kernel
    def run_plane(plan: int, run: int, copy: int, weights: int, target: int, end: int, line: int) -> None:
        """Rows that follow each other in memory may spill: they are computed in order, and each covers what spilled.

        So are planes, up to the end of those that the task computes.
        """
        rows, columns, height = load_word(run, words.R_ROWS), load_word(run, words.R_COLUMNS), 1
        row, column = load_word(run, words.R_ROW), load_word(run, words.R_COLUMN)
        place = target + load_word(run, words.R_FIRST) * size
        spills = columns < lanes and (row != columns or place + ((rows - 1) * row + lanes) * size > end)
        if column == 1 and not spills:
            compute_rows(plan, run, copy, weights, place, row * size, rows)
        else:
            if rows > 1:
                height = load_word(run, words.R_HEIGHT)
            line_pitch, pitch = load_word(plan, words.LINE_PITCH), load_word(plan, words.PITCH) * size
            for block in range(0, rows, height):
                i = minimum(block, rows - height)
                compute_rows(plan, run, copy + i * pitch, weights, line, line_pitch, height)
                spread(line, line_pitch, place + i * row * size, row, column, height, columns)

    return run_plane


def plane_woven(dtype: str, shape: TileShape) -> Any:
    """Return the kernel run_pair(plan, run, copy, weights, target, line): two runs whose columns alternate."""
    size = ITEM_SIZES[dtype]
    lanes = shape.lanes(size)
    load, store = loader(dtype), storer(dtype)
    compute_rows, weave = run_rows(dtype, shape), weave_intrinsic(8 * size, shape)

    @kernel
    def weave_row(even: int, odd: int, target: int, columns: int) -> None:
        """Store a row whose columns come from two rows in turn; the last vector overlaps the one before."""
        last = columns // 2 * 2 - lanes
        done = 0
        while done <= last:
            weave(even + done // 2 * size, odd + done // 2 * size, target + done * size)
            done += lanes
        if last >= 0 and done < last + lanes:
            weave(even + last // 2 * size, odd + last // 2 * size, target + last * size)
            done = last + lanes
        for j in range(done, columns):
            store(target, j, load(odd if j & 1 else even, j // 2))

    @kernel
    def run_pair(plan: int, run: int, copy: int, weights: int, target: int, line: int) -> None:
        other = run + words.RUN_WORDS * 8
        rows, row, height = load_word(run, words.R_ROWS), load_word(run, words.R_ROW), 1
        columns = load_word(run, words.R_COLUMNS) + load_word(other, words.R_COLUMNS)
        if rows > 1:
            height = load_word(run, words.R_HEIGHT)
        line_pitch, pitch = load_word(plan, words.LINE_PITCH), load_word(plan, words.PITCH) * size
        odd = line + height * line_pitch
        place = target + load_word(run, words.R_FIRST) * size
        for block in range(0, rows, height):
            i = minimum(block, rows - height)
            compute_rows(plan, run, copy + i * pitch, weights, line, line_pitch, height)
            compute_rows(plan, other, copy + i * pitch, weights, odd, line_pitch, height)
            for k in range(height):
                weave_row(line + k * line_pitch, odd + k * line_pitch, place + (i + k) * row * size, columns)

    return run_pair


def plane_result(dtype: str, shape: TileShape, kind: str) -> Any:
    """Return the kernel compute(plan, copy, weights, target, end, work): all runs of one plane of the result."""
    run_plane, run_pair = plane_run(dtype, shape), plane_woven(dtype, shape)

    @kernel
    def compute_one(plan: int, copy: int, weights: int, target: int, end: int, work: int) -> None:
        run = plan + load_word(plan, words.RUN_TABLE) * 8
        run_plane(plan, run, copy, weights, target, end, work + load_word(plan, words.LINE_OFFSET))

    @kernel
    def compute_all(plan: int, copy: int, weights: int, target: int, end: int, work: int) -> None:
        line = work + load_word(plan, words.LINE_OFFSET)
        is_woven = load_word(plan, words.IS_WOVEN)
        for r in range(0, load_word(plan, words.RUNS), 1 + is_woven):
            run = plan + (load_word(plan, words.RUN_TABLE) + r * words.RUN_WORDS) * 8
            if is_woven:
                run_pair(plan, run, copy, weights, target, line)
            else:
                run_plane(plan, run, copy, weights, target, end, line)

    return compute_all if kind == "data" else compute_one


def forward_images(dtype: str, shape: TileShape) -> Any:
    """Return the kernel forward(plan, x, weights, y, end, image, count, work)."""
    size = ITEM_SIZES[dtype]
    copy_planes = plane_copy(dtype, shape)
    compute = plane_result(dtype, shape, "forward")

    @kernel
    def forward(plan: int, x: int, weights: int, y: int, end: int, image: int, count: int, work: int) -> None:
        outputs, groups = load_word(plan, words.OUTPUTS), load_word(plan, words.GROUPS)
        plane_bytes, taps = load_word(plan, words.Y_ITEMS) * size, load_word(plan, words.TAP_COUNT)
        copy_planes(plan, x, image, 1, count, work)
        group = image % groups
        for k in range(count):
            copy = work + k * load_word(plan, words.BLOCK_ITEMS) * size
            for o in range(outputs):
                target = y + ((image + k) * outputs + o) * plane_bytes
                compute(plan, copy, weights + (group * outputs + o) * taps * size, target, end, work)
            group = group + 1 if group + 1 < groups else 0

    return forward


def data_images(dtype: str, shape: TileShape) -> Any:
    """Return the kernel data(plan, dy, weights, dx, end, image, count, work); a plane has one map."""
    size = ITEM_SIZES[dtype]
    load = loader(dtype)
    copy_planes = plane_copy(dtype, shape)
    compute = plane_result(dtype, shape, "data")
    exact = data_plane(dtype)
    zero = KERNEL_TYPES[dtype](0)

    @kernel
    def data(plan: int, dy: int, weights: int, dx: int, end: int, image: int, count: int, work: int) -> None:
        taps, groups = load_word(plan, words.TAP_COUNT), load_word(plan, words.GROUPS)
        copy_planes(plan, dy, image, 1, count, work)
        group = image % groups
        for k in range(count):
            own = weights + group * taps * size
            probe = zero  # becomes NaN at the first weight that is NaN or inf
            for t in range(taps):
                probe += load(own, t) * zero
            if probe != zero:
                exact(plan + load_word(plan, words.EXACT_PLAN) * 8, dy, weights, dx, image + k)
            else:
                copy = work + k * load_word(plan, words.BLOCK_ITEMS) * size
                compute(plan, copy, own, dx + (image + k) * load_word(plan, words.Y_ITEMS) * size, end, work)
            group = group + 1 if group + 1 < groups else 0

    return data


def plane_sums(dtype: str, shape: TileShape, clear: Any) -> Any:
    """Return the kernel add_planes(plan, copy, ct, step, count, values, sums): some planes' share of all taps."""
    size = ITEM_SIZES[dtype]
    lanes = shape.lanes(size)
    copy_rows = dense_rows(dtype, shape)
    few_sums, many_sums = taps_sums_intrinsic(8 * size, TAPS), taps_sums_intrinsic(8 * size, MANY_TAPS)

    @kernel
    def add_taps(plan: int, copy: int, values: int, positions: int, offsets: int, sums: int) -> None:
        """Add the products of all positions to the sums of all taps; ROWS vectors behind `values` are zero."""
        taps, t = load_word(plan, words.TAP_COUNT), 0
        while t + MANY_TAPS <= taps:
            many_sums(copy, offsets + t * 8, values, positions, sums + t * lanes * size)
            t += MANY_TAPS
        while t < taps:
            few_sums(copy, offsets + t * 8, values, positions, sums + t * lanes * size)
            t += TAPS

    @kernel
    def add_planes(plan: int, copy: int, ct: int, step: int, count: int, values: int, sums: int) -> None:
        """Add the share of some planes of dy to the sums of all taps.

        They are copied with the pitch of the copy and zeros in between, to the end of the last vectors that are read;
        if the copy has one phase, planes follow each other in both.
        """
        run = plan + load_word(plan, words.RUN_TABLE) * 8
        pitch, block = load_word(plan, words.PITCH), load_word(plan, words.BLOCK_ITEMS)
        rows, columns = load_word(run, words.R_ROWS), load_word(run, words.R_COLUMNS)
        offsets = plan + load_word(run, words.R_OFFSETS) * 8
        if load_word(plan, words.PHASES_H) * load_word(plan, words.PHASES_W) > 1:
            for k in range(count):
                copy_rows(ct + k * step, columns * size, rows, columns, values, pitch * size)
                add_taps(plan, copy + k * block * size, values, rows * pitch, offsets, sums)
        else:
            for k in range(count):
                copy_rows(ct + k * step, columns * size, rows, columns, values + k * block * size, pitch * size)
            positions = (count - 1) * block + rows * pitch
            clear(values + positions * size, ROWS * lanes)  # a longer batch may have been here
            add_taps(plan, copy, values, positions, offsets, sums)

    return add_planes


def map_gradient(dtype: str, shape: TileShape) -> Any:
    """Return the kernel finish(plan, x, dy, result, map_, sums): the taps of one map, from their sums."""
    size = ITEM_SIZES[dtype]
    lanes = shape.lanes(size)
    store = storer(dtype)
    lane_sum = lane_sum_intrinsic(8 * size, shape)
    exact_tap = exact_tap_gradient(dtype)
    zero = KERNEL_TYPES[dtype](0)

    @kernel
    def finish(plan: int, x: int, dy: int, result: int, map_: int, sums: int) -> None:
        """Add up the lanes of the sums of a map; NaN and inf are left to the plain loops."""
        taps = load_word(plan, words.TAP_COUNT)
        probe = zero
        for t in range(taps):
            total = lane_sum(sums + t * lanes * size)
            probe += total * zero
            store(result, map_ * taps + t, total)
        if probe != zero:
            for t in range(taps):
                plain = plan + load_word(plan, words.EXACT_PLAN) * 8
                store(result, map_ * taps + t, exact_tap(plain, x, dy, map_, 0, t))

    return finish


def weight_groups(dtype: str, shape: TileShape) -> Any:
    """Return the kernel weight(plan, x, dy, dw, end, group, count, work)."""
    size = ITEM_SIZES[dtype]
    lanes = shape.lanes(size)
    copy_planes, clear = plane_copy(dtype, shape), row_clearing(dtype)
    add_planes, finish = plane_sums(dtype, shape, clear), map_gradient(dtype, shape)

    @kernel
    def weight(plan: int, x: int, dy: int, result: int, end: int, group: int, count: int, work: int) -> None:
        """Compute the gradient of one group; `count` is 1."""
        outputs, groups = load_word(plan, words.OUTPUTS), load_word(plan, words.GROUPS)
        map_items = (load_word(plan, words.TAP_COUNT) + TAPS - 1) // TAPS * TAPS * lanes
        sums = work + load_word(plan, words.SUMS_OFFSET)
        plane_bytes, batch = load_word(plan, words.Y_ITEMS) * size, load_word(plan, words.BATCH)
        x_bytes = load_word(plan, words.HEIGHT) * load_word(plan, words.WIDTH) * size
        clear(sums, outputs * map_items)
        for image in range(group, load_word(plan, words.IMAGES), batch * groups):
            planes = minimum(batch, (load_word(plan, words.IMAGES) - image + groups - 1) // groups)
            copy_planes(plan, x, image, groups, planes, work)
            fetch_planes(x + (image + 1) * x_bytes, groups * x_bytes, planes, x_bytes)  # of the next group
            fetch_planes(dy + (image + 1) * outputs * plane_bytes, groups * outputs * plane_bytes, planes, plane_bytes)
            for o in range(outputs):
                ct = dy + (image * outputs + o) * plane_bytes
                add_planes(plan, work, ct, groups * outputs * plane_bytes, planes,
                           work + load_word(plan, words.LINE_OFFSET), sums + o * map_items * size)  # fmt: skip
        for o in range(outputs):
            finish(plan, x, dy, result, group * outputs + o, sums + o * map_items * size)

    return weight


KINDS = {
    "forward": (forward_images, words.IMAGES, words.BATCH),
    "data": (data_images, words.IMAGES, words.BATCH),
    "weight": (weight_groups, words.GROUPS, 0),
}


def plane_entries(dtype: str, kind: str, shape: TileShape) -> dict[str, tuple[Any, Any]]:
    """Return the entry of a kind and its task, which computes a range of images, or of groups."""
    symbol = f"tg_planes_{kind}_{SHORT_NAMES[dtype]}"
    make, count_word, batch_word = KINDS[kind]
    size = ITEM_SIZES[dtype]
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
        items = load_word(plan, words.JOB_ITEMS)
        stop = count * (index + 1) // tasks
        end = result + stop * items * size
        batch = load_word(plan, batch_word) if batch_word else 1
        for i in range(count * index // tasks, stop, batch):
            some = minimum(batch, stop - i)
            compute(plan, first, second, result, end, i, some, work)
            finish_block(operands, i * items, 1, some * items, some * items)

    @kernel
    def entry(plan: int, operands: int, scratch: int, pool: int) -> None:
        store_word(scratch, 0, plan)
        store_word(scratch, 1, operands)
        par_for(pool, address(), scratch, load_word(plan, words.TASKS))

    return {symbol: (entry, ENTRY_SIGNATURE), f"{symbol}_task": (planes_task, TASK_SIGNATURE)}


def plane_parts(dtype: str, kind: str, shape: TileShape) -> list[ir.Module]:
    """Return the finished modules that a kind calls."""
    bits = 8 * ITEM_SIZES[dtype]
    return [taps_sums_part(bits, shape) if kind == "weight" else taps_plane_part(bits, shape)]
