"""A function that is traced again says why; tests can forbid it; users are warned once."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy
from tracegrad import tree
from tracegrad.config import config

X = np.ones(3)


def said(capsys: pytest.CaptureFixture[str]) -> str:
    lines = [line for line in capsys.readouterr().err.splitlines() if "traced again" in line]
    return lines[-1].partition("because of ")[2]


@pytest.fixture(autouse=True)
def verbose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "verbose", True)


CHANGES: list[tuple[Any, Any, str]] = [
    ((X,), (np.ones(4),), "x: f64[3] became f64[4]"),
    ((X,), (np.ones(3, np.float32),), "x: f64[3] became f32[3]"),
    ((X,), (2.0,), "x: f64[3] became float"),
    (({"a": X},), ({"a": X, "b": X},), "x['b'] is new: f64[3]"),
    (({"a": X, "b": X},), ({"a": X},), "x['b'] is not there any more"),
    (([X],), ((X,),), "another structure: PyTreeSpec("),
]


@pytest.mark.parametrize(("first", "second", "text"), CHANGES)
def test_the_change_is_named(first: Any, second: Any, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    f = tg.jit(lambda x: 2.0 * tree.leaves(x)[0])
    f(*first)
    f(*second)
    assert said(capsys).startswith(text)


def test_static_and_captured_values_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    scale = 2.0
    f = tg.jit(lambda x, n=1: x * scale * n, static=("n",))
    f(X, 2)
    f(X, 3)
    assert said(capsys) == "static n: 2 became 3"
    f(X)
    assert said(capsys) == "static n: 3 became not given"
    scale = 4.0
    f(X, 3)
    assert said(capsys) == "captured scale: 2.0 became 4.0"


def test_the_nearest_signature_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    f = tg.jit(lambda x, y: x.sum() + y.sum())
    f(X, X)
    f(np.ones(5), np.ones(5))
    f(X, np.ones(4))
    assert said(capsys) == "y: f64[3] became f64[4]"


def test_too_many_traces_fail_a_test() -> None:
    f = tg.jit(lambda x: x * 2.0)
    with tg.testing.assert_max_traces(2):
        f(X), f(np.ones(4)), f(X)
    with pytest.raises(AssertionError) as raised, tg.testing.assert_max_traces(1):
        f(X), f(np.ones(5)), f(np.ones(6))
    text = str(raised.value)
    assert text.endswith("is traced 2 times, more than 1:\n  1: x: f64[4] became f64[5]\n  2: x: f64[5] became f64[6]")

    @tg.testing.assert_max_traces(0)
    def again() -> None:
        f(X)
        tg.grad(lambda x: x.sum())(X)

    with pytest.raises(AssertionError, match="its first call"):
        again()


def test_a_function_traced_again_and_again_warns_once() -> None:
    f = tg.jit(lambda x: x * 2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for n in range(8):
            f(np.ones(n))
    with pytest.warns(UserWarning, match="traced 8 times, now because of x: f64.7. became f64.8.*fix: keep") as caught:
        f(np.ones(8))
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        f(np.ones(9))


def test_timings_name_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "cache", True)
    monkeypatch.setattr(config, "cache_dir", tmp_path)
    step = tg.jit(lambda x: x - tg.grad(lambda x: (x**3).sum())(x))
    stages = ["trace", "adjoint", "key", "simplify", "schedule", "import", "library", "emit", "optimise", "generate"]
    cold = tg.compile(step, X).timings
    assert list(cold) == [*stages, "load"] and all(seconds >= 0.0 for seconds in cold.values())
    assert cold["adjoint"] > 0.0 and cold["optimise"] > 0.0 and cold["generate"] > 0.0
    assert list(tg.compile(step, X).timings) == ["trace", "adjoint", "key", "load"]
