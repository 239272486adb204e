"""`cond` and `switch`: values, gradients, and the branch that is not taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from control_checks import X, assert_same, check

import tracegrad as tg


@pytest.mark.parametrize("first", [0.4, -0.4])
def test_cond(first: float) -> None:
    x = np.array([first, 1.5])

    def fn(v: Any, s: Any) -> Any:
        return tg.cond(v[0] > 0.0, lambda a: {"y": np.sin(a) * s, "n": a[1]}, lambda a: {"y": a * a, "n": s}, v)

    s = 2.5
    expected = {"y": np.sin(x) * s, "n": x[1]} if first > 0 else {"y": x * x, "n": np.float64(s)}
    check(fn, x, np.float64(s), expected=expected)


@pytest.mark.parametrize(("index", "taken"), [(-3, 0), (0, 0), (1, 1), (2, 2), (7, 2)])
def test_switch_takes_the_branch_at_the_end(index: int, taken: int) -> None:
    branches = [lambda v: v, lambda v: -v, lambda v: v * 10.0]
    fn = lambda i, v: tg.switch(i, branches, v)
    check(fn, np.int64(index), X, expected=branches[taken](X))
    with tg.eager():
        assert_same(tg.switch(np.uint8(max(index, 0)), branches, X), branches[max(taken, 0)](X))


def test_a_branch_gives_a_literal_an_input_and_the_same_value_twice() -> None:
    def fn(p: Any, v: Any) -> Any:
        return tg.cond(p, lambda a: (a, a, np.zeros(3), np.float64(1.0)), lambda a: (-a, a, a, a[0]), v)

    check(fn, np.bool_(True), X, expected=(X, X, np.zeros(3), np.float64(1.0)))
    check(fn, np.bool_(False), X, expected=(-X, X, X, X[0]))


def test_only_the_branch_taken_runs() -> None:
    table = np.arange(3.0)
    fn = tg.jit(lambda i: tg.cond(i < 3, lambda k: tg.numpy.asarray(table)[k], lambda k: np.float64(-1.0), i))
    assert fn(2) == 2.0
    assert fn(9) == -1.0
