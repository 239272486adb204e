"""Gradients of weights that a batch shares: one product that sums over the batch, and no batch of products."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.testing import check_grads


def arrays(*shapes: tuple[int, ...], dtype: Any = np.float64) -> list[Any]:
    rng = np.random.default_rng(3)
    return [rng.normal(size=s).astype(dtype) for s in shapes]


def gradient_of_weights(f: Any, *operands: Any) -> Any:
    """Return the program (w, x, ct) -> the gradient of w."""
    return tg.compile(lambda w, x, ct: tg.vjp(lambda w: f(w, x), w)[1](ct)[0], *operands)


CASES = {
    "w @ x": (lambda w, x: w @ x, (12, 20), (5, 20, 33)),
    "x @ w": (lambda w, x: x @ w, (20, 12), (5, 33, 20)),
    "x.T @ w": (lambda w, x: np.swapaxes(x, 1, 2) @ w, (20, 12), (5, 20, 33)),
    "heads": (lambda w, x: x @ w, (4, 20, 12), (5, 4, 33, 20)),
    "two axes": (lambda w, x: w @ x, (12, 20), (2, 3, 20, 33)),
    "einsum": (lambda w, x: np.einsum("ik,bkj->bij", w, x), (12, 20), (5, 20, 33)),
}


@pytest.mark.parametrize("name", CASES)
def test_one_product(name: str) -> None:
    f, w_shape, x_shape = CASES[name]
    w, x = arrays(w_shape, x_shape)
    (ct,) = arrays(np.shape(f(w, x)))
    program = gradient_of_weights(f, w, x, ct)
    kernels = [line for line in program.source.splitlines() if line.startswith("def ") or " = dot(" in line]
    assert len(kernels) == 1
    assert " = dot(" in kernels[0]
    with tg.eager():
        expected = tg.vjp(lambda w: f(w, x), w)[1](ct)[0]
    np.testing.assert_allclose(program(w, x, ct), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_to_second_order(name: str) -> None:
    f, w_shape, x_shape = CASES[name]
    check_grads(lambda w, x: (np.tanh(f(w, x)) ** 2).sum(), arrays(w_shape, x_shape))


def test_products_that_others_read_stay() -> None:
    """Computing them twice would cost more than the sum does."""
    a, b = arrays((5, 12, 33), (5, 33, 20))

    def both(a: Any, b: Any) -> Any:
        y = a @ b
        return y, y.sum(0)

    program = tg.compile(both, a, b)
    assert program.source.count(" = dot(") == 1
    for found, expected in zip(program(a, b), both(a, b), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shapes", [((0, 12, 33), (0, 33, 20)), ((5, 12, 0), (5, 0, 20)), ((5, 12, 3), (5, 3, 20))])
def test_empty_and_short_sums(shapes: Any) -> None:
    a, b = arrays(*shapes)
    np.testing.assert_allclose(tg.jit(lambda a, b: (a @ b).sum(0))(a, b), (a @ b).sum(0), rtol=1e-12, atol=1e-13)


def test_integers_and_special_values() -> None:
    a, b = arrays((3, 40, 30), (3, 30, 20), dtype=np.int64)
    np.testing.assert_array_equal(tg.jit(lambda a, b: (a @ b).sum(0))(9 * a, b), (9 * a @ b).sum(0))
    x, y = np.ones((3, 40, 30)), np.ones((3, 30, 20))
    x[2, 7, 3], x[1, 9, 0], y[0, 4, 5] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(tg.jit(lambda a, b: (a @ b).sum(0))(x, y), (x @ y).sum(0))
