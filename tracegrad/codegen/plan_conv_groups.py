"""Plans of the gradient of the weights of grouped convolutions by dot products (`conv_group_kernels`).

    dw[o, k] = sum over images, slices and chunks of rows of  sum_p  dy[o, p] * padded[p + offset(k)]     k = (c, tap)

Positions p have the pitch of the padded copy of x; the copy of dy is zero where a position is no output.  The tile of a
product (`plan_conv_weight`) is mostly empty where a group has few channels, and both operands are transposed for it;
here vectors run over positions (`dot_tile`), whatever the number of channels.

Small images are summed several at a time: each has its copies, at equal distances.  A task computes maps of a group.
"""

from __future__ import annotations

import math
from dataclasses import replace

from tracegrad.codegen.conv_geometry import Geometry
from tracegrad.codegen.plan import HEADER_BYTES, ITEM_SIZES, SHORT_NAMES, LibraryCall, ceil_div, round_up
from tracegrad.codegen.plan_conv_runs import cut_rows, forward_sweep, padded_copy
from tracegrad.codegen.plan_conv_weight import plane_sweep
from tracegrad.codegen.tile_shape import THIN_ROWS, TileShape, thin_vectors

# Words of the plan; tables are places in it, offsets in the copies are in elements.
IMAGES, GROUPS, CHANNELS, DEPTH, HEIGHT, WIDTH, OUTPUTS, TAPS = range(8)
TOP, LEFT, STRIDE_D, STRIDE_H, STRIDE_W, OUT_D, OUT_H, OUT_W = range(8, 16)
PITCH, PLANE, HALO, PHASE_TABLE, PHASES, SLICE_TABLE, SLICES = range(16, 23)  # of the padded copy
CHUNKS, COLUMN_CHUNKS, BATCH, X_BLOCK, MAP_PLANE, DY_BLOCK, MAP_BLOCKS = range(23, 30)
DY_OFFSET, WORK_BYTES, OFFSET_TABLE, EXACT_PLAN = range(30, 34)  # places in a thread's work; bytes
GROUP_WORDS = 34

CACHE = 1 << 18  # bytes of both copies of a chunk: they stay in the L2 cache
MOST_PAIRS = 1 << 10  # of a channel and a map of a group
FEW_CHANNELS, LEAST_PRODUCTS = 16, 512  # products of a pair, where channels are not few
ROW_BYTES = 1 << 12  # of a plane of the copies: the tile's rows of dy, and some of x, stay in the L1 cache


def are_groups_small(g: Geometry, threads: int) -> bool:
    """Say whether dot products are faster than tiles of a product, and there are enough of them for all threads.

    Tiles over dot products, in time (one core with AVX2, 3 x 3 taps, 28 x 28), with as many channels and maps in a
    group: 5.9 (2), 2.7 (4), 1.8 (8), 1.15 (16), 1.0 (32), 0.88 (64); 1 x 1: 1.7, 2.8, 1.7, 1.1, 1.0, 0.8.  Small maps
    make the transposes dearer: 32 channels on 14 x 14 1.0 to 1.3.  Summing up the lanes takes as long as some vectors
    of products: for one image of 7 x 7 1.3 (8) and 0.95 (16).
    """
    if g.groups == 1 or g.groups * ceil_div(g.outputs, THIN_ROWS) < threads or g.channels * g.outputs > MOST_PAIRS:
        return False
    return g.channels < FEW_CHANNELS or g.images // g.groups * math.prod(g.out) * g.taps >= LEAST_PRODUCTS


def cut_maps(g: Geometry, threads: int) -> int:
    """Return into how many blocks a group's maps are cut, so that threads have as much to do: each copies x again."""
    if g.groups % threads == 0 or g.groups >= 4 * threads:
        return 1
    return min(ceil_div(g.outputs, THIN_ROWS), ceil_div(4 * threads, g.groups))


def plan_groups(
    dtype: str, g: Geometry, threads: int, shape: TileShape, exact: tuple[int, ...], cut: int = 1
) -> LibraryCall:
    """Plan the gradient of the weights; `exact`: the plan of plain loops for sums that are NaN or inf.

    cut: into how many parts chunks of the usual size are cut, to take less scratch.
    """
    size = ITEM_SIZES[dtype]
    lanes = shape.lanes(size)
    if g.is_pointwise:
        g = replace(g, size=(1, 1, math.prod(g.size)), out=(1, 1, math.prod(g.out)))  # a plane is a row: fewer to copy
    sweep, slices = plane_sweep(g), forward_sweep(g).runs[0].slices
    pad = padded_copy(sweep)
    planes = sweep.channels * len(pad.phases)
    blocks = cut_maps(g, threads)
    maps = ceil_div(g.outputs, blocks)
    cache = min(CACHE, (planes + maps) * ROW_BYTES) // cut
    chunks, rows, column_chunks = cut_rows(g.images, g.out, (planes + maps) * pad.pitch * size, pad.halo, cache, 1)
    pad = padded_copy(sweep, column_chunks)
    plane = round_up((rows + pad.halo) * pad.pitch + pad.reach + 2 * lanes, 16) + 16
    map_plane = round_up(rows * pad.pitch, lanes) + lanes
    image_bytes = (planes * plane + maps * map_plane) * size
    batch = max(1, min(g.images // g.groups, cache // image_bytes)) if chunks * column_chunks == 1 else 1
    dy_offset = round_up((batch * planes * plane + 2 * lanes) * size)
    work = dy_offset + round_up((batch * maps * map_plane + 2 * lanes) * size)
    offsets = [place * size for place in pad.offsets(sweep, sweep.runs[0], sweep.channels, plane)]
    offsets += offsets[-1:] * (thin_vectors(1) - 1)
    phase_table = GROUP_WORDS + len(offsets)
    slice_table = phase_table + 2 * len(pad.phases)
    plan = (
        (g.images, g.groups, sweep.channels, *g.size, g.outputs, len(sweep.runs[0].taps), sweep.top, sweep.left)
        + (*g.stride, *g.out, pad.pitch, plane, pad.halo, phase_table, len(pad.phases), slice_table, len(slices))
        + (chunks, column_chunks, batch, planes * plane, map_plane, maps * map_plane, blocks)
        + (dy_offset, work, GROUP_WORDS, slice_table + len(slices))
        + (*offsets, *(x for phase in pad.phases for x in phase), *slices, *exact)
    )
    name = SHORT_NAMES[dtype]
    scratch = HEADER_BYTES + work * threads
    call = LibraryCall(f"tg_convg_{name}", f"convg_{name}", plan, scratch, g.flops)
    return replace(call, takes_epilogue=True, grain=math.prod((sweep.channels, len(sweep.runs[0].taps))))
