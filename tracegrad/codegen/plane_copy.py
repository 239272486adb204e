"""The padded copy of a plane, in phases, for convolutions plane by plane (`plan_conv_planes` has the layout).

The zeros around the plane are written once, since every plane of a convolution has the same shape: copies keep them, or
write again those that a whole vector spilled over.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen import plan_conv_planes as words
from tracegrad.codegen import types
from tracegrad.codegen.addresses import I32, I64, POINTER, intrinsic, load_word, maximum, minimum
from tracegrad.codegen.direct_kernels import end_inside, first_inside
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import ITEM_SIZES
from tracegrad.codegen.row_moves import fetch_line, move_intrinsic, row_pick, row_wipe, unzip_intrinsic
from tracegrad.codegen.tile import CACHE_LINE, WORD, Lanes
from tracegrad.codegen.tile_moves import copy_intrinsic
from tracegrad.codegen.tile_shape import TileShape

FETCHED_BYTES = 512


@kernel
def fetch_planes(first: int, step: int, count: int, plane_bytes: int) -> None:
    """Ask for the first lines of planes that lie apart: the CPU asks by itself for what follows in a page only."""
    for k in range(count):
        for at in range(0, minimum(plane_bytes, FETCHED_BYTES), CACHE_LINE):
            fetch_line(first + k * step + at)


def weave_intrinsic(bits: int, shape: TileShape) -> Any:
    """Return the intrinsic weave(even, odd, target): one vector of elements from two places in turn."""
    lanes = Lanes(bits, shape.lanes(bits // 8))
    half = Lanes(bits, lanes.count // 2)
    order = [lane // 2 + lane % 2 * half.count for lane in range(lanes.count)]

    @intrinsic(types.void(WORD, WORD, WORD))
    def weave(builder: ir.IRBuilder, *args: Any) -> None:
        halves = [half.load(builder, builder.inttoptr(place, POINTER)) for place in args[:2]]
        woven = builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(I32, lanes.count), order))
        lanes.store(builder, woven, builder.inttoptr(args[2], POINTER))

    return weave


def short_move_intrinsic(bits: int, shape: TileShape) -> Any:
    """Return the intrinsic move_short(source, target, n): one vector, zero from element n on."""
    lanes = Lanes(bits, shape.lanes(bits // 8))
    whole = ir.VectorType(I32 if bits == 32 else I64, lanes.count)

    @intrinsic(types.void(WORD, WORD, WORD))
    def move_short(builder: ir.IRBuilder, *args: Any) -> None:
        mask = builder.sext(lanes.first(builder, args[2]), whole)
        value = builder.load(builder.inttoptr(args[0], POINTER), typ=whole, align=lanes.item_size)
        builder.store(builder.and_(value, mask), builder.inttoptr(args[1], POINTER), align=lanes.item_size)

    return move_short


def dense_rows(dtype: str, shape: TileShape) -> Any:
    """Return the kernel copy_rows(source, source_pitch, rows, count, target, target_pitch), pitches in bytes.

    Of a row that fills a vector the last one overlaps the one before; of a shorter row the rest of it is zero.
    """
    size = ITEM_SIZES[dtype]
    lanes = shape.lanes(size)
    copy = copy_intrinsic(8 * size, shape, masked=False, vectors=1)
    move, move_short = move_intrinsic(8 * size, shape), short_move_intrinsic(8 * size, shape)

    @kernel
    def copy_short_rows(
        source: int, source_pitch: int, rows: int, count: int, target: int, target_pitch: int
    ) -> None:
        """Copy rows of less than a vector; those whose vector would reach behind the last row are read with a mask."""
        whole, beyond = rows, (lanes - count) * size  # what a vector of the last row would read too much
        while whole > 0 and beyond > 0:
            whole, beyond = whole - 1, beyond - source_pitch
        for i in range(whole):
            move_short(source + i * source_pitch, target + i * target_pitch, count)
        for i in range(whole, rows):
            copy(source + i * source_pitch, target + i * target_pitch, count)

    @kernel
    def copy_rows(source: int, source_pitch: int, rows: int, count: int, target: int, target_pitch: int) -> None:
        if count < lanes:
            copy_short_rows(source, source_pitch, rows, count, target, target_pitch)
        else:
            last = (count - lanes) * size
            for i in range(rows):
                row, place = source + i * source_pitch, target + i * target_pitch
                at = 0
                while at < last:
                    move(row + at, place + at)
                    at += lanes * size
                move(row + last, place + last)

    return copy_rows


def strided_rows(dtype: str, shape: TileShape) -> tuple[Any, Any]:
    """Return the kernels that copy rows with a distance between their elements.

        split_rows(source, end, source_pitch, rows, evens, odds, even_target, odd_target, target_pitch)
        pick_rows(source, end, source_pitch, rows, stride, count, target, target_pitch)

    Pitches in bytes; up to `end` whole vectors are read.  What spills behind a row is made zero: up to two vectors.
    """
    size = ITEM_SIZES[dtype]
    lanes = shape.lanes(size)
    vector = shape.vector_bytes
    split = unzip_intrinsic(8 * size, shape)
    pick_row, wipe = row_pick(8 * size, shape), row_wipe(8 * size, shape)

    @kernel
    def pick_rows(
        source: int, end: int, source_pitch: int, rows: int, stride: int, count: int, target: int, target_pitch: int
    ) -> None:
        for i in range(rows):
            row, place = source + i * source_pitch, target + i * target_pitch
            pick_row(row, stride, place, count, end - vector - row)
            if stride == 2:
                wipe(place + count * size, 1)

    @kernel
    def split_rows(
        source: int, end: int, source_pitch: int, rows: int, evens: int, odds: int, even_target: int, odd_target: int,
        target_pitch: int,
    ) -> None:  # fmt: skip
        count = maximum(evens, odds)
        bytes_read = (count + lanes - 1) // lanes * 2 * vector
        whole = rows
        while whole > 0 and source + (whole - 1) * source_pitch + bytes_read > end:
            whole -= 1
        for i in range(whole):
            row, even, odd = source + i * source_pitch, even_target + i * target_pitch, odd_target + i * target_pitch
            for j in range(0, count, lanes):
                split(row + 2 * j * size, even + j * size, odd + j * size)
            wipe(even + evens * size, count - evens + lanes)
            wipe(odd + odds * size, count - odds + lanes)
        rest = source + whole * source_pitch
        done = whole * target_pitch
        pick_rows(rest, end, source_pitch, rows - whole, 2, evens, even_target + done, target_pitch)
        pick_rows(rest + size, end, source_pitch, rows - whole, 2, odds, odd_target + done, target_pitch)

    return split_rows, pick_rows


def phase_copies(dtype: str, shape: TileShape) -> tuple[Any, Any]:
    """Return the kernels split_planes(plan, source, end, plane_bytes, count, target, phase_bytes, rows) and
    phase_planes(plan, source, end, plane_bytes, count, target, rows, b): both phases of the columns, or one."""
    size = ITEM_SIZES[dtype]
    copy_rows = dense_rows(dtype, shape)
    split_rows, pick_rows = strided_rows(dtype, shape)

    @kernel
    def split_planes(
        plan: int, source: int, end: int, plane_bytes: int, count: int, target: int, phase_bytes: int, rows: int
    ) -> None:
        """Copy `rows` rows of each plane, both phases of columns at once."""
        width, pitch, left = load_word(plan, words.WIDTH), load_word(plan, words.PITCH), load_word(plan, words.LEFT)
        even = left & 1  # the phase that the elements 0, 2, ... of a row belong to
        q, r = (left - even) >> 1, (left + even) >> 1
        evens, odds = minimum(pitch - q, (width + 1) >> 1), minimum(pitch - r, width >> 1)
        even_target = target + even * phase_bytes + q * size
        odd_target = target + (1 - even) * phase_bytes + r * size
        row_bytes = load_word(plan, words.STEP_H) * width * size
        block_bytes = load_word(plan, words.BLOCK_ITEMS) * size
        for k in range(count):
            split_rows(source + k * plane_bytes, end, row_bytes, rows, evens, odds, even_target + k * block_bytes,
                       odd_target + k * block_bytes, pitch * size)  # fmt: skip

    @kernel
    def phase_planes(
        plan: int, source: int, end: int, plane_bytes: int, count: int, target: int, rows: int, b: int
    ) -> None:
        """Copy `rows` rows of each plane, phase b of the columns."""
        width, pitch, step = load_word(plan, words.WIDTH), load_word(plan, words.PITCH), load_word(plan, words.STEP_W)
        shift = b - load_word(plan, words.LEFT)
        first = first_inside(shift, step)
        columns = end_inside(shift, step, width, pitch) - first
        row_bytes = load_word(plan, words.STEP_H) * width * size
        block_bytes = load_word(plan, words.BLOCK_ITEMS) * size
        for k in range(count):
            row = source + k * plane_bytes + (first * step + shift) * size
            place = target + k * block_bytes + first * size
            if step == 1 and columns > 0:
                copy_rows(row, row_bytes, rows, columns, place, pitch * size)
            elif step > 1:
                pick_rows(row, end, row_bytes, rows, step, columns, place, pitch * size)

    return split_planes, phase_planes


def plane_copy(dtype: str, shape: TileShape) -> Any:
    """Return the kernel copy_planes(plan, planes, index, step, count, target).

    It copies planes index, index + step, ... of all `planes`, each to a block of BLOCK_ITEMS.
    """
    size = ITEM_SIZES[dtype]
    split_planes, phase_planes = phase_copies(dtype, shape)

    @kernel
    def copy_planes(plan: int, planes: int, index: int, step: int, count: int, target: int) -> None:
        height, row_items = load_word(plan, words.HEIGHT), load_word(plan, words.WIDTH)
        phases_h, phases_w = load_word(plan, words.PHASES_H), load_word(plan, words.PHASES_W)
        pitch, step_h = load_word(plan, words.PITCH), load_word(plan, words.STEP_H)
        phase_bytes = load_word(plan, words.PHASE_ITEMS) * size
        source = planes + index * height * row_items * size
        end = planes + load_word(plan, words.IMAGES) * height * row_items * size
        plane_bytes = step * height * row_items * size
        for a in range(phases_h):
            shift = a - load_word(plan, words.TOP)
            low = first_inside(shift, step_h)
            rows = end_inside(shift, step_h, height, load_word(plan, words.COPY_ROWS)) - low
            from_ = source + (low * step_h + shift) * row_items * size
            start = target + a * phases_w * phase_bytes + low * pitch * size
            if load_word(plan, words.STEP_W) == 2 and phases_w == 2:
                split_planes(plan, from_, end, plane_bytes, count, start, phase_bytes, rows)
            else:
                for b in range(phases_w):
                    phase_planes(plan, from_, end, plane_bytes, count, start + b * phase_bytes, rows, b)

    return copy_planes
