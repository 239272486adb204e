"""Matrix products that move out of scans, and what scans drop: the values stay, the bodies shrink."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import tree
from tracegrad.ir import Graph, Node, interpret, verify
from tracegrad.ops.contract import dot
from tracegrad.ops.control import scan
from tracegrad.passes import scans
from tracegrad.passes.simplify import simplify
from tracegrad.testing import check_grads

RNG = np.random.default_rng(7)
X, W, H = RNG.normal(size=(5, 2, 3)), RNG.normal(size=(3, 4)), RNG.normal(size=(2, 4))


def body_dots(graph: Graph) -> int:
    """Return the number of products in the bodies of a graph's scans, of which there is at most one."""
    bodies = [n.params["body"] for n in graph.nodes if n.prim is scan]
    assert len(bodies) <= 1
    return sum(count_dots(b) for b in bodies)


def count_dots(graph: Graph) -> int:
    return sum(n.prim is dot for n in graph.nodes)


def the_scan(graph: Graph) -> Node:
    (node,) = [n for n in graph.nodes if n.prim is scan]
    return node


def rnn(x: Any, w: Any, h: Any) -> Any:
    return tg.scan(lambda c, row: (np.tanh(row @ w + c), None), h, x)[0]


def rnn_reversed(x: Any, w: Any, h: Any) -> Any:
    return tg.scan(lambda c, row: (np.tanh(row @ w + c), c), h, x, reverse=True)


def from_the_left(x: Any, w: Any, h: Any) -> Any:
    return tg.scan(lambda c, row: (np.tanh((w.T @ row.T).T + c), None), h, x)[0]


def batched(x: Any, w: Any, h: Any) -> Any:
    weights = np.stack([w, 2.0 * w])
    return tg.scan(lambda c, row: (np.tanh((row[:, None, :] @ weights)[:, 0] + c), None), h, x)[0]


def leaving(x: Any, w: Any, h: Any) -> Any:
    return tg.scan(lambda c, row: (c + np.sin(row), np.cos(c + row) @ w), x[0], x)


def leaving_from_the_left(x: Any, w: Any, h: Any) -> Any:
    return tg.scan(lambda c, row: (c + np.sin(row), w.T @ np.cos(c + row).T), x[0], x)


def total(x: Any, w: Any, h: Any) -> Any:
    return tg.scan(lambda c, row: (c + np.sin(row).T @ np.cos(row), None), w @ w.T, x)[0]


def total_of_slices(x: Any, w: Any, h: Any) -> Any:
    return tg.scan(lambda c, row: (row.T @ row + c, None), np.zeros_like(w @ w.T), x)[0]


def total_batched(x: Any, w: Any, h: Any) -> Any:
    first = x[0][:, :, None] * x[1][:, None, :]
    return tg.scan(lambda c, row: (c + row[:, :, None] @ np.exp(row)[:, None, :], None), first, x)[0]


def everything_moves(x: Any, w: Any, h: Any) -> Any:
    return tg.map(lambda row: row @ w, x)


def total_also_read(x: Any, w: Any, h: Any) -> Any:
    return tg.scan(lambda c, row: (c + row.T @ row, c.sum()), np.zeros_like(w @ w.T), x)


def product_also_read(x: Any, w: Any, h: Any) -> Any:
    def step(c: Any, row: Any) -> Any:
        p = np.tanh(c) @ w
        return c + p.sum() + row, p

    return tg.scan(step, x[0], x)


MOVES: list[tuple[Callable[..., Any], int]] = [
    (rnn, 0), (rnn_reversed, 0), (from_the_left, 0), (batched, 0), (leaving, 0), (leaving_from_the_left, 0), (total, 0),
    (total_of_slices, 0), (total_batched, 0), (everything_moves, 0), (total_also_read, 1), (product_also_read, 1),
]  # fmt: skip


def graph_of(fn: Callable[..., Any], *args: Any) -> Graph:
    return tg.jit(fn).lower(*args).graph


@pytest.mark.parametrize(("fn", "left"), MOVES, ids=lambda v: getattr(v, "__name__", str(v)))
def test_products_move_and_values_stay(fn: Callable[..., Any], left: int) -> None:
    graph = graph_of(fn, X, W, H)
    simple = verify(simplify(graph))
    assert body_dots(simple) == left, str(simple)
    for a, b in zip(interpret(simple, X, W, H), interpret(graph, X, W, H), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)
    assert str(simplify(simple)) == str(simple)


@pytest.mark.parametrize("fn", [f for f, _ in MOVES], ids=lambda f: f.__name__)
def test_gradients_through_moved_products(fn: Callable[..., Any]) -> None:
    def loss(x: Any, w: Any, h: Any) -> Any:
        return sum((np.sin(y) ** 2).sum() for y in tree.leaves(fn(x, w, h)))

    check_grads(loss, (X, W, H), order=2)


def test_a_product_stays_where_stacking_would_be_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "STACK_BYTES", 5 * 2 * 4 * 8 - 1)
    assert body_dots(simplify(graph_of(rnn, X, W, H))) == 1
    monkeypatch.setattr(scans, "STACK_BYTES", 5 * 2 * 4 * 8)
    assert body_dots(simplify(graph_of(rnn, X, W, H))) == 0


def test_what_nobody_reads_is_dropped() -> None:
    def fn(x: Any, h: Any) -> Any:
        def step(state: Any, row: Any) -> Any:
            a, b, n = state
            return (a + row.sum(), np.tanh(b), n + 1), (b, a * 2.0)

        return tg.scan(step, (0.0, h, 0), x)[1][1]

    simple = verify(simplify(graph_of(fn, X, H)))
    node = the_scan(simple)
    assert node.params["n_carry"] == 1
    assert len(node.params["body"].outputs) == 2
    np.testing.assert_allclose(interpret(simple, X, H)[0], 2.0 * np.concatenate([[0.0], X.sum((1, 2)).cumsum()[:-1]]))


def test_the_backward_loop_of_a_recurrent_network_has_one_product() -> None:
    """The state's cotangent needs one in each round; the inputs' products and the weights' sums need none."""

    def loss(wx: Any, wh: Any, x: Any) -> Any:
        return tg.scan(lambda c, row: (np.tanh(row @ wx + c @ wh), None), np.zeros((2, 4)), x)[0].sum()

    wh = RNG.normal(size=(4, 4))
    simple = simplify(tg.grad(loss, argnums=(0, 1)).lower(W, wh, X).graph)
    counts = [count_dots(n.params["body"]) for n in simple.nodes if n.prim is scan]
    assert counts == [1, 1]
    assert count_dots(simple) == 3
