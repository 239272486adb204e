"""What a function reads from outside is what it is at the call: variables, items, attributes, functions."""

from __future__ import annotations

import collections
import enum
import functools
import types
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import nn
from tracegrad.api.captures import LONGEST
from tracegrad.api.environment import Environment

X = np.array([1.0, 2.0, 3.0])
SCALE = 2.0
LAYERS: Any = {"w": np.ones(3), "rate": 0.5}


def scaled(x: Any) -> Any:
    return x * SCALE


class Settings:
    rate = 2.0


class Mode(enum.Enum):
    SIN = 1
    COS = 2


class Line:
    offset = 1.0

    def __init__(self, slope: Any) -> None:
        self.slope = slope
        self.calls = 0

    @property
    def doubled(self) -> Any:
        return 2.0 * self.slope

    def __call__(self, x: Any) -> Any:
        return self.doubled * x + self.offset

    def value(self, x: Any) -> Any:
        return self.slope * x


# --- where values hang ------------------------------------------------------------------------------------------------
def test_items_of_dicts_and_lists() -> None:
    parameters: Any = {"w": np.ones(3), "k": 2.0, "more": [np.ones(3), (1.0, np.zeros(3))]}
    f = tg.jit(lambda x: x * parameters["w"] * parameters["k"] + parameters["more"][1][1])
    np.testing.assert_array_equal(f(X), 2.0 * X)
    parameters["w"] = np.full(3, 5.0)
    np.testing.assert_array_equal(f(X), 10.0 * X)
    assert f.traces == 1
    parameters["k"] = 3.0
    np.testing.assert_array_equal(f(X), 15.0 * X)
    parameters["more"][1] = (1.0, np.ones(3))
    np.testing.assert_array_equal(f(X), 15.0 * X + 1.0)
    assert f.traces == 2


def test_globals_of_named_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    f = tg.jit(lambda x: scaled(x) + LAYERS["rate"])
    np.testing.assert_array_equal(f(X), 2.0 * X + 0.5)
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    monkeypatch.setitem(LAYERS, "rate", 1.0)
    np.testing.assert_array_equal(f(X), 3.0 * X + 1.0)


def test_a_list_that_grows() -> None:
    layers = [np.ones(3)]

    def f(x: Any) -> Any:
        for w in layers:
            x = x * w
        return x

    g = tg.jit(f)
    np.testing.assert_array_equal(g(X), X)
    layers.append(np.full(3, 2.0))
    np.testing.assert_array_equal(g(X), 2.0 * X)
    layers[1] = np.full(3, 3.0)
    np.testing.assert_array_equal(g(X), 3.0 * X)
    layers.pop()
    np.testing.assert_array_equal(g(X), X)
    assert g.traces == 2


def test_attributes_of_objects_methods_and_classes() -> None:
    line = Line(3.0)
    called, method = tg.jit(line), tg.jit(line.value)
    inside = tg.jit(lambda x: line(x) + Settings.rate)
    for slope, rate in ((3.0, 2.0), (4.0, 2.0), (4.0, 5.0)):
        line.slope, Settings.rate = slope, rate
        line.calls += 1  # not read by the functions
        np.testing.assert_array_equal(called(X), 2.0 * slope * X + 1.0)
        np.testing.assert_array_equal(method(X), slope * X)
        np.testing.assert_array_equal(inside(X), 2.0 * slope * X + 1.0 + rate)
    assert called.traces == method.traces == 2
    assert inside.traces == 3
    line = Line(np.full(3, 7.0))
    np.testing.assert_array_equal(inside(X), 14.0 * X + 6.0)
    Settings.rate = 2.0


Outside = tuple[Callable[[Any], Any], Callable[[], Any]]


def attributes_by_text() -> Outside:
    """`getattr` and the like name an attribute, or how its name begins, in a text."""
    held = types.SimpleNamespace(w0=np.ones(3), w1=2.0, rate=2.0, steps=0)

    def fn(x: Any) -> Any:
        held_too = vars(held)
        return x * getattr(held, "rate") * held_too["w1"] + sum(getattr(held, f"w{i}") for i in range(2))  # noqa: B009

    def change() -> None:
        held.w0, held.w1, held.rate = np.full(3, 5.0), 3.0, 4.0

    return fn, change


def defaults_of_inner_functions() -> Outside:
    weights, scale = [2.0], np.ones(3)

    def inner(x: Any, weights: Any = weights, *, scale: Any = scale) -> Any:
        return x * weights[0] + 2.0 * scale

    def change() -> None:
        weights[0] = 3.0
        scale[:] = 7.0

    return lambda x: inner(x), change


def sets_and_deques() -> Outside:
    chosen, last = {1, 2}, collections.deque([1.0])

    def change() -> None:
        chosen.add(5)
        last.append(4.0)

    return lambda x: x * sum(chosen) + sum(last), change


def mappings() -> Outside:
    inner: dict[str, Any] = {"w": 2.0}
    views = types.MappingProxyType(inner), collections.ChainMap({}, inner), collections.UserDict(w=2.0)

    def change() -> None:
        inner["w"] = views[2]["w"] = 4.0

    return lambda x: x * views[0]["w"] + views[1]["w"] * views[2]["w"], change


def holders() -> Outside:
    rate: ContextVar[float] = ContextVar("rate", default=2.0)
    line = Line(2.0)
    reference = weakref.ref(line)

    def change() -> None:
        rate.set(3.0)
        line.slope = 5.0

    return lambda x, line=line: x * rate.get() + reference().slope, change


OUTSIDE = [attributes_by_text, defaults_of_inner_functions, sets_and_deques, mappings, holders]


RATES = [0.5]


@functools.singledispatch
def dispatched(x: Any) -> Any:
    return x * RATES[0]


def functions_behind_wrappers() -> Outside:
    return lambda x: dispatched(x), lambda: RATES.__setitem__(0, RATES[0] + 1.0)


def long_containers() -> Outside:
    numbers, table = [1.0] * (LONGEST + 1), {i: float(i) for i in range(LONGEST + 1)}
    longer = set(range(LONGEST + 1))

    def change() -> None:
        numbers[7], table[5] = 100.0, 50.0
        longer.add(-3)
        longer.discard(1)

    return lambda x: x * sum(numbers) + table[5] + sum(longer), change


def kinds_of_arrays() -> Outside:
    held: list[Any] = [np.ones(3)]
    return lambda x: x * (2.0 if isinstance(held[0], np.ndarray) else 3.0), lambda: held.__setitem__(0, 1.0)


OUTSIDE += [functions_behind_wrappers, long_containers, kinds_of_arrays]


@pytest.mark.parametrize("make", OUTSIDE, ids=lambda make: make.__name__)
def test_what_is_reached_in_other_ways(make: Callable[[], Outside]) -> None:
    fn, change = make()
    traced = tg.jit(fn)
    np.testing.assert_array_equal(traced(X), fn(X))
    change()
    np.testing.assert_array_equal(traced(X), fn(X))
    traces = traced.traces
    np.testing.assert_array_equal(traced(X), fn(X))
    assert traced.traces == traces <= 2


def test_names_in_texts_do_not_watch_what_is_not_read() -> None:
    held = types.SimpleNamespace(rate=2.0, rates_seen=0)
    traced = tg.jit(lambda x: x * getattr(held, "rate"))  # noqa: B009
    for _ in range(3):
        held.rates_seen += 1
        np.testing.assert_array_equal(traced(X), 2.0 * X)
    assert traced.traces == 1


def test_models_that_are_bound_again() -> None:
    model = nn.Linear(3, 2, key=tg.random.key(0))
    f = tg.jit(lambda x: model(x))
    x = np.ones((1, 3), np.float32)
    first = f(x)
    model = nn.Linear(3, 2, key=tg.random.key(1))
    second = f(x)
    np.testing.assert_allclose(second, model(x), rtol=1e-6)
    assert not np.allclose(first, second)
    assert f.traces == 1


def test_functions_that_are_bound_again() -> None:
    inner: Any = scaled
    power = functools.partial(np.power, 2.0)
    f = tg.jit(lambda x: inner(x) + power(x))
    np.testing.assert_array_equal(f(X), 2.0 * X + 2.0**X)
    inner = tg.jit(lambda x: 5.0 * x)
    np.testing.assert_array_equal(f(X), 5.0 * X + 2.0**X)
    power = functools.partial(np.power, 3.0)
    np.testing.assert_allclose(f(X), 5.0 * X + 3.0**X)
    inner = np.negative
    np.testing.assert_allclose(f(X), -X + 3.0**X)
    assert f.traces == 4


def test_a_function_defined_once_more_by_the_same_text_is_the_same() -> None:
    f = tg.jit(lambda x: made["inner"](x))
    text = "def inner(x):\n    return 2.0 * x\n"
    made: dict[str, Any] = {}
    exec(compile(text, "cell", "exec"), made)
    f(X)
    exec(compile(text, "cell", "exec"), made)
    f(X)
    assert f.traces == 1
    exec(compile(text.replace("2.0", "3.0"), "cell", "exec"), made)
    np.testing.assert_array_equal(f(X), 3.0 * X)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (np.float32(2.0), np.float32(3.0)),
        (None, 1),
        (Mode.SIN, Mode.COS),
        (slice(0, 1), slice(0, 2)),
        (1, True),
        (b"a", b"b"),
        (np.int64(1), np.int32(1)),
    ],
)
def test_constants_of_every_kind_belong_to_the_signature(first: Any, second: Any) -> None:
    seen = []
    constant = first

    def f(x: Any) -> Any:
        seen.append(constant)
        return x * 1.0

    g = tg.jit(f)
    g(X)
    constant = second
    g(X), g(X)
    assert seen == [first, second]


def test_modules_are_followed() -> None:
    module = types.ModuleType("settings_of_a_user")
    module.rate, module.unread = 2.0, 1.0  # type: ignore[attr-defined]
    f = tg.jit(lambda x: x * module.rate)
    f(X)
    module.rate, module.unread = 3.0, 5.0  # type: ignore[attr-defined]
    np.testing.assert_array_equal(f(X), 3.0 * X)
    module.unread = 6.0  # type: ignore[attr-defined]
    f(X)
    assert f.traces == 2


# --- what is not watched ----------------------------------------------------------------------------------------------
def test_what_the_function_changes_itself_does_not_trace_again() -> None:
    log, counts, total = [], {"f": 0}, 0

    def f(x: Any) -> Any:
        nonlocal total
        total += 1
        log.append(x.shape)
        counts["f"] += 1
        return x * 2.0

    g = tg.jit(f)
    for _ in range(3):
        for shape in ((3,), (4,), (5,), (6,), (7,)):
            g(np.ones(shape))
    assert total == counts["f"] == len(log) == g.traces == 5


def test_cycles_and_long_containers_end() -> None:
    loop: list[Any] = [1.0]
    loop.append(loop)
    table = list(range(LONGEST + 1))
    f = tg.jit(lambda x: x * loop[0] + len(table))
    np.testing.assert_array_equal(f(X), X + LONGEST + 1)
    assert len(Environment.of(f.fn).variables) < 40
    table.append(0)
    np.testing.assert_array_equal(f(X), X + LONGEST + 2)


# --- the other ways to call -------------------------------------------------------------------------------------------
def test_pullbacks_and_forward_mode_watch_as_well() -> None:
    line = Line(3.0)
    for slope in (3.0, 4.0):
        line.slope = slope
        np.testing.assert_array_equal(tg.vjp(line.value, X)[1](np.ones(3))[0], np.full(3, slope))
        np.testing.assert_array_equal(tg.jvp(line.value, (X,), (np.ones(3),))[1], np.full(3, slope))
        np.testing.assert_array_equal(tg.grad(lambda x: line.value(x).sum())(X), np.full(3, slope))


def test_callables_that_cannot_be_hashed() -> None:
    @dataclass
    class Scaled:
        k: float

        def __call__(self, x: Any) -> Any:
            return self.k * x * x

    np.testing.assert_array_equal(tg.vjp(Scaled(3.0), X)[1](np.ones(3))[0], 6.0 * X)
    np.testing.assert_array_equal(tg.jvp(Scaled(4.0), (X,), (np.ones(3),))[1], 8.0 * X)


def test_a_program_compiled_ahead_refuses_what_it_cannot_follow() -> None:
    rate, w = 2.0, np.ones(3)
    f = tg.compile(lambda x: rate * (x * w), X)
    w = np.full(3, 4.0)
    np.testing.assert_array_equal(f(X), 8.0 * X)
    rate = 3.0
    with pytest.raises(tg.TracegradError, match=r"captured rate.* 2.0 became 3.0.*\n  fix: pass it as an"):
        f(X)
    with pytest.raises(tg.TracegradError, match="captured rate"):
        f.bind(X)
    rate = 2.0
    np.testing.assert_array_equal(f(X), 8.0 * X)


def test_the_reason_names_what_changed() -> None:
    settings: Any = {"depth": 2, "widths": [3, 3]}
    f = tg.jit(lambda x: x * settings["depth"] * len(settings["widths"]))
    changes = [
        (lambda: settings.update(depth=3), "captured settings['depth']: 2 became 3"),
        (lambda: settings["widths"].append(4), "captured settings['widths']: 2 items became 3 items"),
        (lambda: settings.update(name="a"), "captured settings: keys 'depth', 'widths' became keys 'depth', 'wid"),
    ]
    f(X)
    for change, text in changes:
        change()
        with pytest.raises(AssertionError) as raised, tg.testing.assert_max_traces(0):
            f(X)
        assert text in str(raised.value)
