"""x[index] with NumPy's meaning: integers, slices, None, Ellipsis, integer arrays (traced or not) and static masks.

Basic parts become one `slice`, array parts one `gather`. `Plan` settles an index once for reading and for
`x.at[index]`:

    x --slice--> part --gather--> [*points, *kept axes] --transpose--> NumPy's order --reshape--> new axes
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError, DTypeError, IndexOutOfBounds
from tracegrad.ir import Aval
from tracegrad.numpy.promote import BOOL, Array, ArrayLike, array, array_of, broadcast_array, broadcast_shape, known
from tracegrad.numpy.promote import readonly_view, shown
from tracegrad.numpy.shaping import as_shape, permuted
from tracegrad.ops import index as index_ops
from tracegrad.ops import shape as ops
from tracegrad.record import record
from tracegrad.trace import Tracer

Ints = tuple[int, ...]
MASK_FIX = "use np.where(mask, x, 0) and a reduction, or a mask that is a NumPy array when the function is traced"


@record
class Plan:
    """A settled index of an array of shape `source`.

    `start`, `size`, `step` slice every axis; `points` are index arrays for `axes` of the slice (none: basic indexing).
    `perm` puts the gathered axes into NumPy's order, `shape` is the result's.
    """

    source: Ints
    start: Ints
    size: Ints
    step: Ints
    points: tuple[Any, ...]
    axes: Ints
    perm: Ints
    shape: Ints

    @property
    def sliced(self) -> bool:
        return self.size != self.source or any(s != 1 for s in self.step)


def expand_index(index: Any, x: Array) -> list[Any]:
    """Return one entry per axis of x, and None entries: no Ellipsis, no masks, lists as arrays."""
    entries: list[Any] = []
    for item in index if isinstance(index, tuple) else (index,):
        entries.extend(settle_entry(item))
    taken = sum(e is not None and e is not Ellipsis for e in entries)
    ndim = len(x.shape)
    if taken > ndim:
        raise IndexOutOfBounds(
            f"index: {taken} indices for {shown(x)}, which has {ndim} {'axis' if ndim == 1 else 'axes'}",
            fix="remove indices, or check the shape",
        )
    dots = [i for i, e in enumerate(entries) if e is Ellipsis]
    if len(dots) > 1:
        raise ArgumentError("index: an index can hold only one Ellipsis ('...')", fix="write : for the other axes")
    at = dots[0] if dots else len(entries)
    fill: list[Any] = [slice(None)] * (ndim - taken)
    if dots and not fill:
        fill = [SEPARATOR]
    return [*entries[:at], *fill, *entries[at + 1 :]]


SEPARATOR = "an Ellipsis that stands for no axis, but still separates index arrays"


def settle_entry(item: Any) -> list[Any]:
    """Return an entry of an index in its plain form; a mask gives one index array per axis it covers."""
    if item is None or item is Ellipsis or isinstance(item, slice):
        return [item]
    if isinstance(item, (bool, np.bool_)):
        raise ArgumentError(f"index: the bool {item} is not an index", fix="use np.where, or x[None] to add an axis")
    if isinstance(item, (int, np.integer)):
        return [int(item)]
    if isinstance(item, Tracer) and item.dtype == BOOL:
        item = np.asarray(item.concrete("a boolean mask", MASK_FIX))
    if isinstance(item, (list, np.ndarray)) and not (isinstance(item, list) and any_traced(item)):
        item = np.asarray(item)
        if item.size == 0 and item.dtype == np.float64:
            item = item.astype(np.int64)
        if item.dtype == BOOL:
            return list(mask_points(item))
    found = item if isinstance(item, (Tracer, np.ndarray)) else array("index", item)
    if found.dtype.kind not in "iu":
        raise DTypeError(f"index: {shown(found)} is not integer or bool", fix="convert it with i.astype(np.int64)")
    return [found]


@record
class MaskSize:
    """An index array that came from a mask, with the size of the axis that the mask had."""

    values: np.ndarray[Any, Any]
    size: int


def mask_points(mask: np.ndarray[Any, Any]) -> list[MaskSize]:
    return [MaskSize(i, n) for i, n in zip(np.nonzero(mask), mask.shape, strict=True)]


def any_traced(item: Any) -> bool:
    return isinstance(item, Tracer) or (isinstance(item, (list, tuple)) and any(map(any_traced, item)))


def settle_slice(entry: slice, n: int) -> tuple[int, int, int]:
    """Return (start, size, step) of a Python slice of an axis of size n."""
    start, stop, step = entry.indices(n)
    size = len(range(start, stop, step))
    return (start if size else 0), size, (step if size > 1 else 1)


def checked_point(value: Any, axis: int, x: Array) -> Any:
    """Refuse an index that is known to be out of bounds."""
    n = x.shape[axis]
    if isinstance(value, MaskSize):
        if value.size != n:
            raise IndexOutOfBounds(
                f"index: a mask of size {value.size} does not fit axis {axis} of {shown(x)}",
                fix="check the mask's shape",
            )
        return value.values
    if isinstance(value, Tracer):
        return value
    if isinstance(value, int):
        low = high = value
    else:
        low, high = (int(np.min(value)), int(np.max(value))) if np.size(value) else (0, -1)
    if low < -n or high >= n:
        bad = low if low < -n else high
        raise IndexOutOfBounds(
            f"index: {bad} is out of bounds for axis {axis} of size {n} of {shown(x)}",
            fix=f"use indices from {-n} to {n - 1}" if n else "the axis is empty",
        )
    return value


def plan(index: Any, x: Array) -> Plan:
    """Settle an index of x."""
    key = as_key(index)
    found = None if key is None else basic_plan(key, tuple(x.shape))
    return settle(index, x) if found is None else found


def settle(index: Any, x: Array) -> Plan:
    """Settle an index that no cache has."""
    entries = expand_index(index, x)
    advanced = any(isinstance(e, (np.ndarray, Tracer, MaskSize)) for e in entries)
    starts: list[int] = []
    sizes: list[int] = []
    steps: list[int] = []
    points: list[Any] = []
    axes: list[int] = []
    order: list[str] = []
    axis = 0
    for entry in entries:
        if entry is None or entry is SEPARATOR:
            order.append("new" if entry is None else "gap")
            continue
        n = x.shape[axis]
        if isinstance(entry, slice):
            part = settle_slice(entry, n)
            order.append("axis")
        else:
            value = checked_point(entry, axis, x)
            part = (0, n, 1) if advanced else (int(value) % n, 1, 1)
            order.append("point" if advanced else "integer")
            if advanced:
                points.append(value)
                axes.append(axis)
        for held, number in zip((starts, sizes, steps), part, strict=True):
            held.append(number)
        axis += 1
    together = common_points(points)
    shape = broadcast_shape("index", together) if together else ()
    perm, result = arrange(order, tuple(sizes), axes, shape)
    return Plan(x.shape, tuple(starts), tuple(sizes), tuple(steps), together, tuple(axes), perm, result)


def common_points(points: list[Any]) -> tuple[Any, ...]:
    """Broadcast index arrays against each other and give them one dtype; inside a trace they become hidden inputs."""
    found = []
    for value in points:
        value = np.int64(value) if isinstance(value, int) else value
        found.append(known("index", value) if isinstance(value, np.ndarray) else value)
    shape = broadcast_shape("index", found)
    return tuple(v if v.shape == shape else broadcast_array(array_of(v), shape) for v in found)


def arrange(order: list[str], sizes: Ints, axes: list[int], points: Ints) -> tuple[Ints, Ints]:
    """Return the permutation after the gather, and the shape of the result."""
    places = [i for i, kind in enumerate(order) if kind == "point"]
    adjacent = bool(places) and places[-1] - places[0] + 1 == len(places)
    first = places[0] if adjacent else 0
    before = sum(kind == "axis" for kind in order[:first])
    rest = [n for a, n in enumerate(sizes) if a not in axes]
    npoints, nrest = len(points), len(rest)
    if places:
        moved = range(npoints, npoints + nrest)
        perm = (*moved[:before], *range(npoints), *moved[before:])
    else:
        perm = tuple(range(nrest))
    shape: list[int] = []
    remaining = iter(n for a, n in enumerate(sizes) if a not in axes)
    for i, kind in enumerate(order):
        if places and i == first:
            shape.extend(points)
        match kind:
            case "new":
                shape.append(1)
            case "axis":
                shape.append(next(remaining))
            case "integer":
                next(remaining)
    return tuple(perm), tuple(shape)


def getitem(x: ArrayLike, index: Any) -> Array:
    """Return x[index], as NumPy does.

    Raises IndexOutOfBounds for an index known to be outside its axis, TracerError for a traced boolean mask, whose
    number of elements is not known.

    >>> getitem(np.arange(6.0).reshape(2, 3), (0, [2, 0]))
    array([2., 0.])
    """
    x = array("index", x)
    how = plan(index, x)
    found = read(x, how)
    if how.points and isinstance(found, Tracer):
        view = found.shape and any(type(p) is Tracer for p in how.points) and how.points[0].shape == ()
        return readonly_view(x, found.owned(), place, at=Place(how)) if view else found.apart((x,))
    number = how.shape == () and type(found) is Tracer and not has_ellipsis(index)
    return found.owned() if number else found  # an element is a number in NumPy, and no view


class Place:
    """The place of x[i] for traced numbers i; equal to another one at the same numbers.

    `sizes` are those of the windows that it takes of the indexed axes, 1 where it takes an element.
    """

    __slots__ = ("how", "sizes")

    def __init__(self, how: Plan, sizes: Ints = ()):
        self.how = how
        self.sizes = sizes or (1,) * len(how.axes)

    def fields(self) -> tuple[Any, ...]:
        how = self.how
        points = tuple(p._node if isinstance(p, Tracer) else np.asarray(p).tobytes() for p in how.points)
        return how.source, how.start, how.size, how.step, points, how.axes, how.perm, how.shape, self.sizes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and self.fields() == other.fields()

    __hash__ = None  # type: ignore[assignment]


def place(x: Array, at: Place) -> Array:
    """Return x[i] for traced numbers i: a view in NumPy, and a step of one here."""
    return read(x, at.how)


def has_ellipsis(index: Any) -> bool:
    return any(part is Ellipsis for part in (index if isinstance(index, tuple) else (index,)))


def as_key(index: Any) -> Any:
    """Return an index of integers, slices, None and Ellipsis as a key of a cache; of anything else, None."""
    parts: list[Any] = []
    for item in index if type(index) is tuple else (index,):
        kind = type(item)
        if kind is int or item is None or item is Ellipsis:
            parts.append(item)
        elif kind is slice:
            bounds = (item.start, item.stop, item.step)
            if any(b is not None and type(b) is not int for b in bounds):
                return None
            parts.append(bounds)
        else:
            return None
    return tuple(parts)


@lru_cache(maxsize=4096)
def basic_plan(key: tuple[Any, ...], shape: Ints) -> Plan | None:
    """Settle an index without arrays, once for all arrays of a shape; None if it does not fit."""
    try:
        return settle(tuple(slice(*k) if type(k) is tuple else k for k in key), Aval(shape, BOOL))
    except (IndexOutOfBounds, ArgumentError):
        return None


def read(x: Array, how: Plan) -> Array:
    """Carry out a plan."""
    part = slice_part(x, how)
    if how.points:
        part = permuted(index_ops.gather(part, *how.points, axes=how.axes), how.perm)
    return as_shape(part, how.shape)


def slice_part(x: Array, how: Plan) -> Array:
    return ops.slice_(x, start=how.start, size=how.size, step=how.step) if how.sliced else x


def gathered(how: Plan) -> Ints:
    """Return the shape after the gather, before the permutation."""
    rest = tuple(n for a, n in enumerate(how.size) if a not in how.axes)
    return (*how.points[0].shape, *rest) if how.points else how.size


def as_updates(value: Array, how: Plan) -> Array:
    """Turn what has the shape of x[index] into what the scatter takes: the way back through reshape and transpose."""
    shape = gathered(how)
    if not how.points:
        return as_shape(value, shape)
    value = as_shape(value, tuple(shape[p] for p in how.perm))
    return permuted(value, tuple(int(p) for p in np.argsort(how.perm)))


def repeats(how: Plan) -> bool:
    """Tell whether two points may be the same place."""
    if not how.points or math.prod(how.points[0].shape) <= 1:
        return False
    if any(isinstance(p, Tracer) for p in how.points):
        return True
    sizes = [how.size[a] for a in how.axes]
    flat = np.ravel_multi_index([np.asarray(p) % n for p, n in zip(how.points, sizes, strict=True)], sizes)
    return len(np.unique(flat)) < flat.size
