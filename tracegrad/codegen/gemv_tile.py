"""The tile of products with a narrow operand, as LLVM vector code: dot products of rows with rows.

    row_tile(rows, others, count, a, a_row, b, b_row, c, c_row, accumulate)     addresses and strides in bytes
        C[j, i] (+)= sum_k  A[i, k] * B[j, k]          i < rows <= 4, j < others <= 3, k < count

Both operands are contiguous along k, as in `A @ B.T`: where one of them has few rows, bringing the other into the order
that `gemm_tile` reads takes longer than the product.  A row that is missing is the last one again; what is written
twice has the same bits.  The end of k is masked, so nothing outside the operands is touched.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen.addresses import POINTER
from tracegrad.codegen.dot_tile import lane_sums
from tracegrad.codegen.tile import Lanes, offset, part_function, part_intrinsic, part_module, word
from tracegrad.codegen.tile_moves import phi_from
from tracegrad.codegen.tile_shape import TileShape

ROWS, OTHERS = 4, 3  # twelve accumulators hide the latency of an FMA, and four vectors are left for the operands
ARGUMENTS = 10

Sums = list[ir.Value]


def row_tile_name(bits: int) -> str:
    """Return the symbol of the tile."""
    return f"tg_row_tile_f{bits}"


def row_tile_intrinsic(bits: int) -> Any:
    """Return the intrinsic row_tile(rows, others, count, a, a_row, b, b_row, c, c_row, accumulate)."""

    return part_intrinsic(row_tile_name(bits), ARGUMENTS)


def row_tile_part(bits: int, shape: TileShape) -> ir.Module:
    """Return the module that defines the tile: a switch over the number of rows of B."""
    lanes = Lanes(bits, shape.lanes(bits // 8))
    name = row_tile_name(bits)
    module = part_module(name)
    function = part_function(module, name, ARGUMENTS)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    end = function.append_basic_block("end")
    switch = builder.switch(function.args[1], end)
    for others in range(1, OTHERS + 1):
        callee = part_function(module, f"{name}_{others}", ARGUMENTS)
        callee.linkage = "internal"
        _emit(callee, lanes, others)
        block = function.append_basic_block("case")
        switch.add_case(word(others), block)
        builder.position_at_end(block)
        builder.call(callee, function.args).tail = "tail"
        builder.branch(end)
    ir.IRBuilder(end).ret_void()
    return module


def _emit(function: ir.Function, lanes: Lanes, others: int) -> None:
    """Emit a loop over whole vectors, one step under a mask, sums over lanes, stores."""
    rows, _, count, a, a_row, b, b_row, c, c_row, accumulate = function.args
    entry, loop, tail, masked, done = (
        function.append_basic_block(name) for name in ("entry", "loop", "tail", "masked", "done")
    )
    builder = ir.IRBuilder(entry)
    last = builder.sub(rows, word(1))
    numbers = [builder.select(builder.icmp_signed("<", word(i), last), word(i), last) for i in range(ROWS)]
    starts = [offset(builder, builder.inttoptr(a, POINTER), builder.mul(i, a_row)) for i in numbers]
    starts += [offset(builder, builder.inttoptr(b, POINTER), builder.mul(word(j), b_row)) for j in range(others)]
    whole = builder.and_(count, word(-lanes.count))
    zeros: Sums = [lanes.zero] * (ROWS * others)
    builder.cbranch(builder.icmp_signed(">", whole, word(0)), loop, tail)

    builder = ir.IRBuilder(loop)
    k, *sums = (phi_from(builder, entry, value) for value in (word(0), *zeros))
    found = _products(builder, lanes, starts, k, sums, None)
    following = builder.add(k, word(lanes.count))
    for phi, value in zip((k, *sums), (following, *found), strict=True):
        phi.add_incoming(value, loop)
    builder.cbranch(builder.icmp_signed("<", following, whole), loop, tail)

    builder = ir.IRBuilder(tail)
    after_loop = [phi_from(builder, entry, zero) for zero in zeros]
    for phi, value in zip(after_loop, found, strict=True):
        phi.add_incoming(value, loop)
    left = builder.sub(count, whole)
    builder.cbranch(builder.icmp_signed(">", left, word(0)), masked, done)

    builder = ir.IRBuilder(masked)
    rest = _products(builder, lanes, starts, whole, after_loop, lanes.first(builder, left))
    builder.branch(done)

    builder = ir.IRBuilder(done)
    totals = [phi_from(builder, tail, value) for value in after_loop]
    for phi, value in zip(totals, rest, strict=True):
        phi.add_incoming(value, masked)
    target = builder.inttoptr(c, POINTER)
    for j in range(others):
        dots = lane_sums(builder, lanes, totals[j::others])
        row = offset(builder, target, builder.mul(word(j), c_row))
        places = [offset(builder, row, builder.mul(i, word(lanes.item_size))) for i in numbers]
        _store(builder, lanes, dots, places, accumulate)
    builder.ret_void()


def _products(
    builder: ir.IRBuilder, lanes: Lanes, starts: list[ir.Value], k: ir.Value, sums: Sums, mask: ir.Value | None
) -> Sums:
    """Add what a vector of every row gives; sums are ordered by the row of A, then that of B."""
    places = [builder.gep(start, [k], source_etype=lanes.element) for start in starts]

    def load(place: ir.Value) -> ir.Value:
        return lanes.load(builder, place) if mask is None else lanes.masked_load(builder, place, mask)

    right = [load(place) for place in places[ROWS:]]
    found: Sums = []
    for i, place in enumerate(places[:ROWS]):
        left = load(place)
        found += [lanes.fma(builder, left, x, sums[i * len(right) + j]) for j, x in enumerate(right)]
    return found


def _store(
    builder: ir.IRBuilder, lanes: Lanes, dots: Sums, places: list[ir.Value], accumulate: ir.Value
) -> None:
    """Emit C (+)= dots; all loads come before all stores, for places may be the same."""
    is_add = builder.icmp_signed("!=", accumulate, word(0))
    with builder.if_else(is_add) as (add, write):
        with add:
            old = [builder.load(place, typ=lanes.element) for place in places]
            for x, y, place in zip(old, dots, places, strict=True):
                builder.store(builder.fadd(x, y), place)
        with write:
            for y, place in zip(dots, places, strict=True):
                builder.store(y, place)
