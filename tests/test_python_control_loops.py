"""Loops written in Python: any trip count in one program, zero rounds, NaN, large bodies, operators outside jit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.runtime.program import build
from tracegrad.schedule.plan import Plan, Region

pytest.importorskip("malt")


def doubled(x: Any) -> Any:
    y = 2 * x
    while np.linalg.norm(y) < 1000:
        y = 2 * y
    return y


def test_seed_case_pulled_back_for_a_thousand_inputs_with_one_trace() -> None:
    """y = 2 x is doubled i times until its norm is 1000 or more: the cotangent v becomes v 2^(i + 1)."""
    pulled = tg.grad(lambda x, v: np.sum(doubled(x) * v))
    rng, trips = np.random.default_rng(3), set()
    for _ in range(1000):
        x = rng.standard_normal(3) * 10.0 ** rng.uniform(-4.0, 4.0)
        v = rng.standard_normal(3)
        i, y = 0, 2 * x
        while np.linalg.norm(y) < 1000:
            i, y = i + 1, 2 * y
        trips.add(i)
        np.testing.assert_array_equal(pulled(x, v), v * 2.0 ** (i + 1))
    assert len(trips) > 20
    assert pulled.traces == 1


def kernels(plan: Plan) -> int:
    return len(plan.steps) + sum(kernels(p) for s in plan.steps if isinstance(s, Region) for p in s.plans)


def test_the_program_does_not_grow_with_the_trip_count() -> None:
    def rounds(n: int) -> Callable[[Any], Any]:
        def fn(x: Any) -> Any:
            for i in range(n):
                x = np.sin(x) + 0.1 * i
                if x > 10.0 * n:
                    break
            return x

        return fn

    lowered = [tg.value_and_grad(rounds(n)).lower(0.3) for n in (7, 7000)]
    few, many = (kernels(build(found.graph).planned()[0]) for found in lowered)
    assert few == many
    expected = 0.3
    for i in range(7000):
        expected = np.sin(expected) + 0.1 * i
    np.testing.assert_allclose(tg.jit(rounds(7000))(0.3), expected, rtol=1e-12)


def test_a_loop_with_a_body_of_thirty_operations() -> None:
    def fn(x: Any) -> Any:
        n = 0
        while n < 5 and abs(x) < 100.0:
            y = x
            for i in range(10):
                y = np.sin(y) * 0.5 + x * (0.1 + 0.01 * i)
            x = y + 0.3
            n += 1
        return x

    np.testing.assert_allclose(tg.jit(fn)(0.7), fn(0.7), rtol=1e-13)
    numeric = (fn(0.7 + 1e-6) - fn(0.7 - 1e-6)) / 2e-6
    np.testing.assert_allclose(tg.grad(fn)(0.7), numeric, rtol=1e-8)


def test_zero_rounds() -> None:
    def fn(x: Any, n: Any) -> Any:
        y = x * x
        for i in range(n):
            y = y * x + i
        while y < 0:
            y = y + 1.0
        return y

    assert tg.value_and_grad(fn)(3.0, 0) == (9.0, 6.0)
    assert tg.value_and_grad(fn)(3.0, 2) == (9.0 * 9.0 + 1.0, 4 * 27.0)


def test_nan_is_carried_and_compares_false() -> None:
    def fn(x: Any) -> Any:
        n = 0
        while x < 10.0:
            x = np.log(x)
            n += 1
        return x, n

    value, rounds = tg.jit(fn)(-1.0)
    assert np.isnan(value) and rounds == 1
    value, rounds = tg.jit(fn)(np.nan)
    assert np.isnan(value) and rounds == 0
    assert tg.grad(lambda x: fn(x)[0])(-1.0) == -1.0


def test_functions_with_python_control_flow_are_given_to_the_operators_outside_jit() -> None:
    rows = np.array([1.0, -2.0, 3.0])

    def step(c: Any, x: Any) -> Any:
        if x > 0:
            c = c + x
        return c, c

    last, each = tg.scan(step, 0.0, rows)
    assert last == 4.0
    np.testing.assert_array_equal(each, [1.0, 1.0, 4.0])

    def grow(x: Any) -> Any:
        return x * 2.0 if x < 5.0 else x + 1.0

    assert tg.while_loop(lambda x: x < 10.0 and x > 0.0, grow, 3.0) == 10.0
    assert tg.fori_loop(0, 3, lambda i, x: x + i if x > 0 else x - i, 1.0) == 4.0
    assert tg.cond(True, grow, lambda x: x, 3.0) == 6.0
    assert tg.switch(1, [np.sin, grow], 6.0) == 7.0
    np.testing.assert_array_equal(tg.map(lambda x: x if x > 0 else -x, rows), [1.0, 2.0, 3.0])
    assert tg.checkpoint(grow)(7.0) == 8.0
    np.testing.assert_array_equal(
        tg.associative_scan(lambda a, b: a + b if a.size > 0 else a, rows), np.cumsum(rows)
    )
