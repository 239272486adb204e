"""The inner loops of convolutions plane by plane, as finished LLVM vector code (`plane_kernels` has the formulas).

    taps_rows(source, step, offsets, weights, taps, target, target_step, count, count_step)
        target[k][j] = sum_t weights[t] * source[k][offsets[t] + j]     j < min(lanes, count - k * count_step), k < 4

    taps_sums(source, offsets, ct, n, sums)
        sums[t][lane] += sum_{p < n} ct[p] * source[offsets[t] + p]                t < 3, lane = p % lanes

Row k of an array is at k steps from its address. Addresses, steps and offsets are in bytes. Sources are read in whole
vectors, and n is a multiple of four vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types

from tracegrad.codegen.addresses import I32, I64, POINTER, intrinsic
from tracegrad.codegen.plan_conv_planes import ROWS, TAPS
from tracegrad.codegen.tile import WORD, Lanes, offset, part_call, part_function, part_module, word
from tracegrad.codegen.tile_shape import TileShape


def taps_rows_intrinsic(bits: int) -> Any:
    """Return the intrinsic taps_rows."""

    @intrinsic
    def taps_rows(
        typing_context: Any, source: Any, step: Any, offsets: Any, weights: Any, taps: Any, target: Any,
        target_step: Any, count: Any, count_step: Any,
    ) -> Any:  # fmt: skip
        return types.void(*[WORD] * 9), part_call(f"tg_taps_rows_f{bits}", 9)

    return taps_rows


def taps_sums_intrinsic(bits: int) -> Any:
    """Return the intrinsic taps_sums."""

    @intrinsic
    def taps_sums(typing_context: Any, source: Any, offsets: Any, ct: Any, n: Any, sums: Any) -> Any:
        return types.void(*[WORD] * 5), part_call(f"tg_taps_sums_f{bits}", 5)

    return taps_sums


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


def rows_of(builder: ir.IRBuilder, address: ir.Value, step: ir.Value) -> list[ir.Value]:
    """Return pointers to ROWS rows."""
    pointers = [builder.inttoptr(address, POINTER)]
    for _ in range(ROWS - 1):
        pointers.append(offset(builder, pointers[-1], step))
    return pointers


def first_lanes(builder: ir.IRBuilder, lanes: Lanes, n: ir.Value) -> ir.Value:
    """Return the mask of the lanes below n, by numbers as wide as the elements, which is what masks are made of."""
    kind = I32 if lanes.bits == 32 else I64
    numbers = ir.Constant(ir.VectorType(kind, lanes.count), list(range(lanes.count)))
    narrow = builder.trunc(n, I32) if lanes.bits == 32 else n
    return builder.icmp_signed("<", numbers, lanes.splat(builder, narrow))


def word_at(builder: ir.IRBuilder, table: ir.Value, index: ir.Value) -> ir.Value:
    return builder.load(builder.gep(table, [index], source_etype=I64), typ=I64)


def taps_rows_part(bits: int, shape: TileShape) -> ir.Module:
    """Return the module that defines taps_rows."""
    lanes = Lanes(bits, shape.lanes(bits // 8))
    module = part_module(f"tg_taps_rows_f{bits}")
    function = part_function(module, f"tg_taps_rows_f{bits}", 9)
    source, step, offsets, weights, taps, target, target_step, count, count_step = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    sources = rows_of(builder, source, step)
    table, factors = builder.inttoptr(offsets, POINTER), builder.inttoptr(weights, POINTER)

    def tap(t: ir.Value, sums: list[ir.Value]) -> list[ir.Value]:
        place = word_at(builder, table, t)
        factor = builder.load(builder.gep(factors, [t], source_etype=lanes.element), typ=lanes.element)
        factor = lanes.splat(builder, factor)
        values = [lanes.load(builder, offset(builder, row, place)) for row in sources]
        return [lanes.fma(builder, v, factor, s) for v, s in zip(values, sums, strict=True)]

    sums = counted(builder, word(0), taps, 1, [lanes.zero] * ROWS, tap)
    targets = rows_of(builder, target, target_step)
    left = [builder.sub(count, builder.mul(count_step, word(k))) for k in range(ROWS)]
    whole, part = (function.append_basic_block(name) for name in ("whole", "part"))
    builder.cbranch(builder.icmp_signed(">=", left[-1], word(lanes.count)), whole, part)
    builder.position_at_end(whole)
    for row, total in zip(targets, sums, strict=True):
        lanes.store(builder, total, row)
    builder.ret_void()
    builder.position_at_end(part)
    for row, total, n in zip(targets, sums, left, strict=True):
        lanes.masked_store(builder, total, row, first_lanes(builder, lanes, n))
    builder.ret_void()
    return module


def taps_sums_part(bits: int, shape: TileShape) -> ir.Module:
    """Return the module that defines taps_sums."""
    lanes = Lanes(bits, shape.lanes(bits // 8))
    module = part_module(f"tg_taps_sums_f{bits}")
    function = part_function(module, f"tg_taps_sums_f{bits}", 5)
    source, offsets, ct, n, sums = function.args
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    start, values, table = (builder.inttoptr(a, POINTER) for a in (source, ct, offsets))
    taps = [offset(builder, start, word_at(builder, table, word(t))) for t in range(TAPS)]

    def block(p: ir.Value, totals: list[ir.Value]) -> list[ir.Value]:
        found = []
        for k in range(ROWS):
            at = builder.mul(builder.add(p, word(k * lanes.count)), word(lanes.item_size))
            value = lanes.load(builder, offset(builder, values, at))
            for t, tap in enumerate(taps):
                x = lanes.load(builder, offset(builder, tap, at))
                found.append(lanes.fma(builder, x, value, totals[k * TAPS + t]))
        return found

    totals = counted(builder, word(0), n, ROWS * lanes.count, [lanes.zero] * (ROWS * TAPS), block)
    target = builder.inttoptr(sums, POINTER)
    for t in range(TAPS):
        total = totals[t]
        for k in range(1, ROWS):
            total = builder.fadd(total, totals[k * TAPS + t])
        place = offset(builder, target, word(t * shape.vector_bytes))
        lanes.store(builder, builder.fadd(lanes.load(builder, place), total), place)
    builder.ret_void()
    return module
