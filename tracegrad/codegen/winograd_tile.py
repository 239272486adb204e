"""The register tile (`tile`) on operands that nobody packs: channels of a row lie side by side.

    rows:  C[i, j] (+)= sum_k A[i * step + k] * B[k, j]              k runs along rows of A; B is packed in panels
    steps: C[i, j] (+)= sum_k A[k * step + i] * B[k * step + j]      k runs over rows that A and B share

`rows` takes UNROLL k at a time, so their number must be a multiple of it: a number of lanes is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types

from tracegrad.codegen.addresses import POINTER, intrinsic
from tracegrad.codegen.tile import WORD, Lanes, TileEmitter, offset, part_call, prefetch, switched_part, word
from tracegrad.codegen.tile_shape import TileShape

UNROLL = 2
AHEAD = 8  # rows of B that are asked for before their turn


@dataclass(frozen=True)
class RowEmitter(TileEmitter):
    """Emits the tile of one number of rows and vectors; `indirect` is not used."""

    is_along: bool = False
    panel_columns: int = 0

    def _emit_loop(
        self, function: ir.Function, entry: ir.Block, loop: ir.Block, done: ir.Block
    ) -> list[list[ir.Value]]:
        lanes, size = self.lanes, self.lanes.item_size
        _, k_count, a_start, b_start, step, c_start, ldc, _, _ = function.args
        head = ir.IRBuilder(entry)
        first, b_first, c_first = (head.inttoptr(x, POINTER) for x in (a_start, b_start, c_start))
        unroll, a_first, a_step, b_step = 1, [first], step, step
        if self.is_along:
            unroll, a_step, b_step = UNROLL, word(size), word(self.panel_columns * size)
            a_first = [offset(head, first, head.mul(word(i), step)) for i in range(self.rows)]
        b_ahead = head.mul(b_step, word(AHEAD))
        head.branch(loop)
        builder = ir.IRBuilder(loop)
        k, b, c, *a = (self._carried(builder, x, entry) for x in (word(0), b_first, c_first, *a_first))
        carried = [[self._carried(builder, lanes.zero, entry) for _ in range(self.vectors)] for _ in range(self.rows)]
        sums = carried
        next_a, next_b = a, b
        prefetch(builder, c, write=True)
        for _ in range(unroll):
            prefetch(builder, offset(builder, next_b, b_ahead), write=False)
            b_vectors = [lanes.load(builder, offset(builder, next_b, word(j * lanes.count * size)))
                         for j in range(self.vectors)]  # fmt: skip
            places = next_a if self.is_along else [offset(builder, next_a[0], word(i * size)) for i in range(self.rows)]
            spread = [lanes.splat(builder, builder.load(x, typ=lanes.element)) for x in places]
            sums = [[lanes.fma(builder, x, y, z) for y, z in zip(b_vectors, row, strict=True)]
                    for x, row in zip(spread, sums, strict=True)]  # fmt: skip
            next_a = [offset(builder, x, a_step) for x in next_a]
            next_b = offset(builder, next_b, b_step)
        next_k = builder.add(k, word(unroll))
        c_step = builder.select(builder.icmp_signed("<", next_k, word(unroll * self.rows)), ldc, word(0))
        after = (next_k, next_b, offset(builder, c, c_step), *next_a, *(x for row in sums for x in row))
        for value, following in zip((k, b, c, *a, *(x for row in carried for x in row)), after, strict=True):
            value.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", next_k, k_count), loop, done)
        return sums


def row_tile_name(bits: int, is_along: bool) -> str:
    """Return the symbol of the tile."""
    return f"tg_tile_f{bits}_{'rows' if is_along else 'steps'}"


def row_tile_part(bits: int, shape: TileShape, is_along: bool) -> ir.Module:
    """Return the module that defines the tile."""
    lanes = Lanes(bits, shape.lanes(bits // 8))

    def emitter(rows: int, vectors: int) -> TileEmitter:
        return RowEmitter(lanes, shape.rows, rows, vectors, False, is_along, shape.columns(bits // 8))

    return switched_part(row_tile_name(bits, is_along), lanes, shape, emitter)


def row_tile_intrinsic(bits: int, is_along: bool) -> Any:
    """Return the intrinsic tile(rows, k, a, b, step, c, ldc, n, accumulate); addresses and strides in bytes."""

    @intrinsic
    def tile(
        typing_context: Any, rows: Any, k: Any, a: Any, b: Any, step: Any, c: Any, ldc: Any, n: Any, accumulate: Any
    ) -> Any:
        return types.void(*[WORD] * 9), part_call(row_tile_name(bits, is_along), 9)

    return tile
