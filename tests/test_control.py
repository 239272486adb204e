"""Loops and branches: eager = interpreter = compiled; gradients, nesting, captures, edges and errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import Batch, avals, graph_of

import tracegrad as tg
from tracegrad import tree
from tracegrad.errors import ArgumentError, DTypeError, IndexOutOfBounds, ShapeError
from tracegrad.grad.adjoint import joint
from tracegrad.ir import Graph, interpret, parse, verify
from tracegrad.nn.functional import conv2d
from tracegrad.runtime.program import build
from tracegrad.schedule.plan import Region
from tracegrad.testing import check_grads
from tracegrad.trace import trace

WAYS = [pytest.param(nullcontext, id="compiled"), pytest.param(tg.eager, id="eager")]
X = np.array([0.4, -0.7, 1.3])
ROWS = np.array([[0.5, 0.2, -0.4], [1.1, 0.9, 0.3], [-0.6, 0.8, 0.7], [0.1, -1.2, 0.6]])
WEIGHTS = np.array([[0.2, -0.5, 0.9], [1.0, 0.3, -0.2], [0.4, 0.6, 0.1]])


def assert_same(found: Any, expected: Any, rtol: float = 1e-12) -> None:
    found_leaves, expected_leaves = tree.leaves(found), tree.leaves(expected)
    assert len(found_leaves) == len(expected_leaves)
    for a, b in zip(found_leaves, expected_leaves, strict=True):
        assert np.shape(a) == np.shape(b) and np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-13)


def second_order(graph: Graph, wrt: Sequence[int]) -> tuple[Graph, Graph]:
    """Return the joint graph of a scalar function, and that of its gradients."""
    first = joint(graph, wrt)
    n = len(graph.outputs)
    return first, joint(first, wrt, seeds=range(n, n + len(wrt)))


def check(fn: Callable[..., Any], *args: Any, order: int = 2, expected: Any = None) -> None:
    """Compare every way to run `fn`, its text, its gradients with finite differences, and the compiled gradients."""
    with tg.eager():
        eager = fn(*args)
    if expected is not None:
        assert_same(eager, expected)
    assert_same(tg.jit(fn)(*args), eager)
    traced = trace(fn, avals(args))
    graph = verify(traced.graph)
    assert_same(interpret(graph, *args, *traced.captures), tree.leaves(eager))
    assert str(parse(str(graph))) == str(graph)
    verify(parse(str(graph)))
    if order:
        check_grads(fn, args, order)
        check_compiled_gradients(fn, args, order)


def check_compiled_gradients(fn: Callable[..., Any], args: Sequence[Any], order: int) -> None:
    rng = np.random.default_rng(5)

    def total(*xs: Any) -> Any:
        return sum(np.sum(v * v) for v in tree.leaves(fn(*xs)) if v.dtype == np.float64)

    traced = trace(total, avals(args))
    values = [*args, *traced.captures]
    wrt = [i for i, a in enumerate(args) if np.asarray(a).dtype == np.float64]
    batch = Batch()
    graphs = [joint(traced.graph, wrt)] if order == 1 else second_order(traced.graph, wrt)
    for number, graph in enumerate(graphs):
        assert str(parse(str(graph))) == str(graph)
        seeds = [rng.standard_normal(n.shape) for n in graph.inputs[len(values) :]]
        batch.add(graph, [*values, *seeds], f"order {number + 1}")
    batch.compare(1e-9, 1e-11)


# --- branches ---------------------------------------------------------------------------------------------------------
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


# --- loops ------------------------------------------------------------------------------------------------------------
def newton(a: Any) -> Any:
    return tg.while_loop(lambda x: np.abs(x * x - a) > 1e-12, lambda x: 0.5 * (x + a / x), a)


@pytest.mark.parametrize("a", [2.0, 9.0, 1.0, 123.0])
def test_while_loop_of_unknown_length(a: float) -> None:
    """a = 1 makes no round at all: the result is the argument."""
    x = np.float64(a)
    while abs(x * x - a) > 1e-12:
        x = 0.5 * (x + a / x)
    check(newton, np.float64(a), order=0, expected=x)
    expected = 1.0 if a == 1.0 else 0.5 / np.sqrt(a)
    for way in (nullcontext, tg.eager):
        with way():
            np.testing.assert_allclose(tg.grad(newton)(a), expected, rtol=1e-9)


def test_while_loop_with_carries_of_every_kind() -> None:
    def fn(x: Any, k: Any) -> Any:
        def body(c: Any) -> Any:
            return {
                "i": c["i"] + 1,
                "x": c["x"] * k + np.sin(c["x"]),
                "odd": ~c["odd"],
                "n": c["n"] * np.int32(3),
                "h": c["h"],
            }

        init = {"i": 0, "x": x, "odd": np.bool_(False), "n": np.int32(1), "h": k}
        return tg.while_loop(lambda c: (c["i"] < 5) | c["odd"], body, init)

    y = X
    for _ in range(6):
        y = y * 0.9 + np.sin(y)
    expected = {"i": np.int64(6), "x": y, "odd": np.bool_(False), "n": np.int32(729), "h": np.float64(0.9)}
    check(fn, X, np.float64(0.9), order=1, expected=expected)


def test_scan_with_everything() -> None:
    def fn(x: Any, rows: Any, w: Any) -> Any:
        def step(c: Any, r: Any) -> Any:
            state, count = c
            state = np.tanh(w @ state + r["a"]) * r["s"]
            return (state, count + 1), {"y": state * 2.0, "n": count, "c": c[0]}

        return tg.scan(step, (x, 0), {"a": rows, "s": rows[:, 0]})

    state, ys, cs = X, [], []
    for r in ROWS:
        cs.append(state)
        state = np.tanh(WEIGHTS @ state + r) * r[0]
        ys.append(state * 2.0)
    ns = np.arange(4)
    check(fn, X, ROWS, WEIGHTS, expected=((state, np.int64(4)), {"y": np.stack(ys), "n": ns, "c": np.stack(cs)}))


def test_scan_in_reverse_keeps_the_places_of_its_slices() -> None:
    def fn(x: Any, rows: Any) -> Any:
        return tg.scan(lambda c, r: (c * r + 1.0, c - r), x, rows, reverse=True)

    c, ys = X, [X] * 4
    for i in (3, 2, 1, 0):
        c, ys[i] = c * ROWS[i] + 1.0, c - ROWS[i]
    check(fn, X, ROWS, expected=(c, np.stack(ys)))


def test_loops_of_no_rounds() -> None:
    empty = np.zeros((0, 3))
    check(lambda x, rows: tg.scan(lambda c, r: (c * r, c + r), x, rows), X, empty, expected=(X, empty))
    check(lambda x: tg.fori_loop(3, 3, lambda i, c: c * 2.0, x), X, expected=X)
    check(lambda x, n: tg.fori_loop(0, n, lambda i, c: c * 2.0, x), X, np.int64(0), order=1, expected=X)
    check(lambda x: tg.while_loop(lambda c: np.sum(c) > 100.0, lambda c: c * c, x), X, order=1, expected=X)
    check(lambda x: tg.map(np.sin, x), np.zeros(0), expected=np.zeros(0))


def test_one_round() -> None:
    check(
        lambda x, rows: tg.scan(lambda c, r: (c * r, c + r), x, rows),
        X,
        ROWS[:1],
        expected=(X * ROWS[0], X[None] + ROWS[:1]),
    )


def test_scan_without_slices_and_without_carry() -> None:
    check(
        lambda x: tg.scan(lambda c, _: (c * 0.5, c), x, None, length=3),
        X,
        expected=(X / 8, np.stack([X, X / 2, X / 4])),
    )
    check(lambda rows: tg.map(lambda r: (np.sum(r), r[0] > 0.0), rows), ROWS, expected=(ROWS.sum(1), ROWS[:, 0] > 0.0))


def test_fori_loop_with_static_and_traced_limits() -> None:
    def expected(n: int) -> Any:
        c = X
        for i in range(2, n):
            c = np.sin(c) * i
        return c

    check(lambda x: tg.fori_loop(2, 6, lambda i, c: np.sin(c) * i, x), X, expected=expected(6))
    check(lambda x, n: tg.fori_loop(2, n, lambda i, c: np.sin(c) * i, x), X, np.int64(5), order=1, expected=expected(5))


def test_carries_that_trade_places() -> None:
    """No carry can be updated in place here: each is read after it would have been overwritten."""

    def fn(a: Any, b: Any) -> Any:
        return tg.scan(lambda c, _: ((c[1], c[0] * 2.0, c[0] + c[2]), c[2]), (a, b, a * b), None, length=5)

    a, b, c, ys = X, X[::-1].copy(), X * X[::-1], []
    for _ in range(5):
        ys.append(c)
        a, b, c = b, a * 2.0, a + c
    check(fn, X, X[::-1].copy(), expected=((a, b, c), np.stack(ys)))


def test_a_carry_that_is_permuted_or_reduced() -> None:
    def fn(x: Any) -> Any:
        return tg.fori_loop(0, 4, lambda i, c: c[::-1] + np.cumsum(c) * 0.5 - np.max(c), x)

    y = X
    for _ in range(4):
        y = y[::-1] + np.cumsum(y) * 0.5 - np.max(y)
    check(fn, X, expected=y)
    check(lambda m: tg.fori_loop(0, 3, lambda i, c: c.T @ c * 0.3, m), WEIGHTS)


def test_a_constant_carry_and_a_carry_that_becomes_one() -> None:
    check(lambda x: tg.scan(lambda c, _: ((c[0], c[0]), c[1]), (x, x * 2.0), None, length=3), X)
    check(lambda x: tg.scan(lambda c, _: (np.zeros(3), c), x, None, length=3), X)


def test_nan_carries() -> None:
    def fn(x: Any) -> Any:
        return tg.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, np.log(c[1])), (0, x))[1]

    for way in (nullcontext, tg.eager):
        with way():
            assert np.isnan(tg.jit(fn)(-1.0))
            assert np.isnan(tg.grad(fn)(-1.0))
    assert np.isnan(tg.jit(lambda x: tg.while_loop(lambda c: c < 10.0, lambda c: c * 2.0, x))(np.nan))


# --- nesting and captures ---------------------------------------------------------------------------------------------
def test_scan_in_scan() -> None:
    def fn(x: Any, rows: Any) -> Any:
        def inner(c: Any, r: Any) -> Any:
            return np.sin(c) * r, c * r

        def outer(c: Any, row: Any) -> Any:
            last, ys = tg.scan(inner, c, row)
            return last + 0.1 * c, np.sum(ys) * x[0]

        return tg.scan(outer, x[1], rows)

    check(fn, X, ROWS)


def test_cond_in_scan() -> None:
    def fn(x: Any, rows: Any) -> Any:
        return tg.scan(
            lambda c, r: (tg.cond(r[0] > 0.3, lambda v: np.sin(v) * r, lambda v: v + x, c), np.sum(c)), x, rows
        )

    check(fn, X, ROWS)


def test_while_in_scan() -> None:
    def fn(x: Any, rows: Any) -> Any:
        def step(c: Any, r: Any) -> Any:
            found = tg.while_loop(lambda v: np.sum(v * v) < 9.0, lambda v: v * 1.7 + r, c)
            return found * 0.3, np.sum(found)

        return tg.scan(step, x, rows)

    check(fn, X, ROWS, order=1)


@pytest.mark.parametrize("go", [True, False])
def test_scan_in_cond_in_while(go: bool) -> None:
    def fn(x: Any, rows: Any, go: Any) -> Any:
        def body(c: Any) -> Any:
            i, v = c
            swept = lambda u: tg.scan(lambda a, r: (np.tanh(a * r), None), u, rows)[0]
            return i + 1, tg.cond(go & (i < 2), swept, lambda u: u * 0.5, v)

        return tg.while_loop(lambda c: c[0] < 4, body, (0, x))[1]

    check(fn, X, ROWS, np.bool_(go), order=1)


def test_while_in_while() -> None:
    def fn(x: Any) -> Any:
        def body(c: Any) -> Any:
            inner = tg.while_loop(lambda v: v[1] < v[0], lambda v: (v[0], v[1] * 1.9), (c, x * 0.01))
            return inner[0] * 0.7 + 0.01 * inner[1]

        return tg.while_loop(lambda c: c > 0.4, body, x)

    check(fn, np.float64(3.0), order=1)


def test_closures_over_traced_values_and_arrays() -> None:
    table = np.array([1.0, 2.0, 3.0])

    def fn(x: Any, k: Any) -> Any:
        scale = np.sin(k)
        return tg.fori_loop(0, 3, lambda i, c: c * scale + table * tg.numpy.asarray(table)[i] + x, x)

    f = tg.jit(fn)
    y = X
    for i in range(3):
        y = y * np.sin(0.5) + table * table[i] + X
    assert_same(f(X, 0.5), y)
    check(fn, X, np.float64(0.5))
    table[:] = 0.0
    y = X
    for _ in range(3):
        y = y * np.sin(0.5) + X
    assert_same(f(X, 0.5), y)


def test_the_argument_is_not_written_to() -> None:
    x, rows = X.copy(), ROWS.copy()
    tg.jit(lambda a, r: tg.scan(lambda c, v: (c + v, c), a, r))(x, rows)
    tg.jit(lambda a: tg.while_loop(lambda c: np.sum(c) < 50.0, lambda c: c + 1.0, a))(x)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_array_equal(rows, ROWS)


# --- library kernels and threads inside of bodies ---------------------------------------------------------------------
def test_large_kernels_in_a_body_use_the_pool() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 500)).astype(np.float32)
    fn = lambda v: tg.scan(lambda c, _: (np.tanh(c) + 0.1, np.sum(c, axis=0)), v, None, length=4)
    last, sums = tg.jit(fn)(x)
    expected = x
    for i in range(4):
        np.testing.assert_allclose(sums[i], expected.sum(0), rtol=1e-3, atol=1e-3)
        expected = np.tanh(expected) + np.float32(0.1)
    np.testing.assert_allclose(last, expected, rtol=1e-5, atol=1e-6)


def test_gemm_and_conv_in_a_body() -> None:
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((70, 70)) * 0.1, rng.standard_normal((50, 70))
    check_values_and_gradients(lambda x, w: tg.fori_loop(0, 3, lambda i, c: np.tanh(c @ w), x), x, w)
    k, image = rng.standard_normal((4, 4, 3, 3)) * 0.2, rng.standard_normal((2, 4, 9, 9))
    conv = lambda c, k: conv2d(c, k, padding=1)
    check_values_and_gradients(lambda x, k: tg.fori_loop(0, 3, lambda i, c: np.tanh(conv(c, k)), x), image, k)


def check_values_and_gradients(fn: Callable[..., Any], *args: Any) -> None:
    traced = trace(lambda *xs: np.sum(fn(*xs) ** 2), avals(args))
    batch = Batch()
    batch.add(joint(traced.graph, range(len(args))), [*args, *traced.captures])
    batch.compare(1e-9, 1e-10)


def test_steps_do_not_grow_with_the_length() -> None:
    def steps(length: int) -> tuple[int, int]:
        def fn(x: Any) -> Any:
            return np.sum(tg.scan(lambda c, _: (np.sin(c) * 0.5 + x, None), x, None, length=length)[0])

        plan, _ = build(joint(graph_of(fn, X), (0,))).planned()
        inner = [p for step in plan.steps if isinstance(step, Region) for p in step.plans]
        return len(plan.steps), sum(len(p.steps) for p in inner)

    assert steps(10) == steps(10_000)
    last = tg.jit(lambda x: tg.fori_loop(0, 10_000, lambda i, c: c + 1.0, x))(0.0)
    assert last == 10_000.0


def test_a_long_gradient_through_a_loop_of_unknown_length() -> None:
    """The tapes grow several times."""
    fn = lambda x: tg.while_loop(lambda c: c[0] < 5000, lambda c: (c[0] + 1, np.sin(c[1]) + 0.5), (0, x))[1]
    scanned = lambda x: tg.fori_loop(0, 5000, lambda i, c: np.sin(c) + 0.5, x)
    assert_same(tg.value_and_grad(fn)(0.3), tg.value_and_grad(scanned)(0.3))


# --- errors -----------------------------------------------------------------------------------------------------------
def line_of(text: str) -> int:
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(i for i, line in enumerate(lines, 1) if text in line)


@pytest.mark.parametrize("kind", ["scan", "while", "cond"])
def test_an_index_error_in_a_body_names_the_line(kind: str) -> None:
    def read(table: Any, i: Any) -> Any:
        return table[i]  # the line of the index

    def fn(table: Any, n: Any) -> Any:
        if kind == "scan":
            return tg.scan(lambda c, i: (c + read(table, i + n), None), 0.0, np.arange(4))[0]
        if kind == "while":
            return tg.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, c[1] + read(table, c[0])), (0, 0.0))[1]
        return tg.cond(n > 0, lambda i: read(table, i), lambda i: np.float64(0.0), n)

    f = tg.jit(fn)
    line = line_of("# the line of the " + "index")
    fine = {"scan": 0, "while": 4, "cond": 3}[kind]
    f(np.arange(4.0), fine)
    with pytest.raises(IndexOutOfBounds, match=rf"at test_control.py:{line}: .*out of bounds for an axis of size 4"):
        f(np.arange(4.0), 9)
    f(np.arange(4.0), fine)


def message(error: type[Exception], fn: Callable[[], Any]) -> str:
    with pytest.raises(error) as caught:
        fn()
    first, *rest = str(caught.value).split("\n")
    name, place, text = first.partition(" at test_control.py:")
    return "\n".join([name + text[text.index(":") :] if place else first, *rest])


def test_messages_about_branches() -> None:
    def whole(v: Any) -> Any:
        return v

    fix = "  fix: return the same structure, shapes and dtypes from every branch"
    for other, shown in [(lambda v: v[:2], "f64[2]"), (lambda v: (v, v), "f64[3], f64[3]"), (lambda v: 1, "i64")]:
        assert message(ShapeError, lambda other=other: tg.cond(True, whole, other, X)) == (
            f"cond: whole returns (f64[3]) but branch0 returns ({shown})\n{fix}"
        )
    assert message(ShapeError, lambda: tg.switch(0, [whole, lambda v: {"v": v}], X)) == (
        f"switch: branch1 returns (f64[3]) but whole returns (f64[3])\n{fix}"
    )
    assert message(ShapeError, lambda: tg.cond(X > 0, np.sin, np.cos, X)) == (
        "cond: the predicate has shape (3,), not one value\n  fix: reduce it with .all() or .any()"
    )
    assert message(DTypeError, lambda: tg.switch(1.0, [np.sin], X)) == (
        "switch: the index is float64[], not one integer\n  fix: use index.astype(np.int64)"
    )
    assert message(ArgumentError, lambda: tg.switch(0, [], X)) == (
        "switch: there are no branches\n  fix: pass at least one function"
    )


def test_messages_about_loops() -> None:
    carry = "  fix: start from values of the final shape and dtype, for instance np.float32(0), or convert with .astype"
    assert message(ShapeError, lambda: tg.while_loop(lambda c: c < 3, lambda c: c + 0.5, 0)) == (
        f"while_loop: the carry changes: i64 became f64\n{carry}"
    )
    assert message(ShapeError, lambda: tg.scan(lambda c, x: (c * x, None), 1.0, ROWS)) == (
        f"scan: the carry changes: f64 became f64[3]\n{carry}"
    )
    assert message(ShapeError, lambda: tg.while_loop(lambda c: c < 3, lambda c: (c, c), 0)) == (
        "while_loop: the body returns another structure than the initial carry\n  fix: return the same structure"
    )
    assert message(ShapeError, lambda: tg.while_loop(lambda c: c, lambda c: c, X)) == (
        "while_loop: the condition returns (f64[3]), not one bool\n  fix: compare, for instance x < 10"
    )
    assert message(ArgumentError, lambda: tg.scan(lambda c, x: c, 1.0, X)) == (
        "scan: the function must return (carry, y)\n  fix: return carry, None when there is no y"
    )
    assert message(ShapeError, lambda: tg.scan(lambda c, x: (c, None), 1.0, (X, X[:2]))) == (
        "scan: xs and length give the lengths [2, 3]\n  fix: give all xs the same first axis, or pass length="
    )
    assert message(ShapeError, lambda: tg.scan(lambda c, x: (c, None), 1.0, 2.0)) == (
        "scan: xs holds a scalar, which has no first axis\n  fix: pass arrays, or close over the scalar"
    )


# --- checkpoints, unrolling, prefixes ---------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [{"unroll": 3}, {"checkpoint": 2}, {"checkpoint": True}], ids=str)
@pytest.mark.parametrize("reverse", [False, True])
def test_scan_in_segments_is_the_same_scan(options: dict[str, Any], reverse: bool) -> None:
    def fn(x: Any, rows: Any, **more: Any) -> Any:
        return tg.scan(lambda c, r: (np.sin(c) * r + 0.2, {"y": c * r}), x, rows, reverse=reverse, **more)

    rows = np.concatenate([ROWS, ROWS[:3] * 0.5])
    check(lambda x, r: fn(x, r, **options), X, rows, expected=fn(X, rows))


def test_checkpoints_keep_values_and_gradients() -> None:
    plain = lambda x: np.sin(np.sin(x) * x)
    check(tg.checkpoint(plain), X, expected=plain(X))
    looped = lambda x, **o: tg.while_loop(lambda c: np.sum(c) < 40.0, lambda c: c * 1.1 + 0.3, x, **o)
    check(lambda x: looped(x, checkpoint=4), X, order=1, expected=looped(X))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 7, 8])
def test_associative_scan(n: int) -> None:
    x = np.linspace(0.5, 1.5, n)
    check(lambda v: tg.associative_scan(lambda a, b: a * b, v), x, expected=np.cumprod(x))
    backwards = np.cumprod(x[::-1])[::-1]
    assert_same(tg.jit(lambda v: tg.associative_scan(lambda a, b: a * b, v, reverse=True))(x), backwards)


@pytest.mark.parametrize("way", WAYS)
def test_float32_and_weak_numbers(way: Any) -> None:
    x = np.float32(0.5)
    with way():
        found = tg.fori_loop(0, 3, lambda i, c: np.sin(c) * 2.0 + 1.0, x)
        assert found.dtype == np.float32
        assert tg.grad(lambda v: tg.fori_loop(0, 3, lambda i, c: np.sin(c) * 2.0, v))(x).dtype == np.float32


@pytest.mark.parametrize("number", [0, 1])
def test_a_loop_of_unknown_length_at_any_order(number: int) -> None:
    """Reverse over reverse adds cotangents of tapes; forward mode needs none."""
    fn = [
        lambda x: tg.while_loop(lambda c: c[1] < 50.0, lambda c: (c[0] * 1.5, c[0] * c[1] + x), (x, x))[1],
        lambda x: tg.while_loop(lambda c: c < 100.0, lambda c: c * c, x),
    ][number]
    second = tg.jacfwd(tg.jacfwd(fn))(1.3)
    third = tg.jacfwd(tg.jacfwd(tg.jacfwd(fn)))(1.3)
    numeric = (tg.grad(fn)(1.3 + 1e-6) - tg.grad(fn)(1.3 - 1e-6)) / 2e-6
    np.testing.assert_allclose(second, numeric, rtol=1e-6)
    for way in (nullcontext, tg.eager):
        with way():
            for twice in (tg.hessian(fn), tg.grad(tg.grad(fn)), tg.grad(lambda x: tg.jvp(fn, (x,), (1.0,))[1])):
                np.testing.assert_allclose(twice(1.3), second, rtol=1e-10)
            for thrice in (tg.grad(tg.grad(tg.grad(fn))), tg.jacfwd(tg.grad(tg.grad(fn)))):
                np.testing.assert_allclose(thrice(1.3), third, rtol=1e-10)


@pytest.mark.parametrize("way", WAYS)
def test_where_around_and_inside_of_control_flow(way: Any) -> None:
    x = np.array([1.0, 2.0, 16.0])

    def around(v: Any) -> Any:
        return np.sum(np.where(v < 10.0, tg.fori_loop(0, 2, lambda i, c: np.sqrt(c), v), 0.0))

    def inside(v: Any) -> Any:
        return np.sum(tg.fori_loop(0, 2, lambda i, c: np.where(c > 0.0, np.sqrt(c), 0.0), v))

    with way():
        np.testing.assert_allclose(tg.grad(around)(x), [0.25, 0.25 * 2.0**-0.75, 0.0])
        np.testing.assert_array_equal(tg.grad(inside)(np.array([1.0, 0.0, -4.0])), [0.25, 0.0, 0.0])
        np.testing.assert_array_equal(tg.jacfwd(around)(np.array([1.0, 16.0, 100.0]))[1:], [0.0, 0.0])


@pytest.mark.parametrize("kind", ["while", "scan", "cond"])
def test_vjp_in_two_halves(kind: str) -> None:
    """No tape crosses from the forward to the backward program: it lives as long as the program that made it."""
    fn = {
        "while": lambda x: tg.while_loop(lambda c: np.sum(c) < 9.0, lambda c: c * 1.5 + np.sin(c) * x + 0.5, x),
        "scan": lambda x: tg.scan(lambda c, _: (np.sin(c) * x, c), x, None, length=4),
        "cond": lambda x: tg.cond(np.sum(x) > 0.0, np.sin, np.cos, x),
    }[kind]
    y, pull = tg.vjp(fn, X)
    other, _ = tg.vjp(fn, X * 0.5)
    with tg.eager():
        expected, eager_pull = tg.vjp(fn, X)
        gradient = eager_pull(expected)
    assert_same(y, expected)
    assert_same(pull(y), gradient, rtol=1e-10)
    assert tree.flatten(other)[1] == tree.flatten(y)[1]
