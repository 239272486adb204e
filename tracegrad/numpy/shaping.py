"""Functions that give an array another shape or order of axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegrad.errors import ShapeError
from tracegrad.numpy.promote import view_of_array
from tracegrad.numpy.promote import Array, ArrayLike, Axis, Shape, array, broadcast_array, broadcast_shape, one_axis
from tracegrad.numpy.promote import settle_axes, settle_shape, shown
from tracegrad.ops import shape as ops
from tracegrad.trace import Tracer


def as_shape(x: Array, shape: Shape) -> Array:
    """Reshape without a node when there is nothing to do."""
    return x if x.shape == shape else ops.reshape(x, shape=shape)


def permuted(x: Array, perm: tuple[int, ...]) -> Array:
    """Transpose without a node when there is nothing to do."""
    return x if perm == tuple(range(len(perm))) else ops.transpose(x, perm=perm)


def whole_sizes(x: Array, shape: Any, name: str = "reshape") -> Shape:
    """Return a shape whose -1, if any, is filled in from the size of x."""
    listed = list(shape) if isinstance(shape, (tuple, list, np.ndarray)) and np.ndim(shape) else [shape]
    holes = [i for i, n in enumerate(listed) if isinstance(n, (int, np.integer)) and n == -1]
    if len(holes) > 1:
        raise ShapeError(f"{name}: {tuple(listed)} has more than one -1", fix="give all sizes but one")
    known = settle_shape(name, [1 if i in holes else n for i, n in enumerate(listed)])
    size, part = math.prod(x.shape), math.prod(known)
    if holes:
        if part == 0 or size % part:
            raise ShapeError(
                f"{name}: {shown(x)} has {size} elements, which {tuple(listed)} cannot hold",
                fix="check the sizes beside the -1",
            )
        return tuple(size // part if i in holes else n for i, n in enumerate(known))
    if size != part:
        raise ShapeError(
            f"{name}: {shown(x)} has {size} elements but {known} has {part}",
            fix="use -1 for one axis, or check the sizes",
        )
    return known


def reshape(x: ArrayLike, shape: Any) -> Array:
    """Give x another shape with the same elements in row-major order; one size may be -1, as `numpy.reshape`.

    Raises ShapeError when the numbers of elements differ.

    >>> reshape(np.arange(6), (2, -1))
    array([[0, 1, 2],
           [3, 4, 5]])
    """
    x = array("reshape", x)
    return as_shape(x, whole_sizes(x, shape))


def ravel(x: ArrayLike) -> Array:
    """Return the flat array, as `numpy.ravel`."""
    x = array("ravel", x)
    x = x.contiguous() if isinstance(x, Tracer) else x
    return as_shape(x, (math.prod(x.shape),))


def transpose(x: ArrayLike, axes: Sequence[int] | None = None) -> Array:
    """Permute the axes, or reverse them when `axes` is None, as `numpy.transpose`.

    >>> transpose(np.zeros((2, 3, 4)), (2, 0, 1)).shape
    (4, 2, 3)
    """
    x = array("transpose", x)
    ndim = len(x.shape)
    if axes is None:
        return permuted(x, tuple(reversed(range(ndim))))
    perm = tuple(one_axis("transpose", a, ndim, x) for a in axes)
    if sorted(perm) != list(range(ndim)):
        raise ShapeError(
            f"transpose: axes {tuple(axes)} are not a permutation of those of {shown(x)}", fix="name each once"
        )
    return permuted(x, perm)


def permute_dims(x: ArrayLike, axes: Sequence[int] | None = None) -> Array:
    """Permute the axes: the array-API name of `transpose`."""
    return transpose(x, axes)


def matrix_transpose(x: ArrayLike) -> Array:
    """Swap the last two axes, as `numpy.matrix_transpose`."""
    x = array("matrix_transpose", x)
    if len(x.shape) < 2:
        raise ShapeError(f"matrix_transpose: {shown(x)} has fewer than 2 axes", fix="add one with x[:, None]")
    return swapaxes(x, -1, -2)


def swapaxes(x: ArrayLike, axis1: int, axis2: int) -> Array:
    """Swap two axes, as `numpy.swapaxes`."""
    x = array("swapaxes", x)
    ndim = len(x.shape)
    first, second = one_axis("swapaxes", axis1, ndim, x), one_axis("swapaxes", axis2, ndim, x)
    perm = list(range(ndim))
    perm[first], perm[second] = second, first
    return permuted(x, tuple(perm))


def moveaxis(x: ArrayLike, source: Axis, destination: Axis) -> Array:
    """Move axes to other places, the rest keeping their order, as `numpy.moveaxis`."""
    x = array("moveaxis", x)
    ndim = len(x.shape)
    lists = [list(a) if isinstance(a, (tuple, list)) else [a] for a in (source, destination)]
    sources, targets = ([one_axis("moveaxis", a, ndim, x) for a in axes] for axes in lists)
    if len(sources) != len(targets) or len(set(sources)) != len(sources) or len(set(targets)) != len(targets):
        raise ShapeError(
            f"moveaxis: source {source} and destination {destination} do not match", fix="pair distinct axes"
        )
    perm = [a for a in range(ndim) if a not in sources]
    for target, origin in sorted(zip(targets, sources, strict=True)):
        perm.insert(target, origin)
    return permuted(x, tuple(perm))


def rollaxis(x: ArrayLike, axis: int, start: int = 0) -> Array:
    """Move an axis back until it stands before `start`, as `numpy.rollaxis`."""
    x = array("rollaxis", x)
    at = one_axis("rollaxis", axis, len(x.shape), x)
    start = start + len(x.shape) if start < 0 else start
    return moveaxis(x, at, start - 1 if at < start else start)


def squeeze(x: ArrayLike, axis: Axis = None) -> Array:
    """Drop axes of size 1, as `numpy.squeeze`."""
    x = array("squeeze", x)
    axes = settle_axes("squeeze", axis, x)
    if axis is None:
        axes = tuple(a for a in axes if x.shape[a] == 1)
    for a in axes:
        if x.shape[a] != 1:
            raise ShapeError(f"squeeze: axis {a} of {shown(x)} has size {x.shape[a]}, not 1", fix="check axis=")
    return as_shape(x, tuple(n for a, n in enumerate(x.shape) if a not in axes))


def expand_dims(x: ArrayLike, axis: Axis) -> Array:
    """Add axes of size 1 at the places `axis` of the result, as `numpy.expand_dims`."""
    x = array("expand_dims", x)
    listed = tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)
    ndim = len(x.shape) + len(listed)
    axes = [one_axis("expand_dims", a, ndim, f"a result of {ndim} axes") for a in listed]
    if len(set(axes)) != len(axes):
        raise ShapeError(f"expand_dims: {listed} names one axis twice", fix="name each axis once")
    sizes = iter(x.shape)
    return as_shape(x, tuple(1 if a in axes else next(sizes) for a in range(ndim)))


def broadcast_to(x: ArrayLike, shape: Any) -> Array:
    """Repeat axes of size 1, and add axes in front, up to `shape`, as `numpy.broadcast_to`.

    >>> broadcast_to(np.array([1.0, 2.0]), (2, 2))
    array([[1., 2.],
           [1., 2.]])
    """
    x, target = array("broadcast_to", x), settle_shape("broadcast_to", shape)
    lead = len(target) - len(x.shape)
    if lead < 0 or any(n not in (1, target[a]) for a, n in enumerate(x.shape, lead)):
        raise ShapeError(f"broadcast_to: {shown(x)} cannot be broadcast to {target}", fix="make the sizes equal or 1")
    return broadcast_array(x, target)


def broadcast_shapes(*shapes: Any) -> Shape:
    """Return the shape that shapes broadcast to, as `numpy.broadcast_shapes`."""
    return np.broadcast_shapes(*shapes)


def broadcast_arrays(*arrays: ArrayLike) -> tuple[Array, ...]:
    """Broadcast arrays to their common shape, as `numpy.broadcast_arrays`."""
    xs = [array("broadcast_arrays", x) for x in arrays]
    shape = broadcast_shape("broadcast_arrays", xs)
    return tuple(broadcast_array(x, shape) for x in xs)


def atleast_1d(x: ArrayLike) -> Array:
    """Return x with at least one axis, as `numpy.atleast_1d`."""
    x = array("atleast_1d", x)
    return x if x.shape else as_shape(x, (1,))


def atleast_2d(x: ArrayLike) -> Array:
    """Return x with at least two axes, new ones in front, as `numpy.atleast_2d`."""
    x = array("atleast_2d", x)
    return as_shape(x, (1,) * (2 - len(x.shape)) + x.shape)


def atleast_3d(x: ArrayLike) -> Array:
    """Return x with at least three axes, as `numpy.atleast_3d`."""
    x = atleast_1d(x)
    match x.shape:
        case (n,):
            return as_shape(x, (1, n, 1))
        case (m, n):
            return as_shape(x, (m, n, 1))
    return x


def ndim(x: ArrayLike) -> int:
    """Return the number of axes, as `numpy.ndim`."""
    return len(array("ndim", x).shape)


def shape(x: ArrayLike) -> Shape:
    """Return the shape, as `numpy.shape`."""
    return tuple(array("shape", x).shape)


def size(x: ArrayLike, axis: int | None = None) -> int:
    """Return the number of elements, or the length of one axis, as `numpy.size`."""
    sizes = array("size", x).shape
    return math.prod(sizes) if axis is None else sizes[axis]


@view_of_array
def flip(x: ArrayLike, axis: Axis = None) -> Array:
    """Reverse the order along `axis` (all when None), as `numpy.flip`."""
    x = array("flip", x)
    axes = [a for a in settle_axes("flip", axis, x) if x.shape[a] > 1]
    return ops.flip(x, axes) if axes else x


@view_of_array
def flipud(x: ArrayLike) -> Array:
    """Reverse the first axis, as `numpy.flipud`."""
    return flip(x, 0)


@view_of_array
def fliplr(x: ArrayLike) -> Array:
    """Reverse the second axis, as `numpy.fliplr`."""
    return flip(x, 1)


@view_of_array
def rot90(x: ArrayLike, k: int = 1, axes: tuple[int, int] = (0, 1)) -> Array:
    """Rotate by 90 degrees k times in the plane of two axes, as `numpy.rot90`."""
    match k % 4:
        case 0:
            return array("rot90", x)
        case 1:
            return swapaxes(flip(x, axes[1]), *axes)
        case 2:
            return flip(x, axes)
    return flip(swapaxes(x, *axes), axes[1])


__all__ = [
    "atleast_1d", "atleast_2d", "atleast_3d", "broadcast_arrays", "broadcast_shapes", "broadcast_to", "expand_dims",
    "flip", "fliplr", "flipud", "matrix_transpose", "moveaxis", "ndim", "permute_dims", "ravel", "reshape", "rollaxis",
    "rot90", "shape", "size", "squeeze", "swapaxes", "transpose",
]  # fmt: skip
