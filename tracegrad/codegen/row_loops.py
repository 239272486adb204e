"""Rows of numbers in plain loops that the vectoriser takes: cleared, added, multiplied, searched for NaN."""

from __future__ import annotations

from typing import Any

from tracegrad.codegen.addresses import KERNEL_TYPES, loader, minimum, storer
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import ITEM_SIZES

SEARCHED = 64  # elements that are searched for NaN one by one where their sum is not finite


def row_clearing(dtype: str) -> Any:
    """Return the kernel clear(target, count)."""
    store = storer(dtype)
    zero = KERNEL_TYPES[dtype](0)

    @kernel
    def clear(target: int, count: int) -> None:
        for i in range(count):
            store(target, i, zero)

    return clear


def row_probe(dtype: str) -> Any:
    """Return the kernel probe(source, count): zero, or NaN if an element is NaN or inf."""
    load = loader(dtype)
    zero = KERNEL_TYPES[dtype](0)

    @kernel
    def probe(source: int, count: int) -> Any:
        total = zero
        for i in range(count):
            total += load(source, i) * zero
        return total

    return probe


def nan_search(dtype: str) -> Any:
    """Return the kernel has_nan(source, count)."""
    load = loader(dtype)
    probe = row_probe(dtype)
    size = ITEM_SIZES[dtype]
    zero = KERNEL_TYPES[dtype](0)

    @kernel
    def has_nan(source: int, count: int) -> int:
        for start in range(0, count, SEARCHED):
            end = minimum(count, start + SEARCHED)
            if probe(source + start * size, end - start) != zero:
                for i in range(start, end):
                    value = load(source, i)
                    if value != value:
                        return 1
        return 0

    return has_nan


def row_addition(dtype: str) -> Any:
    """Return the kernel add_scaled(target, target_stride, source, source_stride, factor, count)."""
    load = loader(dtype)
    store = storer(dtype)

    @kernel
    def add_scaled(target: int, target_stride: int, source: int, source_stride: int, factor, count: int) -> None:
        """Compute target[i] += factor * source[i]."""
        if target_stride == 1 and source_stride == 1:
            for i in range(count):
                store(target, i, load(target, i) + factor * load(source, i))
        else:
            for i in range(count):
                place = i * target_stride
                store(target, place, load(target, place) + factor * load(source, i * source_stride))

    return add_scaled


def row_product(dtype: str) -> Any:
    """Return the kernel dot(left, right, right_stride, count)."""
    load = loader(dtype)
    zero = KERNEL_TYPES[dtype](0)

    @kernel
    def dot(left: int, right: int, right_stride: int, count: int):
        """Return sum_i left[i] * right[i]."""
        total = zero
        for i in range(count):
            total += load(left, i) * load(right, i * right_stride)
        return total

    return dot
