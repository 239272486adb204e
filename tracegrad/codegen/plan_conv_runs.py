"""Plans of forward and data gradient: a *run* sums taps of a padded input at constant offsets (`conv_kernels`).

A data gradient with strides is one run per phase (d mod sd, p mod sh, q mod sw) of dx, each with the taps that reach
it; a phase without taps is zero.

Along the depth nothing is padded in memory: the copy holds, for each channel, the slices of the input that the taps of
one output slice read, each a plane of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tracegrad.codegen.conv_geometry import Geometry, Triple
from tracegrad.codegen.conv_layout import RUN_TABLE, RUN_WORDS
from tracegrad.codegen.plan import HEADER_BYTES, ITEM_SIZES, SHORT_NAMES, LibraryCall, ceil_div, round_up
from tracegrad.codegen.plan_gemm import K_BLOCK
from tracegrad.codegen.tile_shape import TileShape

RUN_CACHE = 768 << 10  # bytes of the padded input and of the result of one chunk: they stay in the L2 cache
LEAST_COLUMNS = 128  # of a chunk, where a row is cut

Pair = tuple[int, int]


@dataclass(frozen=True)
class Run:
    """One sweep over the planes of an input.

    result[m, e, i, j] = sum_{c, k} weights[m, c, taps[k]] * x[c, e*sd + slices[z[k]], i*sh + dh[k], j*sw + dw[k]]
    """

    channels: int
    size: Triple
    outputs: int
    taps: Sequence[int]
    slices: Sequence[int]
    z: Sequence[int]
    dh: Sequence[int]
    dw: Sequence[int]
    top: int
    left: int
    stride: Triple
    out: Triple
    w_output: int
    w_channel: int
    y_strides: tuple[int, int, int, int, int, int]  # image, plane, slice, row, column, first


def forward_runs(g: Geometry) -> list[Run]:
    """Return the one run of a forward convolution."""
    taps = list(itertools.product(*map(range, g.kernel)))
    (_, dh, dw), (front, top, left), (out_d, out_h, out_w) = g.dilation, g.low, g.out
    plane = out_d * out_h * out_w
    return [
        Run(
            g.channels, g.size, g.outputs, range(g.taps), [t * g.dilation[0] - front for t in range(g.kernel[0])],
            [t for t, _, _ in taps], [r * dh for _, r, _ in taps], [s * dw for _, _, s in taps],
            top, left, g.stride, g.out, g.channels * g.taps, g.taps,
            (g.outputs * plane, plane, out_h * out_w, out_w, 1, 0),
        )
    ]  # fmt: skip


def data_runs(g: Geometry) -> list[Run]:
    """Return a run per phase of dx.

    Row p = a + sh*i of dx gets tap r from row (p + top - r*dh) / sh of dy, so a + top - r*dh must be divisible by sh:
    the row is i + (a + top - r*dh) / sh, a constant offset.
    """
    (depth, height, width), (_, kh, kw) = g.size, g.kernel
    image = depth * height * width
    runs = []
    for phase in itertools.product(*(range(min(s, n)) for s, n in zip(g.stride, g.size, strict=True))):
        slices, rows, columns = (
            [(k, (a + low - k * d) // s) for k in range(count) if (a + low - k * d) % s == 0]
            for a, count, low, d, s in zip(phase, g.kernel, g.low, g.dilation, g.stride, strict=True)
        )
        top = max([0, *(-row for _, row in rows)])
        left = max([0, *(-column for _, column in columns)])
        taps = list(itertools.product(enumerate(slices), rows, columns))
        (sd, sh, sw), (c, a, b) = g.stride, phase
        runs.append(
            Run(
                g.outputs, g.out, g.channels, [(t * kh + r) * kw + s for (_, (t, _)), (r, _), (s, _) in taps],
                [place for _, place in slices], [z for (z, _), _, _ in taps],
                [row + top for _, (_, row), _ in taps], [column + left for _, _, (_, column) in taps],
                top, left, (1, 1, 1), (ceil_div(depth - c, sd), ceil_div(height - a, sh), ceil_div(width - b, sw)),
                g.taps, g.channels * g.taps,
                (g.channels * image, image, sd * height * width, sh * width, sw, (c * height + a) * width + b),
            )
        )  # fmt: skip
    return runs


@dataclass(frozen=True)
class PaddedCopy:
    """The padded copy of the input that taps are constant offsets into: [phase, channel, slice, row, column].

    Rows have a fixed pitch; what a tap reads right of a row is the zeros left of the next.  With strides the copy is
    split into the phases (row mod sh, column mod sw) that taps use.
    """

    pitch: int
    halo: int
    reach: int
    phases: list[Pair]

    def offsets(self, run: Run, channels: int, plane: int) -> list[int]:
        """Return the offset of each tap for each of `channels` channels (channels outer)."""
        _, sh, sw = run.stride
        slices = len(run.slices)
        places = []
        for z, dh, dw in zip(run.z, run.dh, run.dw, strict=True):
            phase = self.phases.index((dh % sh, dw % sw))
            places.append((phase * run.channels * slices + z) * plane + dh // sh * self.pitch + dw // sw)
        return [place + c * slices * plane for c in range(channels) for place in places]


def padded_copy(run: Run, column_chunks: int = 1) -> PaddedCopy:
    """Lay out the padded copy of one chunk of rows, or of parts of rows."""
    _, sh, sw = run.stride
    width, out_w = run.size[2], run.out[2]
    reach = max(run.dw, default=0) // sw
    halo = max(run.dh, default=0) // sh
    pitch = ceil_div(out_w, column_chunks) + reach
    if sw == 1 and column_chunks == 1:
        shared = max(width + run.left, out_w)
        if out_w + reach - shared <= run.left:
            pitch = shared
    phases = sorted({(dh % sh, dw % sw) for dh, dw in zip(run.dh, run.dw, strict=True)})
    return PaddedCopy(pitch, halo, reach, phases)


def cut_rows(images: int, out: Triple, row_bytes: int, halo: int, cache: int, threads: int) -> tuple[int, int, int]:
    """Return how many chunks the rows of an output slice are cut into, the most rows of one, and the chunks of a row.

    A row is cut only where it alone is too long for the cache, or there are too few rows for the threads: in 1-d.
    """
    out_d, out_h, out_w = out
    slices = images * out_d
    wanted = ceil_div((1 + halo) * row_bytes, cache)
    if slices * out_h < threads:
        wanted = max(wanted, ceil_div(threads, slices * out_h))
    column_chunks = max(1, min(wanted, out_w // LEAST_COLUMNS))
    rows = max(1, min(out_h, cache * column_chunks // row_bytes - halo))
    chunks = ceil_div(out_h, rows)
    tasks = slices * column_chunks
    while tasks * chunks % threads and tasks * chunks < 8 * threads and chunks < out_h:
        chunks += 1
    return chunks, ceil_div(out_h, chunks), column_chunks


def plan_runs(
    dtype: str, g: Geometry, runs: list[Run], threads: int, shape: TileShape, exact: tuple[int, ...], cut: int = 1
) -> LibraryCall:
    """Plan runs over one input; `exact`: the plan of plain loops for weights that are NaN or inf.

    cut: into how many parts chunks of the usual size are cut, to take less scratch.
    """
    size = ITEM_SIZES[dtype]
    columns = shape.columns(size)
    words: list[int] = []
    tables: list[int] = []
    packed = HEADER_BYTES
    pack_tasks = tasks = work = 0
    grains: list[int] = []
    for run in runs:
        pad = padded_copy(run)
        planes = run.channels * len(run.slices)
        row_bytes = (planes * max(1, len(pad.phases)) + run.outputs) * pad.pitch * size
        chunks, rows, column_chunks = cut_rows(g.images, run.out, row_bytes, pad.halo, RUN_CACHE // cut, threads)
        pad = padded_copy(run, column_chunks)
        plane = round_up((rows + pad.halo) * pad.pitch + columns + pad.reach, 16) + 16
        depth = run.channels * len(run.taps)
        panels = ceil_div(run.outputs, shape.rows)
        panel = panel_items(depth, size, shape)
        group_bytes = round_up(ceil_div(depth, K_BLOCK[size]) * panels * panel * size)
        padded_bytes = round_up((planes * len(pad.phases) * plane + columns) * size)
        y_pitch = round_up(rows * pad.pitch, columns)
        _, _, _, *steps, _ = run.y_strides
        is_dense = steps == [run.out[2], 1]
        is_one_row = rows == 1 or (pad.pitch == run.out[2] and column_chunks == 1)
        in_place = bool(run.taps) and is_dense and is_one_row
        work = max(work, padded_bytes + (0 if in_place else round_up(run.outputs * y_pitch * size)) + 64)
        table_start = RUN_TABLE + RUN_WORDS * len(runs) + len(tables)
        offset_table = table_start + len(run.taps)
        phase_table = offset_table + depth
        slice_table = phase_table + 2 * len(pad.phases)
        is_ordered = run.w_channel == len(run.taps) and list(run.taps) == list(range(len(run.taps)))
        words += [run.channels, *run.size, run.outputs, len(run.taps), int(is_ordered)]
        words += [run.top, run.left, *run.stride, *run.out]
        words += [pad.pitch, plane, rows, chunks, pad.halo]
        words += [run.w_output, run.w_channel, g.outputs * g.channels * g.taps]
        words += run.y_strides
        words += [pack_tasks, tasks, packed, group_bytes, padded_bytes]
        words += [table_start, offset_table, phase_table, len(pad.phases), column_chunks]
        words += [slice_table, len(run.slices), panel * size, int(in_place)]
        tables += run.taps
        tables += [place * size for place in pad.offsets(run, run.channels, plane)]
        tables += [x for phase in pad.phases for x in phase]
        tables += run.slices
        packed += group_bytes * g.groups
        is_whole_row = is_dense and column_chunks == 1
        grains.append((run.out[1] * run.out[2] if chunks == 1 else run.out[2]) if is_whole_row else 0)
        pack_tasks += panels * g.groups if run.taps else 0
        tasks += g.images * run.out[0] * chunks * column_chunks
    name = SHORT_NAMES[dtype]
    exact_plan = RUN_TABLE + len(words) + len(tables) if exact else 0
    plan = (g.images, g.groups, len(runs), pack_tasks, tasks, packed, work, exact_plan, *words, *tables, *exact)
    scratch = packed + work * threads
    has_gaps = any(run.y_strides[4] != 1 for run in runs)
    call = LibraryCall(f"tg_conv_{name}", f"conv_{name}", plan, scratch, g.flops)
    return replace(call, takes_epilogue=not has_gaps, grain=min(grains))


def panel_items(depth: int, size: int, shape: TileShape) -> int:
    """Return the elements of a packed panel of weights, with slack for full-vector stores."""
    return round_up((min(depth, K_BLOCK[size]) + 4 + shape.columns(size) // shape.rows) * shape.rows, 16)
