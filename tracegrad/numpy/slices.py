"""x[start:stop] where a bound is a traced number: how many elements it has is known to the compiled program only.

A `Part` is a selection (`Selected`) whose mask holds between the bounds. It is a view, as in NumPy: `x[i:] = v` and
`part += v` change x. Bounds mean what they mean in Python: negative ones count from the end, and those outside are cut.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.memory import one_place
from tracegrad.numpy import arithmetic, creation, elementwise as ew, indexing
from tracegrad.numpy.promote import Array
from tracegrad.numpy.selection import Selected, by_mask, same_mask
from tracegrad.trace import Tracer


class Part(Selected):
    """The elements x[start:stop] of the first axis of a view `whole`."""

    __slots__ = ()
    what = "x[start:stop] with a traced bound: how many elements it has"

    def __init__(self, whole: Array, mask: Array):
        self._whole = whole
        self._mask = mask

    def is_place_of(self, value: Any) -> bool:
        """Say whether a value is this part itself, changed in place: what `x[i:] += v` assigns at its end."""
        return isinstance(value, Part) and same_mask(self._mask, value._mask) and one_place(self._whole, value._whole)


def is_unknown(bound: Any) -> bool:
    """Say whether a bound of a slice is a number that is not known while tracing."""
    return type(bound) is Tracer and not bound._trace.computes and bound.ndim == 0 and bound.dtype.kind in "iu"


def is_number(entry: Any) -> bool:
    """Say whether an entry of an index takes one place of its axis."""
    if type(entry) is Tracer:
        return entry.ndim == 0 and entry.dtype.kind in "iu"
    return isinstance(entry, (int, np.integer)) and not isinstance(entry, (bool, np.bool_))


def by_slice(x: Array, index: Any) -> Part | None:
    """Return x[index] if one entry is a slice with unknown bounds, with numbers only before it; else None."""
    parts = index if isinstance(index, tuple) else (index,)
    places = [i for i, p in enumerate(parts) if isinstance(p, slice) and (is_unknown(p.start) or is_unknown(p.stop))]
    if len(places) != 1 or len(parts) > len(x.shape):
        return None
    lead, entry, rest = parts[: places[0]], parts[places[0]], parts[places[0] + 1 :]
    if entry.step not in (None, 1) or not all(map(is_number, lead)):
        return None
    if not all(is_number(part) or isinstance(part, slice) for part in rest):
        return None
    whole = indexing.getitem(x, lead) if lead else x
    whole = indexing.getitem(whole, (slice(None), *rest)) if rest else whole
    return Part(whole, between(entry.start, entry.stop, whole.shape[0]))


def between(start: Any, stop: Any, n: int) -> Array:
    """Return the mask of an axis of size n that holds from `start` on and before `stop`."""
    places = creation.arange(n)
    found: Any = None
    if start is not None:
        found = ew.greater_equal(places, settled(start, n))
    if stop is not None:
        ends = ew.less(places, settled(stop, n))
        found = ends if found is None else ew.logical_and(found, ends)
    return found


def settled(bound: Any, n: int) -> Any:
    """Return a bound that counts from the start."""
    if is_unknown(bound):
        return arithmetic.where(ew.less(bound, 0), ew.add(bound, n), bound)
    return slice(bound, None).indices(n)[0]


def getitem(x: Array, index: Any) -> Any:
    """Return x[index], as NumPy does (`indexing.getitem`); of a traced mask or bound, a selection."""
    found = by_mask(x, index)
    if found is None:
        found = by_slice(x, index)
    return indexing.getitem(x, index) if found is None else found
