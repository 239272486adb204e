"""Matrix-vector products, in plain loops that the vectoriser takes: y[b, p] = sum_r matrix[b, p, r] * vector[b, r].

Where rows of the matrix are contiguous they are dotted, where columns are they are added up; four at a time, so that
the vector, or the sums, are read less often.  A block of sums stays in the L1 cache.
"""

from __future__ import annotations

from typing import Any

from tracegrad.codegen import plan_gemm as words
from tracegrad.codegen.addresses import KERNEL_TYPES, load_word, loader, par_for, store_word, storer, task_address
from tracegrad.codegen.finish import finish
from tracegrad.codegen.gemm_kernels import ENTRY_SIGNATURE, TASK_SIGNATURE, batch_start
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import HEADER_BYTES, ITEM_SIZES, SHORT_NAMES


def row_dots(dtype: str) -> Any:
    """Return the kernel dot_rows(matrix, p_stride, vector, results, count, sums)."""
    size = ITEM_SIZES[dtype]
    load = loader(dtype)
    store = storer(dtype)
    zero = KERNEL_TYPES[dtype](0)

    @kernel
    def dot_rows(matrix: int, p_stride: int, vector: int, results: int, count: int, sums: int) -> None:
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

    return dot_rows


def column_sums(dtype: str) -> Any:
    """Return the kernel add_columns(matrix, r_stride, vector, results, count, sums)."""
    size = ITEM_SIZES[dtype]
    load = loader(dtype)
    store = storer(dtype)
    zero = KERNEL_TYPES[dtype](0)

    @kernel
    def add_columns(matrix: int, r_stride: int, vector: int, results: int, count: int, sums: int) -> None:
        """Compute sums[p] where columns of the matrix are contiguous: add four scaled columns at a time."""
        for p in range(results):
            store(sums, p, zero)
        done = count // 4 * 4
        for r in range(0, done, 4):
            column0 = matrix + r * r_stride * size
            column1 = column0 + r_stride * size
            column2 = column1 + r_stride * size
            column3 = column2 + r_stride * size
            v0, v1, v2, v3 = load(vector, r), load(vector, r + 1), load(vector, r + 2), load(vector, r + 3)
            for p in range(results):
                left = load(column0, p) * v0 + load(column1, p) * v1
                right = load(column2, p) * v2 + load(column3, p) * v3
                store(sums, p, load(sums, p) + left + right)
        for r in range(done, count):
            v = load(vector, r)
            for p in range(results):
                store(sums, p, load(sums, p) + load(matrix, r * r_stride + p) * v)

    return add_columns


def strided_sums(dtype: str) -> Any:
    """Return the kernel strided(matrix, p_stride, r_stride, vector, results, count, sums)."""
    load = loader(dtype)
    store = storer(dtype)
    zero = KERNEL_TYPES[dtype](0)

    @kernel
    def strided(matrix: int, p_stride: int, r_stride: int, vector: int, results: int, count: int, sums: int) -> None:
        """Compute sums[p] for any strides."""
        for p in range(results):
            total = zero
            for r in range(count):
                total += load(matrix, p * p_stride + r * r_stride) * load(vector, r)
            store(sums, p, total)

    return strided


def block_of_results(dtype: str) -> Any:
    """Return the kernel run_unit(plan, operands, scratch, unit, work)."""
    size = ITEM_SIZES[dtype]
    load = loader(dtype)
    store = storer(dtype)
    dot_rows = row_dots(dtype)
    add_columns = column_sums(dtype)
    strided = strided_sums(dtype)
    gathered_at = words.P_BLOCK[size] * size

    @kernel
    def run_unit(plan: int, operands: int, scratch: int, unit: int, work: int) -> None:
        """Compute one block of results, or a split's share of it: unit = (batch, split, block)."""
        total_p = load_word(plan, words.V_P)
        total_r = load_word(plan, words.V_R)
        blocks = load_word(plan, words.P_BLOCKS)
        splits = load_word(plan, words.R_SPLITS)
        block = unit % blocks
        split = unit // blocks % splits
        batch = unit // (blocks * splits)
        p0 = total_p * block // blocks
        results = total_p * (block + 1) // blocks - p0
        r0 = total_r * split // splits
        count = total_r * (split + 1) // splits - r0
        p_stride = load_word(plan, words.MATRIX_P)
        r_stride = load_word(plan, words.MATRIX_R)
        v_stride = load_word(plan, words.VECTOR_R)
        matrix = load_word(operands, load_word(plan, words.MATRIX))
        inner = load_word(plan, words.V_INNER)
        matrix += batch_start(plan, batch, inner, words.MATRIX_BATCH, words.MATRIX_INNER) * size
        matrix += (p0 * p_stride + r0 * r_stride) * size
        vector = load_word(operands, load_word(plan, words.VECTOR))
        vector += (batch_start(plan, batch, inner, words.VECTOR_BATCH, words.VECTOR_INNER) + r0 * v_stride) * size
        if v_stride != 1:
            gathered = work + gathered_at
            for r in range(count):
                store(gathered, r, load(vector, r * v_stride))
            vector = gathered
        if r_stride == 1:
            dot_rows(matrix, p_stride, vector, results, count, work)
        elif p_stride == 1:
            add_columns(matrix, r_stride, vector, results, count, work)
        else:
            strided(matrix, p_stride, r_stride, vector, results, count, work)
        y_stride = load_word(plan, words.RESULT_P)
        origin = batch * load_word(plan, words.RESULT_BATCH) + p0 * y_stride
        y = load_word(operands, load_word(plan, words.RESULT)) + origin * size
        if splits > 1:
            y_stride = 1
            y = scratch + HEADER_BYTES + (split * total_p + p0) * size
        for p in range(results):
            store(y, p * y_stride, load(work, p))
        if splits == 1:
            finish(operands, origin, 1, results, results)

    return run_unit


def gemv_entries(bits: int) -> dict[str, tuple[Any, Any]]:
    """Return the entry of the matrix-vector product, and its task."""
    dtype = f"float{bits}"
    name = SHORT_NAMES[dtype]
    load = loader(dtype)
    store = storer(dtype)
    run_unit = block_of_results(dtype)
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
            y = load_word(operands, load_word(plan, words.RESULT))
            y_stride = load_word(plan, words.RESULT_P)
            partial = scratch + HEADER_BYTES
            for p in range(results):
                total = load(partial, p)
                for split in range(1, splits):
                    total += load(partial, split * results + p)
                store(y, p * y_stride, total)
            finish(operands, 0, 1, results, results)

    return {f"tg_gemv_{name}": (gemv, ENTRY_SIGNATURE), f"tg_gemv_{name}_task": (gemv_task, TASK_SIGNATURE)}
