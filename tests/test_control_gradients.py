"""Loops and branches: checkpoints, unrolling, prefixes, gradients of any order, `where`, pullbacks in two halves."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from control_checks import ROWS, WAYS, X, assert_same, check

import tracegrad as tg
from tracegrad import tree


@pytest.mark.parametrize("options", [{"unroll": 3}, {"checkpoint": 2}, {"checkpoint": True}], ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_scan_in_segments_is_the_same_scan(options: dict[str, Any], reverse: bool) -> None:
    def fn(x: Any, rows: Any, **more: Any) -> Any:
        return tg.scan(lambda c, r: (np.sin(c) * r + 0.2, {"y": c * r}), x, rows, reverse=reverse, **more)

    rows = np.concatenate([ROWS, ROWS[:3] * 0.5])
    check(lambda x, r: fn(x, r, **options), X, rows, expected=fn(X, rows))


def test_checkpoints_keep_values_and_gradients() -> None:
    plain = lambda x: np.sin(np.sin(x) * x)
    check(tg.checkpoint(plain), X, expected=plain(X))
    looped = lambda x, **o: tg.while_loop(lambda c: np.sum(c) < 40.0, lambda c: c * 1.1 + 0.3, x, **o)
    check(lambda x: looped(x, checkpoint=4), X, order=1, expected=looped(X))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8])
def test_associative_scan(n: int) -> None:
    x = np.linspace(0.5, 1.5, n)
    check(lambda v: tg.associative_scan(lambda a, b: a * b, v), x, expected=np.cumprod(x))
    backwards = np.cumprod(x[::-1])[::-1]
    assert_same(tg.jit(lambda v: tg.associative_scan(lambda a, b: a * b, v, reverse=True))(x), backwards)


@pytest.mark.parametrize("way", WAYS)
def test_float32_and_weak_numbers(way: Any) -> None:
    x = np.float32(0.5)
    with way():
        found = tg.fori_loop(0, 3, lambda i, c: np.sin(c) * 2.0 + 1.0, x)
        assert found.dtype == np.float32
        assert tg.grad(lambda v: tg.fori_loop(0, 3, lambda i, c: np.sin(c) * 2.0, v))(x).dtype == np.float32


@pytest.mark.parametrize("number", [0, 1])
def test_a_loop_of_unknown_length_at_any_order(number: int) -> None:
    """Reverse over reverse adds cotangents of tapes; forward mode needs none."""
    fn = [
        lambda x: tg.while_loop(lambda c: c[1] < 50.0, lambda c: (c[0] * 1.5, c[0] * c[1] + x), (x, x))[1],
        lambda x: tg.while_loop(lambda c: c < 100.0, lambda c: c * c, x),
    ][number]
    second = tg.jacfwd(tg.jacfwd(fn))(1.3)
    third = tg.jacfwd(tg.jacfwd(tg.jacfwd(fn)))(1.3)
    numeric = (tg.grad(fn)(1.3 + 1e-6) - tg.grad(fn)(1.3 - 1e-6)) / 2e-6
    np.testing.assert_allclose(second, numeric, rtol=1e-6)
    for way in (nullcontext, tg.eager):
        with way():
            for twice in (tg.hessian(fn), tg.grad(tg.grad(fn)), tg.grad(lambda x: tg.jvp(fn, (x,), (1.0,))[1])):
                np.testing.assert_allclose(twice(1.3), second, rtol=1e-10)
            for thrice in (tg.grad(tg.grad(tg.grad(fn))), tg.jacfwd(tg.grad(tg.grad(fn)))):
                np.testing.assert_allclose(thrice(1.3), third, rtol=1e-10)


@pytest.mark.parametrize("way", WAYS)
def test_where_around_and_inside_of_control_flow(way: Any) -> None:
    x = np.array([1.0, 2.0, 16.0])

    def around(v: Any) -> Any:
        return np.sum(np.where(v < 10.0, tg.fori_loop(0, 2, lambda i, c: np.sqrt(c), v), 0.0))

    def inside(v: Any) -> Any:
        return np.sum(tg.fori_loop(0, 2, lambda i, c: np.where(c > 0.0, np.sqrt(c), 0.0), v))

    with way():
        np.testing.assert_allclose(tg.grad(around)(x), [0.25, 0.25 * 2.0**-0.75, 0.0])
        np.testing.assert_array_equal(tg.grad(inside)(np.array([1.0, 0.0, -4.0])), [0.25, 0.0, 0.0])
        np.testing.assert_array_equal(tg.jacfwd(around)(np.array([1.0, 16.0, 100.0]))[1:], [0.0, 0.0])


@pytest.mark.parametrize("kind", ["while", "scan", "cond"])
def test_vjp_in_two_halves(kind: str) -> None:
    """No tape crosses from the forward to the backward program: it lives as long as the program that made it."""
    fn = {
        "while": lambda x: tg.while_loop(lambda c: np.sum(c) < 9.0, lambda c: c * 1.5 + np.sin(c) * x + 0.5, x),
        "scan": lambda x: tg.scan(lambda c, _: (np.sin(c) * x, c), x, None, length=4),
        "cond": lambda x: tg.cond(np.sum(x) > 0.0, np.sin, np.cos, x),
    }[kind]
    y, pull = tg.vjp(fn, X)
    other, _ = tg.vjp(fn, X * 0.5)
    with tg.eager():
        expected, eager_pull = tg.vjp(fn, X)
        gradient = eager_pull(expected)
    assert_same(y, expected)
    assert_same(pull(y), gradient, rtol=1e-10)
    assert tree.flatten(other)[1] == tree.flatten(y)[1]
