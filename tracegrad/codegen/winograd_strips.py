"""Strips: rectangles of tiles of one image (`winograd_kernels`), and their transforms with channels side by side."""

from __future__ import annotations

from functools import cache
from typing import Any

from tracegrad.codegen import winograd_layout as words
from tracegrad.codegen.addresses import load_word, maximum, minimum
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.row_loops import row_clearing
from tracegrad.codegen.tile_moves import transpose_intrinsic
from tracegrad.codegen.tile_shape import TileShape
from tracegrad.codegen.winograd_transforms import transform_intrinsic


@kernel
def chunk_start(plan: int, tiles: int, chunk: int) -> int:
    """Return the first tile of a chunk; `tiles`: the word of how many there are, along rows or columns."""
    chunks = load_word(plan, tiles + words.W_ROW_CHUNKS - words.W_ROW_TILES)
    return load_word(plan, tiles) * chunk // chunks


@kernel
def chunk_end(plan: int, tiles: int, chunk: int) -> int:
    """Return the tile after a chunk."""
    return chunk_start(plan, tiles, chunk + 1)


@kernel
def strip_image(plan: int, strip: int) -> int:
    """Return the image of a strip; groups are more images, and strips are counted group by group."""
    job = strip // (load_word(plan, words.W_ROW_CHUNKS) * load_word(plan, words.W_COLUMN_CHUNKS))
    groups = load_word(plan, words.W_GROUPS)
    images = load_word(plan, words.W_IMAGES) // groups
    return job % images * groups + job // images


@kernel
def row_chunk(plan: int, strip: int) -> int:
    return strip // load_word(plan, words.W_COLUMN_CHUNKS) % load_word(plan, words.W_ROW_CHUNKS)


@kernel
def column_chunk(plan: int, strip: int) -> int:
    return strip % load_word(plan, words.W_COLUMN_CHUNKS)


@kernel
def tile_row(plan: int, strip: int) -> int:
    """Return the first row of tiles of a strip."""
    return chunk_start(plan, words.W_ROW_TILES, row_chunk(plan, strip))


@kernel
def tile_rows(plan: int, strip: int) -> int:
    """Return the number of rows of tiles of a strip."""
    return chunk_end(plan, words.W_ROW_TILES, row_chunk(plan, strip)) - tile_row(plan, strip)


@kernel
def tile_column(plan: int, strip: int) -> int:
    """Return the first column of tiles of a strip."""
    return chunk_start(plan, words.W_COLUMN_TILES, column_chunk(plan, strip))


@kernel
def tile_columns(plan: int, strip: int) -> int:
    """Return the number of columns of tiles of a strip."""
    return chunk_end(plan, words.W_COLUMN_TILES, column_chunk(plan, strip)) - tile_column(plan, strip)


@kernel
def strip_count(plan: int, strip: int) -> int:
    """Return the number of tiles of a strip."""
    return tile_rows(plan, strip) * tile_columns(plan, strip)


@cache  # one kernel, though several call it
def strip_extent(m: int) -> tuple[Any, Any]:
    """Return the kernels rows(plan, strip) and columns(plan, strip): how many of the result a strip has."""

    @kernel
    def rows(plan: int, strip: int) -> int:
        return minimum(tile_rows(plan, strip) * m, load_word(plan, words.W_OUT_H) - tile_row(plan, strip) * m)

    @kernel
    def columns(plan: int, strip: int) -> int:
        return minimum(tile_columns(plan, strip) * m, load_word(plan, words.W_OUT_W) - tile_column(plan, strip) * m)

    return rows, columns


@cache  # one kernel, though several call it
def spreading(bits: int, shape: TileShape) -> Any:
    """Return the kernel spread(x, height, width, channels, top, left, rows, columns, target).

    target[r, q, c] = x[c, r - top, q - left] for r < rows, q < columns and `lanes` channels: zero outside of x, junk
    beyond the last channel.  Writes `lanes` positions too many.
    """
    size = bits // 8
    lanes = shape.lanes(size)
    transpose = transpose_intrinsic(bits)
    clear = row_clearing(f"float{bits}")

    @kernel
    def spread(
        x: int, height: int, width: int, channels: int, top: int, left: int, rows: int, columns: int, target: int
    ) -> None:
        low = minimum(columns, maximum(0, left))
        high = maximum(low, minimum(columns, width + left))
        count = minimum(lanes, channels)
        for r in range(rows):
            place = target + r * columns * lanes * size
            p = r - top
            if p < 0 or p >= height:
                clear(place, columns * lanes)
            else:
                clear(place, low * lanes)
                for q in range(low, high, lanes):
                    source = x + (p * width + q - left) * size
                    transpose(source, height * width * size, count, minimum(lanes, high - q),
                              place + q * lanes * size, lanes * size)  # fmt: skip
                clear(place + high * lanes * size, (columns - high) * lanes)

    return spread


def strip_transform(bits: int, shape: TileShape, kind: str, m: int) -> Any:
    """Return the kernel transform_strip(x, height, width, channels, top, left, rows, columns, v, point, row, buffer).

    It transforms rows x columns tiles, the first at (-top, -left) of x [channels, height, width], to v[point, tile,
    channel]; `kind`: "input" for tiles that overlap by two, "ct" for tiles of cotangents, that do not.
    """
    size = bits // 8
    lanes = shape.lanes(size)
    n = m + 2
    overlap = n - m if kind == "input" else 0
    vector = lanes * size
    spread = spreading(bits, shape)
    transform = transform_intrinsic(bits, kind, m)

    @kernel
    def transform_strip(
        x: int, height: int, width: int, channels: int, top: int, left: int, rows: int, columns: int,
        v: int, point: int, row: int, buffer: int,
    ) -> None:  # fmt: skip
        pitch = (columns * m + overlap) * vector
        for c in range(0, channels, lanes):
            spread(x + c * height * width * size, height, width, channels - c, top, left,
                   rows * m + overlap, columns * m + overlap, buffer)  # fmt: skip
            for i in range(rows):
                transform(buffer + i * m * pitch, pitch, vector, m * vector,
                          v + i * columns * row + c * size, n * point, point, row, columns, 0)  # fmt: skip

    return transform_strip


def work_address(offset_word: int, bytes_word: int) -> Any:
    """Return the kernel work_of(plan, scratch, thread): where a thread's own scratch is, by these words of a plan."""

    @kernel
    def work_of(plan: int, scratch: int, thread: int) -> int:
        return scratch + load_word(plan, offset_word) + thread * load_word(plan, bytes_word)

    return work_of
