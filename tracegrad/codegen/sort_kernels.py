"""A stable argsort of rows: insertion for short ones, else radix by bytes (a linear time, and stable by nature).

Keys become int64 whose signed order is the wanted one.  A float's bits, read as a signed integer, are ordered among the
positive; the negative are ordered backwards, so their value bits are flipped.  NaN is made the greatest, -0.0 is 0.0.
"""

from __future__ import annotations

from typing import Any

from tracegrad.codegen import plan_sort as words
from tracegrad.codegen.addresses import load_word, loader, par_for, store_word, task_address
from tracegrad.codegen.gemm_kernels import ENTRY_SIGNATURE, TASK_SIGNATURE
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import HEADER_BYTES

WORD = 8
SHORT_ROW = 40  # insertion is faster up to here
GREATEST = (1 << 63) - 1
LEAST = -(1 << 63)
INFINITY_32 = 0x7F800000
INFINITY_64 = 0x7FF0000000000000

load_i32 = loader("int32")
task = task_address("tg_argsort_task")


@kernel
def sort_key(keys: int, index: int, kind: int, key_bytes: int) -> int:
    """Return key `index` as an int64 in the wanted order."""
    is_wide = key_bytes == 8
    bits = load_word(keys, index) if is_wide else load_i32(keys, index)
    if kind == words.FLOAT_KEYS:
        magnitude = bits & GREATEST if is_wide else bits & 0x7FFFFFFF
        if magnitude > (INFINITY_64 if is_wide else INFINITY_32):
            return GREATEST if is_wide else 0x7FFFFFFF
        return magnitude if bits >= 0 else -magnitude
    if kind == words.UNSIGNED_KEYS:
        return bits ^ LEAST if is_wide else (bits & 0xFFFFFFFF) - 0x80000000
    return bits


@kernel
def insert_all(values: int, order: int, length: int) -> None:
    """Sort (values, order) in place by insertion."""
    for i in range(1, length):
        value = load_word(values, i)
        index = load_word(order, i)
        j = i - 1
        while j >= 0 and load_word(values, j) > value:
            store_word(values, j + 1, load_word(values, j))
            store_word(order, j + 1, load_word(order, j))
            j -= 1
        store_word(values, j + 1, value)
        store_word(order, j + 1, index)


@kernel
def digit(value: int, place: int, key_bytes: int) -> int:
    """Return byte `place` of a key; the top byte is signed, so its order is shifted."""
    byte = (value >> (8 * place)) & (words.DIGITS - 1)
    return byte ^ 128 if place == key_bytes - 1 else byte


@kernel
def count_digits(values: int, length: int, key_bytes: int, counts: int) -> None:
    """Count how often each digit occurs at each place."""
    for i in range(key_bytes * words.DIGITS):
        store_word(counts, i, 0)
    for i in range(length):
        value = load_word(values, i)
        for place in range(key_bytes):
            cell = place * words.DIGITS + digit(value, place, key_bytes)
            store_word(counts, cell, load_word(counts, cell) + 1)


@kernel
def scatter(source: int, target: int, length: int, place: int, key_bytes: int, counts: int) -> None:
    """Move all (value, index) pairs to where their digit belongs, in order."""
    start = 0
    for i in range(words.DIGITS):
        count = load_word(counts, i)
        store_word(counts, i, start)
        start += count
    for i in range(length):
        value = load_word(source, i)
        cell = digit(value, place, key_bytes)
        position = load_word(counts, cell)
        store_word(counts, cell, position + 1)
        store_word(target, position, value)
        store_word(target, length + position, load_word(source, length + i))


@kernel
def sort_row(keys: int, result: int, length: int, kind: int, key_bytes: int, work: int) -> None:
    """Write the stable order of one row.  work: two arrays of (values, indices), then the digits' counts."""
    for i in range(length):
        store_word(work, i, sort_key(keys, i, kind, key_bytes))
        store_word(work, length + i, i)
    source = work
    if length <= SHORT_ROW:
        insert_all(work, work + length * WORD, length)
    else:
        target = work + 2 * length * WORD
        counts = work + 4 * length * WORD
        count_digits(work, length, key_bytes, counts)
        for place in range(key_bytes):
            place_counts = counts + place * words.DIGITS * WORD
            if load_word(place_counts, digit(load_word(source, 0), place, key_bytes)) != length:
                scatter(source, target, length, place, key_bytes, place_counts)
                source, target = target, source
    for i in range(length):
        store_word(result, i, load_word(source, length + i))


@kernel
def argsort_task(scratch: int, index: int, thread: int) -> None:
    plan = load_word(scratch, 0)
    operands = load_word(scratch, 1)
    rows = load_word(plan, words.S_ROWS)
    length = load_word(plan, words.S_LENGTH)
    kind = load_word(plan, words.S_KIND)
    key_bytes = load_word(plan, words.S_KEY_BYTES)
    tasks = load_word(plan, words.S_TASKS)
    work = scratch + HEADER_BYTES + thread * load_word(plan, words.S_WORK_BYTES)
    for row in range(rows * index // tasks, rows * (index + 1) // tasks):
        keys = load_word(operands, 0) + row * length * key_bytes
        result = load_word(operands, 1) + row * length * WORD
        sort_row(keys, result, length, kind, key_bytes, work)


@kernel
def argsort(plan: int, operands: int, scratch: int, pool: int) -> None:
    store_word(scratch, 0, plan)
    store_word(scratch, 1, operands)
    par_for(pool, task(), scratch, load_word(plan, words.S_TASKS))


def sort_entries() -> dict[str, tuple[Any, Any]]:
    """Return the entry of the argsort, and its task."""
    return {"tg_argsort": (argsort, ENTRY_SIGNATURE), "tg_argsort_task": (argsort_task, TASK_SIGNATURE)}
