"""Plans of forward and data-gradient convolutions tap by tap: only products with what lies in the input.

    forward    y[o, e]                   += w[o, :, tap] @ x[:, e*s + tap*d - low]
    data       dx[c, e*s + tap*d - low]  += w[:, c, tap]^T @ dy[:, e]               for all e whose place lies in x

Each tap is a product over channels, whose columns are the positions e of a box; they are packed side by side, through
rows and images (`conv_tap_kernels`).  Zeros around x are not multiplied, and the weights of a tap are read once for all
positions, where the tile over a padded copy (`plan_conv_runs`) reads all weights for each of its chunks.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from tracegrad.codegen.conv_geometry import Geometry, Triple
from tracegrad.codegen.plan import HEADER_BYTES, ITEM_SIZES, SHORT_NAMES, LibraryCall, ceil_div, round_up
from tracegrad.codegen.plan_gemm import K_BLOCK
from tracegrad.codegen.tile_shape import TileShape

# Words of the plan; offsets and steps are in elements.  The source is read, the result is written.
IMAGES, DEPTH, ROWS, TAPS, KERNEL = range(5)  # terms and rows of the products; taps that meet x, and all taps
SOURCE_D, SOURCE_H, SOURCE_W, SOURCE_PLANE = range(5, 9)  # from a position to the next, and the size of a plane
RESULT_D, RESULT_H, RESULT_W, RESULT_PLANE = range(9, 13)
W_ROW, W_TERM = range(13, 15)  # from a row of a product to the next in the weights, and from a term to the next
PANEL_BYTES, TAP_BYTES = range(15, 17)  # of packed weights [panel, tap, term, row]
ROW_BLOCKS, IMAGE_BLOCKS, TERM_BLOCKS = range(17, 20)
WORK_OFFSET, WORK_BYTES, TILE_OFFSET, SEGMENT_OFFSET = range(20, 24)  # a thread's work: a strip, a tile, segments
OUT_D, OUT_H, OUT_W, IS_PADDED, PACK_TASKS = range(24, 29)  # of the result; whether zeros around x are multiplied
TAP_TABLE = 29

# A tap: its number; the positions of its box; where the first one is; and the box in the result.
NUMBER, COUNT_D, COUNT_H, COUNT_W, SOURCE, RESULT = range(6)
FIRST_D, FIRST_H, FIRST_W, END_D, END_H, END_W = range(6, 12)
TAP_WORDS = 12

# A segment of a strip: neighbours of a row.
S_SOURCE, S_RESULT, S_COLUMN, S_COUNT = range(4)
SEGMENT_WORDS = 4
WORD = 8

Pair = tuple[int, int]

ROW_BLOCK = 256
"""Rows of a task: their weights of a tap and a block of terms, 256 KiB, meet every strip out of the L2 cache."""
IMAGE_BYTES = 512 << 10
"""Bytes of images that a tap meets before the next one does: of the L2 cache, where they fit it."""
TAP_COSTS = (1.6, 0.36, 3.7, 1.44, 3.5)
"""Of a product of a tile's row, of an element that is added to neighbours of the result, of one that is added to
elements with a stride, of one that is packed for a strip, and of a weight that is packed: fitted to 130 random layers,
with `plan_conv_runs.TILE_COSTS`.  The path with the lower costs took 2 % longer than the faster one, in the mean."""


@dataclass(frozen=True)
class Reach:
    """The output positions of an axis that a tap joins with x: `count` from `first` on, which meets `place`."""

    first: int
    count: int
    place: int


def reach(g: Geometry, axis: int, tap: int) -> Reach:
    """Return where a tap meets x along an axis."""
    n, stride, out = g.size[axis], g.stride[axis], g.out[axis]
    shift = tap * g.dilation[axis] - g.low[axis]
    first = max(0, ceil_div(-shift, stride))
    return Reach(first, max(0, min(out, (n - 1 - shift) // stride + 1) - first), first * stride + shift)


def reaches(g: Geometry) -> list[list[Reach]]:
    """Return for each axis where its taps meet x."""
    return [[reach(g, axis, tap) for tap in range(g.kernel[axis])] for axis in range(3)]


def share_inside(g: Geometry) -> float:
    """Return the share of products that are with elements of x, not with the zeros around it."""
    axes = zip(reaches(g), g.kernel, g.out, strict=True)
    return math.prod(sum(r.count for r in axis) / (taps * out) for axis, taps, out in axes)


@dataclass(frozen=True)
class Side:
    """An array that is read or written: its size, and how far an axis moves on from one position to the next."""

    size: Triple
    stride: Triple

    @property
    def plane(self) -> int:
        return math.prod(self.size)

    @property
    def steps(self) -> Triple:
        """Return the elements from one position to the next."""
        _, height, width = self.size
        return height * width * self.stride[0], width * self.stride[1], self.stride[2]

    def element(self, place: Sequence[int]) -> int:
        """Return the number of the element at a place."""
        return (place[0] * self.size[1] + place[1]) * self.size[2] + place[2]


def tap_words(kind: str, number: int, box: Sequence[Reach], x: Side, y: Side) -> list[int]:
    """Return the words of a tap; its rows, and slices, are joined where they follow each other in both arrays."""
    places, firsts, counts = ([getattr(r, name) for r in box] for name in ("place", "first", "count"))
    d, h, w = counts
    if all(w * side.steps[2] == side.steps[1] for side in (x, y)):
        h, w = 1, h * w
    if h == 1 and all(w * side.steps[2] == side.steps[0] for side in (x, y)):
        d, w = 1, d * w
    starts = [x.element(places), y.element(firsts)]
    if kind == "data":
        starts.reverse()
    return [number, d, h, w, *starts, *firsts, *(a + n for a, n in zip(firsts, counts, strict=True))]


def taps_cost(kind: str, g: Geometry, shape: TileShape, size: int) -> float:
    """Return the time of a convolution tap by tap, in steps of one of the tile's rows (see `TAP_COSTS`)."""
    depth, rows = (g.channels, g.outputs) if kind == "forward" else (g.outputs, g.channels)
    columns, panels = shape.columns(size), ceil_div(rows, shape.rows)
    positions = [g.images * math.prod(r.count for r in box) for box in itertools.product(*reaches(g))]
    tiles = panels * sum(ceil_div(n, columns) for n in positions)
    added = tiles * shape.rows * columns * ceil_div(depth, K_BLOCK[size])
    packed = ceil_div(panels, ceil_div(ROW_BLOCK, shape.rows)) * sum(positions) * depth
    is_strided = kind == "data" and g.stride[2] > 1
    terms = (tiles * shape.rows * depth, added * (not is_strided), added * is_strided, packed, rows * depth * g.taps)
    return sum(cost * term for cost, term in zip(TAP_COSTS, terms, strict=True))


def cut_tasks(g: Geometry, panels: int, shape: TileShape, image_bytes: int, threads: int) -> Pair:
    """Return into how many blocks the rows and the images are cut: as many tasks for each thread.

    Every block of rows packs the strips again, every block of images reads all weights again.
    """
    row_blocks = ceil_div(panels, ceil_div(ROW_BLOCK, shape.rows))
    image_blocks = ceil_div(g.images, max(1, IMAGE_BYTES // image_bytes))
    if row_blocks * image_blocks % threads == 0:
        return row_blocks, image_blocks
    if round_up(image_blocks, threads) <= g.images:
        return row_blocks, round_up(image_blocks, threads)
    return min(panels, round_up(row_blocks, threads)), image_blocks


def plan_taps(kind: str, dtype: str, g: Geometry, threads: int, shape: TileShape) -> LibraryCall:
    """Plan a convolution of kind "forward" or "data" tap by tap, without groups."""
    size, name = ITEM_SIZES[dtype], SHORT_NAMES[dtype]
    columns = shape.columns(size)
    x, y = Side(g.size, g.stride), Side(g.out, (1, 1, 1))
    if kind == "forward":
        source, result, depth, rows, w_steps = x, y, g.channels, g.outputs, (g.channels * g.taps, g.taps)
    else:
        source, result, depth, rows, w_steps = y, x, g.outputs, g.channels, (g.taps, g.channels * g.taps)
    boxes = [(n, box) for n, box in enumerate(itertools.product(*reaches(g))) if min(r.count for r in box) > 0]
    panels = ceil_div(rows, shape.rows)
    image_bytes = (min(depth, K_BLOCK[size]) * source.plane + min(rows, ROW_BLOCK) * result.plane) * size
    row_blocks, image_blocks = cut_tasks(g, panels, shape, image_bytes, threads)
    term_blocks = ceil_div(depth, K_BLOCK[size])
    tap_bytes = round_up((depth * shape.rows + shape.lanes(size)) * size)
    panel_bytes = (g.taps + 1) * tap_bytes  # packing clobbers what is behind the last tap
    strip_bytes = round_up((ceil_div(depth, term_blocks) + 1) * columns * size)
    tile_bytes = round_up(shape.rows * columns * size)
    work_offset = HEADER_BYTES + panels * panel_bytes
    work = strip_bytes + tile_bytes + round_up(columns * SEGMENT_WORDS * WORD)
    plan = (
        (g.images, depth, rows, len(boxes), g.taps)
        + (*source.steps, source.plane, *result.steps, result.plane, *w_steps, panel_bytes, tap_bytes)
        + (row_blocks, image_blocks, term_blocks, work_offset, work, strip_bytes, strip_bytes + tile_bytes)
        + (*result.size, int(kind == "forward"), min(panels, 4 * threads))
        + tuple(word for n, box in boxes for word in tap_words(kind, n, box, x, y))
    )
    assert len(plan) == TAP_TABLE + TAP_WORDS * len(boxes)
    why = f"{row_blocks}x{image_blocks} blocks of rows and images"
    scratch = work_offset + work * threads
    return LibraryCall(f"tg_convt_{name}", f"convt_{name}", plan, scratch, g.flops, why, True, result.plane)
