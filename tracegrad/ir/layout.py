"""How arrays lie in memory: those that are stored transposed, or as part of a wider array, are read as they lie.

A layout is an array's strides in elements, 0 for axes of size 1, or None for C order. Memory is seen as a *stored*
array in C order: its axes are the array's from the slowest to the fastest, its rows may end with elements that are not
the array's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from tracegrad.record import record

Layout: TypeAlias = tuple[int, ...] | None
WIDEST = 4
"""Rows may be padded to so many times their length: a copy of narrower ones costs less than its memory would."""


@record
class Stored:
    """Memory in C order: `order` has the array's axes, slowest first, `shape` their sizes with padded rows, `taken`
    without."""

    order: tuple[int, ...]
    shape: tuple[int, ...]
    taken: tuple[int, ...]

    @property
    def back(self) -> tuple[int, ...]:
        """The permutation that makes the array of the stored one."""
        return tuple(self.order.index(axis) for axis in range(len(self.order)))


def stored(shape: Sequence[int], layout: Sequence[int]) -> Stored | None:
    """Return the stored array of a layout; None where it is no permutation of C order with padded rows."""
    order = tuple(sorted(range(len(shape)), key=lambda axis: -layout[axis]))
    wide = [axis for axis in reversed(order) if shape[axis] != 1]
    if len(wide) < 2 or math.prod(shape) == 0 or layout[wide[0]] != 1:
        return None
    row, lines = wide[0], wide[1]
    pitch = layout[lines]
    if not shape[row] <= pitch <= WIDEST * shape[row]:
        return None
    expected = pitch
    for axis in wide[1:]:
        if layout[axis] != expected:
            return None
        expected *= shape[axis]
    return Stored(order, tuple(pitch if a == row else shape[a] for a in order), tuple(shape[a] for a in order))


def extent(shape: Sequence[int], layout: Layout) -> int:
    """Return how many elements lie from an array's first to its last one."""
    if layout is None or not math.prod(shape):
        return math.prod(shape)
    return 1 + sum((n - 1) * step for n, step in zip(shape, layout, strict=True))


def describe(layout: Layout, shape: Sequence[int]) -> str:
    """Write a layout in words: `stored transposed`; "" for C order."""
    found = None if layout is None else stored(shape, layout)
    if layout is None or found is None:
        return ""
    wide = [a for a in found.order if shape[a] != 1]
    order = "" if wide == sorted(wide) else "transposed" if wide == sorted(wide, reverse=True) else "permuted"
    padded = "with padded rows" if found.shape != found.taken else ""
    return " ".join(word for word in ("stored", order, padded) if word)
