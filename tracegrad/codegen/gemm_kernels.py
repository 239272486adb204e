"""Matrix products around the register tile: runtime shapes and strides, so one object serves every product.

    for columns of C that fit the L2 and L3 caches, for blocks of K:
        pack B (panels of the tile's width)
        for rows of C:  pack A (panels of the tile's height, all of them in the L2 cache)
            for panels of B (each in the L1 cache), for panels of A:  the tile

The plan may say that an operand is read where it lies.  A thread packs for itself: no barriers.  What it packed of A
it may keep, for other columns and for further products of a batch that has one A.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen import plan_gemm as words
from tracegrad.codegen import types
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
from tracegrad.codegen.finish import finish
from tracegrad.codegen.gemm_panels import panel_product, row_start
from tracegrad.codegen.gemm_tile import product_tile_part
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import HEADER_BYTES, SHORT_NAMES
from tracegrad.codegen.row_moves import fetch_line
from tracegrad.codegen.tile import CACHE_LINE
from tracegrad.codegen.tile_moves import copy_rows_intrinsic, transpose_intrinsic, transpose_part
from tracegrad.codegen.tile_shape import TileShape

TASK_SIGNATURE = types.void(types.int64, types.int64, types.int64)
ENTRY_SIGNATURE = types.void(types.int64, types.int64, types.int64, types.int64)
PACKED_AT_A_TIME = 8  # rows of a panel: few pages are open at once, and each is written in whole lines


def packing(bits: int, shape: TileShape) -> Any:
    """Return the kernel pack(source, p_stride, k_stride, width, depth, destination, panel_width).

    destination[k, i] = source[i, k]: a panel, `width` <= panel_width.  Strides in elements, any.
    """
    size = bits // 8
    lanes = shape.lanes(size)
    columns = shape.columns(size)
    copy_rows = copy_rows_intrinsic(bits)
    transpose = transpose_intrinsic(bits)
    load = loader(f"float{bits}")
    store = storer(f"float{bits}")

    @kernel
    def pack(source: int, p_stride: int, k_stride: int, width: int, depth: int, target: int, panel_width: int) -> None:
        # Descending, so that what a part spills over the next lanes is overwritten by the parts that follow.
        pitch = panel_width * size
        if p_stride == 1:
            for i in range((width - 1) // columns * columns, -1, -columns):
                count = minimum(columns, width - i)
                copy_rows(source + i * size, k_stride * size, depth, count, target + i * size, pitch)
        elif k_stride == 1:
            for i in range((width - 1) // lanes * lanes, -1, -lanes):
                rows = minimum(lanes, width - i)
                transpose(source + i * p_stride * size, p_stride * size, rows, depth, target + i * size, pitch)
        else:
            for k in range(depth):
                for i in range(width):
                    store(target, k * panel_width + i, load(source, i * p_stride + k * k_stride))

    return pack


@kernel
def panel_start(rows: int, panel: int, panels: int) -> int:
    """Return the first row of a panel when rows are cut into panels of even and nearly equal heights."""
    return minimum(rows, 2 * ((rows + 1) // 2 * panel // panels))


@kernel
def batch_start(plan: int, i: int, inner: int, outer_word: int, inner_word: int) -> int:
    """Return where an operand of product i of a batch starts."""
    if inner == 1:
        return i * load_word(plan, outer_word)
    return i // inner * load_word(plan, outer_word) + i % inner * load_word(plan, inner_word)


def left_packing(bits: int, shape: TileShape) -> Any:
    """Return the kernel pack_a(a, a_row, a_k, m, even, taller, q0, q1, depth, target, pitch)."""
    size = bits // 8
    panel_rows = shape.rows
    pack = packing(bits, shape)

    @kernel
    def pack_a(
        a: int, a_row: int, a_k: int, m: int, even: int, taller: int, q0: int, q1: int, depth: int, target: int,
        pitch: int,
    ) -> None:  # fmt: skip
        """Pack panels q0..q1-1 of A; where columns of A are contiguous, all panels of a few columns at a time."""
        chunk = PACKED_AT_A_TIME if a_row == 1 else depth
        for k in range(0, depth, chunk):
            for q in range(q0, q1):
                row = row_start(m, even, taller, q)
                rows = row_start(m, even, taller, q + 1) - row
                place = target + ((q - q0) * pitch + k * panel_rows) * size
                pack(a + (row * a_row + k * a_k) * size, a_row, a_k, rows, minimum(chunk, depth - k), place, panel_rows)

    return pack_a


def right_packing(bits: int, shape: TileShape) -> Any:
    """Return the kernel pack_b(b, b_k, b_column, depth, n, target, pitch)."""
    size = bits // 8
    columns = shape.columns(size)
    pack = packing(bits, shape)

    @kernel
    def pack_b(b: int, b_k: int, b_column: int, depth: int, n: int, target: int, pitch: int) -> None:
        """Pack n columns of B; where rows of B are contiguous, all panels of a few rows at a time."""
        chunk = PACKED_AT_A_TIME if b_column == 1 else depth
        for k in range(0, depth, chunk):
            for j in range(0, n, columns):
                source = b + (k * b_k + j * b_column) * size
                if b_column != 1:  # the CPU does not see what follows: 5 x 65536 x 32 takes half the time
                    for i in range(minimum(columns, n - j - columns)):
                        following = source + (columns + i) * b_column * size
                        fetch_line(following)
                        fetch_line(following + CACHE_LINE)
                place = target + (j // columns * pitch + k * columns) * size
                pack(source, b_column, b_k, minimum(columns, n - j), minimum(chunk, depth - k), place, columns)

    return pack_b


@kernel
def first_term(k: int, block: int, blocks: int, limit: int, tail: int) -> int:
    """Return where a block of terms begins: blocks are as even as can be, or the last one is the tail."""
    if tail == 0:
        return k * block // blocks
    return k if block == blocks else minimum(block * limit, k - tail)


def blocked_product(bits: int, shape: TileShape) -> Any:
    """Return the kernel block(a, a_row, a_k, b, ..., m, n, k, repeats, plan, work, operands, origin, is_packed)."""
    size = bits // 8
    panel_rows = shape.rows
    columns = shape.columns(size)
    pack_a = left_packing(bits, shape)
    pack_b = right_packing(bits, shape)
    multiply = panel_product(bits, shape)
    store = storer(f"float{bits}")
    zero = KERNEL_TYPES[f"float{bits}"](0)

    @kernel
    def clear(c: int, c_row: int, m: int, n: int) -> None:
        for i in range(m):
            for j in range(n):
                store(c, i * c_row + j, zero)

    @kernel
    def block(
        a: int, a_row: int, a_k: int, b: int, b_k: int, b_column: int, c: int, c_row: int,
        m: int, n: int, k: int, repeats: int, plan: int, work: int, operands: int, origin: int, is_packed: int,
    ) -> None:  # fmt: skip
        """Add up `repeats` products of one block; parts of C are finished when complete, unless origin is negative.

        is_packed: A is there from the block before.
        """
        a_pitch = load_word(plan, words.A_PITCH)
        b_pitch = load_word(plan, words.B_PITCH)
        group = load_word(plan, words.A_PANELS)
        n_step = load_word(plan, words.N_STEP)
        depth_limit, strip = load_word(plan, words.DEPTH), load_word(plan, words.STRIP)
        first_a = work + load_word(plan, words.PACKED_B)
        kept = load_word(plan, words.KEPT_A)
        tail = load_word(plan, words.B_TAIL)
        k_blocks = (k - tail + depth_limit - 1) // depth_limit
        if tail:
            k_blocks += 1
        turns = k_blocks * repeats
        a_repeat, b_repeat = load_word(plan, words.A_REPEAT), load_word(plan, words.B_REPEAT)
        panels = (m + panel_rows - 1) // panel_rows
        even, taller = (m + 1) // 2 // panels, (m + 1) // 2 % panels
        for first in range(0, n, n_step):
            width = minimum(n_step, n - first)
            part = c + first * size
            if k == 0:
                clear(part, c_row, m, width)
                if origin >= 0:
                    finish(operands, origin + first, m, c_row, width)
            for turn in range(turns):
                repeat, k_block = turn // k_blocks, turn % k_blocks
                k0 = first_term(k, k_block, k_blocks, depth_limit, tail)
                depth = first_term(k, k_block + 1, k_blocks, depth_limit, tail) - k0
                if tail:
                    b_pitch = (tail + 2) * columns if k_block == k_blocks - 1 else 0
                right, right_k = b + (repeat * b_repeat + k0 * b_k + first * b_column) * size, b_k * size
                if b_pitch:
                    pack_b(right, b_k, b_column, depth, width, work, b_pitch)
                    right, right_k = work, columns * size
                for q0 in range(0, panels, group):
                    q1 = minimum(panels, q0 + group)
                    left, left_row, left_k = a + (repeat * a_repeat + k0 * a_k) * size, a_row * size, a_k * size
                    if a_pitch:
                        packed_a = first_a
                        if kept:
                            packed_a += k_block * kept + q0 * a_pitch * size
                        if kept == 0 or is_packed == 0:
                            pack_a(left, a_row, a_k, m, even, taller, q0, q1, depth, packed_a, a_pitch)
                        left, left_row, left_k = packed_a, size, panel_rows * size
                    multiply(m, even, taller, q0, q1, width, depth, strip, left, left_row, left_k, a_pitch * size,
                             right, right_k, b_pitch * size, part, c_row * size, turn)  # fmt: skip
                    if turn == turns - 1 and origin >= 0:
                        row = row_start(m, even, taller, q0)
                        rows = row_start(m, even, taller, q1) - row
                        finish(operands, origin + row * c_row + first, rows, c_row, width)
            is_packed = 1

    return block


def block_of_product(bits: int, shape: TileShape) -> Any:
    """Return the kernel run_unit(plan, operands, scratch, unit, work, is_packed)."""
    size = bits // 8
    columns = shape.columns(size)
    block = blocked_product(bits, shape)

    @kernel
    def run_unit(plan: int, operands: int, scratch: int, unit: int, work: int, is_packed: int) -> None:
        """Compute one block of one product: unit = ((batch, split), column block, row block)."""
        m = load_word(plan, words.M)
        n = load_word(plan, words.N)
        k = load_word(plan, words.K)
        row_blocks = load_word(plan, words.ROW_BLOCKS)
        column_blocks = load_word(plan, words.COLUMN_BLOCKS)
        splits = load_word(plan, words.K_SPLITS)
        row_block = unit % row_blocks
        column_block = unit // row_blocks % column_blocks
        split = unit // (row_blocks * column_blocks) % splits
        batch = unit // (row_blocks * column_blocks * splits)
        m0 = m * row_block // row_blocks
        m1 = m * (row_block + 1) // row_blocks
        panels = (n + columns - 1) // columns
        n0 = panels * column_block // column_blocks * columns
        n1 = minimum(n, panels * (column_block + 1) // column_blocks * columns)
        k0, k1 = k * split // splits, k * (split + 1) // splits
        repeats, first_repeat = load_word(plan, words.REPEATS), 0
        if repeats > 1:
            k0, k1 = 0, k
            first_repeat = repeats * split // splits
            repeats = repeats * (split + 1) // splits - first_repeat
        a_row = load_word(plan, words.A_ROW)
        a_column = load_word(plan, words.A_COLUMN)
        b_row = load_word(plan, words.B_ROW)
        b_column = load_word(plan, words.B_COLUMN)
        c_row = load_word(plan, words.C_ROW)
        inner = load_word(plan, words.INNER)
        a_start = batch_start(plan, batch, inner, words.A_BATCH, words.A_INNER) + m0 * a_row + k0 * a_column
        b_start = batch_start(plan, batch, inner, words.B_BATCH, words.B_INNER) + k0 * b_row + n0 * b_column
        a_start += first_repeat * load_word(plan, words.A_REPEAT)
        b_start += first_repeat * load_word(plan, words.B_REPEAT)
        a = load_word(operands, load_word(plan, words.A)) + a_start * size
        b = load_word(operands, load_word(plan, words.B)) + b_start * size
        origin = batch * load_word(plan, words.C_BATCH) + m0 * c_row + n0
        c = load_word(operands, load_word(plan, words.C)) + origin * size
        if splits > 1:
            c_row = n
            c = scratch + HEADER_BYTES + (split * m * n + m0 * n + n0) * size
            origin = -1
        block(
            a, a_row, a_column, b, b_row, b_column, c, c_row, m1 - m0, n1 - n0, k1 - k0, repeats, plan, work, operands,
            origin, is_packed,
        )  # fmt: skip

    return run_unit


def small_products(bits: int, shape: TileShape) -> Any:
    """Return the kernel run_small(plan, operands, first, end)."""
    size = bits // 8
    panel_rows = shape.rows
    multiply = panel_product(bits, shape)

    @kernel
    def run_small(plan: int, operands: int, first: int, end: int) -> None:
        """Compute products first..end-1 of a batch, each in one pass over operands that are read where they lie."""
        m = load_word(plan, words.M)
        n = load_word(plan, words.N)
        k = load_word(plan, words.K)
        a_row = load_word(plan, words.A_ROW) * size
        a_column = load_word(plan, words.A_COLUMN) * size
        b_row = load_word(plan, words.B_ROW) * size
        c_row = load_word(plan, words.C_ROW)
        inner = load_word(plan, words.INNER)
        c_batch = load_word(plan, words.C_BATCH)
        a = load_word(operands, load_word(plan, words.A))
        b = load_word(operands, load_word(plan, words.B))
        c = load_word(operands, load_word(plan, words.C))
        strip = load_word(plan, words.STRIP)
        panels = (m + panel_rows - 1) // panel_rows
        even, taller = (m + 1) // 2 // panels, (m + 1) // 2 % panels
        for i in range(first, end):
            left = a + batch_start(plan, i, inner, words.A_BATCH, words.A_INNER) * size
            right = b + batch_start(plan, i, inner, words.B_BATCH, words.B_INNER) * size
            multiply(m, even, taller, 0, panels, n, k, strip, left, a_row, a_column, 0, right, b_row, 0,
                     c + i * c_batch * size, c_row * size, 0)  # fmt: skip
            finish(operands, i * c_batch, m, c_row, n)

    return run_small


def partial_sum(dtype: str) -> Any:
    """Return the kernel add_partials(plan, operands, scratch)."""
    load = loader(dtype)
    store = storer(dtype)

    @kernel
    def add_partials(plan: int, operands: int, scratch: int) -> None:
        """C = the sum of the splits' partial products."""
        m = load_word(plan, words.M)
        n = load_word(plan, words.N)
        c_row = load_word(plan, words.C_ROW)
        c = load_word(operands, load_word(plan, words.C))
        partial = scratch + HEADER_BYTES
        splits = load_word(plan, words.K_SPLITS)
        for i in range(m):
            for j in range(n):
                total = load(partial, i * n + j)
                for split in range(1, splits):
                    total += load(partial, (split * m + i) * n + j)
                store(c, i * c_row + j, total)
        finish(operands, 0, m, c_row, n)

    return add_partials


def gemm_entries(bits: int, shape: TileShape) -> dict[str, tuple[Any, Any]]:
    """Return the entry of the tiled product and its task."""
    dtype = f"float{bits}"
    name = SHORT_NAMES[dtype]
    run_unit = block_of_product(bits, shape)
    run_small = small_products(bits, shape)
    add_partials = partial_sum(dtype)
    task = task_address(f"tg_gemm_{name}_task")

    @kernel
    def gemm_task(scratch: int, index: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        operands = load_word(scratch, 1)
        units = load_word(plan, words.BATCH) * load_word(plan, words.ROW_BLOCKS) * load_word(plan, words.COLUMN_BLOCKS)
        units *= load_word(plan, words.K_SPLITS)
        tasks = load_word(plan, words.TASKS)
        work = (
            scratch + HEADER_BYTES + load_word(plan, words.PARTIAL_BYTES) + thread * load_word(plan, words.WORK_BYTES)
        )
        first, end = units * index // tasks, units * (index + 1) // tasks
        if load_word(plan, words.IS_SMALL):
            run_small(plan, operands, first, end)
        else:
            flag = work + load_word(plan, words.WORK_BYTES) - HEADER_BYTES
            for unit in range(first, end):
                run_unit(plan, operands, scratch, unit, work, load_word(flag, 0))
                store_word(flag, 0, 1)

    @kernel
    def gemm(plan: int, operands: int, scratch: int, pool: int) -> None:
        store_word(scratch, 0, plan)
        store_word(scratch, 1, operands)
        work_bytes = load_word(plan, words.WORK_BYTES)
        end = scratch + HEADER_BYTES + load_word(plan, words.PARTIAL_BYTES)
        for _ in range(load_word(plan, words.THREADS)):
            end += work_bytes
            store_word(end - HEADER_BYTES, 0, 0)
        par_for(pool, task(), scratch, load_word(plan, words.TASKS))
        if load_word(plan, words.K_SPLITS) > 1:
            add_partials(plan, operands, scratch)

    return {f"tg_gemm_{name}": (gemm, ENTRY_SIGNATURE), f"tg_gemm_{name}_task": (gemm_task, TASK_SIGNATURE)}


def gemm_parts(bits: int, shape: TileShape) -> list[ir.Module]:
    """Return the finished modules that the tiled product calls."""
    return [product_tile_part(bits, shape), transpose_part(bits, shape)]
