"""What the tests of loops and branches share: eager = interpreter = compiled, with gradients of both orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from compiled import Batch, avals

import tracegrad as tg
from tracegrad import tree
from tracegrad.grad.adjoint import joint
from tracegrad.ir import Graph, interpret, parse, verify
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
