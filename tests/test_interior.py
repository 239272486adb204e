"""Loops with guards run as three: the interior, where nothing is asked, and what is before and behind it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.codegen.interior import interior_of
from tracegrad.config import config
from tracegrad.schedule.index import Affine
from tracegrad.schedule.kernel import Checked, Guard, Load, Stmt
from tracegrad.testing import check_grads

RNG = np.random.default_rng(8)
I, J = Affine.var("i"), Affine.var("j")


def load(*conditions: tuple[Affine, int, int]) -> Load:
    return Load("v", "f64", "x", I, Guard(conditions))


@pytest.mark.parametrize(
    ("body", "first", "end"),
    [
        ([load((I + -3, 0, 50))], [3], [53]),
        ([load((I + 2, 0, 50)), load((I * 2 + 1, 4, 60))], [-2, 2], [48, 30]),  # 4 <= 2 i + 1 < 60
        ([load((I + J, 0, 50))], [J * -1], [J * -1 + 50]),
    ],
)
def test_the_rounds_in_which_guards_hold(body: list[Stmt], first: list[Any], end: list[Any]) -> None:
    found = interior_of(body, "i", 55)
    affine = lambda bounds: tuple(b if isinstance(b, Affine) else Affine(b) for b in bounds)
    assert found is not None and (found.first, found.end) == (affine(first), affine(end))


@pytest.mark.parametrize(
    "body",
    [
        [Load("v", "f64", "x", I)],
        [load((I + -40, 0, 60))],  # most rounds are near an end
        [load((I * -1 + 50, 0, 50))],
        [Checked("n", "v", "i64", 9, 1), load((I + Affine.var("n"), 0, 50))],  # not known before the loop
    ],
)
def test_loops_that_are_not_cut(body: list[Stmt]) -> None:
    assert interior_of(body, "i", 60) is None
    assert interior_of([load((I + -3, 0, 9))], "i", 12) is None


def filtered(x: Any) -> Any:
    y = np.zeros(len(x) - 6)
    for k in range(7):
        y = y + np.sin(k + 1.0) * x[k : k + len(y)]
    return y


def stencil(x: Any) -> Any:
    u = x.copy()
    u[1:-1, 2:-3] += 0.2 * (u[2:, 2:-3] + u[:-2, 3:-2] - u[1:-1, 1:-4] * 4.0)
    return u


def strided(x: Any) -> Any:
    return x[1::2, ::3] * 2.0


def joined(x: Any) -> Any:
    """The gradient adds two padded arrays that do not meet."""
    return np.concatenate((np.exp(x[:20]), x[20:] ** 2))


def row_sums(x: Any) -> Any:
    return np.pad(x, ((2, 1), (3, 0))).cumsum(axis=0).sum(axis=1) + np.pad(x[:, 0], (1, 2))


PROGRAMS = {
    "filtered": (filtered, (61,)), "stencil": (stencil, (33, 37)), "strided": (strided, (40, 50)),
    "joined": (joined, (41,)), "row sums": (row_sums, (30, 25)), "empty interior": (stencil, (3, 40)),
    "rows of a stack": (lambda x: tg.vmap(filtered)(x), (3, 30)),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_values_and_gradients(name: str) -> None:
    fn, shape = PROGRAMS[name]
    x = RNG.normal(size=shape)
    if name != "rows of a stack":
        np.testing.assert_allclose(tg.jit(fn)(x), fn(x), rtol=1e-13, atol=1e-13)
    check_grads(tg.jit(lambda x: (fn(x) ** 2).sum()), (x,), order=2)


def test_what_is_not_finite_stays_where_it_is() -> None:
    x = RNG.normal(size=(33, 37))
    x[0, 5], x[16, 0], x[16, 18] = np.nan, np.inf, -np.inf
    np.testing.assert_allclose(tg.jit(stencil)(x), stencil(x), rtol=1e-13)


def test_the_same_bits_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    x, wide = RNG.normal(size=30_000), RNG.normal(size=(150, 400))
    found = []
    for threads in (1, 2):
        monkeypatch.setattr(config, "threads", threads)
        gradients = [tg.grad(lambda x, fn=fn: (fn(x) ** 2).sum()) for fn in (filtered, stencil)]
        found.append([g(a).tobytes() for g, a in zip(gradients, (x, wide), strict=True)])
    assert found[0] == found[1]


def test_a_large_update_in_place_is_part_of_the_loops_around_it() -> None:
    fn = lambda x: np.sqrt(stencil(x) ** 2 + 1.0)
    assert tg.compile(fn, tg.spec((33, 37))).kernels == 1

    def small(x: Any) -> Any:
        y = np.exp(x)
        y[3] = 0.0
        return y

    assert "set_slice" in tg.compile(small, tg.spec((33, 37))).schedule


def test_what_many_padded_terms_share_is_kept_and_not_the_terms() -> None:
    """dx of a filter is a sum of padded y * w[k]: y is stored, not 7 products."""
    compiled = tg.compile(tg.grad(lambda x: (filtered(x) ** 2).sum()), tg.spec((5000,)))
    assert compiled.kernels == 2 and compiled.arena_bytes < 2 * 8 * 5000
