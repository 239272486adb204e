"""The padded copy of a convolution's input: some rows of its channels, with zeros around them (`conv_kernels`).

With strides it is split into phases: row r of phase (a, b) is row r*sh + a of the padded input, column q is column
q*sw + b.  Where every second column is wanted, two phases that differ in b alone are copied together.
"""

from __future__ import annotations

from typing import Any

from tracegrad.codegen.addresses import load_word, loader, maximum, minimum, storer
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.row_moves import fetch_line, row_copy, row_pick, row_wipe, unzip_intrinsic
from tracegrad.codegen.tile import CACHE_LINE
from tracegrad.codegen.tile_shape import TileShape


def pair_padding(bits: int, shape: TileShape) -> Any:
    """Return the kernel pad_pair(row, end, left, low, high, odd_low, odd_high, pitch, even, odd).

    It copies a row to two phases, each from its column low to high, with zeros around.  Column 0 of the padded input is
    `left` elements before the row; vectors are read up to `end`.
    """
    size = bits // 8
    lanes = shape.lanes(size)
    reach = 2 * shape.vector_bytes
    unzip = unzip_intrinsic(bits, shape)
    wipe = row_wipe(bits, shape)
    load = loader(f"float{bits}")
    store = storer(f"float{bits}")

    @kernel
    def pick(source: int, target: int, first: int, end: int) -> None:
        for q in range(first, end):
            store(target, q, load(source, 2 * q))

    @kernel
    def pad_pair(
        row: int, end: int, left: int, low: int, high: int, odd_low: int, odd_high: int, pitch: int, even: int, odd: int
    ) -> None:
        source = row - left * size
        wipe(even, low)
        wipe(odd, odd_low)
        first = maximum(low, odd_low)
        pick(source, even, low, minimum(first, high))
        pick(source + size, odd, odd_low, minimum(first, odd_high))
        stop = minimum(high, odd_high)
        q = first
        while q < stop and source + 2 * q * size + reach <= end:
            unzip(source + 2 * q * size, even + q * size, odd + q * size)
            q += lanes
        q = minimum(q, maximum(first, stop))
        pick(source, even, q, high)
        pick(source + size, odd, q, odd_high)
        wipe(even + high * size, pitch - high)
        wipe(odd + odd_high * size, pitch - odd_high)

    return pad_pair


def row_padding(bits: int, shape: TileShape) -> Any:
    """Return the kernel pad_row(row, room, stride, low, high, pitch, target): a row to columns low to high.

    row: its first element that is read; up to `room` bytes from there vectors are.  What spills is covered by what
    follows, or cleared.
    """
    size = bits // 8
    wipe = row_wipe(bits, shape)
    copy_row = row_copy(bits, shape)
    pick_row = row_pick(bits, shape)

    @kernel
    def pad_row(row: int, room: int, stride: int, low: int, high: int, pitch: int, target: int) -> None:
        wipe(target, low)
        if stride == 1:
            copy_row(row, target + low * size, high - low, room)
        else:
            pick_row(row, stride, target + low * size, high - low, room)
        wipe(target + high * size, pitch - high)

    return pad_row


@kernel
def first_column(pitch: int, left: int, stride: int) -> int:
    """Return the first column of a phase that lies in the input, `left` columns of which are missing."""
    return minimum(pitch, maximum(0, (left + stride - 1) // stride))


@kernel
def end_column(pitch: int, left: int, stride: int, width: int) -> int:
    """Return the column of a phase behind the last one that lies in the input."""
    return maximum(first_column(pitch, left, stride), minimum(pitch, (width - 1 + left) // stride + 1))


def padded_copy(bits: int, shape: TileShape) -> Any:
    """Return the kernel pad(x, end, channels, depth, height, width, slice_, slices, slice_count, top, left, ...).

    It copies rows first..first+rows-1 of each phase of every channel's slices slice_ + slices[t], with zeros where the
    input has none, to target[phase, channel, t, plane].  end: that of the array which x lies in; up to there whole
    vectors are read.
    """
    size = bits // 8
    lanes = shape.lanes(size)
    vector = shape.vector_bytes
    wipe = row_wipe(bits, shape)
    pad_row = row_padding(bits, shape)
    pad_pair = pair_padding(bits, shape)

    @kernel
    def ask_for(start: int, count: int) -> None:
        """Prefetch the same row of the next plane: it begins on other pages."""
        for line in range(0, count, CACHE_LINE):
            fetch_line(start + line)

    @kernel
    def wipe_end(start: int, first: int, plane: int) -> None:
        """Clear a plane from element `first` on, and nothing behind it: the odd phase may be there already."""
        wipe(start + first * size, (plane - first) // lanes * lanes)
        wipe(start + (plane - lanes) * size, lanes)

    @kernel
    def pad(
        x: int, end: int, channels: int, depth: int, height: int, width: int, slice_: int, slices: int,
        slice_count: int, top: int, left: int, sh: int, sw: int, first: int, rows: int, pitch: int, plane: int,
        phases: int, phase_count: int, target: int,
    ) -> None:  # fmt: skip
        odd_low = first_column(pitch, left - 1, sw)
        odd_high = end_column(pitch, left - 1, sw, width)
        phase = 0
        while phase < phase_count:
            a = load_word(phases, 2 * phase)
            b = load_word(phases, 2 * phase + 1)
            low = first_column(pitch, left - b, sw)
            high = end_column(pitch, left - b, sw, width)
            odd_bytes = 0
            if sw == 2 and b == 0 and phase + 1 < phase_count and load_word(phases, 2 * phase + 2) == a:
                odd_bytes = channels * slice_count * plane * size
            for copy in range(channels * slice_count):
                start = target + (phase * channels * slice_count + copy) * plane * size
                d = slice_ + load_word(slices, copy % slice_count)
                is_slice = d >= 0 and d < depth
                top_row = (copy // slice_count * depth + d) * height
                for r in range(rows):
                    row = (first + r) * sh + a - top
                    place = start + r * pitch * size
                    if is_slice and row >= 0 and row < height:
                        source = x + (top_row + row) * width * size
                        if odd_bytes:
                            ask_for(source + height * width * size, width * size)
                            pad_pair(source, end, left, low, high, odd_low, odd_high, pitch, place, place + odd_bytes)
                        else:
                            source += (low * sw + b - left) * size
                            pad_row(source, end - vector - source, sw, low, high, pitch, place)
                    else:
                        wipe(place, pitch)
                        if odd_bytes:
                            wipe(place + odd_bytes, pitch)
                if odd_bytes:
                    wipe_end(start, rows * pitch, plane)
                    wipe_end(start + odd_bytes, rows * pitch, plane)
                else:
                    wipe(start + rows * pitch * size, plane - rows * pitch)
            phase += 2 if odd_bytes else 1

    return pad
