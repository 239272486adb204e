"""Plans of the gradient of convolution weights on the tile (`conv_weight_kernels`).

A depth tap is a channel: (c, t) reads the slices of x that tap t meets, and dw[o, (c, t), r, s] is the gradient of 2-d
weights, summed over the output slices.
"""

from __future__ import annotations

import math
from dataclasses import replace

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


def plan_gradient(
    dtype: str, g: Geometry, threads: int, shape: TileShape, exact: tuple[int, ...], cut: int = 1
) -> LibraryCall:
    """Plan the gradient of the weights; `exact`: the plan of plain loops for sums that are NaN or inf.

    cut: into how many parts chunks of the usual size are cut, to take less scratch.
    """
    size = ITEM_SIZES[dtype]
    columns = shape.columns(size)
    sweep = plane_sweep(g)
    run, channels, slices = sweep.runs[0], sweep.channels, forward_sweep(g).runs[0].slices
    taps = len(run.taps)
    pad = padded_copy(sweep)
    phases = len(pad.phases)
    is_wide = channels >= columns // 2
    in_place = g.is_pointwise and is_wide
    c_padded = round_up(channels, columns)
    o_padded = round_up(g.outputs, columns)
    row_items = channels * phases + g.outputs + (c_padded * phases if is_wide else 0)
    row_bytes = row_items * pad.pitch * size
    chunks, rows, column_chunks = cut_rows(g.images, g.out, row_bytes, pad.halo, GRADIENT_CACHE // cut, threads)
    if is_halo_large(g, rows, pad.halo):
        return plan_gradient(dtype, rows_as_slices(g), threads, shape, exact, cut)
    if in_place and cut == 1:
        column_chunks = 1
    in_place = in_place and column_chunks == 1
    pad = padded_copy(sweep, column_chunks)
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
