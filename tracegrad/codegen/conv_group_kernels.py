"""The gradient of grouped convolutions' weights by dot products: see `plan_conv_groups` for the formula.

A task owns maps of a group: nothing is summed by several of them.  For each batch of images, or chunk of one, it copies
x with zeros around it and its maps of dy with zeros between their rows, and the tile adds its dot products to dw.

Positions that are no output multiply x by zero, so an inf or NaN of x also shows in taps of its channel that it does
not belong to: sums that are not finite are computed again in plain loops.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen import plan_conv_groups as words
from tracegrad.codegen.addresses import load_word, minimum, par_for, store_word, task_address
from tracegrad.codegen.conv_input import padded_copy
from tracegrad.codegen.conv_packing import WORD
from tracegrad.codegen.conv_weight_kernels import row_repair
from tracegrad.codegen.dot_tile import dots_intrinsic, dots_part
from tracegrad.codegen.finish import finish
from tracegrad.codegen.gemm_kernels import ENTRY_SIGNATURE, TASK_SIGNATURE
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import HEADER_BYTES, SHORT_NAMES
from tracegrad.codegen.row_moves import row_copy, row_wipe
from tracegrad.codegen.tile_shape import THIN_ROWS, TileShape, thin_vectors


def map_copy(bits: int, shape: TileShape) -> Any:
    """Return the kernel copy_maps(plan, source, end, maps, rows, width, target): rows with zeros up to the pitch."""
    size = bits // 8
    vector = shape.vector_bytes
    copy_row = row_copy(bits, shape)
    wipe = row_wipe(bits, shape)

    @kernel
    def copy_maps(plan: int, source: int, end: int, maps: int, rows: int, width: int, target: int) -> None:
        out_w = load_word(plan, words.OUT_W)
        map_items = load_word(plan, words.OUT_D) * load_word(plan, words.OUT_H) * out_w
        pitch = load_word(plan, words.PITCH)
        plane = load_word(plan, words.MAP_PLANE)
        for m in range(maps):
            for r in range(rows):
                from_ = source + (m * map_items + r * out_w) * size
                to = target + (m * plane + r * pitch) * size
                copy_row(from_, to, width, end - vector - from_)
                wipe(to + width * size, pitch - width)
            wipe(target + (m * plane + rows * pitch) * size, plane - rows * pitch)

    return copy_maps


def batch_sum(bits: int, shape: TileShape) -> Any:
    """Return the kernel add_products(plan, x, dy, maps, images, positions, result, accumulate)."""
    size = bits // 8
    dots = dots_intrinsic(bits)

    @kernel
    def add_products(
        plan: int, x: int, dy: int, maps: int, images: int, positions: int, result: int, accumulate: int
    ) -> None:
        """Add the products of all maps with all (channel, tap): rows of dy stay in the L1 cache."""
        depth = load_word(plan, words.CHANNELS) * load_word(plan, words.TAPS)
        offsets = plan + load_word(plan, words.OFFSET_TABLE) * WORD
        plane = load_word(plan, words.MAP_PLANE) * size
        dy_block, x_block = load_word(plan, words.DY_BLOCK) * size, load_word(plan, words.X_BLOCK) * size
        panels = (maps + THIN_ROWS - 1) // THIN_ROWS
        for panel in range(panels):
            o = maps * panel // panels
            rows = maps * (panel + 1) // panels - o
            columns = thin_vectors(rows)
            for k in range(0, depth, columns):
                dots(rows, minimum(columns, depth - k), dy + o * plane, plane, x, offsets + k * WORD, positions, images,
                     dy_block, x_block, result + (o * depth + k) * size, depth * size, accumulate)  # fmt: skip

    return add_products


def chunk_sum(bits: int, shape: TileShape) -> Any:
    """Return the kernel add_chunk(plan, operands, group, map_, maps, image, images, chunk, work, result, accumulate).

    It adds one chunk of one slice of some images of a group to the gradients of some of its maps.
    """
    size = bits // 8
    lanes = shape.lanes(size)
    pad = padded_copy(bits, shape)
    copy_maps = map_copy(bits, shape)
    add_products = batch_sum(bits, shape)

    @kernel
    def add_chunk(
        plan: int, operands: int, group: int, map_: int, maps: int, first_image: int, images: int, chunk: int,
        work: int, result: int, accumulate: int,
    ) -> None:  # fmt: skip
        column_chunks, chunks = load_word(plan, words.COLUMN_CHUNKS), load_word(plan, words.CHUNKS)
        out_h, out_w = load_word(plan, words.OUT_H), load_word(plan, words.OUT_W)
        slice_ = chunk // (chunks * column_chunks)
        part = chunk % column_chunks
        piece = chunk // column_chunks % chunks
        row = out_h * piece // chunks
        rows = out_h * (piece + 1) // chunks - row
        column = out_w * part // column_chunks
        width = out_w * (part + 1) // column_chunks - column
        slices, groups = load_word(plan, words.SLICES), load_word(plan, words.GROUPS)
        channels, depth = load_word(plan, words.CHANNELS) // slices, load_word(plan, words.DEPTH)
        height, in_width = load_word(plan, words.HEIGHT), load_word(plan, words.WIDTH)
        items = channels * depth * height * in_width * size
        end = load_word(operands, 0) + load_word(plan, words.IMAGES) * items
        outputs = load_word(plan, words.OUTPUTS)
        map_items = load_word(plan, words.OUT_D) * out_h * out_w * size
        dy_end = load_word(operands, 1) + load_word(plan, words.IMAGES) * outputs * map_items
        left = load_word(plan, words.LEFT) - column * load_word(plan, words.STRIDE_W)
        pitch = load_word(plan, words.PITCH)
        maps_copy = work + load_word(plan, words.DY_OFFSET)
        for i in range(images):
            image = (first_image + i) * groups + group
            pad(load_word(operands, 0) + image * items, end, channels, depth, height, in_width,
                slice_ * load_word(plan, words.STRIDE_D), plan + load_word(plan, words.SLICE_TABLE) * WORD, slices,
                load_word(plan, words.TOP), left, load_word(plan, words.STRIDE_H), load_word(plan, words.STRIDE_W),
                row, rows + load_word(plan, words.HALO), pitch, load_word(plan, words.PLANE),
                plan + load_word(plan, words.PHASE_TABLE) * WORD, load_word(plan, words.PHASES),
                work + i * load_word(plan, words.X_BLOCK) * size)  # fmt: skip
            source = load_word(operands, 1) + (image * outputs + map_) * map_items
            source += ((slice_ * out_h + row) * out_w + column) * size
            copy_maps(plan, source, dy_end, maps, rows, width, maps_copy + i * load_word(plan, words.DY_BLOCK) * size)
        positions = ((rows - 1) * pitch + width + lanes - 1) // lanes * lanes
        add_products(plan, work, maps_copy, maps, images, positions, result, accumulate)

    return add_chunk


def convg_entries(bits: int, shape: TileShape) -> dict[str, tuple[Any, Any]]:
    """Return the entry of the weight gradient of groups and its task."""
    size = bits // 8
    name = SHORT_NAMES[f"float{bits}"]
    add_chunk = chunk_sum(bits, shape)
    repair = row_repair(bits)
    address = task_address(f"tg_convg_{name}_task")

    @kernel
    def groups_task(scratch: int, index: int, thread: int) -> None:
        """Compute the gradients of a block of a group's maps."""
        plan, operands = load_word(scratch, 0), load_word(scratch, 1)
        blocks, outputs = load_word(plan, words.MAP_BLOCKS), load_word(plan, words.OUTPUTS)
        group, block = index // blocks, index % blocks
        map_ = outputs * block // blocks
        maps = outputs * (block + 1) // blocks - map_
        taps, depth = load_word(plan, words.TAPS), load_word(plan, words.CHANNELS) * load_word(plan, words.TAPS)
        first = (group * outputs + map_) * depth
        result = load_word(operands, 2) + first * size
        work = scratch + HEADER_BYTES + thread * load_word(plan, words.WORK_BYTES)
        chunks = load_word(plan, words.OUT_D) * load_word(plan, words.CHUNKS) * load_word(plan, words.COLUMN_CHUNKS)
        images, batch = load_word(plan, words.IMAGES) // load_word(plan, words.GROUPS), load_word(plan, words.BATCH)
        for image in range(0, images, batch):
            some = minimum(batch, images - image)
            for chunk in range(chunks):
                add_chunk(plan, operands, group, map_, maps, image, some, chunk, work, result, image + chunk)
        exact = plan + load_word(plan, words.EXACT_PLAN) * WORD
        for m in range(maps):
            row = group * outputs + map_ + m
            repair(exact, operands, row, load_word(plan, words.CHANNELS), taps, load_word(plan, words.SLICES))
        finish(operands, first, 1, maps * depth, maps * depth)

    @kernel
    def convg(plan: int, operands: int, scratch: int, pool: int) -> None:
        store_word(scratch, 0, plan)
        store_word(scratch, 1, operands)
        par_for(pool, address(), scratch, load_word(plan, words.GROUPS) * load_word(plan, words.MAP_BLOCKS))

    return {
        f"tg_convg_{name}": (convg, ENTRY_SIGNATURE),
        f"tg_convg_{name}_task": (groups_task, TASK_SIGNATURE),
    }


def convg_parts(bits: int, shape: TileShape) -> list[ir.Module]:
    """Return the finished modules that it calls."""
    return [dots_part(bits, shape)]
