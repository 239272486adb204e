"""Sizes of the register tile, from the CPU's features.  Planners and kernels must agree on them.

The tile computes `rows` x (`vectors` * lanes) elements of C in registers: rows * vectors accumulators, `vectors` rows
of B and a broadcast element of A have to fit the register file, and about ten accumulators hide an FMA's latency.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from tracegrad.codegen.cpu import target
from tracegrad.codegen.kernel import kernel

THIN_ROWS = 4  # of tiles that are wider, and those of dot products
THIN_SUMS = 12  # vectors of sums: as many as hide the latency of an FMA, and fit 16 registers with what is added


@dataclass(frozen=True)
class TileShape:
    """A register tile: rows of A by vectors of B."""

    isa: str
    vector_bytes: int
    rows: int
    vectors: int = 2

    def lanes(self, item_size: int) -> int:
        """Elements in a vector."""
        return self.vector_bytes // item_size

    def columns(self, item_size: int) -> int:
        """Columns of C that a tile covers."""
        return self.vectors * self.lanes(item_size)


@kernel
def thin_vectors(rows: int) -> int:
    """Return how many vectors wide a tile of few rows is: places of more than 8 would not fit the registers."""
    return THIN_SUMS // rows if rows > 1 else 8


SHAPES = {
    "avx512": TileShape("avx512", vector_bytes=64, rows=14),
    "avx2": TileShape("avx2", vector_bytes=32, rows=6),
    "neon": TileShape("neon", vector_bytes=16, rows=12),
    "generic": TileShape("generic", vector_bytes=16, rows=6),
}


@functools.cache
def tile_shape(isa: str | None = None) -> TileShape:
    """Return the tile of an instruction set, this host's by default."""
    if isa is not None:
        return SHAPES[isa]
    features = target().features
    if "avx512f" in features:
        return SHAPES["avx512"]
    if {"avx2", "fma"} <= features:
        return SHAPES["avx2"]
    return SHAPES["neon"] if "neon" in features else SHAPES["generic"]
