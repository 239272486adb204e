"""Moving data to and from the tile's layouts: transposes in registers and masked copies, as intrinsics of kernels.

Sources are read with masks: never an element outside.  Destinations are scratch: full vectors are stored, and what
spills past the end of a row is overwritten by the next one, so a buffer needs slack for the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir

from tracegrad.codegen import types
from tracegrad.codegen.addresses import I32, I64, POINTER, intrinsic
from tracegrad.codegen.tile import WORD, Lanes, offset, part_function, part_intrinsic, part_module, prefetch, word
from tracegrad.codegen.tile_shape import TileShape

ROWS_AHEAD = 8
"""Rows between a row's prefetch and its copy: short pieces of rows that lie apart are no stream to the hardware."""


def transpose_name(bits: int, indirect: bool) -> str:
    """Return the symbol of the transpose."""
    return f"tg_transpose_f{bits}_{'indirect' if indirect else 'direct'}"


def transpose_part(bits: int, shape: TileShape, indirect: bool = False) -> ir.Module:
    """Return the module that defines the transpose, and, beside the direct one, the copy of rows."""
    name = transpose_name(bits, indirect)
    module = part_module(name)
    lanes = Lanes(bits, shape.lanes(bits // 8))
    _emit_transpose(part_function(module, name, 6), lanes, indirect)
    if not indirect:
        _emit_copy_rows(part_function(module, copy_rows_name(bits), 6), lanes)
    return module


def transpose_intrinsic(bits: int, indirect: bool = False) -> Any:
    """Return the intrinsic transpose(source, pitch, rows, n, destination, destination_pitch), all in bytes.

        destination[j, i] = source[i, j]        i < rows <= lanes, j < n

    Row i of the source is at i * pitch, or, if indirect, at the byte offset pitch[i] of a table.  Row n of the
    destination and `lanes` elements of each row are clobbered.
    """

    return part_intrinsic(transpose_name(bits, indirect), 6)


def _emit_transpose(function: ir.Function, lanes: Lanes, indirect: bool) -> None:
    """Transpose squares: load `lanes` rows (the last one again where there are fewer), swap blocks, store columns."""
    source, pitch, rows, n, destination, destination_pitch = function.args
    entry, head, whole, part, done = (
        function.append_basic_block(name) for name in ("entry", "head", "whole", "part", "done")
    )
    builder = ir.IRBuilder(entry)
    starts = _row_starts(builder, lanes.count, (source, pitch, rows), indirect)
    target = builder.inttoptr(destination, POINTER)
    square_pitch = builder.mul(destination_pitch, word(lanes.count))
    builder.branch(head)

    builder.position_at_end(head)
    left, place, *from_ = (phi_from(builder, entry, value) for value in (n, target, *starts))
    builder.cbranch(builder.icmp_signed(">=", left, word(lanes.count)), whole, part)

    builder.position_at_end(whole)
    for j, vector in enumerate(swap_blocks(builder, lanes, [lanes.load(builder, start) for start in from_])):
        lanes.store(builder, vector, offset(builder, place, builder.mul(word(j), destination_pitch)))
    fewer = builder.sub(left, word(lanes.count))
    width = word(lanes.count * lanes.item_size)
    following = [fewer, offset(builder, place, square_pitch), *(offset(builder, start, width) for start in from_)]
    for phi, value in zip([left, place, *from_], following, strict=True):
        phi.add_incoming(value, whole)
    builder.cbranch(builder.icmp_signed(">", fewer, word(0)), head, done)

    builder.position_at_end(part)
    mask = lanes.first(builder, left)
    for j, vector in enumerate(
        swap_blocks(builder, lanes, [lanes.masked_load(builder, start, mask) for start in from_])
    ):
        row = builder.select(builder.icmp_signed("<", word(j), left), word(j), left)
        lanes.store(builder, vector, offset(builder, place, builder.mul(row, destination_pitch)))
    builder.branch(done)
    ir.IRBuilder(done).ret_void()


def _row_starts(
    builder: ir.IRBuilder, count: int, place: tuple[ir.Value, ir.Value, ir.Value], indirect: bool
) -> list[ir.Value]:
    """Return pointers to `count` rows of (source, pitch, rows); rows that are missing are the last one again."""
    source, pitch, rows = place
    first = builder.inttoptr(source, POINTER)
    table = builder.inttoptr(pitch, POINTER)
    last = builder.sub(rows, word(1))
    starts = []
    for i in range(count):
        row = builder.select(builder.icmp_signed("<", word(i), last), word(i), last)
        if indirect:
            distance = builder.load(builder.gep(table, [row], source_etype=I64), typ=I64)
        else:
            distance = builder.mul(row, pitch)
        starts.append(offset(builder, first, distance))
    return starts


def phi_from(builder: ir.IRBuilder, block: ir.Block, value: ir.Value) -> ir.PhiInstr:
    """Return the phi whose value is this one when control comes from the block."""
    phi = builder.phi(value.type)
    phi.add_incoming(value, block)
    return phi


def swap_blocks(builder: ir.IRBuilder, lanes: Lanes, vectors: list[ir.Value]) -> list[ir.Value]:
    """Transpose a square of vectors: exchange the off-diagonal d x d blocks, for d = lanes / 2, ..., 1."""
    count = lanes.count
    vectors = list(vectors)
    d = count // 2
    while d:
        upper = [count + lane - d if lane & d else lane for lane in range(count)]
        lower = [count + lane if lane & d else lane + d for lane in range(count)]
        for i in range(count):
            if i & d:
                continue
            pair = vectors[i], vectors[i + d]
            vectors[i] = builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(I32, count), upper))
            vectors[i + d] = builder.shuffle_vector(*pair, ir.Constant(ir.VectorType(I32, count), lower))
        d //= 2
    return vectors


def copy_rows_name(bits: int) -> str:
    """Return the symbol of the copy of rows."""
    return f"tg_copy_rows_f{bits}"


def copy_rows_intrinsic(bits: int) -> Any:
    """Return the intrinsic copy_rows(source, pitch, rows, n, destination, destination_pitch), all in bytes but n.

        destination[i, j] = source[i, j]        i < rows, j < n <= two vectors

    One vector of each row is written if n fits it, else two; what is beyond n is zero.  Rows below are asked for.
    """

    return part_intrinsic(copy_rows_name(bits), 6)


def _emit_copy_rows(function: ir.Function, lanes: Lanes) -> None:
    """Emit three loops: over two whole vectors, over one under a mask, over one whole and one under a mask."""
    source, pitch, rows, n, destination, destination_pitch = function.args
    entry, narrow, done = (function.append_basic_block(name) for name in ("entry", "narrow", "done"))
    builder = ir.IRBuilder(entry)
    masks = [lanes.first(builder, n), lanes.first(builder, builder.sub(n, word(lanes.count)))]
    starts = [builder.inttoptr(source, POINTER), builder.inttoptr(destination, POINTER)]
    ahead = builder.mul(pitch, word(ROWS_AHEAD))

    def loop(name: str, used: Sequence[ir.Value | None]) -> ir.Block:
        block = function.append_basic_block(name)
        inner = ir.IRBuilder(block)
        left, from_, to = (phi_from(inner, inner_from, value) for value in (rows, *starts))
        prefetch(inner, offset(inner, from_, ahead), write=False)
        for j, mask in enumerate(used):
            shift = word(j * lanes.count * lanes.item_size)
            place = offset(inner, from_, shift)
            value = lanes.load(inner, place) if mask is None else lanes.masked_load(inner, place, mask)
            lanes.store(inner, value, offset(inner, to, shift))
        fewer = inner.sub(left, word(1))
        following = [fewer, offset(inner, from_, pitch), offset(inner, to, destination_pitch)]
        for phi, value in zip((left, from_, to), following, strict=True):
            phi.add_incoming(value, block)
        inner.cbranch(inner.icmp_signed(">", fewer, word(0)), block, done)
        return block

    inner_from = entry
    whole = loop("whole", (None, None))
    builder.cbranch(builder.icmp_signed(">=", n, word(2 * lanes.count)), whole, narrow)
    inner_from = narrow
    one, two = loop("one", masks[:1]), loop("two", (None, masks[1]))
    builder = ir.IRBuilder(narrow)
    builder.cbranch(builder.icmp_signed("<=", n, word(lanes.count)), one, two)
    ir.IRBuilder(done).ret_void()


def copy_intrinsic(bits: int, shape: TileShape, masked: bool, vectors: int) -> Any:
    """Return the intrinsic copy(source, destination, n) of a row of some vectors (n may be <= 0, or beyond the width).

    Only n elements are read.  If masked only n are written, otherwise the others are set to zero.
    """
    lanes = Lanes(bits, shape.lanes(bits // 8))

    @intrinsic(types.void(WORD, WORD, WORD))
    def copy(builder: ir.IRBuilder, *args: Any) -> None:
        start = builder.inttoptr(args[0], POINTER)
        target = builder.inttoptr(args[1], POINTER)
        for j in range(vectors):
            mask = lanes.first(builder, builder.sub(args[2], word(j * lanes.count)))
            place = word(j * shape.vector_bytes)
            value = lanes.masked_load(builder, offset(builder, start, place), mask)
            if masked:
                lanes.masked_store(builder, value, offset(builder, target, place), mask)
            else:
                lanes.store(builder, value, offset(builder, target, place))

    return copy


def even_copy_intrinsic(bits: int, shape: TileShape) -> Any:
    """Return the intrinsic copy_even(source, destination, n): destination[q] = source[2 * q] for q < n.

    One vector is written, with zeros from n on; n may be beyond its width.
    """
    lanes = Lanes(bits, shape.lanes(bits // 8))

    @intrinsic(types.void(WORD, WORD, WORD))
    def copy_even(builder: ir.IRBuilder, *args: Any) -> None:
        start = builder.inttoptr(args[0], POINTER)
        count = builder.sub(builder.shl(args[2], word(1)), word(1))
        halves = []
        for j in range(2):
            mask = lanes.first(builder, builder.sub(count, word(j * lanes.count)))
            halves.append(lanes.masked_load(builder, offset(builder, start, word(j * shape.vector_bytes)), mask))
        even = ir.Constant(ir.VectorType(I32, lanes.count), list(range(0, 2 * lanes.count, 2)))
        lanes.store(builder, builder.shuffle_vector(*halves, even), builder.inttoptr(args[1], POINTER))

    return copy_even
