"""The tile of dot products, as finished LLVM vector code: vectors run along both operands, neither is transposed.

    dots(rows, columns, left, left_pitch, right, offsets, positions, blocks, left_block, right_block,
         result, result_pitch, accumulate)                                   addresses, pitches and offsets in bytes
        result[i, j] (+)= sum_{b < blocks, p < positions} left[b][i][p] * right[b][offsets[j] + p]


left[b][i] is at b * left_block + i * left_pitch, right[b] at b * right_block.  Both are read in whole vectors:
`positions` is a multiple of one.  i < rows <= THIN_ROWS, and j < columns <= `thin_vectors(rows)`: as many sums as hide
the latency of an FMA.  The table of offsets is read to the full width.

Each number of rows is a function of its own, reached through one switch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from tracegrad.codegen.addresses import I32, POINTER
from tracegrad.codegen.plane_taps import counted, word_at
from tracegrad.codegen.tile import Lanes, offset, part_function, part_intrinsic, switch_part, word
from tracegrad.codegen.tile_shape import THIN_ROWS, TileShape, thin_vectors

ARGUMENTS = 13


def dots_name(bits: int) -> str:
    """Return the symbol."""
    return f"tg_dots_f{bits}"


def dots_intrinsic(bits: int) -> Any:
    """Return the intrinsic dots."""

    return part_intrinsic(dots_name(bits), ARGUMENTS)


def dots_part(bits: int, shape: TileShape) -> ir.Module:
    """Return the module that defines dots."""
    name, lanes = dots_name(bits), Lanes(bits, shape.lanes(bits // 8))

    def case(rows: int) -> Callable[[ir.Module], ir.Function]:
        def write(module: ir.Module) -> ir.Function:
            function = part_function(module, f"{name}_{rows}", ARGUMENTS)
            Dots(lanes, rows, function).emit()
            return function

        return write

    return switch_part(name, ARGUMENTS, 0, {rows: case(rows) for rows in range(1, THIN_ROWS + 1)})


@dataclass
class Dots:
    """Emits dots for one number of rows."""

    lanes: Lanes
    rows: int
    function: ir.Function

    @property
    def columns(self) -> int:
        return thin_vectors(self.rows)

    def emit(self) -> None:
        """Fill the function: blocks, in them vectors of positions; then the sums of lanes."""
        _, _, left, left_pitch, right, offsets, positions, blocks, left_block, right_block, _, _, _ = self.function.args
        builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        table = builder.inttoptr(offsets, POINTER)
        lefts = [builder.inttoptr(left, POINTER)]
        for _ in range(1, self.rows):
            lefts.append(offset(builder, lefts[-1], left_pitch))
        start = builder.inttoptr(right, POINTER)
        rights = [offset(builder, start, word_at(builder, table, word(j))) for j in range(self.columns)]
        end = builder.mul(positions, word(self.lanes.item_size))

        def block(_: ir.Value, carried: list[ir.Value]) -> list[ir.Value]:
            places, sums = carried[: self.rows + self.columns], carried[self.rows + self.columns :]

            def vector(at: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
                return self._products(builder, [offset(builder, place, at) for place in places], sums)

            sums = counted(builder, word(0), end, self.lanes.count * self.lanes.item_size, sums, vector)
            steps = [left_block] * self.rows + [right_block] * self.columns
            return [*(offset(builder, place, step) for place, step in zip(places, steps, strict=True)), *sums]

        zeros: list[ir.Value] = [self.lanes.zero] * (self.rows * self.columns)
        found = counted(builder, word(0), blocks, 1, [*lefts, *rights, *zeros], block)
        self._store(builder, found[self.rows + self.columns :])

    def _products(self, builder: ir.IRBuilder, places: list[ir.Value], sums: list[ir.Value]) -> list[ir.Value]:
        """Add the products of one vector of each row and of each column; the fewer of both are kept in registers."""
        lefts, rights = list(range(self.rows)), list(range(self.rows, len(places)))
        kept, others = (lefts, rights) if self.rows < self.columns else (rights, lefts)
        values = {n: self.lanes.load(builder, places[n]) for n in kept}
        found = list(sums)
        for other in others:
            value = self.lanes.load(builder, places[other])
            for n in kept:
                i, j = (n, other) if kept is lefts else (other, n)
                cell = i * self.columns + j - self.rows
                found[cell] = self.lanes.fma(builder, value, values[n], found[cell])
        return found

    def _store(self, builder: ir.IRBuilder, sums: list[ir.Value]) -> None:
        """Store or add the sums of lanes, column by column."""
        _, columns, *_, result, result_pitch, accumulate = self.function.args
        is_add = builder.icmp_signed("!=", accumulate, word(0))
        leave = builder.append_basic_block("leave")
        row = builder.inttoptr(result, POINTER)
        for j in range(self.columns):
            if j:
                column = builder.append_basic_block("column")
                builder.cbranch(builder.icmp_signed(">", columns, word(j)), column, leave)
                builder.position_at_end(column)
            place = offset(builder, row, word(j * self.lanes.item_size))
            for total in lane_sums(builder, self.lanes, sums[j :: self.columns]):
                old = builder.load(place, typ=self.lanes.element)
                builder.store(builder.select(is_add, builder.fadd(old, total), total), place)
                place = offset(builder, place, result_pitch)
        builder.branch(leave)
        ir.IRBuilder(leave).ret_void()


def lane_sums(builder: ir.IRBuilder, lanes: Lanes, vectors: list[ir.Value]) -> list[ir.Value]:
    """Return the sum of the elements of each vector; up to as many as there are lanes are added up together."""
    found = []
    for first in range(0, len(vectors), lanes.count):
        some = vectors[first : first + lanes.count]
        size = 1 << (len(some) - 1).bit_length()
        segments = _folded(builder, lanes, some + some[-1:] * (size - len(some)))
        found += [builder.extract_element(segments, ir.Constant(I32, _segment(i, size) * (lanes.count // size)))
                  for i in range(len(some))]  # fmt: skip
    return found


def _folded(builder: ir.IRBuilder, lanes: Lanes, vectors: list[ir.Value]) -> ir.Value:
    """Add up 2 ** q vectors in one whose 2 ** q segments begin with the sums: halves of segments upon halves."""

    def shuffled(a: ir.Value, b: ir.Value, order: list[int]) -> ir.Value:
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, lanes.count), order))

    width = lanes.count  # of a segment
    while width > 1:
        half = width // 2
        pairs = [vectors] if len(vectors) == 1 else [vectors[i : i + 2] for i in range(0, len(vectors), 2)]
        vectors = []
        for pair in pairs:
            low = [lane // width * width + lane % half for lane in range(lanes.count)]
            low = [x + (lanes.count if lane % width >= half else 0) for lane, x in enumerate(low)]
            high = [x + half for x in low]
            vectors.append(builder.fadd(shuffled(pair[0], pair[-1], low), shuffled(pair[0], pair[-1], high)))
        width = half
    return vectors[0]


def _segment(vector: int, count: int) -> int:
    """Return which of `count` segments has the sum of a vector: the bits of its number, reversed."""
    return int(format(vector, f"0{(count - 1).bit_length()}b")[::-1], 2) if count > 1 else 0
