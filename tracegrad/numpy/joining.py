"""Functions that join, split, repeat and pad arrays."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.numpy import shaping
from tracegrad.numpy.promote import computed
from tracegrad.numpy.promote import Array, ArrayLike, Axis, DType, array, cast, one_axis, operand, result_dtype
from tracegrad.numpy.promote import settle_dtype, shown
from tracegrad.ops import shape as ops
from tracegrad.trace import Tracer, is_scalar


def together(name: str, arrays: Any, dtype: DType) -> list[Array]:
    """Accept the arrays of a join and give them one dtype."""
    if isinstance(arrays, (Tracer, np.ndarray)):
        arrays = unstack(arrays)
    elif not isinstance(arrays, (list, tuple)):
        raise ArgumentError(f"{name}: takes a list of arrays", fix=f"write {name}([a, b])")
    if not arrays:
        raise ArgumentError(f"{name}: the list of arrays is empty", fix="pass at least one array")
    xs = [operand(name, x) for x in arrays]
    chosen = result_dtype(xs) if dtype is None else settle_dtype(dtype, name)
    return [array(name, cast(name, x, chosen)) for x in xs]


def joined(name: str, xs: list[Array], axis: int) -> Array:
    """Check the shapes and concatenate."""
    ndim = len(xs[0].shape)
    if ndim == 0:
        raise ShapeError(f"{name}: scalars have no axis to join along", fix="use stack, or x.reshape(1)")
    at = one_axis(name, axis, ndim, xs[0])
    for x in xs:
        if len(x.shape) != ndim or any(
            a != at and n != m for a, (n, m) in enumerate(zip(x.shape, xs[0].shape, strict=True))
        ):
            listed = " and ".join(map(shown, xs))
            raise ShapeError(f"{name}: {listed} differ beside axis {at}", fix="check axis= and the shapes")
    return ops.concat(*xs, axis=at) if len(xs) > 1 else xs[0]


@computed
def concatenate(arrays: Sequence[ArrayLike], axis: int | None = 0, *, dtype: DType = None) -> Array:
    """Join arrays along an axis they have (flat when `axis` is None), as `numpy.concatenate`.

    Raises ShapeError when the other sizes differ.

    >>> concatenate([np.array([1.0]), np.array([2.0, 3.0])])
    array([1., 2., 3.])
    """
    xs = together("concatenate", arrays, dtype)
    if axis is None:
        xs, axis = [shaping.ravel(x) for x in xs], 0
    return joined("concatenate", xs, axis)


@computed
def stack(arrays: Sequence[ArrayLike], axis: int = 0, *, dtype: DType = None) -> Array:
    """Join arrays of one shape along a new axis, as `numpy.stack`.

    >>> stack([np.array([1.0, 2.0]), np.array([3.0, 4.0])], axis=1)
    array([[1., 3.],
           [2., 4.]])
    """
    xs = together("stack", arrays, dtype)
    if len({x.shape for x in xs}) > 1:
        raise ShapeError(
            f"stack: {' and '.join(map(shown, xs))} differ in shape", fix="use concatenate, or pad the arrays"
        )
    return joined("stack", [shaping.expand_dims(x, axis) for x in xs], axis)


@computed
def vstack(arrays: Sequence[ArrayLike], *, dtype: DType = None) -> Array:
    """Join rows: along the first axis, after making vectors rows, as `numpy.vstack`."""
    return joined("vstack", [shaping.atleast_2d(x) for x in together("vstack", arrays, dtype)], 0)


@computed
def hstack(arrays: Sequence[ArrayLike], *, dtype: DType = None) -> Array:
    """Join along the second axis, vectors along the first, as `numpy.hstack`."""
    xs = [shaping.atleast_1d(x) for x in together("hstack", arrays, dtype)]
    return joined("hstack", xs, 0 if len(xs[0].shape) == 1 else 1)


@computed
def column_stack(arrays: Sequence[ArrayLike]) -> Array:
    """Join columns: along the second axis, after making vectors columns, as `numpy.column_stack`."""
    xs = [shaping.as_shape(x, (x.size, 1)) if len(x.shape) < 2 else x for x in together("column_stack", arrays, None)]
    return joined("column_stack", xs, 1)


def part(x: Array, axis: int, start: int, stop: int) -> Array:
    """Return x[start:stop] along one axis, without a node for the whole."""
    size = tuple(stop - start if a == axis else n for a, n in enumerate(x.shape))
    if size == x.shape:
        return x
    first = tuple(start if a == axis and stop > start else 0 for a in range(len(size)))
    return ops.slice_(x, start=first, size=size, step=(1,) * len(size))


def array_split(x: ArrayLike, sections: int | Sequence[int], axis: int = 0) -> list[Array]:
    """Split into nearly equal parts, or at the given positions, as `numpy.array_split`."""
    x = array("array_split", x)
    at = one_axis("array_split", axis, len(x.shape), x)
    n = x.shape[at]
    if isinstance(sections, int):
        if sections < 1:
            raise ArgumentError(f"array_split: {sections} parts are too few", fix="ask for 1 part or more")
        small, larger = divmod(n, sections)
        ends = [i * small + min(i, larger) for i in range(sections + 1)]
    else:
        ends = [0, *(slice(operator.index(i)).indices(n)[1] for i in sections), n]
    return [part(x, at, a, max(a, b)) for a, b in pairwise(ends)]


def split(x: ArrayLike, sections: int | Sequence[int], axis: int = 0) -> list[Array]:
    """Split into equal parts, or at the given positions, as `numpy.split`.

    Raises ShapeError when the parts would not be equal.

    >>> split(np.arange(4), 2)
    [array([0, 1]), array([2, 3])]
    """
    x = array("split", x)
    at = one_axis("split", axis, len(x.shape), x)
    if isinstance(sections, int) and (sections < 1 or x.shape[at] % sections):
        raise ShapeError(
            f"split: axis {at} of {shown(x)} cannot be split into {sections} equal parts",
            fix="use array_split, or positions",
        )
    return array_split(x, sections, axis)


def unstack(x: ArrayLike, axis: int = 0) -> tuple[Array, ...]:
    """Return the slices along an axis, which is dropped, as `numpy.unstack`."""
    x = array("unstack", x)
    at = one_axis("unstack", axis, len(x.shape), x)
    rest = tuple(n for a, n in enumerate(x.shape) if a != at)
    if type(x) is Tracer and not rest:
        return tuple(x)  # numbers, not views
    return tuple(shaping.as_shape(part(x, at, i, i + 1), rest) for i in range(x.shape[at]))


@computed
def pad(x: ArrayLike, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0) -> Array:
    """Pad the axes: mode "constant" (one value), "edge", "reflect", "symmetric" or "wrap", as `numpy.pad`.

    `pad_width` is an integer, a pair for all axes, or one pair per axis. Raises ArgumentError for other modes.

    >>> pad(np.array([1.0, 2.0]), (1, 2))
    array([0., 1., 2., 0., 0.])
    """
    x = array("pad", x)
    widths = pad_widths(x, pad_width)
    if mode == "constant":
        return pad_constant(x, widths, constant_values)
    if mode not in ("edge", "reflect", "symmetric", "wrap"):
        raise ArgumentError(
            f"pad: mode {mode!r} is not supported", fix='use "constant", "edge", "reflect", "symmetric" or "wrap"'
        )
    for axis, (low, high) in enumerate(widths):
        x = pad_axis(x, axis, low, high, mode)
    return x


def pad_widths(x: Array, pad_width: Any) -> list[tuple[int, int]]:
    """Return one pair of widths per axis."""
    try:
        pairs = np.broadcast_to(np.asarray(pad_width), (len(x.shape), 2))
    except ValueError:
        raise ShapeError(
            f"pad: the widths {pad_width} do not fit {shown(x)}", fix="pass one (before, after) per axis"
        ) from None
    if pairs.dtype.kind not in "iu":
        raise ArgumentError(f"pad: the widths {pad_width} are not integers", fix="pass one (before, after) per axis")
    found = [(int(a), int(b)) for a, b in pairs]
    if any(a < 0 or b < 0 for a, b in found):
        raise ShapeError(f"pad: the widths {found} of {shown(x)} must not be negative", fix="slice the array instead")
    return found


def pad_constant(x: Array, widths: list[tuple[int, int]], value: Any) -> Array:
    """Pad with one value: zeros around, and the value where there is no element."""
    if not any(a or b for a, b in widths):
        return x
    low, high = tuple(a for a, _ in widths), tuple(b for _, b in widths)
    gap = (0,) * len(widths)
    if isinstance(value, (int, float)) and value == 0:
        return ops.pad(x, low=low, high=high, gap=gap)
    fill = array("pad", cast("pad", operand("pad", value), x.dtype))
    if fill.shape:
        raise ArgumentError("pad: constant_values must be one number", fix="pad the sides one after the other")
    for axis, (before, after) in enumerate(widths):
        parts = [shaping.broadcast_to(fill, side_shape(x, axis, n)) if n else None for n in (before, after)]
        pieces = [p for p in (parts[0], x, parts[1]) if p is not None]
        x = ops.concat(*pieces, axis=axis) if len(pieces) > 1 else x
    return x


def side_shape(x: Array, axis: int, n: int) -> tuple[int, ...]:
    return tuple(n if a == axis else m for a, m in enumerate(x.shape))


def pad_axis(x: Array, axis: int, low: int, high: int, mode: str) -> Array:
    """Pad one axis with copies of its own elements: as many pieces as it takes."""
    n = x.shape[axis]
    if low == high == 0:
        return x
    if n == 0:
        raise ShapeError(
            f"pad: axis {axis} of {shown(x)} is empty, so mode {mode!r} has nothing to copy", fix="use constant"
        )
    where = np.pad(np.arange(n), (low, high), mode=mode)  # type: ignore[call-overload]
    steps = np.diff(where)
    pieces, start = [], 0
    while start < len(where):
        step = int(steps[start]) if start < len(steps) and abs(int(steps[start])) <= 1 else 1
        stop = start + 1
        while stop < len(where) and steps[stop - 1] == step:
            stop += 1
        pieces.append(run(x, axis, int(where[start]), stop - start, step))
        start = stop
    return ops.concat(*pieces, axis=axis)


def run(x: Array, axis: int, start: int, size: int, step: int) -> Array:
    """Return `size` elements along an axis from `start` on; step 0 repeats one."""
    shape = side_shape(x, axis, size)
    first = tuple(start if a == axis else 0 for a in range(len(shape)))
    if step == 0:
        one = ops.slice_(x, start=first, size=side_shape(x, axis, 1), step=(1,) * len(shape))
        return shaping.broadcast_to(one, shape)
    return ops.slice_(x, start=first, size=shape, step=tuple(step if a == axis else 1 for a in range(len(shape))))


@computed
def roll(x: ArrayLike, shift: int | Sequence[int], axis: Axis = None) -> Array:
    """Shift elements along axes, those that fall off coming back on the other side, as `numpy.roll`.

    >>> roll(np.arange(4), 1)
    array([3, 0, 1, 2])
    """
    x = array("roll", x)
    if axis is None:
        flat = shaping.ravel(x)
        total = shift if isinstance(shift, int) else sum(shift)
        return shaping.as_shape(roll(flat, total, 0), x.shape)
    axes = list(axis) if isinstance(axis, (tuple, list)) else [axis]
    shifts: list[Any] = list(shift) if isinstance(shift, (tuple, list)) else [shift] * len(axes)
    axes = axes * len(shifts) if len(axes) == 1 else axes
    for amount, which in zip(shifts, axes, strict=True):
        at = one_axis("roll", which, len(x.shape), x)
        n = x.shape[at]
        cut = (-operator.index(amount)) % n if n else 0
        if cut:
            x = ops.concat(part(x, at, cut, n), part(x, at, 0, cut), axis=at)
    return x


@computed
def tile(x: ArrayLike, reps: int | Sequence[int]) -> Array:
    """Repeat the whole array along each axis, as `numpy.tile`.

    >>> tile(np.array([1, 2]), 2)
    array([1, 2, 1, 2])
    """
    x = array("tile", x)
    counts = tuple(reps) if isinstance(reps, (tuple, list)) else (reps,)
    ndim = max(len(counts), len(x.shape))
    counts = (1,) * (ndim - len(counts)) + tuple(operator.index(r) for r in counts)
    sizes = (1,) * (ndim - len(x.shape)) + x.shape
    wide = shaping.as_shape(x, tuple(s for n in sizes for s in (1, n)))
    full = shaping.broadcast_to(wide, tuple(s for r, n in zip(counts, sizes, strict=True) for s in (r, n)))
    return shaping.as_shape(full, tuple(r * n for r, n in zip(counts, sizes, strict=True)))


@computed
def repeat(x: ArrayLike, repeats: int | Sequence[int], axis: int | None = None) -> Array:
    """Repeat each element, as `numpy.repeat`; `repeats` is known while tracing, one number or one per element.

    >>> repeat(np.array([1, 2]), 2)
    array([1, 1, 2, 2])
    """
    x = array("repeat", x)
    if axis is None:
        x, axis = shaping.ravel(x), 0
    at = one_axis("repeat", axis, len(x.shape), x)
    n = x.shape[at]
    if not isinstance(repeats, (int, np.integer)):
        counts = [operator.index(r) for r in repeats]
        if len(counts) not in (1, n):
            raise ShapeError(f"repeat: {len(counts)} repeats for axis {at} of {shown(x)}", fix="pass one per element")
        if len(set(counts)) > 1:
            pieces = [run(x, at, i, c, 0) for i, c in enumerate(counts) if c]
            return ops.concat(*pieces, axis=at)
        repeats = counts[0] if counts else 0
    wide = shaping.expand_dims(x, at + 1)
    full = shaping.broadcast_to(wide, (*x.shape[: at + 1], int(repeats), *x.shape[at + 1 :]))
    return shaping.as_shape(full, side_shape(x, at, n * int(repeats)))


@computed
def append(x: ArrayLike, values: ArrayLike, axis: int | None = None) -> Array:
    """Join `values` after x, flat when `axis` is None, as `numpy.append`."""
    strong = [np.asarray(v) if is_scalar(v) else v for v in (x, values)]  # an array of its own dtype, in NumPy
    return concatenate([shaping.ravel(v) for v in strong] if axis is None else strong, axis)


__all__ = [
    "append", "array_split", "column_stack", "concatenate", "hstack", "pad", "repeat", "roll", "split", "stack", "tile",
    "unstack", "vstack",
]  # fmt: skip
