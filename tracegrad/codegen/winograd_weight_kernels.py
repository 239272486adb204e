"""The gradient of 3 x 3 weights with Winograd's filtering: the adjoint of what `winograd_kernels` does to weights.

    R[p, t, o] = A dy[tile t, o] A^T        Q[p, t, c] = B^T x[tile t, c] B
    S[p, o, c] = sum_t R[p, t, o] * Q[p, t, c]
    dw[o, c] = G^T S[., o, c] G

R and Q are kept in blocks of some maps or channels, [block, t, some], all blocks of R before those of Q: what is read
together lies together.
Tiles of all images are summed by one product per point, so small maps are no slower than large ones.

* Few tiles, many weights: all rows are made first; a task sums them for a block of maps and finishes these.
* Else a task makes the rows of its share of the tiles, block by block, and adds to sums of its own; a last region adds
  the shares up.  Shares are fixed, not claimed: what is added in which order must not depend on timing.

Maps whose sums are not finite are marked, and what is not finite of them is computed again (`winograd_weight_exact`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir

from tracegrad.codegen import winograd_layout as words
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
from tracegrad.codegen.gemm_kernels import ENTRY_SIGNATURE, TASK_SIGNATURE, panel_start
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import SHORT_NAMES
from tracegrad.codegen.row_loops import row_addition, row_clearing
from tracegrad.codegen.tile_moves import transpose_part
from tracegrad.codegen.tile_shape import TileShape
from tracegrad.codegen.winograd_strips import (
    strip_count,
    strip_image,
    strip_transform,
    tile_column,
    tile_columns,
    tile_row,
    tile_rows,
    work_address,
)
from tracegrad.codegen.winograd_tile import row_tile_intrinsic, row_tile_part
from tracegrad.codegen.winograd_transforms import (
    probing,
    transform_intrinsic,
    transform_part,
    turn_intrinsic,
    turn_part,
)
from tracegrad.codegen.winograd_weight_exact import clear_marks, exact_task, finish_unmarked, mark_map, search_task


@cache  # one kernel, though several tasks call it
def rows_transform(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel make_rows(plan, operands, strip, block, target, buffer): a block of R or Q, of a strip."""
    size = bits // 8
    transform_input = strip_transform(bits, shape, "input", m)
    transform_ct = strip_transform(bits, shape, "ct", m)

    @kernel
    def make_rows(plan: int, operands: int, strip: int, block: int, target: int, buffer: int) -> None:
        channels = load_word(plan, words.W_CHANNELS)
        height = load_word(plan, words.W_HEIGHT)
        width = load_word(plan, words.W_WIDTH)
        outputs = load_word(plan, words.W_OUTPUTS)
        out_h = load_word(plan, words.W_OUT_H)
        out_w = load_word(plan, words.W_OUT_W)
        point = load_word(plan, words.G_POINT)
        pitch = load_word(plan, words.G_ROW)
        row = tile_row(plan, strip)
        column = tile_column(plan, strip)
        rows = tile_rows(plan, strip)
        columns = tile_columns(plan, strip)
        image = strip_image(plan, strip)
        some = pitch // size
        map_blocks = (outputs + some - 1) // some
        if block < map_blocks:
            o = block * some
            dy = load_word(operands, 1) + (image * outputs + o) * out_h * out_w * size
            transform_ct(dy, out_h, out_w, minimum(some, outputs - o), -row * m, -column * m, rows, columns,
                         target, point, pitch, buffer)  # fmt: skip
        else:
            c = (block - map_blocks) * some
            x = load_word(operands, 0) + (image * channels + c) * height * width * size
            transform_input(x, height, width, minimum(some, channels - c),
                            load_word(plan, words.W_TOP) - row * m, load_word(plan, words.W_LEFT) - column * m,
                            rows, columns, target, point, pitch, buffer)  # fmt: skip

    return make_rows


@cache  # one kernel, though several tasks call it
def row_products(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel multiply(plan, rows, tiles, o, maps, c, channels, sums, accumulate): S of maps and channels."""
    size = bits // 8
    columns = shape.columns(size)
    panel_rows = shape.rows
    n = m + 2
    tile = row_tile_intrinsic(bits, is_along=False)

    @kernel
    def multiply_blocks(
        plan: int, a: int, b: int, tiles: int, maps: int, channels: int, sums: int, accumulate: int
    ) -> None:
        """Add up products of maps of one block and channels of another."""
        pitch = load_word(plan, words.G_ROW)
        sum_row = load_word(plan, words.G_SUM_ROW)
        panels = (maps + panel_rows - 1) // panel_rows
        for c in range(0, channels, columns):
            for q in range(panels):
                o = panel_start(maps, q, panels)
                count = panel_start(maps, q + 1, panels) - o
                tile(count, tiles, a + o * size, b + c * size, pitch, sums + o * sum_row + c * size, sum_row,
                     channels - c, accumulate)  # fmt: skip

    @kernel
    def multiply(
        plan: int, rows: int, tiles: int, first: int, maps: int, first_channel: int, channels: int, sums: int,
        accumulate: int,
    ) -> None:  # fmt: skip
        block_bytes = load_word(plan, words.G_BLOCK)
        sum_row = load_word(plan, words.G_SUM_ROW)
        some = load_word(plan, words.G_ROW) // size
        start = rows + (load_word(plan, words.W_OUTPUTS) + some - 1) // some * block_bytes
        for p in range(n * n):
            gap = p * load_word(plan, words.G_POINT)
            target = sums + p * load_word(plan, words.G_SUM_POINT)
            c = first_channel
            while c < first_channel + channels:
                count = minimum(first_channel + channels, c // some * some + some) - c
                b = start + gap + c // some * block_bytes + c % some * size
                o = first
                while o < first + maps:
                    some_maps = minimum(first + maps, o // some * some + some) - o
                    a = rows + gap + o // some * block_bytes + o % some * size
                    place = target + (o - first) * sum_row + (c - first_channel) * size
                    multiply_blocks(plan, a, b, tiles, some_maps, count, place, accumulate)
                    o += some_maps
                c += count

    return multiply


@cache  # one kernel, though several tasks call it
def map_fold(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel fold(scratch, o, c, count, sums, buffer): dw of some channels of a map from their S.

    Where it is not finite the map is marked.
    """
    dtype = f"float{bits}"
    size = bits // 8
    lanes = shape.lanes(size)
    n = m + 2
    whole = words.TAPS // lanes * lanes
    transform = transform_intrinsic(bits, "fold", m)
    turn = turn_intrinsic(bits)
    clear = row_clearing(dtype)
    is_finite = probing(bits, shape)
    load = loader(dtype)
    store = storer(dtype)

    @kernel
    def write_taps(source: int, pitch: int, count: int, result: int) -> None:
        """Write result[c, tap] = source[tap, c]."""
        for c in range(0, count, lanes):
            target = result + c * words.TAPS * size
            channels = minimum(lanes, count - c)
            for tap in range(0, whole, lanes):
                turn(source + tap * pitch + c * size, pitch, lanes, channels, target + tap * size, words.TAPS * size)
            for tap in range(whole, words.TAPS):
                for k in range(channels):
                    store(target, k * words.TAPS + tap, load(source + tap * pitch, c + k))

    @kernel
    def fold(scratch: int, o: int, first: int, count: int, sums: int, buffer: int) -> None:
        plan = load_word(scratch, 0)
        channels = load_word(plan, words.W_CHANNELS)
        point = load_word(plan, words.G_SUM_POINT)
        pitch = load_word(plan, words.G_SUM_ROW)
        vector = lanes * size
        taps = buffer + words.PROBE_BYTES
        result = load_word(load_word(scratch, 1), 2) + (o * channels + first) * words.TAPS * size
        clear(buffer, lanes)
        transform(sums, n * point, point, vector, taps, 3 * pitch, pitch, vector,
                  (count + lanes - 1) // lanes, buffer)  # fmt: skip
        write_taps(taps, pitch, count, result)
        if is_finite(buffer, minimum(lanes, count)) == 0:
            mark_map(plan, scratch, o)

    return fold


def share_task(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel add_share(plan, operands, share, sums, work): S of a share of all blocks of strips."""
    size = bits // 8
    make_rows = rows_transform(bits, shape, m)
    multiply = row_products(bits, shape, m)

    @kernel
    def add_share(plan: int, operands: int, share: int, sums: int, work: int) -> None:
        shares = load_word(plan, words.G_TASKS)
        group = load_word(plan, words.W_BLOCK)
        strips = load_word(plan, words.W_STRIPS)
        blocks = (strips + group - 1) // group
        slot_tiles = load_word(plan, words.W_STRIP_TILES)
        pitch = load_word(plan, words.G_ROW)
        rows = work + load_word(plan, words.G_ROWS_OFFSET)
        buffer = work + load_word(plan, words.G_BUFFER_OFFSET)
        row_blocks = load_word(plan, words.G_PARTS)
        start = blocks * share // shares
        for block in range(start, blocks * (share + 1) // shares):
            first = block * group
            end = minimum(strips, first + group)
            for strip in range(first, end):
                for part in range(row_blocks):
                    slot = rows + part * load_word(plan, words.G_BLOCK) + (strip - first) * slot_tiles * pitch
                    make_rows(plan, operands, strip, part, slot, buffer)
            tiles = (end - first - 1) * slot_tiles + strip_count(plan, end - 1)
            channels = load_word(plan, words.G_SUM_ROW) // size
            multiply(plan, rows, tiles, 0, load_word(plan, words.W_OUTPUTS), 0, channels, sums, block - start)

    return add_share


work_of = work_address(words.G_WORK_OFFSET, words.G_WORK_BYTES)


def first_task_of(bits: int, shape: TileShape, m: int) -> Any:
    """Return the task that runs first: it makes the rows that all tasks need."""
    make_rows = rows_transform(bits, shape, m)

    @kernel
    def first_task(scratch: int, index: int, thread: int) -> None:
        """Make a block of the rows of a strip, for all tasks."""
        plan = load_word(scratch, 0)
        parts = load_word(plan, words.G_PARTS)
        pitch = load_word(plan, words.G_ROW)
        strip = index // parts
        rows = scratch + load_word(plan, words.G_ROWS_OFFSET) + index % parts * load_word(plan, words.G_BLOCK)
        buffer = work_of(plan, scratch, thread) + load_word(plan, words.G_BUFFER_OFFSET)
        slot = rows + strip * load_word(plan, words.W_STRIP_TILES) * pitch
        make_rows(plan, load_word(scratch, 1), strip, index % parts, slot, buffer)

    return first_task


def task_of(bits: int, shape: TileShape, m: int) -> Any:
    """Return the task that adds up tiles."""
    size = bits // 8
    lanes = shape.lanes(size)
    multiply = row_products(bits, shape, m)
    fold = map_fold(bits, shape, m)
    add_share = share_task(bits, shape, m)

    @kernel
    def add_maps(scratch: int, first: int, maps: int, sums: int, buffer: int) -> None:
        """Add up all tiles for some maps, some channels at a time."""
        plan = load_word(scratch, 0)
        channels = load_word(plan, words.W_CHANNELS)
        tiles = load_word(plan, words.W_STRIPS) * load_word(plan, words.W_STRIP_TILES)
        pitch = load_word(plan, words.G_SUM_ROW)
        most = pitch // size
        for c in range(0, channels, most):
            count = minimum(most, channels - c)
            whole = (count + lanes - 1) // lanes * lanes
            multiply(plan, scratch + load_word(plan, words.G_ROWS_OFFSET), tiles, first, maps, c, whole, sums, 0)
            for k in range(maps):
                fold(scratch, first + k, c, count, sums + k * pitch, buffer)

    @kernel
    def task(scratch: int, index: int, thread: int) -> None:
        """Add up a share of the tiles, or all tiles for some maps."""
        plan = load_word(scratch, 0)
        operands = load_word(scratch, 1)
        work = work_of(plan, scratch, thread)
        if load_word(plan, words.G_IS_TILES_FIRST) == 0:
            sums = scratch + load_word(plan, words.G_SUMS_OFFSET) + index * load_word(plan, words.G_SHARE_BYTES)
            add_share(plan, operands, index, sums, work)
            return
        outputs = load_word(plan, words.W_OUTPUTS)
        tasks = load_word(plan, words.G_TASKS)
        most = load_word(plan, words.G_MAPS)
        sums = work + load_word(plan, words.G_SUMS_OFFSET)
        end = outputs * (index + 1) // tasks
        for o in range(outputs * index // tasks, end, most):
            maps = minimum(most, end - o)
            add_maps(scratch, o, maps, sums, work + load_word(plan, words.G_BUFFER_OFFSET))
            for k in range(maps):
                finish_unmarked(plan, scratch, o + k)

    return task


def fold_task_of(bits: int, shape: TileShape, m: int) -> Any:
    """Return the task that runs last: it adds up the shares of a map."""
    size = bits // 8
    n = m + 2
    fold = map_fold(bits, shape, m)
    add_scaled = row_addition(f"float{bits}")
    one = KERNEL_TYPES[f"float{bits}"](1)

    @kernel
    def fold_task(scratch: int, o: int, thread: int) -> None:
        """Add up the shares of a map."""
        plan = load_word(scratch, 0)
        pitch = load_word(plan, words.G_SUM_ROW)
        sums = scratch + load_word(plan, words.G_SUMS_OFFSET) + o * pitch
        for share in range(1, load_word(plan, words.G_TASKS)):
            for p in range(n * n):
                target = sums + p * load_word(plan, words.G_SUM_POINT)
                add_scaled(target, 1, target + share * load_word(plan, words.G_SHARE_BYTES), 1, one, pitch // size)
        buffer = work_of(plan, scratch, thread) + load_word(plan, words.G_BUFFER_OFFSET)
        fold(scratch, o, 0, load_word(plan, words.W_CHANNELS), sums, buffer)
        finish_unmarked(plan, scratch, o)

    return fold_task


def winograd_weight_entries(bits: int, shape: TileShape, m: int) -> dict[str, tuple[Any, Any]]:
    """Return the entry of weight gradients with tiles of m x m, and its tasks."""
    symbol = f"tg_winogradw{m}_{SHORT_NAMES[f'float{bits}']}"
    first_address = task_address(f"{symbol}_first")
    address = task_address(f"{symbol}_task")
    fold_address = task_address(f"{symbol}_fold")
    search_address = task_address(f"{symbol}_search")
    exact_address = task_address(f"{symbol}_exact")

    @kernel
    def entry(plan: int, operands: int, scratch: int, pool: int) -> None:
        store_word(scratch, 0, plan)
        store_word(scratch, 1, operands)
        clear_marks(plan, scratch)
        par_for(pool, first_address(), scratch, load_word(plan, words.G_FIRST_TASKS))
        par_for(pool, address(), scratch, load_word(plan, words.G_TASKS))
        par_for(pool, fold_address(), scratch, load_word(plan, words.G_FOLD_TASKS))
        if load_word(scratch, words.IS_FINITE) == 0:
            par_for(pool, search_address(), scratch, load_word(plan, words.W_CHANNELS))
            par_for(pool, exact_address(), scratch, load_word(plan, words.W_OUTPUTS))

    return {
        symbol: (entry, ENTRY_SIGNATURE),
        f"{symbol}_first": (first_task_of(bits, shape, m), TASK_SIGNATURE),
        f"{symbol}_task": (task_of(bits, shape, m), TASK_SIGNATURE),
        f"{symbol}_fold": (fold_task_of(bits, shape, m), TASK_SIGNATURE),
        f"{symbol}_search": (search_task(bits), TASK_SIGNATURE),
        f"{symbol}_exact": (exact_task(bits), TASK_SIGNATURE),
    }


def winograd_weight_parts(bits: int, shape: TileShape, m: int) -> list[ir.Module]:
    """Return the finished modules that the weight gradient calls."""
    transforms = [transform_part(bits, shape, kind, m) for kind in ("input", "ct", "fold")]
    moves = [transpose_part(bits, shape), turn_part(bits, shape)]
    return [*transforms, *moves, row_tile_part(bits, shape, is_along=False)]
