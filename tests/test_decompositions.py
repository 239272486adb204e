"""QR, symmetric eigenvectors, singular vectors, and what is solved with them: values, gradients, edges, refusals.

LAPACK's signs of vectors are arbitrary, and so compared are products that do not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.testing import check_grads

RNG = np.random.default_rng(8)
Case = Callable[[Any], Any]


def mT(x: Any) -> Any:
    return np.swapaxes(x, -1, -2)


def symmetric(a: Any) -> Any:
    return a[..., : a.shape[-1], :] + mT(a[..., : a.shape[-1], :])


def of_eigh(a: Any) -> Any:
    values, vectors = np.linalg.eigh(symmetric(a))
    upper = np.linalg.eigh(symmetric(a), UPLO="U")[0]
    root = (vectors * np.tanh(values)[..., None, :]) @ mT(vectors)
    return values, vectors**2, root, upper, np.linalg.eigvalsh(symmetric(a))


def of_svd(a: Any) -> Any:
    u, s, vh = np.linalg.svd(a, full_matrices=False)
    part = (u[..., :, :1] * np.sin(s[..., None, :1])) @ vh[..., :1, :]
    return s, part, u**2, vh**2, np.linalg.svd(a, compute_uv=False), np.linalg.svdvals(a)


def of_lstsq(a: Any) -> Any:
    b = np.arange(a.shape[0] * 2.0).reshape(-1, 2)
    x, rest, rank, s = np.linalg.lstsq(a, b, rcond=None)
    y, other, *_ = np.linalg.lstsq(a, b[:, 1])
    return x, rest, rank, s, y, other



CASES: dict[str, Case] = {
    "qr": lambda a: (*np.linalg.qr(a), np.linalg.qr(a, mode="r")),
    "eigh": of_eigh,
    "svd": of_svd,
    "pinv": lambda a: np.linalg.pinv(a),
    "norms": lambda a: [np.linalg.norm(a, o, axis=(-2, -1), keepdims=k) for o in (2, -2, "nuc") for k in (False, True)],
    "cond": lambda a: (np.linalg.cond(a), np.linalg.cond(a, -2), np.linalg.matrix_rank(a)),
}
SHAPES = {"1": (1, 1), "5": (5, 5), "tall": (4, 3), "wide": (2, 5), "stack": (2, 3, 4, 3), "column": (4, 1)}
WIDE_HAS_NONE = ("eigh",)


def drawn(shape: str, dtype: Any = np.float64) -> Any:
    return RNG.normal(size=SHAPES[shape]).astype(dtype)


def assert_same(found: Any, expected: Any, tol: float) -> None:
    for ours, theirs in zip(tg.tree.leaves(found), tg.tree.leaves(expected), strict=True):
        assert np.shape(ours) == np.shape(theirs) and np.asarray(ours).dtype == np.asarray(theirs).dtype
        np.testing.assert_allclose(ours, theirs, rtol=tol, atol=tol)


@pytest.mark.parametrize(("shape", "dtype"), [*((s, np.float64) for s in SHAPES), ("5", np.float32)])
def test_values(shape: str, dtype: Any) -> None:
    a = drawn(shape, dtype)
    chosen = [case for name, case in CASES.items() if shape != "wide" or name not in WIDE_HAS_NONE]
    everything = lambda a: [case(a) for case in chosen]
    tol = 1e-9 if dtype is np.float64 else 2e-3
    assert_same(tg.jit(everything)(a), everything(a), tol)
    with tg.eager():
        recorded = tg.grad(lambda a: (a.sum(), everything(a)), has_aux=True)(a)[1]
        assert_same(recorded, everything(a), tol)


@pytest.mark.parametrize("shape", ["5", "tall", "wide"])
def test_least_squares(shape: str) -> None:
    a = drawn(shape)
    found, expected = tg.jit(of_lstsq)(a), of_lstsq(a)
    assert_same([np.float64(x) for x in found], [np.float64(x) for x in expected], 1e-9)
    check_grads(lambda a: of_lstsq(a)[:2], [a], order=2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "shape"), [*((n, "tall") for n in CASES), *((n, "wide") for n in ("qr", "svd")),
                                             ("eigh", "5"), ("pinv", "stack")])  # fmt: skip
def test_gradients(name: str, shape: str) -> None:
    check_grads(CASES[name], [drawn(shape)], order=2, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_both_modes_the_tape_and_batches(name: str) -> None:
    a = drawn("tall")
    leaves = lambda a: [x for x in tg.tree.leaves(CASES[name](a)) if x.dtype.kind == "f"]
    scalar = lambda a: sum(np.sin(x).sum() for x in leaves(a))
    reverse = tg.grad(scalar)(a)
    np.testing.assert_allclose(tg.jvp(scalar, (a,), (a**2,))[1], (reverse * a**2).sum(), rtol=1e-8)
    held = tg.tensor(a, requires_grad=True)
    scalar(held).backward()
    np.testing.assert_allclose(held.grad.numpy(), reverse, rtol=1e-8, atol=1e-8)
    rows = tg.vmap(tg.grad(scalar))(np.stack([a, 2.0 * a]))
    np.testing.assert_allclose(rows[0], reverse, rtol=1e-7, atol=1e-7)


def test_equal_values_have_gradients_where_vectors_are_not_asked_for() -> None:
    a = np.diag([2.0, 2.0, 1.0])
    for function in (lambda a: np.linalg.eigvalsh(a).sum(), lambda a: np.linalg.svdvals(a).sum()):
        np.testing.assert_allclose(tg.grad(function)(a), np.eye(3), atol=1e-12)
    assert not np.isfinite(tg.grad(lambda a: (np.linalg.eigh(a)[1] * np.arange(9.0).reshape(3, 3)).sum())(a)).all()
    same = np.vstack([np.eye(2), np.eye(2)])  # equal singular values
    check_grads(np.linalg.pinv, [same], order=2, rtol=1e-4, atol=1e-4)


def test_dependent_columns() -> None:
    column = RNG.normal(size=5)
    a = np.stack([column, 2.0 * column, RNG.normal(size=5)], 1)

    def factors(a: Any) -> Any:
        u, s, vh = tnp.linalg.svd(a, full_matrices=False)
        return s, mT(u) @ u, (u * s) @ vh, tnp.linalg.pinv(a, rcond=1e-12), tnp.linalg.matrix_rank(a)

    assert_same(tg.jit(factors)(a), [np.linalg.svdvals(a), np.eye(3), a, np.linalg.pinv(a, 1e-12), np.int64(2)], 1e-9)
    b = np.arange(5.0)
    x, rest, rank, _ = tg.jit(np.linalg.lstsq)(a, b)
    np.testing.assert_allclose(x, np.linalg.lstsq(a, b)[0], atol=1e-9)
    assert rank == 2 and np.isnan(rest)


def test_zeros_scales_and_nan() -> None:
    every = lambda a: (*tnp.linalg.qr(a), *tnp.linalg.svd(a), *tnp.linalg.eigh(a))
    q, r, u, s, vh, w, v = tg.jit(every)(np.zeros((3, 3)))
    for found in (q, u, vh, v):
        np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-15)
    assert not r.any() and not s.any() and not w.any()
    for scale in (1e-160, 1e160):
        a = RNG.normal(size=(4, 4)) * scale
        for ours, theirs in ((tnp.linalg.svdvals, np.linalg.svdvals), (tnp.linalg.eigvalsh, np.linalg.eigvalsh)):
            np.testing.assert_allclose(tg.jit(ours)(a), theirs(a), rtol=1e-10)
        np.testing.assert_allclose(tg.jit(tnp.linalg.qr)(a).R, np.linalg.qr(a).R, rtol=1e-10)
    bad = np.eye(3)
    bad[2, 1] = np.nan
    for run in (tg.jit, lambda f: f):
        assert np.isnan(run(tnp.linalg.svdvals)(bad)).all() and np.isnan(run(tnp.linalg.pinv)(bad)).all()
    assert np.isnan(tg.jit(tnp.linalg.eigvalsh)(bad)).all()


def test_signs_do_not_depend_on_the_way_to_run() -> None:
    a = drawn("tall")
    for call in (lambda a: tnp.linalg.svd(a, full_matrices=False), lambda a: tnp.linalg.eigh(a[:3])):
        assert_same(tg.jit(call)(a), call(a), 1e-9)


def test_one_triangle_is_read() -> None:
    a = symmetric(drawn("5"))
    low = np.tril(a) + np.triu(np.full((5, 5), np.nan), 1)
    np.testing.assert_allclose(tg.jit(np.linalg.eigvalsh)(low), np.linalg.eigvalsh(a))
    np.testing.assert_allclose(tg.jit(lambda a: np.linalg.eigvalsh(a, "U"))(low.T), np.linalg.eigvalsh(a))


def test_tensors_of_equations() -> None:
    a, b = RNG.normal(size=(2, 3, 6)), RNG.normal(size=(2, 3))
    both = lambda a, b: (np.linalg.tensorsolve(a, b), np.linalg.tensorinv(a), np.linalg.cond(a[0, :, :3], 1))
    assert_same(tg.jit(both)(a, b), both(a, b), 1e-9)
    assert tg.jit(np.linalg.matrix_rank)(np.zeros(3)) == 0


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda a: np.linalg.svd(a), ArgumentError, "svd at .*: full_matrices=True of f64.4, 2., which is not square"),
        (lambda a: np.linalg.qr(a, "complete"), ArgumentError, "qr at .*: mode='complete' is not supported"),
        (lambda a: np.linalg.eigh(a), ShapeError, "eigh at .*: f64.4, 2. is not a square matrix"),
        (lambda a: np.linalg.eigh(a[:2], "X"), ArgumentError, "UPLO='X' is not a triangle"),
        (lambda a: np.linalg.lstsq(a, a[:3]), ShapeError, "f64.3, 2. does not fit f64.4, 2."),
        (lambda a: np.linalg.pinv(a[:0]), ShapeError, "is not a matrix with elements"),
        (lambda a: np.linalg.tensorsolve(a, a), ShapeError, "does not fit"),
        (lambda a: np.linalg.tensorinv(a, 1), ShapeError, "is not square at ind=1"),
    ],
)
def test_refused(call: Case, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        tg.jit(call)(np.ones((4, 2)))
