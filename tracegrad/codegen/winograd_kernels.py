"""Convolutions by 3 x 3 taps with Winograd's filtering (`winograd_matrices`): forward, and the gradient of the data.

Tiles of m x m outputs overlap by two rows and columns of the input.  A *strip* is a rectangle of tiles of one image, a
block some strips.  With p numbering the n x n points:

    V[p, t, c] = B^T x[tile t, c] B        U[p, c, o] = G w[o, c] G^T
    M[p, t, o] = sum_c V[p, t, c] * U[p, c, o]
    y[tile t, o] = A^T M[., t, o] A

Channels lie side by side in V and M, whatever the map's size is: a vector is `lanes` channels of one position, so small
maps are no slower than large ones.  Only x and y are transposed, which are smaller than V and M.

What every task needs is transformed first: the weights, or, where there are fewer tiles than maps, the tiles.  A task
does the rest for a block of strips, or for some maps of all strips.

A NaN or inf spreads over a tile and over all that is multiplied with it, but never gets lost, and neither does an
overflow between: outputs of a strip that are not all finite are computed again in plain loops.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir

from tracegrad.codegen import winograd_layout as words
from tracegrad.codegen.addresses import (
    load_word,
    loader,
    maximum,
    minimum,
    par_for,
    store_word,
    storer,
    task_address,
)
from tracegrad.codegen.direct_kernels import row_clearing
from tracegrad.codegen.finish import finish
from tracegrad.codegen.gemm_kernels import ENTRY_SIGNATURE, TASK_SIGNATURE, packing, panel_start
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import SHORT_NAMES
from tracegrad.codegen.tile_moves import transpose_part
from tracegrad.codegen.tile_shape import TileShape
from tracegrad.codegen.winograd_exact import exact_map
from tracegrad.codegen.winograd_strips import chunk_end, chunk_start, strip_count, strip_transform, work_address
from tracegrad.codegen.winograd_tile import row_tile_intrinsic, row_tile_part
from tracegrad.codegen.winograd_transforms import (
    probing,
    transform_intrinsic,
    transform_part,
    turn_intrinsic,
    turn_part,
)


@cache  # one kernel, though several tasks call it
def weight_transform(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel transform_weights(plan, weights, panel, u, buffer): U of a panel of maps, [point, c, o]."""
    size = bits // 8
    lanes = shape.lanes(size)
    columns = shape.columns(size)
    n = m + 2
    pitch = columns * size
    pack = packing(bits, shape)
    transform = transform_intrinsic(bits, "weight", m)
    clear = row_clearing(f"float{bits}")
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
    def transform_weights(plan: int, weights: int, panel: int, u: int, buffer: int) -> None:
        channels = load_word(plan, words.W_CHANNELS)
        output_step = load_word(plan, words.W_OUTPUT_STEP)
        channel_step = load_word(plan, words.W_CHANNEL_STEP)
        point = load_word(plan, words.W_U_POINT)
        first = panel * columns
        width = minimum(columns, load_word(plan, words.W_OUTPUTS) - first)
        step = -pitch if load_word(plan, words.W_IS_FLIPPED) else pitch
        start = buffer + (words.TAPS - 1) * pitch if load_word(plan, words.W_IS_FLIPPED) else buffer
        for c in range(0, channels, words.WEIGHT_CHANNELS):
            count = minimum(words.WEIGHT_CHANNELS, channels - c)
            source = weights + (first * output_step + c * channel_step) * size
            if channel_step == words.TAPS:
                pack(source, output_step, 1, width, count * words.TAPS, buffer, columns)
            else:
                for k in range(count):
                    place = buffer + k * words.TAPS * pitch
                    pack_taps(source + k * channel_step * size, output_step, width, place)
            for o in range(0, width, lanes):
                transform(start + o * size, 3 * step, step, words.TAPS * pitch,
                          u + c * pitch + o * size, n * point, point, pitch, count, 0)  # fmt: skip
        for p in range(n * n):
            clear(u + p * point + channels * pitch, (load_word(plan, words.W_DEPTH) - channels) * columns)

    return transform_weights


def point_products(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel multiply(plan, u, v, tiles, first_panel, panels, products): M of some tiles and panels."""
    size = bits // 8
    columns = shape.columns(size)
    panel_rows = shape.rows
    n = m + 2
    tile = row_tile_intrinsic(bits, is_along=True)

    @kernel
    def multiply(plan: int, u: int, v: int, tiles: int, first_panel: int, panels: int, products: int) -> None:
        """Compute M[point, t, o] = V[point, t] @ U[point]; `u`: the first of the panels."""
        depth = load_word(plan, words.W_DEPTH)
        v_row = load_word(plan, words.W_V_ROW)
        m_row = load_word(plan, words.W_M_ROW)
        outputs = load_word(plan, words.W_OUTPUTS) - first_panel * columns
        blocks = (tiles + panel_rows - 1) // panel_rows
        for p in range(n * n):
            a = v + p * load_word(plan, words.W_V_POINT)
            for panel in range(panels):
                b = u + p * load_word(plan, words.W_U_POINT) + panel * depth * columns * size
                target = products + p * load_word(plan, words.W_M_POINT) + panel * columns * size
                for q in range(blocks):
                    t = panel_start(tiles, q, blocks)
                    rows = panel_start(tiles, q + 1, blocks) - t
                    tile(rows, depth, a + t * v_row, b, v_row, target + t * m_row, m_row,
                         outputs - panel * columns, 0)  # fmt: skip

    return multiply


def strip_output(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel write_strip(plan, operands, strip, products, first, count, work).

    It transforms M of a strip back for `count` maps from `first` on, writes them to the result, and finishes them.
    """
    dtype = f"float{bits}"
    size = bits // 8
    lanes = shape.lanes(size)
    n = m + 2
    vector = lanes * size
    transform = transform_intrinsic(bits, "output", m)
    turn = turn_intrinsic(bits)
    exact = exact_map(dtype)
    is_finite = probing(bits, shape)

    @kernel
    def write_row(source: int, count: int, maps: int, y: int, plane: int) -> None:
        """Write `count` positions of `maps` <= lanes maps; where a vector does not fit the end it overlaps another."""
        for j in range(0, count, lanes):
            first = maximum(0, minimum(j, count - lanes))
            turn(source + first * vector, vector, minimum(lanes, count), maps, y + first * size, plane * size)

    @kernel
    def write_strip(
        plan: int, operands: int, strip: int, products: int, first: int, count: int, work: int
    ) -> None:
        out_h = load_word(plan, words.W_OUT_H)
        out_w = load_word(plan, words.W_OUT_W)
        outputs = load_word(plan, words.W_OUTPUTS)
        m_row = load_word(plan, words.W_M_ROW)
        m_point = load_word(plan, words.W_M_POINT)
        column_chunks = load_word(plan, words.W_COLUMN_CHUNKS)
        chunks = load_word(plan, words.W_ROW_CHUNKS) * column_chunks
        image = strip // chunks
        row_tile = chunk_start(plan, words.W_ROW_TILES, strip % chunks // column_chunks)
        row_tiles = chunk_end(plan, words.W_ROW_TILES, strip % chunks // column_chunks) - row_tile
        column_tile = chunk_start(plan, words.W_COLUMN_TILES, strip % column_chunks)
        column_tiles = chunk_end(plan, words.W_COLUMN_TILES, strip % column_chunks) - column_tile
        top = row_tile * m
        left = column_tile * m
        rows = minimum(row_tiles * m, out_h - top)
        columns = minimum(column_tiles * m, out_w - left)
        plane = out_h * out_w
        buffer = work + load_word(plan, words.W_BUFFER_OFFSET)
        pitch = column_tiles * m * vector
        origin = (image * outputs + first) * plane + top * out_w + left
        y = load_word(operands, 2) + origin * size
        in_size = load_word(plan, words.W_HEIGHT) * load_word(plan, words.W_WIDTH)
        x = load_word(operands, 0) + image * load_word(plan, words.W_CHANNELS) * in_size * size
        for o in range(0, count, lanes):
            maps = minimum(lanes, count - o)
            for i in range(row_tiles):
                transform(products + i * column_tiles * m_row + o * size, n * m_point, m_point, m_row,
                          buffer + i * m * pitch, pitch, vector, m * vector, column_tiles, work)  # fmt: skip
            target = y + o * plane * size
            if is_finite(work, maps) == 0:
                step = load_word(plan, words.W_OUTPUT_STEP)
                weights = load_word(operands, 1) + (first + o) * step * size
                map_start = target - (top * out_w + left) * size
                for k in range(maps):
                    exact(plan, x, weights + k * step * size, map_start + k * plane * size,
                          top, top + rows, left, left + columns)  # fmt: skip
            elif columns == out_w and columns == column_tiles * m:
                write_row(buffer, rows * columns, maps, target, plane)
            else:
                for r in range(rows):
                    write_row(buffer + r * pitch, columns, maps, target + r * out_w * size, plane)
        if rows * columns == plane:
            finish(operands, origin, count, plane, plane)
        else:
            for o in range(count):
                finish(operands, origin + o * plane, rows, out_w, columns)

    return write_strip


def block_task(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel compute(plan, operands, u, v, panels from and to, strips from and to, work)."""
    size = bits // 8
    columns = shape.columns(size)
    multiply = point_products(bits, shape, m)
    write_strip = strip_output(bits, shape, m)

    @kernel
    def compute(
        plan: int, operands: int, u: int, v: int, first_panel: int, end_panel: int, first: int, end: int, work: int
    ) -> None:
        """Compute the maps of panels first_panel..end_panel-1 in strips first..end-1; u, v begin with these."""
        group = load_word(plan, words.W_GROUP)
        outputs = load_word(plan, words.W_OUTPUTS)
        slot_tiles = load_word(plan, words.W_STRIP_TILES)
        products = work + load_word(plan, words.W_M_OFFSET)
        most = load_word(plan, words.W_M_PANELS)
        panel_bytes = load_word(plan, words.W_DEPTH) * columns * size
        for panel in range(first_panel, end_panel, most):
            panels = minimum(most, end_panel - panel)
            maps = minimum(panels * columns, outputs - panel * columns)
            for strip in range(first, end, group):
                strips = minimum(group, end - strip)
                tiles = (strip - first) * slot_tiles
                multiply(plan, u + (panel - first_panel) * panel_bytes, v + tiles * load_word(plan, words.W_V_ROW),
                         (strips - 1) * slot_tiles + strip_count(plan, strip + strips - 1),
                         panel, panels, products)  # fmt: skip
                for k in range(strips):
                    slot = products + k * slot_tiles * load_word(plan, words.W_M_ROW)
                    write_strip(plan, operands, strip + k, slot, panel * columns, maps, work)

    return compute


@cache  # one kernel, though several tasks call it
def tiles_transform(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel transform_tiles(plan, operands, strip, first, end, v, work): V of some channels of a strip."""
    size = bits // 8
    transform_strip = strip_transform(bits, shape, "input", m)

    @kernel
    def transform_tiles(plan: int, operands: int, strip: int, first: int, end: int, v: int, work: int) -> None:
        channels = load_word(plan, words.W_CHANNELS)
        height = load_word(plan, words.W_HEIGHT)
        width = load_word(plan, words.W_WIDTH)
        column_chunks = load_word(plan, words.W_COLUMN_CHUNKS)
        chunks = load_word(plan, words.W_ROW_CHUNKS) * column_chunks
        row = chunk_start(plan, words.W_ROW_TILES, strip % chunks // column_chunks)
        rows = chunk_end(plan, words.W_ROW_TILES, strip % chunks // column_chunks) - row
        column = chunk_start(plan, words.W_COLUMN_TILES, strip % column_chunks)
        columns = chunk_end(plan, words.W_COLUMN_TILES, strip % column_chunks) - column
        x = load_word(operands, 0) + (strip // chunks * channels + first) * height * width * size
        transform_strip(x, height, width, end - first,
                        load_word(plan, words.W_TOP) - row * m, load_word(plan, words.W_LEFT) - column * m,
                        rows, columns, v + first * size,
                        load_word(plan, words.W_V_POINT), load_word(plan, words.W_V_ROW),
                        work + load_word(plan, words.W_BUFFER_OFFSET))  # fmt: skip

    return transform_tiles


work_of = work_address(words.W_WORK_OFFSET, words.W_WORK_BYTES)


def first_task_of(bits: int, shape: TileShape, m: int) -> Any:
    """Return the task that runs first: it transforms what all tasks need."""
    size = bits // 8
    lanes = shape.lanes(size)
    columns = shape.columns(size)
    transform_weights = weight_transform(bits, shape, m)
    transform_tiles = tiles_transform(bits, shape, m)

    @kernel
    def first_task(scratch: int, index: int, thread: int) -> None:
        """Transform what all tasks need: the tiles of a strip, or a panel of weights."""
        plan = load_word(scratch, 0)
        operands = load_word(scratch, 1)
        work = work_of(plan, scratch, thread)
        shared = scratch + load_word(plan, words.W_SHARED_OFFSET)
        parts = load_word(plan, words.W_PARTS)
        channels = load_word(plan, words.W_CHANNELS)
        depth = load_word(plan, words.W_DEPTH)
        if load_word(plan, words.W_IS_TILES_FIRST):
            strip = index // parts
            slot = strip * load_word(plan, words.W_STRIP_TILES) * load_word(plan, words.W_V_ROW)
            first = depth // lanes * (index % parts) // parts * lanes
            end = minimum(channels, depth // lanes * (index % parts + 1) // parts * lanes)
            transform_tiles(plan, operands, strip, first, end, shared + slot, work)
        else:
            place = shared + index * depth * columns * size
            buffer = work + load_word(plan, words.W_BUFFER_OFFSET)
            transform_weights(plan, load_word(operands, 1), index, place, buffer)

    return first_task


def task_of(bits: int, shape: TileShape, m: int) -> Any:
    """Return the task that computes panels of weights by strips of tiles."""
    size = bits // 8
    columns = shape.columns(size)
    transform_weights = weight_transform(bits, shape, m)
    transform_tiles = tiles_transform(bits, shape, m)
    compute = block_task(bits, shape, m)
    clear = row_clearing(f"float{bits}")

    @kernel
    def task(scratch: int, index: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        operands = load_word(scratch, 1)
        work = work_of(plan, scratch, thread)
        clear(work, words.PROBE_BYTES // size)
        shared = scratch + load_word(plan, words.W_SHARED_OFFSET)
        own = work + load_word(plan, words.W_OWN_OFFSET)
        tasks = load_word(plan, words.W_TASKS)
        panels = load_word(plan, words.W_PANELS)
        strips = load_word(plan, words.W_STRIPS)
        if load_word(plan, words.W_IS_TILES_FIRST):
            first = panels * index // tasks
            end = panels * (index + 1) // tasks
            for panel in range(first, end):
                place = own + (panel - first) * load_word(plan, words.W_DEPTH) * columns * size
                buffer = work + load_word(plan, words.W_BUFFER_OFFSET)
                transform_weights(plan, load_word(operands, 1), panel, place, buffer)
            compute(plan, operands, own, shared, first, end, 0, strips, work)
        else:
            group = load_word(plan, words.W_GROUP)
            first = index * group
            end = minimum(strips, first + group)
            for strip in range(first, end):
                slot = (strip - first) * load_word(plan, words.W_STRIP_TILES) * load_word(plan, words.W_V_ROW)
                transform_tiles(plan, operands, strip, 0, load_word(plan, words.W_CHANNELS), own + slot, work)
            compute(plan, operands, shared, own, 0, panels, first, end, work)

    return task


def winograd_entries(bits: int, shape: TileShape, m: int) -> dict[str, tuple[Any, Any]]:
    """Return the entry of forward and data-gradient convolutions with tiles of m x m, and its tasks."""
    symbol = f"tg_winograd{m}_{SHORT_NAMES[f'float{bits}']}"
    first_address = task_address(f"{symbol}_first")
    address = task_address(f"{symbol}_task")

    @kernel
    def entry(plan: int, operands: int, scratch: int, pool: int) -> None:
        store_word(scratch, 0, plan)
        store_word(scratch, 1, operands)
        par_for(pool, first_address(), scratch, load_word(plan, words.W_FIRST_TASKS))
        par_for(pool, address(), scratch, load_word(plan, words.W_TASKS))

    return {
        symbol: (entry, ENTRY_SIGNATURE),
        f"{symbol}_first": (first_task_of(bits, shape, m), TASK_SIGNATURE),
        f"{symbol}_task": (task_of(bits, shape, m), TASK_SIGNATURE),
    }


def winograd_parts(bits: int, shape: TileShape, m: int) -> list[ir.Module]:
    """Return the finished modules that the convolutions call."""
    transforms = [transform_part(bits, shape, kind, m) for kind in ("input", "weight", "output")]
    return [*transforms, turn_part(bits, shape), transpose_part(bits, shape), row_tile_part(bits, shape, is_along=True)]
