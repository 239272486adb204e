"""Factorisations: values, gradients of both modes and to second order, stacks, small and singular matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.errors import DTypeError, ShapeError
from tracegrad.ir import PRIMITIVES, Aval
from tracegrad.ops.custom import Written
from tracegrad.testing import check_grads

RNG = np.random.default_rng(5)
Case = Callable[..., Any]


def spd(a: Any) -> Any:
    """Return a positive definite matrix made of any."""
    return a @ np.swapaxes(a, -1, -2) + 0.5 * np.eye(a.shape[-1], dtype=a.dtype)


CASES: dict[str, Case] = {
    "cholesky": lambda a, b: np.linalg.cholesky(spd(a)),
    "upper": lambda a, b: np.linalg.cholesky(spd(a), upper=True),
    "solve": lambda a, b: np.linalg.solve(a, b),
    "solve-spd": lambda a, b: np.linalg.solve(spd(a), b) * 0.1,
    "inv": lambda a, b: np.linalg.inv(a),
    "det": lambda a, b: np.linalg.det(a),
    "slogdet": lambda a, b: tuple(np.linalg.slogdet(a)),
}
SHAPES = {
    "1": ((1, 1), (1, 2)), "2": ((2, 2), (2,)), "3": ((3, 3), (3, 1)), "4": ((4, 4), (4,)), "6": ((6, 6), (6, 3)),
    "stack of 2": ((3, 2, 2), (3, 2, 2)), "stack of 4": ((2, 1, 4, 4), (3, 4, 2)),
}  # fmt: skip


def drawn(shapes: str, dtype: Any = np.float64) -> list[Any]:
    a, b = (RNG.normal(size=s).astype(dtype) for s in SHAPES[shapes])
    return [a + 2.0 * np.eye(a.shape[-1], dtype=dtype)[::-1], b]  # no singular ones, and rows are exchanged


def assert_same(found: Any, expected: Any, tol: float) -> None:
    for ours, theirs in zip(tg.tree.leaves(found), tg.tree.leaves(expected), strict=True):
        assert ours.dtype == np.asarray(theirs).dtype and ours.shape == np.shape(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=tol, atol=tol)


@pytest.mark.parametrize(("shapes", "dtype"), [*((s, np.float64) for s in SHAPES), ("4", np.float32)])
def test_values(shapes: str, dtype: Any) -> None:
    operands = drawn(shapes, dtype)

    def everything(a: Any, b: Any) -> Any:
        return [case(a, b) for case in CASES.values()]

    expected = everything(*operands)
    tol = 1e-9 if dtype is np.float64 else 2e-3
    assert_same(tg.jit(everything)(*operands), expected, tol)
    with tg.eager():
        recorded = tg.grad(lambda a: (a.sum(), everything(a, operands[1])), has_aux=True)
        assert_same(recorded(operands[0])[1], expected, tol)


@pytest.mark.parametrize(
    ("name", "shapes"), [*((n, s) for n in CASES for s in ("3", "4")), ("inv", "1"), ("solve", "stack of 2")]
)
def test_gradients(name: str, shapes: str) -> None:
    check_grads(lambda a, b: CASES[name](a, b), drawn(shapes), order=2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_both_modes_and_the_tape(name: str) -> None:
    a, b = drawn("4")
    scalar = lambda a, b: sum(np.sin(x).sum() for x in tg.tree.leaves(CASES[name](a, b)))
    reverse, forward = tg.jacrev(scalar)(a, b), tg.jacfwd(scalar)(a, b)
    np.testing.assert_allclose(forward, reverse, rtol=1e-8, atol=1e-8)
    held = tg.tensor(a, requires_grad=True)
    scalar(held, b).backward()
    np.testing.assert_allclose(held.grad.numpy(), reverse, rtol=1e-8, atol=1e-8)
    stack = RNG.normal(size=(3, 4, 4)) + np.eye(4)
    rows = tg.vmap(tg.grad(scalar), in_axes=(0, None))(stack, b)
    np.testing.assert_allclose(rows, np.stack([tg.grad(scalar)(x, b) for x in stack]), rtol=1e-7, atol=1e-7)


def test_second_derivatives_in_both_modes() -> None:
    a, b = drawn("3")
    scalar = lambda a: b[:, 0] @ np.linalg.solve(spd(a), b[:, 0]) + np.linalg.slogdet(spd(a))[1]
    hessian = tg.hessian(scalar)(a)
    np.testing.assert_allclose(hessian, tg.jacrev(tg.jacrev(scalar))(a), rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(hessian, hessian.transpose(2, 3, 0, 1), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("n", [2, 5])
def test_singular_and_indefinite(n: int) -> None:
    bad = np.zeros((n, n))
    both = np.stack([bad, np.eye(n)])
    for run in (tg.jit, lambda f: f):
        found = run(lambda a: (tnp.linalg.det(a), tnp.linalg.slogdet(a), tnp.linalg.cholesky(-a)))(both)
        determinant, (sign, size), low = found
        np.testing.assert_array_equal(determinant, [0.0, 1.0])
        np.testing.assert_array_equal(sign, [0.0, 1.0])
        np.testing.assert_array_equal(size, [-np.inf, 0.0])
        assert np.isnan(low).all()
        solved = run(tnp.linalg.solve)(both, np.ones((2, n, 1)))
        assert not np.isfinite(solved[0]).any()
        np.testing.assert_array_equal(solved[1], 1.0)
    ill = np.eye(n)
    ill[-1, -1] = np.nan
    assert np.isnan(tg.jit(np.linalg.det)(ill))


def test_only_the_lower_triangle_is_read() -> None:
    a = spd(RNG.normal(size=(5, 5)))
    mixed = np.tril(a) + np.triu(np.full((5, 5), np.nan), 1)
    np.testing.assert_allclose(tg.jit(np.linalg.cholesky)(mixed), np.linalg.cholesky(a))


@pytest.mark.parametrize(("shape", "dtype"), [((96, 96), np.float32), ((2, 101, 101), np.float64)])
def test_large_matrices_go_block_by_block(shape: tuple[int, ...], dtype: Any) -> None:
    a = spd(RNG.normal(size=shape)).astype(dtype)
    b = RNG.normal(size=(*shape[:-1], 20)).astype(dtype)

    def factored(a: Any, b: Any) -> Any:
        low, solve = np.linalg.cholesky(a), np.linalg.solve
        return low, solve(low, b), solve(np.swapaxes(low, -1, -2), b), solve(low, b[..., :1])

    expected = factored(a, b)
    lower = np.tril(a) + np.triu(np.full_like(a, np.nan), 1)  # the upper triangle is not read
    for found, wanted in zip(tg.jit(factored)(lower, b), expected, strict=True):
        assert found.dtype == wanted.dtype
        close = (1e-11 if dtype == np.float64 else 1e-2) * np.abs(wanted).max()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=close)
    bad = a.copy()
    bad[..., 90, 90] = -1.0
    assert np.isnan(tg.jit(np.linalg.cholesky)(bad)).all()


def test_large_factors_of_a_nearly_singular_matrix_are_as_good_as_lapacks() -> None:
    x = np.linspace(0.0, 10.0, 100)
    a = np.exp(-0.5 * (x[:, None] - x) ** 2) + 1e-10 * np.eye(100)
    low = tg.jit(np.linalg.cholesky)(a)
    np.testing.assert_allclose(low @ low.T, a, rtol=0, atol=5e-15)


def test_gradients_of_large_matrices() -> None:
    a, b, t = (RNG.normal(size=(100, 100)) for _ in range(3))
    a = a @ a.T / 100 + np.eye(100)

    def loss(a: Any) -> Any:
        low = np.linalg.cholesky(a)
        return (np.linalg.solve(low.T, np.linalg.solve(low, b)) * t).sum() / 100 + np.log(np.diag(low)).sum()

    inverse, mirrored = np.linalg.inv(a), lambda m: 0.5 * (m + m.T)
    expected = mirrored(-(inverse @ t @ b.T @ inverse) / 100 + 0.5 * inverse)
    np.testing.assert_allclose(tg.jit(tg.grad(loss))(a), expected, rtol=1e-9, atol=1e-11)


def test_factors_are_solved_by_substitution() -> None:
    def solved(a: Any, b: Any) -> Any:
        low = np.linalg.cholesky(a)
        return [np.linalg.solve(m, b) for m in (low, low.T, a.T, low @ low)]

    a, b = spd(RNG.normal(size=(5, 5))), RNG.normal(size=5)
    graph = str(tg.compile(solved, a, b).graph)
    assert graph.count("triangular_solve(") == 2 and graph.count(" solve(") == 2
    assert_same(tg.jit(solved)(a, b), solved(a, b), 1e-8)


def test_errors() -> None:
    for call in (tnp.linalg.cholesky, tnp.linalg.inv, tnp.linalg.det, tnp.linalg.slogdet):
        with pytest.raises(ShapeError, match=r"f64\[2, 3\] is not a square matrix"):
            tg.jit(call)(np.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"solve.*f64\[4, 1\] does not fit f64\[3, 3\]"):
        tg.jit(np.linalg.solve)(np.eye(3), np.ones(4))
    with pytest.raises(ShapeError, match=r"solve.*does not fit"):
        tg.jit(np.linalg.solve)(np.zeros((2, 3, 3)), np.ones((4, 3, 1)))
    with pytest.raises(DTypeError, match=r"cholesky.*i64\[3, 3\] is not floating point"):
        PRIMITIVES["cholesky"].aval(Aval((3, 3), np.dtype(np.int64)))


def test_integers_and_halves() -> None:
    whole = np.array([[2, 1], [1, 3]])
    found = tg.jit(lambda a: (np.linalg.inv(a), np.linalg.cholesky(a.astype(np.float16))))(whole)
    np.testing.assert_allclose(found[0], np.linalg.inv(whole))
    assert found[1].dtype == np.float32
    assert tg.jit(np.linalg.det)(np.eye(2, dtype=bool)).dtype == np.float64


def test_every_written_primitive_is_used_here() -> None:
    names = {p.name for p in PRIMITIVES.values() if isinstance(p, Written)}
    elsewhere = {"qr", "eigh", "svd", "pinv"}  # tests/test_decompositions.py
    assert names == {"cholesky", "triangular_solve", "solve", "det", "logabsdet", "sign_of_det"} | elsewhere
