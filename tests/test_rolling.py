"""Long loops over a range: compiled as loops where that means the same, else unrolled as they stand."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import tree
from tracegrad.testing import check_grads

X = np.random.default_rng(0).normal(size=70)
Program = Callable[[Any], Any]


def recurrence(x: Any) -> Any:
    y = x.copy()
    for i in range(1, len(x)):
        y[i] = 0.5 * y[i - 1] + x[i]
    return y


def backwards_in_steps(x: Any) -> Any:
    y = x * 2.0
    for i in range(len(x) - 2, 0, -2):
        y[i] += np.sin(y[i + 1]) * i
        y[-i] = y[i] - x[i]
    return y


def table_of_numpy_s(x: Any) -> Any:
    times, weights = np.linspace(0.0, 1.0, 80), np.arange(160.0).reshape(80, 2)
    for i in range(79):
        step = times[i + 1] - times[i]
        x = x * 0.9 + 0.1 * step * np.sin(x) * weights[i, 0] + 0.01 * weights[i + 1, :].sum()
    return x


def grid(x: Any) -> Any:
    d = np.full((8, 9), np.inf)
    d[0, 0] = 0.0
    for i in range(1, 8):
        for j in range(1, 9):
            d[i, j] = (x[i] - x[8 + j]) ** 2 + min(d[i - 1, j], d[i, j - 1], d[i - 1, j - 1])
    return d[-1, -1]


def counts(x: Any) -> Any:
    found, even = 0, 0
    for i in range(len(x)):
        even += 2
        if x[i] > 0.0:
            found += 1
            x = x * 1.5
    return x, x * found, even


def flat_index(x: Any) -> Any:
    total = 0.0 * x[0]
    for i in range(7):
        for j in range(10):
            total = total + x[i * 10 + j] * (j - i) + x[(i * 10 - j) % 70] // 3
    return total


@pytest.mark.parametrize("program", [recurrence, backwards_in_steps, table_of_numpy_s, grid, counts, flat_index])
def test_a_long_loop_is_compiled(program: Program) -> None:
    pytest.importorskip("malt")
    compiled = tg.compile(program, X)
    assert len(compiled.graph.nodes) < 60
    for ours, theirs in zip(tree.leaves(compiled(X)), tree.leaves(program(X.copy())), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    check_grads(lambda x: sum(np.sum(leaf * 1.0) for leaf in tree.leaves(tg.jit(program)(x))), (X,))


def factorial(x: Any) -> Any:
    total, f = 0.0 * x, 1
    for i in range(40):
        f *= i + 1
        total = total + x**3 * (x + 1.0) / f
    return total


def fibonacci(x: Any) -> Any:
    a, b = 0, 1
    for _ in range(120):
        a, b = b, a + b
        x = np.sin(x) / 2.0 + x * 0.5 + 1.0
    return x + float(a)


def powers(x: Any) -> Any:
    total = 0.0 * x
    for i in range(80):
        total = total + np.sin(x) / (2**i) + np.cos(x) / 3.0 ** i
    return total


def powers_under_a_condition(x: Any) -> Any:
    total = 0.0 * x
    for i in range(80):
        if x[0] > 0.0:
            total = total + np.sin(x) / (i + 3) ** 50
        total = total + np.cos(x) * 0.5
    return total


def appended(x: Any) -> Any:
    found = []
    for i in range(70):
        x = np.sin(x) * 0.5 + 0.01 * np.cos(x) * i
        found.append(x.sum())
    return np.stack(found)


def list_of_layers(x: Any) -> Any:
    layers = [np.full(70, 0.01 * j) for j in range(50)]
    for i in range(50):
        x = np.tanh(x + layers[i]) * 0.5 + np.sin(x) * 0.5
    return x


def counter_is_read_by_python(x: Any) -> Any:
    k = 0
    for i in range(80):
        k += 1
        x = x * 0.99 + np.sin(x) * 0.01 + i
    return np.zeros(k).sum() + x


def shapes_change(x: Any) -> Any:
    for i in range(40):
        x = x[1:] * 0.5 + x[:-1] * 0.25 + np.sin(x[1:]) + i
    return x


@pytest.mark.parametrize(
    "program",
    [
        factorial, fibonacci, powers, powers_under_a_condition, appended, list_of_layers, counter_is_read_by_python,
        shapes_change,
    ],
)  # fmt: skip
def test_a_loop_that_needs_python_s_numbers_is_unrolled(program: Program) -> None:
    pytest.importorskip("malt")
    compiled = tg.compile(program, X)
    assert len(compiled.graph.nodes) >= 80
    np.testing.assert_allclose(compiled(X), program(X.copy()), rtol=1e-10)


def test_without_the_extra_a_long_loop_is_unrolled(monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "malt" else there(name))
    np.testing.assert_allclose(tg.jit(recurrence)(X), recurrence(X))


def test_a_long_line_that_is_no_loop_is_not_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise AssertionError("it was converted")

    monkeypatch.setattr("tracegrad.api.transform.retry", fail)
    layers = tg.nn.Sequential(*(layer for _ in range(150) for layer in (tg.nn.Linear(2, 2), tg.nn.Tanh())))
    assert tg.jit(lambda m, x: m(x))(layers, np.ones((1, 2), np.float32)).shape == (1, 2)


def test_an_index_that_leaves_the_array_in_a_later_round() -> None:
    pytest.importorskip("malt")

    def fn(x: Any) -> Any:
        y = x.copy()
        for i in range(70):
            y[i] = x[i + 1] * 2.0
        return y

    with pytest.raises(IndexError):
        tg.jit(fn)(X)


def test_the_gradient_of_a_filling_loop_copies_nothing() -> None:
    pytest.importorskip("malt")
    gradient = tg.compile(tg.grad(lambda x: (recurrence(x) ** 2).sum()), X)
    rounds = [line for line in gradient.schedule.splitlines() if "body" in line]
    assert not any("70 rounds" in line for line in rounds)
    assert sum("in place, nothing to copy" in line for line in rounds) == 4


def test_a_long_loop_over_rows_that_needs_python_s_integers_is_unrolled() -> None:
    pytest.importorskip("malt")

    def fn(x: Any) -> Any:
        total, f = 0.0 * x[0], 1
        for i, v in enumerate(x):
            f *= i + 1
            total = total + v * v * np.sin(v) * np.cos(v) * np.exp(v) / f
        return total

    np.testing.assert_allclose(tg.jit(fn)(X), fn(X))


@tg.custom_vjp
def recurrence_with_a_rule(x: Any) -> Any:
    return recurrence(x)


recurrence_with_a_rule.defvjp(lambda x: (recurrence(x), x), lambda x, ct: (recurrence(ct[::-1])[::-1],))
INSIDE: dict[str, Program] = {
    "checkpoint": tg.checkpoint(recurrence),
    "cond": lambda x: tg.cond(x[0] > 0.0, recurrence, lambda x: -recurrence(x), x),
    "scan": lambda x: tg.scan(lambda c, k: (recurrence(c) * k, c[:2]), x, np.ones(3)),
    "custom_vjp": recurrence_with_a_rule,
}


@pytest.mark.parametrize("name", INSIDE)
def test_a_long_loop_inside_is_compiled(name: str) -> None:
    pytest.importorskip("malt")
    program = INSIDE[name]
    compiled = tg.compile(program, X)
    assert len(str(compiled.graph)) < 3000
    for ours, theirs in zip(tree.leaves(compiled(X)), tree.leaves(program(X.copy())), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10)
    check_grads(lambda x: sum(np.sum(leaf**2) for leaf in tree.leaves(tg.jit(program)(x))), (X,), order=1)


def test_a_long_loop_inside_without_its_source_is_unrolled() -> None:
    names: dict[str, Any] = {}
    exec("def total(x):\n    y = x[0]\n    for i in range(400):\n        y = y * 0.5 + x[i % 70]\n    return y", names)
    total = names["total"]
    for program in (tg.checkpoint(total), lambda x: tg.scan(lambda c, _: (c * 0.5, total(c)), x, length=2)):
        for ours, theirs in zip(tree.leaves(tg.jit(program)(X)), tree.leaves(program(X)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-10)

# --- what the first rounds have changed beside variables --------------------------------------------------------------


def only_once(x: Any) -> Any:
    done: list[int] = []
    for i in range(400):
        if not done:
            done.append(i)
            x = x * 2.0
        x = x + 1.0
    return x


def calls_counted(x: Any) -> Any:
    calls = [0]

    def count() -> int:
        calls[0] += 1
        return calls[0]

    for _ in range(400):
        x = x + count()
    return x


def from_an_iterator(x: Any) -> Any:
    values = iter([3.0] + [1.0] * 400)
    for _ in range(400):
        x = x + next(values)
    return x


def from_a_generator_in_a_function(x: Any) -> Any:
    values = (0.5 * n for n in range(1000))

    def two() -> float:
        return next(values) + values.__next__()

    for _ in range(400):
        x = x + two()
    return x


def paired_with_an_iterator(x: Any) -> Any:
    values = iter(range(1000))
    for _ in range(200):
        for _, v in zip(range(2), values, strict=False):
            x = x + v
    return x


@pytest.mark.parametrize(
    "program",
    [only_once, calls_counted, from_an_iterator, from_a_generator_in_a_function, paired_with_an_iterator],
)
def test_lists_and_iterators_are_what_they_are_in_python(program: Program) -> None:
    pytest.importorskip("malt")
    np.testing.assert_allclose(tg.jit(program)(X), program(X))


def test_a_loop_whose_first_rounds_changed_a_list_is_compiled_from_there_on() -> None:
    pytest.importorskip("malt")
    assert len(tg.compile(only_once, X).graph.nodes) < 20


def test_an_iterator_under_a_traced_condition_is_refused() -> None:
    pytest.importorskip("malt")

    def program(x: Any) -> Any:
        values = iter([1.0, 2.0, 3.0, 4.0])
        total = x * 0.0
        while total.sum() < 5.0:
            total = total + next(values)
        return total

    with pytest.raises(tg.TracegradError, match="the next of the iterator values"):
        tg.jit(program)(np.ones(1))


# --- loops whose rounds grow ------------------------------------------------------------------------------------------


def cholesky(a: Any) -> Any:
    n = len(a)
    factor = np.zeros((n, n))
    for i in range(n):
        for j in range(i + 1):
            s = a[i, j]
            for k in range(j):
                s -= factor[i, k] * factor[j, k]
            if i == j:
                factor[i, i] = np.sqrt(s)
            else:
                factor[i, j] = s / factor[j, j]
    return factor


def insertion_sort(a: Any) -> Any:
    y = a[0].copy()
    for i in range(1, len(y)):
        for j in reversed(range(1, i + 1)):
            if y[j] < y[j - 1]:
                y[j], y[j - 1] = y[j - 1], y[j]
    return y


@pytest.mark.parametrize("program", [cholesky, insertion_sort])
def test_loops_whose_rounds_grow_are_compiled(program: Program) -> None:
    pytest.importorskip("malt")
    a = np.random.default_rng(1).normal(size=(24, 24))
    a = a @ a.T + 24.0 * np.eye(24)
    compiled = tg.compile(program, a)
    assert len(compiled.graph.nodes) < 40
    np.testing.assert_allclose(compiled(a), program(a.copy()))
    small = a[:4, :4]
    check_grads(tg.jit(program), (small,), order=1)


@pytest.mark.parametrize("limits", [(5,), (2, 9), (9, 2), (1, 9, 3), (9, 0, -3), (9, 1, -1), (3, 3)])
def test_a_range_backwards_whose_limits_are_traced(limits: tuple[int, ...]) -> None:
    pytest.importorskip("malt")
    step = limits[2] if len(limits) > 2 else 1

    def program(x: Any, *ends: Any) -> Any:
        for i in reversed(range(*ends, step) if len(ends) > 1 else range(*ends)):
            x = 0.5 * x + i
        return x

    np.testing.assert_allclose(tg.jit(program)(1.0, *limits[:2]), program(1.0, *limits[:2]))
