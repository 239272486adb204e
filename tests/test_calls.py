"""Calls: native code takes arguments apart as Python does, in any thread, and leaves the unexpected to Python."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy
from tracegrad import nn, tree
from tracegrad.api.function import MISS
from tracegrad.codegen import caller_layout as at
from tracegrad.codegen import pool_layout
from tracegrad.errors import ArgumentError, DTypeError, IndexOutOfBounds, ShapeError
from tracegrad.runtime import caller
from tracegrad.runtime.executable import Facts

X = np.arange(12.0).reshape(3, 4)
needs_native = pytest.mark.skipif(caller.method() is None, reason="another Python: calls go the long way")


class Pair(NamedTuple):
    first: Any
    second: Any


class Stack(nn.Module):
    """Modules in a list and in a dict, and something static."""

    def __init__(self, n: int, slope: float = 0.5, end: Any = None):
        self.layers = [nn.Linear(4, 3), *[nn.Linear(3, 3) for _ in range(n - 1)]]
        self.more = {"end": end or nn.ReLU(), "shift": np.ones(3, np.float32)}
        self.slope = slope

    def __call__(self, x: Any) -> Any:
        return self.more["end"](self.layers[0](x) * self.slope + self.more["shift"])


# --- the same results by both ways ------------------------------------------------------------------------------------

CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "one": (lambda x: x * 2.0, (X,)),
    "none": (lambda: np.ones(3) * 2.0, ()),
    "several": (lambda x, y: (x + y, x.sum()), (X, X)),
    "dict": (lambda p: {"b": p["b"] * 2.0, "a": p["a"].sum()}, ({"b": X, "a": X.T.copy()},)),
    "keys": (lambda p: p[3] - p[1], ({3: X, 1: X * 2.0},)),
    "nested": (lambda t: [t[0][0] * t[1]["k"], (t[2],)], (([X], {"k": X, "none": None}, X, ()),)),
    "named": (lambda p: Pair(p.second * 1.0, [p.first]), (Pair(X, X + 1.0),)),
    "module": (lambda m, x: m(x), (nn.Linear(4, 2), X.astype(np.float32))),
    "model": (lambda m, p, x: m.layers[1](m(x)) * p["scale"], (Stack(3), {"scale": X[0, :3]}, X.astype(np.float32))),
    "returned": (lambda m: tree.map(lambda a: a * a.dtype.type(0.5), m), (Stack(2),)),
    "float": (lambda x, s: x * s, (X, 2.5)),
    "int": (lambda x, n: x * n, (X, 3)),
    "bool": (lambda x, b: np.where(b, x, -x), (X, True)),
    "scalar": (lambda x, s: x * s, (X, np.float32(0.1))),
    "number": (lambda s: s * 2.0, (1.5,)),
    "dtypes": (lambda *a: [x + x.dtype.type(1) for x in a], tuple(X.astype(d) for d in "fdilBHIL")),
    "empty": (lambda x: x + 1.0, (np.ones((0, 3)),)),
}


@pytest.mark.parametrize("name", CASES)
def test_both_ways_agree(name: str) -> None:
    fn, args = CASES[name]
    compiled, jitted = tg.compile(fn, *args), tg.jit(fn)
    expected = compiled._specialised(compiled._parameters.split(args, {}).leaves)
    jitted(*args)
    for _ in range(3):
        for found in (compiled(*args), jitted(*args)):
            check_same(found, expected)
    assert jitted.traces == 1


def check_same(found: Any, expected: Any) -> None:
    (ours, structure), (theirs, other) = tree.flatten(found), tree.flatten(expected)
    assert structure == other
    for a, b in zip(ours, theirs, strict=True):
        assert type(a) is type(b)
        np.testing.assert_array_equal(a, b)


@needs_native
@pytest.mark.parametrize("name", CASES)
def test_the_short_way_is_taken(name: str) -> None:
    fn, args = CASES[name]
    compiled = tg.compile(fn, *args)
    expected = compiled(*args)  # the first call takes memory
    found = compiled._specialised.direct(args)
    assert found is not MISS
    check_same(found, expected)


def test_without_native_code_everything_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caller, "method", lambda: None)
    for name, (fn, args) in CASES.items():
        compiled = tg.compile(fn, *args)
        assert compiled._specialised.native is None, name
        compiled(*args)
    kept = np.ones(3)
    step = tg.compile(lambda w: w + 1.0, tg.spec(3), donate=("w",))
    assert step(kept) is kept
    with pytest.raises(ShapeError):
        step(np.ones(4))


# --- what is not as expected ------------------------------------------------------------------------------------------


@needs_native
def test_what_native_code_must_refuse() -> None:
    compiled = tg.compile(lambda p, s: p["a"] * s, {"a": X}, 2.0)
    compiled({"a": X}, 2.0)
    direct = compiled._specialised.direct
    refused: list[Any] = [
        ({"a": X.T}, 2.0), ({"a": X[:, :3]}, 2.0), ({"a": X.astype(np.float32)}, 2.0), ({"a": X.tolist()}, 2.0),
        ({"b": X}, 2.0), ({"a": X, "b": X}, 2.0), ({}, 2.0), ({"a": None}, 2.0), ([X], 2.0), (X, 2.0), ({"a": X}, 2),
        ({"a": X}, np.float64(2.0)), ({"a": X}, True), ({"a": X}, None), ({"a": X},), ({"a": X}, 2.0, 3.0), (),
        ({"a": np.ma.masked_array(X)}, 2.0), ({"a": X.view(np.recarray)}, 2.0), ({"a": X.astype(">f8")}, 2.0),
        ({"a": X[::-1]}, 2.0), ({"a": X.reshape(3, 4, 1)}, 2.0), ({"a": X.reshape(12)}, 2.0), ({"a": "x"}, 2.0),
    ]  # fmt: skip
    for args in refused:
        assert direct(args) is MISS, args
    np.testing.assert_array_equal(direct(({"a": X}, 2.0)), X * 2.0)


@needs_native
def test_modules_that_native_code_must_refuse() -> None:
    """Another class, static value, structure, shape or dtype, and what is no module."""
    model, x = Stack(2), X.astype(np.float32)
    compiled = tg.compile(lambda m, x: m(x), model, x)
    compiled(model, x)
    direct = compiled._specialised.direct
    layer = model.layers[0]
    layers = [
        [layer], [*model.layers, layer], tuple(model.layers), [layer, None], [layer, layer], [layer, nn.ReLU()],
        [layer.replace(weight=np.ones((3, 5), np.float32)), model.layers[1]],
        [layer.replace(weight=layer.weight.astype(np.float64)), model.layers[1]],
        [layer.replace(bias=None), model.layers[1]],
    ]  # fmt: skip
    refused = [model.replace(layers=layers) for layers in layers]
    refused += [Stack(2, 0.25), Stack(2, end=nn.Tanh()), Stack(3), layer, vars(model), None, x, type(model)]
    for other in refused:
        assert direct((other, x)) is MISS, other
    expected = model(x)
    np.testing.assert_array_equal(direct((model, x)), expected)
    other = model.replace(layers=[nn.Linear(4, 3), model.layers[1]])
    np.testing.assert_allclose(compiled(other, x), other(x), rtol=1e-6)


@needs_native
def test_all_models_of_one_structure_take_the_short_way(tmp_path: Path) -> None:
    """Made in the same way, changed and back, put together from other arrays, returned, or called from a file."""
    step = tg.compile(lambda m: tree.map(lambda a: a * a.dtype.type(0.5), m), Stack(2))
    step.save(tmp_path / "step.tgx")
    for program in (step, tg.load(tmp_path / "step.tgx")):
        program(Stack(2))  # takes memory
        for model in (Stack(2), Stack(2, 0.25).replace(slope=0.5), tree.map(np.copy, Stack(2)), program(Stack(2))):
            assert program._specialised.direct((model,)) is not MISS


def test_equal_static_values_of_other_types_are_told_apart() -> None:
    """1, True and 1.0 are equal; so are zeros of both signs."""
    x = np.arange(3)
    for values in ((1, 1.0, True, (1,), (1.0,), 1), (0.0, -0.0, 0)):
        f = tg.jit(lambda x, n: x / n if n == 0 else x * np.asarray(n), static=("n",))
        g = tg.jit(lambda m, x: x / m.slope if m.slope == 0 else x * np.asarray(m.slope))
        for n in values:
            expected = tg.jit(lambda x, n=n: x / n if n == 0 else x * np.asarray(n))(x)
            model = Stack(1, n)
            for found in (f(x, n), g(model, x), g(tree.map(np.copy, model), x)):
                assert found.dtype == expected.dtype
                np.testing.assert_array_equal(found, expected)
            assert repr(tree.map(np.copy, model).slope) == repr(n)
        assert f.traces == g.traces == len({repr(n) for n in values})
    compiled = tg.compile(lambda x, n: x * n, x, 1, static=("n",))
    with pytest.raises(ArgumentError, match="n=1 but called with n=1.0"):
        compiled(x, 1.0)


def test_a_changed_module_is_seen_at_every_call() -> None:
    model, x = Stack(2), X.astype(np.float32)
    f = tg.jit(lambda m, x: m(x))
    for slope in (0.5, 0.25, 0.5, -3.0, 0.25):
        model = model.replace(slope=slope)
        for _ in range(3):
            np.testing.assert_allclose(f(model, x), model(x), rtol=1e-6)
    model.layers[0] = nn.Linear(4, 3)  # a list in a module can be changed
    np.testing.assert_allclose(f(model, x), model(x), rtol=1e-6)
    model.more["shift"] = np.zeros(3, np.float32)
    np.testing.assert_allclose(f(model, x), model(x), rtol=1e-6)
    model.layers[0] = nn.Linear(4, 3, bias=False)
    np.testing.assert_allclose(f(model, x), model(x), rtol=1e-6)
    assert f.traces == 4


def test_what_python_makes_of_it() -> None:
    compiled = tg.compile(lambda x, s: x * s, X, 2.0)
    raw = np.frombuffer(bytes(1) + X.tobytes(), np.uint8)[1:].view(np.float64).reshape(3, 4)
    assert not raw.flags.aligned
    for x in (np.asfortranarray(X), X.repeat(2, axis=0)[::2], raw):
        np.testing.assert_array_equal(compiled(x, 3.0), X * 3.0)
    np.testing.assert_array_equal(compiled(X, np.float64(3.0)), X * 3.0)
    with pytest.raises(DTypeError):
        compiled(X.astype(np.float32), 2.0)
    with pytest.raises(ArgumentError):
        compiled(X)
    ints = tg.compile(lambda x, n: x * n, X, 2)
    with pytest.raises(DTypeError, match=f"argument n.*the number {2**70} does not fit i64"):
        ints(X, 2**70)
    assert ints(X, -(2**40))[0, 1] == -(2.0**40)


def test_weak_and_strong_numbers_are_two_signatures() -> None:
    x = np.ones(3, np.float32)
    f = tg.jit(lambda x, s: x * s)
    for _ in range(3):
        assert f(x, 2.0).dtype == np.float32
        assert f(x, np.float64(2.0)).dtype == np.float64
        assert f(x, 2).dtype == np.float32
    assert f.traces == 3


def test_other_captured_values_are_seen_by_the_short_way() -> None:
    scale, offset = 2.0, np.ones(3)
    f = tg.jit(lambda x: x * scale + offset)
    x = np.ones(3)
    for _ in range(3):
        np.testing.assert_array_equal(f(x), np.full(3, 3.0))
    scale = 5.0
    np.testing.assert_array_equal(f(x), np.full(3, 6.0))
    offset = np.zeros(3)
    np.testing.assert_array_equal(f(x), np.full(3, 5.0))
    offset = np.zeros(1)
    np.testing.assert_array_equal(f(x), np.full(3, 5.0))
    assert f.traces == 3


def test_errors_of_the_program_come_through() -> None:
    f = tg.jit(lambda x, i: x[i])
    f(X, np.array([1]))
    for _ in range(3):
        with pytest.raises(IndexOutOfBounds):
            f(X, np.array([7]))
    np.testing.assert_array_equal(f(X, np.array([2])), X[[2]])


# --- memory -----------------------------------------------------------------------------------------------------------


def test_references_are_given_up() -> None:
    x, s = np.ones(3), np.float64(2.0)
    f = tg.compile(lambda p, s: ({"y": p["x"] * s}, p["x"].sum()), {"x": x}, s)
    g = tg.compile(lambda x, i: x[i], x, np.array([1]))
    wrong = np.array([9])

    def counts() -> list[int]:
        gc.collect()
        return [sys.getrefcount(o) for o in (x, s, x.dtype, wrong, None)]

    def work() -> None:
        for _ in range(300):
            f({"x": x}, s)
            f({"x": x}, 2.0)
            with pytest.raises(IndexOutOfBounds):
                g(x, wrong)
        del _

    work()
    before = counts()
    work()
    assert max(abs(a - b) for a, b in zip(counts(), before, strict=True)) < 40


@needs_native
def test_references_to_modules_are_given_up() -> None:
    model = Stack(2)
    f = tg.compile(lambda m: m.layers[0].bias * 2.0, model)

    def counts() -> list[int]:
        gc.collect()
        held = (model, vars(model), model.layers[0], model.layers[0].weight, vars(model)["_layout"])
        return [sys.getrefcount(o) for o in held]

    f(model)
    before = counts()
    for _ in range(300):
        f(model)
        assert f._specialised.direct((Stack(3),)) is MISS
    assert counts() == before


def test_donated_arrays_are_checked_at_every_call() -> None:
    step = tg.compile(lambda a, b: (a + b, b * 2.0), tg.spec(4), tg.spec(4), donate=("a", "b"))
    base = np.ones(6)
    for _ in range(2):
        a, b = np.ones(4), np.ones(4)
        first, second = step(a, b)
        assert first is a and second is b
        step(a, b)
        for bad in ((base[:4], base[2:]), (a, a), (base[2:], base[:4])):
            with pytest.raises(ArgumentError, match="share memory"):
                step(*bad)
    a.flags.writeable = False
    with pytest.raises(ArgumentError, match="read-only"):
        step(a, b)


@needs_native
def test_memory_is_taken_by_the_first_call() -> None:
    compiled = tg.compile(lambda x: np.tanh(x @ x.T).sum() + x.sum(), tg.spec((64, 64)))
    executable: Any = compiled._specialised.program.executable
    assert executable.blocks.memory == []
    compiled(np.ones((64, 64)))
    compiled(np.ones((64, 64)))
    assert len(executable.blocks.memory) == 1


# --- threads ----------------------------------------------------------------------------------------------------------


@needs_native
def test_the_gil_is_released_in_the_program() -> None:
    """The entry is replaced by a function of Python's that says whether this thread holds the GIL."""
    compiled = tg.compile(lambda x: x * 2.0, X)
    compiled(X)
    executable: Any = compiled._specialised.program.executable
    executable.address = ctypes.cast(ctypes.pythonapi.PyGILState_Check, ctypes.c_void_p).value
    native = caller.list_caller(executable).call
    assert type(native([X])) is list  # a status of 1 would come back as an int


@needs_native
def test_arguments_are_kept_while_workers_are_woken() -> None:
    """Python runs meanwhile, so another thread may take an array out of the list that the call was given."""
    executable: Any = tg.compile(lambda x: x * 2.0, X)._specialised.program.executable
    arguments = [X.copy()]
    executable(arguments)
    counts: list[int] = []

    class Pool:
        words = (ctypes.c_int64 * pool_layout.words(1))()
        ctl = ctypes.addressof(words)

        def wake(self) -> None:
            counts.append(sys.getrefcount(arguments[0]))

    executable.facts = Facts(**(executable.facts.as_json() | {"parallel": True}))
    executable.pool = Pool()
    executable.pool.words[pool_layout.PARKS] = 1  # a worker sleeps
    executable.pool.wake()
    np.testing.assert_array_equal(caller.list_caller(executable).call(arguments)[0], X * 2.0)
    assert counts == [counts[0], counts[0] + 1]


def test_many_threads_call_at_once() -> None:
    compiled = tg.compile(lambda x, k: np.tanh(x @ x.T) * k, np.ones((60, 60)), 1.0)
    x = np.random.default_rng(0).standard_normal((60, 60)) * 0.1
    expected = np.tanh(x @ x.T)
    failures: list[str] = []

    def work(k: float) -> None:
        for _ in range(40):
            if not np.allclose(compiled(x, k), expected * k, rtol=1e-9, atol=1e-12):
                failures.append("a wrong result")

    threads = [threading.Thread(target=work, args=(float(i),)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


@needs_native
def test_more_calls_at_once_than_blocks() -> None:
    executable: Any = tg.compile(lambda x: x * 2.0, X)._specialised.program.executable
    for _ in range(caller.BLOCKS + 2):  # every block is taken, as by a call in flight
        np.testing.assert_array_equal(executable([X])[0], X * 2.0)
        for i in range(caller.BLOCKS):
            executable.blocks.free[i] = 0
    assert len(executable.blocks.memory) == caller.BLOCKS


# --- fixed buffers ----------------------------------------------------------------------------------------------------


def test_bound_buffers_are_read_and_written_in_place() -> None:
    compiled = tg.compile(lambda p, s: {"y": p["x"] * s, "sum": p["x"].sum()}, {"x": X}, 2.0)
    x, s = X.copy(), np.array(2.0)
    bound = compiled.bind({"x": x}, s)
    first = bound()
    np.testing.assert_array_equal(first["y"], X * 2.0)
    x += 1.0
    s[()] = 3.0
    second = bound()
    assert second["y"] is first["y"] and second is bound.results
    np.testing.assert_array_equal(first["y"], (X + 1.0) * 3.0)
    assert first["sum"] == (X + 1.0).sum()
    with pytest.raises(ArgumentError, match=r"p\['x'\].*: bind needs"):
        compiled.bind({"x": X.repeat(2, axis=0)[::2]}, 2.0)
    with pytest.raises(ShapeError):
        compiled.bind({"x": X[:2]}, 2.0)
    with pytest.raises(ArgumentError, match="compiled for the arguments"):
        compiled.bind(X, 2.0)


def test_bound_donated_buffers_are_the_results() -> None:
    step = tg.compile(lambda w, g: w - 0.5 * g, tg.spec(2), tg.spec(2), donate=("w",))
    w = np.ones(2)
    bound = step.bind(w, np.ones(2))
    assert bound() is w
    bound()
    np.testing.assert_array_equal(w, np.zeros(2))
    with pytest.raises(ArgumentError, match="share"):
        step.bind(w, w)


def test_a_bound_program_raises_its_errors() -> None:
    index = np.array([1])
    bound = tg.compile(lambda x, i: x[i], X, index).bind(X, index)
    np.testing.assert_array_equal(bound(), X[[1]])
    index[0] = 5
    with pytest.raises(IndexOutOfBounds):
        bound()


# --- Python's objects ------------------------------------------------------------------------------------------------


def test_objects_lie_where_the_tables_say() -> None:
    assert caller.as_expected() or caller.method() is None
    assert at.PROCESS_WORDS == at.STATIC_NAME + 1 and at.CALL_WORDS == at.OBJECTS + 1
