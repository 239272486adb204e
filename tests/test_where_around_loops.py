"""A NaN or infinity of the branch not taken stays out of gradients through loops and branches, at every order."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.testing import check_grads

X = np.array([-1.0, 0.0, 4.0, 2.5])
SAFE = np.array([1.0, 1.0, 4.0, 2.5])
TABLE = np.array([1.5, 2.0])


def until(fn: Callable[[Any], Any], x: Any, rounds: int = 2, **options: Any) -> Any:
    return tg.while_loop(lambda c: c[0] < rounds, lambda c: (c[0] + 1, fn(c[1])), (0, x), **options)[1]


def two_parts(x: Any) -> Any:
    """Both parts of the result pass a `where`, each its own; the other one of them is 0."""
    a, b = tg.fori_loop(0, 2, lambda i, c: (np.sqrt(c[0]), np.log(c[1]) + c[0]), (x, x + 1.0))
    return np.where(x > 3.0, a, 0.0) + np.where(x > -1.0, np.where(x > 0.0, b, 0.0), 0.0)


LOOPS: dict[str, Callable[[Any], Any]] = {
    "carry of a scan": lambda x: tg.fori_loop(0, 2, lambda i, c: np.log(c) + 3.0, x),
    "results of a scan": lambda x: np.sum(tg.scan(lambda c, r: (c, np.log(c) * r), x, TABLE)[1], axis=0),
    "last result of a scan": lambda x: tg.scan(lambda c, r: (c, np.log(c) * r), x, TABLE, reverse=True)[1][-1],
    "slices": lambda x: tg.map(np.log, x),
    "constants": lambda x: tg.fori_loop(0, 2, lambda i, c: c + np.log(x) * c, x),
    "while": lambda x: until(np.sqrt, x),
    "while with checkpoints": lambda x: until(np.sqrt, x, 3, checkpoint=True),
    "while with slots": lambda x: until(lambda c: np.sqrt(c) * x, x, 3, slots=1),
    "branch": lambda x: tg.cond(x[2] > 1.0, np.log, np.sin, x),
    "checkpoint": lambda x: tg.checkpoint(lambda v: np.sqrt(v) * v)(x),
    "checkpoint in a scan": lambda x: tg.fori_loop(0, 2, lambda i, c: tg.checkpoint(np.sqrt)(c), x),
    "while in a branch in a scan": lambda x: tg.fori_loop(
        0, 2, lambda i, c: tg.cond(i > 0, lambda v: until(np.sqrt, v), lambda v: np.log(v) + 2.0, c), x
    ),
    "before the loop": lambda x: tg.fori_loop(0, 2, lambda i, c: c * c, np.log(x)),
    "before the branch": lambda x: tg.cond(x[2] > 1.0, np.sin, np.cos, np.log(x)),
    "before the slots": lambda x: until(np.sin, np.log(x), 3, slots=2),
    "a permutation": lambda x: tg.fori_loop(0, 2, lambda i, c: np.sqrt(c)[::-1], x),
    "twice": two_parts,
    "a where inside": lambda x: tg.fori_loop(0, 2, lambda i, c: np.where(c > 2.0, np.log(c), 1.0 / c), x),
}


TWICE = ("carry of a scan", "while", "while with slots", "checkpoint in a scan", "twice")
"""Whose second order is compiled, too."""
WAYS = [pytest.param(nullcontext, TWICE, id="compiled"), pytest.param(tg.eager, tuple(LOOPS), id="eager")]


def masked(name: str, x: Any) -> Any:
    return np.sum(np.where(x > 0.0, LOOPS[name](x), 0.0))


def gradients(x: Any, twice: tuple[str, ...]) -> dict[str, Any]:
    """Return, by name, the gradient; and, of those `twice`, the gradient of a combination of its elements."""
    weights = np.arange(1.0, 1.0 + len(X))
    first = {n: tg.grad(lambda v, n=n: masked(n, v)) for n in LOOPS}
    second = {f"{n}, twice": tg.grad(lambda v, n=n: np.sum(first[n](v) * weights)) for n in twice}
    return {n: gradient(x) for n, gradient in (first | second).items()}


@pytest.mark.parametrize(("way", "twice"), WAYS)
def test_the_gradient_is_zero_outside_and_the_same_inside(way: Any, twice: tuple[str, ...]) -> None:
    with way(), np.errstate(all="ignore"):
        found, expected = (tg.jit(gradients, static=("twice",))(x, twice=twice) for x in (X, SAFE))
    for name, gradient in found.items():
        np.testing.assert_allclose(
            gradient, np.where(X > 0.0, expected[name], 0.0), rtol=1e-12, atol=1e-15, err_msg=name
        )


@pytest.mark.parametrize("name", LOOPS)
def test_against_finite_differences(name: str) -> None:
    """Where everything is finite, masks change no derivative, also where a cotangent happens to be zero."""
    x = np.array([-1.3, 0.7, 2.9, 1.6])
    fn = lambda v: np.where(v > 0.0, LOOPS[name](np.where(v > 0.0, v, 1.0 - v)), 0.0)
    check_grads(lambda v: (fn(v) - fn(x)) ** 2, [x], order=2, atol=1e-4)


def test_a_loop_without_where_carries_no_masks() -> None:
    text = str(tg.compile(tg.grad(lambda x: np.sum(until(np.sqrt, x))), X).graph)
    assert "where" not in text and "bool[4]" not in text
