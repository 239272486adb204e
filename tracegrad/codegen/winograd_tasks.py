"""The tasks of Winograd's convolutions (`winograd_kernels`): some make what all need, the others do the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tracegrad.codegen import winograd_layout as words
from tracegrad.codegen.addresses import load_word, minimum
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.row_loops import row_clearing
from tracegrad.codegen.tile_shape import TileShape
from tracegrad.codegen.winograd_strips import work_address

work_of = work_address(words.W_WORK_OFFSET, words.W_WORK_BYTES)


@dataclass(frozen=True)
class Stage:
    """Kernels that compute the strips of a convolution, or those that are marked.

    make_weights(scratch, panel, target, buffer), make_tiles(scratch, strip, first, end, target, buffer): the operands.
    compute(scratch, weights, tiles, panels from and to, strips from and to, work), both beginning with the first.
    strip_bytes(plan), panel_bytes(plan): from one strip of tiles, or panel of weights, to the next.
    """

    make_weights: Any
    make_tiles: Any
    compute: Any
    strip_bytes: Any
    panel_bytes: Any


def first_task_of(bits: int, shape: TileShape, stage: Stage) -> Any:
    """Return the task that makes what all tasks need: tiles of a strip, or a panel of weights."""
    lanes = shape.lanes(bits // 8)
    make_weights, make_tiles = stage.make_weights, stage.make_tiles
    strip_bytes, panel_bytes = stage.strip_bytes, stage.panel_bytes

    @kernel
    def first_task(scratch: int, index: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        buffer = work_of(plan, scratch, thread) + load_word(plan, words.W_BUFFER_OFFSET)
        shared = scratch + load_word(plan, words.W_SHARED_OFFSET)
        parts = load_word(plan, words.W_PARTS)
        channels = load_word(plan, words.W_CHANNELS)
        vectors = load_word(plan, words.W_DEPTH) // lanes
        if load_word(plan, words.W_IS_TILES_FIRST):
            strip = index // parts
            first = vectors * (index % parts) // parts * lanes
            end = minimum(channels, vectors * (index % parts + 1) // parts * lanes)
            make_tiles(scratch, strip, first, end, shared + strip * strip_bytes(plan), buffer)
        else:
            make_weights(scratch, index, shared + index * panel_bytes(plan), buffer)

    return first_task


def task_of(bits: int, stage: Stage) -> Any:
    """Return the task that computes panels of weights by strips of tiles: some of them, or all of a group."""
    size = bits // 8
    clear = row_clearing(f"float{bits}")
    make_weights, make_tiles, compute = stage.make_weights, stage.make_tiles, stage.compute
    strip_bytes, panel_bytes = stage.strip_bytes, stage.panel_bytes

    @kernel
    def compute_strips(scratch: int, weights: int, first: int, end: int, work: int) -> None:
        """Transform strips first..end-1, and compute all panels of them."""
        plan = load_word(scratch, 0)
        tiles = work + load_word(plan, words.W_TILES_OFFSET)
        buffer = work + load_word(plan, words.W_BUFFER_OFFSET)
        for strip in range(first, end):
            place = tiles + (strip - first) * strip_bytes(plan)
            make_tiles(scratch, strip, 0, load_word(plan, words.W_CHANNELS), place, buffer)
        compute(scratch, weights, tiles, 0, load_word(plan, words.W_PANELS), first, end, work)

    @kernel
    def task(scratch: int, index: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        work = work_of(plan, scratch, thread)
        clear(work, words.PROBE_BYTES // size)
        shared = scratch + load_word(plan, words.W_SHARED_OFFSET)
        own = work + load_word(plan, words.W_OWN_OFFSET)
        buffer = work + load_word(plan, words.W_BUFFER_OFFSET)
        tasks = load_word(plan, words.W_TASKS)
        panels = load_word(plan, words.W_PANELS)
        strips = load_word(plan, words.W_STRIPS)
        groups = load_word(plan, words.W_GROUPS)
        block = load_word(plan, words.W_BLOCK)
        if groups > 1:
            for panel in range(panels):
                make_weights(scratch, index * panels + panel, own + panel * panel_bytes(plan), buffer)
            end = strips // groups * (index + 1)
            for first in range(strips // groups * index, end, block):
                compute_strips(scratch, own, first, minimum(end, first + block), work)
        elif load_word(plan, words.W_IS_TILES_FIRST):
            first = panels * index // tasks
            end = panels * (index + 1) // tasks
            for panel in range(first, end):
                make_weights(scratch, panel, own + (panel - first) * panel_bytes(plan), buffer)
            compute(scratch, own, shared, first, end, 0, strips, work)
        else:
            compute_strips(scratch, shared, index * block, minimum(strips, (index + 1) * block), work)

    return task
