"""Plans of the gradient of convolution weights on the tile (`conv_weight_kernels`).

A depth tap is a channel: (c, t) reads the slices of x that tap t meets, and dw[o, (c, t), r, s] is the gradient of 2-d
weights, summed over the output slices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from tracegrad.codegen.conv_geometry import Geometry
from tracegrad.codegen.conv_layout import GRADIENT_WORDS, POSITION_BLOCK
from tracegrad.codegen.plan import HEADER_BYTES, ITEM_SIZES, SHORT_NAMES, LibraryCall, ceil_div, round_up
from tracegrad.codegen.plan_conv_runs import (
    Run,
    Sweep,
    cut_rows,
    forward_sweep,
    is_halo_large,
    padded_copy,
    rows_as_slices,
)
from tracegrad.codegen.tile_shape import TileShape

GRADIENT_CACHE = 1 << 20
GRADIENT_COSTS = (1.0, 1.3, 1.7, 2.8, 2.4)
"""Of a product of a tile's row, of an element that is transposed, of one that is copied to the padded input, of one of
the sums that is added to, and of one of the result: fitted to 150 layers (one core with AVX2)."""


def plane_sweep(g: Geometry) -> Sweep:
    """Return the forward run of one slice of the kernel over all planes (channel, depth tap)."""
    sweep = forward_sweep(g)
    run, taps = sweep.runs[0], g.kernel[1] * g.kernel[2]
    one = Run(run.taps[:taps], [0], [0] * taps, run.dh[:taps], run.dw[:taps])
    return replace(sweep, channels=g.channels * g.kernel[0], runs=[one])


def cut_maps(g: Geometry, sums_bytes: int, panels: int, threads: int, size: int) -> int:
    """Return into how many blocks the output maps are cut.

    Every share of the positions has sums of its own, and they are as large as the weights. Where those are not small
    beside the rest, tasks take different maps instead; each then copies the input for itself.
    """
    positions = g.images * (g.channels * math.prod(g.size) + g.outputs * math.prod(g.out))
    weights = g.groups * g.outputs * g.channels * g.taps
    choices = [n for n in range(1, threads + 1) if threads % n == 0 and n <= max(panels, 1)]
    return next((n for n in choices if threads // n * sums_bytes <= (positions + weights) * size), choices[-1])


@dataclass(frozen=True)
class Chunks:
    """How positions are cut: rows into `count` chunks of at most `rows`, and each of them into `columns`."""

    g: Geometry
    sweep: Sweep
    count: int
    rows: int
    columns: int
    is_wide: bool


def cut_positions(g: Geometry, threads: int, shape: TileShape, size: int, cut: int = 1) -> Chunks:
    """Cut the rows of dy, or, where taps lie far apart, those of `rows_as_slices`."""
    columns = shape.columns(size)
    sweep = plane_sweep(g)
    pad = padded_copy(sweep)
    channels, phases = sweep.channels, len(pad.phases)
    is_wide = channels >= columns // 2
    row_items = channels * phases + g.outputs + (round_up(channels, columns) * phases if is_wide else 0)
    row_bytes = row_items * pad.pitch * size
    chunks, rows, column_chunks = cut_rows(g.images, g.out, row_bytes, pad.halo, GRADIENT_CACHE // cut, threads)
    if is_halo_large(g, rows, pad.halo):
        return cut_positions(rows_as_slices(g), threads, shape, size, cut)
    return Chunks(g, sweep, chunks, rows, column_chunks, is_wide)


def gradient_cost(g: Geometry, threads: int, shape: TileShape, size: int) -> float:
    """Return the time of the gradient on the tile, in steps of one of the tile's rows (see `GRADIENT_COSTS`)."""
    found = cut_positions(g, threads, shape, size)
    g, channels = found.g, found.sweep.channels
    pad = padded_copy(found.sweep, found.columns)
    columns, taps = shape.columns(size), len(found.sweep.runs[0].taps)
    chunks = g.images * g.out[0] * found.count * found.columns
    positions = chunks * found.rows * pad.pitch
    plane = chunks * len(pad.phases) * (found.rows + pad.halo) * pad.pitch
    weights = g.outputs * channels * taps
    if found.is_wide:
        tiles = ceil_div(channels, columns) * round_up(g.outputs, shape.rows) * taps
        turned = round_up(channels, columns) * plane + g.outputs * positions
    else:
        tiles = ceil_div(g.outputs, columns) * round_up(channels * taps, shape.rows)
        turned = (channels * taps + round_up(g.outputs, columns)) * positions
    sums = weights * max(chunks, ceil_div(positions, POSITION_BLOCK))
    terms = (tiles * positions, turned, channels * plane, sums, weights)
    return sum(cost * term for cost, term in zip(GRADIENT_COSTS, terms, strict=True))


def plan_gradient(
    dtype: str, g: Geometry, threads: int, shape: TileShape, exact: tuple[int, ...], cut: int = 1
) -> LibraryCall:
    """Plan the gradient of the weights; `exact`: the plan of plain loops for sums that are NaN or inf.

    cut: into how many parts chunks of the usual size are cut, to take less scratch.
    """
    size = ITEM_SIZES[dtype]
    columns = shape.columns(size)
    found = cut_positions(g, threads, shape, size, cut)
    g, sweep, is_wide = found.g, found.sweep, found.is_wide
    chunks, rows, column_chunks = found.count, found.rows, found.columns
    run, channels, slices = sweep.runs[0], sweep.channels, forward_sweep(g).runs[0].slices
    taps = len(run.taps)
    in_place = g.is_pointwise and is_wide
    c_padded = round_up(channels, columns)
    o_padded = round_up(g.outputs, columns)
    if in_place and cut == 1:
        column_chunks = 1
    in_place = in_place and column_chunks == 1
    pad = padded_copy(sweep, column_chunks)
    phases = len(pad.phases)
    plane = round_up((rows + pad.halo) * pad.pitch + columns + pad.reach, 16) + 16
    positions = rows * pad.pitch
    slack = 4 + columns // shape.rows
    x_bytes = round_up((channels * phases * plane + columns) * size)
    if is_wide:
        dy_items = ceil_div(g.outputs, shape.rows) * (positions + slack) * shape.rows + columns
        places = pad.offsets(sweep, run, 1, plane)
        offsets = [place // (channels * plane) * plane + place % plane for place in places]
        turned_items = (c_padded // columns * phases * plane + 4) * columns
        group_sums = taps * g.outputs * c_padded
    else:
        dy_items = (o_padded // columns * positions + 4) * columns
        offsets = [place * size for place in pad.offsets(sweep, run, channels, plane)]
        turned_items = (POSITION_BLOCK + slack) * shape.rows + columns
        group_sums = channels * taps * o_padded
    group_sums = round_up(group_sums, 16)
    dy_bytes = round_up(dy_items * size)
    work = x_bytes + dy_bytes + round_up(turned_items * size) + 64
    sums_bytes = round_up(group_sums * g.groups * size)
    if g.groups % threads == 0 or g.groups >= 4 * threads:  # 32 groups on two cores: 1.1 to 1.35 times as fast
        units, map_blocks, shares, parts = g.groups, 1, 1, min(g.groups, 4 * threads)
    else:
        units = g.images * g.out[0] * chunks * column_chunks
        map_blocks = cut_maps(g, sums_bytes, ceil_div(g.outputs, shape.rows if is_wide else columns), threads, size)
        shares = parts = threads // map_blocks
    work_offset = HEADER_BYTES + sums_bytes * shares
    phase_table = GRADIENT_WORDS + len(offsets)
    slice_table = phase_table + 2 * phases
    plan = (
        (g.images, g.groups, channels, *g.size, g.outputs, taps, sweep.top, sweep.left, *g.stride, *g.out)
        + (pad.pitch, plane, rows, chunks, pad.halo, int(is_wide), int(in_place), shares)
        + (sums_bytes, work_offset, work, x_bytes, x_bytes + dy_bytes, group_sums)
        + (GRADIENT_WORDS, phase_table, phases, column_chunks, slice_table, len(slices))
        + (slice_table + len(slices), map_blocks, units, parts)
        + (*offsets, *(x for phase in pad.phases for x in phase), *slices, *exact)
    )
    name = SHORT_NAMES[dtype]
    scratch = work_offset + work * threads
    call = LibraryCall(f"tg_convw_{name}", f"convw_{name}", plan, scratch, g.flops)
    return replace(call, takes_epilogue=True, grain=channels * taps)
