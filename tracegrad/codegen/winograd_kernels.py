"""Convolutions by 3 x 3 taps with Winograd's filtering (`winograd_matrices`): forward, and the gradient of the data.

Tiles of m x m outputs overlap by two rows and columns of the input.  A *strip* is a rectangle of tiles of one image, a
block some strips.  With p numbering the n x n points:

    V[p, t, c] = B^T x[tile t, c] B        U[p, c, o] = G w[o, c] G^T
    M[p, t, o] = sum_c V[p, t, c] * U[p, c, o]
    y[tile t, o] = A^T M[., t, o] A

Channels lie side by side in V and M, whatever the map's size is: a vector is `lanes` channels of one position, so small
maps are no slower than large ones.  Only x and y are transposed, which are smaller than V and M.

What every task needs is transformed first: the weights, or, where there are fewer tiles than maps, the tiles.  A task
does the rest for a block of strips, or for some maps of all strips.  In groups nothing is shared: each is one task.

A NaN or inf spreads over a tile and over all that is multiplied with it, but never gets lost, and neither does an
overflow between: strips whose outputs are not all finite are marked, and computed again (`winograd_exact`).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen import winograd_layout as words
from tracegrad.codegen.addresses import load_word, minimum, par_for, store_word, task_address
from tracegrad.codegen.gemm_kernels import ENTRY_SIGNATURE, TASK_SIGNATURE, panel_start
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import SHORT_NAMES
from tracegrad.codegen.tile_moves import transpose_part
from tracegrad.codegen.tile_shape import TileShape
from tracegrad.codegen.winograd_exact import exact_stage
from tracegrad.codegen.winograd_output import clear_marks, strip_output
from tracegrad.codegen.winograd_strips import (
    strip_count,
    strip_image,
    strip_transform,
    tile_column,
    tile_columns,
    tile_row,
    tile_rows,
)
from tracegrad.codegen.winograd_taps import weight_transform
from tracegrad.codegen.winograd_tasks import Stage, first_task_of, task_of
from tracegrad.codegen.winograd_tile import row_tile_intrinsic, row_tile_part
from tracegrad.codegen.winograd_transforms import transform_part, turn_part


def point_products(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel multiply(plan, u, v, tiles, first_panel, panels, products): M of some tiles and panels."""
    size = bits // 8
    lanes, columns = shape.lanes(size), shape.columns(size)
    panel_rows = shape.rows
    n = m + 2
    tile = row_tile_intrinsic(bits, is_along=True)

    @kernel
    def multiply(plan: int, u: int, v: int, tiles: int, first_panel: int, panels: int, products: int) -> None:
        """Compute M[point, t, o] = V[point, t] @ U[point]; `u`: the first of the panels.

        Pairs of rows and whole vectors are stored, some with junk: masked stores take ten times as long (AVX2).
        """
        depth = load_word(plan, words.W_DEPTH)
        v_row = load_word(plan, words.W_V_ROW)
        m_row = load_word(plan, words.W_M_ROW)
        outputs = load_word(plan, words.W_OUTPUTS) - first_panel * columns
        blocks = (tiles + panel_rows - 1) // panel_rows
        for p in range(n * n):
            a = v + p * load_word(plan, words.W_V_POINT)
            for panel in range(panels):
                b = u + p * load_word(plan, words.W_U_POINT) + panel * depth * columns * size
                target = products + p * load_word(plan, words.W_M_POINT) + panel * columns * size
                maps = (outputs - panel * columns + lanes - 1) // lanes * lanes
                for q in range(blocks):
                    t = panel_start(tiles, q, blocks)
                    rows = (panel_start(tiles, q + 1, blocks) - t + 1) // 2 * 2
                    tile(rows, depth, a + t * v_row, b, v_row, target + t * m_row, m_row, maps, 0)

    return multiply


def block_task(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel compute(scratch, u, v, panels from and to, strips from and to, work)."""
    size = bits // 8
    columns = shape.columns(size)
    multiply = point_products(bits, shape, m)
    write_strip = strip_output(bits, shape, m)

    @kernel
    def compute(
        scratch: int, u: int, v: int, first_panel: int, end_panel: int, first: int, end: int, work: int
    ) -> None:
        """Compute the maps of panels first_panel..end_panel-1 in strips first..end-1; u, v begin with these."""
        plan = load_word(scratch, 0)
        group = load_word(plan, words.W_BLOCK)
        outputs = load_word(plan, words.W_OUTPUTS)
        slot_tiles = load_word(plan, words.W_STRIP_TILES)
        products = work + load_word(plan, words.W_M_OFFSET)
        most = load_word(plan, words.W_M_PANELS)
        panel_bytes = load_word(plan, words.W_DEPTH) * columns * size
        for panel in range(first_panel, end_panel, most):
            panels = minimum(most, end_panel - panel)
            maps = minimum(panels * columns, outputs - panel * columns)
            for strip in range(first, end, group):
                strips = minimum(group, end - strip)
                tiles = (strip - first) * slot_tiles
                multiply(plan, u + (panel - first_panel) * panel_bytes, v + tiles * load_word(plan, words.W_V_ROW),
                         (strips - 1) * slot_tiles + strip_count(plan, strip + strips - 1),
                         panel, panels, products)  # fmt: skip
                for k in range(strips):
                    slot = products + k * slot_tiles * load_word(plan, words.W_M_ROW)
                    write_strip(scratch, strip + k, slot, panel, maps, work)

    return compute


def tiles_transform(bits: int, shape: TileShape, m: int) -> Any:
    """Return the kernel transform_tiles(scratch, strip, first, end, v, buffer): V of some channels of a strip."""
    size = bits // 8
    transform_strip = strip_transform(bits, shape, "input", m)

    @kernel
    def transform_tiles(scratch: int, strip: int, first: int, end: int, v: int, buffer: int) -> None:
        plan = load_word(scratch, 0)
        channels = load_word(plan, words.W_CHANNELS)
        height = load_word(plan, words.W_HEIGHT)
        width = load_word(plan, words.W_WIDTH)
        plane = strip_image(plan, strip) * channels + first
        x = load_word(load_word(scratch, 1), 0) + plane * height * width * size
        transform_strip(x, height, width, end - first,
                        load_word(plan, words.W_TOP) - tile_row(plan, strip) * m,
                        load_word(plan, words.W_LEFT) - tile_column(plan, strip) * m,
                        tile_rows(plan, strip), tile_columns(plan, strip), v + first * size,
                        load_word(plan, words.W_V_POINT), load_word(plan, words.W_V_ROW), buffer)  # fmt: skip

    return transform_tiles


def filtering_stage(bits: int, shape: TileShape, m: int) -> Stage:
    """Return what computes a convolution by Winograd's filtering."""
    pitch = shape.columns(bits // 8) * bits // 8

    @kernel
    def strip_bytes(plan: int) -> int:
        return load_word(plan, words.W_STRIP_TILES) * load_word(plan, words.W_V_ROW)

    @kernel
    def panel_bytes(plan: int) -> int:
        return load_word(plan, words.W_DEPTH) * pitch

    return Stage(
        weight_transform(bits, shape, m), tiles_transform(bits, shape, m), block_task(bits, shape, m),
        strip_bytes, panel_bytes,
    )  # fmt: skip


def winograd_entries(bits: int, shape: TileShape, m: int) -> dict[str, tuple[Any, Any]]:
    """Return the entry of forward and data-gradient convolutions with tiles of m x m, and its tasks."""
    symbol = f"tg_winograd{m}_{SHORT_NAMES[f'float{bits}']}"
    stages = {symbol: filtering_stage(bits, shape, m), f"{symbol}_exact": exact_stage(bits, shape, m)}
    first_address, exact_first_address = (task_address(f"{name}_first") for name in stages)
    address, exact_address = (task_address(f"{name}_task") for name in stages)

    @kernel
    def entry(plan: int, operands: int, scratch: int, pool: int) -> None:
        store_word(scratch, 0, plan)
        store_word(scratch, 1, operands)
        clear_marks(plan, scratch)
        par_for(pool, first_address(), scratch, load_word(plan, words.W_FIRST_TASKS))
        par_for(pool, address(), scratch, load_word(plan, words.W_TASKS))
        if load_word(scratch, words.IS_FINITE) == 0:
            par_for(pool, exact_first_address(), scratch, load_word(plan, words.W_FIRST_TASKS))
            par_for(pool, exact_address(), scratch, load_word(plan, words.W_TASKS))

    tasks = {f"{name}_first": (first_task_of(bits, shape, stage), TASK_SIGNATURE) for name, stage in stages.items()}
    tasks |= {f"{name}_task": (task_of(bits, stage), TASK_SIGNATURE) for name, stage in stages.items()}
    return {symbol: (entry, ENTRY_SIGNATURE), **tasks}


def winograd_parts(bits: int, shape: TileShape, m: int) -> list[ir.Module]:
    """Return the finished modules that the convolutions call."""
    transforms = [transform_part(bits, shape, kind, m) for kind in ("input", "weight", "output")]
    return [*transforms, turn_part(bits, shape), transpose_part(bits, shape), row_tile_part(bits, shape, is_along=True)]
