"""Primitives that move elements without computing: every one is linear, and its vjp is its transpose.

| primitive | result                                                                      | transpose            |
| broadcast | operand's axis k becomes result's axis axes[k]; the others repeat           | reduce_sum           |
| reshape   | the same elements in row-major order                                        | reshape              |
| transpose | result's axis k is operand's axis perm[k]                                   | transpose            |
| turn      | the same, in memory                                                         | transpose            |
| slice     | start:stop:step on every axis, steps may be negative                        | pad with gaps, flip  |
| pad       | `low`, `high` zeros around and `gap` zeros between the elements             | slice                |
| concat    | operands one after the other                                                | slice of each        |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegrad.errors import DTypeError, ShapeError
from tracegrad.ir.aval import Aval
from tracegrad.ir.primitive import PRIMITIVES, Primitive

Ints = tuple[int, ...]


class Broadcast(Primitive):
    name = "broadcast"
    kind = "shape"
    moves = True
    linear = True
    samples = [
        {"shapes": [shape], "params": {"shape": result, "axes": axes}, "dtype": np.float64}
        for shape, result, axes in [
            ((), (2, 3), ()),
            ((3,), (2, 3), (1,)),
            ((2,), (2, 3), (0,)),
            ((2, 3), (2, 4, 3), (0, 2)),
        ]
    ]

    def aval(self, x: Aval, *, shape: Ints, axes: Ints) -> Aval:  # type: ignore[override]
        if len(axes) != x.ndim or any(shape[a] != n for a, n in zip(axes, x.shape, strict=True)):
            raise ShapeError(f"broadcast: {x} does not fit axes {axes} of {shape}")
        return x.with_shape(shape)

    def eager(self, x: Any, *, shape: Ints, axes: Ints) -> Any:
        x = np.asarray(x)
        if x.flags.c_contiguous and x.size and 0 not in shape:  # what follows, three times as fast
            strides = [0] * len(shape)
            for axis, stride in zip(axes, x.strides, strict=True):
                strides[axis] = stride
            view = np.ndarray(shape, x.dtype, x, 0, strides)
            view.flags.writeable = False
            return view
        return np.broadcast_to(x.reshape([shape[a] if a in axes else 1 for a in range(len(shape))]), shape)

    def vjp(self, ct: Any, y: Any, x: Any, *, shape: Ints, axes: Ints) -> Any:
        return PRIMITIVES["reduce_sum"](ct, axes=tuple(a for a in range(len(shape)) if a not in axes))


class Reshape(Primitive):
    name = "reshape"
    kind = "shape"
    moves = True
    linear = True
    samples = [
        {"shapes": [shape], "params": {"shape": result}, "dtype": np.float64}
        for shape, result in [((6,), (2, 3)), ((2, 3), (3, 2)), ((1, 4), (4,)), ((), (1, 1))]
    ]

    def aval(self, x: Aval, *, shape: Ints) -> Aval:  # type: ignore[override]
        if math.prod(shape) != x.size:
            raise ShapeError(
                f"reshape: {x} has {x.size} elements but {shape} has {math.prod(shape)}",
                fix="use -1 for one axis, or check the sizes",
            )
        return x.with_shape(shape)

    def eager(self, x: Any, *, shape: Ints) -> Any:
        return np.reshape(x, shape)

    def vjp(self, ct: Any, y: Any, x: Any, *, shape: Ints) -> Any:
        return reshape(ct, shape=tuple(x.shape))


class Transpose(Primitive):
    name = "transpose"
    kind = "shape"
    moves = True
    linear = True
    samples = [
        {"shapes": [shape], "params": {"perm": perm}, "dtype": np.float64}
        for shape, perm in [((2, 3), (1, 0)), ((2, 3, 4), (2, 0, 1)), ((5,), (0,))]
    ]

    def aval(self, x: Aval, *, perm: Ints) -> Aval:  # type: ignore[override]
        if sorted(perm) != list(range(x.ndim)):
            raise ShapeError(f"transpose: axes {perm} are not a permutation of those of {x}")
        return x.with_shape(tuple(x.shape[p] for p in perm))

    def eager(self, x: Any, *, perm: Ints) -> Any:
        return np.transpose(x, perm)

    def vjp(self, ct: Any, y: Any, x: Any, *, perm: Ints) -> Any:
        return transpose(ct, perm=tuple(int(p) for p in np.argsort(perm)))


class Turn(Transpose):
    """A transpose that is written to memory block by block: what the schedule makes of one whose readers would walk
    memory across its rows."""

    name = "turn"
    samples = [
        {"shapes": [shape], "params": {"perm": perm}, "dtype": np.float64}
        for shape, perm in [((2, 3), (1, 0)), ((17, 33), (1, 0)), ((2, 18, 35), (2, 0, 1)), ((19, 2, 16), (2, 1, 0))]
    ]


class Slice(Primitive):
    """x[start : start + step * size : step] on every axis; `size` is the result's shape."""

    name = "slice"
    kind = "shape"
    moves = True
    linear = True
    samples = [
        {"shapes": [(5, 6)], "params": {"start": start, "size": size, "step": step}, "dtype": np.float64}
        for start, size, step in [((1, 0), (3, 6), (1, 1)), ((0, 1), (3, 2), (2, 3)), ((4, 5), (5, 3), (-1, -2))]
    ]

    def aval(self, x: Aval, *, start: Ints, size: Ints, step: Ints) -> Aval:  # type: ignore[override]
        for n, a, s, d in zip(x.shape, start, size, step, strict=True):
            if d == 0 or s < 0 or (s > 0 and not (0 <= a < n and 0 <= a + (s - 1) * d < n)):
                raise ShapeError(f"slice: start {start}, size {size}, step {step} leave {x}")
        return x.with_shape(size)

    def eager(self, x: Any, *, start: Ints, size: Ints, step: Ints) -> Any:
        return np.asarray(x)[slices(start, size, step)]

    def vjp(self, ct: Any, y: Any, x: Any, *, start: Ints, size: Ints, step: Ints) -> Any:
        back = [a for a, d in enumerate(step) if d < 0]
        if back:
            ct = flip(ct, back)
        first = [a if d > 0 else a + (s - 1) * d for a, s, d in zip(start, size, step, strict=True)]
        gap = tuple(abs(d) - 1 for d in step)
        last = [f + (s - 1) * (g + 1) for f, s, g in zip(first, size, gap, strict=True)]
        if 0 in size:
            return broadcast.beside(ct, ct.dtype.type(0), shape=tuple(x.shape), axes=())
        high = tuple(n - 1 - e for n, e in zip(x.shape, last, strict=True))
        return pad(ct, low=tuple(first), high=high, gap=gap)


def slices(start: Ints, size: Ints, step: Ints) -> tuple[slice, ...]:
    """Return Python's slices for static starts, sizes and steps."""
    out = []
    for a, s, d in zip(start, size, step, strict=True):
        stop = a + s * d
        out.append(slice(a, stop if stop >= 0 else None, d) if s else slice(0, 0))
    return tuple(out)


def flip(x: Any, axes: Sequence[int]) -> Any:
    """Reverse `axes`."""
    return slice_(
        x,
        start=tuple(n - 1 if a in axes and n else 0 for a, n in enumerate(x.shape)),
        size=tuple(x.shape),
        step=tuple(-1 if a in axes else 1 for a in range(len(x.shape))),
    )


class Pad(Primitive):
    """Zeros around and between the elements."""

    name = "pad"
    kind = "shape"
    moves = True
    linear = True
    samples = [
        {"shapes": [(2, 3)], "params": {"low": low, "high": high, "gap": gap}, "dtype": np.float64}
        for low, high, gap in [((1, 0), (0, 2), (0, 0)), ((0, 0), (1, 1), (1, 2)), ((0, 0), (0, 0), (0, 0))]
    ]

    def aval(self, x: Aval, *, low: Ints, high: Ints, gap: Ints) -> Aval:  # type: ignore[override]
        if min((*low, *high, *gap, 0)) < 0:
            raise ShapeError(f"pad: widths {low}, {high} of {x} must not be negative", fix="slice the array instead")
        sizes = zip(x.shape, low, high, gap, strict=True)
        return x.with_shape(tuple(a + b + n + max(n - 1, 0) * g for n, a, b, g in sizes))

    def eager(self, x: Any, *, low: Ints, high: Ints, gap: Ints) -> Any:
        x = np.asarray(x)
        out = np.zeros(self.aval(Aval(x.shape, x.dtype), low=low, high=high, gap=gap).shape, x.dtype)
        out[slices(low, x.shape, tuple(g + 1 for g in gap))] = x
        return out

    def vjp(self, ct: Any, y: Any, x: Any, *, low: Ints, high: Ints, gap: Ints) -> Any:
        size = tuple(x.shape)
        start = tuple(a if n else 0 for a, n in zip(low, size, strict=True))
        return slice_(ct, start=start, size=size, step=tuple(g + 1 for g in gap))


class Concat(Primitive):
    name = "concat"
    kind = "shape"
    moves = True
    linear = True
    samples = [
        {"shapes": shapes, "params": {"axis": axis}, "dtype": np.float64}
        for shapes, axis in [([(2, 3), (1, 3)], 0), ([(2, 3), (2, 1), (2, 2)], 1), ([(2,)], 0)]
    ]

    def aval(self, *xs: Aval, axis: int) -> Aval:  # type: ignore[override]
        first = xs[0]
        shown = " and ".join(map(str, xs))
        for x in xs:
            if (
                x.ndim != first.ndim
                or x.shape[:axis] + x.shape[axis + 1 :] != first.shape[:axis] + first.shape[axis + 1 :]
            ):
                raise ShapeError(f"concatenate: {shown} differ beside axis {axis}", fix="check axis= and the shapes")
            if x.dtype != first.dtype:
                raise DTypeError(f"concatenate: {shown} differ in dtype", fix="convert with x.astype(...)")
        return first.with_shape((*first.shape[:axis], sum(x.shape[axis] for x in xs), *first.shape[axis + 1 :]))

    def eager(self, *xs: Any, axis: int) -> Any:
        return np.concatenate(xs, axis=axis)

    def vjp(self, ct: Any, y: Any, *xs: Any, axis: int) -> Any:
        parts, at = [], 0
        for x in xs:
            start = tuple(at if a == axis and x.shape[axis] else 0 for a in range(len(x.shape)))
            parts.append(slice_(ct, start=start, size=tuple(x.shape), step=(1,) * len(x.shape)))
            at += x.shape[axis]
        return tuple(parts)


class Iota(Primitive):
    """0, 1, 2, ... along one axis."""

    name = "iota"
    kind = "shape"
    moves = True
    samples = [{"shapes": [], "params": {"shape": (2, 3), "axis": 1, "dtype": np.dtype(np.float64)}, "order": 0}]

    def aval(self, *, shape: Ints, axis: int, dtype: np.dtype[Any]) -> Aval:  # type: ignore[override]
        return Aval(shape, dtype)

    def eager(self, *, shape: Ints, axis: int, dtype: np.dtype[Any]) -> Any:
        line = np.arange(shape[axis]).astype(dtype)
        return np.broadcast_to(line.reshape([-1 if a == axis else 1 for a in range(len(shape))]), shape)


broadcast, reshape, transpose, turn, slice_ = Broadcast(), Reshape(), Transpose(), Turn(), Slice()
pad, concat, iota = Pad(), Concat(), Iota()
