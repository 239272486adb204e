"""Rows moved in whole vectors: masks are kept for the ends of arrays, where a vector would touch what is not theirs.

AVX2 has no registers for masks, and there a masked store costs more than ten plain ones.  So what a vector reads or
writes beyond a row is left to be: a source has other rows behind this one, and in a destination the next row, or zeros,
cover what spilled.  `room` says how far that holds: a vector that begins at most `room` bytes from the start of the row
may be moved as a whole.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen import types
from tracegrad.codegen.addresses import I32, POINTER, intrinsic, loader, maximum, minimum, storer
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.tile import WORD, Lanes, offset, prefetch, word
from tracegrad.codegen.tile_moves import copy_intrinsic, even_copy_intrinsic
from tracegrad.codegen.tile_shape import TileShape


@intrinsic(types.void(WORD))
def fetch_line(builder: ir.IRBuilder, *args: Any) -> None:
    """Ask for the cache line at an address, which may be anywhere."""
    prefetch(builder, builder.inttoptr(args[0], POINTER), write=False)


def unzip_intrinsic(bits: int, shape: TileShape) -> Any:
    """Return the intrinsic unzip(source, even, odd): every second element of two vectors, and the others."""
    lanes = Lanes(bits, shape.lanes(bits // 8))

    @intrinsic(types.void(WORD, WORD, WORD))
    def unzip(builder: ir.IRBuilder, *args: Any) -> None:
        start = builder.inttoptr(args[0], POINTER)
        halves = [lanes.load(builder, offset(builder, start, word(j * shape.vector_bytes))) for j in range(2)]
        for first, target in enumerate(args[1:]):
            chosen = ir.Constant(ir.VectorType(I32, lanes.count), list(range(first, 2 * lanes.count, 2)))
            lanes.store(builder, builder.shuffle_vector(*halves, chosen), builder.inttoptr(target, POINTER))

    return unzip


def move_intrinsic(bits: int, shape: TileShape) -> Any:
    """Return the intrinsic move(source, target), which copies one vector."""
    lanes = Lanes(bits, shape.lanes(bits // 8))

    @intrinsic(types.void(WORD, WORD))
    def move(builder: ir.IRBuilder, *args: Any) -> None:
        value = lanes.load(builder, builder.inttoptr(args[0], POINTER))
        lanes.store(builder, value, builder.inttoptr(args[1], POINTER))

    return move


def zeros_intrinsic(bits: int, shape: TileShape) -> Any:
    """Return the intrinsic zeros(target), which clears one vector."""
    lanes = Lanes(bits, shape.lanes(bits // 8))

    @intrinsic(types.void(WORD))
    def zeros(builder: ir.IRBuilder, *args: Any) -> None:
        lanes.store(builder, lanes.zero, builder.inttoptr(args[0], POINTER))

    return zeros


def pick_intrinsic(bits: int, shape: TileShape) -> Any:
    """Return the intrinsic pick(source, target), which copies every second element of two vectors."""
    lanes = Lanes(bits, shape.lanes(bits // 8))

    @intrinsic(types.void(WORD, WORD))
    def pick(builder: ir.IRBuilder, *args: Any) -> None:
        start = builder.inttoptr(args[0], POINTER)
        halves = [lanes.load(builder, offset(builder, start, word(j * shape.vector_bytes))) for j in range(2)]
        chosen = ir.Constant(ir.VectorType(I32, lanes.count), list(range(0, 2 * lanes.count, 2)))
        lanes.store(builder, builder.shuffle_vector(*halves, chosen), builder.inttoptr(args[1], POINTER))

    return pick


def row_copy(bits: int, shape: TileShape) -> Any:
    """Return the kernel copy_row(source, target, count, room): beyond `room` no more than `count` elements are touched.

    room: of the source, if what follows the row in the destination may be written, or of the destination.
    """
    size = bits // 8
    vector = shape.vector_bytes
    move = move_intrinsic(bits, shape)
    copy = copy_intrinsic(bits, shape, masked=True, vectors=1)

    @kernel
    def copy_row(source: int, target: int, count: int, room: int) -> None:
        end = count * size
        whole = minimum(end, room + 1)
        at = 0
        while at < whole:
            move(source + at, target + at)
            at += vector
        while at < end:
            copy(source + at, target + at, (end - at) // size)
            at += vector

    return copy_row


def row_wipe(bits: int, shape: TileShape) -> Any:
    """Return the kernel wipe(target, count), which clears whole vectors: the last one spills."""
    size = bits // 8
    vector = shape.vector_bytes
    zeros = zeros_intrinsic(bits, shape)

    @kernel
    def wipe(target: int, count: int) -> None:
        for at in range(0, count * size, vector):
            zeros(target + at)

    return wipe


def row_pick(bits: int, shape: TileShape) -> Any:
    """Return the kernel pick_row(source, stride, target, count, room): target[q] = source[q * stride].

    room: of the source; what follows the row in the destination may be written.
    """
    size = bits // 8
    lanes = shape.lanes(size)
    vector = shape.vector_bytes
    pick = pick_intrinsic(bits, shape)
    copy_even = even_copy_intrinsic(bits, shape)
    load = loader(f"float{bits}")
    store = storer(f"float{bits}")

    @kernel
    def pick_row(source: int, stride: int, target: int, count: int, room: int) -> None:
        if stride == 2:
            whole = maximum(0, minimum(count, (room - vector) // (2 * size) + 1))
            q = 0
            while q < whole:
                pick(source + 2 * q * size, target + q * size)
                q += lanes
            while q < count:
                copy_even(source + 2 * q * size, target + q * size, count - q)
                q += lanes
        else:
            for q in range(count):
                store(target, q, load(source, q * stride))

    return pick_row
