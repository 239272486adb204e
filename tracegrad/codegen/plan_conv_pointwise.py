"""Plans of the gradient of the weights of a convolution by one tap, with stride 1 and without padding or groups.

    dw[o, c] = sum_{n, p}  dy[n, o, p] * x[n, c, p]

Rows of the tile are broadcast, so one operand is read where it lies; vectors run over the channels of the other one,
which is transposed, some positions at a time (`conv_pointwise_kernels`).  Where planes are small, a chunk has the
positions of several images: sums go to memory and back once for each.

Where (n, p) is one axis in memory, and short, this is a product of matrices: x is packed once, and dw is written along
its rows; where channels or maps are few, a single image is one, too.  One core, in times: 960 -> 320 channels at 7 x 7,
one image 1.8; 480 -> 20 at 1 x 1, 32 images 14.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from tracegrad.codegen.conv_geometry import Geometry
from tracegrad.codegen.plan import HEADER_BYTES, ITEM_SIZES, SHORT_NAMES, LibraryCall, ceil_div, round_up
from tracegrad.codegen.plan_gemm import plan_gemm
from tracegrad.codegen.tile_shape import TileShape

# Words of the plan.
IMAGES, PLANE, BATCHES, PIECES, SHARES, BLOCKS = range(6)  # a chunk: a batch of images by a piece of their planes
ROW_OPERAND, ROWS, COLUMN_OPERAND, COLUMNS = range(6, 10)  # which operand has the rows of the tile, and how many
OUTPUTS, CHANNELS, SUM_PITCH, SUM_OUTPUT, SUM_CHANNEL = range(10, 15)  # the sums [rows, columns], and as [o, c]
SUMS_BYTES, WORK_BYTES, PIECE_ITEMS, IN_PLACE = range(15, 19)  # IN_PLACE: the sums are the result
POINTWISE_WORDS = 19

PIECE = 400
"""Positions of one call of the tile: a panel of them fits the L1 cache (28 x 28 takes 4 % more at 256: sums move)."""
BATCH_BYTES = 192 << 10
"""Rows of a chunk: every panel of columns reads them again, from the L2 cache."""
MATRIX_PLANE = 128
"""Positions of a single image up to which a product of matrices is faster: 1.0 to 1.3 times as slow at 196 to 3136."""
FEW = 6
"""Channels or maps up to which the other operand of a single image is read once, as a matrix by few vectors: 64
channels to 2 maps 2.7 times as fast on 64 x 64, to 6 maps 1.6 times, to 16 maps 0.7 times."""
TRANSPOSED = 0.5
"""The cost of transposing an element, in steps of one row of the tile (measured: 0.3 to 0.7)."""
TURNED = 5
"""The cost of an element of dw that is gathered from sums [c, o], in such steps."""


@dataclass(frozen=True)
class Sides:
    """Which operand is broadcast and which one transposed: their places among the operands, and their channels."""

    row_operand: int
    rows: int
    column_operand: int
    columns: int

    def cost(self, panel: int, lanes: int, positions: int) -> float:
        """Return the time per position, in steps of one row of the tile."""
        whole, rest = divmod(self.columns, panel)
        panels = whole + (0 if rest == 0 else 0.6 if rest <= lanes else 1)
        turned = TURNED * self.rows * self.columns / positions if self.row_operand == 0 else 0
        return panels * round_up(self.rows, 2) + TRANSPOSED * self.columns + turned


def choose_sides(g: Geometry, panel: int, lanes: int) -> Sides:
    """Return the cheaper way round: x is operand 0, dy operand 1."""
    sides = Sides(1, g.outputs, 0, g.channels), Sides(0, g.channels, 1, g.outputs)
    positions = max(1, g.images * math.prod(g.size))
    return min(sides, key=lambda side: side.cost(panel, lanes, positions))


def divisors(n: int) -> Iterable[int]:
    return (k for k in range(1, n + 1) if n % k == 0)


def plan_pointwise_gradient(dtype: str, g: Geometry, threads: int, shape: TileShape) -> LibraryCall:
    """Plan dw of a pointwise convolution."""
    plane = math.prod(g.size)
    if plane == 1 or (g.images == 1 and (plane <= MATRIX_PLANE or min(g.outputs, g.channels) <= FEW)):
        if plane == 1:
            k, dy_strides, x_strides = g.images, (0, 1, g.outputs), (0, g.channels, 1)
        else:
            k, dy_strides, x_strides = plane, (0, plane, 1), (0, 1, plane)
        return plan_gemm(
            dtype, g.outputs, g.channels, k, dy_strides, x_strides, (0, g.channels, 1), 1, threads,
            operands=(1, 0, 2), isa=shape.isa,
        )  # fmt: skip
    return plan_chunks(dtype, g, threads, shape)


def plan_chunks(dtype: str, g: Geometry, threads: int, shape: TileShape) -> LibraryCall:
    """Plan dw chunk by chunk: shares of the chunks sum for themselves, and blocks share the rows."""
    size, name = ITEM_SIZES[dtype], SHORT_NAMES[dtype]
    panel, lanes = shape.columns(size), shape.lanes(size)
    side = choose_sides(g, panel, lanes)
    plane = math.prod(g.size)
    pieces = ceil_div(plane, PIECE)
    piece = ceil_div(plane, pieces)
    batch = max(1, min(g.images, PIECE // piece, BATCH_BYTES // (side.rows * piece * size)))
    batches = ceil_div(g.images, batch)
    pitch = round_up(side.columns, lanes)
    sums_bytes = round_up(side.rows * pitch * size)
    operands = (g.images * (g.channels + g.outputs) * plane + g.outputs * g.channels) * size
    row_panels = ceil_div(side.rows, shape.rows)
    choices = [n for n in divisors(threads) if n <= row_panels]
    blocks = next((n for n in choices if threads // n * sums_bytes <= operands), choices[-1])
    shares = min(threads // blocks, batches * pieces)
    in_place = shares == 1 and side.row_operand == 1
    if in_place:
        pitch, sums_bytes = side.columns, 0
    by_row = side.row_operand == 1
    work = round_up((batch * piece + 2 * lanes) * panel * size)
    plan = (
        (g.images, plane, batches, pieces, shares, blocks)
        + (side.row_operand, side.rows, side.column_operand, side.columns)
        + (g.outputs, g.channels, pitch, *((pitch, 1) if by_row else (1, pitch)))
        + (sums_bytes, work, piece, int(in_place))
    )
    scratch = HEADER_BYTES + sums_bytes * shares + work * threads
    why = f"tile {shape.rows}x{panel}: {'x' if by_row else 'dy'} transposed, {batch} images at a time"
    return LibraryCall(f"tg_convp_{name}", f"convp_{name}", plan, scratch, g.flops, why, True, g.channels)
