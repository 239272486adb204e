"""Slices x[i:i + 3] whose bounds move with the counter of a compiled loop: windows, read and written as in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.api.python_control import loops
from tracegrad.testing import check_grads

IMAGE = np.random.default_rng(0).normal(size=(8, 9))
KERNEL = np.random.default_rng(1).normal(size=(3, 2))
Program = Callable[[Any, Any], Any]


def convolution(image: Any, kernel: Any) -> Any:
    (h, w), (kh, kw) = image.shape, kernel.shape
    out = np.zeros((h - kh + 1, w - kw + 1))
    for i in range(h - kh + 1):
        for j in range(w - kw + 1):
            out[i, j] = (image[i : i + kh, j : j + kw] * kernel).sum()
    return out


def transposed_convolution(image: Any, kernel: Any) -> Any:
    (h, w), (kh, kw) = image.shape, kernel.shape
    out = np.zeros((h + kh - 1, w + kw - 1))
    for i in range(h):
        for j in range(w):
            out[i : i + kh, j : j + kw] += image[i, j] * kernel
    return out


def pooling(image: Any, _: Any) -> Any:
    h, w = image.shape
    out = np.zeros((h // 2, w // 2))
    for i in range(h // 2):
        for j in range(w // 2):
            out[i, j] = image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max()
    return out


def running_median(image: Any, _: Any) -> Any:
    x = image.reshape(-1)
    out = x.copy()
    for i in range(3, len(x) - 3):
        out[i] = np.median(x[i - 3 : i + 4])
    return out


def cut_at_the_ends(image: Any, _: Any) -> Any:
    x = image.reshape(-1)
    out = np.zeros(len(x))
    for i in range(len(x)):
        out[i] = x[max(i - 2, 0) : i + 3].mean()
    return out


def empty_before_the_start(image: Any, _: Any) -> Any:
    x = image.reshape(-1)
    out = np.zeros(len(x))
    for i in range(len(x)):
        out[i] = x[i - 1 : i + 2].sum()
    return out


def views(image: Any, _: Any) -> Any:
    x = image.reshape(-1).copy()
    for i in range(1, len(x) - 1):
        x[i - 1 : i + 2] *= 0.5
        v = x[i : i + 2]
        v += 1.0
        w = x[i - 1 : i + 1]
        w[0] = 0.25
        x[i] += w.sum() * 0.1
    return x


def mixed_with_numbers_and_slices(image: Any, _: Any) -> Any:
    out = np.zeros_like(image)
    for i in range(len(image) - 2):
        out[i] = image[i : i + 3].sum(axis=0) + image[i : i + 2, 1].sum() + image[i + 1, 0:2].sum()
        out[i, 1:3] += image[i + 1 : i + 3, i + 1]
        out[i, 5:] -= image[2:4, i : i + 4].sum(axis=0)
        out[2:, i : i + 1] += 0.5
    return out


def reshaped(image: Any, _: Any) -> Any:
    x = image.reshape(-1).copy()
    for i in range(len(x) - 4):
        m = x[i : i + 4].reshape(2, 2)
        m[0, 1] = 0.5 * m[1, 1]
        m.T[1] *= 0.75
    return x


PROGRAMS = [
    convolution, transposed_convolution, pooling, running_median, cut_at_the_ends, empty_before_the_start, views,
    mixed_with_numbers_and_slices, reshaped,
]  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_as_numpy_does(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("malt")
    monkeypatch.setattr("tracegrad.api.python_control.PATIENCE", 5)
    monkeypatch.setattr(loops, "MOST_NODES", 0)
    compiled = tg.compile(program, IMAGE, KERNEL)
    assert len(compiled.graph.nodes) < 12
    np.testing.assert_allclose(compiled(IMAGE, KERNEL), program(IMAGE.copy(), KERNEL))
    check_grads(tg.jit(program), (IMAGE, KERNEL), order=1)


def test_a_window_is_gathered_and_not_masked() -> None:
    pytest.importorskip("malt")
    text = str(tg.compile(convolution, np.ones((40, 40)), KERNEL).graph)
    assert "= gather(" in text
    assert "less" not in text and "where" not in text


def by_an_argument(x: Any, n: Any) -> Any:
    k, m = max(n, 0) // 2, (n - n % 2) * 0
    return x[k : k + 3].sum(), x[m : m + 2].sum(), x[n : n + 3].sum()


@pytest.mark.parametrize("n", [-4, -1, 0, 3, 14, 30])
def test_bounds_that_nothing_is_known_of_are_those_of_a_mask(n: int) -> None:
    pytest.importorskip("malt")
    x = IMAGE[0]
    np.testing.assert_allclose(tg.jit(by_an_argument)(x, n), by_an_argument(x, n))


def by_small_integers(x: Any, k: Any) -> Any:
    return x[k:].sum(), x[:k].sum()


@pytest.mark.parametrize("k", [-100, 100, -3, 5])
def test_narrow_bounds_do_not_wrap(k: int) -> None:
    pytest.importorskip("malt")
    x = np.arange(200.0)
    assert tg.jit(by_small_integers)(x, np.int8(k)) == by_small_integers(x, k)


@pytest.mark.parametrize("dtype", [np.int8, np.int64])
def test_a_counter_that_may_wrap_has_no_bounds(dtype: Any) -> None:
    pytest.importorskip("malt")

    def program(x: Any) -> Any:
        total = 0.0 * x[0]
        for i in range(100):
            k = np.asarray(i).astype(dtype) * dtype(2) // dtype(4)
            total = total + x[k : k + 3].sum() * np.sin(total) * np.cos(total) + x[k : k + 1].mean()
        return total

    x = np.random.default_rng(3).normal(size=60)
    np.testing.assert_allclose(tg.jit(program)(x), program(x))
