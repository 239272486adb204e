"""A NaN or infinity of the branch not taken stays out of gradients, at every order, whatever lies between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.grad.adjoint import joint
from tracegrad.inlining import inline
from tracegrad.ir import Aval, Graph, interpret
from tracegrad.testing import check_grads
from tracegrad.trace import trace

F64 = np.dtype(np.float64)
SQUARE = np.random.default_rng(0).normal(size=(3, 3))


def pulled(fn: Callable[..., Any], x: Any) -> tuple[Graph, tuple[Any, ...]]:
    """Return the joint graph of a scalar function, and the arrays it captures."""
    traced = trace(fn, [Aval(np.shape(x), F64)])
    return joint(traced.graph, (0,)), traced.captures


def gradient(fn: Callable[..., Any], x: Any) -> Any:
    graph, captures = pulled(lambda v: tnp.sum(fn(v)), x)
    return interpret(graph, x, *captures)[1]


def second(fn: Callable[..., Any], x: Any) -> Any:
    """Return the gradient of the sum of the gradient."""
    first, captures = pulled(lambda v: tnp.sum(fn(v)), x)
    return gradient(lambda v: inline(first, [v, *captures])[1], x)


def hessian(fn: Callable[..., Any], x: Any) -> Any:
    """Return the full Hessian of a scalar function, row by row."""
    first, captures = pulled(fn, x)
    return np.stack([gradient(lambda v, i=i: inline(first, [v, *captures])[1][i], x) for i in range(len(x))])


X = np.array([-1.0, 0.0, 4.0])
CASES: dict[str, tuple[Callable[[Any], Any], Any, Any]] = {
    "sqrt": (lambda x: tnp.where(x > 0, tnp.sqrt(x), 0.0), [0.0, 0.0, 0.25], [0.0, 0.0, -1 / 32]),
    "log": (lambda x: tnp.where(x > 0, tnp.log(x), x), [1.0, 1.0, 0.25], [0.0, 0.0, -1 / 16]),
    "reciprocal": (lambda x: tnp.where(x == 0, 1.0, 1.0 / x), [-1.0, 0.0, -1 / 16], [-2.0, 0.0, 2 / 64]),
    "other side": (lambda x: tnp.where(x <= 0, x * x, tnp.log(x)), [-2.0, 0.0, 0.25], [2.0, 2.0, -1 / 16]),
    "chain": (lambda x: tnp.where(x > 0, tnp.exp(tnp.log(x) * 2.0), 0.0), [0.0, 0.0, 8.0], [0.0, 0.0, 2.0]),
    "nested": (
        lambda x: tnp.where(x > -2, tnp.where(x > 0, tnp.log(x), 1.0), 1 / x),
        [0.0, 0.0, 0.25],
        [0.0, 0.0, -1 / 16],
    ),
    "shared": (
        lambda x: tnp.where(x > 0, tnp.sqrt(x), 0.0) + tnp.where(x > 1, 1 / tnp.sqrt(x), 0.0),
        [0.0, 0.0, 0.25 - 1 / 16],
        [0.0, 0.0, -1 / 32 + 0.75 / 32],
    ),
    "reshaped": (
        lambda x: tnp.where(tnp.reshape(x, (3, 1)) > 0, tnp.reshape(tnp.log(x), (3, 1)), 0.0),
        [0.0, 0.0, 0.25],
        [0.0, 0.0, -1 / 16],
    ),
    "broadcast": (
        lambda x: tnp.where(tnp.broadcast_to(x > 0, (2, 3)), tnp.broadcast_to(tnp.log(x), (2, 3)), 0.0),
        [0.0, 0.0, 0.5],
        [0.0, 0.0, -1 / 8],
    ),
    "gathered": (
        lambda x: tnp.where(x[np.array([2, 0, 1])] > 0, tnp.log(x)[np.array([2, 0, 1])], 0.0),
        [0.0, 0.0, 0.25],
        [0.0, 0.0, -1 / 16],
    ),
    "reversed": (
        lambda x: tnp.where(x[::-1] > 0, tnp.log(x)[::-1], 0.0),
        [0.0, 0.0, 0.25],
        [0.0, 0.0, -1 / 16],
    ),
    "concatenated": (
        lambda x: tnp.where(tnp.tile(x, 2) > 0, tnp.concatenate([tnp.log(x), tnp.sqrt(x)]), 0.0),
        [0.0, 0.0, 0.5],
        [0.0, 0.0, -1 / 16 - 1 / 32],
    ),
    "sum of rows": (
        lambda x: tnp.where(x > 0, tnp.sum(tnp.log(tnp.broadcast_to(x, (2, 3))), axis=0), 0.0),
        [0.0, 0.0, 0.5],
        [0.0, 0.0, -1 / 8],
    ),
    "largest of rows": (
        lambda x: tnp.where(x > 0, tnp.max(tnp.stack([tnp.log(x), tnp.log(x) - 1.0]), axis=0), 0.0),
        [0.0, 0.0, 0.25],
        [0.0, 0.0, -1 / 16],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_first_order(name: str) -> None:
    fn, first, _ = CASES[name]
    np.testing.assert_allclose(gradient(fn, X), first, rtol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_second_order(name: str) -> None:
    fn, _, expected = CASES[name]
    np.testing.assert_allclose(second(fn, X), expected, rtol=1e-12)


def test_reduction_before_the_where() -> None:
    """The norm of each row, 0 for rows of zeros."""

    def norms(x: Any) -> Any:
        total = tnp.sum(x * x, axis=1)
        return tnp.where(total > 0, tnp.sqrt(total), 0.0)

    x = np.array([[3.0, 4.0], [0.0, 0.0]])
    np.testing.assert_allclose(gradient(norms, x), [[0.6, 0.8], [0.0, 0.0]])
    assert np.isfinite(second(norms, x)).all()


@pytest.mark.parametrize("between", [lambda x: x @ SQUARE, lambda x: SQUARE @ x, lambda x: tnp.cumprod(x, axis=0)])
def test_operand_of_the_results_shape_that_other_elements_read(between: Callable[..., Any]) -> None:
    """The mask belongs to the elements of the product, not to those of an operand that happens to have its shape."""
    x = np.random.default_rng(1).normal(size=(3, 3)) + 2.0
    check_grads(lambda v: tnp.where(np.triu(np.ones((3, 3), bool)), 0.0, between(v)), (x,), order=2)
    check_grads(lambda v: tnp.where(between(v) > 1.0, tnp.tanh(between(v)), 0.5), (x,), order=2)

def test_scalar_condition() -> None:
    def fn(x: Any) -> Any:
        return tnp.where(tnp.sum(x) > 0, tnp.sqrt(x), x)

    np.testing.assert_allclose(gradient(fn, np.array([0.0, -1.0])), [1.0, 1.0])
    np.testing.assert_allclose(gradient(fn, np.array([1.0, 4.0])), [0.5, 0.25])


def test_value_used_outside_the_where_keeps_its_gradient() -> None:
    """log(x) reaches the result both through the branch and beside it: infinity is right then."""

    def fn(x: Any) -> Any:
        y = tnp.log(x)
        return tnp.where(x > 0, y, 0.0) + y

    np.testing.assert_array_equal(gradient(fn, np.array([0.0, 2.0])), [np.inf, 1.0])


def test_hessian_through_where() -> None:
    def fn(x: Any) -> Any:
        safe = tnp.where(x > 0, tnp.log(x), x * x)
        return tnp.sum(safe) * tnp.sum(safe)

    x = np.array([-1.0, 0.0, 2.0])
    s, ds = 1.0 + np.log(2.0), np.array([-2.0, 0.0, 0.5])
    expected = 2 * np.outer(ds, ds) + 2 * s * np.diag([2.0, 2.0, -0.25])
    np.testing.assert_allclose(hessian(fn, x), expected, rtol=1e-12)


def test_stable_functions_at_their_edges() -> None:
    rows = np.array([[-np.inf, -np.inf], [0.0, -np.inf], [1.0, 1.0]])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(tnp.logsumexp(rows, axis=1), [-np.inf, 0.0, 1.0 + np.log(2.0)])
    np.testing.assert_allclose(gradient(lambda x: tnp.logsumexp(x, axis=1)[1:], rows), [[0, 0], [1, 0], [0.5, 0.5]])
    assert not np.isnan(gradient(lambda x: tnp.logsumexp(x, axis=1), rows)).any()
    same = np.array([-np.inf, np.inf, 700.0, 0.0])
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(tnp.logaddexp(same, same), np.logaddexp(same, same))
    np.testing.assert_array_equal(gradient(tnp.std, np.ones(3)), np.zeros(3))
    np.testing.assert_array_equal(gradient(tnp.linalg.norm, np.zeros(3)), np.zeros(3))
    np.testing.assert_array_equal(gradient(lambda x: tnp.hypot(x, x), np.zeros(2)), np.zeros(2))


def test_second_derivatives_at_ties_of_smooth_functions() -> None:
    """logaddexp is smooth at a = b: its second derivative there is 1/4."""
    np.testing.assert_allclose(second(lambda x: tnp.logaddexp(x, 0.0), np.array([0.0, 1e-9])), [0.25, 0.25])


@pytest.mark.parametrize("name", ["sqrt", "log", "chain", "nested", "shared", "gathered", "largest of rows"])
def test_against_finite_differences(name: str) -> None:
    check_grads(CASES[name][0], [np.array([-1.3, 0.7, 2.9])], order=3, atol=1e-4)


def test_a_number_as_the_base_of_a_power() -> None:
    x = np.array([-1.0, 0.5, 2.0])
    for base in (2.0, np.float64(3.0), 0.0, 1):
        for fn in (lambda v: base**v, lambda v: np.where(v > 0, base**v, 0.0)):  # noqa: B023
            with np.errstate(all="ignore"):
                expected = np.where(x > 0, base**x, 0.0) * (np.log(base) if base > 0 else 0.0)
            found = tg.grad(lambda v: fn(v).sum())(x)  # noqa: B023
            np.testing.assert_allclose(found[1:], expected[1:], rtol=1e-12)
