"""Products of small matrices: computed in the loops of their neighbours, and fused with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.testing import check_grads

SMALL = [
    ((40, 8, 8), (40, 8, 8)), ((7, 3), (3, 5)), ((3,), (3,)), ((5, 1), (1, 900)), ((60, 16), (16, 16)),
    ((300, 8), (8, 16)), ((4, 3), (3,)), ((3,), (3, 4)), ((2, 2, 3, 3), (2, 1, 3, 3)), ((16, 4), (2, 4, 3)),
]  # fmt: skip
LARGE = [
    ((30, 17), (17, 4)), ((3, 4), (4, 17)), ((20, 20), (20,)), ((300, 16), (16, 16)), ((20, 12, 12), (20, 12, 12)),
    ((100, 4), (4, 12)),
]  # fmt: skip


def arrays(*shapes: tuple[int, ...], dtype: Any = np.float64) -> list[Any]:
    rng = np.random.default_rng(3)
    return [rng.normal(size=s).astype(dtype) for s in shapes]


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: np.dtype(t).name)
@pytest.mark.parametrize(("a", "b"), SMALL, ids=str)
def test_small_products_are_fused(a: Any, b: Any, dtype: Any) -> None:
    x, y = arrays(a, b, dtype=dtype)
    program = tg.compile(lambda x, y: np.tanh(np.sin(x) @ y) + 1.0, x, y)
    assert "= dot(" not in program.source
    np.testing.assert_allclose(program(x, y), np.tanh(np.sin(x) @ y) + 1.0, rtol=1e-5, atol=50 * np.finfo(dtype).eps)


@pytest.mark.parametrize(("a", "b"), LARGE, ids=str)
def test_larger_products_are_calls(a: Any, b: Any) -> None:
    program = tg.compile(lambda x, y: x @ y, *arrays(a, b))
    assert "= dot(" in program.source


@pytest.mark.parametrize(("a", "b"), SMALL, ids=str)
def test_gradients(a: Any, b: Any) -> None:
    if max(*a, *b) < 100:
        check_grads(lambda x, y: (np.tanh(x @ y) ** 2).sum(), arrays(a, b))


@pytest.mark.parametrize(("a", "b"), [*SMALL, *LARGE], ids=str)
def test_compiled_gradients_equal_eager_ones(a: Any, b: Any) -> None:
    x, y = arrays(a, b)
    gradient = tg.grad(lambda x, y: (np.tanh(x @ y) ** 2).sum(), argnums=(0, 1))
    compiled = gradient(x, y)
    with tg.eager():
        eager = gradient(x, y)
    for c, e in zip(compiled, eager, strict=True):
        np.testing.assert_allclose(c, e, rtol=1e-11, atol=1e-13)


def test_several_axes_are_summed() -> None:
    x, y = arrays((6, 2, 3), (3, 2, 5))
    program = tg.compile(lambda x, y: np.tensordot(x, y, ((1, 2), (1, 0))), x, y)
    assert "= dot(" not in program.source
    np.testing.assert_allclose(program(x, y), np.tensordot(x, y, ((1, 2), (1, 0))), rtol=1e-13)


def test_special_values() -> None:
    """A sum starts from 0.0, as the library's does; NaN and inf reach what they reach."""
    x = np.array([[-0.0, -0.0], [np.nan, 1.0], [np.inf, 1.0]])
    y = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = tg.jit(lambda x, y: x @ y)(x, y)
    assert not np.signbit(found[0]).any()
    np.testing.assert_array_equal(found, np.array([[0.0, 0.0], [np.nan, np.nan], [np.inf, np.nan]]))


def test_a_loop_over_small_matrices_calls_no_library() -> None:
    a, x = arrays((3, 3), (3,))
    program = tg.compile(lambda a, x: tg.fori_loop(0, 10, lambda i, x: 0.5 * np.tanh(a @ x) + x, x), a, x)
    assert "= dot(" not in program.source
    y = x
    for _ in range(10):
        y = 0.5 * np.tanh(a @ y) + y
    np.testing.assert_allclose(program(a, x), y, rtol=1e-12)


TALL = {
    "long sums of one column": ((300, 16), (16, 1), "", True),
    "short sums of one column": ((300, 8), (8, 1), "", False),
    "long sums of some columns": ((300, 16), (16, 5), "", True),
    "long sums of few columns": ((300, 16), (16, 4), "", False),
    "columns across rows": ((300, 5), (5, 16), "b", True),
    "columns along rows": ((300, 5), (5, 16), "a", False),
    "few rows": ((30, 5), (5, 16), "b", False),
    "part of a vector": ((300, 5), (5, 7), "f64", True),
    "a whole vector": ((300, 5), (5, 4), "f64", False),
}


@pytest.mark.parametrize("name", TALL)
def test_tall_products_that_are_slow_written_out_call_the_library(name: str) -> None:
    *shapes, how, calls = TALL[name]
    dtype = np.float64 if how == "f64" else np.float32
    a, b = (np.random.default_rng(i).standard_normal(s).astype(dtype) for i, s in enumerate(shapes))
    a, b = (np.asfortranarray(x) if how == side else x for x, side in ((a, "a"), (b, "b")))
    program = tg.compile(lambda a, b: a @ b, a, b)
    assert ("tg_ge" in program.schedule) is calls
    np.testing.assert_allclose(program(a, b), a @ b, rtol=1e-5, atol=1e-5)
