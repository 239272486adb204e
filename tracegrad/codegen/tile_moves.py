"""Moving data to and from the tile's layouts: transposes in registers and masked copies, as Numba intrinsics.

Sources are read with masks: never an element outside.  Destinations are scratch: full vectors are stored, and what
spills past the end of a row is overwritten by the next one, so a buffer needs slack for the last.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from tracegrad.codegen.addresses import I32, I64, POINTER, intrinsic
from tracegrad.codegen.tile import WORD, Lanes, offset, part_call, part_function, part_module, word
from tracegrad.codegen.tile_shape import TileShape


def transpose_name(bits: int, indirect: bool) -> str:
    """Return the symbol of the transpose."""
    return f"tg_transpose_f{bits}_{'indirect' if indirect else 'direct'}"


def transpose_part(bits: int, shape: TileShape, indirect: bool = False) -> ir.Module:
    """Return the module that defines the transpose."""
    name = transpose_name(bits, indirect)
    module = part_module(name)
    _emit_transpose(part_function(module, name, 6), Lanes(bits, shape.lanes(bits // 8)), indirect)
    return module


def transpose_intrinsic(bits: int, indirect: bool = False) -> Any:
    """Return the intrinsic transpose(source, pitch, rows, n, destination, destination_pitch), all in bytes.

        destination[j, i] = source[i, j]        i < rows <= lanes, j < n <= lanes

    Row i of the source is at i * pitch, or, if indirect, at the byte offset pitch[i] of a table.  Row n of the
    destination and `lanes` elements of each row are clobbered.
    """

    @intrinsic
    def transpose(typing_context: Any, source: Any, pitch: Any, rows: Any, n: Any, destination: Any, out: Any) -> Any:
        return types.void(*[WORD] * 6), part_call(transpose_name(bits, indirect), 6)

    return transpose


def _emit_transpose(function: ir.Function, lanes: Lanes, indirect: bool) -> None:
    """Load `lanes` rows (the last one again where there are fewer), swap blocks of halving size, store the columns."""
    source, pitch, rows, n, destination, destination_pitch = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    first = builder.inttoptr(source, POINTER)
    table = builder.inttoptr(pitch, POINTER)
    mask = lanes.first(builder, n)
    last = builder.sub(rows, word(1))
    vectors = []
    for i in range(lanes.count):
        row = builder.select(builder.icmp_signed("<", word(i), last), word(i), last)
        if indirect:
            distance = builder.load(builder.gep(table, [row], source_etype=I64), typ=I64)
        else:
            distance = builder.mul(row, pitch)
        vectors.append(lanes.masked_load(builder, offset(builder, first, distance), mask))
    vectors = swap_blocks(builder, lanes, vectors)
    target = builder.inttoptr(destination, POINTER)
    for j in range(lanes.count):
        row = builder.select(builder.icmp_signed("<", word(j), n), word(j), n)
        lanes.store(builder, vectors[j], offset(builder, target, builder.mul(row, destination_pitch)))
    builder.ret_void()


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


def copy_intrinsic(bits: int, shape: TileShape, masked: bool, vectors: int) -> Any:
    """Return the intrinsic copy(source, destination, n) of a row of some vectors (n may be <= 0, or beyond the width).

    Only n elements are read.  If masked only n are written, otherwise the others are set to zero.
    """
    lanes = Lanes(bits, shape.lanes(bits // 8))

    @intrinsic
    def copy(typing_context: Any, source: Any, destination: Any, n: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
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
            return context.get_dummy_value()

        return types.void(WORD, WORD, WORD), generate

    return copy


def even_copy_intrinsic(bits: int, shape: TileShape) -> Any:
    """Return the intrinsic copy_even(source, destination, n): destination[q] = source[2 * q] for q < n.

    One vector is written, with zeros from n on; n may be beyond its width.
    """
    lanes = Lanes(bits, shape.lanes(bits // 8))

    @intrinsic
    def copy_even(typing_context: Any, source: Any, destination: Any, n: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            start = builder.inttoptr(args[0], POINTER)
            count = builder.sub(builder.shl(args[2], word(1)), word(1))
            halves = []
            for j in range(2):
                mask = lanes.first(builder, builder.sub(count, word(j * lanes.count)))
                halves.append(lanes.masked_load(builder, offset(builder, start, word(j * shape.vector_bytes)), mask))
            even = ir.Constant(ir.VectorType(I32, lanes.count), list(range(0, 2 * lanes.count, 2)))
            lanes.store(builder, builder.shuffle_vector(*halves, even), builder.inttoptr(args[1], POINTER))
            return context.get_dummy_value()

        return types.void(WORD, WORD, WORD), generate

    return copy_even
