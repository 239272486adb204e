"""The sum of products of two blocks of short rows, as finished LLVM vector code.

    row_dot(left, left_pitch, right, right_pitch, rows, n, result)     addresses and pitches in bytes
        result[0] = sum_{r < rows, j < n} left[r, j] * right[r, j]


Rows of a feature map are often shorter than what a vectorised loop takes at a time, which leaves the work to its scalar
remainder.  Here the end of a row is masked, and two rows run together to hide the latency of an FMA.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen.addresses import POINTER, declare
from tracegrad.codegen.tile import Lanes, offset, part_function, part_intrinsic, part_module, word
from tracegrad.codegen.tile_shape import TileShape


def row_dot_name(bits: int) -> str:
    """Return the symbol."""
    return f"tg_row_dot_f{bits}"


def row_dot_intrinsic(bits: int) -> Any:
    """Return the intrinsic row_dot(left, left_pitch, right, right_pitch, rows, n, result)."""

    return part_intrinsic(row_dot_name(bits), 7)


def row_dot_part(bits: int, shape: TileShape) -> ir.Module:
    """Return the module that defines the function; rows and n may be 0."""
    lanes = Lanes(bits, shape.lanes(bits // 8))
    module = part_module(row_dot_name(bits))
    function = part_function(module, row_dot_name(bits), 7)
    left, left_pitch, right, right_pitch, rows, n, result = function.args
    entry, row_block, done = (function.append_basic_block(name) for name in ("entry", "row", "done"))
    builder = ir.IRBuilder(entry)
    starts = [builder.inttoptr(left, POINTER), builder.inttoptr(right, POINTER)]
    is_empty = builder.or_(builder.icmp_signed("<=", rows, word(0)), builder.icmp_signed("<=", n, word(0)))
    builder.cbranch(is_empty, done, row_block)

    builder.position_at_end(row_block)
    row = _carried(builder, word(0), entry)
    pointers = [_carried(builder, start, entry) for start in starts]
    sums = [_carried(builder, lanes.zero, entry) for _ in range(2)]
    new_sums = _emit_row_pair(builder, lanes, row, pointers, (left_pitch, right_pitch), sums, (rows, n))
    next_row = builder.add(row, word(2))
    end = builder.block
    row.add_incoming(next_row, end)
    for pointer, pitch in zip(pointers, (left_pitch, right_pitch), strict=True):
        pointer.add_incoming(offset(builder, pointer, pitch, pitch), end)
    for total, new in zip(sums, new_sums, strict=True):
        total.add_incoming(new, end)
    builder.cbranch(builder.icmp_signed("<", next_row, rows), row_block, done)

    builder.position_at_end(done)
    totals = [_carried(builder, lanes.zero, entry) for _ in range(2)]
    for total, new in zip(totals, new_sums, strict=True):
        total.add_incoming(new, end)
    reduce_name = f"llvm.vector.reduce.fadd.v{lanes.count}f{bits}"
    reduce = declare(module, reduce_name, lanes.element, [lanes.element, lanes.type])
    arguments = [ir.Constant(lanes.element, 0.0), builder.fadd(*totals)]
    builder.store(builder.call(reduce, arguments, fastmath=("reassoc",)), builder.inttoptr(result, POINTER))
    builder.ret_void()
    return module


def _carried(builder: ir.IRBuilder, start: ir.Value, entry: ir.Block) -> ir.PhiInstr:
    """Return a value that starts so when control comes from `entry`."""
    value = builder.phi(start.type)
    value.add_incoming(start, entry)
    return value


def _emit_row_pair(
    builder: ir.IRBuilder,
    lanes: Lanes,
    row: ir.Value,
    pointers: list[ir.PhiInstr],
    pitches: tuple[ir.Value, ir.Value],
    sums: list[ir.PhiInstr],
    sizes: tuple[ir.Value, ir.Value],
) -> list[ir.Value]:
    """Emit the loop over the columns of two rows (the second masked out if there is none); return the new sums."""
    rows, n = sizes
    before = builder.block
    column_block, after = (builder.append_basic_block(name) for name in ("column", "after"))
    has_second = builder.icmp_signed("<", builder.add(row, word(1)), rows)
    limits = (n, builder.select(has_second, n, word(0)))
    builder.branch(column_block)
    builder.position_at_end(column_block)
    column = _carried(builder, word(0), before)
    totals = [_carried(builder, start, before) for start in sums]
    place = builder.mul(column, word(lanes.item_size))
    results = []
    for i, total in enumerate(totals):
        mask = lanes.first(builder, builder.sub(limits[i], column))
        values = []
        for pointer, pitch in zip(pointers, pitches, strict=True):
            steps = [place, pitch] if i else [place]
            values.append(lanes.masked_load(builder, offset(builder, pointer, *steps), mask))
        results.append(lanes.fma(builder, values[0], values[1], total))
        total.add_incoming(results[-1], column_block)
    next_column = builder.add(column, word(lanes.count))
    column.add_incoming(next_column, column_block)
    builder.cbranch(builder.icmp_signed("<", next_column, n), column_block, after)
    builder.position_at_end(after)
    return results
