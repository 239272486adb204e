"""Plans of 2-d convolutions, NCHW by OIHW: the output, the gradient of the data, the gradient of the weights.

    forward   y[n, o, i, j]    = sum_{c, r, s}  w[o, c, r, s] * x[n, c, i*sh + r*dh - top, j*sw + s*dw - left]
    data      dx[n, c, p, q]   = sum_{o, r, s}  w[o, c, r, s] * dy[n, o, i, j]      for i*sh + r*dh - top = p, same q
    weight    dw[o, c, r, s]   = sum_{n, i, j}  dy[n, o, i, j] * x[n, c, i*sh + r*dh - top, j*sw + s*dw - left]

Forward and data are the same kernel: a *run* sums taps of a padded input at constant offsets.  A data gradient with
strides is one run per phase (p mod sh, q mod sw) of dx, each with the taps that reach it; a phase without taps is zero.
Groups are more images: [N, G*C, H, W] is [N*G, C, H, W], with other weights for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tracegrad.codegen.plan import HEADER_BYTES, ITEM_SIZES, SHORT_NAMES, LibraryCall, ceil_div, round_up
from tracegrad.codegen.plan_gemm import K_BLOCK, plan_gemm
from tracegrad.codegen.tile_shape import TileShape, tile_shape

# Words of the plan of forward and data; the runs follow at RUN_TABLE, RUN_WORDS each.
IMAGES, GROUPS, RUNS, PACK_TASKS, TASKS, WORK_OFFSET, WORK_BYTES = range(7)
RUN_TABLE = 7

# Words of a run.  Offsets are in elements unless BYTES; tables are places in the plan.
CHANNELS, HEIGHT, WIDTH, OUTPUTS, TAPS, ORDERED_TAPS = range(0, 6)
TOP, LEFT, STRIDE_H, STRIDE_W, OUT_H, OUT_W = range(6, 12)
PITCH, PLANE, ROWS, CHUNKS, HALO = range(12, 17)  # of the padded copy: its row, its plane, the chunks of output rows
W_OUTPUT, W_CHANNEL, W_GROUP = range(17, 20)  # strides of the weights
Y_IMAGE, Y_PLANE, Y_ROW, Y_COLUMN, Y_FIRST = range(20, 25)  # strides of the result
FIRST_PACK, FIRST_TASK, PACKED_BYTES, GROUP_BYTES, Y_BYTES = range(25, 30)
TAP_TABLE, OFFSET_TABLE, PHASE_TABLE, PHASES, COLUMN_CHUNKS = range(30, 35)
RUN_WORDS = 35

# Words of the plan of the weight gradient.
(G_IMAGES, G_GROUPS, G_CHANNELS, G_HEIGHT, G_WIDTH, G_OUTPUTS, G_TAPS, G_TOP, G_LEFT, G_STRIDE_H, G_STRIDE_W) = range(
    11
)
G_OUT_H, G_OUT_W, G_PITCH, G_PLANE, G_ROWS, G_CHUNKS, G_HALO, G_WIDE, G_IN_PLACE, G_SHARES = range(11, 21)
G_SUMS_BYTES, G_WORK_OFFSET, G_WORK_BYTES, G_DY_OFFSET, G_X_OFFSET, G_GROUP_SUMS = range(21, 27)
G_OFFSET_TABLE, G_PHASE_TABLE, G_PHASES, G_COLUMN_CHUNKS = range(27, 31)
GRADIENT_WORDS = 31

# Words of the plan of the plain loops.
(D_IMAGES, D_GROUPS, D_CHANNELS, D_HEIGHT, D_WIDTH, D_OUTPUTS, D_OUT_H, D_OUT_W, D_KERNEL_H, D_KERNEL_W) = range(10)
D_STRIDE_H, D_STRIDE_W, D_TOP, D_LEFT, D_DILATION_H, D_DILATION_W, D_TASKS = range(10, 17)
DIRECT_WORDS = 17

RUN_CACHE = 768 << 10  # bytes of the padded input and of the result of one chunk: they stay in the L2 cache
GRADIENT_CACHE = 1 << 20
LEAST_COLUMNS = 128  # of a chunk, where a row is cut
POSITION_BLOCK = 256  # positions summed by one call of the tile in the weight gradient
LEAST_CHANNELS = 4  # per group, below which plain loops find the weight gradient faster than a tile

Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """Sizes of a convolution; channels and outputs are those of one group, images are counted once per group."""

    images: int
    groups: int
    channels: int
    height: int
    width: int
    outputs: int
    kernel: Pair
    stride: Pair
    top: int
    left: int
    dilation: Pair
    out_h: int
    out_w: int

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]

    @property
    def flops(self) -> int:
        return 2 * self.images * self.channels * self.outputs * self.taps * self.out_h * self.out_w


def plan_conv(
    kind: str,
    dtype: str,
    n: int,
    c: int,
    h: int,
    w: int,
    o: int,
    kh: int,
    kw: int,
    stride: Pair,
    padding: tuple[Pair, Pair],
    dilation: Pair,
    groups: int,
    threads: int,
    *,
    isa: str | None = None,
) -> LibraryCall:
    """Plan a convolution of kind "forward", "data" or "weight".

    Operands: forward (x[n, c, h, w], weights[o, c / groups, kh, kw], y); data (dy, weights, dx); weight (x, dy, dw).
    padding: ((top, bottom), (left, right)), not negative.  isa: the tile's instruction set, this host's by default.
    """
    (top, bottom), (left, right) = padding
    out_h = (h + top + bottom - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    out_w = (w + left + right - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    geometry = Geometry(
        n * groups, groups, c // groups, h, w, o // groups, (kh, kw), stride, top, left, dilation, out_h, out_w
    )
    sizes = (geometry.images, geometry.channels, geometry.outputs, h, w, out_h, out_w, kh, kw)
    is_plain = min(sizes) <= 0 or (kind == "weight" and groups > 1 and geometry.channels < LEAST_CHANNELS)
    if is_plain:
        return _plan_direct(kind, dtype, geometry, threads)
    is_product = (kh, kw, *stride, top, bottom, left, right, groups) == (1, 1, 1, 1, 0, 0, 0, 0, 1)
    if is_product and kind != "weight":
        return _plan_product(kind, dtype, geometry, threads, isa)
    shape = tile_shape(isa)
    if kind == "weight":
        return _plan_gradient(dtype, geometry, threads, shape)
    runs = _forward_runs(geometry) if kind == "forward" else _data_runs(geometry)
    return _plan_runs(dtype, geometry, runs, threads, shape)


def _plan_product(kind: str, dtype: str, g: Geometry, threads: int, isa: str | None) -> LibraryCall:
    """Plan a convolution by 1x1 taps as y[n] = w @ x[n], or dx[n] = w^T @ dy[n]; planes are rows."""
    plane = g.height * g.width
    rows, depth = (g.outputs, g.channels) if kind == "forward" else (g.channels, g.outputs)
    weights = (0, g.channels, 1) if kind == "forward" else (0, 1, g.channels)
    data = (depth * plane, plane, 1)
    result = (rows * plane, plane, 1)
    return plan_gemm(
        dtype, rows, plane, depth, weights, data, result, g.images, threads, operands=(1, 0, 2), isa=isa
    )  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One sweep: result[m, i, j] = sum_{c, t} weights[m, c, taps[t]] * padded[c, i*sh + dh[t], j*sw + dw[t]]."""

    channels: int
    height: int
    width: int
    outputs: int
    taps: Sequence[int]
    dh: Sequence[int]
    dw: Sequence[int]
    top: int
    left: int
    stride: Pair
    out_h: int
    out_w: int
    w_output: int
    w_channel: int
    y_image: int
    y_plane: int
    y_row: int
    y_column: int
    y_first: int


def _forward_runs(g: Geometry) -> list[Run]:
    kw = g.kernel[1]
    plane = g.out_h * g.out_w
    return [
        Run(
            g.channels, g.height, g.width, g.outputs, range(g.taps),
            [t // kw * g.dilation[0] for t in range(g.taps)], [t % kw * g.dilation[1] for t in range(g.taps)],
            g.top, g.left, g.stride, g.out_h, g.out_w, g.channels * g.taps, g.taps,
            g.outputs * plane, plane, g.out_w, 1, 0,
        )
    ]  # fmt: skip


def _data_runs(g: Geometry) -> list[Run]:
    """Return a run per phase of dx.

    Row p = a + sh*i of dx gets tap r from row (p + top - r*dh) / sh of dy, so a + top - r*dh must be divisible by sh:
    the row is i + (a + top - r*dh) / sh, a constant offset.
    """
    (kh, kw), (sh, sw), (dh, dw) = g.kernel, g.stride, g.dilation
    plane = g.height * g.width
    runs = []
    for a in range(min(sh, g.height)):
        rows = [(r, (a + g.top - r * dh) // sh) for r in range(kh) if (a + g.top - r * dh) % sh == 0]
        for b in range(min(sw, g.width)):
            columns = [(s, (b + g.left - s * dw) // sw) for s in range(kw) if (b + g.left - s * dw) % sw == 0]
            top = max([0, *(-row for _, row in rows)])
            left = max([0, *(-column for _, column in columns)])
            pairs = [(r * kw + s, row + top, column + left) for r, row in rows for s, column in columns]
            runs.append(
                Run(
                    g.outputs, g.out_h, g.out_w, g.channels,
                    [tap for tap, _, _ in pairs], [row for _, row, _ in pairs], [column for _, _, column in pairs],
                    top, left, (1, 1), ceil_div(g.height - a, sh), ceil_div(g.width - b, sw),
                    g.taps, g.channels * g.taps, g.channels * plane, plane, sh * g.width, sw, a * g.width + b,
                )
            )  # fmt: skip
    return runs


@dataclass(frozen=True)
class Padding:
    """The padded copy of the input that taps are constant offsets into.

    Rows have a fixed pitch; what a tap reads right of a row is the zeros left of the next.  With strides the copy is
    split into the phases (row mod sh, column mod sw) that taps use.
    """

    pitch: int
    halo: int
    reach: int
    phases: list[Pair]

    def offsets(self, run: Run, channels: int, plane: int) -> list[int]:
        """Return the offset of each tap for each of `channels` channels (channels outer)."""
        sh, sw = run.stride
        places = []
        for dh, dw in zip(run.dh, run.dw, strict=True):
            phase = self.phases.index((dh % sh, dw % sw))
            places.append((phase * run.channels * plane, dh // sh * self.pitch + dw // sw))
        return [start + c * plane + shift for c in range(channels) for start, shift in places]


def _padding(run: Run, column_chunks: int = 1) -> Padding:
    sh, sw = run.stride
    reach = max(run.dw, default=0) // sw
    halo = max(run.dh, default=0) // sh
    pitch = ceil_div(run.out_w, column_chunks) + reach
    if sw == 1 and column_chunks == 1:
        shared = max(run.width + run.left, run.out_w)
        if run.out_w + reach - shared <= run.left:
            pitch = shared
    phases = sorted({(dh % sh, dw % sw) for dh, dw in zip(run.dh, run.dw, strict=True)})
    return Padding(pitch, halo, reach, phases)


def _chunks(
    images: int, out_h: int, out_w: int, row_bytes: int, halo: int, cache: int, threads: int
) -> tuple[int, int, int]:
    """Return how many chunks the rows of the output are cut into, the most rows of one, and the chunks of a row.

    A row is cut only where it alone is too long for the cache, or there are too few rows for the threads: in 1-d.
    """
    wanted = ceil_div((1 + halo) * row_bytes, cache)
    if images * out_h < threads:
        wanted = max(wanted, ceil_div(threads, images * out_h))
    column_chunks = max(1, min(wanted, out_w // LEAST_COLUMNS))
    rows = max(1, min(out_h, cache * column_chunks // row_bytes - halo))
    chunks = ceil_div(out_h, rows)
    tasks = images * column_chunks
    while tasks * chunks % threads and tasks * chunks < 8 * threads and chunks < out_h:
        chunks += 1
    return chunks, ceil_div(out_h, chunks), column_chunks


def _plan_runs(dtype: str, g: Geometry, runs: list[Run], threads: int, shape: TileShape) -> LibraryCall:
    size = ITEM_SIZES[dtype]
    columns = shape.columns(size)
    words: list[int] = []
    tables: list[int] = []
    packed = HEADER_BYTES
    pack_tasks = tasks = work = 0
    for run in runs:
        pad = _padding(run)
        row_bytes = (run.channels * max(1, len(pad.phases)) + run.outputs) * pad.pitch * size
        chunks, rows, column_chunks = _chunks(
            g.images, run.out_h, run.out_w, row_bytes, pad.halo, RUN_CACHE, threads
        )  # fmt: skip
        pad = _padding(run, column_chunks)
        plane = round_up((rows + pad.halo) * pad.pitch + columns + pad.reach, 16) + 16
        depth = run.channels * len(run.taps)
        panels = ceil_div(run.outputs, shape.rows)
        group_bytes = round_up(ceil_div(depth, K_BLOCK[size]) * panels * panel_items(size, shape) * size)
        padded_bytes = round_up((run.channels * len(pad.phases) * plane + columns) * size)
        y_pitch = round_up(rows * pad.pitch, columns)
        work = max(work, padded_bytes + round_up(run.outputs * y_pitch * size) + 64)
        table_start = RUN_TABLE + RUN_WORDS * len(runs) + len(tables)
        offset_table = table_start + len(run.taps)
        phase_table = offset_table + depth
        is_ordered = run.w_channel == len(run.taps) and list(run.taps) == list(range(len(run.taps)))
        words += [run.channels, run.height, run.width, run.outputs, len(run.taps), int(is_ordered)]
        words += [run.top, run.left, *run.stride, run.out_h, run.out_w]
        words += [pad.pitch, plane, rows, chunks, pad.halo]
        words += [run.w_output, run.w_channel, g.outputs * g.channels * g.taps]
        words += [run.y_image, run.y_plane, run.y_row, run.y_column, run.y_first]
        words += [pack_tasks, tasks, packed, group_bytes, padded_bytes]
        words += [table_start, offset_table, phase_table, len(pad.phases), column_chunks]
        tables += run.taps
        tables += [place * size for place in pad.offsets(run, run.channels, plane)]
        tables += [x for phase in pad.phases for x in phase]
        packed += group_bytes * g.groups
        pack_tasks += panels * g.groups if run.taps else 0
        tasks += g.images * chunks * column_chunks
    name = SHORT_NAMES[dtype]
    plan = (g.images, g.groups, len(runs), pack_tasks, tasks, packed, work, *words, *tables)
    return LibraryCall(f"tg_conv_{name}", f"conv_{name}", plan, packed + work * threads, g.flops)


def panel_items(size: int, shape: TileShape) -> int:
    """Return the elements of a packed panel of weights, with slack for full-vector stores."""
    return round_up((K_BLOCK[size] + 4 + shape.columns(size) // shape.rows) * shape.rows, 16)


def _plan_gradient(dtype: str, g: Geometry, threads: int, shape: TileShape) -> LibraryCall:
    size = ITEM_SIZES[dtype]
    columns = shape.columns(size)
    run = _forward_runs(g)[0]
    pad = _padding(run)
    phases = len(pad.phases)
    is_wide = g.channels >= columns // 2
    in_place = (g.kernel, g.stride, g.top, g.left) == ((1, 1), (1, 1), 0, 0) and is_wide and g.out_w == g.width
    c_padded = round_up(g.channels, columns)
    o_padded = round_up(g.outputs, columns)
    row_items = g.channels * phases + g.outputs + (c_padded * phases if is_wide else 0)
    row_bytes = row_items * pad.pitch * size
    chunks, rows, column_chunks = _chunks(
        g.images, g.out_h, g.out_w, row_bytes, pad.halo, GRADIENT_CACHE, threads
    )  # fmt: skip
    if in_place:
        column_chunks = 1
    pad = _padding(run, column_chunks)
    plane = round_up((rows + pad.halo) * pad.pitch + columns + pad.reach, 16) + 16
    positions = rows * pad.pitch
    slack = 4 + columns // shape.rows
    x_bytes = round_up((g.channels * phases * plane + columns) * size)
    if is_wide:
        dy_items = ceil_div(g.outputs, shape.rows) * (positions + slack) * shape.rows + columns
        offsets = [shift // (g.channels * plane) * plane + shift % plane for shift in pad.offsets(run, 1, plane)]
        turned_items = (c_padded // columns * phases * plane + 4) * columns
        group_sums = g.taps * g.outputs * c_padded
    else:
        dy_items = (o_padded // columns * positions + 4) * columns
        offsets = [place * size for place in pad.offsets(run, g.channels, plane)]
        turned_items = (POSITION_BLOCK + slack) * shape.rows + columns
        group_sums = g.channels * g.taps * o_padded
    group_sums = round_up(group_sums, 16)
    dy_bytes = round_up(dy_items * size)
    work = x_bytes + dy_bytes + round_up(turned_items * size) + 64
    sums_bytes = round_up(group_sums * g.groups * size)
    work_offset = HEADER_BYTES + sums_bytes * threads
    phase_table = GRADIENT_WORDS + len(offsets)
    plan = (
        (g.images, g.groups, g.channels, g.height, g.width, g.outputs, g.taps, g.top, g.left, *g.stride)
        + (g.out_h, g.out_w, pad.pitch, plane, rows, chunks, pad.halo, int(is_wide), int(in_place), threads)
        + (sums_bytes, work_offset, work, x_bytes, x_bytes + dy_bytes, group_sums)
        + (GRADIENT_WORDS, phase_table, phases, column_chunks)
        + (*offsets, *(x for phase in pad.phases for x in phase))
    )
    name = SHORT_NAMES[dtype]
    return LibraryCall(f"tg_convw_{name}", f"convw_{name}", plan, work_offset + work * threads, g.flops)


def _plan_direct(kind: str, dtype: str, g: Geometry, threads: int) -> LibraryCall:
    """Plan plain loops; a task is a range of planes of the result."""
    planes = {
        "forward": g.images * g.outputs,
        "data": g.images * g.channels,
        "weight": g.groups * g.outputs * g.channels,
    }[kind]
    tasks = max(0, min(planes, 16 * threads if g.flops > 1 << 17 else 1))
    plan = (
        (g.images, g.groups, g.channels, g.height, g.width, g.outputs, max(0, g.out_h), max(0, g.out_w), *g.kernel)
        + (*g.stride, g.top, g.left, *g.dilation, tasks)
    )  # fmt: skip
    name = SHORT_NAMES[dtype]
    return LibraryCall(f"tg_direct_{kind}_{name}", f"direct_{kind}_{name}", plan, HEADER_BYTES, max(0, g.flops))
