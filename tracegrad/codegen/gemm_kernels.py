"""Matrix products around the register tile, in Numba: runtime shapes and strides, so one object serves every product.

    C[m, n] = sum over blocks of K:  A[m, block] @ B[block, n]

For each block of K a task packs its rows of A into panels of `shape.rows`, then, eight panels at a time, its columns of
B into panels of the tile's width, and runs the tile over all pairs.  The panel of A is the outer loop: the tile of C
walks along its rows (few TLB entries) while panels of B stream from the L2 cache.  A thread packs for itself: no
barriers.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from tracegrad.codegen import plan_gemm as words
from tracegrad.codegen.addresses import (
    NUMBA_TYPES,
    load_word,
    loader,
    minimum,
    par_for,
    store_word,
    storer,
    task_address,
)
from tracegrad.codegen.finish import finish
from tracegrad.codegen.native import kernel
from tracegrad.codegen.plan import HEADER_BYTES, SHORT_NAMES
from tracegrad.codegen.tile import tile_intrinsic, tile_part
from tracegrad.codegen.tile_moves import copy_intrinsic, transpose_intrinsic, transpose_part
from tracegrad.codegen.tile_shape import TileShape

TASK_SIGNATURE = types.void(types.int64, types.int64, types.int64)
ENTRY_SIGNATURE = types.void(types.int64, types.int64, types.int64, types.int64)


def packing(bits: int, shape: TileShape) -> Any:
    """Return the kernel pack(source, p_stride, k_stride, width, depth, destination, panel_width).

    destination[k, i] = source[i, k]: a panel, `width` <= panel_width.  Strides in elements, any.
    """
    size = bits // 8
    lanes = shape.lanes(size)
    columns = shape.columns(size)
    copy = copy_intrinsic(bits, shape, masked=False, vectors=shape.vectors)
    transpose = transpose_intrinsic(bits)
    load = loader(f"float{bits}")
    store = storer(f"float{bits}")

    @kernel
    def pack(source: int, p_stride: int, k_stride: int, width: int, depth: int, target: int, panel_width: int) -> None:
        if p_stride == 1:
            for k in range(depth):
                for i in range(0, width, columns):
                    from_, to = source + (k * k_stride + i) * size, target + (k * panel_width + i) * size
                    copy(from_, to, width - i)
        elif k_stride == 1:
            # Descending, so that what a part spills over the next lanes is overwritten by the parts that follow.
            for i in range((width - 1) // lanes * lanes, -1, -lanes):
                rows = minimum(lanes, width - i)
                for k in range(0, depth, lanes):
                    from_, to = source + (i * p_stride + k) * size, target + (k * panel_width + i) * size
                    transpose(from_, p_stride * size, rows, minimum(lanes, depth - k), to, panel_width * size)
        else:
            for k in range(depth):
                for i in range(width):
                    store(target, k * panel_width + i, load(source, i * p_stride + k * k_stride))

    return pack


@kernel
def panel_start(rows: int, panel: int, panels: int) -> int:
    """Return the first row of a panel when rows are cut into panels of even and nearly equal heights."""
    return minimum(rows, 2 * ((rows + 1) // 2 * panel // panels))


def right_packing(bits: int, shape: TileShape, pack: Any) -> Any:
    """Return the kernel pack_b(b, b_row, b_column, depth, first, end, target, pitch)."""
    size = bits // 8
    columns = shape.columns(size)
    copy = copy_intrinsic(bits, shape, masked=False, vectors=shape.vectors)

    @kernel
    def pack_b(b: int, b_row: int, b_column: int, depth: int, first: int, end: int, target: int, pitch: int) -> None:
        """Pack columns first..end-1 of B into panels."""
        if b_column == 1:
            for k in range(depth):  # all panels at once: long runs of each row of B
                for j in range(first, end, columns):
                    place = target + ((j - first) // columns * pitch + k * columns) * size
                    copy(b + (k * b_row + j) * size, place, end - j)
        else:
            for j in range(first, end, columns):
                place = target + (j - first) // columns * pitch * size
                pack(b + j * b_column * size, b_column, b_row, minimum(columns, end - j), depth, place, columns)

    return pack_b


def panel_product(bits: int, shape: TileShape) -> Any:
    """Return the kernel multiply_panels(panels, m, depth, packed_a, a_pitch, b, b_pitch, b_step, c, ...)."""
    size = bits // 8
    columns = shape.columns(size)
    tile = tile_intrinsic(bits, indirect=False)

    @kernel
    def multiply_panels(
        panels: int, m: int, depth: int, packed_a: int, a_pitch: int, b: int, b_pitch: int, b_step: int,
        c: int, c_row: int, first: int, end: int, accumulate: int,
    ) -> None:  # fmt: skip
        """Run the tile over every panel of A and the panels of B for columns first..end-1."""
        for q in range(panels):
            row = panel_start(m, q, panels)
            rows = panel_start(m, q + 1, panels) - row
            for j in range(first, end, columns):
                b_panel = b + (j - first) // columns * b_pitch * size
                place = c + (row * c_row + j) * size
                a_panel = packed_a + q * a_pitch * size
                tile(rows, depth, a_panel, b_panel, b_step, place, c_row * size, end - j, accumulate)

    return multiply_panels


def blocked_product(bits: int, shape: TileShape) -> Any:
    """Return the kernel block(a, a_row, a_column, b, b_row, b_column, c, c_row, m, n, k, plan, work)."""
    size = bits // 8
    columns = shape.columns(size)
    panel_rows = shape.rows
    depth_limit = words.K_BLOCK[size]
    row_bytes = columns * size
    pack = packing(bits, shape)
    pack_b = right_packing(bits, shape, pack)
    multiply_panels = panel_product(bits, shape)
    store = storer(f"float{bits}")
    zero = NUMBA_TYPES[f"float{bits}"](0)

    @kernel
    def block(
        a: int, a_row: int, a_column: int, b: int, b_row: int, b_column: int, c: int, c_row: int,
        m: int, n: int, k: int, plan: int, work: int,
    ) -> None:  # fmt: skip
        if k == 0:
            for i in range(m):
                for j in range(n):
                    store(c, i * c_row + j, zero)
        a_pitch = load_word(plan, words.A_PITCH)
        b_pitch = load_word(plan, words.B_PITCH)
        width = load_word(plan, words.B_PANELS) * columns
        packed_a = work + load_word(plan, words.B_PANELS) * b_pitch * size
        k_blocks = (k + depth_limit - 1) // depth_limit
        panels = (m + panel_rows - 1) // panel_rows
        # With one panel of A each row of B is used once: read it in place, as far as whole tiles go.
        in_place = n // columns * columns if panels == 1 and b_column == 1 else 0
        for k_block in range(k_blocks):
            k0 = k * k_block // k_blocks
            depth = k * (k_block + 1) // k_blocks - k0
            b_block = b + k0 * b_row * size
            for q in range(panels):
                row = panel_start(m, q, panels)
                rows = panel_start(m, q + 1, panels) - row
                source = a + (row * a_row + k0 * a_column) * size
                pack(source, a_row, a_column, rows, depth, packed_a + q * a_pitch * size, panel_rows)
            if in_place:
                multiply_panels(panels, m, depth, packed_a, a_pitch, b_block, columns, b_row * size,
                                c, c_row, 0, in_place, k_block)  # fmt: skip
            for first in range(in_place, n, width):
                end = minimum(first + width, n)
                pack_b(b_block, b_row, b_column, depth, first, end, work, b_pitch)
                multiply_panels(panels, m, depth, packed_a, a_pitch, work, b_pitch, row_bytes,
                                c, c_row, first, end, k_block)  # fmt: skip

    return block


def block_of_product(bits: int, shape: TileShape) -> Any:
    """Return the kernel run_unit(plan, operands, scratch, unit, work)."""
    size = bits // 8
    columns = shape.columns(size)
    block = blocked_product(bits, shape)

    @kernel
    def run_unit(plan: int, operands: int, scratch: int, unit: int, work: int) -> None:
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
        k0 = k * split // splits
        k1 = k * (split + 1) // splits
        a_row = load_word(plan, words.A_ROW)
        a_column = load_word(plan, words.A_COLUMN)
        b_row = load_word(plan, words.B_ROW)
        b_column = load_word(plan, words.B_COLUMN)
        c_row = load_word(plan, words.C_ROW)
        a_start = batch * load_word(plan, words.A_BATCH) + m0 * a_row + k0 * a_column
        b_start = batch * load_word(plan, words.B_BATCH) + k0 * b_row + n0 * b_column
        a = load_word(operands, load_word(plan, words.A)) + a_start * size
        b = load_word(operands, load_word(plan, words.B)) + b_start * size
        origin = batch * load_word(plan, words.C_BATCH) + m0 * c_row + n0
        c = load_word(operands, load_word(plan, words.C)) + origin * size
        if splits > 1:
            c_row = n
            c = scratch + HEADER_BYTES + (split * m * n + m0 * n + n0) * size
        block(a, a_row, a_column, b, b_row, b_column, c, c_row, m1 - m0, n1 - n0, k1 - k0, plan, work)
        if splits == 1:
            finish(operands, origin, m1 - m0, c_row, n1 - n0)

    return run_unit


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
        for unit in range(units * index // tasks, units * (index + 1) // tasks):
            run_unit(plan, operands, scratch, unit, work)

    @kernel
    def gemm(plan: int, operands: int, scratch: int, pool: int) -> None:
        store_word(scratch, 0, plan)
        store_word(scratch, 1, operands)
        par_for(pool, task(), scratch, load_word(plan, words.TASKS))
        if load_word(plan, words.K_SPLITS) > 1:
            add_partials(plan, operands, scratch)

    return {f"tg_gemm_{name}": (gemm, ENTRY_SIGNATURE), f"tg_gemm_{name}_task": (gemm_task, TASK_SIGNATURE)}


def gemm_parts(bits: int, shape: TileShape) -> list[ir.Module]:
    """Return the finished modules that the tiled product calls."""
    return [tile_part(bits, shape, indirect=False), transpose_part(bits, shape)]
