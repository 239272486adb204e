"""Pooling over the trailing axes: maximum and sum of windows.

    y[p] = max_k x[p * stride + k - low]          outside x counts as -inf; the first of tied elements takes the
    gradient max_pool_pick(t, x, y)[p]  = t at the winner of window p                    <- tangent and second-order
    rule max_pool_route(ct, x, y)   = ct[p] added at the winner of window p          <- cotangent; the transpose of pick
    sum_pool and sum_pool_spread are each other's transpose.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from tracegrad.errors import DTypeError, ShapeError
from tracegrad.ir.aval import Aval, is_float
from tracegrad.ir.primitive import Primitive
from tracegrad.ops.conv import Ints, Padding, out_sizes, tap_slices

POOL_SAMPLES: list[dict[str, Any]] = [
    {"size": (2, 6), "window": (2,), "stride": (2,), "padding": ((0, 0),)},
    {"size": (2, 7), "window": (3,), "stride": (2,), "padding": ((1, 1),)},
    {"size": (1, 2, 5, 6), "window": (2, 2), "stride": (2, 2), "padding": ((0, 0), (0, 0))},
    {"size": (1, 2, 5, 5), "window": (3, 2), "stride": (1, 2), "padding": ((1, 1), (0, 1))},
]


def pool_samples(kinds: str) -> list[dict[str, Any]]:
    """Geometries for the tests; `kinds` names the operands among x and y."""
    found = []
    for s in POOL_SAMPLES:
        spatial = len(s["window"])
        lead = s["size"][:-spatial]
        out = out_sizes(s["size"][-spatial:], s["window"], s["stride"], s["padding"], (1,) * spatial)
        params = {k: s[k] for k in ("window", "stride", "padding")}
        if kinds == "y":
            params["size"] = s["size"][-spatial:]
        shapes = [s["size"] if k == "x" else (*lead, *out) for k in kinds]
        found.append({"shapes": shapes, "params": params, "dtype": np.float64})
    return found


def pooled(name: str, x: Aval, window: Ints, stride: Ints, padding: Padding) -> Aval:
    """Check a geometry and return the aval of the pooled array."""
    spatial = len(window)
    if x.ndim < spatial:
        raise ShapeError(f"{name}: {x} has fewer axes than the window {window}")
    if not is_float(x.dtype):
        raise DTypeError(f"{name}: {x} is not floating point", fix="convert it with x.astype(np.float32)")
    if min(window) < 1 or min(stride) < 1 or min(min(p) for p in padding) < 0:
        raise ShapeError(
            f"{name}: window {window} and stride {stride} must be positive, padding {padding} not negative"
        )
    if any(max(p) >= k for p, k in zip(padding, window, strict=True)):
        raise ShapeError(f"{name}: the padding {padding} must be smaller than the window {window}")
    out = out_sizes(x.shape[-spatial:], window, stride, padding, (1,) * spatial)
    if min(out) < 1:
        raise ShapeError(
            f"{name}: the window {window} is larger than {x} padded by {padding}",
            fix="use a smaller window or more padding",
        )
    return x.with_shape((*x.shape[:-spatial], *out))


def padded(x: Any, padding: Padding, fill: float) -> Any:
    widths = [(0, 0)] * (np.ndim(x) - len(padding)) + list(padding)
    return np.pad(x, widths, constant_values=fill)


def tap_index(tap: Ints, y_shape: Ints, stride: Ints) -> tuple[Any, ...]:
    out = y_shape[-len(tap) :]
    return (..., *tap_slices(tap, out, stride, (1,) * len(tap)))


def winners(x: Any, y: Any, window: Ints, stride: Ints, padding: Padding) -> Any:
    """Yield (index into the padded array, mask of the windows that this tap wins)."""
    filled = padded(x, padding, -np.inf)
    free = np.ones(y.shape, bool)
    for tap in itertools.product(*map(range, window)):
        index = tap_index(tap, y.shape, stride)
        value = filled[index]
        hit = free & ((value == y) | np.isnan(value))
        free &= ~hit
        yield index, hit


def unpad(x: Any, padding: Padding) -> Any:
    return np.ascontiguousarray(
        x[(..., *(slice(a, x.shape[i - len(padding)] - b) for i, (a, b) in enumerate(padding)))]
    )


class MaxPool(Primitive):
    name = "max_pool"
    kind = "window"
    picks = True
    costly = 1
    samples = pool_samples("x")

    def aval(self, x: Aval, *, window: Ints, stride: Ints, padding: Padding) -> Aval:  # type: ignore[override]
        return pooled("max_pool", x, window, stride, padding)

    def eager(self, x: Any, *, window: Ints, stride: Ints, padding: Padding) -> Any:
        x = np.asarray(x)
        shape = self.aval(Aval(x.shape, x.dtype), window=window, stride=stride, padding=padding).shape
        filled = padded(x, padding, -np.inf)
        out = np.full(shape, -np.inf, x.dtype)
        for tap in itertools.product(*map(range, window)):
            np.maximum(out, filled[tap_index(tap, shape, stride)], out=out)
        return out

    def vjp(self, ct: Any, y: Any, x: Any, **params: Any) -> Any:
        return max_pool_route(ct, x, y, **params)

    def jvp(self, ts: tuple[Any, ...], y: Any, x: Any, **params: Any) -> Any:
        return max_pool_pick(ts[0], x, y, **params)


class MaxPoolRoute(Primitive):
    name = "max_pool_route"
    kind = "window"
    costly = 1
    samples: list[dict[str, Any]] = []

    def aval(self, ct: Aval, x: Aval, y: Aval, *, window: Ints, stride: Ints, padding: Padding) -> Aval:  # type: ignore[override]
        if ct.shape != y.shape or y.shape != pooled("max_pool", x, window, stride, padding).shape:
            raise ShapeError(f"max_pool_route: {ct} and {y} do not fit {x}")
        return x

    def eager(self, ct: Any, x: Any, y: Any, *, window: Ints, stride: Ints, padding: Padding) -> Any:
        out = np.zeros_like(padded(x, padding, 0.0))
        for index, hit in winners(x, y, window, stride, padding):
            out[index] += np.where(hit, ct, 0)
        return unpad(out, padding)

    def vjp(self, g: Any, dx: Any, ct: Any, x: Any, y: Any, **params: Any) -> Any:  # type: ignore[override]
        return max_pool_pick(g, x, y, **params), None, None

    def jvp(self, ts: tuple[Any, ...], dx: Any, ct: Any, x: Any, y: Any, **params: Any) -> Any:  # type: ignore[override]
        return None if ts[0] is None else max_pool_route(ts[0], x, y, **params)


class MaxPoolPick(Primitive):
    name = "max_pool_pick"
    kind = "window"
    costly = 1
    samples: list[dict[str, Any]] = []

    def aval(self, t: Aval, x: Aval, y: Aval, *, window: Ints, stride: Ints, padding: Padding) -> Aval:  # type: ignore[override]
        if t.shape != x.shape or y.shape != pooled("max_pool", x, window, stride, padding).shape:
            raise ShapeError(f"max_pool_pick: {t} and {y} do not fit {x}")
        return y

    def eager(self, t: Any, x: Any, y: Any, *, window: Ints, stride: Ints, padding: Padding) -> Any:
        filled = padded(t, padding, 0.0)
        out = np.zeros_like(y)
        for index, hit in winners(x, y, window, stride, padding):
            out = np.where(hit, filled[index], out)
        return out

    def vjp(self, g: Any, dy: Any, t: Any, x: Any, y: Any, **params: Any) -> Any:  # type: ignore[override]
        return max_pool_route(g, x, y, **params), None, None

    def jvp(self, ts: tuple[Any, ...], dy: Any, t: Any, x: Any, y: Any, **params: Any) -> Any:  # type: ignore[override]
        return None if ts[0] is None else max_pool_pick(ts[0], x, y, **params)


class SumPool(Primitive):
    name = "sum_pool"
    kind = "window"
    costly = 1
    linear = True
    samples = pool_samples("x")

    def aval(self, x: Aval, *, window: Ints, stride: Ints, padding: Padding) -> Aval:  # type: ignore[override]
        return pooled("sum_pool", x, window, stride, padding)

    def eager(self, x: Any, *, window: Ints, stride: Ints, padding: Padding) -> Any:
        x = np.asarray(x)
        shape = self.aval(Aval(x.shape, x.dtype), window=window, stride=stride, padding=padding).shape
        filled = padded(x, padding, 0.0)
        out = np.zeros(shape, x.dtype)
        for tap in itertools.product(*map(range, window)):
            out += filled[tap_index(tap, shape, stride)]
        return out

    def vjp(self, ct: Any, y: Any, x: Any, *, window: Ints, stride: Ints, padding: Padding) -> Any:
        size = tuple(x.shape[-len(window) :])
        return sum_pool_spread(ct, window=window, stride=stride, padding=padding, size=size)


class SumPoolSpread(Primitive):
    name = "sum_pool_spread"
    kind = "window"
    costly = 1
    linear = True
    samples = pool_samples("y")

    def aval(self, ct: Aval, *, window: Ints, stride: Ints, padding: Padding, size: Ints) -> Aval:  # type: ignore[override]
        x = ct.with_shape((*ct.shape[: ct.ndim - len(size)], *size))
        if pooled("sum_pool", x, window, stride, padding).shape != ct.shape:
            raise ShapeError(f"sum_pool_spread: {ct} does not fit sizes {size}")
        return x

    def eager(self, ct: Any, *, window: Ints, stride: Ints, padding: Padding, size: Ints) -> Any:
        ct = np.asarray(ct)
        wide = tuple(n + a + b for n, (a, b) in zip(size, padding, strict=True))
        out = np.zeros((*ct.shape[: ct.ndim - len(size)], *wide), ct.dtype)
        for tap in itertools.product(*map(range, window)):
            out[tap_index(tap, ct.shape, stride)] += ct
        return unpad(out, padding)

    def vjp(self, g: Any, dx: Any, ct: Any, *, window: Ints, stride: Ints, padding: Padding, size: Ints) -> Any:  # type: ignore[override]
        return sum_pool(g, window=window, stride=stride, padding=padding)


max_pool, max_pool_route, max_pool_pick = MaxPool(), MaxPoolRoute(), MaxPoolPick()
sum_pool, sum_pool_spread = SumPool(), SumPoolSpread()
