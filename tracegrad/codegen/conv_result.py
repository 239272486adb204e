"""The rows of a convolution's chunk, written to their places in the result: without junk positions, phases interleaved.

Nothing but the chunk's own elements is written; whole vectors where a row has one, the last of which ends with the row.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen import conv_layout as words
from tracegrad.codegen import types
from tracegrad.codegen.addresses import I32, POINTER, intrinsic, load_word, loader, maximum, minimum, storer
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.row_moves import row_copy
from tracegrad.codegen.tile import WORD, Lanes, offset, word
from tracegrad.codegen.tile_shape import TileShape


def zip_intrinsic(bits: int, shape: TileShape) -> Any:
    """Return the intrinsic zip(even, odd, target): the elements of two vectors in turn."""
    lanes = Lanes(bits, shape.lanes(bits // 8))

    @intrinsic(types.void(WORD, WORD, WORD))
    def zip_vectors(builder: ir.IRBuilder, *args: Any) -> None:
        pair = [lanes.load(builder, builder.inttoptr(x, POINTER)) for x in args[:2]]
        place = builder.inttoptr(args[2], POINTER)
        for half in range(2):
            order = [i // 2 + i % 2 * lanes.count for i in range(half * lanes.count, (half + 1) * lanes.count)]
            chosen = ir.Constant(ir.VectorType(I32, lanes.count), order)
            value = builder.shuffle_vector(*pair, chosen)
            lanes.store(builder, value, offset(builder, place, word(half * shape.vector_bytes)))

    return zip_vectors


def row_zip(bits: int, shape: TileShape) -> Any:
    """Return the kernel zip_row(even, odd, target, count): target[j] = even[j / 2] or odd[j / 2], for j < count."""
    size = bits // 8
    lanes = shape.lanes(size)
    zip_vectors = zip_intrinsic(bits, shape)
    load = loader(f"float{bits}")
    store = storer(f"float{bits}")

    @kernel
    def zip_row(even: int, odd: int, target: int, count: int) -> None:
        pairs = count // 2
        j = 0
        if pairs >= lanes:
            while j < pairs:
                at = minimum(j, pairs - lanes)
                zip_vectors(even + at * size, odd + at * size, target + 2 * at * size)
                j += lanes
        else:
            while j < pairs:
                store(target, 2 * j, load(even, j))
                store(target, 2 * j + 1, load(odd, j))
                j += 1
        if count > 2 * pairs:
            store(target, 2 * pairs, load(even, pairs))

    return zip_row


def result_rows(bits: int, shape: TileShape) -> Any:
    """Return the kernel place_rows(plan, y, y_pitch, target, a, rows, columns).

    It writes the rows of the runs of phase `a` of a chunk, which begins at `target` and has so many columns: Y of run b
    holds every STEP_W-th of them, from b on.
    """
    size = bits // 8
    vector = shape.vector_bytes
    copy_row = row_copy(bits, shape)
    zip_row = row_zip(bits, shape)
    load = loader(f"float{bits}")
    store = storer(f"float{bits}")

    @kernel
    def place_columns(row: int, run_bytes: int, runs: int, step: int, target: int, columns: int) -> None:
        if step == 2 and runs == 2:
            zip_row(row, row + run_bytes, target, columns)
        else:
            for b in range(runs):
                for j in range((columns - b + step - 1) // step):
                    store(target, b + j * step, load(row + b * run_bytes, j))

    @kernel
    def place_rows(plan: int, y: int, y_pitch: int, target: int, a: int, rows: int, columns: int) -> None:
        outputs = load_word(plan, words.OUTPUTS)
        out_w = load_word(plan, words.OUT_W)
        plane = load_word(plan, words.OUT_D) * load_word(plan, words.OUT_H) * out_w
        pitch = load_word(plan, words.PITCH)
        runs = load_word(plan, words.RUN_COLUMNS)
        step_h = load_word(plan, words.STEP_H)
        step_w = load_word(plan, words.STEP_W)
        row_bytes = step_h * out_w * size
        # A row may spill over what follows it in the chunk and is written later.
        spill = (rows - 1) * row_bytes if step_h == 1 and out_w == columns else 0
        for m in range(outputs):
            for r in range(rows):
                source = y + (m * y_pitch + r * pitch) * size
                place = target + (m * plane + a * out_w) * size + r * row_bytes
                if step_w == 1:
                    copy_row(source, place, columns, maximum(0, spill - r * row_bytes) + columns * size - vector)
                else:
                    place_columns(source, outputs * y_pitch * size, runs, step_w, place, columns)

    return place_rows
