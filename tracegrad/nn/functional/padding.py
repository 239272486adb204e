"""Padding with constants, or with copies of an array's own elements."""

from __future__ import annotations

from typing import Any

import numpy as np

import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.ops import shape as shapes
from tracegrad.ops.shape import concat, flip, slice_

PADDING_MODES = ("zeros", "circular", "reflect", "replicate")


def pairs(around: tuple[tuple[int, int], ...]) -> tuple[int, ...]:
    """Return widths in the order of `pad`: last axis first."""
    return tuple(width for axis in reversed(around) for width in axis)


def pad(input: Any, pad: tuple[int, ...], mode: str = "constant", value: float = 0.0) -> Any:
    """Return x with `pad` = (low, high) of the last axis, then of the one before it, and so on.

    Modes: "constant" (or "zeros"), "circular", "reflect", "replicate". Negative widths crop, in constant mode only.

    >>> pad(np.array([1.0, 2.0, 3.0]), (1, 2), "circular").tolist()
    [3.0, 1.0, 2.0, 3.0, 1.0, 2.0]
    """
    x = tnp.asarray(input)
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise ShapeError(
            f"pad: {len(pad)} widths do not fit an array of shape {tuple(x.shape)}", fix="pass 2 for each axis"
        )
    if mode not in (*PADDING_MODES, "constant"):
        raise ArgumentError(
            f"pad: mode={mode!r} is not known", fix='use "constant", "circular", "reflect" or "replicate"'
        )
    widths = {x.ndim - 1 - i: (int(pad[2 * i]), int(pad[2 * i + 1])) for i in range(len(pad) // 2)}
    if mode in ("constant", "zeros"):
        return pad_constant(x, widths, value)
    for axis, (low, high) in widths.items():
        if (low, high) != (0, 0):
            x = pad_axis(x, axis, low, high, mode)
    return x


def pad_constant(x: Any, widths: dict[int, tuple[int, int]], value: float) -> Any:
    """Crop by the negative widths, then add the others."""
    for axis, (low, high) in widths.items():
        if low < 0 or high < 0:
            x = cut(x, axis, max(0, -low), x.shape[axis] - max(0, -high))
    lows = tuple(max(0, widths.get(a, (0, 0))[0]) for a in range(x.ndim))
    highs = tuple(max(0, widths.get(a, (0, 0))[1]) for a in range(x.ndim))
    if not any((*lows, *highs)):
        return x
    gap = (0,) * x.ndim
    padded = shapes.pad(x, low=lows, high=highs, gap=gap)
    if value == 0.0:
        return padded
    inside = shapes.pad(tnp.ones_like(x), low=lows, high=highs, gap=gap) != 0
    return tnp.where(inside, padded, value)


def cut(x: Any, axis: int, start: int, stop: int) -> Any:
    """Return x[start:stop] along one axis."""
    if not 0 <= start < stop <= x.shape[axis]:
        raise ShapeError(f"pad: the widths crop axis {axis} of shape {tuple(x.shape)} to nothing", fix="crop less")
    size = tuple(stop - start if a == axis else n for a, n in enumerate(x.shape))
    return slice_(x, start=tuple(start if a == axis else 0 for a in range(x.ndim)), size=size, step=(1,) * x.ndim)


def pad_axis(x: Any, axis: int, low: int, high: int, mode: str) -> Any:
    """Extend one axis by copies of its own elements."""
    n = x.shape[axis]
    limit = {"circular": n, "reflect": n - 1, "replicate": np.inf if n else 0}[mode]
    if min(low, high) < 0 or max(low, high) > limit:
        raise ShapeError(
            f"pad: widths ({low}, {high}) do not fit axis {axis} of shape {tuple(x.shape)} in mode {mode!r}",
            fix=f"use widths from 0 to {limit}",
        )
    parts = []
    match mode:
        case "circular":
            parts = [cut(x, axis, n - low, n)] if low else []
            parts += [x, cut(x, axis, 0, high)] if high else [x]
        case "reflect":
            parts = [flip(cut(x, axis, 1, low + 1), [axis])] if low else []
            parts += [x, flip(cut(x, axis, n - 1 - high, n - 1), [axis])] if high else [x]
        case "replicate":
            parts = [tnp.repeat(cut(x, axis, 0, 1), low, axis=axis)] if low else []
            parts += [x, tnp.repeat(cut(x, axis, n - 1, n), high, axis=axis)] if high else [x]
    return concat(*parts, axis=axis)
