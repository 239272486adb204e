"""Arrays from pieces of others: choices by conditions, blocks, insertions, windows, and rows worked on one by one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError, ShapeError, TracerError
from tracegrad.numpy import arithmetic, creation, elementwise as ew, indexing, joining, selecting, shaping
from tracegrad.numpy.promote import Array, ArrayLike, array, broadcast_array, one_axis, result_dtype, shape_of, shown
from tracegrad.numpy.promote import cast, common_shape, computed
from tracegrad.trace import Tracer


def select(condlist: Sequence[ArrayLike], choicelist: Sequence[ArrayLike], default: ArrayLike = 0) -> Array:
    """Take from the first choice whose condition holds, else `default`, as `numpy.select`.

    >>> select([np.array([True, False])], [np.array([1.0, 2.0])], 9.0)
    array([1., 9.])
    """
    if len(condlist) != len(choicelist) or not condlist:
        raise ArgumentError(f"select: {len(condlist)} conditions and {len(choicelist)} choices", fix="pass as many")
    found: Any = default
    dtype = result_dtype([*(array("select", c) for c in choicelist), default])
    for condition, choice in zip(condlist[::-1], choicelist[::-1], strict=True):
        found = arithmetic.where(condition, choice, found)
    return cast("select", found, dtype)


def piecewise(x: ArrayLike, condlist: Sequence[ArrayLike], funclist: Sequence[Any], *args: Any, **kw: Any) -> Array:
    """Apply the function (or take the number) of the last condition that holds, as `numpy.piecewise`.

    Every function is computed everywhere; gradients flow through the one chosen only.
    """
    x = array("piecewise", x)
    functions = list(funclist)
    default = functions.pop() if len(functions) == len(condlist) + 1 else 0
    if len(functions) != len(condlist):
        raise ArgumentError(f"piecewise: {len(condlist)} conditions and {len(funclist)} functions", fix="pass as many")

    def value(function: Any) -> Any:
        return function(x, *args, **kw) if callable(function) else function

    found = value(default)
    for condition, function in zip(condlist, functions, strict=True):
        found = arithmetic.where(condition, value(function), found)
    return creation.astype(broadcast_array(array("piecewise", found), x.shape), x.dtype)


def choose(a: ArrayLike, choices: Sequence[ArrayLike]) -> Array:
    """Take each element from the choice that `a` numbers, as `numpy.choose`."""
    a = array("choose", a)
    return select([ew.equal(a, i) for i in range(len(choices))], list(choices))


def dstack(arrays: Sequence[ArrayLike]) -> Array:
    """Join along the third axis, as `numpy.dstack`."""
    return joining.concatenate([shaping.atleast_3d(x) for x in arrays], 2)


def hsplit(x: ArrayLike, sections: int | Sequence[int]) -> list[Array]:
    """Split along the second axis, a vector along its only one, as `numpy.hsplit`."""
    return joining.split(x, sections, 0 if shaping.ndim(x) == 1 else 1)


def vsplit(x: ArrayLike, sections: int | Sequence[int]) -> list[Array]:
    """Split along the first axis, as `numpy.vsplit`."""
    return joining.split(x, sections, 0)


def dsplit(x: ArrayLike, sections: int | Sequence[int]) -> list[Array]:
    """Split along the third axis, as `numpy.dsplit`."""
    return joining.split(x, sections, 2)


@computed
def block(arrays: Any) -> Array:
    """Join nested lists of blocks, the innermost along the last axis, as `numpy.block`."""

    def depth(value: Any) -> int:
        return 1 + max(map(depth, value)) if isinstance(value, list) and value else 0

    def leaves(value: Any) -> list[Any]:
        return [x for part in value for x in leaves(part)] if isinstance(value, list) else [value]

    deep = depth(arrays)
    ndim = max(deep, *(shaping.ndim(x) for x in leaves(arrays)))

    def join(value: Any, level: int) -> Any:
        if isinstance(value, list):
            return joining.concatenate([join(v, level + 1) for v in value], ndim - deep + level)
        value = array("block", value)
        return shaping.reshape(value, (*(1,) * (ndim - len(value.shape)), *value.shape))

    return join(arrays, 0)


def insert(arr: ArrayLike, obj: int, values: ArrayLike, axis: int | None = None) -> Array:
    """Return the array with values put in front of one index, as `numpy.insert` with an integer."""
    if not isinstance(obj, (int, np.integer)):
        raise ArgumentError("insert: only one integer index is supported", fix="join the pieces with np.concatenate")
    x = shaping.ravel(arr) if axis is None else array("insert", arr)
    at = one_axis("insert", 0 if axis is None else axis, len(x.shape), x)
    n = x.shape[at]
    if not -n <= obj <= n:
        raise ArgumentError(f"insert: index {obj} is out of bounds for axis {at} of {shown(x)}", fix="check the index")
    place = int(obj) % n if obj < 0 else int(obj)
    v = creation.astype(array("insert", values), x.dtype)
    if axis is None:
        v = shaping.ravel(v)
    else:
        shape = tuple(m for i, m in enumerate(x.shape) if i != at)
        spread = common_shape(v.shape, shape) == shape
        v = shaping.expand_dims(broadcast_array(v, shape), at) if spread else shaping.moveaxis(v, 0, at)
    head, tail = joining.split(x, [place], at)
    return joining.concatenate([head, v, tail], at)


def delete(arr: ArrayLike, obj: Any, axis: int | None = None) -> Array:
    """Return the array without what a known index (an integer, slice, list or mask) names, as `numpy.delete`."""
    if isinstance(obj, Tracer):
        raise TracerError("delete: the size of the result of a traced index is not known", fix="use np.where")
    x = shaping.ravel(arr) if axis is None else array("delete", arr)
    at = one_axis("delete", 0 if axis is None else axis, len(x.shape), x)
    return selecting.take(x, np.delete(np.arange(x.shape[at]), obj), at)


def resize(a: ArrayLike, new_shape: Any) -> Array:
    """Return an array of another size, filled with repeated copies, as `numpy.resize`."""
    flat = shaping.ravel(a)
    count = int(np.prod(new_shape))
    if flat.shape[0] == 0:
        raise ShapeError("resize: an empty array has nothing to repeat")
    repeats = -(-count // flat.shape[0])
    return shaping.reshape(joining.tile(flat, max(repeats, 1))[:count], new_shape)


def apply_along_axis(func1d: Callable[..., Any], axis: int, arr: ArrayLike, *args: Any, **kwargs: Any) -> Array:
    """Apply a function to every vector along `axis` and join what it gives there, as `numpy.apply_along_axis`.

    The vectors are traced one after the other; `tg.vmap` makes a smaller program.
    """
    x = array("apply_along_axis", arr)
    at = one_axis("apply_along_axis", axis, len(x.shape), x)
    lines = shaping.moveaxis(x, at, -1)
    rows = shaping.reshape(lines, (-1, x.shape[at]))
    found = joining.stack([array("apply_along_axis", func1d(rows[i], *args, **kwargs)) for i in range(rows.shape[0])])
    shape = shape_of(found)[1:]
    whole = shaping.reshape(found, (*lines.shape[:-1], *shape))
    last = len(lines.shape) - 1
    return shaping.moveaxis(whole, tuple(range(last, last + len(shape))), tuple(range(at, at + len(shape))))


def sliding_window_view(x: ArrayLike, window_shape: Any, axis: Any = None) -> Array:
    """Return the windows of an array as further axes, as `numpy.lib.stride_tricks.sliding_window_view`; a copy."""
    x = array("sliding_window_view", x)
    sizes = window_shape if isinstance(window_shape, (tuple, list)) else (window_shape,)
    axes = range(len(x.shape)) if axis is None else axis if isinstance(axis, (tuple, list)) else (axis,)
    if len(sizes) != len(tuple(axes)):
        raise ArgumentError("sliding_window_view: give one window size per axis", fix="pass axis=")
    for size, a in zip(sizes, axes, strict=True):
        at = one_axis("sliding_window_view", a, len(x.shape), x)
        count = x.shape[at] - size + 1
        if count < 1:
            raise ShapeError(f"sliding_window_view: windows of {size} do not fit axis {at} of {shown(x)}")
        places = np.arange(count)[:, None] + np.arange(size)
        x = shaping.moveaxis(indexing.getitem(x, (slice(None),) * at + (places,)), at + 1, -1)
    return x


def matvec(x1: ArrayLike, x2: ArrayLike) -> Array:
    """Product of matrices and vectors, as `numpy.matvec`."""
    return (array("matvec", x1) @ shaping.expand_dims(x2, -1))[..., 0]


def vecmat(x1: ArrayLike, x2: ArrayLike) -> Array:
    """Product of vectors and matrices, as `numpy.vecmat`."""
    return (shaping.expand_dims(x1, -2) @ array("vecmat", x2))[..., 0, :]


def real(x: ArrayLike) -> Array:
    """Return a real array itself, as `numpy.real`."""
    return array("real", x)


def imag(x: ArrayLike) -> Array:
    """Return zeros: there are no complex numbers."""
    return creation.zeros_like(array("imag", x))


def conjugate(x: ArrayLike) -> Array:
    """Return a real array, as `numpy.conjugate`."""
    return arithmetic.positive(x)


__all__ = [
    "apply_along_axis", "block", "choose", "conjugate", "delete", "dsplit", "dstack", "hsplit", "imag", "insert",
    "matvec", "piecewise", "real", "resize", "select", "vecmat", "vsplit",
]  # fmt: skip
