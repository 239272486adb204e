"""Plans of convolutions by 3 x 3 taps with Winograd's filtering (`winograd_kernels`).

Error in f32 against f64, of a forward convolution of normal x by weights of variance 2 / (9 * channels): the largest
over the largest element of y, and root mean squares.

    channels, map       oneDNN 3.7 (direct)    direct here         2 x 2               4 x 4
     64, 56 x 56        8e-7   4.3e-7          4e-7   2.5e-7       4e-7   2.6e-7       1.6e-6   8e-7
    128, 28 x 28        1.4e-6   6e-7          4e-7   2.7e-7       5e-7   3.6e-7       2.4e-6   1.1e-6
    256, 14 x 14        2.1e-6   8e-7          4e-7   2.8e-7       6e-7   5.0e-7       3.1e-6   1.5e-6
    512,  7 x  7        3.4e-6   1.1e-6        3e-7   2.8e-7       9e-7   6.8e-7       5.8e-6   2.0e-6

As all of Winograd's convolutions these have errors relative to the largest element of a tile, where those of a direct
sum are relative to what it adds up: beside a lone 1e9 its neighbours keep fewer digits.  TRACEGRAD_WINOGRAD=0 takes
direct sums for all.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracegrad.codegen.conv_geometry import Geometry
from tracegrad.codegen.plan import HEADER_BYTES, ITEM_SIZES, SHORT_NAMES, LibraryCall, ceil_div, round_up
from tracegrad.codegen.tile_shape import TileShape
from tracegrad.codegen.winograd_layout import PROBE_BYTES, TAPS, WEIGHT_CHANNELS, WINOGRAD_WORDS
from tracegrad.config import config

TILE_CACHE = 320 << 10  # bytes of the transformed tiles of one block of strips
LEAST_TILES = 24  # of a block, where there are as many: each block reads all transformed weights
POINT_GAP = 64  # bytes between the arrays of two points, so that one tile's elements fall into different cache sets
LEAST_CHANNELS = 8  # and maps: with 3 of either, tiles of products are mostly empty (64 to 3: 0.85 of direct speed)
LEAST_FLOPS = 1 << 22  # below, a family of kernels more to compile and to load gains some microseconds
PANELS = 4  # panels of maps whose products are kept at a time
WORD = 8
PART = 64  # channels of a strip that one task transforms where all strips are transformed first
WEIGHT_COST = {0: 150, 2: 190, 4: 320}  # of transforming (0: packing) the weights of a pair of channel and map
GRADIENT_COST = {0: 100, 2: 560, 4: 800}  # of its gradient, from sums at each point: they are read out of the cache
TILE_COST = {2: 100, 4: 400}  # of transforming a tile of a channel, or back to a map


def serves(kind: str, g: Geometry) -> bool:
    """Say whether the kernels can compute a convolution: 3 x 3 taps, one by one, two axes; groups but for weights."""
    is_flat = g.kernel == (1, 3, 3) and g.size[0] == g.out[0] == 1 and g.low[0] == 0
    return is_flat and (g.groups == 1 or kind != "weight") and g.stride == g.dilation == (1, 1, 1)


def tile_sizes(kind: str, g: Geometry, lanes: int, threads: int) -> list[int]:
    """Return the m of the tiles that take less time than the direct convolution, the fastest first.

    Per pair of channel and map a direct convolution takes 9 products for each position of each image, Winograd's n * n
    for each tile, of whole vectors of channels and maps; the transforms of the weights count where there are few tiles,
    those of the tiles where there are few channels.  A group is one task.

    Time over that of the direct convolution, as the costs say, and measured (28 x 28, 8 images, one core with AVX2):

        channels, maps    8           12          16          33           64          16 groups of 32
        2 x 2             1.1, 1.5    1.2, 1.3    0.8, 0.74   0.8, 0.9     0.53, 0.56  0.62, 0.7
        4 x 4             0.95, 1.0   0.9, 0.93   0.6, 0.6    0.54, 0.61   0.34, 0.36  0.43, 0.45
    """
    images = g.images // g.groups
    channels, outputs, out = (g.outputs, g.channels, g.size) if kind == "data" else (g.channels, g.outputs, g.out)
    if not serves(kind, g) or g.flops < LEAST_FLOPS or min(channels, outputs) < LEAST_CHANNELS:
        return []
    if 1 < g.groups < 4 * threads and g.groups % threads:
        return []
    pair_cost = GRADIENT_COST if kind == "weight" else WEIGHT_COST
    direct = TAPS * images * out[1] * out[2] + pair_cost[0]
    whole = round_up(channels, lanes) * round_up(outputs, lanes) / (channels * outputs)
    costs = {}
    for m in (m for m in (2, 4) if m <= config.winograd):
        tiles = images * ceil_div(out[1], m) * ceil_div(out[2], m)
        costs[m] = (m + 2) ** 2 * tiles * whole + pair_cost[m] + tiles * TILE_COST[m] * (1 / channels + 1 / outputs)
    return sorted((m for m in costs if costs[m] < direct), key=lambda m: costs[m])


@dataclass(frozen=True)
class Strips:
    """How the tiles of a map are cut: chunks of rows and columns of tiles, and how many images make a block."""

    rows: int
    columns: int
    row_chunks: int
    column_chunks: int
    group: int

    @property
    def tiles(self) -> int:
        """Most tiles of a strip."""
        return self.most_rows * self.most_columns

    @property
    def most_rows(self) -> int:
        return ceil_div(self.rows, self.row_chunks)

    @property
    def most_columns(self) -> int:
        return ceil_div(self.columns, self.column_chunks)


def cut_strips(images: int, rows: int, columns: int, wanted: int, tasks: int) -> Strips:
    """Cut maps of rows x columns tiles into blocks of about `wanted` tiles, and into at least `tasks` if there are."""
    tiles = rows * columns
    wanted = max(1, min(wanted, ceil_div(images * tiles, tasks)))
    if 2 * tiles <= wanted:
        blocks = ceil_div(images, wanted // tiles)
        return Strips(rows, columns, 1, 1, ceil_div(images, blocks))
    row_chunks = min(rows, ceil_div(tiles, wanted))
    column_chunks = min(columns, ceil_div(ceil_div(rows, row_chunks) * columns, 2 * wanted))
    return Strips(rows, columns, row_chunks, column_chunks, 1)


def share_strips(
    g: Geometry, rows: int, columns: int, panels: int, wanted: int, threads: int, is_tiles_first: bool
) -> tuple[Strips, int]:
    """Cut maps of rows x columns tiles into blocks of about `wanted`, and return how many tasks share the products.

    A group is a task; where all tiles are transformed first, tasks share the panels of maps.
    """
    if g.groups > 1:
        return cut_strips(g.images // g.groups, rows, columns, wanted, 1), g.groups
    if is_tiles_first:
        group = max(1, min(g.images, wanted // (rows * columns)))
        tasks = panels if panels < 4 * threads else max(4 * threads, ceil_div(panels, PANELS))
        return Strips(rows, columns, 1, 1, group), tasks
    strips = cut_strips(g.images, rows, columns, wanted, 4 * threads)
    return strips, ceil_div(g.images * strips.row_chunks * strips.column_chunks, strips.group)


def plan_winograd(
    kind: str, dtype: str, g: Geometry, m: int, threads: int, shape: TileShape, cut: int = 1
) -> LibraryCall:
    """Plan the forward convolution or the gradient of the data with tiles of m x m outputs.

    cut: how many times smaller than usual the blocks are that a thread keeps.
    """
    size = ITEM_SIZES[dtype]
    lanes, width = shape.lanes(size), shape.columns(size)
    is_data = kind == "data"
    channels, outputs, source, out = g.channels, g.outputs, g.size[1:], g.out[1:]
    top, left = g.low[1:]
    steps = (g.channels * TAPS, TAPS)
    if is_data:
        channels, outputs, source, out, steps = outputs, channels, out, source, steps[::-1]
        top, left = 2 - top, 2 - left
    depth, panels, points = round_up(channels, lanes), ceil_div(outputs, width), (m + 2) ** 2
    rows, columns = (ceil_div(n, m) for n in out)
    v_row = depth * size
    wanted = max(LEAST_TILES, TILE_CACHE // (points * v_row)) // cut
    is_tiles_first = g.groups == 1 and g.images * rows * columns <= outputs
    strips, tasks = share_strips(g, rows, columns, panels, wanted, threads, is_tiles_first)
    count = g.images * strips.row_chunks * strips.column_chunks
    own_panels = ceil_div(panels, tasks) if is_tiles_first else panels
    u_point = own_panels * depth * width * size + POINT_GAP
    slots = count if is_tiles_first else strips.group
    v_point = slots * strips.tiles * v_row + POINT_GAP
    m_panels = min(max(1, PANELS // cut), own_panels)
    m_row = m_panels * width * size
    m_point = strips.group * strips.tiles * m_row + POINT_GAP
    u_bytes, v_bytes = points * u_point, points * v_point + v_row
    shared, own = (v_bytes, u_bytes) if is_tiles_first else (u_bytes, v_bytes)
    own_offset = tiles_offset = PROBE_BYTES
    if g.groups > 1:
        shared, own = 0, v_bytes
        tiles_offset += round_up(u_bytes)
    m_offset = tiles_offset + round_up(own)
    buffer_offset = m_offset + round_up(points * m_point + m_row)
    positions = ((strips.most_rows * m + 2) * (strips.most_columns * m + 2) + 2 * lanes) * lanes
    buffer = max(positions, (WEIGHT_CHANNELS * TAPS + lanes) * width) * size
    work = buffer_offset + round_up(buffer)
    marks_offset = HEADER_BYTES + round_up(shared)
    work_offset = marks_offset + round_up(count * panels * WORD)
    parts = ceil_div(channels, PART)
    first_tasks = 0 if g.groups > 1 else count * parts if is_tiles_first else panels
    plan = (
        g.images, channels, *source, outputs, *out, top, left,
        rows, columns, strips.row_chunks, strips.column_chunks, strips.tiles, count, strips.group, g.groups,
        int(is_tiles_first), first_tasks, tasks, panels,
        *steps, g.outputs * g.channels * TAPS, int(is_data), int(not is_data),
        depth, u_point, v_point, v_row, m_point, m_row, m_panels,
        HEADER_BYTES, work_offset, work, own_offset, tiles_offset, m_offset, buffer_offset, parts, marks_offset,
    )  # fmt: skip
    assert len(plan) == WINOGRAD_WORDS
    plane = out[0] * out[1]
    grain = plane if strips.row_chunks * strips.column_chunks == 1 else out[1] if strips.column_chunks == 1 else 0
    name = f"winograd{m}_{SHORT_NAMES[dtype]}"
    what = "a group at a time" if g.groups > 1 else f"{'tiles' if is_tiles_first else 'weights'} transformed first"
    why = f"{count} strips of {strips.tiles} tiles, {what}"
    return LibraryCall(f"tg_{name}", name, plan, work_offset + work * threads, g.flops, why, True, grain)
