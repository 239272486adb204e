"""Indexing against NumPy, drawn by hypothesis: values, gradients and updates; then the refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError, DTypeError, IndexOutOfBounds, ShapeError, TracegradError, TracerError
from tracegrad.grad.adjoint import joint
from tracegrad.ir import Aval, interpret, verify
from tracegrad.testing import check_grads
from tracegrad.trace import trace

F64 = np.dtype(np.float64)
QUICK = settings(max_examples=120, deadline=None, derandomize=True)


def whole(n: int) -> st.SearchStrategy[int]:
    return st.integers(-n, n - 1)


@st.composite
def slices(draw: st.DrawFn, n: int) -> slice:
    ends = st.one_of(st.none(), st.integers(-n - 2, n + 2))
    return slice(draw(ends), draw(ends), draw(st.sampled_from([None, 1, 2, 3, -1, -2])))


@st.composite
def basic(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """Draw a shape and a basic index."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    entries: list[Any] = []
    for n in shape[: draw(st.integers(0, len(shape)))]:
        entries.append(draw(st.one_of(whole(n), slices(n))))
    return shape, tuple(with_extras(draw, entries, len(shape)))


@st.composite
def advanced(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """Draw a shape and an index with at least one array or mask."""
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    points = tuple(draw(st.lists(st.integers(0, 3), max_size=2)))
    taken = draw(st.integers(1, len(shape)))
    sure = draw(st.integers(0, taken - 1))
    entries: list[Any] = []
    for axis, n in enumerate(shape[:taken]):
        kind = "array" if axis == sure else draw(st.sampled_from(["array", "slice", "integer", "list"]))
        if kind in ("array", "list"):
            cut = draw(st.integers(0, len(points)))
            size = tuple(1 if draw(st.booleans()) and m > 1 else m for m in points[cut:])
            count = int(np.prod(size))
            flat = draw(st.lists(whole(n), min_size=count, max_size=count))
            array = np.array(flat, np.int64).reshape(size)
            entries.append(array.tolist() if kind == "list" and array.ndim and array.size else array)
        else:
            entries.append(draw(whole(n) if kind == "integer" else slices(n)))
    return shape, tuple(with_extras(draw, entries, len(shape)))


def with_extras(draw: st.DrawFn, entries: list[Any], ndim: int) -> list[Any]:
    """Put None and one Ellipsis in where they may stand."""
    for _ in range(draw(st.integers(0, 2))):
        entries.insert(draw(st.integers(0, len(entries))), None)
    if draw(st.booleans()):
        at = len(entries) if sum(e is not None for e in entries) < ndim and draw(st.booleans()) else None
        if at is None and sum(e is not None for e in entries) == ndim:
            at = draw(st.integers(0, len(entries)))
        if at is not None:
            entries.insert(at, Ellipsis)
    return entries


def values(shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(1).permutation(np.arange(float(np.prod(shape)))).reshape(shape)


def check_read(shape: tuple[int, ...], index: Any) -> None:
    """Compare x[index], and the gradient of <w, x[index]>, with NumPy."""
    x = values(shape)
    expected = x[index]
    weights = np.random.default_rng(2).uniform(1.0, 2.0, np.shape(expected))
    traced = trace(lambda v: v[index], [Aval(shape, F64)])
    verify(traced.graph)
    found = interpret(traced.graph, x, *traced.captures)[0]
    assert np.shape(found) == np.shape(expected)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(tnp.asarray(x)[index], expected)
    back = np.zeros(shape)
    np.add.at(back, index, weights)
    graph = joint(traced.graph, (0,), seeds=(0,))
    np.testing.assert_allclose(interpret(graph, x, *traced.captures, weights)[1], back)


def check_write(shape: tuple[int, ...], index: Any, unique: bool) -> None:
    """Compare x.at[index] with assignment in NumPy."""
    x = values(shape)
    updates = np.random.default_rng(3).uniform(1.0, 2.0, np.shape(x[index]))
    put, added = x.copy(), x.copy()
    put[index] = updates
    np.add.at(added, index, updates)
    np.testing.assert_array_equal(tnp.at(x)[index].set(updates), put)
    np.testing.assert_allclose(tnp.at(x)[index].add(updates), added)
    traced = trace(lambda v, u: (v.at[index].set(u), v.at[index].add(u)), [Aval(shape, F64), Aval(updates.shape, F64)])
    found = interpret(verify(traced.graph), x, updates, *traced.captures)
    np.testing.assert_array_equal(found[0], put)
    np.testing.assert_allclose(found[1], added)
    if unique:
        scaled, larger = x.copy(), x.copy()
        scaled[index] *= updates
        larger[index] = np.maximum(x[index], updates)
        np.testing.assert_allclose(tnp.at(x)[index].multiply(updates), scaled)
        np.testing.assert_allclose(tnp.at(x)[index].max(updates), larger)
    np.testing.assert_array_equal(x, values(shape))


@QUICK
@given(basic())
def test_basic(drawn: tuple[tuple[int, ...], Any]) -> None:
    check_read(*drawn)
    check_write(*drawn, unique=True)


@settings(QUICK, max_examples=250)
@given(advanced())
def test_advanced(drawn: tuple[tuple[int, ...], Any]) -> None:
    check_read(*drawn)
    check_write(*drawn, unique=False)


@pytest.mark.parametrize(
    "index",
    [
        ([0, 1], slice(None), [1, 2]),
        ([0, 1], Ellipsis, [1, 2]),
        (0, slice(None), [1, 2]),
        (slice(None), 0, [1, 2]),
        ([0, 1], None, [1, 2]),
        (None, [[0], [1]], [1, 2]),
        ([0, 1], [1, 2], slice(None, None, -1)),
        (slice(1, None), [1, 2], [0, 3]),
        ([0, 1], [1, 2], [3, 0], Ellipsis),
        ([0, 1], Ellipsis, [1, 2], [3, 0]),
        np.array([[True, False, True], [False, True, True]]),
        (np.array([True, False]), slice(None), [1]),
        (Ellipsis, np.array([True, False, True, True])),
        (slice(None), np.array([True, False, True]), None),
        ([], slice(None)),
        np.zeros((2, 3, 4), bool),
        (np.int32(1), np.uint8(2)),
        np.array(1),
    ],
    ids=str,
)
def test_mixes(index: Any) -> None:
    check_read((2, 3, 4), index)
    check_write((2, 3, 4), index, unique=False)


def test_traced_indices() -> None:
    x = values((4, 3, 5))
    i, j = np.array([3, -1, 0]), np.array(2)

    def fn(v: Any, a: Any, b: Any) -> Any:
        return v[a], v[b], v[a, :, b], v[1:, b, a], v[a[:, None], b], v[..., a], v[b + 1, 0]

    expected = fn(x, i, j)
    traced = trace(fn, [Aval(x.shape, F64), Aval((3,), np.dtype(np.int64)), Aval((), np.dtype(np.int64))])
    for found, right in zip(interpret(traced.graph, x, i, j), expected, strict=True):
        np.testing.assert_array_equal(found, right)
    check_grads(lambda v, a: v[a] * v[a, :, 1:2], [x, i], order=2)
    check_grads(lambda v, u, a: v.at[a].set(u) * v.at[a].add(u), [x, values((3, 3, 5)), np.array([3, 2, 2])], order=2)


def test_numpy_array_indexed_by_a_traced_value() -> None:
    table = np.array([10.0, 20.0, 30.0])
    traced = trace(lambda i: tnp.asarray(table)[i], [Aval((2,), np.dtype(np.int32))])
    np.testing.assert_array_equal(
        interpret(traced.graph, np.array([2, 0], np.int32), *traced.captures)[0], [30.0, 10.0]
    )
    table[0] = 11.0
    np.testing.assert_array_equal(
        interpret(traced.graph, np.array([2, 0], np.int32), *traced.captures)[0], [30.0, 11.0]
    )


def test_updates_broadcast_and_convert() -> None:
    x = np.zeros((2, 3), np.float32)
    np.testing.assert_array_equal(tnp.at(x)[0].set(1), [[1, 1, 1], [0, 0, 0]])
    np.testing.assert_array_equal(tnp.at(x)[:, 1].add(np.array([[1.0, 2.0]])), [[0, 1, 0], [0, 2, 0]])
    assert tnp.at(x)[0].set(np.float64(1.0)).dtype == np.float32
    np.testing.assert_array_equal(tnp.at(x)[..., 0].get(), [0, 0])
    np.testing.assert_array_equal(tnp.at(x + 4)[0, 1:].divide(2)[0], [4, 2, 2])
    np.testing.assert_array_equal(tnp.at(x + 4)[0, 0].power(2)[0], [16, 4, 4])
    np.testing.assert_array_equal(tnp.at(x + 4)[[0], 0].min(1)[0], [1, 4, 4])
    np.testing.assert_array_equal(tnp.at(x)[[0, 0], 0].subtract(1)[0], [-2, 0, 0])


def refused(
    error: type[TracegradError], text: str, fn: Any, shape: tuple[int, ...] = (2, 3), more: tuple[Any, ...] = ()
) -> None:
    with pytest.raises(error) as caught:
        trace(fn, [Aval(shape, F64), *more])
    message = str(caught.value)
    assert text in message, message
    assert "at test_numpy_indexing.py:" in message
    assert "\n  fix: " in message


def test_refusals() -> None:
    refused(IndexOutOfBounds, "5 is out of bounds for axis 1 of size 3 of f64[2, 3]", lambda x: x[0, 5])
    refused(IndexOutOfBounds, "-3 is out of bounds for axis 0 of size 2", lambda x: x[[0, -3]])
    refused(IndexOutOfBounds, "3 indices for f64[2, 3], which has 2 axes", lambda x: x[0, 0, 0])
    refused(
        IndexOutOfBounds, "a mask of size 2 does not fit axis 1 of f64[2, 3]", lambda x: x[:, np.array([True, False])]
    )
    refused(DTypeError, "f64[2] is not integer or bool", lambda x: x[np.array([0.0, 1.0])])
    refused(DTypeError, "is not integer or bool", lambda x: x[1.5])
    refused(ArgumentError, "only one Ellipsis", lambda x: x[..., ...])
    refused(ArgumentError, "a value of type str", lambda x: x["a"])
    refused(ArgumentError, "the bool True is not an index", lambda x: x[True])
    refused(TracerError, "how many elements a traced mask selects is not known", lambda x: x[x > 0])
    refused(ShapeError, "f64[4] does not fit x[index] of shape (3,)", lambda x: x.at[0].set(np.zeros(4)))
    refused(DTypeError, "f64 cannot be stored in i64[2, 3]", lambda x: tnp.astype(x, int).at[0].set(np.float64(1.5)))
    refused(ArgumentError, "may name one place twice", lambda x: x.at[[0, 0]].multiply(2.0))


def test_static_masks_of_traced_values_are_fine_outside_a_trace() -> None:
    x = np.arange(4.0)
    np.testing.assert_array_equal(tnp.at(x)[x > 1].set(0.0), [0.0, 1.0, 0.0, 0.0])
    np.testing.assert_array_equal(tnp.at(x)[x > 1].multiply(2.0), [0.0, 1.0, 4.0, 6.0])
