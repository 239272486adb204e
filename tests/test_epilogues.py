"""Element-wise work on the finished blocks of products and convolutions: what is fused, with the same bits, and why
not."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from compiled import graph_of, together

import tracegrad as tg
import tracegrad.nn.functional as F
import tracegrad.numpy as tnp
from tracegrad import tree
from tracegrad.codegen.calls import block_grain
from tracegrad.codegen.entry import Entry
from tracegrad.codegen.module import Module
from tracegrad.config import config
from tracegrad.errors import IndexOutOfBounds
from tracegrad.grad.adjoint import joint
from tracegrad.ir import Graph, interpret
from tracegrad.ops.conv import conv, conv_dw, conv_dx
from tracegrad.passes.simplify import simplify
from tracegrad.runtime.program import Program, build
from tracegrad.schedule.memory import assign_memory
from tracegrad.schedule.plan import Call, Plan, build_plan

f32 = np.float32
RNG = np.random.default_rng(0)


def draw(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype(f32)


def plan_of(fn: Callable[..., Any], *arrays: Any, wrt: Any = None) -> Plan:
    graph = graph_of(fn, *arrays)
    return build_plan(simplify(graph if wrt is None else joint(graph, wrt)), 2, partial(block_grain, threads=2))


def dense(x: Any, w: Any, b: Any) -> Any:
    return tnp.maximum(x @ w + b, 0.0)


def gelu_block(x: Any, w: Any, b: Any, r: Any) -> Any:
    return r + F.gelu(x @ w + b)


def convolved(x: Any, w: Any, b: Any) -> Any:
    return F.relu(F.conv2d(x, w, b, padding=1))


def mlp(w: Any, b: Any, v: Any, x: Any, y: Any) -> Any:
    return ((F.relu(x @ w + b) @ v - y) ** 2).mean()


def adam(p: Any, m: Any, v: Any, x: Any, y: Any) -> Any:
    g = x.T @ y
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    return p - 0.1 * m / (np.sqrt(v) + 1e-8), m, v


def softmax(y: Any) -> Any:
    e = np.exp(y - y.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def attention(q: Any, k: Any, v: Any) -> Any:
    return softmax(0.2 * (q @ k.transpose(0, 2, 1))) @ v


def normed(x: Any, w: Any, b: Any, r: Any) -> Any:
    return F.layer_norm(x @ w + b + r, (w.shape[1],))


def pooled(x: Any, w: Any, b: Any) -> Any:
    return F.relu(F.conv2d(x, w, b)).mean(axis=(2, 3))


def entropy(x: Any, w: Any, b: Any, labels: Any) -> Any:
    return F.cross_entropy(x @ w + b, labels, reduction="none")


X, W, B, R = draw(64, 32), draw(32, 48), draw(48), draw(64, 48)
IMAGES, TAPS, MAPS = draw(2, 3, 9, 10), draw(4, 3, 3, 3), draw(4)
KEY = tg.random.key(0)
Q = draw(6, 40, 16)

COUNTS: list[tuple[str, int, Callable[..., Any], tuple[Any, ...], Any]] = [
    ("dense layer", 1, dense, (X, W, B), None),
    ("gelu and residual", 1, gelu_block, (X, W, B, R), None),
    ("bias before and after", 1, lambda x, w, b, r: np.tanh(b + x @ w) * r + b, (X, W, B, R), None),
    ("convolution, bias, relu", 1, convolved, (IMAGES, TAPS, MAPS), None),
    ("convolution and residual", 1, lambda x, w, r: F.conv2d(x, w, padding=1) * 0.5 + r,
     (IMAGES, TAPS, draw(2, 4, 9, 10)), None),
    ("transposed convolution, bias, relu", 1,
     lambda x, w, b: F.relu(F.conv_transpose2d(x, w, b, stride=2)), (IMAGES, draw(3, 4, 2, 2), MAPS), None),
    ("1x1 convolution", 1, lambda x, w, b: F.relu(F.conv2d(x, w, b)), (IMAGES, TAPS[:, :, :1, :1], MAPS), None),
    ("dropout", 1, lambda x, w, key: F.dropout(x @ w, 0.3, key=key), (X, W, KEY), None),
    ("two products", 2, lambda x, w, h, u, b: np.tanh(x @ w + h @ u + b), (X, W, X, W, B), None),
    ("a result that is kept", 1, lambda x, w: (x @ w, np.tanh(x @ w)), (X, W), None),
    ("through a reshape", 1, lambda x, w, b: F.relu((x @ w).reshape(4, 16, 48) + b), (X, W, B), None),
    ("sum of gradients", 2, lambda a, x, w, y: a + x @ w + y @ w, (R, X, W, X * 2.0), None),
    ("update", 1, adam, (W, W, W, draw(64, 32), draw(64, 48)), None),
    ("scaled by a number", 1, lambda x, w, s: s * (x @ w), (X, W, f32(0.3)), None),
    ("residuals of one row and one column", 1, lambda x, w, r: x @ w + r[3] * 0.5 - r[:, 2:3], (X, W, R), None),
    ("value and mask", 1, lambda x, w: (F.relu(x @ w), x @ w > 0.0), (X, W), None),
    ("dropout, scaled, and residual", 1, lambda x, w, r, key: r + 0.5 * F.dropout(F.gelu(x @ w), 0.3, key=key),
     (X, W, R, KEY), None),
    ("convolution, dropout, residual", 1, lambda x, w, r, key: r + F.dropout(F.conv2d(x, w, padding=1), 0.3, key=key),
     (IMAGES, TAPS, draw(2, 4, 9, 10), KEY), None),
    ("softmax", 1, lambda x, w: softmax(x @ w), (X, W), None),
    ("attention", 2, attention, (Q, Q * 2.0, Q + 1.0), None),
    ("layer norm of a residual", 1, normed, (X, W, B, R), None),
    ("mean of each plane", 1, pooled, (IMAGES, TAPS, MAPS), None),
    ("rows of a loss", 1, entropy, (X, W, B, np.arange(64) % 48), None),
    ("several loops", 1, lambda x, w: (lambda y: (np.tanh(y), y.max(axis=1), y.sum(axis=1)))(x @ w), (X, W), None),
    ("loss and gradients", 7, mlp, (W, B, draw(48, 5), X, draw(64, 5)), (0, 1, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "count", "fn", "arrays", "wrt"), COUNTS, ids=[c[0] for c in COUNTS])
def test_number_of_steps(name: str, count: int, fn: Callable[..., Any], arrays: tuple[Any, ...], wrt: Any) -> None:
    plan = plan_of(fn, *arrays, wrt=wrt)
    assert len(plan.steps) == count, [s.name for s in plan.steps] + [str(r) for r in plan.refusals]
    assert any(isinstance(s, Call) and s.epilogue is not None for s in plan.steps)


STRIDED = (draw(2, 3, 8, 8), draw(4, 3, 3, 3), draw(2, 4, 4, 4))
REFUSED: list[tuple[str, Callable[..., Any], tuple[Any, ...]]] = [
    ("it reads elements at other positions", lambda x, w: np.tanh((x @ w).T) * 2.0, (X, W)),
    ("it reads elements at other positions", lambda x, w: np.tanh(x @ w)[::-1] * (x @ w), (X, W)),
    ("the loops that read its result reduce other axes", lambda x, w: np.tanh(x @ w).sum(axis=0), (X, W)),
    ("the loops that read its result reduce, and its blocks are not whole rows",
     lambda x, w: np.tanh(x @ w).sum(axis=1), (X, draw(32, 2100))),
    ("the loops that read its result reduce so much", lambda x, w: np.tanh(x @ w).sum(axis=1),
     (draw(30, 32), draw(32, 900))),
    ("its result has no blocks", lambda x, w: np.tanh(x @ w).sum(axis=1), (X, draw(32, 0))),
    ("its result is one block",
     lambda x, t: F.gelu(conv_dw(x, t, kernel=(3, 3), stride=(1, 1), padding=((0, 0), (0, 0)), dilation=(1, 1),
                                 groups=1)), (draw(1, 600, 8, 8), draw(1, 1, 6, 6))),
    ("it reads elements at other positions", lambda x, w: np.tanh((x @ w)[::-1]).sum(axis=1), (X, W)),
    ("its shape is not that of the result", lambda x, w, r: F.max_pool2d(F.conv2d(x, w), 2), STRIDED),
    ("its kernel has no finished blocks", lambda x: np.tanh(np.cumsum(x, axis=0)), (X,)),
    ("its kernel has no finished blocks", lambda i: (i @ i) * 2, (np.ones((8, 8), np.int64),)),
    ("other loops run on the blocks",
     lambda x, w: (lambda y: (y.sum(axis=1), y.reshape(64, 4, 12).max(axis=2)))(x @ w), (X, W)),
    ("another value that the loops read is computed from its result",
     lambda x, w: np.cumsum(x @ w, axis=0) * (x @ w), (X, W)),
    ("the call is too small to share its work", lambda x, w: np.tanh(x @ w), (draw(500, 2), draw(2, 60))),
]  # fmt: skip


@pytest.mark.parametrize(("reason", "fn", "arrays"), REFUSED, ids=[f"{i}: {r[0]}" for i, r in enumerate(REFUSED)])
def test_refusals_say_why(reason: str, fn: Callable[..., Any], arrays: tuple[Any, ...]) -> None:
    plan = plan_of(fn, *arrays)
    assert any(f": {reason}" in str(r) for r in plan.refusals), [str(r) for r in plan.refusals]


# --- the same bits ----------------------------------------------------------------------------------------------------


def both_ways(graph: Graph, arrays: Any, **options: Any) -> tuple[Program, list[Any], list[Any]]:
    """Return the program with epilogues, and the results with and without."""
    found = []
    for epilogues in (False, True):
        config.epilogues = epilogues
        program = build(graph, **options)
        found.append(program([np.array(a) for a in arrays]))
    return program, found[1], found[0]


@pytest.fixture(autouse=True)
def _settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "threads", 2)
    monkeypatch.setattr(config, "epilogues", True)


TAILS: dict[str, Callable[[Any, Any], Any]] = {
    "relu of bias": lambda y, b: tnp.maximum(y + b, 0.0),
    "gelu of bias, both kept": lambda y, b: (y + b, F.gelu(y + b)),
    "the first axis": lambda y, b: np.tanh(y * tnp.arange(y.shape[0]).astype(y.dtype).reshape(-1, *[1] * (y.ndim - 1))),
    "result kept": lambda y, b: (y, np.exp(-y * y)),
    "a block of numbers": lambda y, b: 1.5 * y + tnp.ones(y.shape[1:], y.dtype) * b + 1.0,
}
"""Element-wise ends of a program; b has the size of the result's last axis."""

ROW_TAILS: dict[str, Callable[[Any, Any], Any]] = {
    "softmax": lambda y, b: softmax(y + b),
    "norm": lambda y, b: F.layer_norm(y, y.shape[-1:]) * b,
    "sum alone": lambda y, b: (y * y * b).sum(axis=-1),
    "all kept": lambda y, b: (y, y.max(axis=-1), np.tanh(y) - y.min(axis=-1, keepdims=True), y.sum(axis=-1)),
    "a row for the next pass": lambda y, b: ((z := np.exp(np.tanh(y))), (z - z.mean(axis=-1, keepdims=True)) * b),
    "a number for each block": lambda y, b: (
        tnp.where(y > 0.0, y, b) - y.mean(axis=tuple(range(1, y.ndim)), keepdims=True)
    ),
}
"""Ends of a program that reduce the last axis, or all but the first."""

EACH = len(TAILS) if "RANDOM_PROGRAMS" in os.environ else 1
"""Tails for each head: all of them where programs are tested at length."""
Shape = tuple[int, ...]
PRODUCTS: dict[str, tuple[Shape, Shape]] = {
    "tile": ((37, 20), (20, 45)),
    "columns cut": ((12, 9), (9, 300)),
    "many columns": ((30, 7), (7, 2100)),
    "several blocks of k": ((20, 600), (600, 33)),
    "split over k": ((5, 5000), (5000, 7)),
    "tiny": ((2, 3), (3, 2)),
    "row": ((1, 70), (70, 90)),
    "column": ((90, 70), (70, 1)),
    "row, split": ((1, 70000), (70000, 3)),
    "vectors": ((70,), (70, 130)),
    "batched": ((5, 9, 8), (5, 8, 11)),
    "batch of rows": ((3, 4, 25), (25, 31)),
    "nothing to sum": ((3, 0), (0, 4)),
    "outer product": ((300, 1), (1, 70)),
}
CONVOLUTIONS: dict[str, tuple[Shape, Shape, dict[str, Any]]] = {
    "3x3": ((2, 5, 12, 13), (6, 5, 3, 3), {"padding": 1}),
    "no padding": ((3, 4, 7, 6), (5, 4, 2, 3), {}),
    "chunks of rows": ((1, 40, 70, 64), (30, 40, 3, 3), {"padding": 1}),
    "tiles of small maps": ((9, 32, 7, 7), (40, 32, 3, 3), {"padding": 1}),
    "more maps than tiles": ((2, 48, 8, 8), (128, 48, 3, 3), {"padding": 1}),
    "tiles in parts of rows": ((1, 24, 5, 2000), (16, 24, 3, 3), {"padding": 1}),
    "stride 2": ((2, 4, 11, 12), (6, 4, 3, 3), {"stride": 2, "padding": 1}),
    "stride 2 by 1": ((2, 4, 11, 12), (6, 4, 3, 3), {"stride": (2, 1), "padding": 1}),
    "stride 3 over 2 taps": ((2, 4, 11, 13), (6, 4, 2, 2), {"stride": 3}),
    "stride 2, chunks of rows": ((1, 40, 80, 65), (30, 40, 3, 3), {"stride": 2, "padding": 1}),
    "1-d, long, stride 2": ((1, 2, 9001), (3, 2, 3), {"stride": 2, "padding": 1}),
    "dilation": ((2, 3, 14, 15), (4, 3, 3, 3), {"dilation": 2}),
    "groups": ((2, 6, 9, 9), (4, 3, 3, 3), {"groups": 2, "padding": 1}),
    "depthwise": ((2, 6, 9, 9), (6, 1, 3, 3), {"groups": 6, "padding": 1}),
    "depthwise, stride 2": ((2, 5, 12, 11), (10, 1, 3, 3), {"groups": 5, "stride": 2, "padding": 1}),
    "1x1": ((3, 8, 6, 7), (5, 8, 1, 1), {}),
    "1x1 with stride": ((3, 8, 6, 7), (5, 8, 1, 1), {"stride": 2}),
    "1-d": ((2, 3, 60), (4, 3, 5), {"padding": 2}),
    "1-d, long": ((1, 2, 9000), (3, 2, 3), {"padding": 1}),
    "3-d": ((2, 2, 5, 6, 7), (3, 2, 2, 3, 3), {"padding": 1}),
}


def conv_graphs(x_shape: Shape, w_shape: Shape, options: dict[str, Any], dtype: Any) -> list[tuple[Any, list[Any]]]:
    """Return the convolution and its two gradients as functions of arrays."""
    n = len(w_shape) - 2

    def each(name: str, default: int) -> tuple[int, ...]:
        value = options.get(name, default)
        return value if isinstance(value, tuple) else (value,) * n

    params = {
        "stride": each("stride", 1), "padding": tuple((p, p) for p in each("padding", 0)),
        "dilation": each("dilation", 1), "groups": options.get("groups", 1),
    }  # fmt: skip
    x, w = draw(*x_shape).astype(dtype), draw(*w_shape).astype(dtype)
    ct = draw(*graph_of(lambda x, w: conv(x, w, **params), x, w).outputs[0].aval.shape).astype(dtype)
    return [
        (lambda x, w: conv(x, w, **params), [x, w]),
        (lambda ct, w: conv_dx(ct, w, size=x_shape[2:], **params), [ct, w]),
        (lambda x, ct: conv_dw(x, ct, kernel=w_shape[2:], **params), [x, ct]),
    ]


def assert_same_bits(heads: list[tuple[Any, list[Any]]], dtype: Any, tails: Any = TAILS, least: float = 0.5) -> None:
    """Compile every head with some tails, fused and not, as one program each way."""
    graphs, arrays = [], []
    for number, (head, operands) in enumerate(heads):
        shape = graph_of(head, *operands).outputs[0].aval.shape
        bias = draw(*shape[-1:]).astype(dtype)
        for tail in (list(tails.values()) * 2)[number % len(tails) :][:EACH]:
            graphs.append(graph_of(lambda *a, h=head, t=tail: t(h(*a[:-1]), a[-1]), *operands, bias))
            arrays += [*operands, bias]
    program, found, expected = both_ways(together(graphs), arrays)
    assert sum("on its blocks" in line for line in program.executable.facts.steps) > len(graphs) * least
    for a, b in zip(found, expected, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))  # the sign of a NaN means nothing
        assert np.nan_to_num(a, nan=0.0).tobytes() == np.nan_to_num(b, nan=0.0).tobytes()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_keep_their_bits(dtype: Any) -> None:
    heads = [
        (lambda a, b: a @ b, [draw(*a).astype(dtype), draw(*b).astype(dtype)]) for a, b in PRODUCTS.values()
    ]
    assert_same_bits(heads, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_convolutions_keep_their_bits(dtype: Any) -> None:
    assert_same_bits([g for case in CONVOLUTIONS.values() for g in conv_graphs(*case, dtype)], dtype)


def test_numbers_that_are_not_finite_keep_their_bits() -> None:
    """Gradients of convolutions take other loops then, which finish their blocks, too."""
    heads = conv_graphs(*CONVOLUTIONS["3x3"], f32) + conv_graphs(*CONVOLUTIONS["3-d"], f32)
    heads += conv_graphs(*CONVOLUTIONS["depthwise"], f32) + conv_graphs(*CONVOLUTIONS["tiles of small maps"], f32)
    heads += conv_graphs(*CONVOLUTIONS["tiles in parts of rows"], f32)
    for _, (first, second) in heads:
        first.reshape(-1)[5], second.reshape(-1)[3] = np.inf, np.nan
    assert_same_bits(heads, f32)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reductions_of_rows_keep_their_bits(dtype: Any) -> None:
    shapes = [s for name, s in PRODUCTS.items() if name not in ("vectors", "row, split", "nothing to sum", "column")]
    heads = [(lambda a, b: a @ b, [draw(*a).astype(dtype), draw(*b).astype(dtype)]) for a, b in shapes]
    heads += [g for name in ("3x3", "1x1", "1-d") for g in conv_graphs(*CONVOLUTIONS[name], dtype)]
    assert_same_bits(heads, dtype, ROW_TAILS)


def test_rows_of_numbers_that_are_not_finite_keep_their_bits() -> None:
    heads = []
    for a, b in [((37, 20), (20, 45)), ((5, 19, 28), (5, 28, 21))]:
        left, right = draw(*a), draw(*b)
        left.reshape(-1)[5], left.reshape(-1)[30], right.reshape(-1)[3] = np.inf, -np.inf, np.nan
        heads += [(lambda a, b: a @ b, [left, right])] * 4
    assert_same_bits(heads, f32, ROW_TAILS)


def test_values_are_those_of_the_interpreter() -> None:
    cases = [(dense, (X, W, B)), (gelu_block, (X, W, B, R)), (convolved, (IMAGES, TAPS, MAPS))]
    cases += [(attention, (Q, Q, Q)), (normed, (X, W, B, R)), (pooled, (IMAGES, TAPS, MAPS))]
    for fn, arrays in cases:
        graph = graph_of(fn, *arrays)
        for backend in ("cpu", "python-source"):
            (found,) = build(graph, backend=backend)(list(arrays))
            np.testing.assert_allclose(found, interpret(graph, *arrays)[0], rtol=1e-4, atol=1e-4)


def test_one_thread_and_two_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(gelu_block, draw(200, 40), draw(40, 500), draw(500), R0 := draw(200, 500))
    arrays = [draw(200, 40), draw(40, 500), draw(500), R0]
    (two,) = build(graph)(arrays)
    monkeypatch.setattr(config, "threads", 1)
    (one,) = build(graph)(arrays)
    assert one.tobytes() == two.tobytes()


# --- memory -----------------------------------------------------------------------------------------------------------


def test_no_memory_for_what_the_epilogue_replaces() -> None:
    for fn, arrays in [(dense, (X, W, B)), (convolved, (IMAGES, TAPS, MAPS))]:
        assert assign_memory(plan_of(fn, *arrays)).arena_bytes == 0


def test_an_update_takes_over_its_donated_arrays() -> None:
    arrays = [W, draw(32, 48), np.abs(draw(32, 48)), draw(64, 32), draw(64, 48)]
    graph = graph_of(adam, *arrays)
    program, found, expected = both_ways(graph, arrays, donate=(0, 1, 2))
    assert program.kernels == 1
    for a, b in zip(found, expected, strict=True):
        assert a.tobytes() == b.tobytes()
    memory = assign_memory(build_plan(simplify(graph), 2), (0, 1, 2))
    assert memory.donated == {0: 0, 1: 1, 2: 2}
    assert memory.arena_bytes == -(-W.nbytes // 64) * 64  # the product: no result may lie over what is read still


@pytest.mark.parametrize("case", ["tiles of small maps", "tiles in parts of rows"])
def test_what_is_computed_again_is_finished_once(case: str) -> None:
    """Winograd's sums that are not finite are computed again, and added only then to what is donated."""
    for head, (first, second) in conv_graphs(*CONVOLUTIONS[case], f32):
        first[0, 1, 2, 2], second[-1, 1, 0, 0] = np.nan, np.inf
        total = draw(*graph_of(head, first, second).outputs[0].aval.shape)
        graph = graph_of(lambda a, b, t, head=head: head(a, b) + t, first, second, total)
        plan = build_plan(simplify(graph), 2, partial(block_grain, threads=2))
        assert len(plan.steps) == 1 and assign_memory(plan, (2,)).donated
        _, (found,), (expected,) = both_ways(graph, [first, second, total], donate=(2,))
        np.testing.assert_array_equal(found, expected)
        assert 0 < np.isfinite(found).sum() < found.size


def test_a_donated_operand_of_the_product_is_not_overwritten() -> None:
    square = draw(48, 48)
    graph = graph_of(lambda x, w: np.tanh(x @ w) + x, square, draw(48, 48))
    plan = build_plan(simplify(graph), 2)
    assert len(plan.steps) == 1
    assert not assign_memory(plan, (0, 1)).donated


def test_updates_come_after_the_last_read_of_what_they_replace() -> None:
    def step(p: Any, v: Any, x: Any) -> Any:
        loss, (p1, v1) = tg.value_and_grad(lambda q: (np.tanh(np.tanh(q[0] @ x) * q[1]) ** 2).sum())((p, v))
        return p - 0.1 * p1, v - 0.1 * v1, loss

    square = draw(48, 48)
    plan = plan_of(step, square, draw(48, 48), draw(48, 48))
    assert assign_memory(plan, (0, 1)).donated == {0: 0, 1: 1}


# --- elsewhere --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [np.tanh, lambda y: F.layer_norm(y, (48,))], ids=["elements", "rows"])
def test_products_in_loops_have_epilogues(end: Callable[[Any], Any]) -> None:
    def rounds(h: Any, w: Any, u: Any, x: Any, b: Any) -> Any:
        return tg.scan(lambda h, x: (end(x @ w + h @ u + b),) * 2, h, x)

    arrays = [draw(32, 48), draw(40, 48), draw(48, 48), draw(3, 32, 40), draw(48)]
    program, found, expected = both_ways(graph_of(rounds, *arrays), arrays)
    assert "dot" in program.source
    assert "on each finished block" in program.source
    for a, b in zip(found, expected, strict=True):
        assert a.tobytes() == b.tobytes()


def test_a_bad_index_in_an_epilogue_is_reported() -> None:
    fn = tg.jit(lambda x, w, t, i: np.tanh(x @ w) + t[i])
    table = draw(3, 48)
    good = fn(X, W, table, np.zeros(64, np.int64))
    assert good.shape == (64, 48)
    with pytest.raises(IndexOutOfBounds, match="axis of size 3"):
        fn(X, W, table, np.full(64, 5))


def test_the_schedule_and_the_source_show_the_epilogue() -> None:
    program = tg.compile(dense, X, W, B)
    assert program.kernels == 1
    assert "; k3_add_maximum on its blocks" in program.schedule
    assert "result0 = dot(argument0, argument1)  # f32[64, 48]" in program.source
    assert "# on each finished block of result0:\ndef k3_add_maximum(lo, hi, result0, argument2, sta" in program.source


def test_a_mask_over_its_own_memory_is_no_masked_store() -> None:
    """LLVM would make one of `x[i] = x[i] if m else 0`, unless what is loaded is frozen."""
    def text(fn: Any, *arrays: Any) -> str:
        module = Module(2)
        Entry(module, plan_of(fn, *arrays), (), symbol="tg_entry")
        return module.text()

    assert "freeze float" in text(lambda x, w, r: tnp.where(r > 0.0, x @ w, 0.0), X, W, R)
    assert "freeze" not in text(lambda r: tnp.where(r > 0.0, r, 0.0), R)


def test_a_profile_counts_the_epilogue_with_its_call() -> None:
    program = tg.compile(dense, X, W, B)
    profile = program.profile(X, W, B)
    assert len(profile.steps) == 1
    assert profile.microseconds[0] > 0.0


def test_training_gives_the_same_parameters() -> None:
    def train(params: Any, x: Any, y: Any) -> Any:
        value, grads = tg.value_and_grad(lambda p: mlp(*p, x, y))(params)
        return tree.map(lambda p, g: p - 0.01 * g, params, grads), value

    params, x, y = (W, B, draw(48, 5)), X, draw(64, 5)
    found = []
    for epilogues in (False, True):
        config.epilogues = epilogues
        step, p = tg.compile(train, params, x, y, donate="params"), tree.map(np.array, params)
        for _ in range(3):
            p, _ = step(p, x, y)
        found.append(p)
    for a, b in zip(tree.leaves(found[0]), tree.leaves(found[1]), strict=True):
        assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("m, k, n", [(513, 300, 1101), (1101, 530, 70), (40, 20_000, 30), (700, 9, 2100)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=lambda t: np.dtype(t).name)
def test_every_block_of_a_large_product_is_finished_once(m: int, k: int, n: int, dtype: Any) -> None:
    """Packed in several groups of rows and columns, cut for threads, and split along k."""
    x, w = (RNG.integers(-3, 4, shape).astype(dtype) for shape in ((m, k), (k, n)))
    b, r = RNG.integers(-9, 10, n).astype(dtype), RNG.integers(-9, 10, (m, n)).astype(dtype)
    program = tg.compile(lambda x, w, b, r: 2.0 * (x @ w + b) - r, x, w, b, r)
    assert program.kernels == 1
    np.testing.assert_array_equal(program(x, w, b, r), 2.0 * (x @ w + b) - r)  # whole numbers: every sum is exact


def test_an_epilogue_of_a_branch_reads_and_writes_numbers() -> None:
    """They lie in the arena: an epilogue is a function of its own, which sees no stack slot of the branch."""

    def until(s: Any, y: Any) -> Any:
        v = s + y @ y
        return tg.while_loop(lambda c: (c[0] < 3.0) & ~c[1], lambda c: (c[0] * 2.0, c[0] > 4.0), (v, v > 4.0))[0]

    program = tg.compile(lambda s, y: tg.cond(s > 0.0, until, lambda s, y: s, s, y), 1.0, np.ones(300))
    assert "on its blocks" in program.schedule
    np.testing.assert_allclose(program(1.0, np.full(300, 0.01)), 4.12)
    np.testing.assert_allclose(program(-1.0, np.full(300, 0.01)), -1.0)
