"""Schedules: how many kernels named programs take, why fusions are refused, their memory, when donation is safe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiled import avals, graph_of

import tracegrad as tg
import tracegrad.nn.functional as F
import tracegrad.numpy as tnp
from tracegrad.codegen.entry import Entry
from tracegrad.codegen.module import Module
from tracegrad.codegen.reference import run_source
from tracegrad.grad.adjoint import joint
from tracegrad.ir import interpret
from tracegrad.passes.simplify import simplify
from tracegrad.runtime.program import build
from tracegrad.schedule.memory import Memory, assign_memory
from tracegrad.schedule.plan import Plan, build_plan
from tracegrad.trace import trace

f32 = np.float32
X, Y = np.ones((64, 100), f32), np.full((64, 100), 2.0, f32)
ROW, WEIGHT = np.ones(100, f32), np.ones((100, 50), f32)
IMAGES, CHANNELS = np.ones((2, 3, 8, 8), f32), np.ones((3, 1, 1), f32)
SCALE = f32(0.5)


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def cross_entropy(x: Any, y: Any) -> Any:
    z = x - x.max(axis=-1, keepdims=True)
    return -((z - np.log(np.exp(z).sum(axis=-1, keepdims=True))) * y).sum() / 64.0


def layer_norm(x: Any, scale: Any, shift: Any) -> Any:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + 1e-5) * scale + shift


def gelu(x: Any) -> Any:
    return 0.5 * x * (1.0 + np.tanh(0.7978845608 * (x + 0.044715 * x**3)))


def adam(p: Any, m: Any, v: Any, g: Any, size: Any, root: Any) -> Any:
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    return p - size * m / (np.sqrt(v) * root + 1e-8), m, v


def batch_norm(x: Any) -> Any:
    mean, variance = x.mean(axis=(0, 2, 3), keepdims=True), x.var(axis=(0, 2, 3), keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-5)


def two_results(x: Any) -> Any:
    e = np.exp(x)
    return e + 1.0, np.tanh(e)


def gates(a: Any, b: Any, row: Any) -> Any:
    i, f, g, o = np.split(a + b + row, 4, axis=1)
    return np.tanh(i) * np.tanh(f) + np.tanh(g) * np.tanh(o)


def overlapping(a: Any, b: Any) -> Any:
    s = a + b
    return np.tanh(s[:, :5]) * np.tanh(s[:, 4:9])


def planned(fn: Callable[..., Any], *arrays: Any, wrt: Any = None, donate: tuple[int, ...] = ()) -> tuple[Plan, Memory]:
    graph = graph_of(fn, *arrays)
    plan = build_plan(simplify(graph if wrt is None else joint(graph, wrt)), 2)
    return plan, assign_memory(plan, donate)


CASES: list[tuple[str, int, Callable[..., Any], tuple[Any, ...], Any]] = [
    ("softmax", 1, softmax, (X,), None),
    ("cross entropy", 2, cross_entropy, (X, Y), None),
    ("cross entropy and its gradient", 2, cross_entropy, (X, Y), (0,)),
    ("layer norm", 1, layer_norm, (X, ROW, ROW), None),
    ("layer norm and its gradient", 4, lambda *a: (layer_norm(*a) * a[0]).sum(), (X, ROW, ROW), (0, 1, 2)),
    ("batch norm", 1, batch_norm, (IMAGES,), None),
    ("relu of a sum", 1, lambda x, b: tnp.maximum(x + b, 0.0), (X, ROW), None),
    ("gelu", 1, gelu, (X,), None),
    ("a sum that is read in pieces", 1, gates, (X, X, ROW), None),
    ("a sum whose pieces overlap", 2, overlapping, (X, X), None),
    ("gelu and its gradient", 1, lambda x: gelu(x).sum(), (X,), (0,)),
    ("adam", 1, adam, (X, X, X, X, SCALE, SCALE), None),
    ("two results", 1, two_results, (X,), None),
    ("sum of columns", 1, lambda x, y: (x * y).sum(axis=0), (X, Y), None),
    ("sum of rows", 1, lambda x, y: (x * y).sum(axis=1), (X, Y), None),
    ("sum of everything", 1, lambda x, y: (x * y).sum(), (X, Y), None),
    ("variance of columns", 1, lambda x: x.var(axis=0), (X,), None),
    ("log of a sum of exponentials", 1, lambda x: np.log(np.exp(x - x.max()).sum()) + x.max(), (X,), None),
    ("max pool of relu", 1, lambda x, b: F.max_pool2d(tnp.maximum(x + b, 0.0), 2), (IMAGES, CHANNELS), None),
    ("views", 1, lambda x: np.exp(x.T[::-1, 1:]), (X,), None),
    ("dense layer", 1, lambda x, w, b: tnp.maximum(x @ w + b, 0.0), (X, WEIGHT, np.ones(50, f32)), None),
    ("products of transposes", 1, lambda x, y: x.T @ y, (X, Y), None),
    ("dense loss and its gradient", 3, lambda w, x, y: ((x @ w - y) ** 2).mean(), (WEIGHT, X, X[:, :50]), (0,)),
    ("concatenation", 2, lambda x, y: np.concatenate([x, y + 1.0]), (X, Y), None),
    ("mean of squares and its gradient", 1, lambda x: np.mean(3.0 * (x - 2.0) ** 2), (X,), (0,)),
]


@pytest.mark.parametrize(("name", "count", "fn", "arrays", "wrt"), CASES, ids=[c[0] for c in CASES])
def test_number_of_kernels(name: str, count: int, fn: Callable[..., Any], arrays: tuple[Any, ...], wrt: Any) -> None:
    plan, _ = planned(fn, *arrays, wrt=wrt)
    assert len(plan.steps) == count, [f"{s.name}" for s in plan.steps] + [str(r) for r in plan.refusals]


def test_refusals_say_why() -> None:
    plan, _ = planned(cross_entropy, X, Y)
    (refusal,) = map(str, plan.refusals)
    assert refusal.startswith("reduce_sum f32 does not join mul f32[64, 100]: ")
    assert "the loops already reduce axes (1,), not (0, 1) (test_schedule.py:" in refusal


REFUSED: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = [
    ("it reads elements at other positions", lambda x: np.tanh(x) + np.tanh(x)[::-1], (X,)),
    ("the loops already reduce axes (0,), not (1,)", lambda x: (np.tanh(x).sum(axis=0), np.tanh(x).sum(axis=1)), (X,)),
    (
        "the whole array would have to be reduced by one task first",
        lambda x: x / np.exp(x).sum(),
        (np.ones((400, 400), f32),),
    ),
    ("its shape is not the loops' [64, 100]", lambda x: np.exp(np.tanh(x).reshape(-1)), (X,)),
]


@pytest.mark.parametrize(("reason", "fn", "arrays"), REFUSED, ids=[r[0] for r in REFUSED])
def test_reasons(reason: str, fn: Callable[..., Any], arrays: tuple[Any, ...]) -> None:
    plan, _ = planned(fn, *arrays)
    assert any(reason in str(r) for r in plan.refusals), [str(r) for r in plan.refusals]
    assert build(graph_of(fn, *arrays)).schedule.count("does not join") == len(plan.refusals)


# --- memory -----------------------------------------------------------------------------------------------------------
def test_one_kernel_needs_no_memory() -> None:
    for fn in (softmax, gelu, two_results):
        assert planned(fn, X)[1].arena_bytes == 0


def test_a_long_chain_reuses_its_memory() -> None:
    def chain(x: Any, w: Any) -> Any:
        for _ in range(20):
            x = np.tanh(x @ w)
        return x

    plan, memory = planned(chain, X, np.ones((100, 100), f32))
    assert len(plan.steps) == 20
    assert memory.arena_bytes <= 2 * 64 * 100 * 4


def test_buffers_that_live_together_do_not_overlap() -> None:
    def branches(x: Any) -> Any:
        parts = [np.cumsum(np.tanh(x * float(i)), axis=0) for i in range(5)]
        return [a @ b.T for a in parts for b in parts]

    plan, memory = planned(branches, X)
    graph = graph_of(branches, X)
    for found, expected in zip(run_source(plan, memory, [X]), interpret(graph, X), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4)


# --- donation ---------------------------------------------------------------------------------------------------------
def test_adam_updates_in_place() -> None:
    plan, memory = planned(adam, X, X, X, X, SCALE, SCALE, donate=(0, 1, 2))
    assert (len(plan.steps), memory.arena_bytes, memory.donated) == (1, 0, {0: 0, 1: 1, 2: 2})


DONATIONS: list[tuple[str, Callable[..., Any], dict[int, int]]] = [
    ("element by element", lambda x, y: np.tanh(x) + y, {0: 0}),
    ("read twice at one place", lambda x, y: np.tanh(x) + x * y, {0: 0}),
    ("read later", lambda x, y: (x + 1.0, np.cumsum(x, axis=0)), {}),
    ("reversed", lambda x, y: x[::-1] + y, {}),
    ("shifted in memory of its own", lambda x, y: x + np.roll(x, 1, axis=0), {0: 0}),
    ("transposed", lambda x, y: x.T * 2.0, {}),
    ("the second result", lambda x, y: (x.T * 2.0, y), {1: 0}),
    ("reduced first", lambda x, y: softmax(x), {}),
    ("another shape", lambda x, y: x.sum(axis=0), {}),
    ("product", lambda x, y: x @ y, {}),
    ("gathered", lambda x, y: x[np.arange(40)[::-1].copy()], {}),
    ("two results of two kernels", lambda x, y: (x + 1.0, x * 2.0), {1: 0}),
    ("two results of one kernel", lambda x, y: two_results(x), {0: 0}),
    ("returned as it is", lambda x, y: (x, y), {0: 0}),
    ("swapped", lambda x, y: (y, x), {1: 0}),
]


@pytest.mark.parametrize(("name", "fn", "expected"), DONATIONS, ids=[d[0] for d in DONATIONS])
def test_donation_is_used_only_where_it_is_safe(name: str, fn: Callable[..., Any], expected: dict[int, int]) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((40, 40)), rng.standard_normal((40, 40))
    traced = trace(fn, avals([x, y]))
    plan = build_plan(simplify(traced.graph), 2)
    memory = assign_memory(plan, (0,))
    assert memory.donated == expected
    wanted = interpret(traced.graph, x, y, *traced.captures)
    given = [x.copy(), y.copy(), *traced.captures]
    found = build(traced.graph, donate=(0,))(given)
    for slot, (a, b) in enumerate(zip(found, wanted, strict=True)):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
        assert (a is given[0]) == (memory.donated.get(slot) == 0)
        assert not np.shares_memory(a, given[1])
    np.testing.assert_array_equal(given[1], y)


def test_results_never_alias_arguments_or_each_other() -> None:
    def views(x: Any) -> Any:
        return x, x.T, x[1:], x.reshape(-1), x, 1.0, np.broadcast_to(x, (2, *x.shape)), tnp.exp(x), tnp.exp(x)

    x = np.random.default_rng(2).standard_normal((5, 6))
    given = x.copy()
    found = build(graph_of(views, x))([given])
    for number, (a, b) in enumerate(zip(found, interpret(graph_of(views, x), x), strict=True)):
        np.testing.assert_allclose(a, b, rtol=1e-14)
        assert not np.shares_memory(a, given)
        assert not any(np.shares_memory(a, other) for other in found[:number])
    np.testing.assert_array_equal(given, x)


def test_the_same_function_gives_the_same_code() -> None:
    """Text for text, in every process: where buffers of one size and lifetime lie must not follow their names."""

    def run(x: Any) -> Any:
        def body(carry: Any) -> Any:
            number, a, b = carry
            return number + 1, np.tanh(a) * b, np.sin(b @ b) + a.sum()

        return tg.while_loop(lambda carry: carry[0] < 9, body, (0, x, x.T))[1]

    x = np.eye(5)
    texts = set()
    for _ in range(6):
        module = Module(2)
        Entry(module, build_plan(simplify(tg.grad(lambda x: run(x).sum()).lower(x).graph), 2), (), symbol="tg_entry")
        texts.add(module.text())
    assert len(texts) == 1
