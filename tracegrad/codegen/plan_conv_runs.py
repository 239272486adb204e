"""Plans of forward and data gradient: a *run* sums taps of a padded input at constant offsets (`conv_kernels`).

A data gradient with strides has one run per phase (d mod sd, p mod sh, q mod sw) of dx, each with the taps that reach
it; a phase without taps is zero.  All runs of a slice read one padded copy, and their results are interleaved.

Along the depth nothing is padded in memory: the copy holds, for each channel, the slices of the input that the taps of
one output slice read, each a plane of its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tracegrad.codegen.conv_geometry import Geometry, Triple
from tracegrad.codegen.conv_layout import ROW_BY_ROW, RUN_TABLE, RUN_WORDS
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import HEADER_BYTES, ITEM_SIZES, SHORT_NAMES, LibraryCall, ceil_div, round_up
from tracegrad.codegen.plan_gemm import K_BLOCK
from tracegrad.codegen.tile_shape import TileShape

RUN_CACHE = 768 << 10  # bytes of the padded input and of the result of one chunk: they stay in the L2 cache
PART_OF_TILE = 0.8  # the time of a tile of one vector, in whole ones
COPY = 1.0  # the time of moving an element to the result, in terms of a row of the tile
LEAST_COLUMNS = 128  # of a chunk, where a row is cut
TILE_COSTS = (1.0, 3.2, 0.3, 6.0, 4.7)
"""Of a product of a tile's row, of a weight that is packed, of one that is read for a chunk, of an element that is
copied to the padded input, and of one of the result (fitted to 130 random layers, one core with AVX2)."""

Pair = tuple[int, int]
Places = list[Pair]  # taps along an axis, and where they read


@kernel
def depth_blocks(depth: int, limit: int) -> int:
    """Return into how many blocks the terms of a sum are cut, for what the tile reads to stay in the L1 cache.

    A little more than one block is not cut: 32 channels by 9 taps, whose rows share cache lines, are a tenth faster so.
    """
    return 1 if 4 * depth <= 5 * limit else (depth + limit - 1) // limit


@dataclass(frozen=True)
class Run:
    """The taps of one phase of the result; z counts `slices`.

    result[m, e*td + c, i*th + a, j*tw + b]
        = sum_{x, k} weights[m, x, taps[k]] * padded[x, e*sd + slices[z[k]], i*sh + dh[k], j*sw + dw[k]]

    for the phase (c, a, b), t: `Sweep.step`, s: `Sweep.stride`.
    """

    taps: Sequence[int]
    slices: Sequence[int]
    z: Sequence[int]
    dh: Sequence[int]
    dw: Sequence[int]


@dataclass(frozen=True)
class Sweep:
    """Runs over one input, phases[0] * phases[1] * phases[2] of them."""

    channels: int
    size: Triple
    outputs: int
    top: int
    left: int
    stride: Triple
    out: Triple
    step: Triple
    phases: Triple
    w_output: int
    w_channel: int
    runs: list[Run]

    @property
    def grid(self) -> Triple:
        """The positions of the first run, which has the most."""
        depth, height, width = (ceil_div(n, t) for n, t in zip(self.out, self.step, strict=True))
        return depth, height, width

    @property
    def slices(self) -> int:
        """The slices of a channel that one padded copy has room for."""
        return max(len(run.slices) for run in self.runs)

    @property
    def results(self) -> int:
        """The rows of results of a chunk: of all maps, one for each phase of columns."""
        return self.outputs * self.phases[2]

    @property
    def reads(self) -> list[Pair]:
        """Where taps read: rows and columns of the padded input."""
        return [read for run in self.runs for read in zip(run.dh, run.dw, strict=True)]


def forward_sweep(g: Geometry) -> Sweep:
    """Return the one run of a forward convolution."""
    taps = list(itertools.product(*map(range, g.kernel)))
    (dd, dh, dw), (front, top, left) = g.dilation, g.low
    run = Run(
        range(g.taps), [t * dd - front for t in range(g.kernel[0])], [t for t, _, _ in taps],
        [r * dh for _, r, _ in taps], [s * dw for _, _, s in taps],
    )  # fmt: skip
    ones = (1, 1, 1)
    return Sweep(
        g.channels, g.size, g.outputs, top, left, g.stride, g.out, ones, ones, g.channels * g.taps, g.taps, [run]
    )


def data_sweep(g: Geometry) -> Sweep:
    """Return a run per phase of dx.

    Row p = a + sh*i of dx gets tap r from row (p + top - r*dh) / sh of dy, so a + top - r*dh must be divisible by sh:
    the row is i + (a + top - r*dh) / sh, a constant offset.
    """
    _, kh, kw = g.kernel
    depth, rows, columns = (phase_places(g, axis) for axis in range(3))
    top, left = (max([0, *(-place for phase in axis for _, place in phase)]) for axis in (rows, columns))
    runs = []
    for slices, row, column in itertools.product(depth, rows, columns):
        taps = list(itertools.product(enumerate(slices), row, column))
        runs.append(
            Run(
                [(t * kh + r) * kw + s for (_, (t, _)), (r, _), (s, _) in taps],
                [place for _, place in slices], [z for (z, _), _, _ in taps],
                [row + top for _, (_, row), _ in taps], [column + left for _, _, (_, column) in taps],
            )
        )  # fmt: skip
    return Sweep(
        g.outputs, g.out, g.channels, top, left, (1, 1, 1), g.size, g.stride, (len(depth), len(rows), len(columns)),
        g.taps, g.channels * g.taps, runs,
    )  # fmt: skip


def phase_places(g: Geometry, axis: int) -> list[Places]:
    """Return, for each phase of an axis of dx, its taps and where each reads dy at the phase's first element."""
    n, count, s, low, d = (values[axis] for values in (g.size, g.kernel, g.stride, g.low, g.dilation))
    return [
        [(k, (a + low - k * d) // s) for k in range(count) if (a + low - k * d) % s == 0] for a in range(min(s, n))
    ]


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

    def offsets(self, sweep: Sweep, run: Run, channels: int, plane: int) -> list[int]:
        """Return the offset of each tap of a run for each of `channels` channels (channels outer)."""
        _, sh, sw = sweep.stride
        slices = len(run.slices)
        places = []
        for z, dh, dw in zip(run.z, run.dh, run.dw, strict=True):
            phase = self.phases.index((dh % sh, dw % sw))
            places.append((phase * sweep.channels * slices + z) * plane + dh // sh * self.pitch + dw // sw)
        return [place + c * slices * plane for c in range(channels) for place in places]


def padded_copy(sweep: Sweep, column_chunks: int = 1) -> PaddedCopy:
    """Lay out the padded copy of one chunk of rows, or of parts of rows."""
    _, sh, sw = sweep.stride
    width, grid_w = sweep.size[2], sweep.grid[2]
    reach = max((dw for _, dw in sweep.reads), default=0) // sw
    halo = max((dh for dh, _ in sweep.reads), default=0) // sh
    pitch = ceil_div(grid_w, column_chunks) + reach
    if sw == 1 and column_chunks == 1:
        shared = max(width + sweep.left, grid_w)
        if grid_w + reach - shared <= sweep.left:
            pitch = shared
    phases = sorted({(dh % sh, dw % sw) for dh, dw in sweep.reads})
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


def is_halo_large(g: Geometry, rows: int, halo: int) -> bool:
    """Say whether chunks of so many rows copy more than the rows that taps read, apart for each row of the result."""
    return g.stride[1] == g.size[0] == g.kernel[0] == g.out[0] == 1 and rows + halo > rows * g.kernel[1]


def rows_as_slices(g: Geometry) -> Geometry:
    """Return a convolution over two axes as one over three whose planes are rows: only rows that are read are copied.

    It is the same one, in memory, too.  64 channels of 28 x 28 with dilation 16: 0.7 to 0.95 of the time.
    """

    def turned(triple: Triple, one: int) -> Triple:
        return triple[1], one, triple[2]

    return replace(
        g, size=turned(g.size, 1), kernel=turned(g.kernel, 1), stride=turned(g.stride, 1), low=turned(g.low, 0),
        dilation=turned(g.dilation, 1), out=turned(g.out, 1),
    )  # fmt: skip


@dataclass(frozen=True)
class Chunks:
    """How the rows of a sweep are cut: into `count` chunks of at most `rows`, and each of them into `columns`."""

    g: Geometry
    sweep: Sweep
    pad: PaddedCopy
    count: int
    rows: int
    columns: int

    @property
    def tasks(self) -> int:
        return self.g.images * self.sweep.out[0] * self.count * self.columns


def cut_chunks(g: Geometry, sweep_of: Callable[[Geometry], Sweep], threads: int, size: int, cut: int = 1) -> Chunks:
    """Cut the rows of a convolution, or, where its taps lie far apart, those of `rows_as_slices`."""
    sweep = sweep_of(g)
    pad = padded_copy(sweep)
    planes = sweep.channels * sweep.slices * len(pad.phases)
    row_bytes = (planes + sweep.results) * pad.pitch * size
    grid = (sweep.out[0], *sweep.grid[1:])
    chunks, rows, column_chunks = cut_rows(g.images, grid, row_bytes, pad.halo, RUN_CACHE // cut, threads)
    if is_halo_large(g, rows, pad.halo):
        return cut_chunks(rows_as_slices(g), sweep_of, threads, size, cut)
    return Chunks(g, sweep, padded_copy(sweep, column_chunks), chunks, rows, column_chunks)


def tile_cost(g: Geometry, sweep_of: Callable[[Geometry], Sweep], threads: int, shape: TileShape, size: int) -> float:
    """Return the time of a convolution on the tile, in steps of one of the tile's rows (see `TILE_COSTS`)."""
    cut = cut_chunks(g, sweep_of, threads, size)
    sweep, pad = cut.sweep, cut.pad
    weights = sweep.outputs * sweep.channels * g.taps
    read = weights * cut.tasks / sweep.step[0]  # a phase of slices has its own taps
    tiles = ceil_div(cut.rows * pad.pitch, shape.columns(size))
    copied = cut.tasks * sweep.channels * sweep.slices * len(pad.phases) * (cut.rows + pad.halo) * pad.pitch
    results = g.images * sweep.outputs * math.prod(sweep.out)
    terms = (tiles * read, weights, read, copied, results)
    return sum(cost * term for cost, term in zip(TILE_COSTS, terms, strict=True))


def plan_runs(
    dtype: str,
    g: Geometry,
    sweep_of: Callable[[Geometry], Sweep],
    threads: int,
    shape: TileShape,
    exact: tuple[int, ...],
    cut: int = 1,
) -> LibraryCall:
    """Plan runs over one input; `exact`: the plan of plain loops for weights that are NaN or inf.

    cut: into how many parts chunks of the usual size are cut, to take less scratch.
    """
    size = ITEM_SIZES[dtype]
    columns = shape.columns(size)
    found = cut_chunks(g, sweep_of, threads, size, cut)
    g, sweep, pad, rows = found.g, found.sweep, found.pad, found.rows
    chunks, column_chunks = found.count, found.columns
    planes = sweep.channels * sweep.slices * len(pad.phases)
    plane = round_up((rows + pad.halo) * pad.pitch + columns + pad.reach, 16) + 16
    padded_bytes = round_up((planes * plane + columns) * size)
    in_place = choose_place(sweep, rows, column_chunks, pad.pitch, shape, size)
    y_bytes = 0 if in_place else round_up(sweep.results * round_up(rows * pad.pitch, columns) * size)
    work = padded_bytes + y_bytes + 64
    phase_table = RUN_TABLE + RUN_WORDS * len(sweep.runs)
    tables = [x for phase in pad.phases for x in phase]
    words, tables, packed = run_words(sweep, g.groups, pad, plane, size, shape, phase_table, tables)
    pack_tasks = ceil_div(sweep.outputs, shape.rows) * g.groups
    first = sweep.runs[0]
    is_ordered = sweep.w_channel == len(first.taps) and list(first.taps) == list(range(len(first.taps)))
    header = (
        (g.images, g.groups, sweep.channels, *sweep.size, sweep.outputs, sweep.top, sweep.left, *sweep.stride)
        + (pad.pitch, plane, pad.halo, phase_table, len(pad.phases), *sweep.grid[1:], rows, chunks, column_chunks)
        + (*sweep.out, *sweep.step, *sweep.phases[1:])
        + (sweep.w_output, sweep.w_channel, g.outputs * g.channels * g.taps, int(is_ordered))
        + (len(sweep.runs), pack_tasks, found.tasks, packed, work, padded_bytes, in_place)
    )
    exact_plan = RUN_TABLE + len(words) + len(tables) if exact else 0
    plan = (*header, exact_plan, *words, *tables, *exact)
    name = SHORT_NAMES[dtype]
    call = LibraryCall(f"tg_conv_{name}", f"conv_{name}", plan, packed + work * threads, g.flops)
    grain = 0 if column_chunks > 1 else math.prod(sweep.out[1:]) if chunks == 1 else sweep.out[2]
    return replace(call, takes_epilogue=True, grain=grain)


def choose_place(sweep: Sweep, rows: int, column_chunks: int, pitch: int, shape: TileShape, size: int) -> int:
    """Say whether the tile writes to the result: all rows at once, row by row, or not (0).

    Row by row, where a row is whole vectors, nothing is copied and no junk computed: 3 channels by 7 x 7 taps with
    stride 2 take 7 % less.  But its last tile may be part of one: 32 channels by 5 x 5 on 24 x 24 would take 10 % more.
    """
    if sweep.step != (1, 1, 1):
        return 0
    out_w, columns = sweep.out[2], shape.columns(size)
    if rows == 1 or (pitch == out_w and column_chunks == 1):
        return 1
    if column_chunks > 1 or out_w % shape.lanes(size):
        return 0
    tiles = out_w // columns + (PART_OF_TILE if out_w % columns else 0)
    depth = sweep.channels * len(sweep.runs[0].taps)
    return ROW_BY_ROW if (tiles - pitch / columns) * depth <= out_w * COPY else 0


def run_words(
    sweep: Sweep, groups: int, pad: PaddedCopy, plane: int, size: int, shape: TileShape, start: int, tables: list[int]
) -> tuple[list[int], list[int], int]:
    """Return the words of all runs, the tables (which begin at word `start`) with theirs, and where packing ends."""
    words: list[int] = []
    packed = HEADER_BYTES
    for run in sweep.runs:
        depth = sweep.channels * len(run.taps)
        panel = panel_items(depth, size, shape)
        group_bytes = round_up(depth_blocks(depth, K_BLOCK[size]) * ceil_div(sweep.outputs, shape.rows) * panel * size)
        tap_table = start + len(tables)
        offset_table = tap_table + len(run.taps)
        words += [len(run.taps), tap_table, offset_table, len(run.slices), offset_table + depth]
        words += [packed, group_bytes, panel * size]
        offsets = pad.offsets(sweep, run, sweep.channels, plane)
        tables = [*tables, *run.taps, *(place * size for place in offsets), *run.slices]
        packed += group_bytes * groups
    return words, tables, packed


def panel_items(depth: int, size: int, shape: TileShape) -> int:
    """Return the elements of a packed panel of weights, with slack for full-vector stores."""
    rows = depth if depth_blocks(depth, K_BLOCK[size]) == 1 else K_BLOCK[size]
    return round_up((rows + 4 + shape.columns(size) // shape.rows) * shape.rows, 16)
