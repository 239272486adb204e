"""Loops in loops that fill one array: nothing is copied on the way in, and the pullback keeps elements, not arrays."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.testing import check_grads

pytest.importorskip("malt")
N, M = 20, 17
X = np.random.default_rng(3).normal(size=N + M)


def grid(x: Any) -> Any:
    cost = np.full((N + 1, M + 1), np.inf)
    cost[0, 0] = 0.0
    for i in range(1, N + 1):
        for j in range(1, M + 1):
            step = min(cost[i - 1, j], cost[i, j - 1], cost[i - 1, j - 1])
            cost[i, j] = (x[i - 1] - x[N + j - 1]) ** 2 + step
    return cost[N, M]


def start_is_read_by_the_loop(x: Any) -> Any:
    """What the inner carry starts from is a constant of the inner loop, too."""

    def outer(i: Any, y: Any) -> Any:
        return tg.fori_loop(0, 4, lambda j, z: z * 0.5 + y[j] * y, y)

    return tg.fori_loop(0, 3, outer, x)


def start_is_read_afterwards(x: Any) -> Any:
    def outer(i: Any, y: Any) -> Any:
        return tg.fori_loop(0, 4, lambda j, z: z.at[j].add(z[j + 1]), y) + 0.1 * y

    return tg.fori_loop(0, 3, outer, x)


def two_carries_from_one_value(x: Any) -> Any:
    def inner(j: Any, state: Any) -> Any:
        a, b = state
        return a.at[j].set(b[j + 1]), b.at[j].add(2.0 * a[j])

    def outer(i: Any, y: Any) -> Any:
        a, b = tg.fori_loop(0, 4, inner, (y, y))
        return 0.5 * a + b

    return tg.fori_loop(0, 3, outer, x)


def one_loop_after_another(x: Any) -> Any:
    def outer(i: Any, y: Any) -> Any:
        y = tg.fori_loop(0, 4, lambda j, z: z.at[j].add(z[j + 1]), y)
        y = y.at[i].set(0.0)
        return tg.fori_loop(0, 5, lambda j, z: z.at[j + 1].add(0.3 * z[j]), y)

    return tg.fori_loop(0, 3, outer, x)


def until_a_condition(x: Any) -> Any:
    def outer(i: Any, y: Any) -> Any:
        return tg.while_loop(lambda z: z[i] < 3.0, lambda z: z.at[i].add(1.0), y)

    return tg.fori_loop(0, 5, outer, x)


PROGRAMS = [
    start_is_read_by_the_loop, start_is_read_afterwards, two_carries_from_one_value, one_loop_after_another,
    until_a_condition,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("backend", ["cpu", "python-source"])
def test_carries_start_where_they_are_only_if_nothing_else_reads_that(program: Any, backend: str) -> None:
    x = X[:8].copy()
    with tg.eager():
        expected = program(x)
    np.testing.assert_allclose(tg.jit(program, backend=backend)(x), expected, rtol=1e-13)
    np.testing.assert_array_equal(x, X[:8])


@pytest.mark.parametrize("program", PROGRAMS[:-1])
def test_their_gradients(program: Any) -> None:
    check_grads(tg.jit(lambda x: (program(x) ** 2).sum()), (0.3 * X[:8],), order=2)


def copies(schedule: str) -> list[str]:
    """Return the steps of loop bodies that walk the whole grid."""
    return [s for s in schedule.splitlines() if "body" in s and f" {(N + 1) * (M + 1)} rounds" in s]


def test_a_nest_that_fills_an_array_copies_nothing() -> None:
    compiled = tg.compile(grid, X)
    assert compiled(X) == pytest.approx(grid(X), rel=1e-13)
    assert "in place, nothing to copy" in compiled.schedule and not copies(compiled.schedule)
    # one place for the grid: the inner loop's carry is the outer one's
    assert compiled.arena_bytes < 3 * 8 * (N + 1) * (M + 1)


def test_the_gradient_of_a_nest_keeps_elements() -> None:
    gradient = tg.compile(tg.grad(grid), X)
    whole = re.compile(rf"f64\[\d+, {N + 1}, {M + 1}\]")
    assert f"f64[{N + 1}, {M + 1}]" in str(gradient.graph) and not whole.search(str(gradient.graph))
    assert not copies(gradient.schedule)
    check_grads(tg.jit(grid), (X,), order=2)


def test_what_takes_more_memory_than_the_carries_is_computed_again() -> None:
    """A checkpoint: each outer round keeps its carry, the inner rounds leave nothing behind."""

    def checkpointed(x: Any) -> Any:
        return tg.fori_loop(0, 6, lambda i, y: tg.fori_loop(0, 5, lambda j, z: np.sin(z * 1.1), y), x).sum()

    graph = str(tg.compile(tg.grad(checkpointed), X[:7]).graph)
    assert "f64[6, 7]" in graph and "f64[6, 5, 7]" not in graph
    check_grads(tg.jit(checkpointed), (X[:7],), order=2)


def test_a_loop_starts_from_what_the_epilogue_of_a_product_writes() -> None:
    def fn(x: Any, w: Any) -> Any:
        return tg.fori_loop(0, 5, lambda i, y: y.at[i].add(y[i + 1]), np.tanh(x @ w))

    x, w = (np.random.default_rng(0).normal(size=(40, 40)) for _ in range(2))
    with tg.eager():
        expected = fn(x, w)
    np.testing.assert_allclose(tg.jit(fn)(x, w), expected, rtol=1e-12, atol=1e-13)
