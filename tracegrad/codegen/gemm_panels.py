"""Products of packed panels, or of operands where they lie, by the register tile."""

from __future__ import annotations

from typing import Any

from tracegrad.codegen.addresses import minimum
from tracegrad.codegen.gemm_tile import product_tile_intrinsic, product_tiles_intrinsic
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.tile_shape import TileShape


@kernel
def row_start(m: int, even: int, taller: int, panel: int) -> int:
    """Return the first row of a panel: each has `even` pairs of rows, and the first `taller` ones have one more."""
    return minimum(m, 2 * (even * panel + minimum(taller, panel)))


def panel_product(bits: int, shape: TileShape) -> Any:
    """Return the kernel multiply(m, even, taller, q0, q1, n, depth, a, ..., accumulate)."""
    size = bits // 8
    lanes = shape.lanes(size)
    columns = shape.columns(size)
    tile = product_tile_intrinsic(bits)
    tiles = product_tiles_intrinsic(bits)

    @kernel
    def multiply(
        m: int, even: int, taller: int, q0: int, q1: int, n: int, depth: int, strip: int,
        a: int, a_row: int, a_k: int, a_pitch: int,
        b: int, b_k: int, b_pitch: int, c: int, c_row: int, accumulate: int,
    ) -> None:  # fmt: skip
        """Run the tile over panels q0..q1-1 of A and all of B, `strip` columns of which stay in the L1 cache.

        Strides and pitches are in bytes; a pitch of 0 says that the operand is read where it lies.

        Rows of C that are shorter than a vector and lie without a gap are stored in whole vectors, each over what the
        one before it spilled: masked stores take ten times as long (AVX2).  The last rows have nothing to spill into.
        """
        spilling = 0
        if n < lanes and c_row == n * size and accumulate == 0:
            spilling = m - (lanes - 1) // n
        for start in range(0, n, strip):
            for q in range(q0, q1):
                row = row_start(m, even, taller, q)
                rows = row_start(m, even, taller, q + 1) - row
                left = a + ((q - q0) * a_pitch if a_pitch else row * a_row)
                target = c + row * c_row
                end = minimum(n, start + strip)
                whole = (end - start) // columns
                if whole > 0:
                    step = b_pitch if b_pitch else columns * size
                    panel = b + start // columns * step
                    place = target + start * size
                    tiles(rows, depth, left, a_row, a_k, panel, b_k, place, c_row, whole, step, accumulate)
                for j in range(start + whole * columns, end, columns):
                    width = n - j
                    if row + rows <= spilling:
                        width = lanes
                    first = j
                    panel = b + j // columns * b_pitch
                    if b_pitch == 0:
                        if width < lanes and n >= lanes:  # B ends here: the last vector repeats columns
                            first, width = n - lanes, lanes
                        panel = b + first * size
                    tile(rows, depth, left, a_row, a_k, panel, b_k, target + first * size, c_row, width, accumulate)

    return multiply
