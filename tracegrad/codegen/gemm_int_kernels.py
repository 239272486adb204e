"""Integer matrix products in plain loops: a row of C at a time, C[i, :] += A[i, k] * B[k, :]."""

from __future__ import annotations

from typing import Any

from tracegrad.codegen import plan_gemm as words
from tracegrad.codegen import types
from tracegrad.codegen.addresses import (
    KERNEL_TYPES,
    load_word,
    loader,
    par_for,
    store_word,
    storer,
    task_address,
)
from tracegrad.codegen.gemm_kernels import batch_start
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import ITEM_SIZES, SHORT_NAMES

TASK_SIGNATURE = types.void(types.int64, types.int64, types.int64)
ENTRY_SIGNATURE = types.void(types.int64, types.int64, types.int64, types.int64)


def gemm_int_entries(dtype: str) -> dict[str, tuple[Any, Any]]:
    """Return the entry of the product of an integer dtype (arithmetic wraps), and its task."""
    name = SHORT_NAMES[dtype]
    size = ITEM_SIZES[dtype]
    number = KERNEL_TYPES[dtype]
    load = loader(dtype)
    store = storer(dtype)
    task = task_address(f"tg_gemm_{name}_task")

    @kernel
    def multiply_row(a: int, a_column: int, b: int, b_row: int, b_column: int, c: int, n: int, k: int) -> None:
        """Add sum_k A[k] * B[k, :n] to C[:n]."""
        for r in range(k):
            factor = load(a, r * a_column)
            if b_column == 1:
                row = b + r * b_row * size
                for j in range(n):
                    store(c, j, number(load(c, j) + factor * load(row, j)))
            else:
                for j in range(n):
                    store(c, j, number(load(c, j) + factor * load(b, r * b_row + j * b_column)))

    @kernel
    def gemm_task(scratch: int, index: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        operands = load_word(scratch, 1)
        m = load_word(plan, words.M)
        n = load_word(plan, words.N)
        k = load_word(plan, words.K)
        rows = m * load_word(plan, words.BATCH)
        tasks = load_word(plan, words.TASKS)
        for unit in range(rows * index // tasks, rows * (index + 1) // tasks):
            batch = unit // m
            i = unit % m
            a = load_word(operands, load_word(plan, words.A))
            inner = load_word(plan, words.INNER)
            a_start = batch_start(plan, batch, inner, words.A_BATCH, words.A_INNER)
            a += (a_start + i * load_word(plan, words.A_ROW)) * size
            b = load_word(operands, load_word(plan, words.B))
            b += batch_start(plan, batch, inner, words.B_BATCH, words.B_INNER) * size
            c = load_word(operands, load_word(plan, words.C))
            c += (batch * load_word(plan, words.C_BATCH) + i * load_word(plan, words.C_ROW)) * size
            a_column = load_word(plan, words.A_COLUMN)
            for j in range(n):
                store(c, j, number(0))
            for _ in range(load_word(plan, words.REPEATS)):
                multiply_row(a, a_column, b, load_word(plan, words.B_ROW), load_word(plan, words.B_COLUMN), c, n, k)
                a += load_word(plan, words.A_REPEAT) * size
                b += load_word(plan, words.B_REPEAT) * size

    @kernel
    def gemm(plan: int, operands: int, scratch: int, pool: int) -> None:
        store_word(scratch, 0, plan)
        store_word(scratch, 1, operands)
        par_for(pool, task(), scratch, load_word(plan, words.TASKS))

    return {f"tg_gemm_{name}": (gemm, ENTRY_SIGNATURE), f"tg_gemm_{name}_task": (gemm_task, TASK_SIGNATURE)}
