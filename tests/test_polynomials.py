"""Polynomials and other newer names: second derivatives, running extrema, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError, DTypeError, ShapeError
from tracegrad.testing import check_grads

RNG = np.random.default_rng(2)
X = np.linspace(0.0, 1.0, 6)
Y = RNG.normal(size=6)
N = np.array([[1.0, np.nan, 2.5, 0.3], [4.0, 0.5, -1.0, np.nan]])

SECOND: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "polyfit": (lambda x, y: np.polyfit(x, y, 2), (X, Y)),
    "polymul": (lambda x, y: np.polymul(x, np.polyint(np.polyder(y, 2))), (X, Y)),
    "running": (lambda x, y: np.maximum.accumulate(x * y) * np.minimum.accumulate(y), (X, Y)),
    "unwrap": (lambda x, y: np.unwrap(9.0 * y) * x, (X, Y)),
    "quantile": (lambda x, y: np.nanquantile(np.where(x > 0.5, np.nan, y * x), [0.2, 0.7]) ** 2, (X, Y)),
    "geomspace": (lambda x, y: np.geomspace(x[1:3], 2.0, 4) * y[0], (X, Y)),
}


@pytest.mark.parametrize(("fn", "operands"), SECOND.values(), ids=SECOND)
def test_second_derivatives(fn: Callable[..., Any], operands: tuple[Any, ...]) -> None:
    check_grads(fn, operands, order=2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("x", [Y, N, N.astype(np.float32), np.array([3, -1, 7, 2]), np.array([False, True, False])])
def test_running_extrema(x: Any) -> None:
    both = lambda x: (np.maximum.accumulate(x), np.minimum.accumulate(x, axis=-1))
    for ours, theirs in zip(tg.jit(both)(x), both(x), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: np.polyfit(x, x[:2], 1), ShapeError, "polyfit at .*: f64.6. and f64.2. are not points"),
        (lambda x: np.polyfit(x, x, -1), ArgumentError, "the degree -1 is negative"),
        (lambda x: np.polyfit(x, x, 1, w=x[1:]), ShapeError, "the weights f64.5. do not fit f64.6."),
        (lambda x: np.polyder(x, -1), ArgumentError, "polyder at .*: m=-1 is negative"),
        (lambda x: np.polyint(x, 2, k=x), ShapeError, "are not 2 constants"),
        (lambda x: np.polyadd(x, x[None]), ShapeError, "are not a vector"),
        (lambda x: np.nanquantile(x, 0.5, method="lower"), ArgumentError, "method='lower' is not supported"),
        (lambda x: np.nanmedian(x[:0]), ShapeError, "has no element"),
        (lambda x: np.unravel_index(x, (2, 3)), DTypeError, "unravel_index at .*: f64.6. is not integer"),
        (lambda x: np.ix_(x > 0, x > 1), DTypeError, "is a mask, which is not known"),
        (lambda x: tnp.ravel_multi_index((tnp.argmax(x),), (2, 3)), ShapeError, "1 indices for 2 axes"),
    ],
)
def test_refused(call: Callable[[Any], Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        tg.jit(call)(X)
