"""Small programs with Python's own control flow, and what is asked of each: the values and the gradient of plain
Python, with one compilation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg

Function = Callable[..., Any]
X = np.array([0.5, -1.5, 2.0])


class Programs:
    """The programs of a file."""

    def __init__(self) -> None:
        self.rows: list[tuple[Function, list[tuple[Any, ...]], bool]] = []

    def add(self, *inputs: Any, smooth: bool = True) -> Callable[[Function], Function]:
        """Register a program with the arguments to run it on; `smooth` says that its first argument has a gradient."""

        def register(fn: Function) -> Function:
            self.rows.append((fn, [i if isinstance(i, tuple) else (i,) for i in inputs], smooth))
            return fn

        return register

    @property
    def all(self) -> Any:
        return pytest.mark.parametrize(("fn", "inputs"), [pytest.param(*r[:2], id=r[0].__name__) for r in self.rows])

    @property
    def smooth(self) -> Any:
        rows = [pytest.param(*r[:2], id=r[0].__name__) for r in self.rows if r[2]]
        return pytest.mark.parametrize(("fn", "inputs"), rows)


def flatten(value: Any) -> list[Any]:
    return [np.asarray(v) for v in (value if isinstance(value, tuple) else (value,))]


def check_values(fn: Function, inputs: list[tuple[Any, ...]]) -> None:
    """Compare compiled values with those of plain Python."""
    compiled = tg.jit(fn)
    for args in inputs:
        expected, found = fn(*args), compiled(*args)
        for a, b in zip(flatten(expected), flatten(found), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12)
            assert np.asarray(b).dtype.kind in (np.asarray(a).dtype.kind, "f")
    assert compiled.traces == 1


def check_gradient(fn: Function, inputs: list[tuple[Any, ...]]) -> None:
    """Compare the compiled gradient with central differences of plain Python."""
    gradient = tg.grad(fn)
    rng = np.random.default_rng(0)
    for x, *rest in inputs:
        direction = rng.normal(size=np.shape(x))
        h = 1e-6 * max(1.0, float(np.max(np.abs(x))))
        numeric = (fn(x + h * direction, *rest) - fn(x - h * direction, *rest)) / (2 * h)
        np.testing.assert_allclose(np.sum(gradient(x, *rest) * direction), numeric, rtol=2e-5, atol=1e-6)
    assert gradient.traces == 1
