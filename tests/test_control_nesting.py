"""Loops and branches inside one another; closures; library kernels and threads inside of bodies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiled import Batch, avals, graph_of
from control_checks import ROWS, X, assert_same, check

import tracegrad as tg
from tracegrad.grad.adjoint import joint
from tracegrad.nn.functional import conv2d
from tracegrad.runtime.program import build
from tracegrad.schedule.plan import Region
from tracegrad.trace import trace


def test_scan_in_scan() -> None:
    def fn(x: Any, rows: Any) -> Any:
        def inner(c: Any, r: Any) -> Any:
            return np.sin(c) * r, c * r

        def outer(c: Any, row: Any) -> Any:
            last, ys = tg.scan(inner, c, row)
            return last + 0.1 * c, np.sum(ys) * x[0]

        return tg.scan(outer, x[1], rows)

    check(fn, X, ROWS)


def test_cond_in_scan() -> None:
    def fn(x: Any, rows: Any) -> Any:
        return tg.scan(
            lambda c, r: (tg.cond(r[0] > 0.3, lambda v: np.sin(v) * r, lambda v: v + x, c), np.sum(c)), x, rows
        )

    check(fn, X, ROWS)


def test_while_in_scan() -> None:
    def fn(x: Any, rows: Any) -> Any:
        def step(c: Any, r: Any) -> Any:
            found = tg.while_loop(lambda v: np.sum(v * v) < 9.0, lambda v: v * 1.7 + r, c)
            return found * 0.3, np.sum(found)

        return tg.scan(step, x, rows)

    check(fn, X, ROWS, order=1)


@pytest.mark.parametrize("go", [True, False])
def test_scan_in_cond_in_while(go: bool) -> None:
    def fn(x: Any, rows: Any, go: Any) -> Any:
        def body(c: Any) -> Any:
            i, v = c
            swept = lambda u: tg.scan(lambda a, r: (np.tanh(a * r), None), u, rows)[0]
            return i + 1, tg.cond(go & (i < 2), swept, lambda u: u * 0.5, v)

        return tg.while_loop(lambda c: c[0] < 4, body, (0, x))[1]

    check(fn, X, ROWS, np.bool_(go), order=1)


def test_while_in_while() -> None:
    def fn(x: Any) -> Any:
        def body(c: Any) -> Any:
            inner = tg.while_loop(lambda v: v[1] < v[0], lambda v: (v[0], v[1] * 1.9), (c, x * 0.01))
            return inner[0] * 0.7 + 0.01 * inner[1]

        return tg.while_loop(lambda c: c > 0.4, body, x)

    check(fn, np.float64(3.0), order=1)


def test_closures_over_traced_values_and_arrays() -> None:
    table = np.array([1.0, 2.0, 3.0])

    def fn(x: Any, k: Any) -> Any:
        scale = np.sin(k)
        return tg.fori_loop(0, 3, lambda i, c: c * scale + table * tg.numpy.asarray(table)[i] + x, x)

    f = tg.jit(fn)
    y = X
    for i in range(3):
        y = y * np.sin(0.5) + table * table[i] + X
    assert_same(f(X, 0.5), y)
    check(fn, X, np.float64(0.5))
    table[:] = 0.0
    y = X
    for _ in range(3):
        y = y * np.sin(0.5) + X
    assert_same(f(X, 0.5), y)


def test_the_argument_is_not_written_to() -> None:
    x, rows = X.copy(), ROWS.copy()
    tg.jit(lambda a, r: tg.scan(lambda c, v: (c + v, c), a, r))(x, rows)
    tg.jit(lambda a: tg.while_loop(lambda c: np.sum(c) < 50.0, lambda c: c + 1.0, a))(x)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(rows, ROWS)


def test_large_kernels_in_a_body_use_the_pool() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 500)).astype(np.float32)
    fn = lambda v: tg.scan(lambda c, _: (np.tanh(c) + 0.1, np.sum(c, axis=0)), v, None, length=4)
    last, sums = tg.jit(fn)(x)
    expected = x
    for i in range(4):
        np.testing.assert_allclose(sums[i], expected.sum(0), rtol=1e-3, atol=1e-3)
        expected = np.tanh(expected) + np.float32(0.1)
    np.testing.assert_allclose(last, expected, rtol=1e-5, atol=1e-6)


def test_gemm_and_conv_in_a_body() -> None:
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((70, 70)) * 0.1, rng.standard_normal((50, 70))
    check_values_and_gradients(lambda x, w: tg.fori_loop(0, 3, lambda i, c: np.tanh(c @ w), x), x, w)
    k, image = rng.standard_normal((4, 4, 3, 3)) * 0.2, rng.standard_normal((2, 4, 9, 9))
    conv = lambda c, k: conv2d(c, k, padding=1)
    check_values_and_gradients(lambda x, k: tg.fori_loop(0, 3, lambda i, c: np.tanh(conv(c, k)), x), image, k)


def check_values_and_gradients(fn: Callable[..., Any], *args: Any) -> None:
    traced = trace(lambda *xs: np.sum(fn(*xs) ** 2), avals(args))
    batch = Batch()
    batch.add(joint(traced.graph, range(len(args))), [*args, *traced.captures])
    batch.compare(1e-9, 1e-10)


def test_steps_do_not_grow_with_the_length() -> None:
    def steps(length: int) -> tuple[int, int]:
        def fn(x: Any) -> Any:
            return np.sum(tg.scan(lambda c, _: (np.sin(c) * 0.5 + x, None), x, None, length=length)[0])

        plan, _ = build(joint(graph_of(fn, X), (0,))).planned()
        inner = [p for step in plan.steps if isinstance(step, Region) for p in step.plans]
        return len(plan.steps), sum(len(p.steps) for p in inner)

    assert steps(10) == steps(10_000)
    last = tg.jit(lambda x: tg.fori_loop(0, 10_000, lambda i, c: c + 1.0, x))(0.0)
    assert last == 10_000.0


def test_a_long_gradient_through_a_loop_of_unknown_length() -> None:
    """The tapes grow several times."""
    fn = lambda x: tg.while_loop(lambda c: c[0] < 5000, lambda c: (c[0] + 1, np.sin(c[1]) + 0.5), (0, x))[1]
    scanned = lambda x: tg.fori_loop(0, 5000, lambda i, c: np.sin(c) + 0.5, x)
    assert_same(tg.value_and_grad(fn)(0.3), tg.value_and_grad(scanned)(0.3))
