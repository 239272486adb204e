"""Cumulative sums over the middle axis of [outer, length, inner]: result[l] = result[l - 1] + x[l]."""

from __future__ import annotations

from typing import Any

from tracegrad.codegen import plan_sort as words
from tracegrad.codegen.addresses import (
    KERNEL_TYPES,
    load_word,
    loader,
    par_for,
    store_word,
    storer,
    task_address,
)
from tracegrad.codegen.gemm_kernels import ENTRY_SIGNATURE, TASK_SIGNATURE
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import ITEM_SIZES, SHORT_NAMES


def cumsum_entries(dtype: str) -> dict[str, tuple[Any, Any]]:
    """Return the entry of one dtype, and its task."""
    name = SHORT_NAMES[dtype]
    size = ITEM_SIZES[dtype]
    number = KERNEL_TYPES[dtype]
    load = loader(dtype)
    store = storer(dtype)
    task = task_address(f"tg_cumsum_{name}_task")

    @kernel
    def sum_slab(x: int, result: int, length: int, inner: int, first: int, end: int, reverse: int) -> None:
        """Sum columns first..end-1 of one [length, inner]."""
        start = length - 1 if reverse else 0
        step = -inner if reverse else inner
        if inner == 1:
            total = number(0)
            for i in range(length):
                place = start + i * step
                total = number(total + load(x, place))
                store(result, place, total)
            return
        for j in range(first, end):
            store(result, start * inner + j, load(x, start * inner + j))
        for i in range(1, length):
            row = (start * inner + i * step) * size
            before = result + row - step * size
            for j in range(first, end):
                store(result + row, j, number(load(before, j) + load(x + row, j)))

    @kernel
    def cumsum_task(scratch: int, index: int, thread: int) -> None:
        plan = load_word(scratch, 0)
        operands = load_word(scratch, 1)
        length = load_word(plan, words.C_LENGTH)
        inner = load_word(plan, words.C_INNER)
        blocks = load_word(plan, words.C_BLOCKS)
        units = load_word(plan, words.C_OUTER) * blocks
        tasks = load_word(plan, words.C_TASKS)
        if length == 0:
            return
        for unit in range(units * index // tasks, units * (index + 1) // tasks):
            slab = unit // blocks * length * inner * size
            block = unit % blocks
            x = load_word(operands, 0) + slab
            result = load_word(operands, 1) + slab
            end = inner * (block + 1) // blocks
            sum_slab(x, result, length, inner, inner * block // blocks, end, load_word(plan, words.C_REVERSE))

    @kernel
    def cumsum(plan: int, operands: int, scratch: int, pool: int) -> None:
        store_word(scratch, 0, plan)
        store_word(scratch, 1, operands)
        par_for(pool, task(), scratch, load_word(plan, words.C_TASKS))

    return {f"tg_cumsum_{name}": (cumsum, ENTRY_SIGNATURE), f"tg_cumsum_{name}_task": (cumsum_task, TASK_SIGNATURE)}
