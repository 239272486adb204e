"""Methods of NumPy's arrays on traced values: what changes in place, what goes through elements, what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.errors import MissingAttribute, TracerError
from tracegrad.testing import check_grads

X = np.random.default_rng(11).normal(size=(3, 4))
Case = Callable[[Any], Any]


def sorted_in_place(x: Any) -> Any:
    y, z, s = x.copy(), x.copy(), x.copy()
    nothing = y.sort(), z.sort(0, kind="stable"), s[1:, ::2].sort(axis=1)
    assert nothing == (None, None, None)
    w = x[0].copy()
    w.partition(2)
    return y, z, s, np.sort(w), np.sort(x[0][x[0].argpartition(1)[:2]])


def put(x: Any) -> Any:
    y, z = x.copy(), x.copy()
    y.put([0, 5, 7], [7.0, x[1, 1]])
    z.put([[1, 2]], 4)
    return y, z


def flat(x: Any) -> Any:
    y, z, a = x.copy(), x.copy(), x.copy()
    y.T.flat[1] = x[0, 0] * 2
    tnp.array(y, ndmin=3)[0, 0] = 100.0
    y.flat[[2, 3]] = 5.0
    z.flat = x.flat[::-1]
    a.flat[2:4] += a.flat[0]
    total = sum(v * i for i, v in enumerate(x.flat))
    return y, z, a, x.flat[3], x.flat[-2:], total, np.sum(x.flat), np.exp(x.flat), np.stack([2 * v for v in x.flat])


def made(x: Any) -> Any:
    rows = x.tolist()
    return (
        rows[0][1] + rows[2][3], x[0, 0].tolist(), x.compress([True, False, True], axis=0), x.compress([0, 1]),
        np.array(x, copy=True, ndmin=3), np.array(rows), np.asarray(x, float, order="C"), np.array(x[0], order="F"),
    )  # fmt: skip


@pytest.mark.parametrize("case", [sorted_in_place, put, flat, made])
def test_as_in_numpy(case: Case) -> None:
    before = X.copy()
    for ours, theirs in zip(tg.tree.leaves(tg.jit(case)(X)), tg.tree.leaves(case(X)), strict=True):
        assert np.shape(ours) == np.shape(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    np.testing.assert_array_equal(X, before)
    if case is not made:  # which NumPy's own functions need converted
        check_grads(case, [X], order=2)


def test_numbers_of_lists_are_like_pythons() -> None:
    def fn(x: Any) -> Any:
        first, second = x.tolist()[0][:2]
        return first, x * second, x.astype(np.int32).tolist()[0][0]

    for ours, theirs in zip(tg.jit(fn)(X.astype(np.float32)), fn(X.astype(np.float32)), strict=True):
        assert np.asarray(ours).dtype == np.asarray(theirs).dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_sort_by_its_other_names_is_pytorchs() -> None:
    def both(x: Any) -> Any:
        y = x.copy()
        values, at = y.sort(dim=0)
        return values, at, y.sort(descending=True)[0], y

    values, at, down, same = tg.jit(both)(X)
    np.testing.assert_array_equal(values, np.sort(X, 0))
    np.testing.assert_array_equal(at, np.argsort(X, 0))
    np.testing.assert_array_equal(down, np.sort(X)[:, ::-1])
    np.testing.assert_array_equal(same, X)
    held = tg.tensor(X)
    assert held.sort()[0].numpy().tolist() == np.sort(X).tolist() and held.numpy().tolist() == X.tolist()
    assert held.sort(1, True).values.numpy().tolist() == np.sort(X)[:, ::-1].tolist()


@pytest.mark.parametrize(
    ("case", "error", "text"),
    [
        (lambda x: x.sort(), TracerError, "it would change the argument x in place"),
        (lambda x: x.nonzero(), MissingAttribute, "x.nonzero at .*: a traced value f64.3, 4. gives a"),
        (lambda x: x.tobytes(), MissingAttribute, "fix: ask the value that the function returns"),
        (lambda x: x.compress(x[0] > 0, 1), TracerError, "compress at .*: the size of the result"),
        (lambda x: x.copy().put([0], 1.0, mode="clip"), TypeError, "put at .*: mode='clip' is not supported"),
        (lambda x: x.copy().sort(order="a"), TypeError, "sort at .*: order= is not supported"),
        (lambda x: x.nothing, AttributeError, "'Tracer' object has no attribute 'nothing'"),
    ],
)  # fmt: skip
def test_refused(case: Case, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        tg.jit(case)(X)


def test_the_number_of_elements_is_a_number() -> None:
    def uses(x: Any) -> Any:
        return (
            x.sum() / x.size, x[0] * x.size, np.where(x[0] > 0, x.size, 0.0), np.maximum(x[0, 0], x.size),
            np.clip(x[0], 0, x.size), np.dot(x[0], x.size), np.full(2, x.size) * x[0, 0], x[0] - x[:, 0].size,
        )  # fmt: skip

    for run in (tg.jit(uses), lambda x: [v.numpy() for v in uses(tg.tensor(x))]):
        for ours, theirs in zip(run(X), uses(X), strict=True):
            assert np.shape(ours) == np.shape(theirs)
            np.testing.assert_allclose(ours, theirs)
    assert tg.tensor(X).size() == (3, 4) and tg.tensor(X).size(1) == 4


class Metres:
    """A class with operators of its own, which NumPy's arrays leave to it."""

    __array_ufunc__ = None

    def __init__(self, value: float) -> None:
        self.value = value

    def __rmul__(self, x: Any) -> Any:
        return x * self.value

    def __sub__(self, x: Any) -> Any:
        return self.value - x


def test_operators_of_other_classes_are_theirs() -> None:
    x = np.array([1.0, 2.0])
    for fn in (lambda x: x * Metres(3.0), lambda x: Metres(3.0) - x):
        np.testing.assert_array_equal(tg.jit(fn)(x), fn(x))
