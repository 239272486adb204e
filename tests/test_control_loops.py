"""`while_loop`, `scan`, `fori_loop` and `map`: every kind of carry, no rounds, NaN."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from control_checks import ROWS, WEIGHTS, X, check

import tracegrad as tg


def newton(a: Any) -> Any:
    return tg.while_loop(lambda x: np.abs(x * x - a) > 1e-12, lambda x: 0.5 * (x + a / x), a)


@pytest.mark.parametrize("a", [2.0, 9.0, 1.0, 123.0])
def test_while_loop_of_unknown_length(a: float) -> None:
    """a = 1 makes no round at all: the result is the argument."""
    x = np.float64(a)
    while abs(x * x - a) > 1e-12:
        x = 0.5 * (x + a / x)
    check(newton, np.float64(a), order=0, expected=x)
    expected = 1.0 if a == 1.0 else 0.5 / np.sqrt(a)
    for way in (nullcontext, tg.eager):
        with way():
            np.testing.assert_allclose(tg.grad(newton)(a), expected, rtol=1e-9)


def test_while_loop_with_carries_of_every_kind() -> None:
    def fn(x: Any, k: Any) -> Any:
        def body(c: Any) -> Any:
            return {
                "i": c["i"] + 1,
                "x": c["x"] * k + np.sin(c["x"]),
                "odd": ~c["odd"],
                "n": c["n"] * np.int32(3),
                "h": c["h"],
            }

        init = {"i": 0, "x": x, "odd": np.bool_(False), "n": np.int32(1), "h": k}
        return tg.while_loop(lambda c: (c["i"] < 5) | c["odd"], body, init)

    y = X
    for _ in range(6):
        y = y * 0.9 + np.sin(y)
    expected = {"i": np.int64(6), "x": y, "odd": np.bool_(False), "n": np.int32(729), "h": np.float64(0.9)}
    check(fn, X, np.float64(0.9), order=1, expected=expected)


def test_scan_with_everything() -> None:
    def fn(x: Any, rows: Any, w: Any) -> Any:
        def step(c: Any, r: Any) -> Any:
            state, count = c
            state = np.tanh(w @ state + r["a"]) * r["s"]
            return (state, count + 1), {"y": state * 2.0, "n": count, "c": c[0]}

        return tg.scan(step, (x, 0), {"a": rows, "s": rows[:, 0]})

    state, ys, cs = X, [], []
    for r in ROWS:
        cs.append(state)
        state = np.tanh(WEIGHTS @ state + r) * r[0]
        ys.append(state * 2.0)
    ns = np.arange(4)
    check(fn, X, ROWS, WEIGHTS, expected=((state, np.int64(4)), {"y": np.stack(ys), "n": ns, "c": np.stack(cs)}))


def test_scan_in_reverse_keeps_the_places_of_its_slices() -> None:
    def fn(x: Any, rows: Any) -> Any:
        return tg.scan(lambda c, r: (c * r + 1.0, c - r), x, rows, reverse=True)

    c, ys = X, [X] * 4
    for i in (3, 2, 1, 0):
        c, ys[i] = c * ROWS[i] + 1.0, c - ROWS[i]
    check(fn, X, ROWS, expected=(c, np.stack(ys)))


def test_loops_of_no_rounds() -> None:
    empty = np.zeros((0, 3))
    check(lambda x, rows: tg.scan(lambda c, r: (c * r, c + r), x, rows), X, empty, expected=(X, empty))
    check(lambda x: tg.fori_loop(3, 3, lambda i, c: c * 2.0, x), X, expected=X)
    check(lambda x, n: tg.fori_loop(0, n, lambda i, c: c * 2.0, x), X, np.int64(0), order=1, expected=X)
    check(lambda x: tg.while_loop(lambda c: np.sum(c) > 100.0, lambda c: c * c, x), X, order=1, expected=X)
    check(lambda x: tg.map(np.sin, x), np.zeros(0), expected=np.zeros(0))


def test_one_round() -> None:
    check(
        lambda x, rows: tg.scan(lambda c, r: (c * r, c + r), x, rows),
        X,
        ROWS[:1],
        expected=(X * ROWS[0], X[None] + ROWS[:1]),
    )


def test_scan_without_slices_and_without_carry() -> None:
    check(
        lambda x: tg.scan(lambda c, _: (c * 0.5, c), x, None, length=3),
        X,
        expected=(X / 8, np.stack([X, X / 2, X / 4])),
    )
    check(lambda rows: tg.map(lambda r: (np.sum(r), r[0] > 0.0), rows), ROWS, expected=(ROWS.sum(1), ROWS[:, 0] > 0.0))


def test_fori_loop_with_static_and_traced_limits() -> None:
    def expected(n: int) -> Any:
        c = X
        for i in range(2, n):
            c = np.sin(c) * i
        return c

    check(lambda x: tg.fori_loop(2, 6, lambda i, c: np.sin(c) * i, x), X, expected=expected(6))
    check(lambda x, n: tg.fori_loop(2, n, lambda i, c: np.sin(c) * i, x), X, np.int64(5), order=1, expected=expected(5))


def test_carries_that_trade_places() -> None:
    """No carry can be updated in place here: each is read after it would have been overwritten."""

    def fn(a: Any, b: Any) -> Any:
        return tg.scan(lambda c, _: ((c[1], c[0] * 2.0, c[0] + c[2]), c[2]), (a, b, a * b), None, length=5)

    a, b, c, ys = X, X[::-1].copy(), X * X[::-1], []
    for _ in range(5):
        ys.append(c)
        a, b, c = b, a * 2.0, a + c
    check(fn, X, X[::-1].copy(), expected=((a, b, c), np.stack(ys)))


def test_a_carry_that_is_permuted_or_reduced() -> None:
    def fn(x: Any) -> Any:
        return tg.fori_loop(0, 4, lambda i, c: c[::-1] + np.cumsum(c) * 0.5 - np.max(c), x)

    y = X
    for _ in range(4):
        y = y[::-1] + np.cumsum(y) * 0.5 - np.max(y)
    check(fn, X, expected=y)
    check(lambda m: tg.fori_loop(0, 3, lambda i, c: c.T @ c * 0.3, m), WEIGHTS)


def test_a_constant_carry_and_a_carry_that_becomes_one() -> None:
    check(lambda x: tg.scan(lambda c, _: ((c[0], c[0]), c[1]), (x, x * 2.0), None, length=3), X)
    check(lambda x: tg.scan(lambda c, _: (np.zeros(3), c), x, None, length=3), X)


def test_nan_carries() -> None:
    def fn(x: Any) -> Any:
        return tg.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, np.log(c[1])), (0, x))[1]

    for way in (nullcontext, tg.eager):
        with way():
            assert np.isnan(tg.jit(fn)(-1.0))
            assert np.isnan(tg.grad(fn)(-1.0))
    assert np.isnan(tg.jit(lambda x: tg.while_loop(lambda c: c < 10.0, lambda c: c * 2.0, x))(np.nan))
