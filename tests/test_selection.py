"""x[mask] for masks that are not known while tracing: elements one by one, reductions, assignments; else refused."""

from __future__ import annotations

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
