"""Plans of the gradient of 3 x 3 weights with Winograd's filtering (`winograd_weight_kernels`)."""

from __future__ import annotations

from tracegrad.codegen.conv_geometry import Geometry
from tracegrad.codegen.plan import HEADER_BYTES, ITEM_SIZES, SHORT_NAMES, LibraryCall, ceil_div, round_up
from tracegrad.codegen.plan_winograd import POINT_GAP, WORD, Strips, cut_strips
from tracegrad.codegen.tile_shape import TileShape
from tracegrad.codegen.winograd_layout import PROBE_BYTES, TAPS, WINOGRAD_GRADIENT_WORDS

ROWS_CACHE = 768 << 10  # bytes of the rows of one block of strips
LEAST_ROWS = 48  # of a block, where there are as many: each block reads and writes all sums
MAPS, CHANNELS = 32, 64  # that are summed at a time where all rows are made first
BLOCK = 64  # maps or channels that lie side by side


def plan_winograd_weight(
    dtype: str, g: Geometry, m: int, threads: int, shape: TileShape, exact: tuple[int, ...], cut: int = 1
) -> LibraryCall:
    """Plan the gradient of the weights with tiles of m x m outputs; `exact`: the plan of plain loops.

    cut: how many times smaller than usual the blocks are that a thread keeps.
    """
    size = ITEM_SIZES[dtype]
    lanes = shape.lanes(size)
    points = (m + 2) ** 2
    out, source = g.out[1:], g.size[1:]
    rows, columns = (ceil_div(n, m) for n in out)
    sum_row = round_up(g.channels, lanes) * size
    block = min(BLOCK, round_up(max(g.outputs, g.channels), lanes))
    blocks_in_row = ceil_div(g.outputs, block) + ceil_div(g.channels, block)
    pitch = block * size
    tiles = rows * columns
    is_tiles_first = g.images * tiles <= min(g.outputs, g.channels)
    if is_tiles_first:
        strips = Strips(rows, columns, 1, 1, g.images)
        maps = max(MAPS // cut, 8)
        while maps > 8 and g.outputs < 4 * threads * maps:
            maps //= 2
        tasks = ceil_div(g.outputs, maps)
        sum_row = min(sum_row, max(CHANNELS // cut, lanes) * size)
        sum_maps, shares, slots = maps, threads, g.images
    else:
        wanted = max(LEAST_ROWS // cut, ROWS_CACHE // cut // (points * blocks_in_row * pitch))
        strips = cut_strips(g.images, rows, columns, wanted, threads)
        blocks = ceil_div(g.images * strips.row_chunks * strips.column_chunks, strips.group)
        tasks = shares = min(threads, blocks)
        maps, sum_maps, slots = g.outputs, g.outputs, strips.group
    count = g.images * strips.row_chunks * strips.column_chunks
    block_bytes = slots * strips.tiles * pitch
    point = blocks_in_row * block_bytes + POINT_GAP
    sum_point = round_up(sum_maps * sum_row) + POINT_GAP
    rows_bytes, sums_bytes = round_up(points * point), round_up(points * sum_point)
    positions = ((strips.most_rows * m + 2) * (strips.most_columns * m + 2) + 2 * lanes) * lanes
    buffer = round_up(max(positions * size, PROBE_BYTES + TAPS * sum_row))
    inner, outer = (sums_bytes, rows_bytes) if is_tiles_first else (rows_bytes, sums_bytes * shares)
    work = inner + buffer
    marks_offset = HEADER_BYTES + outer
    lost_offset = marks_offset + round_up(g.outputs * WORD)
    work_offset = lost_offset + round_up(g.channels * TAPS * WORD)
    plan = (
        g.images, g.channels, *source, g.outputs, *out, *g.low[1:],
        rows, columns, strips.row_chunks, strips.column_chunks, strips.tiles, count, strips.group,
        1, int(is_tiles_first), count * blocks_in_row if is_tiles_first else 0, blocks_in_row,
        tasks, 0 if is_tiles_first else g.outputs,
        HEADER_BYTES if is_tiles_first else 0, pitch, point,
        0 if is_tiles_first else HEADER_BYTES, sum_row, sum_point, sums_bytes,
        work_offset, work, inner, maps, WINOGRAD_GRADIENT_WORDS, block_bytes,
        marks_offset, lost_offset, *exact,
    )  # fmt: skip
    assert len(plan) == WINOGRAD_GRADIENT_WORDS + len(exact)
    name = f"winogradw{m}_{SHORT_NAMES[dtype]}"
    why = f"{count} strips of {strips.tiles} tiles, "
    why += f"rows first, then blocks of {maps} maps" if is_tiles_first else f"{tasks} shares"
    scratch = work_offset + work * threads
    return LibraryCall(f"tg_{name}", name, plan, scratch, g.flops, why, True, g.channels * TAPS)
