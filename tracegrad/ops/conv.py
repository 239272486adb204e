"""Convolutions (cross-correlations) over 1 to 3 spatial axes, channels first: x [N, C, *S], w [O, C/groups, *K].

    y[n, o, p] = sum_{c, k} x[n, c, p * stride + k * dilation - low] w[o, c, k]

y = conv(x, w) is linear in x and in w, so <ct, conv(x, w)> = <conv_dx(ct, w), x> = <conv_dw(x, ct), w>. Each of the
three is the vjp of the other two: the family is closed at every order.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegrad.errors import DTypeError, ShapeError
from tracegrad.ir.aval import Aval, is_float
from tracegrad.ir.primitive import Primitive

Ints = tuple[int, ...]
Padding = tuple[tuple[int, int], ...]


def out_size(n: int, k: int, stride: int, pad: tuple[int, int], dilation: int) -> int:
    """Return the number of positions of a window along one axis."""
    return (n + pad[0] + pad[1] - dilation * (k - 1) - 1) // stride + 1


def out_sizes(size: Ints, kernel: Ints, stride: Ints, padding: Padding, dilation: Ints) -> Ints:
    return tuple(out_size(*a) for a in zip(size, kernel, stride, padding, dilation, strict=True))


def pad_spatial(x: Any, padding: Padding) -> Any:
    return np.pad(x, [(0, 0), (0, 0), *padding]) if any(map(any, padding)) else x


def windows(x: Any, kernel: Ints, out: Ints, stride: Ints, dilation: Ints) -> Any:
    """Return the view [N, C, *out, *kernel] of a padded x."""
    steps = x.strides[2:]
    outer = [s * d for s, d in zip(steps, stride, strict=True)]
    inner = [s * d for s, d in zip(steps, dilation, strict=True)]
    shape = (*x.shape[:2], *out, *kernel)
    return np.lib.stride_tricks.as_strided(x, shape, (*x.strides[:2], *outer, *inner), writeable=False)


def samples(kinds: str) -> list[dict[str, Any]]:
    """Geometries for the tests; `kinds` names the two operands among x, w, y."""
    found = []
    for size, kernel, stride, padding, dilation, groups in [
        ((6,), (3,), (1,), ((0, 0),), (1,), 1),
        ((7,), (2,), (2,), ((1, 2),), (2,), 2),
        ((5, 6), (3, 2), (1, 1), ((1, 1), (0, 1)), (1, 1), 1),
        ((6, 5), (3, 3), (2, 2), ((1, 0), (1, 1)), (1, 1), 1),
        ((5, 5), (2, 2), (1, 2), ((0, 0), (1, 1)), (2, 1), 2),
        ((3, 4, 3), (2, 2, 1), (1, 2, 1), ((0, 0), (1, 0), (0, 0)), (1, 1, 1), 1),
    ]:
        shapes = {
            "x": (2, 2, *size),
            "w": (4, 2 // groups, *kernel),
            "y": (2, 4, *out_sizes(size, kernel, stride, padding, dilation)),
        }
        params: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        if "x" not in kinds:
            params["size"] = size
        if "w" not in kinds:
            params["kernel"] = kernel
        found.append({"shapes": [shapes[k] for k in kinds], "params": params, "dtype": np.float64})
    return found


def check(x: Aval, w: Aval, stride: Ints, padding: Padding, dilation: Ints, groups: int) -> Ints:
    """Check a geometry and return the spatial sizes of the result."""
    name = f"conv{x.ndim - 2}d"
    if x.ndim != w.ndim or x.ndim not in (3, 4, 5):
        raise ShapeError(
            f"{name}: x {x} and w {w} must both have 3, 4 or 5 axes", fix="x is [N, C, ...], w is [O, C, ...]"
        )
    if x.dtype != w.dtype or not is_float(x.dtype):
        raise DTypeError(
            f"{name}: x {x} and w {w} must have one floating-point dtype", fix="convert with x.astype(...)"
        )
    if groups < 1 or x.shape[1] % groups or w.shape[0] % groups:
        raise ShapeError(
            f"{name}: groups={groups} does not divide the channels of x {x} and w {w}",
            fix="choose channel counts that are multiples of groups",
        )
    if x.shape[1] != w.shape[1] * groups:
        raise ShapeError(
            f"{name}: x {x} has {x.shape[1]} channels but w {w} expects {w.shape[1] * groups}",
            fix="check in_channels, or transpose x to channels first",
        )
    if min(stride) < 1 or min(dilation) < 1 or min(min(p) for p in padding) < 0 or min(w.shape[2:]) < 1:
        raise ShapeError(
            f"{name}: x {x} by w {w}: stride {stride}, dilation {dilation} and the kernel's sizes must be positive, "
            f"padding {padding} not negative",
            fix="use stride=1, dilation=1, padding=0, and change one at a time",
        )
    out = out_sizes(x.shape[2:], w.shape[2:], stride, padding, dilation)
    if min(out) < 1:
        raise ShapeError(
            f"{name}: the kernel of w {w} (dilation {dilation}) is larger than x {x} padded by {padding}",
            fix="use a smaller kernel or more padding: size + low + high must reach dilation * (kernel - 1) + 1",
        )
    return out


class Conv(Primitive):
    """y = conv(x, w)."""

    name = "conv"
    kind = "contract"
    costly = 1
    samples = samples("xw")

    def aval(self, x: Aval, w: Aval, *, stride: Ints, padding: Padding, dilation: Ints, groups: int) -> Aval:  # type: ignore[override]
        out = check(x, w, stride, padding, dilation, groups)
        return x.with_shape((x.shape[0], w.shape[0], *out))

    def eager(self, x: Any, w: Any, *, stride: Ints, padding: Padding, dilation: Ints, groups: int) -> Any:
        kernel = w.shape[2:]
        out = out_sizes(x.shape[2:], kernel, stride, padding, dilation)
        view = windows(pad_spatial(x, padding), kernel, out, stride, dilation)
        spatial = len(kernel)
        axes = ([1, *range(2 + spatial, 2 + 2 * spatial)], [1, *range(2, 2 + spatial)])
        parts = zip(np.split(view, groups, axis=1), np.split(w, groups, axis=0), strict=True)
        found = np.concatenate([np.tensordot(v, k, axes) for v, k in parts], axis=-1)
        return np.ascontiguousarray(np.moveaxis(found, -1, 1))

    def vjp(self, ct: Any, y: Any, x: Any, w: Any, **params: Any) -> Any:
        return self.vjp_of((True, True), ct, y, x, w, **params)

    def vjp_of(self, needed: Sequence[bool], ct: Any, y: Any, x: Any, w: Any, **params: Any) -> Any:
        dx = conv_dx(ct, w, **params, size=tuple(x.shape[2:])) if needed[0] else None
        return dx, conv_dw(x, ct, **params, kernel=tuple(w.shape[2:])) if needed[1] else None


class ConvDx(Primitive):
    """The cotangent of x: every element of ct is spread over the window it came from."""

    name = "conv_dx"
    kind = "contract"
    costly = 1
    samples = samples("yw")

    def aval(  # type: ignore[override]
        self, ct: Aval, w: Aval, *, stride: Ints, padding: Padding, dilation: Ints, groups: int, size: Ints
    ) -> Aval:
        x = ct.with_shape((ct.shape[0], w.shape[1] * groups, *size))
        out = check(x, w, stride, padding, dilation, groups)
        if ct.shape != (ct.shape[0], w.shape[0], *out):
            raise ShapeError(f"conv_dx: ct {ct} does not fit w {w} and an input of sizes {size}")
        return x

    def eager(self, ct: Any, w: Any, *, stride: Ints, padding: Padding, dilation: Ints, groups: int, size: Ints) -> Any:
        channels = w.shape[1]
        padded: Any = np.zeros(
            (ct.shape[0], channels * groups, *(n + a + b for n, (a, b) in zip(size, padding, strict=True))), ct.dtype
        )
        parts: Any = zip(np.split(ct, groups, 1), np.split(w, groups, 0), strict=True)
        for g, (part, weights) in enumerate(parts):
            view = padded[:, g * channels : (g + 1) * channels]
            for tap in itertools.product(*map(range, w.shape[2:])):
                place = tap_slices(tap, ct.shape[2:], stride, dilation)
                spread = np.tensordot(part, weights[..., *tap], axes=([1], [0]))
                view[..., *place] += np.moveaxis(spread, -1, 1)
        inner = tuple(slice(a, a + n) for n, (a, _) in zip(size, padding, strict=True))
        return np.ascontiguousarray(padded[(slice(None), slice(None), *inner)])

    def vjp(self, g: Any, y: Any, ct: Any, w: Any, *, size: Ints, **params: Any) -> Any:  # type: ignore[override]
        return conv(g, w, **params), conv_dw(g, ct, **params, kernel=tuple(w.shape[2:]))


class ConvDw(Primitive):
    """The cotangent of w: x under every tap, contracted with ct over batch and positions."""

    name = "conv_dw"
    kind = "contract"
    costly = 1
    samples = samples("xy")

    def aval(  # type: ignore[override]
        self, x: Aval, ct: Aval, *, stride: Ints, padding: Padding, dilation: Ints, groups: int, kernel: Ints
    ) -> Aval:
        w = x.with_shape((ct.shape[1], x.shape[1] // groups, *kernel))
        out = check(x, w, stride, padding, dilation, groups)
        if ct.shape != (x.shape[0], ct.shape[1], *out):
            raise ShapeError(f"conv_dw: ct {ct} does not fit x {x} and a kernel of sizes {kernel}")
        return w

    def eager(
        self, x: Any, ct: Any, *, stride: Ints, padding: Padding, dilation: Ints, groups: int, kernel: Ints
    ) -> Any:
        view = windows(pad_spatial(x, padding), kernel, ct.shape[2:], stride, dilation)
        over = [0, *range(2, 2 + len(kernel))]
        parts = zip(np.split(ct, groups, 1), np.split(view, groups, 1), strict=True)
        return np.concatenate([np.tensordot(c, v, axes=(over, over)) for c, v in parts], axis=0)

    def vjp(self, g: Any, y: Any, x: Any, ct: Any, *, kernel: Ints, **params: Any) -> Any:  # type: ignore[override]
        return conv_dx(ct, g, **params, size=tuple(x.shape[2:])), conv(x, g, **params)


def tap_slices(tap: Ints, out: Ints, stride: Ints, dilation: Ints) -> tuple[slice, ...]:
    """Return where one tap of every window lies in the padded input."""
    rows = zip(tap, out, stride, dilation, strict=True)
    return tuple(slice(t * d, t * d + (n - 1) * s + 1, s) for t, n, s, d in rows)


conv, conv_dx, conv_dw = Conv(), ConvDx(), ConvDw()
