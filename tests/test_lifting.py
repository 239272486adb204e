"""What NumPy makes of outside arrays alone is computed at every call, as in plain Python."""

from __future__ import annotations

import functools
import types
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import nn
from tracegrad.errors import ShapeError

X = np.array([[1.0, 2.0, 3.0]])
W: Any = np.ones((2, 3))
POINT = namedtuple("POINT", ("a", "b"))


def agrees(f: Any, plain: Callable[..., Any], *args: Any) -> bool:
    """Say whether a compiled function gives what plain Python gives now."""
    with tg.eager():
        wanted = plain(*args)
    found = f(*args)
    np.testing.assert_allclose(found, wanted, rtol=1e-12)
    return True


def through_a_global(x: Any) -> Any:
    return x @ W.T + W.sum()


class Model:
    def __init__(self) -> None:
        self.w = np.ones(3)
        self.parts = [np.ones(3), {"b": np.zeros(3)}]
        self.me = self
        self.calls = 0
        self.history: list[Any] = []

    def __call__(self, x: Any) -> Any:
        self.calls += 1
        self.history.append(self.parts)
        return x * (self.w * self.me.w) + (2.0 * self.parts[1]["b"])

    def loss(self, x: Any) -> Any:
        return self(x).sum()


# --- arrays that change -----------------------------------------------------------------------------------------------
def test_views_sums_and_products_of_outside_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    f = tg.jit(through_a_global)
    assert agrees(f, through_a_global, X)
    monkeypatch.setitem(globals(), "W", np.full((2, 3), 5.0))
    assert agrees(f, through_a_global, X)
    W[1] = 7.0
    assert agrees(f, through_a_global, X)
    assert f.traces == 1


def test_closures_dicts_lists_and_tuples() -> None:
    w = np.ones(3)
    held: Any = {"a": [np.ones(3), POINT(np.ones(3), 2.0)], "t": (np.ones(3),)}

    def plain(x: Any) -> Any:
        scale = w.mean() * held["a"][0].max()
        return x * scale + 2.0 * held["a"][1].a * held["a"][1].b + held["t"][0][::-1]

    f = tg.jit(plain)
    for turn in range(3):
        assert agrees(f, plain, X)
        w = w + turn
        held["a"][0] = held["a"][0] * 3.0
        held["a"][1] = POINT(np.arange(3.0) + turn, 2.0)
        held["t"] = (np.arange(3.0),)
    assert f.traces == 1


@pytest.mark.parametrize("way", ["object", "method", "closure", "partial"])
def test_objects_keep_what_they_are_told(way: str) -> None:
    model = Model()
    plain = {
        "object": model,
        "method": model.loss,
        "closure": lambda x: model(x) * 1.0,
        "partial": functools.partial(Model.__call__, model),
    }[way]
    f = tg.jit(plain)
    f(X)
    assert model.calls == 1
    assert type(model.w) is type(model.parts[0]) is type(model.history[0][0]) is np.ndarray
    model.calls, model.history = 0, []
    model.w = np.full(3, 3.0)
    model.parts[1]["b"] = np.ones(3)  # type: ignore[index]
    assert agrees(f, plain, X)
    model.w *= 2.0
    assert agrees(f, plain, X)
    assert f.traces == 1


def test_gradients_pullbacks_and_forward_mode() -> None:
    w = np.ones(3)
    loss = lambda x: ((2.0 * w) * x * x).sum()
    gradient = tg.grad(loss)
    for factor in (1.0, 5.0):
        w = np.full(3, factor)
        np.testing.assert_array_equal(gradient(X), 4.0 * factor * X)
        np.testing.assert_array_equal(tg.vjp(loss, X)[1](1.0)[0], 4.0 * factor * X)
        np.testing.assert_array_equal(tg.jvp(loss, (X,), (np.ones_like(X),))[1], 4.0 * factor * X.sum())


def test_functions_that_compiled_ones_call() -> None:
    w = np.ones(3)
    inner = tg.jit(lambda x: x * w.sum())
    slope = tg.grad(lambda x: (x * x * (w + w)).sum())
    plain = lambda x: inner(x) + slope(x)
    f = tg.jit(plain)
    for factor in (1.0, 3.0):
        w = np.full(3, factor)
        np.testing.assert_array_equal(f(X), X * 3.0 * factor + 4.0 * factor * X)
    assert f.traces == 1


def test_loops_and_recursion() -> None:
    w = np.full(3, 0.5)

    def power(x: Any, n: int) -> Any:
        return x if n == 0 else power(x * (2.0 * w), n - 1)

    def plain(x: Any) -> Any:
        return tg.fori_loop(0, 3, lambda i, c: c * w.sum(), power(x, 2))

    f = tg.jit(plain)
    for factor in (0.5, 2.0):
        w = np.full(3, factor)
        np.testing.assert_allclose(f(X), X * (2.0 * factor) ** 2 * (3.0 * factor) ** 3)
    assert f.traces == 1


def test_models_and_user_modules() -> None:
    model = nn.Sequential(nn.Linear(3, 2, key=tg.random.key(0)), nn.Tanh())
    settings: Any = types.ModuleType("settings_of_a_user")
    settings.w = np.ones(3, np.float32)

    def plain(x: Any) -> Any:
        return model(x * settings.w[::-1]) @ (2.0 * model[0].weight)

    f = tg.jit(plain)
    x = X.astype(np.float32)
    assert np.allclose(f(x), plain(x))
    model = nn.Sequential(nn.Linear(3, 2, key=tg.random.key(1)), nn.Tanh())
    settings.w = np.arange(3, dtype=np.float32)
    assert np.allclose(f(x), plain(x))
    assert f.traces == 1


def test_one_array_under_two_names() -> None:
    a = b = np.ones(3)
    plain = lambda x: x * a + x * b
    f = tg.jit(plain)
    assert agrees(f, plain, X)
    b = np.full(3, 5.0)
    assert agrees(f, plain, X)
    a = np.zeros(3)
    assert agrees(f, plain, X)
    assert f.traces == 2


# --- arrays whose values tracing needs --------------------------------------------------------------------------------
NEEDED: list[tuple[str, Callable[[Any, Any, Any], Any]]] = [
    ("a mask", lambda x, m, w: x[0][m > 0] * w.sum()),
    ("a size", lambda x, m, w: np.ones(int(m[0])).sum() * x * (2.0 * w)),
    ("a branch", lambda x, m, w: x * 2.0 if m[0] > 1 else x * (w + w)),
    ("no traced version", lambda x, m, w: x * np.interp(0.5, np.arange(3.0), w)),
    ("a method that tracers lack", lambda x, m, w: x * sum(w.tolist())),
    ("a Python float", lambda x, m, w: x * float(w[0])),
]


@pytest.mark.parametrize(("name", "of"), NEEDED, ids=[n for n, _ in NEEDED])
def test_values_that_tracing_needs_belong_to_the_signature(name: str, of: Callable[..., Any]) -> None:
    mask, w = np.array([1, 0, 2]), np.array([1.0, 2.0, 3.0])
    plain = lambda x: of(x, mask, w)
    f = tg.jit(plain)
    assert agrees(f, plain, X)
    assert agrees(f, plain, X)
    assert f.traces == 1
    mask[0] = 2
    assert agrees(f, plain, X)
    w[0] = 9.0
    assert agrees(f, plain, X)
    w = np.array([0.0, 1.0, 0.0])
    assert agrees(f, plain, X)
    mask, w = np.array([1, 0, 2]), np.array([1.0, 2.0, 3.0])
    known = f.traces
    assert agrees(f, plain, X)
    assert f.traces == known


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.array(["2026-01-01", "2026-01-03"], "M8[D]"), np.array(["2026-01-01", "2026-01-05"], "M8[D]")),
        (np.array(["a", "bc"]), np.array(["a", "bcd"])),
        (np.array([1.0, "x"], object), np.array([2.0, "y"], object)),
        (np.array([1.0, 2.0], np.longdouble), np.array([1.0, 3.0], np.longdouble)),
        (np.zeros((0, 3), complex), np.ones((1, 3), complex)),
    ],
    ids=["dates", "text", "objects", "longdouble", "complex"],
)
def test_arrays_that_have_no_traced_form_belong_to_the_signature(first: Any, second: Any) -> None:
    table = first
    f = tg.jit(lambda x: x * len(str(table[-1:].tolist())))
    f(X), f(X)
    assert f.traces == 1
    table = second
    np.testing.assert_array_equal(f(X), X * len(str(second[-1:].tolist())))
    assert f.traces == 2


def test_a_program_compiled_ahead_refuses_other_contents() -> None:
    w = np.ones(3)
    f = tg.compile(lambda x: x * float(w[0]), X)
    f(X)
    w[0] = 2.0
    with pytest.raises(tg.TracegradError, match="captured w"):
        f(X)


# --- the function's own side effects ----------------------------------------------------------------------------------
def test_side_effects_reach_what_they_were_meant_for() -> None:
    w = np.ones(3)
    log: list[Any] = [w]
    table: dict[str, Any] = {"w": w, "gone": 1}
    count = 0

    def f(x: Any) -> Any:
        nonlocal count
        count += 1
        log.append("traced")
        log.append(table)
        table["new"] = log[0].shape
        table.pop("gone", None)
        return x * table["w"] * log[0]

    tg.jit(f)(X)
    assert count == 1
    assert log[0] is w
    assert log[1] == "traced"
    assert log[2] is table
    assert table["w"] is w
    assert table["new"] == (3,)
    assert "gone" not in table


def test_errors_are_those_of_the_function() -> None:
    w = np.ones(4)
    with pytest.raises(ShapeError, match=r"test_lifting.py:\d+: f64\[1, 3\] and f64\[4\]"):
        tg.jit(lambda x: x * (2.0 * w))(X)

    def wrong(x: Any) -> Any:
        raise KeyError(w.sum())

    with pytest.raises(KeyError, match="4.0"):
        tg.jit(wrong)(X)
