"""The padded copy of a convolution's input: some rows of its channels, with zeros around them (`conv_kernels`).

With strides it is split into phases: row r of phase (a, b) is row r*sh + a of the padded input, column q is column
q*sw + b.  Where every second column is wanted, two phases that differ in b alone are copied together.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen import types
from tracegrad.codegen.addresses import I32, POINTER, intrinsic, load_word, loader, maximum, minimum, storer
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.row_moves import fetch_line, row_copy, row_pick, row_wipe, unzip_intrinsic
from tracegrad.codegen.tile import CACHE_LINE, WORD, Lanes, offset, word
from tracegrad.codegen.tile_shape import TileShape

ROWS = 8  # that are copied together, a column of vectors at a time
FEW_ROWS = 4  # of a plane, below which they are copied one by one
SHORT_BYTES = 128  # of a row; longer ones are read in order, so that what follows is fetched from memory ahead


def pair_padding(bits: int, shape: TileShape) -> Any:
    """Return the kernel pad_pair(source, end, low, high, odd_low, odd_high, pitch, even, odd).

    It copies a row to two phases, each from its column low to high, with zeros around.  source: where the element of
    column 0 would be; vectors are read up to `end`.
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
        source: int, end: int, low: int, high: int, odd_low: int, odd_high: int, pitch: int, even: int, odd: int
    ) -> None:
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


def window_intrinsics(bits: int, shape: TileShape) -> tuple[Any, Any]:
    """Return the intrinsics that move vectors and make what is before element `low`, and from `high` on, zero.

        move(source, target, low, high)
        split(source, even, odd, low, high, odd_low, odd_high)      every second element of two vectors, and the others
    """
    lanes = Lanes(bits, shape.lanes(bits // 8))
    integer = ir.IntType(bits)
    integers = ir.VectorType(integer, lanes.count)
    numbers = ir.Constant(integers, list(range(lanes.count)))

    def store(builder: ir.IRBuilder, value: ir.Value, target: ir.Value, *limits: ir.Value) -> None:
        low, high = (lanes.splat(builder, builder.trunc(n, integer) if bits < 64 else n) for n in limits)
        inside = builder.and_(builder.icmp_signed(">=", numbers, low), builder.icmp_signed("<", numbers, high))
        kept = builder.and_(builder.bitcast(value, integers), builder.sext(inside, integers))
        lanes.store(builder, builder.bitcast(kept, lanes.type), builder.inttoptr(target, POINTER))

    @intrinsic(types.void(*[WORD] * 4))
    def move(builder: ir.IRBuilder, *args: Any) -> None:
        source, target, *limits = args
        store(builder, lanes.load(builder, builder.inttoptr(source, POINTER)), target, *limits)

    @intrinsic(types.void(*[WORD] * 7))
    def split(builder: ir.IRBuilder, *args: Any) -> None:
        source, even, odd, *limits = args
        start = builder.inttoptr(source, POINTER)
        halves = [lanes.load(builder, offset(builder, start, word(j * shape.vector_bytes))) for j in range(2)]
        for first, target in enumerate((even, odd)):
            chosen = ir.Constant(ir.VectorType(I32, lanes.count), list(range(first, 2 * lanes.count, 2)))
            store(builder, builder.shuffle_vector(*halves, chosen), target, *limits[2 * first : 2 * first + 2])

    return move, split


@kernel
def first_readable(source: int, step: int, first: int, stop: int, begin: int) -> int:
    """Return the first of some rows, `step` bytes apart, that begins behind `begin`."""
    while first < stop and source + first * step < begin:
        first += 1
    return first


@kernel
def end_readable(source: int, step: int, first: int, stop: int, end: int) -> int:
    """Return the row behind the last one that begins before `end`."""
    while stop > first and source + (stop - 1) * step > end:
        stop -= 1
    return stop


def rows_padding(bits: int, shape: TileShape) -> Any:
    """Return the kernel pad_rows(row_bytes, source, step, begin, end, stride, first, stop, low, high, pitch, target).

    It copies rows first..stop-1 of a plane, `step` bytes apart, to columns low to high.  source: where the element of
    row 0 and column 0 would be.  Where short rows and what is around them may be read, some are copied a column of
    vectors at a time: where they end is then known before.
    """
    size = bits // 8
    lanes = shape.lanes(size)
    vector = shape.vector_bytes
    pad_row = row_padding(bits, shape)
    move, _ = window_intrinsics(bits, shape)

    @kernel
    def pad_each(
        source: int, step: int, end: int, stride: int, first: int, stop: int, low: int, high: int, pitch: int,
        target: int,
    ) -> None:  # fmt: skip
        for r in range(first, stop):
            row = source + r * step + low * stride * size
            pad_row(row, end - vector - row, stride, low, high, pitch, target + r * pitch * size)

    @kernel
    def pad_rows(
        row_bytes: int, source: int, step: int, begin: int, end: int, stride: int, first: int, stop: int, low: int,
        high: int, pitch: int, target: int,
    ) -> None:  # fmt: skip
        done = first
        if row_bytes <= SHORT_BYTES and stride == 1 and stop - first >= FEW_ROWS:
            last = maximum(pitch - lanes, 0)
            start = first_readable(source, step, first, stop, begin)
            done = end_readable(source, step, start, stop, end - last * size - vector)
            pad_each(source, step, end, stride, first, start, low, high, pitch, target)
            for row in range(start, done, ROWS):
                for column in range(0, pitch, lanes):
                    q = minimum(column, last)
                    for r in range(row, minimum(row + ROWS, done)):
                        move(source + q * size + r * step, target + (r * pitch + q) * size, low - q, high - q)
        pad_each(source, step, end, stride, done, stop, low, high, pitch, target)

    return pad_rows


@kernel
def ask_for(start: int, count: int) -> None:
    """Prefetch some bytes."""
    for line in range(0, count, CACHE_LINE):
        fetch_line(start + line)


def pairs_padding(bits: int, shape: TileShape) -> Any:
    """Return the kernel pad_pairs(row_bytes, ahead, source, step, begin, end, first, stop, limits..., pitch, ...).

    It is `pad_rows` for two phases that differ in their columns: low, high, odd_low and odd_high are their limits.  The
    rows `ahead` bytes further, on other pages, are asked for.
    """
    size = bits // 8
    lanes = shape.lanes(size)
    vector = shape.vector_bytes
    pad_pair = pair_padding(bits, shape)
    _, split = window_intrinsics(bits, shape)

    @kernel
    def pad_each(
        row_bytes: int, ahead: int, source: int, step: int, end: int, first: int, stop: int, low: int, high: int,
        odd_low: int, odd_high: int, pitch: int, even: int, odd: int,
    ) -> None:  # fmt: skip
        for r in range(first, stop):
            ask_for(source + r * step + ahead, row_bytes)
            at = r * pitch * size
            pad_pair(source + r * step, end, low, high, odd_low, odd_high, pitch, even + at, odd + at)

    @kernel
    def pad_pairs(
        row_bytes: int, ahead: int, source: int, step: int, begin: int, end: int, first: int, stop: int, low: int,
        high: int, odd_low: int, odd_high: int, pitch: int, even: int, odd: int,
    ) -> None:  # fmt: skip
        done = first
        if row_bytes <= SHORT_BYTES and stop - first >= FEW_ROWS:
            last = maximum(pitch - lanes, 0)
            start = first_readable(source, step, first, stop, begin)
            done = end_readable(source, step, start, stop, end - 2 * (last * size + vector))
            pad_each(row_bytes, ahead, source, step, end, first, start, low, high, odd_low, odd_high, pitch, even, odd)
            for row in range(start, done, ROWS):
                for r in range(row, minimum(row + ROWS, done)):
                    ask_for(source + r * step + ahead, row_bytes)
                for column in range(0, pitch, lanes):
                    q = minimum(column, last)
                    for r in range(row, minimum(row + ROWS, done)):
                        at = (r * pitch + q) * size
                        split(source + 2 * q * size + r * step, even + at, odd + at, low - q, high - q, odd_low - q,
                              odd_high - q)  # fmt: skip
        pad_each(row_bytes, ahead, source, step, end, done, stop, low, high, odd_low, odd_high, pitch, even, odd)

    return pad_pairs


def padded_copy(bits: int, shape: TileShape) -> Any:
    """Return the kernel pad(x, end, channels, depth, height, width, slice_, slices, slice_count, top, left, ...).

    It copies rows first..first+rows-1 of each phase of every channel's slices slice_ + slices[t], with zeros where the
    input has none, to target[phase, channel, t, plane].  end: that of the array which x lies in; from x up to there
    whole vectors are read.
    """
    size = bits // 8
    lanes = shape.lanes(size)
    wipe = row_wipe(bits, shape)
    pad_rows = rows_padding(bits, shape)
    pad_pairs = pairs_padding(bits, shape)

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
        step = sh * width * size
        copies = channels * slice_count
        phase = 0
        while phase < phase_count:
            a = load_word(phases, 2 * phase)
            b = load_word(phases, 2 * phase + 1)
            low = first_column(pitch, left - b, sw)
            high = end_column(pitch, left - b, sw, width)
            row = first * sh + a - top  # of the input, that row 0 of the phase comes from
            inner = minimum(rows, maximum(0, (sh - 1 - row) // sh))
            stop = maximum(inner, minimum(rows, (height - 1 - row) // sh + 1))
            odd_bytes = 0
            if sw == 2 and b == 0 and phase + 1 < phase_count and load_word(phases, 2 * phase + 2) == a:
                odd_bytes = copies * plane * size
            for copy in range(copies):
                start = target + (phase * copies + copy) * plane * size
                d = slice_ + load_word(slices, copy % slice_count)
                source = x + (((copy // slice_count * depth + d) * height + row) * width + b - left) * size
                end_row = stop
                if d < 0 or d >= depth:
                    end_row = inner
                wipe(start, inner * pitch)
                if odd_bytes:
                    odd = start + odd_bytes
                    wipe(odd, inner * pitch)
                    pad_pairs(width * size, height * width * size, source, step, x, end, inner, end_row, low, high,
                              odd_low, odd_high, pitch, start, odd)  # fmt: skip
                    wipe_end(start, end_row * pitch, plane)
                    wipe_end(odd, end_row * pitch, plane)
                else:
                    pad_rows(width * size, source, step, x, end, sw, inner, end_row, low, high, pitch, start)
                    wipe(start + end_row * pitch * size, plane - end_row * pitch)
            phase += 2 if odd_bytes else 1

    return pad
