"""Plans of the gradient of convolution weights as a product with patches of the input (`conv_patch_kernels`).

    dw[o, k] = sum_p  dy[o, p] * patch[p, k]        k = (channel, tap), p = (image, position)

Columns k are those of dw in memory, so the tile adds to the result itself.  `plan_conv_weight` transposes each channel
once for all of its taps, but sums every tap apart, and moves these sums to dw at the end: where positions are few, that
takes longer than the products.  Here every tap's elements are transposed, and all positions of a chunk are outputs.

A task has some columns of all maps.  A chunk has some rows of a plane of dy, or several planes (of images, of slices);
dy is packed for the tile before, by all threads.
"""

from __future__ import annotations

import math

from tracegrad.codegen.conv_geometry import Geometry
from tracegrad.codegen.plan import HEADER_BYTES, ITEM_SIZES, SHORT_NAMES, LibraryCall, ceil_div, round_up
from tracegrad.codegen.plan_conv_runs import PaddedCopy, Sweep, forward_sweep, padded_copy
from tracegrad.codegen.plan_gemm import K_BLOCK
from tracegrad.codegen.tile_shape import TileShape

# Words of the plan; tables are places in it, the tiles' panel and the offsets have places in a thread's work.
IMAGES, CHANNELS, DEPTH, HEIGHT, WIDTH, OUTPUTS, TAPS = range(7)
TOP, LEFT, STRIDE_D, STRIDE_H, STRIDE_W, OUT_D, OUT_H, OUT_W = range(7, 15)
PITCH, PLANE, HALO, PHASE_TABLE, PHASES, SLICE_TABLE, SLICES = range(15, 22)  # of the padded copy
CHUNKS, ROW_CHUNKS, DY_BYTES, BLOCKS = range(22, 26)  # dy is packed: [panel, position, map]
WORK_OFFSET, WORK_BYTES, PANEL_OFFSET, OFFSET_TABLE = range(26, 30)
PATCH_WORDS = 30
# A tap: its phase of the padded copy, its slice, and its place in a plane; in elements.
PHASE, SLICE, PLACE = range(3)
TAP_WORDS = 3
WORD = 8

COPY_BYTES = 192 << 10
"""Of the padded copies of a task's channels, for one chunk: with the packed dy of the chunk they fit the L2 cache."""
PATCH_COSTS = (1.24, 0.31, 3.4, 1.4, 1.3)
"""Of a product of a tile's row, of an element that is transposed, of one that is copied to the padded input, of one of
dw that is added to, and of one of dy that is packed: fitted to 150 layers, with `plan_conv_weight.GRADIENT_COSTS`.  The
path with the lower costs took 0.5 % longer than the faster one, in the mean."""


def patches_cost(g: Geometry, shape: TileShape, size: int) -> float:
    """Return the time of the gradient by patches, in steps of one of the tile's rows (see `PATCH_COSTS`)."""
    columns, lanes = shape.columns(size), shape.lanes(size)
    sweep = forward_sweep(g)
    pad = padded_copy(sweep)
    chunks, row_chunks, chunk_planes = cut_positions(g, K_BLOCK[size])
    planes, rows = g.images * g.out[0], round_up(g.outputs, shape.rows)
    positions = planes * g.out[1] * g.out[2]
    panels = ceil_div(g.channels * g.taps, columns)
    gathered = panels * columns * planes * g.out[1] * round_up(g.out[2], lanes)
    copied = (g.out[1] + row_chunks * pad.halo) * pad.pitch * len(pad.phases) * len(sweep.runs[0].slices)
    blocks, channels = cut_columns(g, copied // row_chunks * chunk_planes * size, columns, 1)
    added = rows * panels * columns * chunks
    terms = (panels * rows * positions, gathered, copied * planes * blocks * channels, added, rows * positions)
    return sum(cost * term for cost, term in zip(PATCH_COSTS, terms, strict=True))


def plan_patches(dtype: str, g: Geometry, threads: int, shape: TileShape) -> LibraryCall:
    """Plan the gradient of the weights as a product with patches, without groups."""
    size, name = ITEM_SIZES[dtype], SHORT_NAMES[dtype]
    columns = shape.columns(size)
    sweep = forward_sweep(g)
    pad, run = padded_copy(sweep), sweep.runs[0]
    chunks, row_chunks, planes = cut_positions(g, K_BLOCK[size])
    rows = ceil_div(g.out[1], row_chunks)
    plane = round_up((rows + pad.halo) * pad.pitch + columns + pad.reach, 16) + 16
    channel_items = planes * len(pad.phases) * len(run.slices) * plane
    blocks, channels = cut_columns(g, channel_items * size, columns, threads)
    widest = ceil_div(ceil_div(g.channels * g.taps, columns), blocks) * columns
    copy_bytes = round_up((channels * channel_items + columns) * size)
    panel_bytes = round_up((planes * rows * g.out[2] + 1) * columns * size)
    dy_bytes = round_up((g.images * math.prod(g.out) + shape.lanes(size)) * shape.rows * size)
    work_offset = HEADER_BYTES + ceil_div(g.outputs, shape.rows) * dy_bytes
    work = copy_bytes + panel_bytes + round_up(widest * WORD)
    phase_table = PATCH_WORDS + TAP_WORDS * g.taps
    slice_table = phase_table + 2 * len(pad.phases)
    plan = (
        (g.images, g.channels, *g.size, g.outputs, g.taps, sweep.top, sweep.left, *g.stride, *g.out)
        + (pad.pitch, plane, pad.halo, phase_table, len(pad.phases), slice_table, len(run.slices))
        + (chunks, row_chunks, dy_bytes, blocks, work_offset, work, copy_bytes, copy_bytes + panel_bytes)
        + tuple(tap_places(sweep, pad))
        + (*(x for phase in pad.phases for x in phase), *run.slices)
    )
    why = f"{blocks} blocks of columns, {chunks} chunks of positions"
    scratch = work_offset + work * threads
    grain = g.outputs * g.channels * g.taps if blocks == 1 else 0
    return LibraryCall(f"tg_convu_{name}", f"convu_{name}", plan, scratch, g.flops, why, True, grain)


def cut_positions(g: Geometry, most: int) -> tuple[int, int, int]:
    """Return the numbers of chunks, of chunks of a plane of dy, and of planes in a chunk: about `most` positions."""
    planes, (_, height, width) = g.images * g.out[0], g.out
    if height * width <= most:
        chunks = ceil_div(planes, max(1, most // (height * width)))
        return chunks, 1, ceil_div(planes, chunks)
    row_chunks = ceil_div(height, max(1, most // width))
    return planes * row_chunks, row_chunks, 1


def cut_columns(g: Geometry, channel_bytes: int, columns: int, threads: int) -> tuple[int, int]:
    """Return into how many blocks the columns of dw are cut, and the most channels that meet one."""
    panels = ceil_div(g.channels * g.taps, columns)
    widest = ceil_div(max(1, COPY_BYTES // channel_bytes) * g.taps, columns)
    blocks = min(panels, round_up(ceil_div(panels, widest), threads))
    return blocks, min(g.channels, (ceil_div(panels, blocks) * columns - 2) // g.taps + 2)


def tap_places(sweep: Sweep, pad: PaddedCopy) -> list[int]:
    """Return for each tap its phase, its slice, and its place in the padded copy of a plane."""
    _, sh, sw = sweep.stride
    run = sweep.runs[0]
    words = []
    for z, dh, dw in zip(run.z, run.dh, run.dw, strict=True):
        words += [pad.phases.index((dh % sh, dw % sw)), z, dh // sh * pad.pitch + dw // sw]
    return words
