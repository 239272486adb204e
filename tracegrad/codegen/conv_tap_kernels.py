"""Convolutions tap by tap: forward, and the gradient of the data (`plan_conv_taps`).

    for blocks of terms, for taps:
        for strips of the tap's positions, as wide as the tile:
            pack the strip's elements of the source
            for panels of rows:  the tile, added to the result where its positions are

The weights of all taps are packed first, so that a panel of a tap lies in order.  Positions of a strip follow each
other in segments, each in one row of the source and of the result; a strip of one segment is added to the result by
the tile, others by way of a tile in scratch.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen import plan_conv_taps as words
from tracegrad.codegen import types
from tracegrad.codegen.addresses import (
    KERNEL_TYPES,
    POINTER,
    intrinsic,
    load_word,
    loader,
    minimum,
    par_for,
    store_word,
    storer,
    task_address,
)
from tracegrad.codegen.finish import finish
from tracegrad.codegen.gemm_kernels import ENTRY_SIGNATURE, TASK_SIGNATURE, panel_start
from tracegrad.codegen.gemm_tile import product_tile_intrinsic, product_tile_part
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import HEADER_BYTES, SHORT_NAMES
from tracegrad.codegen.plan_conv_taps import TAP_WORDS, WORD
from tracegrad.codegen.row_loops import row_clearing, row_probe
from tracegrad.codegen.row_moves import row_copy, row_pick
from tracegrad.codegen.tile import WORD as ADDRESS
from tracegrad.codegen.tile import Lanes, offset
from tracegrad.codegen.tile_moves import transpose_intrinsic, transpose_part
from tracegrad.codegen.tile_shape import TileShape

IS_FINITE = 2  # a word of the scratch's header: whether no weight is NaN or inf
TERMS_AT_A_TIME = 32  # of each panel that are packed: rows of weights are read side by side, few pages are open


def weight_packing(bits: int, shape: TileShape) -> Any:
    """Return the task that packs some panels of the weights: [tap, term, row], and looks for NaN and inf in a share."""
    size = bits // 8
    lanes = shape.lanes(size)
    panel_rows = shape.rows
    transpose = transpose_intrinsic(bits)
    probe = row_probe(f"float{bits}")
    zero = KERNEL_TYPES[f"float{bits}"](0)

    @kernel
    def pack_terms(plan: int, weights: int, target: int, row: int, count: int, first: int, end: int) -> None:
        """Pack some terms of a panel, whose first row is `row`; what a term spills, the next one covers."""
        taps, tap_bytes = load_word(plan, words.KERNEL), load_word(plan, words.TAP_BYTES)
        w_row, w_term = load_word(plan, words.W_ROW) * size, load_word(plan, words.W_TERM) * size
        for k in range(first, end):
            source = weights + row * w_row + k * w_term
            for i in range(0, count, lanes):
                place = target + (k * panel_rows + i) * size
                transpose(source + i * w_row, w_row, minimum(lanes, count - i), taps, place, tap_bytes)

    @kernel
    def pack_task(scratch: int, task: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        weights = load_word(load_word(scratch, 1), 1)
        rows, depth = load_word(plan, words.ROWS), load_word(plan, words.DEPTH)
        tasks = load_word(plan, words.PACK_TASKS)
        panels = (rows + panel_rows - 1) // panel_rows
        for first in range(0, depth, TERMS_AT_A_TIME):
            end = minimum(depth, first + TERMS_AT_A_TIME)
            for panel in range(panels * task // tasks, panels * (task + 1) // tasks):
                row = panel_start(rows, panel, panels)
                target = scratch + HEADER_BYTES + panel * load_word(plan, words.PANEL_BYTES)
                pack_terms(plan, weights, target, row, panel_start(rows, panel + 1, panels) - row, first, end)
        items = rows * depth * load_word(plan, words.KERNEL)
        start = items * task // tasks
        count = items * (task + 1) // tasks - start
        if load_word(plan, words.IS_PADDED) and probe(weights + start * size, count) != zero:
            store_word(scratch, IS_FINITE, 0)

    return pack_task


@kernel
def cut_strip(plan: int, tap: int, first_image: int, start: int, count: int, size: int, table: int) -> int:
    """Write the segments of positions start..start+count-1 of a tap in some images; return how many they are."""
    width, height, depth = load_word(tap, words.COUNT_W), load_word(tap, words.COUNT_H), load_word(tap, words.COUNT_D)
    source_image = load_word(plan, words.DEPTH) * load_word(plan, words.SOURCE_PLANE)
    result_image = load_word(plan, words.ROWS) * load_word(plan, words.RESULT_PLANE)
    row = start // width
    column = start % width
    done = 0
    segments = 0
    while done < count:
        n = minimum(width - column, count - done)
        h, d, image = row % height, row // height % depth, first_image + row // (height * depth)
        source = load_word(tap, words.SOURCE) + image * source_image + d * load_word(plan, words.SOURCE_D)
        source += h * load_word(plan, words.SOURCE_H) + column * load_word(plan, words.SOURCE_W)
        result = load_word(tap, words.RESULT) + image * result_image + d * load_word(plan, words.RESULT_D)
        result += h * load_word(plan, words.RESULT_H) + column * load_word(plan, words.RESULT_W)
        segment = table + segments * words.SEGMENT_WORDS * WORD
        store_word(segment, words.S_SOURCE, source * size)
        store_word(segment, words.S_RESULT, result * size)
        store_word(segment, words.S_COLUMN, done * size)
        store_word(segment, words.S_COUNT, n)
        segments += 1
        done += n
        column = 0
        row += 1
    return segments


def strip_packing(bits: int, shape: TileShape) -> Any:
    """Return the kernel pack_strip(source, end, plane_bytes, step, depth, table, segments, strip).

    strip[k, column] is an element of plane k of the source; a segment spills over the next ones, which come later.
    """
    size = bits // 8
    row_bytes = shape.columns(size) * size
    vector = shape.vector_bytes
    copy_row = row_copy(bits, shape)
    pick_row = row_pick(bits, shape)

    @kernel
    def pack_strip(
        source: int, end: int, plane_bytes: int, step: int, depth: int, table: int, segments: int, strip: int
    ) -> None:
        for k in range(depth):
            for s in range(segments):
                segment = table + s * words.SEGMENT_WORDS * WORD
                row = source + k * plane_bytes + load_word(segment, words.S_SOURCE)
                place = strip + k * row_bytes + load_word(segment, words.S_COLUMN)
                if step == 1:
                    copy_row(row, place, load_word(segment, words.S_COUNT), end - vector - row)
                else:
                    pick_row(row, step, place, load_word(segment, words.S_COUNT), end - row - vector)

    return pack_strip


def pair_addition(bits: int, count: int) -> Any:
    """Return the intrinsic add_pair(source, target, second): target += source for two vectors, which may overlap."""
    lanes = Lanes(bits, count)

    @intrinsic(types.void(ADDRESS, ADDRESS, ADDRESS))
    def add_pair(builder: ir.IRBuilder, *args: Any) -> None:
        source, target = (builder.inttoptr(x, POINTER) for x in args[:2])
        places = [target, offset(builder, target, args[2])]
        sums = []
        for value, place in zip([source, offset(builder, source, args[2])], places, strict=True):
            sums.append(builder.fadd(lanes.load(builder, place), lanes.load(builder, value)))
        for total, place in zip(sums, places, strict=True):
            lanes.store(builder, total, place)

    return add_pair


def short_addition(bits: int, count: int) -> Any:
    """Return the kernel add(source, target, n): target += source for n <= 2 * count elements, n > 0."""
    size = bits // 8
    if count == 1:
        load, store = loader(f"float{bits}"), storer(f"float{bits}")

        @kernel
        def add_one(source: int, target: int, n: int) -> None:
            for i in range(n):
                store(target, i, load(target, i) + load(source, i))

        return add_one
    add_pair, add_fewer = pair_addition(bits, count), short_addition(bits, count // 2)

    @kernel
    def add(source: int, target: int, n: int) -> None:
        if n >= count:
            add_pair(source, target, (n - count) * size)
        else:
            add_fewer(source, target, n)

    return add


def tile_addition(bits: int, shape: TileShape) -> Any:
    """Return the kernel add_tile(tile, rows, table, segments, result, plane_bytes, step): each row to its plane."""
    size = bits // 8
    row_bytes = shape.columns(size) * size
    add_short = short_addition(bits, shape.lanes(size))
    load, store = loader(f"float{bits}"), storer(f"float{bits}")

    @kernel
    def add_tile(
        tile: int, rows: int, table: int, segments: int, result: int, plane_bytes: int, step: int
    ) -> None:
        for s in range(segments):
            segment = table + s * words.SEGMENT_WORDS * WORD
            count = load_word(segment, words.S_COUNT)
            source = tile + load_word(segment, words.S_COLUMN)
            target = result + load_word(segment, words.S_RESULT)
            for _ in range(rows):
                if step == 1:
                    add_short(source, target, count)
                else:
                    for j in range(count):
                        store(target, j * step, load(target, j * step) + load(source, j))
                source += row_bytes
                target += plane_bytes

    return add_tile


def tap_product(bits: int, shape: TileShape) -> Any:
    """Return the kernel add_tap(plan, operands, scratch, work, tap, panel, end_panel, image, end_image, block)."""
    size = bits // 8
    lanes, columns, panel_rows = shape.lanes(size), shape.columns(size), shape.rows
    pack_strip, add_tile = strip_packing(bits, shape), tile_addition(bits, shape)
    tile = product_tile_intrinsic(bits)

    @kernel
    def add_strip(
        plan: int, packed: int, depth: int, strip: int, buffer: int, table: int, segments: int, result: int,
        first_panel: int, end_panel: int,
    ) -> None:  # fmt: skip
        """Add the products of a strip and some panels to the result."""
        rows = load_word(plan, words.ROWS)
        panels = (rows + panel_rows - 1) // panel_rows
        plane_bytes = load_word(plan, words.RESULT_PLANE) * size
        step = load_word(plan, words.RESULT_W)
        count = load_word(table, words.S_COUNT)
        is_in_place = segments == 1 and count >= lanes and step == 1
        a = packed
        for panel in range(first_panel, end_panel):
            row = panel_start(rows, panel, panels)
            height = panel_start(rows, panel + 1, panels) - row
            target = result + row * plane_bytes
            if is_in_place:
                place = target + load_word(table, words.S_RESULT)
                tile(height, depth, a, size, panel_rows * size, strip, columns * size, place, plane_bytes, count, 1)
            else:
                tile(height, depth, a, size, panel_rows * size, strip, columns * size, buffer, columns * size, columns,
                     0)  # fmt: skip
                add_tile(buffer, height, table, segments, target, plane_bytes, step)
            a += load_word(plan, words.PANEL_BYTES)

    @kernel
    def add_tap(
        plan: int, operands: int, scratch: int, work: int, tap: int, first_panel: int, end_panel: int, image: int,
        end_image: int, block: int,
    ) -> None:  # fmt: skip
        """Add what a block of a tap's terms gives to some rows of some images."""
        depth, blocks = load_word(plan, words.DEPTH), load_word(plan, words.TERM_BLOCKS)
        first = depth * block // blocks
        terms = depth * (block + 1) // blocks - first
        plane_bytes = load_word(plan, words.SOURCE_PLANE) * size
        source = load_word(operands, 0)
        end = source + load_word(plan, words.IMAGES) * depth * plane_bytes
        buffer = work + load_word(plan, words.TILE_OFFSET)
        table = work + load_word(plan, words.SEGMENT_OFFSET)
        packed = scratch + HEADER_BYTES + first_panel * load_word(plan, words.PANEL_BYTES)
        packed += load_word(tap, words.NUMBER) * load_word(plan, words.TAP_BYTES) + first * panel_rows * size
        positions = load_word(tap, words.COUNT_D) * load_word(tap, words.COUNT_H) * load_word(tap, words.COUNT_W)
        positions *= end_image - image
        for p in range(0, positions, columns):
            segments = cut_strip(plan, tap, image, p, minimum(columns, positions - p), size, table)
            pack_strip(source + first * plane_bytes, end, plane_bytes, load_word(plan, words.SOURCE_W), terms, table,
                       segments, work)  # fmt: skip
            add_strip(plan, packed, terms, work, buffer, table, segments, load_word(operands, 2), first_panel,
                      end_panel)  # fmt: skip

    return add_tap


def padding_products(bits: int) -> Any:
    """Return the kernel spoil(plan, weights, result, row): NaN where a weight that is not finite meets the padding.

    result: the plane of the row; taps that meet no element of x at all meet the padding everywhere.
    """
    load, store = loader(f"float{bits}"), storer(f"float{bits}")
    zero = KERNEL_TYPES[f"float{bits}"](0)

    @kernel
    def tap_sum(plan: int, weights: int, row: int, number: int) -> Any:
        """Return zero, or NaN if a weight of the row's tap is NaN or inf."""
        total = zero
        start = row * load_word(plan, words.W_ROW) + number
        for k in range(load_word(plan, words.DEPTH)):
            total += load(weights, start + k * load_word(plan, words.W_TERM)) * zero
        return total

    @kernel
    def spoil_outside(plan: int, tap: int, result: int, value) -> None:
        """Add a value to all positions outside of the box of a tap; 0 instead of a tap: to all positions."""
        height, width = load_word(plan, words.OUT_H), load_word(plan, words.OUT_W)
        for p in range(load_word(plan, words.RESULT_PLANE)):
            d, h, w = p // (height * width), p // width % height, p % width
            is_inside = 0
            if tap != 0:
                in_d = d >= load_word(tap, words.FIRST_D) and d < load_word(tap, words.END_D)
                in_h = h >= load_word(tap, words.FIRST_H) and h < load_word(tap, words.END_H)
                if in_d and in_h and w >= load_word(tap, words.FIRST_W) and w < load_word(tap, words.END_W):
                    is_inside = 1
            if is_inside == 0:
                store(result, p, load(result, p) + value)

    @kernel
    def spoil(plan: int, weights: int, result: int, row: int) -> None:
        index = 0
        for number in range(load_word(plan, words.KERNEL)):
            tap = 0
            if index < load_word(plan, words.TAPS):
                found = plan + (words.TAP_TABLE + index * TAP_WORDS) * WORD
                if load_word(found, words.NUMBER) == number:
                    tap = found
                    index += 1
            value = tap_sum(plan, weights, row, number)
            if value != zero:
                spoil_outside(plan, tap, result, value)

    return spoil


def block_task(bits: int, shape: TileShape) -> Any:
    """Return the task that computes a block of rows of a block of images."""
    size = bits // 8
    panel_rows = shape.rows
    add_tap = tap_product(bits, shape)
    clear = row_clearing(f"float{bits}")
    spoil = padding_products(bits)

    @kernel
    def tap_task(scratch: int, task: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        operands = load_word(scratch, 1)
        rows, images = load_word(plan, words.ROWS), load_word(plan, words.IMAGES)
        row_blocks, image_blocks = load_word(plan, words.ROW_BLOCKS), load_word(plan, words.IMAGE_BLOCKS)
        panels = (rows + panel_rows - 1) // panel_rows
        first_panel = panels * (task % row_blocks) // row_blocks
        end_panel = panels * (task % row_blocks + 1) // row_blocks
        first_image = images * (task // row_blocks) // image_blocks
        end_image = images * (task // row_blocks + 1) // image_blocks
        first_row = panel_start(rows, first_panel, panels)
        count = panel_start(rows, end_panel, panels) - first_row
        plane = load_word(plan, words.RESULT_PLANE)
        result = load_word(operands, 2)
        for image in range(first_image, end_image):
            clear(result + (image * rows + first_row) * plane * size, count * plane)
        work = scratch + load_word(plan, words.WORK_OFFSET) + thread * load_word(plan, words.WORK_BYTES)
        for block in range(load_word(plan, words.TERM_BLOCKS)):
            for index in range(load_word(plan, words.TAPS)):
                tap = plan + (words.TAP_TABLE + index * TAP_WORDS) * WORD
                add_tap(plan, operands, scratch, work, tap, first_panel, end_panel, first_image, end_image, block)
        for image in range(first_image, end_image):
            first = (image * rows + first_row) * plane
            if load_word(scratch, IS_FINITE) == 0:
                for row in range(count):
                    spoil(plan, load_word(operands, 1), result + (first + row * plane) * size, first_row + row)
            finish(operands, first, count, plane, plane)

    return tap_task


def convt_entries(bits: int, shape: TileShape) -> dict[str, tuple[Any, Any]]:
    """Return the entry of convolutions tap by tap, and its tasks."""
    name = SHORT_NAMES[f"float{bits}"]
    pack_address = task_address(f"tg_convt_{name}_pack")
    block_address = task_address(f"tg_convt_{name}_block")

    @kernel
    def convt(plan: int, operands: int, scratch: int, pool: int) -> None:
        store_word(scratch, 0, plan)
        store_word(scratch, 1, operands)
        store_word(scratch, IS_FINITE, 1)
        par_for(pool, pack_address(), scratch, load_word(plan, words.PACK_TASKS))
        blocks = load_word(plan, words.ROW_BLOCKS) * load_word(plan, words.IMAGE_BLOCKS)
        par_for(pool, block_address(), scratch, blocks)

    return {
        f"tg_convt_{name}": (convt, ENTRY_SIGNATURE),
        f"tg_convt_{name}_pack": (weight_packing(bits, shape), TASK_SIGNATURE),
        f"tg_convt_{name}_block": (block_task(bits, shape), TASK_SIGNATURE),
    }


def convt_parts(bits: int, shape: TileShape) -> list[ir.Module]:
    """Return the finished modules that the convolution calls."""
    return [product_tile_part(bits, shape), transpose_part(bits, shape)]
