"""x[start:stop] where a bound is a traced number.

`x[i:i + 3]` is a window: it has three elements wherever the counter i leads, if all of that lies in x. It is read and
written like `x[i]`, by index arrays. Of all else, how many elements it has is known to the compiled program only: a
`Part` is a selection (`Selected`) whose mask holds between the bounds. Both are views, as in NumPy: `x[i:] = v` and
`part += v` change x. Bounds mean what they mean in Python: negative ones count from the end, and those outside are cut.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.memory import one_place
from tracegrad.numpy import arithmetic, creation, elementwise as ew, indexing
from tracegrad.numpy.intervals import difference, interval
from tracegrad.numpy.promote import Array, readonly_view
from tracegrad.numpy.selection import Selected, by_mask, same_mask
from tracegrad.numpy.shaping import as_shape
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


def moving(parts: tuple[Any, ...]) -> list[int]:
    """Return which entries of an index are slices with a bound that is not known while tracing."""
    return [i for i, p in enumerate(parts) if isinstance(p, slice) and (is_unknown(p.start) or is_unknown(p.stop))]


def by_slice(x: Array, index: Any) -> Part | None:
    """Return x[index] if one entry is a slice with unknown bounds, with numbers only before it; else None."""
    parts = index if isinstance(index, tuple) else (index,)
    places = moving(parts)
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
        bound = creation.astype(bound, np.int64)
        return arithmetic.where(ew.less(bound, 0), ew.add(bound, n), bound)
    return slice(bound, None).indices(n)[0]


def window(entry: slice, n: int) -> int | None:
    """Return the size of a slice that has it wherever its bounds lie, on an axis of size n; else None."""
    if entry.step not in (None, 1) or entry.start is None or entry.stop is None:
        return None
    size = difference(entry.start, entry.stop)
    if size is None or size < 0:
        return None
    first, last = interval(entry.start)
    return size if first >= 0 and last + size <= n else None


def by_window(x: Array, index: Any) -> tuple[tuple[Any, ...], tuple[int, ...]] | None:
    """Return an index of arrays in place of windows, and how much it takes of each indexed axis; else None."""
    parts = index if isinstance(index, tuple) else (index,)
    unknown = moving(parts)
    if not unknown or len(parts) > len(x.shape) or not all(is_number(p) or isinstance(p, slice) for p in parts):
        return None
    windows = {i: size for i in unknown if (size := window(parts[i], x.shape[i])) is not None}
    points = [i for i, p in enumerate(parts) if i in windows or is_number(p)]
    if len(windows) < len(unknown) or points[-1] - points[0] + 1 > len(points):
        return None
    found = list(parts)
    for number, (i, size) in enumerate(windows.items()):
        places = ew.add(parts[i].start, creation.arange(size))
        found[i] = as_shape(places, (size, *(1,) * (len(windows) - 1 - number)))
    return tuple(found), tuple(windows.get(i, 1) for i in points)


def place_of(x: Array, index: Any) -> indexing.Place | None:
    """Return the place of x[index] if it has windows, else None."""
    found = by_window(x, index)
    return None if found is None else indexing.Place(indexing.plan(found[0], x), found[1])


def getitem(x: Array, index: Any) -> Any:
    """Return x[index], as NumPy does (`indexing.getitem`); of a traced mask or bound, a selection."""
    found = by_mask(x, index)
    if found is None and (at := place_of(x, index)) is not None:
        return readonly_view(x, indexing.place(x, at).owned(), indexing.place, at=at)
    if found is None:
        found = by_slice(x, index)
    return indexing.getitem(x, index) if found is None else found
