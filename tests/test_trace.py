"""Tracing: what is captured, what leaks, which line a node carries, what a traced value refuses to be."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError, DTypeError, TracerError, TracerLeakError, Where
from tracegrad.inlining import inline
from tracegrad.ir import Aval, Literal, Node, interpret
from tracegrad.trace import Tracer, new_trace, trace

F32 = np.dtype(np.float32)
F64 = np.dtype(np.float64)
V = Aval((3,), F64)


def test_a_captured_array_is_read_at_each_call() -> None:
    table = np.array([1.0, 2.0, 3.0])
    traced = trace(lambda x: x * table + tnp.sin(table) + table[0] * x, [V])
    assert [c is table for c in traced.captures] == [True]
    assert len(traced.graph.inputs) == 2
    x = np.ones(3)
    before = interpret(traced.graph, x, *traced.captures)[0]
    table[:] = 5.0
    after = interpret(traced.graph, x, *traced.captures)[0]
    np.testing.assert_allclose(before, [1, 2, 3] + np.sin([1, 2, 3]) + 1.0)
    np.testing.assert_allclose(after, [5, 5, 5] + np.sin([5, 5, 5]) + 1.0)


def test_numbers_become_literals() -> None:
    traced = trace(lambda x: x * 2.0 + np.float64(3.0) - np.float32(1.0), [V])
    assert traced.captures == ()
    literals = [o for n in traced.graph.nodes for o in n.operands if isinstance(o, Literal)]
    assert [(o.value, o.dtype) for o in literals] == [(2.0, F64), (3.0, F64), (1.0, F64)]


def test_creation_inside_a_trace_captures_nothing() -> None:
    def fn(x: Any) -> Any:
        return (
            x
            + tnp.zeros(3)
            + tnp.arange(3)
            + tnp.eye(3)[0]
            + tnp.full(3, 2.0)
            + tnp.linspace(0, 1, 3)
            + tnp.ones_like(x)
        )

    traced = trace(fn, [V])
    assert traced.captures == ()
    np.testing.assert_allclose(interpret(traced.graph, np.zeros(3))[0], [4, 4.5, 6])


def test_a_captured_array_of_an_unsupported_dtype_is_refused() -> None:
    with pytest.raises(DTypeError, match="has dtype complex128"):
        trace(lambda x: x * np.zeros(3, complex), [V])


def test_a_leaked_value_is_refused_by_name() -> None:
    kept: list[Any] = []

    def fn(x: Any) -> Any:
        kept.append(x * 2.0)
        return x

    trace(fn, [V])
    line = fn.__code__.co_firstlineno + 1
    for use in (
        lambda: kept[0] + 1.0,
        lambda: tnp.sin(kept[0]),
        lambda: float(kept[0]),
        lambda: trace(lambda x: x + kept[0], [V]),
    ):
        with pytest.raises(TracerLeakError) as caught:
            use()
        message = str(caught.value)
        assert "a traced value f64[3] was used after its function had been traced" in message
        assert f"it was made at test_trace.py:{line}" in message
        assert "\n  fix: return it from the function" in message


def test_inner_traces_capture_outer_values() -> None:
    def outer(x: Any) -> Any:
        y = x * 2.0
        inner = trace(lambda z: z + y, [V])
        assert len(inner.captures) == 1 and inner.captures[0]._node is y._node
        return inline(inner.graph, [x, *inner.captures])[0]

    traced = trace(outer, [V])
    np.testing.assert_array_equal(interpret(traced.graph, np.ones(3))[0], [3, 3, 3])


def test_an_inner_value_does_not_escape_to_the_outer_trace() -> None:
    kept: list[Any] = []

    def outer(x: Any) -> Any:
        trace(lambda z: kept.append(z * 1.5), [V])
        return x + kept[0]

    with pytest.raises(TracerLeakError):
        trace(outer, [V])


def test_nodes_carry_the_users_line() -> None:
    def fn(x: Any) -> Any:
        y = np.sin(x)
        z = y.reshape(3, 1)
        return (z @ z.T).sum()

    first = fn.__code__.co_firstlineno
    lines = {n.prim.name: n.where for n in trace(fn, [V]).graph.nodes}
    assert lines["sin"] == Where(__file__, first + 1, "fn")
    assert lines["reshape"] == Where(__file__, first + 2, "fn")
    assert lines["reduce_sum"] == lines["dot"] == Where(__file__, first + 3, "fn")


def test_trees_come_back() -> None:
    traced = trace(lambda x: {"a": x, "b": (x + 1.0, None, 2.0)}, [V])
    assert len(traced.graph.outputs) == 3
    assert isinstance(traced.graph.outputs[2], Literal)


def test_weak_arguments() -> None:
    traced = trace(lambda x, s: (x * s, s + 1), [Aval((3,), F32), Aval((), F64)], weak=[False, True])
    assert [o.dtype for o in traced.graph.outputs] == [F32, F64]
    assert traced.weak == (False, True)


@pytest.mark.parametrize(
    ("use", "text", "fix"),
    [
        (bool, "the truth value of a traced value f64 is not known while tracing", "use np.where(condition, a, b)"),
        (int, "int() of a traced value f64 is not known", "use x.astype(np.int64)"),
        (float, "float() of a traced value f64 is not known", "use x.astype(np.float64)"),
        (lambda x: [1, 2, 3][x], "an integer of a traced value f64 is not known", "tnp.asarray(table)[i]"),
        (lambda x: x.item(), "item() of a traced value f64 is not known", "call item() outside"),
        (len, "a traced scalar has no length", "check the shape"),
        (np.asarray, "cannot be turned into a NumPy array while tracing", "use a function of tracegrad.numpy"),
    ],
)
def test_what_a_traced_value_is_not(use: Any, text: str, fix: str) -> None:
    with pytest.raises(TracerError) as caught:
        trace(lambda x: use(x), [Aval((), F64)])
    message = str(caught.value)
    assert text in message
    assert fix in message.split("\n  fix: ")[1]


def test_wrong_results_are_refused() -> None:
    with pytest.raises(ArgumentError, match="a value of type str is not an array"):
        trace(lambda x: (x, "text"), [V])


def test_iteration_and_unpacking() -> None:
    def fn(x: Any) -> Any:
        a, b, c = x
        assert len(x) == 3 and x.ndim == 1 and x.size == 3 and x.shape == (3,) and x.dtype == F64
        return a + b * c + sum(x)

    np.testing.assert_allclose(interpret(trace(fn, [V]).graph, np.array([1.0, 2.0, 3.0]))[0], 13.0)


def test_eager_traces_know_their_values() -> None:
    with new_trace("eager", computes=True) as this:
        x = this.input(V, value=np.array([1.0, -2.0, 3.0]))
        y = np.where(x > 0, x, 0.0)
        assert bool(y[0] == 1.0) and float(y[2]) == 3.0 and y[1].item() == 0.0
        positive = x[x > 0]
        assert positive.shape == (2,)
        node = positive._node
        assert isinstance(node, Node)
        np.testing.assert_array_equal(this.values[node], [1.0, 3.0])


def test_tracers_have_no_hash_and_show_their_type() -> None:
    def fn(x: Tracer) -> Any:
        with pytest.raises(TracerError, match=r"the hash of a traced value f64\[3\]"):
            hash(x)
        assert repr(x) == "Tracer<f64[3]>"
        return x

    trace(fn, [V])


def test_errors_outside_packages_show_only_the_file_name() -> None:
    assert str(Where(str(pathlib.Path("some") / "model.py"), 3)) == "model.py:3"
