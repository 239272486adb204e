"""x[mask] for masks that are not known while tracing: elements one by one, reductions, assignments; else refused."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.errors import TracerError
from tracegrad.testing import check_grads

RNG = np.random.default_rng(21)
X = RNG.normal(size=(4, 5))
Case = Callable[[Any], Any]


def reductions(x: Any) -> Any:
    v = x[x > 0]
    return (
        v.sum(), np.sum(v), v.mean(), np.std(v), v.var(ddof=1), v.max(), np.min(v), v.prod(), np.median(v),
        np.linalg.norm(v), v @ v, np.dot(v, 2.0 * v), np.add.reduce(v), v.size * 1.0, np.sum(x[x > 100.0]),
        np.amax(v), v.ndim * 1.0,
    )  # fmt: skip


def counts(x: Any) -> Any:
    v = x[x > 0]
    return (v > 1.0).any(), np.all(v < 5.0), np.count_nonzero(v > 0.5), v.shape[0], np.size(v), (v > 0.3).sum(), v.size


def one_by_one(x: Any) -> Any:
    v = x[x > 0.2]
    w = np.where(v > 1.0, 1.0, v) + np.clip(v, 0.3, 0.6) * (-v) + abs(1.0 - v) / 3.0**v
    u = np.maximum(x.mean(), v) + np.log(v) - v.mean() + v.round(1) + v.copy() ** 2 + 1.0 / v
    return w.sum(), u.mean(), np.log(x[x > 0]).sum(), (x[x < 0] ** 2).sum()


def rows(x: Any) -> Any:
    near = x[:, 0] > 0.0
    part = x[near]
    centred = part - part.mean(axis=0)
    return (
        part.mean(axis=0), part.std(axis=0, ddof=1), part.max(0), part.sum(axis=1).max(), x[near, 1].mean(),
        part[:, 1:3].sum(), part[..., 0].sum(), (centred**2).mean(), part.mean(axis=0, keepdims=True),
        (part * part[:, :1]).sum(0), (part - part.mean(axis=0, keepdims=True)).min(), part.mean(), part.var(),
        part.sum(axis=(0, 1), keepdims=True), (part * x[0]).sum(axis=-1).sum(),
    )  # fmt: skip


def assigned(x: Any) -> Any:
    y, z, w, u = x.copy(), x.copy(), np.zeros_like(x), x.copy()
    y[y < 0] = 0.0
    z[z > 1.0] *= 2.0
    z[z > 0] = np.log(z[z > 0]) + 1.0
    m = x > 0.2
    w[m] = np.sqrt(x[m]) / (1.0 + x[m]) - x.mean()
    w[~m] += 5.0
    u[m] -= u[m].mean()
    u[x[:, 0] > 0] += x[1]
    first = x[0].copy()
    first[first > 0] = 3.0
    return y, z, w, u, first


def whole_numbers(x: Any) -> Any:
    i = np.round(x * 10.0).astype(np.int64)
    v = i[i > 2]
    return v.sum(), v.mean(), v.prod() % 7, (v // 2).sum(), (v & 1).any()


CASES = [reductions, counts, one_by_one, rows, assigned, whole_numbers]


@pytest.mark.parametrize("case", CASES)
def test_as_in_numpy(case: Case) -> None:
    for ours, theirs in zip(tg.tree.leaves(tg.jit(case)(X)), tg.tree.leaves(case(X)), strict=True):
        assert np.shape(ours) == np.shape(theirs)
        assert np.asarray(ours).dtype == np.asarray(theirs).dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)
    if case not in (counts, whole_numbers):
        check_grads(case, [X], order=2, rtol=1e-4, atol=1e-4)
    with tg.eager():
        for ours, theirs in zip(tg.tree.leaves(tg.jit(case)(X)), tg.tree.leaves(case(X)), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def test_a_mask_as_an_argument() -> None:
    loss = tg.value_and_grad(lambda x, mask: np.mean((x[mask] - 1.0) ** 2))
    for mask in (X > 0, np.zeros(X.shape, bool), np.ones(X.shape, bool)):
        with np.errstate(all="ignore"):
            expected = np.mean((X[mask] - 1.0) ** 2) if mask.any() else np.nan
        value, gradient = loss(X, mask)
        np.testing.assert_allclose(value, expected)
        if mask.any():
            np.testing.assert_allclose(gradient, np.where(mask, 2.0 * (X - 1.0), 0.0) / mask.sum())
    assert loss.traces == 1


def test_nothing_selected() -> None:
    found = tg.jit(lambda x: (x[x > 9].sum(), x[x > 9].max(), x[x > 9].mean(), np.median(x[x > 9]), x[x > 9].std()))(X)
    np.testing.assert_array_equal(found, [0.0, np.nan, np.nan, np.nan, np.nan])


def test_k_means() -> None:
    def centres(points: Any, start: Any) -> Any:
        for _ in range(3):
            label = np.linalg.norm(points[:, None] - start, axis=2).argmin(axis=1)
            start = np.stack([points[label == k].mean(axis=0) for k in range(len(start))])
        return start

    points = RNG.normal(size=(20, 2))
    np.testing.assert_allclose(tg.jit(centres)(points, points[:3]), centres(points, points[:3]))


def other_places(x: Any) -> Any:
    y = x.copy()
    y[x > 0] = x[x > 1]
    return y


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (lambda x: x[x > 0], "a result of x.mask. at .*: how many elements a traced mask selects is not known"),
        (lambda x: x[x > 0] + x, "add with an array of shape .4, 5. of x"),
        (lambda x: x + x[x > 0], "add with an array of shape .4, 5. of x"),
        (lambda x: np.add(x, x[x > 0]), "numpy.add with an array of shape"),
        (lambda x: x[x > 0] + x[x > 1], "elements selected by two masks"),
        (lambda x: x[x[0] > 0] + 1, "a boolean mask of a traced value bool.5. is not known"),
        (lambda x: x[x[:, 0] > 0] * x[x[:, 0] > 0, 0], "or of different rank"),
        (lambda x: len(x[x > 0]), "fix: use mask.sum()"),
        (lambda x: x[x > 0][0], "an element or a part of x.mask."),
        (lambda x: np.sort(x[x > 0]), "numpy.sort of x.mask."),
        (lambda x: np.concatenate([x[0], x[x > 0]]), "of x.mask."),
        (lambda x: x[x > 0].cumsum(), "the attribute cumsum of x.mask."),
        (lambda x: list(x[x > 0]), "going through the elements of x.mask."),
        (lambda x: x[x[:, 0] > 0] @ x[0], "a product of matrices of x.mask."),
        (lambda x: x.astype(np.int64)[x > 0].max(), "max of int64 of x.mask."),
        (lambda x: x[x > 0].sum(axis=1), "sum over axis 1 of x.mask."),
        (lambda x: np.add.accumulate(x[x > 0]), "numpy.add.accumulate of x.mask."),
        (other_places, "an assignment to other places of x.mask."),
    ],
)  # fmt: skip
def test_refused(case: Case, text: str) -> None:
    with pytest.raises(TracerError, match=text):
        tg.jit(case)(X)
    with pytest.raises(AttributeError):
        tg.jit(lambda x: x[x > 0].nothing)(X)


# --- copies and views -------------------------------------------------------------------------------------------------


def changed_after_a_mask(x: Any) -> Any:
    y = x * 1.0
    m = y > 0
    v = y[m]
    y[:] = 7.0
    m[:] = True
    v += 1.0
    return v.sum(), y, y[m].sum()


def two_names_for_a_selection(x: Any) -> Any:
    v = x[x > 0]
    w = np.real(v)
    w *= 2.0
    table = np.arange(20.0).reshape(4, 5)
    t = tg.numpy.asarray(table)[x > 0]
    u = t
    u += v
    return v.sum(), w.mean(), t.sum(), (t - u).max(), x.sum()


@pytest.mark.parametrize("program", [changed_after_a_mask, two_names_for_a_selection])
def test_what_a_mask_selects_is_a_copy(program: Case) -> None:
    for ours, theirs in zip(tg.jit(program)(X), program(X.copy()), strict=True):
        np.testing.assert_allclose(ours, theirs)


def test_a_selection_is_changed_in_a_loop() -> None:
    pytest.importorskip("malt")

    def program(x: Any, n: Any) -> Any:
        v = x[x > 0]
        w = v
        for _ in range(n):
            v += 1.0
            if x[0, 0] > 9.0:
                v *= 2.0
        return w.sum()

    np.testing.assert_allclose(tg.jit(program)(X, 3), program(X, 3))


# --- x[start:stop] with bounds that are not known ---------------------------------------------------------------------


def sums_of_parts(x: Any, n: Any) -> Any:
    return x[:n].sum(), x[n:].prod(), x[-n:].var(), x[n:-1].sum(), x[:n] @ x[:n], np.exp(x[n:]).sum(), x[1:n].mean()


def parts_changed(x: Any, n: Any) -> Any:
    y = x.copy()
    y[n:] = 0.5
    y[:n] *= 2.0
    y[n:] += x[n:] * 3.0
    y[:n] = np.sin(x[:n])
    v = y[1:n]
    v -= 1.0
    w = y[n:]
    y[0] = 100.0
    return y, v.sum(), w.sum()


def parts_of_rows(x: Any, n: Any) -> Any:
    a = np.outer(x, x)
    a[n:, 1] = 5.0
    a[2, n:] -= a[1, n:]
    a[1, :n] = 0.5
    a[:n] += x
    t = a.T[:n]
    t *= 0.5
    u = a[n:]
    w = u[:, 1:3]
    w += 2.0
    return a, u.sum(), w.sum(), a[n:, 0].sum(), a[:n].sum(axis=0), a[:n, 2:4].sum(), (a[1, :n] * a[2, :n]).sum()


@pytest.mark.parametrize("program", [sums_of_parts, parts_changed, parts_of_rows])
def test_slices_with_traced_bounds(program: Callable[..., Any]) -> None:
    pytest.importorskip("malt")
    compiled = tg.jit(program)
    x = X.ravel()[:7]
    for n in (0, 1, 3, 7, 9, -2, -9):
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = program(x, n)
        for ours, theirs in zip(compiled(x, n), expected, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert compiled.traces == 1
    check_grads(tg.jit(lambda x: program(x, np.int64(3))), [x], order=1)
    check_grads(lambda x: compiled(x, 3), [x], order=1)


def table_by_a_traced_bound(x: Any, n: Any) -> Any:
    table = np.arange(8.0)
    return x * table[:n].sum()


def test_a_table_of_numpys_by_a_traced_bound() -> None:
    pytest.importorskip("malt")
    np.testing.assert_allclose(tg.jit(table_by_a_traced_bound)(X, 3), X * 3.0)


@pytest.mark.parametrize(
    ("program", "text"),
    [
        (lambda x, n: x[:n], r"x\[start:stop\] with a traced bound.*: how many elements it has"),
        (lambda x, n: x[:n] + x[n:], "different"),
        (lambda x, n: x[:n] + x, r"add with an array of shape .4, 5. of x\[start:stop\]"),
        (lambda x, n: np.sort(x[:n]), r"numpy.sort of x\[start:stop\]"),
        (lambda x, n: x[:n, n:].sum(), "an integer of a traced value i64 is not known"),
        (lambda x, n: x[::n].sum(), "an integer of a traced value i64 is not known"),
        (lambda x, n: assigned_to(x.copy(), n, np.ones(2)), r"f64\[2\] in the places of a traced mask or slice"),
        (lambda x, n: added_to(x.astype(np.int64), n), "which cannot be stored in i64"),
    ],
)  # fmt: skip
def test_slices_refused(program: Callable[..., Any], text: str) -> None:
    pytest.importorskip("malt")
    with pytest.raises(tg.TracegradError, match=text):
        tg.jit(program)(X, 2)


def assigned_to(y: Any, n: Any, value: Any) -> Any:
    y[0, :n] = value
    return y


def added_to(y: Any, n: Any) -> Any:
    y[:n] += 0.5
    return y
