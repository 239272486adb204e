"""Numbers of places: flat ones and those by axes, orders by several keys, open meshes, matrices with a diagonal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tracegrad.errors import ArgumentError, DTypeError, ShapeError
from tracegrad.numpy import creation, elementwise as ew, joining, selecting, shaping
from tracegrad.numpy.promote import BOOL, FLOAT64, INT64, Array, ArrayLike, array, cast, settle_shape, shown


def whole(name: str, x: ArrayLike) -> Array:
    """Accept integers."""
    found = array(name, x)
    if found.dtype.kind not in "iu":
        raise DTypeError(f"{name}: {shown(found)} is not integer", fix="convert it with i.astype(np.int64)")
    return cast(name, found, INT64)


def unravel_index(indices: ArrayLike, shape: Any, order: str = "C") -> tuple[Array, ...]:
    """Return the places by axes of flat places, as `numpy.unravel_index`; those outside are not refused.

    >>> unravel_index(np.array(5), (2, 3))
    (np.int64(1), np.int64(2))
    """
    if order != "C":
        raise ArgumentError(f"unravel_index: order={order!r} is not supported", fix='use order="C"')
    rest, found = whole("unravel_index", indices), []
    for n in reversed(settle_shape("unravel_index", shape)):
        found.append(ew.remainder(rest, n))
        rest = ew.floor_divide(rest, n)
    return tuple(reversed(found))


def ravel_multi_index(multi_index: Sequence[ArrayLike], dims: Any, mode: str = "raise", order: str = "C") -> Array:
    """Return the flat places of places by axes, as `numpy.ravel_multi_index`; those outside are not refused.

    >>> ravel_multi_index((np.array(1), np.array(2)), (2, 3))
    np.int64(5)
    """
    sizes = settle_shape("ravel_multi_index", dims)
    if mode != "raise" or order != "C":
        raise ArgumentError("ravel_multi_index: mode= and order= are not supported", fix="leave them out")
    if len(multi_index) != len(sizes):
        raise ShapeError(
            f"ravel_multi_index: {len(multi_index)} indices for {len(sizes)} axes", fix="pass one for each"
        )
    found: Any = 0
    for i, n in zip(multi_index, sizes, strict=True):
        found = ew.add(ew.multiply(found, n), whole("ravel_multi_index", i))
    return found


def lexsort(keys: Sequence[ArrayLike], axis: int = -1) -> Array:
    """Return the order by the last key, then by the one before it, and so on, as `numpy.lexsort`."""
    xs = [array("lexsort", k) for k in keys]
    if not xs:
        raise ArgumentError("lexsort: no keys", fix="pass one or more arrays")
    order = selecting.argsort(xs[0], axis)
    for x in xs[1:]:
        inner = selecting.argsort(selecting.take_along_axis(x, order, axis), axis)
        order = selecting.take_along_axis(order, inner, axis)
    return order


def ix_(*args: ArrayLike) -> tuple[Array, ...]:
    """Return index vectors that meet each other everywhere, as `numpy.ix_`."""
    found = []
    for axis, arg in enumerate(args):
        x = array("ix_", arg)
        if len(x.shape) != 1:
            raise ShapeError(f"ix_: {shown(x)} is not a vector", fix="pass vectors of indices")
        if x.dtype == BOOL:
            raise DTypeError(f"ix_: {shown(x)} is a mask, which is not known while tracing", fix="use np.where")
        x = cast("ix_", x, INT64) if not math.prod(x.shape) else x
        found.append(shaping.as_shape(x, tuple(x.shape[0] if a == axis else 1 for a in range(len(args)))))
    return tuple(found)


def diagflat(v: ArrayLike, k: int = 0) -> Array:
    """Return the matrix with the elements of v, in order, on diagonal k, as `numpy.diagflat`."""
    return selecting.diag(shaping.ravel(v), k)


def geomspace(start: ArrayLike, stop: ArrayLike, num: int = 50, endpoint: bool = True) -> Array:
    """Return `num` numbers from start to stop with equal ratios, as `numpy.geomspace`, of positive ends; float64."""
    low, high = shaping.broadcast_arrays(*(cast("geomspace", array("geomspace", v), FLOAT64) for v in (start, stop)))
    found = ew.exp(creation.linspace(ew.log(low), ew.log(high), num, endpoint))
    if not endpoint or num < 2:
        return found
    inner = found[1:-1]
    ends = [creation.astype(shaping.reshape(v, (1, *v.shape)), found.dtype) for v in (low, high)]
    return joining.concatenate([ends[0], inner, ends[1]])


__all__ = ["diagflat", "geomspace", "ix_", "lexsort", "ravel_multi_index", "unravel_index"]
