"""Plans of convolutions plane by plane: groups of one channel (depthwise), over two axes; one axis is a row.

A plane of the source is copied with zeros around it, in phases: phase (a, b) has its rows a, a + sh, ... and columns
b, b + sw, .... Then tap t is at a constant offset from every position of an output row, for any stride:

    forward    y[i, j]  = sum_t w[t] * copy[phase(t)][i + row(t), j + column(t)]
    weight     dw[t]    = sum_{i, j} dy[i, j] * copy[phase(t)][i + row(t), j + column(t)]
    data       dx[a + sh u, b + sw v] = sum_{t of (a, b)} w[t] * copy[u + row(t), v + column(t)]       copy: of dy

The gradient of the data has a run for each (a, b), with the taps that meet these positions.  With a stride of 2 along
rows, the rows of both b are computed in scratch and woven together.

Taps of one column are a group, and share the loads of rows (`plane_taps`).  What that brought (one core with AVX2, in
times): 7 x 7 taps 2.0 to 2.4, 5 x 5 taps 1.4 to 2.8, 3 x 3 taps 1.3 to 2.8; weaving rows, data with stride 2: 1.3 to 3.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tracegrad.codegen.conv_geometry import Geometry
from tracegrad.codegen.plan import HEADER_BYTES, ITEM_SIZES, SHORT_NAMES, LibraryCall, ceil_div, round_up
from tracegrad.codegen.tile_shape import TileShape

# Words of the plan; tables are places in it.
IMAGES, GROUPS, OUTPUTS, TAP_COUNT, TASKS, RUNS, RUN_TABLE, EXACT_PLAN = range(8)
HEIGHT, WIDTH, TOP, LEFT, PHASES_H, PHASES_W, STEP_H, STEP_W = range(8, 16)  # of the source, and how it is copied
PITCH, COPY_ROWS, COPY_ITEMS = range(16, 19)  # a phase has COPY_ROWS rows of PITCH elements
# Offsets in a thread's work; Y_ITEMS is the size of a plane of the result, or of dy.
WORK_OFFSET, WORK_BYTES, SUMS_OFFSET, LINE_OFFSET, LINE_PITCH, LINE_ITEMS, Y_ITEMS = range(19, 26)
JOB_ITEMS = 26  # elements of the result for one image, or for one group
# From one phase of the copy to the next; from the copy of one plane to the next; planes that are copied at once.
PHASE_ITEMS, BLOCK_ITEMS, BATCH = range(27, 30)
IS_WOVEN = 30  # whether the runs are pairs whose columns alternate in the result
PLANE_WORDS = 31
# A run.
R_TAPS, R_OFFSETS, R_GROUPS, R_ROWS, R_COLUMNS, R_HEIGHT, R_FIRST, R_ROW, R_COLUMN = range(9)
RUN_WORDS = 9

HEIGHTS = 8
"""Most rows that are computed together: their sums, and a few weights, fill 16 registers."""
LONGEST = 4
"""Most taps of a group, which share loads: with two of them, and eight rows, loads are no more than products."""
ROWS = 4
"""Vectors that are summed together, to hide the latency of an FMA."""
TAPS = 3
"""Taps of a weight gradient that share a load of the cotangent."""
MANY_TAPS = 9
"""Taps that share it where there are so many: as many sums as hide the latency, so no vectors are summed together."""
MOST_OUTPUTS = 4
SPILL = 32
"""Elements behind a phase, if it is one of several, that the copies of rows may write: two vectors."""
BATCH_BYTES = 1 << 13
"""Small planes are copied several at a time, and read when the stores of their copies are done."""
COPY_BYTES = 1 << 18
"""A copy beyond the L2 cache is left to the tile, which cuts planes into chunks."""


@dataclass(frozen=True)
class Run:
    """Output positions that meet the same taps: offsets into the copy in elements, and the weights' numbers."""

    offsets: tuple[int, ...]
    weights: tuple[int, ...]
    rows: int
    columns: int
    first: int
    row: int
    column: int

    def height(self, lanes: int) -> int:
        """Return how many rows, or vectors of a single row, are computed together: as even as can be."""
        count = self.rows if self.rows > 1 else max(1, self.columns // lanes)
        return ceil_div(count, ceil_div(count, HEIGHTS))

    def groups(self, pitch: int) -> tuple[int, list[list[tuple[int, int]]]]:
        """Return the distance of weights in a group, and the groups, as offsets and weights of their taps.

        A tap belongs to the group whose last tap is one row above it; a single row has groups of one tap.
        """
        taps = sorted(zip(self.offsets, self.weights, strict=True))
        number = dict(taps)
        if self.rows == 1:
            return 0, [[tap] for tap in taps]
        step = next((number[o + pitch] - w for o, w in taps if o + pitch in number), 0)
        chains: list[list[tuple[int, int]]] = []
        for o, w in taps:
            above = next((c for c in chains if c[-1] == (o - pitch, w - step)), None)
            if above is None:
                chains.append([(o, w)])
            else:
                above.append((o, w))
        found = []
        for chain in chains:
            parts = ceil_div(len(chain), LONGEST)
            cuts = [len(chain) * n // parts for n in range(parts + 1)]
            found += [chain[a:b] for a, b in itertools.pairwise(cuts)]
        return step, found

    def table(self, pitch: int, size: int) -> list[int]:
        """Return the table of groups of `plane_taps.taps_plane`."""
        step, groups = self.groups(pitch)
        groups.sort(key=len, reverse=True)
        counts = [sum(len(g) == length for g in groups) for length in range(LONGEST, 0, -1)]
        return [step * size, *counts, *(n * size for g in groups for n in g[0])]


@dataclass(frozen=True)
class Copy:
    """The padded copy of a plane: zeros before it, phases, and the rows and columns of each."""

    top: int
    left: int
    phases: tuple[int, int]
    rows: int
    columns: int
    slack: int

    @property
    def items(self) -> int:
        """Elements of a phase."""
        return self.rows * self.columns + self.slack

    @property
    def block(self) -> int:
        return self.phases[0] * self.phases[1] * self.items


def serves(kind: str, g: Geometry) -> bool:
    """Say whether a convolution is one plane by plane that these kernels compute."""
    if g.channels != 1 or g.groups < 2 or g.outputs > (1 if kind == "data" else MOST_OUTPUTS):
        return False
    if g.size[0] * g.kernel[0] * g.out[0] != 1 or (kind != "forward" and g.is_window_outside):
        return False
    copy = copy_of(kind, g)
    return copy.block * 8 <= COPY_BYTES


def copy_of(kind: str, g: Geometry) -> Copy:
    (_, kh, kw), (_, sh, sw), (_, dh, dw), (_, oh, ow) = g.kernel, g.stride, g.dilation, g.out
    if kind != "data":
        rows, columns = oh + (kh - 1) * dh // sh, ow + (kw - 1) * dw // sw
        phases = (min(sh, dh * (kh - 1) + 1), min(sw, dw * (kw - 1) + 1))
        if phases != (1, 1) or sh * sw > 1:
            return Copy(g.low[1], g.low[2], phases, rows, columns, SPILL)
        shared = max(0, min(g.low[2], columns - g.low[2] - g.size[2]))  # zeros right of a row, and left of the next
        return Copy(g.low[1], g.low[2], phases, rows, columns - shared, shared)
    places = [data_places(g, axis) for axis in (1, 2)]
    before, length = [], []
    for found in places:
        all_taps = [e for taps, _ in found for _, e in taps]
        before.append(max(0, -min(all_taps, default=0)))
        length.append(before[-1] + max((n + max((e for _, e in taps), default=0) for taps, n in found), default=1))
    return Copy(before[0], before[1], (1, 1), length[0], length[1], 0)


def data_places(g: Geometry, axis: int) -> list[tuple[list[tuple[int, int]], int]]:
    """Return for each residue of an axis of x: the taps that meet it, each with its distance in dy, and its length."""
    k, s, d, low, n = g.kernel[axis], g.stride[axis], g.dilation[axis], g.low[axis], g.size[axis]
    return [
        ([(t, (a + low - t * d) // s) for t in range(k) if (a + low - t * d) % s == 0], len(range(a, n, s)))
        for a in range(min(s, n))
    ]


def runs_of(kind: str, g: Geometry, copy: Copy) -> list[Run]:
    (_, kh, kw), (_, sh, sw), (_, dh, dw) = g.kernel, g.stride, g.dilation
    if kind != "data":
        offsets = tuple(
            (r * dh % sh * copy.phases[1] + s * dw % sw) * copy.items + r * dh // sh * copy.columns + s * dw // sw
            for r in range(kh)
            for s in range(kw)
        )
        return [Run(offsets, tuple(range(kh * kw)), g.out[1], g.out[2], 0, g.out[2], 1)]
    width = g.size[2]
    found = []
    for a, (rows, n) in enumerate(data_places(g, 1)):
        for b, (columns, m) in enumerate(data_places(g, 2)):
            pairs = [(r, e, s, f) for r, e in rows for s, f in columns]
            offsets = tuple((e + copy.top) * copy.columns + f + copy.left for _, e, _, f in pairs)
            weights = tuple(r * kw + s for r, _, s, _ in pairs)
            found.append(Run(offsets, weights, n, m, a * width + b, sh * width, sw))
    return found


def plan_planes(
    kind: str, dtype: str, g: Geometry, threads: int, shape: TileShape, exact: Sequence[int]
) -> LibraryCall:
    """Plan a convolution that `serves` accepts. exact: the words of the plain loops, for what is not finite."""
    size, name = ITEM_SIZES[dtype], SHORT_NAMES[dtype]
    lanes = shape.lanes(size)
    copy = copy_of(kind, g)
    runs = runs_of(kind, g, copy)
    source, result = (g.out, g.size) if kind == "data" else (g.size, g.out)
    batch = max(1, min(g.images // g.groups if kind == "weight" else 16, BATCH_BYTES // (copy.block * size)))
    copy_items = batch * copy.block + ROWS * copy.columns + 2 * ROWS * lanes
    taps = g.kernel[1] * g.kernel[2]
    is_woven = kind == "data" and g.stride[2] == 2 and g.size[2] > 1
    sums_bytes = ceil_div(taps, TAPS) * TAPS * shape.vector_bytes * g.outputs if kind == "weight" else 0
    line = round_up(max(r.columns for r in runs), lanes)
    line_rows = 1 if runs[0].rows == 1 else max(r.height(lanes) for r in runs)
    line_items = batch * copy.block + 2 * ROWS * lanes if kind == "weight" else (1 + is_woven) * line_rows * line
    sums_offset = round_up(copy_items * size)
    line_offset = sums_offset + round_up(sums_bytes)
    work = line_offset + round_up(line_items * size)
    jobs = g.groups if kind == "weight" else g.images
    tasks = max(1, min(jobs, 8 * threads if g.flops > 1 << 17 else 1))
    job_items = {"forward": g.outputs * math.prod(g.out), "data": math.prod(g.size), "weight": g.outputs * taps}[kind]
    words: list[int] = [
        g.images, g.groups, g.outputs, taps, tasks, len(runs), PLANE_WORDS, 0,
        source[1], source[2], copy.top, copy.left, *copy.phases, *((1, 1) if kind == "data" else g.stride[1:]),
        copy.columns, copy.rows, copy_items,
        HEADER_BYTES, work, sums_offset, line_offset, line * size, line_items, result[1] * result[2],
        job_items, copy.items, copy.block, batch, int(is_woven),
    ]  # fmt: skip
    tables: list[int] = []
    start = PLANE_WORDS + RUN_WORDS * len(runs)
    for run in runs:
        padded = (*run.offsets, *run.offsets[-1:] * (-len(run.offsets) % TAPS)) if kind == "weight" else ()
        offsets = start + len(tables)
        tables += [o * size for o in padded]
        groups = start + len(tables)
        tables += run.table(copy.columns, size)
        words += [len(run.offsets), offsets, groups, run.rows, run.columns, run.height(lanes)]
        words += [run.first, run.row, run.column]
    words[EXACT_PLAN] = start + len(tables)
    plan = (*words, *tables, *exact)
    symbol = f"tg_planes_{kind}_{name}"
    call = LibraryCall(symbol, f"planes_{kind}_{name}", plan, HEADER_BYTES + work * threads, g.flops)
    return replace(call, takes_epilogue=True, grain=job_items)
