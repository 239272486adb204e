"""Products with a narrow operand, q <= a few rows: y[b, q, p] = sum_r matrix[b, p, r] * vectors[b, q, r].

The matrix is read once, where it lies.  Where its rows are contiguous they are dotted with all vectors, in registers;
where its columns are, they are added up, four at a time and into two results each, so that sums are read less often.
A block of sums stays in the L1 cache.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from tracegrad.codegen import plan_gemm as words
from tracegrad.codegen.addresses import (
    KERNEL_TYPES,
    load_word,
    loader,
    minimum,
    par_for,
    store_word,
    storer,
    task_address,
)
from tracegrad.codegen.finish import finish
from tracegrad.codegen.gemm_kernels import ENTRY_SIGNATURE, TASK_SIGNATURE, batch_start
from tracegrad.codegen.gemv_tile import OTHERS, ROWS, row_tile_intrinsic, row_tile_part
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import HEADER_BYTES, ITEM_SIZES, SHORT_NAMES
from tracegrad.codegen.tile_shape import TileShape


def vector_dots(dtype: str) -> Any:
    """Return the kernel dot_vector(matrix, p_stride, vector, results, count, sums)."""
    size = ITEM_SIZES[dtype]
    load = loader(dtype)
    store = storer(dtype)
    zero = KERNEL_TYPES[dtype](0)

    @kernel
    def dot_vector(matrix: int, p_stride: int, vector: int, results: int, count: int, sums: int) -> None:
        """Compute sums[p] where rows of the matrix are contiguous: four dot products at a time."""
        done = results // 4 * 4
        for p in range(0, done, 4):
            row0 = matrix + p * p_stride * size
            row1 = row0 + p_stride * size
            row2 = row1 + p_stride * size
            row3 = row2 + p_stride * size
            s0 = s1 = s2 = s3 = zero
            for r in range(count):
                v = load(vector, r)
                s0 += load(row0, r) * v
                s1 += load(row1, r) * v
                s2 += load(row2, r) * v
                s3 += load(row3, r) * v
            store(sums, p, s0)
            store(sums, p + 1, s1)
            store(sums, p + 2, s2)
            store(sums, p + 3, s3)
        for p in range(done, results):
            total = zero
            for r in range(count):
                total += load(matrix, p * p_stride + r) * load(vector, r)
            store(sums, p, total)

    return dot_vector


def row_dots(bits: int) -> Any:
    """Return the kernel dot_rows(matrix, p_stride, vectors, q_stride, results, width, count, sums, pitch, add)."""
    size = bits // 8
    row_tile = row_tile_intrinsic(bits)

    @kernel
    def dot_rows(
        matrix: int, p_stride: int, vectors: int, q_stride: int, results: int, width: int, count: int,
        sums: int, pitch: int, add: int,
    ) -> None:  # fmt: skip
        """Compute sums[q, p] where rows of the matrix are contiguous."""
        groups = (width + OTHERS - 1) // OTHERS
        step = (width + groups - 1) // groups
        for p in range(0, results, ROWS):
            rows = minimum(ROWS, results - p)
            for q in range(0, width, step):
                row_tile(
                    rows, minimum(step, width - q), count, matrix + p * p_stride * size, p_stride * size,
                    vectors + q * q_stride * size, q_stride * size, sums + (q * pitch + p) * size, pitch * size, add,
                )  # fmt: skip

    return dot_rows


def column_sums(dtype: str) -> Any:
    """Return the kernel add_columns(matrix, r_stride, vectors, q_stride, results, width, count, sums, pitch)."""
    size = ITEM_SIZES[dtype]
    load = loader(dtype)
    store = storer(dtype)

    @kernel
    def add_columns(
        matrix: int, r_stride: int, vectors: int, q_stride: int, results: int, width: int, count: int,
        sums: int, pitch: int,
    ) -> None:  # fmt: skip
        """Add to sums[q, p] where columns of the matrix are contiguous: four scaled columns at a time."""
        done = count // 4 * 4
        for r in range(0, done, 4):
            column0 = matrix + r * r_stride * size
            column1 = column0 + r_stride * size
            column2 = column1 + r_stride * size
            column3 = column2 + r_stride * size
            for q in range(0, width // 2 * 2, 2):
                v = vectors + (q * q_stride + r) * size
                w = v + q_stride * size
                v0, v1, v2, v3 = load(v, 0), load(v, 1), load(v, 2), load(v, 3)
                w0, w1, w2, w3 = load(w, 0), load(w, 1), load(w, 2), load(w, 3)
                sums_v = sums + q * pitch * size
                sums_w = sums_v + pitch * size
                for p in range(results):
                    c0, c1, c2, c3 = load(column0, p), load(column1, p), load(column2, p), load(column3, p)
                    store(sums_v, p, load(sums_v, p) + ((c0 * v0 + c1 * v1) + (c2 * v2 + c3 * v3)))
                    store(sums_w, p, load(sums_w, p) + ((c0 * w0 + c1 * w1) + (c2 * w2 + c3 * w3)))
            if width % 2:
                v = vectors + ((width - 1) * q_stride + r) * size
                v0, v1, v2, v3 = load(v, 0), load(v, 1), load(v, 2), load(v, 3)
                sums_v = sums + (width - 1) * pitch * size
                for p in range(results):
                    left = load(column0, p) * v0 + load(column1, p) * v1
                    right = load(column2, p) * v2 + load(column3, p) * v3
                    store(sums_v, p, load(sums_v, p) + left + right)
        for r in range(done, count):
            for q in range(width):
                factor = load(vectors, q * q_stride + r)
                sums_v = sums + q * pitch * size
                for p in range(results):
                    store(sums_v, p, load(sums_v, p) + load(matrix, r * r_stride + p) * factor)

    return add_columns


def strided_sums(dtype: str) -> Any:
    """Return the kernel strided(matrix, p_stride, r_stride, vectors, q_stride, results, width, count, sums, pitch)."""
    load = loader(dtype)
    store = storer(dtype)

    @kernel
    def strided(
        matrix: int, p_stride: int, r_stride: int, vectors: int, q_stride: int, results: int, width: int, count: int,
        sums: int, pitch: int,
    ) -> None:  # fmt: skip
        """Add to sums[q, p] for any strides."""
        for p in range(results):
            for q in range(width):
                total = load(sums, q * pitch + p)
                for r in range(count):
                    total += load(matrix, p * p_stride + r * r_stride) * load(vectors, q * q_stride + r)
                store(sums, q * pitch + p, total)

    return strided


def sums_of_block(bits: int) -> Any:
    """Return the kernel add_up(plan, matrix, vectors, results, count, work)."""
    dtype = f"float{bits}"
    size = bits // 8
    load = loader(dtype)
    store = storer(dtype)
    dot_vector = vector_dots(dtype)
    dot_rows = row_dots(bits)
    add_columns = column_sums(dtype)
    strided = strided_sums(dtype)
    zero = KERNEL_TYPES[dtype](0)

    @kernel
    def add_up(plan: int, matrix: int, vectors: int, results: int, count: int, work: int) -> None:
        """Compute the sums of one block at the start of `work`, some terms at a time."""
        p_stride = load_word(plan, words.MATRIX_P)
        r_stride = load_word(plan, words.MATRIX_R)
        v_stride = load_word(plan, words.VECTOR_R)
        q_stride = load_word(plan, words.VECTOR_Q)
        width = load_word(plan, words.V_Q)
        pitch = load_word(plan, words.V_PITCH)
        chunk = load_word(plan, words.V_DEPTH)
        one_sums = width * pitch
        gathered = work + 2 * one_sums * size
        for r in range(0, count, chunk):
            depth = minimum(chunk, count - r)
            part = matrix + r * r_stride * size
            others, others_q = vectors + r * v_stride * size, q_stride
            if v_stride != 1:
                for q in range(width):
                    for i in range(depth):
                        store(gathered, q * depth + i, load(others, q * q_stride + i * v_stride))
                others, others_q = gathered, depth
            if r_stride == 1 and width == 1:
                dot_vector(part, p_stride, others, results, depth, work)
            elif r_stride == 1:
                dot_rows(part, p_stride, others, others_q, results, width, depth, work, pitch, r)
            else:
                sums = work if r == 0 else work + one_sums * size
                for i in range(one_sums):
                    store(sums, i, zero)
                if p_stride == 1:
                    add_columns(part, r_stride, others, others_q, results, width, depth, sums, pitch)
                else:
                    strided(part, p_stride, r_stride, others, others_q, results, width, depth, sums, pitch)
                if r > 0:  # long sums are made of short ones, whose rounding errors are small
                    for i in range(one_sums):
                        store(work, i, load(work, i) + load(sums, i))

    return add_up


def block_of_results(bits: int) -> Any:
    """Return the kernel run_unit(plan, operands, scratch, unit, work)."""
    dtype = f"float{bits}"
    size = bits // 8
    load = loader(dtype)
    store = storer(dtype)
    add_up = sums_of_block(bits)

    @kernel
    def run_unit(plan: int, operands: int, scratch: int, unit: int, work: int) -> None:
        """Compute one block of results, or a split's share of it: unit = (batch, split, block)."""
        total_p = load_word(plan, words.V_P)
        total_r = load_word(plan, words.V_R)
        width = load_word(plan, words.V_Q)
        blocks = load_word(plan, words.P_BLOCKS)
        splits = load_word(plan, words.R_SPLITS)
        block = unit % blocks
        split = unit // blocks % splits
        batch = unit // (blocks * splits)
        p0 = total_p * block // blocks
        results = total_p * (block + 1) // blocks - p0
        r0 = total_r * split // splits
        count = total_r * (split + 1) // splits - r0
        matrix = load_word(operands, load_word(plan, words.MATRIX))
        inner = load_word(plan, words.V_INNER)
        matrix += batch_start(plan, batch, inner, words.MATRIX_BATCH, words.MATRIX_INNER) * size
        matrix += (p0 * load_word(plan, words.MATRIX_P) + r0 * load_word(plan, words.MATRIX_R)) * size
        vectors = load_word(operands, load_word(plan, words.VECTOR))
        vectors += batch_start(plan, batch, inner, words.VECTOR_BATCH, words.VECTOR_INNER) * size
        vectors += r0 * load_word(plan, words.VECTOR_R) * size
        add_up(plan, matrix, vectors, results, count, work)
        pitch = load_word(plan, words.V_PITCH)
        y_p, y_q = load_word(plan, words.RESULT_P), load_word(plan, words.RESULT_Q)
        origin = batch * load_word(plan, words.RESULT_BATCH) + p0 * y_p
        y = load_word(operands, load_word(plan, words.RESULT)) + origin * size
        if splits > 1:
            y_p, y_q = 1, total_p
            y = scratch + HEADER_BYTES + (split * width * total_p + p0) * size
        if y_p == 1:
            for q in range(width):
                for p in range(results):
                    store(y, q * y_q + p, load(work, q * pitch + p))
        else:
            for p in range(results):
                for q in range(width):
                    store(y, p * y_p + q * y_q, load(work, q * pitch + p))
        if splits == 1:
            finish_results(plan, operands, origin, results)

    return run_unit


@kernel
def finish_results(plan: int, operands: int, origin: int, results: int) -> None:
    """Finish a block that is `results` wide in p."""
    y_p, y_q = load_word(plan, words.RESULT_P), load_word(plan, words.RESULT_Q)
    if y_p == 1:
        finish(operands, origin, load_word(plan, words.V_Q), y_q, results)
    else:
        finish(operands, origin, results, y_p, load_word(plan, words.V_Q))


def gemv_entries(bits: int) -> dict[str, tuple[Any, Any]]:
    """Return the entry of the product with a narrow operand, and its task."""
    dtype = f"float{bits}"
    name = SHORT_NAMES[dtype]
    load = loader(dtype)
    store = storer(dtype)
    run_unit = block_of_results(bits)
    task = task_address(f"tg_gemv_{name}_task")

    @kernel
    def gemv_task(scratch: int, index: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        operands = load_word(scratch, 1)
        units = load_word(plan, words.V_BATCH) * load_word(plan, words.P_BLOCKS) * load_word(plan, words.R_SPLITS)
        tasks = load_word(plan, words.V_TASKS)
        work = (
            scratch
            + HEADER_BYTES
            + load_word(plan, words.V_PARTIAL_BYTES)
            + thread * load_word(plan, words.V_WORK_BYTES)
        )
        for unit in range(units * index // tasks, units * (index + 1) // tasks):
            run_unit(plan, operands, scratch, unit, work)

    @kernel
    def gemv(plan: int, operands: int, scratch: int, pool: int) -> None:
        store_word(scratch, 0, plan)
        store_word(scratch, 1, operands)
        par_for(pool, task(), scratch, load_word(plan, words.V_TASKS))
        splits = load_word(plan, words.R_SPLITS)
        if splits > 1:
            results = load_word(plan, words.V_P)
            width = load_word(plan, words.V_Q)
            y = load_word(operands, load_word(plan, words.RESULT))
            y_p, y_q = load_word(plan, words.RESULT_P), load_word(plan, words.RESULT_Q)
            partial = scratch + HEADER_BYTES
            for q in range(width):
                for p in range(results):
                    total = load(partial, q * results + p)
                    for split in range(1, splits):
                        total += load(partial, (split * width + q) * results + p)
                    store(y, q * y_q + p * y_p, total)
            finish_results(plan, operands, 0, results)

    return {f"tg_gemv_{name}": (gemv, ENTRY_SIGNATURE), f"tg_gemv_{name}_task": (gemv_task, TASK_SIGNATURE)}


def gemv_parts(bits: int, shape: TileShape) -> list[ir.Module]:
    """Return the finished module that the product calls."""
    return [row_tile_part(bits, shape)]
