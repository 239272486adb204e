"""The register tile (`tile`) on operands that nobody packs: channels of a row lie side by side.

    rows:  C[i, j] (+)= sum_k A[i * step + k] * B[k, j]              k runs along rows of A; B is packed in panels
    steps: C[i, j] (+)= sum_k A[k * step + i] * B[k * step + j]      k runs over rows that A and B share
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from tracegrad.codegen.addresses import POINTER
from tracegrad.codegen.tile import (
    AHEAD,
    Lanes,
    TileEmitter,
    offset,
    opaque,
    part_intrinsic,
    prefetch,
    switched_part,
    word,
)
from tracegrad.codegen.tile_shape import TileShape
from tracegrad.codegen.unrolled_loop import UNROLLED, UnrolledLoop


@dataclass(frozen=True)
class RowEmitter(TileEmitter):
    """Emits the tile of one number of rows and vectors; `indirect` is not used."""

    is_along: bool = False
    panel_columns: int = 0

    def _emit_sums(self, function: ir.Function, head: ir.IRBuilder) -> tuple[list[ir.Value], ir.Block]:
        lanes, size = self.lanes, self.lanes.item_size
        _, k_count, a_start, b_start, step, c_start, _, _, _ = function.args
        starts = [head.inttoptr(x, POINTER) for x in (a_start, b_start, c_start)]
        a_step, b_step, a_rows = step, step, [word(i * size) for i in range(self.rows)]
        if self.is_along:
            a_step, b_step = word(size), word(self.panel_columns * size)
            a_rows = [head.mul(word(i), step) for i in range(self.rows)]
        b_ahead = head.mul(b_step, word(AHEAD))

        def add_products(
            builder: ir.IRBuilder, places: list[ir.Value], sums: list[ir.Value]
        ) -> tuple[list[ir.Value], list[ir.Value]]:
            a, b, c = places
            prefetch(builder, offset(builder, b, b_ahead), write=False)
            sums = self._products(builder, [offset(builder, a, row) for row in a_rows], b, sums)
            return [*(opaque(builder, offset(builder, x, by)) for x, by in ((a, a_step), (b, b_step))), c], sums

        zeros: list[ir.Value] = [lanes.zero] * (self.rows * self.vectors)
        return UnrolledLoop(UNROLLED, self._rows_prefetch(head), add_products).emit(head, k_count, starts, zeros)


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

    return part_intrinsic(row_tile_name(bits, is_along), 9)
