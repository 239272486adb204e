"""How strips of Winograd's convolutions (`winograd_kernels`) become rows of the result."""

from __future__ import annotations

from functools import cache
from typing import Any

from tracegrad.codegen import winograd_layout as words
from tracegrad.codegen.addresses import load_word, maximum, minimum, store_word
from tracegrad.codegen.finish import finish
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.tile_shape import TileShape
from tracegrad.codegen.winograd_strips import (
    strip_extent,
    strip_image,
    tile_column,
    tile_columns,
    tile_row,
    tile_rows,
)
from tracegrad.codegen.winograd_transforms import probing, transform_intrinsic, turn_intrinsic

WORD = 8


@cache  # one kernel, though several call it
def strip_start(m: int) -> Any:
    """Return the kernel start(plan, strip, map): the first element of a strip in a map of the result."""

    @kernel
    def start(plan: int, strip: int, map_: int) -> int:
        out_w = load_word(plan, words.W_OUT_W)
        plane = strip_image(plan, strip) * load_word(plan, words.W_OUTPUTS) + map_
        row = plane * load_word(plan, words.W_OUT_H) + tile_row(plan, strip) * m
        return row * out_w + tile_column(plan, strip) * m

    return start


@cache  # one kernel, though several call it
def strip_placing(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel place(plan, strip, source, row_pitch, pitch, maps, y).

    It writes y[map, i, j] = source[i, j, map] for a strip of `maps` <= lanes maps; y: the strip's start.
    """
    size = bits // 8
    lanes = shape.lanes(size)
    turn = turn_intrinsic(bits)
    rows_of, columns_of = strip_extent(m)

    @kernel
    def write_row(source: int, pitch: int, count: int, maps: int, y: int, plane: int) -> None:
        """Write `count` positions of `maps` maps; where a vector does not fit the end it overlaps another."""
        for j in range(0, count, lanes):
            first = maximum(0, minimum(j, count - lanes))
            turn(source + first * pitch, pitch, minimum(lanes, count), maps, y + first * size, plane * size)

    @kernel
    def place(plan: int, strip: int, source: int, row_pitch: int, pitch: int, maps: int, y: int) -> None:
        out_w = load_word(plan, words.W_OUT_W)
        plane = load_word(plan, words.W_OUT_H) * out_w
        rows = rows_of(plan, strip)
        columns = columns_of(plan, strip)
        if columns == out_w and row_pitch == columns * pitch:
            write_row(source, pitch, rows * columns, maps, y, plane)
        else:
            for i in range(rows):
                write_row(source + i * row_pitch, pitch, columns, maps, y + i * out_w * size, plane)

    return place


@cache  # one kernel, though several call it
def strip_finish(m: int) -> Any:
    """Return the kernel finish_strip(plan, operands, strip, first, count), for `count` maps from `first` on."""
    start = strip_start(m)
    rows_of, columns_of = strip_extent(m)

    @kernel
    def finish_strip(plan: int, operands: int, strip: int, first: int, count: int) -> None:
        out_w = load_word(plan, words.W_OUT_W)
        plane = load_word(plan, words.W_OUT_H) * out_w
        rows = rows_of(plan, strip)
        columns = columns_of(plan, strip)
        origin = start(plan, strip, first)
        if rows * columns == plane:
            finish(operands, origin, count, plane, plane)
        else:
            for o in range(count):
                finish(operands, origin + o * plane, rows, out_w, columns)

    return finish_strip


@kernel
def mark_address(plan: int, scratch: int, strip: int, panel: int) -> int:
    """Return the word that says whether a strip is to be computed again for the maps from a panel on."""
    index = strip * load_word(plan, words.W_PANELS) + panel
    return scratch + load_word(plan, words.W_MARKS_OFFSET) + index * WORD


@kernel
def clear_marks(plan: int, scratch: int) -> None:
    """Mark nothing."""
    store_word(scratch, words.IS_FINITE, 1)
    marks = mark_address(plan, scratch, 0, 0)
    for i in range(load_word(plan, words.W_STRIPS) * load_word(plan, words.W_PANELS)):
        store_word(marks, i, 0)


def strip_output(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel write_strip(scratch, strip, products, panel, count, work).

    It transforms M of a strip back for `count` maps from a panel on, writes them to the result, and finishes them; or
    it marks them, where not all are finite.
    """
    size = bits // 8
    lanes = shape.lanes(size)
    width = shape.columns(size)
    n = m + 2
    vector = lanes * size
    transform = transform_intrinsic(bits, "output", m)
    is_finite = probing(bits, shape)
    start = strip_start(m)
    place = strip_placing(bits, shape, m)
    finish_strip = strip_finish(m)

    @kernel
    def write_strip(scratch: int, strip: int, products: int, panel: int, count: int, work: int) -> None:
        plan = load_word(scratch, 0)
        operands = load_word(scratch, 1)
        m_row = load_word(plan, words.W_M_ROW)
        m_point = load_word(plan, words.W_M_POINT)
        columns = tile_columns(plan, strip)
        buffer = work + load_word(plan, words.W_BUFFER_OFFSET)
        pitch = columns * m * vector
        plane = load_word(plan, words.W_OUT_H) * load_word(plan, words.W_OUT_W)
        y = load_word(operands, 2) + start(plan, strip, panel * width) * size
        for o in range(0, count, lanes):
            maps = minimum(lanes, count - o)
            for i in range(tile_rows(plan, strip)):
                transform(products + i * columns * m_row + o * size, n * m_point, m_point, m_row,
                          buffer + i * m * pitch, pitch, vector, m * vector, columns, work)  # fmt: skip
            if is_finite(work, maps) == 0:
                store_word(mark_address(plan, scratch, strip, panel), 0, 1)
                store_word(scratch, words.IS_FINITE, 0)
                return
            place(plan, strip, buffer, pitch, vector, maps, y + o * plane * size)
        finish_strip(plan, operands, strip, panel * width, count)

    return write_strip
