"""Arrays and their layouts: what layout an array has, and copies that bring it into another one."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.ir.layout import Layout, stored

WORTH_A_PROGRAM = 1 << 16
"""Bytes of an array below which it is copied into C order: a few microseconds, where another program is a compilation.
"""
STRIPED_BYTES = 1 << 17  # a transposed copy below is too small to gain from strips

Array = np.ndarray[Any, Any]


def layout_of(value: Any, smallest: int = WORTH_A_PROGRAM) -> Layout:
    """Return the layout by which a program reads a value where it lies; None: in C order, where it is copied if it is
    in no other order that programs know."""
    if not isinstance(value, np.ndarray) or value.nbytes < smallest or value.flags.c_contiguous:
        return None
    size = value.itemsize
    if not value.flags.aligned or any(s % size for s in value.strides):
        return None
    layout = tuple(s // size if n != 1 else 0 for n, s in zip(value.shape, value.strides, strict=True))
    return None if stored(value.shape, layout) is None else layout


def lies_as(value: Array, layout: Layout) -> bool:
    """Say whether an array of the right shape has a layout."""
    if layout is None:
        return value.flags.c_contiguous
    size = value.itemsize
    return all(n == 1 or s == step * size for n, s, step in zip(value.shape, value.strides, layout, strict=True))


def laid_out(value: Any, layout: Layout) -> Any:
    """Return an array in a layout, aligned: a copy unless it is."""
    if layout is None:
        return contiguous(value)
    if lies_as(value, layout) and value.flags.aligned:
        return value
    found = stored(value.shape, layout)
    assert found is not None
    if found.shape == found.taken:
        return contiguous(value.transpose(found.order)).transpose(found.back)
    memory = np.zeros(found.shape, value.dtype)
    view = memory[tuple(slice(n) for n in found.taken)].transpose(found.back)
    view[...] = value
    return view


def contiguous(value: Any) -> Any:
    """Return an array in C order, a copy unless it is; matrices that are stored transposed in strips of a cache line.

    NumPy copies them row by row and reads a cache line for each element: three to seven times slower.
    """
    is_large = type(value) is np.ndarray and value.ndim > 1 and value.nbytes >= STRIPED_BYTES
    if not is_large or value.flags.c_contiguous or not value.swapaxes(-1, -2).flags.c_contiguous:
        return np.require(value, requirements=["C", "A"])
    copy = np.empty(value.shape, value.dtype)
    width = max(1, 64 // value.itemsize)
    for j in range(0, value.shape[-1], width):
        copy[..., j : j + width] = value[..., j : j + width]
    return copy


def memory_of(value: Array, layout: Layout) -> bytes:
    """Return the bytes of an array's memory in a layout, padding included."""
    if layout is None:
        return np.ascontiguousarray(value).tobytes()
    found = stored(value.shape, layout)
    assert found is not None
    memory = np.zeros(found.shape, value.dtype)
    memory[tuple(slice(n) for n in found.taken)] = value.transpose(found.order)
    return memory.tobytes()
