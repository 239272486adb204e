"""The gradient of the weights of pointwise convolutions: see `plan_conv_pointwise` for the formula.

A chunk (some positions of some images) is summed panel by panel of the columns: its positions are transposed into
scratch, where they fit the L1 cache, and the tile runs over all rows, which are read where they lie.

Every position is an output, so nothing is multiplied by zeros that stand for nothing: NaN and inf need no other path.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen import plan_conv_pointwise as words
from tracegrad.codegen.addresses import load_word, loader, minimum, par_for, store_word, storer, task_address
from tracegrad.codegen.finish import finish
from tracegrad.codegen.gemm_kernels import ENTRY_SIGNATURE, TASK_SIGNATURE, packing, panel_start
from tracegrad.codegen.gemm_tile import product_tile_intrinsic, product_tile_part
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import HEADER_BYTES, SHORT_NAMES
from tracegrad.codegen.tile_moves import transpose_part
from tracegrad.codegen.tile_shape import TileShape


def chunk_sum(bits: int, shape: TileShape) -> Any:
    """Return the kernel add_chunk(plan, operands, chunk, block, sums, is_first, work)."""
    size = bits // 8
    panel_columns = shape.columns(size)
    panel_rows = shape.rows
    pack = packing(bits, shape)
    tile = product_tile_intrinsic(bits)

    @kernel
    def add_rows(
        plan: int, rows: int, images: int, k: int, block: int, turned: int, columns: int, sums: int, accumulate: int
    ) -> None:
        """Add the products of a block of rows with a transposed panel."""
        count = load_word(plan, words.ROWS)
        plane = load_word(plan, words.PLANE)
        row_bytes, sum_bytes, k_bytes = plane * size, load_word(plan, words.SUM_PITCH) * size, panel_columns * size
        blocks = load_word(plan, words.BLOCKS)
        panels = (count + panel_rows - 1) // panel_rows
        first = panel_start(count, panels * block // blocks, panels)
        for panel in range(panels * block // blocks, panels * (block + 1) // blocks):
            end = panel_start(count, panel + 1, panels)
            target = sums + first * sum_bytes
            for image in range(images):
                a = rows + (image * count + first) * row_bytes
                b = turned + image * k * k_bytes
                tile(end - first, k, a, row_bytes, size, b, k_bytes, target, sum_bytes, columns, accumulate + image)
            first = end

    @kernel
    def add_chunk(plan: int, operands: int, chunk: int, block: int, sums: int, accumulate: int, work: int) -> None:
        plane, pieces = load_word(plan, words.PLANE), load_word(plan, words.PIECES)
        batches, images = load_word(plan, words.BATCHES), load_word(plan, words.IMAGES)
        batch, piece = chunk // pieces, chunk % pieces
        image = images * batch // batches
        count = images * (batch + 1) // batches - image
        p = plane * piece // pieces
        k = plane * (piece + 1) // pieces - p
        columns = load_word(plan, words.COLUMNS)
        row_items = image * load_word(plan, words.ROWS) * plane + p
        rows = load_word(operands, load_word(plan, words.ROW_OPERAND)) + row_items * size
        source = load_word(operands, load_word(plan, words.COLUMN_OPERAND)) + (image * columns * plane + p) * size
        for c in range(0, columns, panel_columns):
            width = minimum(panel_columns, columns - c)
            for i in range(count):
                from_ = source + (i * columns + c) * plane * size
                pack(from_, plane, 1, width, k, work + i * k * panel_columns * size, panel_columns)
            add_rows(plan, rows, count, k, block, work, width, sums + c * size, accumulate)

    return add_chunk


def fold_task(bits: int) -> Any:
    """Return the task that adds the shares' sums of one output map into dW[o, c], and finishes it."""
    size = bits // 8
    load = loader(f"float{bits}")
    store = storer(f"float{bits}")

    @kernel
    def add_share(target: int, source: int, step: int, count: int, is_first: int) -> None:
        if is_first and step == 1:
            for c in range(count):
                store(target, c, load(source, c))
        elif is_first:
            for c in range(count):
                store(target, c, load(source, c * step))
        elif step == 1:
            for c in range(count):
                store(target, c, load(target, c) + load(source, c))
        else:
            for c in range(count):
                store(target, c, load(target, c) + load(source, c * step))

    @kernel
    def fold(scratch: int, o: int, thread: int) -> None:
        plan, operands = load_word(scratch, 0), load_word(scratch, 1)
        channels = load_word(plan, words.CHANNELS)
        target = load_word(operands, 2) + o * channels * size
        if load_word(plan, words.IN_PLACE) == 0:
            sums = scratch + HEADER_BYTES + o * load_word(plan, words.SUM_OUTPUT) * size
            for share in range(load_word(plan, words.SHARES)):
                source = sums + share * load_word(plan, words.SUMS_BYTES)
                add_share(target, source, load_word(plan, words.SUM_CHANNEL), channels, share == 0)
        finish(operands, o * channels, 1, channels, channels)

    return fold


def convp_entries(bits: int, shape: TileShape) -> dict[str, tuple[Any, Any]]:
    """Return the entry of the gradient of pointwise weights and its tasks."""
    name = SHORT_NAMES[f"float{bits}"]
    add_chunk = chunk_sum(bits, shape)
    sum_address = task_address(f"tg_convp_{name}_sum")
    fold_address = task_address(f"tg_convp_{name}_fold")

    @kernel
    def sum_task(scratch: int, index: int, thread: int) -> None:
        """Sum a share of the chunks, for a block of rows: shares are fixed, whatever the timing."""
        plan, operands = load_word(scratch, 0), load_word(scratch, 1)
        shares, blocks = load_word(plan, words.SHARES), load_word(plan, words.BLOCKS)
        share, block = index // blocks, index % blocks
        sums_bytes = load_word(plan, words.SUMS_BYTES)
        sums = scratch + HEADER_BYTES + share * sums_bytes
        work = scratch + HEADER_BYTES + shares * sums_bytes + thread * load_word(plan, words.WORK_BYTES)
        if load_word(plan, words.IN_PLACE):
            sums = load_word(operands, 2)
        chunks = load_word(plan, words.BATCHES) * load_word(plan, words.PIECES)
        first = chunks * share // shares
        for chunk in range(first, chunks * (share + 1) // shares):
            add_chunk(plan, operands, chunk, block, sums, chunk - first, work)

    @kernel
    def convp(plan: int, operands: int, scratch: int, pool: int) -> None:
        store_word(scratch, 0, plan)
        store_word(scratch, 1, operands)
        par_for(pool, sum_address(), scratch, load_word(plan, words.SHARES) * load_word(plan, words.BLOCKS))
        par_for(pool, fold_address(), scratch, load_word(plan, words.OUTPUTS))

    return {
        f"tg_convp_{name}": (convp, ENTRY_SIGNATURE),
        f"tg_convp_{name}_sum": (sum_task, TASK_SIGNATURE),
        f"tg_convp_{name}_fold": (fold_task(bits), TASK_SIGNATURE),
    }


def convp_parts(bits: int, shape: TileShape) -> list[ir.Module]:
    """Return the finished modules that it calls."""
    return [product_tile_part(bits, shape), transpose_part(bits, shape)]
