"""Rewrites: every rule fires on a text example and keeps the value, all of them reach a fixed point in linear time."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from compiled import graph_of
from hypothesis import given, settings
from random_graphs import Case, cases

import tracegrad.numpy  # noqa: F401 (puts the operators on traced values)
from tracegrad.codegen.entry import Entry
from tracegrad.codegen.module import Module
from tracegrad.ir import Aval, Graph, interpret, parse, verify
from tracegrad.passes.rewrite import Rule
from tracegrad.passes.rules import EXACT, FAST_MATH
from tracegrad.passes.simplify import simplify
from tracegrad.schedule.plan import build_plan

RULES = {r.name: r for r in (*EXACT, *FAST_MATH)}
SPECIAL = np.array([0.0, -0.0, 1.0, -2.5, np.inf, -np.inf, np.nan, 1e38, -1e-45], np.float32)

EXAMPLES: list[tuple[str, str, str]] = [
    ("mul-one", "f32[9] = mul(x, 1.0)", "return x"),
    ("one-mul", "f32[9] = mul(1.0, x)", "return x"),
    ("div-one", "f32[9] = div(x, 1.0)", "return x"),
    ("sub-zero", "f32[9] = sub(x, 0.0)", "return x"),
    ("neg-neg", "f32[9] = neg(neg(x))", "return x"),
    ("add-neg", "f32[9] = add(y, neg(x))", "sub(y, x)"),
    ("sub-neg", "f32[9] = sub(y, neg(x))", "add(y, x)"),
    ("merge-reshapes", "f32[9, 1] = reshape(reshape(x, shape=(3, 3)), shape=(9, 1))", "reshape(x, shape=(9, 1))"),
    (
        "merge-transposes",
        "f32[3, 2, 2] = transpose(transpose(t, perm=(1, 0, 2)), perm=(2, 1, 0))",
        "transpose(t, perm=(2, 0, 1))",
    ),
    (
        "merge-broadcasts",
        "f32[2, 9, 4] = broadcast(broadcast(x, shape=(9, 4), axes=(0,)), shape=(2, 9, 4), axes=(1, 2))",
        "broadcast(x, axes=(1,), shape=(2, 9, 4))",
    ),
    (
        "merge-slices",
        "f32[2] = slice(slice(x, start=(8,), size=(4,), step=(-2,)), start=(1,), size=(2,), step=(2,))",
        "slice(x, size=(2,), start=(6,), step=(-4,))",
    ),
    (
        "choose-large-updates",
        "f32[9] = set_slice(x, slice(y, start=(0,), size=(5,), step=(1,)), start=(3,), step=(1,))",
        "where(",
    ),
    ("drop-empty-pads", "f32[9] = pad(x, low=(0,), high=(0,), gap=(0,))", "return x"),
    ("drop-single-concats", "f32[9] = concat(x, axis=0)", "return x"),
    (
        "reshape-of-literal",
        "f32[3, 3] = reshape(broadcast(f32(2.0), shape=(9,), axes=()), shape=(3, 3))",
        "broadcast(f32(2.0), axes=(), shape=(3, 3))",
    ),
    ("literals-need-no-broadcast", "f32[9] = mul(x, broadcast(f32(2.0), shape=(9,), axes=()))", "mul(x, 2.0)"),
    ("fold-literals", "f32 = mul(f32(2.0), f32(3.0))", "return f32(6.0)"),
    ("squeeze-elementwise", "f32[1, 9] = add(reshape(x, shape=(1, 9)), reshape(y, shape=(1, 9)))", "f32[9] = add("),
    ("squeeze-reduce", "f32 = reduce_sum(reshape(x, shape=(1, 9)), axes=(0, 1))", "reduce_sum(b, axes=(0,))"),
    (
        "squeeze-broadcast",
        "f32[1, 4, 9] = broadcast(x, shape=(1, 4, 9), axes=(2,))",
        "broadcast(a, axes=(1,), shape=(4, 9))",
    ),
    ("drop-stop-gradient", "f32[9] = stop_gradient(x)", "return x"),
    ("drop-conversions", "f32[9] = convert(x, dtype=f32)", "return x"),
    ("drop-equal-branches", "f32[9] = where(p, x, x)", "return x"),
    ("lower-argmax", "i64[3] = argmax(m, axes=(1,))", "reduce_min("),
    ("widen-integers", "i8[2] = dot(k, k, contract=((1,), (1,)), batch=((0,), (0,)))", "convert(b, dtype=i8)"),
    ("scale-instead-of-dot", "f32[9] = dot(2.0, x, contract=((), ()), batch=((), ()))", "mul(a, x)"),
    (
        "group-dot-axes",
        "f32[2] = dot(t, m, contract=((2, 0), (0, 1)), batch=((), ()))",
        "dot(a, m, batch=((), ()), contract=((1, 2), (0, 1)))",
    ),
    (
        "absorb-transposes",
        "f32[2, 2] = dot(transpose(m, perm=(1, 0)), m, contract=((1,), (0,)), batch=((), ()))",
        "dot(m, m, batch=((), ()), contract=((0,), (0,)))",
    ),
    (
        "stacked-rows-are-a-batch",
        "f32[2, 48, 2] = dot(transpose(s, perm=(0, 2, 1)), m, contract=((2,), (0,)), batch=((), ()))",
        "dot(s, a, batch=((0,), (0,)), contract=((1,), (1,)))",
    ),
    ("add-zero", "f32[9] = add(x, 0.0)", "return x"),
    ("sub-self", "f32[9] = sub(x, x)", "mul(x, 0.0)"),
]
ARGUMENTS: dict[str, Any] = {
    "x": SPECIAL,
    "y": SPECIAL[::-1].copy(),
    "m": np.array([[1.0, 5.0], [np.nan, np.inf], [-0.0, 0.0]], np.float32),
    "s": np.arange(288.0, dtype=np.float32).reshape(2, 3, 48),
    "t": np.arange(12.0, dtype=np.float32).reshape(2, 2, 3),
    "k": np.array([[100, 100, 3], [-7, 5, 90]], np.int8),
    "p": np.arange(9) % 2 == 0,
}
CONTROL = ("literals-of-control-in-memory",)
"""Rules of graphs within graphs, which the tests of control flow fire."""


def example(line: str) -> Graph:
    """Parse one expression over the arguments above."""
    aval, _, expression = line.partition(" = ")
    found = [f"{name}: {Aval(a.shape, a.dtype)}" for name, a in ARGUMENTS.items()]
    return parse(f"def f({', '.join(found)}) -> {aval}:\n    return {expression}")


def bits(value: Any) -> Any:
    array = np.asarray(value)
    return np.where(np.isnan(array), 0, array.view(f"u{array.itemsize}")) if array.dtype.kind == "f" else array


@pytest.mark.parametrize(("name", "line", "after"), EXAMPLES, ids=[e[0] for e in EXAMPLES])
def test_rule_fires_and_keeps_the_value(name: str, line: str, after: str) -> None:
    graph = example(line)
    found = verify(simplify(graph, [RULES[name]]))
    assert str(found) != str(graph)
    assert after in str(found)
    (a,), (b,) = interpret(graph, *ARGUMENTS.values()), interpret(found, *ARGUMENTS.values())
    if RULES[name] in EXACT:
        np.testing.assert_array_equal(bits(b), bits(a))
    assert str(simplify(found, [RULES[name]])) == str(found)


def test_every_rule_has_an_example() -> None:
    assert {name for name, *_ in EXAMPLES} == set(RULES) - set(CONTROL)


@pytest.mark.parametrize("rule", [r for r in RULES.values() if r.before is not None], ids=lambda r: r.name)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: np.dtype(t).name)
def test_pattern_rules_give_their_right_hand_side(rule: Rule, dtype: Any) -> None:
    assert rule.before is not None and rule.after is not None
    arrays = [np.ones(3, dtype)] * rule.before.__code__.co_argcount
    before, after = graph_of(rule.before, *arrays), graph_of(rule.after, *arrays)
    assert str(simplify(before, [rule])) == str(after)


def test_exact_rules_leave_what_is_not_exact() -> None:
    """x + 0.0 changes -0.0, x - x is NaN for infinities, x * 0.0 keeps NaN."""
    for line in ("f32[9] = add(x, 0.0)", "f32[9] = sub(x, -0.0)", "f32[9] = sub(x, x)", "f32[9] = mul(x, 0.0)"):
        graph = example(line)
        assert str(simplify(graph)) == str(graph)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(cases())
def test_simplify_is_idempotent(case: Case) -> None:
    once = simplify(case.graph)
    assert str(simplify(once)) == str(once)


# --- time -------------------------------------------------------------------------------------------------------------
def chain(n: int, step: Callable[[Any, int], Any]) -> Graph:
    def fn(x: Any) -> Any:
        for i in range(n):
            x = step(x, i)
        return x

    return graph_of(fn, np.ones((4, 8), np.float32))


STEPS: dict[str, Callable[[Any, int], Any]] = {
    "elementwise": lambda x, i: x * 0.5 + float(i),
    "negations": lambda x, i: -x,
    "views": lambda x, i: x.reshape(8, 4).T if i % 2 else (-x).reshape(4, 8)[:, ::-1],
    "rows": lambda x, i: x - x.sum(axis=1, keepdims=True),
    "columns": lambda x, i: x * x.max(axis=0),
    "mixed": lambda x, i: [x + 1.0, x.sum(axis=0) + x, x.reshape(8, 4).reshape(4, 8), x[::-1]][i % 4],
}


@contextmanager
def counted_calls() -> Iterator[Counter[str]]:
    """Count the calls of Python functions: work, without a clock."""
    found: Counter[str] = Counter()

    def profile(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            found["calls"] += 1

    sys.setprofile(profile)
    try:
        yield found
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_compiling_takes_linear_time(step: Callable[[Any, int], Any]) -> None:
    """Three times the nodes: at most four times the work, from simplification to the text for LLVM."""
    spent = {}
    for n in (100, 300):
        graph = chain(n, step)
        with counted_calls() as found:
            module = Module(2)
            Entry(module, build_plan(simplify(graph), 2), (), symbol="tg_entry")
            module.parts(2)
        spent[n] = found["calls"]
    assert spent[300] < 4 * spent[100], spent
