"""The inner loops of convolutions plane by plane, as finished LLVM vector code (`plane_kernels` has the formulas).

    taps_plane(source, pitch, groups, weights, target, target_pitch, rows, height, columns)
        target[i][j] = sum_g sum_{t < height of g}  weights[start of g + t * step] * source[i + t][place of g + j]

    taps_sums(source, offsets, ct, n, sums)
        sums[t][lane] += sum_{p < n} ct[p] * source[offsets[t] + p]                t < 3 or 9, lane = p % lanes


Addresses, pitches and offsets are in bytes.  Sources are read in whole vectors, and n is a multiple of four vectors.

A group is taps that lie below each other: a vector of the source that is loaded for one row of taps serves the others,
too, in the rows of the result above.  `height` rows of the result are computed at a time, the last ones perhaps once
more, as are the last columns; columns are no fewer than a vector has.  The table of groups (`plan_conv_planes`): the
step, the numbers of groups of LONGEST, ..., 1 taps, and for each group its place and its start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from tracegrad.codegen.addresses import I32, I64, KERNEL_TYPES, POINTER, intrinsic
from tracegrad.codegen.plan_conv_planes import HEIGHTS, LONGEST, MANY_TAPS, ROWS, TAPS
from tracegrad.codegen.tile import (
    WORD,
    Lanes,
    offset,
    opaque,
    part_function,
    part_intrinsic,
    part_module,
    switch_part,
    word,
)
from tracegrad.codegen.tile_shape import TileShape


def taps_plane_name(bits: int) -> str:
    """Return the symbol of taps_plane."""
    return f"tg_taps_plane_f{bits}"


def taps_plane_intrinsic(bits: int) -> Any:
    """Return the intrinsic taps_plane."""

    return part_intrinsic(taps_plane_name(bits), 9)


def taps_sums_intrinsic(bits: int, taps: int) -> Any:
    """Return the intrinsic taps_sums for a number of taps: TAPS or MANY_TAPS."""

    return part_intrinsic(taps_sums_name(bits, taps), 5)


def taps_sums_name(bits: int, taps: int) -> str:
    """Return the symbol of taps_sums."""
    return f"tg_taps_sums_{taps}_f{bits}"


def lane_sum_intrinsic(bits: int, shape: TileShape) -> Any:
    """Return the intrinsic lane_sum(address): the sum of a vector's elements, halves upon halves."""
    lanes = Lanes(bits, shape.lanes(bits // 8))

    @intrinsic(KERNEL_TYPES[f"float{bits}"](WORD))
    def lane_sum(builder: ir.IRBuilder, *args: Any) -> ir.Value:
        value = lanes.load(builder, builder.inttoptr(args[0], POINTER))
        half = lanes.count // 2
        while half:
            order = [(lane + half) % lanes.count for lane in range(lanes.count)]
            turned = builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(I32, lanes.count), order))
            value = builder.fadd(value, turned)
            half //= 2
        return builder.extract_element(value, ir.Constant(I32, 0))

    return lane_sum


Body = Callable[[ir.Value, list[ir.Value]], list[ir.Value]]


def counted(
    builder: ir.IRBuilder, first: ir.Value, limit: ir.Value, by: int, starts: Sequence[ir.Value], body: Body
) -> list[ir.Value]:
    """Emit a loop for i = first, first + by, ... < limit over carried values; return them as they are after it."""
    before = builder.block
    head, inside, after = (builder.append_basic_block(name) for name in ("head", "inside", "after"))
    builder.branch(head)
    builder.position_at_end(head)
    i = builder.phi(I64)
    i.add_incoming(first, before)
    carried = []
    for start in starts:
        value = builder.phi(start.type)
        value.add_incoming(start, before)
        carried.append(value)
    builder.cbranch(builder.icmp_signed("<", i, limit), inside, after)
    builder.position_at_end(inside)
    found = body(i, list(carried))
    i.add_incoming(builder.add(i, word(by)), builder.block)
    for value, new in zip(carried, found, strict=True):
        value.add_incoming(new, builder.block)
    builder.branch(head)
    builder.position_at_end(after)
    return list(carried)


def word_at(builder: ir.IRBuilder, table: ir.Value, index: ir.Value) -> ir.Value:
    return builder.load(builder.gep(table, [index], source_etype=I64), typ=I64)


def taps_plane_part(bits: int, shape: TileShape) -> ir.Module:
    """Return the module that defines taps_plane: a switch over functions for each height."""
    name, lanes = taps_plane_name(bits), Lanes(bits, shape.lanes(bits // 8))

    def case(height: int) -> Callable[[ir.Module], ir.Function]:
        def write(module: ir.Module) -> ir.Function:
            function = part_function(module, f"{name}_{height}", 9)
            TapsPlane(lanes, height, function).emit()
            return function

        return write

    return switch_part(name, 9, 7, {height: case(height) for height in range(1, HEIGHTS + 1)})


@dataclass
class TapsPlane:
    """Emits taps_plane for one height."""

    lanes: Lanes
    height: int
    function: ir.Function

    def emit(self) -> None:
        """Fill the function: blocks of rows, in them vectors of columns."""
        source, self.pitch, groups, weights, target, self.target_pitch, rows, _, columns = self.function.args
        self.weights = weights
        builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        table = builder.inttoptr(groups, POINTER)
        self.step = word_at(builder, table, word(0))
        self.counts = [word_at(builder, table, word(1 + n)) for n in range(LONGEST)]
        self.entries = offset(builder, table, word(8 * (1 + LONGEST)))
        last_row = builder.sub(rows, word(self.height))
        last_column = builder.sub(columns, word(self.lanes.count))

        def block_of_rows(row: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
            i = smaller(builder, row, last_row)
            from_ = builder.add(source, builder.mul(i, self.pitch))
            to = builder.add(target, builder.mul(i, self.target_pitch))

            def vector(column: ir.Value, _: list[ir.Value]) -> list[ir.Value]:
                at = builder.mul(smaller(builder, column, last_column), word(self.lanes.item_size))
                self._vector(builder, builder.add(from_, at), builder.add(to, at))
                return []

            return counted(builder, word(0), columns, self.lanes.count, [], vector)

        counted(builder, word(0), rows, self.height, [], block_of_rows)
        builder.ret_void()

    def _vector(self, builder: ir.IRBuilder, source: ir.Value, target: ir.Value) -> None:
        """Emit one vector of each row, stored in order: a row may be shorter than its vector."""
        sums = [self.lanes.zero] * self.height
        entry = self.entries
        for length, count in zip(range(LONGEST, 0, -1), self.counts, strict=True):

            def group(_: ir.Value, carried: list[ir.Value], length: int = length) -> list[ir.Value]:
                place, *sums = carried
                found = self._group(builder, source, place, length, sums)
                return [offset(builder, place, word(16)), *found]

            entry, *sums = counted(builder, word(0), count, 1, [entry, *sums], group)
        row = builder.inttoptr(target, POINTER)
        for total in sums:
            self.lanes.store(builder, total, row)
            row = opaque(builder, offset(builder, row, self.target_pitch))

    def _group(
        self, builder: ir.IRBuilder, source: ir.Value, entry: ir.Value, length: int, sums: list[ir.Value]
    ) -> list[ir.Value]:
        """Emit the products of a group of taps; return the sums."""
        lanes = self.lanes
        row = builder.inttoptr(builder.add(source, word_at(builder, entry, word(0))), POINTER)
        weight = builder.inttoptr(builder.add(self.weights, word_at(builder, entry, word(1))), POINTER)
        factors = []
        for t in range(length):
            place = offset(builder, weight, builder.mul(word(t), self.step))
            factors.append(lanes.splat(builder, builder.load(place, typ=lanes.element)))
        found = list(sums)
        for q in range(self.height + length - 1):
            value = lanes.load(builder, row)
            row = opaque(builder, offset(builder, row, self.pitch))
            for t in range(max(0, q - self.height + 1), min(length, q + 1)):
                found[q - t] = lanes.fma(builder, value, factors[t], found[q - t])
        return found


def smaller(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.select(builder.icmp_signed("<", a, b), a, b)


def taps_sums_part(bits: int, shape: TileShape) -> ir.Module:
    """Return the module that defines taps_sums for few taps and for many."""
    lanes = Lanes(bits, shape.lanes(bits // 8))
    module = part_module(f"tg_taps_sums_f{bits}")
    for taps, rows in ((TAPS, ROWS), (MANY_TAPS, 1)):
        _emit_sums(part_function(module, taps_sums_name(bits, taps), 5), lanes, taps, rows)
    return module


def _emit_sums(function: ir.Function, lanes: Lanes, count: int, rows: int) -> None:
    """Emit the sums of `count` taps, over `rows` vectors at a time."""
    source, offsets, ct, n, sums = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    start, values, table = (builder.inttoptr(a, POINTER) for a in (source, ct, offsets))
    taps = [offset(builder, start, word_at(builder, table, word(t))) for t in range(count)]

    def block(p: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        found = []
        for k in range(rows):
            at = builder.mul(builder.add(p, word(k * lanes.count)), word(lanes.item_size))
            value = lanes.load(builder, offset(builder, values, at))
            for t, tap in enumerate(taps):
                x = lanes.load(builder, offset(builder, tap, at))
                found.append(lanes.fma(builder, x, value, totals[k * count + t]))
        return found

    totals = counted(builder, word(0), n, rows * lanes.count, [lanes.zero] * (rows * count), block)
    target = builder.inttoptr(sums, POINTER)
    for t in range(count):
        total = totals[t]
        for k in range(1, rows):
            total = builder.fadd(total, totals[k * count + t])
        place = offset(builder, target, word(t * lanes.count * lanes.item_size))
        lanes.store(builder, builder.fadd(lanes.load(builder, place), total), place)
    builder.ret_void()
