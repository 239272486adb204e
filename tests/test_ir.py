"""The graph: its text and back, errors with their lines, the verifier, value numbering, dead nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.errors import GraphError, ShapeError
from tracegrad.grad.adjoint import joint
from tracegrad.ir import Aval, Builder, Graph, Literal, Node, interpret, parse, verify
from tracegrad.ir.key import key_text
from tracegrad.ir.text import show
from tracegrad.ops.elementwise import mul, neg, tanh
from tracegrad.ops.reduce import reduce_sum
from tracegrad.record import replace
from tracegrad.trace import trace

F32 = np.dtype(np.float32)
MODEL = """\
def model(w: f32[8], x: f32[8]) -> (f32, f32[8]):
    a: f32[8] = mul(w, x)
    b: f32[8] = tanh(a)
    c: f32 = reduce_sum(b, axes=(0,))
    d: f32[8] = mul(b, b)
    e: f32[8] = sub(1.0, d)
    f: f32[8] = mul(e, x)
    return c, f"""


@pytest.mark.parametrize(
    "text",
    [
        MODEL,
        "def f() -> f64:\n    return f64(1.0)",
        "def f(x: f32) -> ():\n    return ()",
        "def f(x: bool[0, 3]) -> bool[0, 3]:\n    a: bool[0, 3] = logical_not(x)\n    return a",
        "def f(x: i64[2]) -> i64[2]:\n    a: i64[2] = add(x, -3)\n    return a",
        "def f(x: f64[2]) -> f64[2]:\n    a: f64[2] = add(x, -inf)\n    b: f64[2] = mul(a, nan)\n    return b",
        "def f(x: f64[2]) -> f64[2]:\n    a: f64[2] = add(x, -0.0)\n    return a",
        "def f(x: f32[2]) -> bool[2]:\n    a: bool[2] = greater(x, 1e-30)\n    return a",
        "def f(c: bool[2]) -> f32[2]:\n    a: f32[2] = where(c, f32(1.0), f32(inf))\n    return a",
        "def f() -> f64[3]:\n    a: f64[3] = broadcast(f64(0.5), axes=(), shape=(3,))\n    return a",
        "def f() -> i32[2, 3]:\n    a: i32[2, 3] = iota(axis=1, dtype=i32, shape=(2, 3))\n    return a",
        "def f(x: f32[4]) -> u8[4]:\n    a: u8[4] = convert(x, dtype=u8)\n    return a",
        "def f(x: f32[2, 3], i: i64) -> f32[3]:\n    a: f32[3] = gather(x, i, axes=(0,))\n    return a",
    ],
)
def test_text_round_trip(text: str) -> None:
    graph = parse(text)
    verify(graph)
    assert str(graph) == text


def test_parsing_accepts_nested_applications() -> None:
    nested = parse("def f(x: f32[3]) -> f32:\n    return reduce_sum(mul(x, tanh(x)), axes=(0,))")
    assert [n.prim.name for n in nested.nodes] == ["tanh", "mul", "reduce_sum"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "def f(x: f32[3]) -> f32[3]:\n    a: f32[4] = tanh(x)\n    return a",
            "line 2: a is declared f32[4] but tanh gives f32[3]",
        ),
        ("def f(x: f32[3]) -> f32[3]:\n    return y", "line 2: y is not a value, a literal or a primitive"),
        ("def f(x: f32[3]) -> f32[3]:\n    return nope(x)", "line 2: nope(x) is not a value, a literal or a primitive"),
        ("def f(x: f32[3]) -> f32[4]:\n    return x", "line 1: declared to return f32[4] but returns f32[3]"),
        ("def f(x: f32[3]) -> f32[3]:\n    tanh(x)\n    return x", "line 2: expected `name: type = primitive(...)`"),
        ("def f(x: f32[3]) -> f32[3]:\n    a: f32[3] = tanh(x)", "line 2: the last statement must return"),
        ("def f(x: f8[3]) -> f8[3]:\n    return x", "line 1: f8[3] is not a type"),
        ("def f(x) -> f32:\n    return x", "line 1: x has no type"),
        ("def f(x: f32[3]) -> f32:\n    return 1.0", "line 2: the literal 1.0 needs a dtype, for instance f32(1.0)"),
        ("def f(x: f32[3]) -> f32:\n    return reduce_sum(x, axes=y)", "line 2: y is not a parameter"),
        ("def f(x: f32[3) -> f32:\n    return x", "line 1:"),
        ("x = 1", "line 1: the text of a graph is one function definition"),
    ],
)
def test_parse_errors_name_the_line(text: str, message: str) -> None:
    with pytest.raises(GraphError) as caught:
        parse(text)
    assert message in caught.value.message


def test_parse_checks_shapes() -> None:
    with pytest.raises(ShapeError, match=r"f32\[3\] and f32\[4\] differ in shape"):
        parse("def f(x: f32[3], y: f32[4]) -> f32[3]:\n    return add(x, y)")


def test_input_names_are_made_valid() -> None:
    builder = Builder("f")
    names = ["['class']", "lambda", "tanh", "f32", "['w'][0]", "['w'][0]", "0", "", "inf"]
    inputs = [builder.input(Aval((2,), F32), name) for name in names]
    graph = builder.finish(inputs)
    text = str(graph)
    assert str(parse(text)) == text
    assert len(set(parse(text).names.values())) == len(names)


def test_lines_are_comments() -> None:
    graph = trace(lambda x: tnp.sin(x), [Aval((2,), F32)]).graph
    text = show(graph, lines=True)
    assert "# test_ir.py:" in text
    assert str(parse(text)) == str(graph)


def test_values_are_numbered() -> None:
    def fn(x: object) -> object:
        return tnp.sin(x) * tnp.sin(x) + tnp.multiply(x, 2.0) * tnp.multiply(x, 2.0)

    graph = trace(fn, [Aval((3,), F32)]).graph
    assert sorted(n.prim.name for n in graph.nodes) == ["add", "mul", "mul", "mul", "sin"]


def test_numbering_tells_literals_apart() -> None:
    builder = Builder()
    x = builder.input(Aval((2,), F32))
    one, zero, minus = (builder.add(mul, [x, Literal(v, F32)], {}) for v in (1.0, 0.0, -0.0))
    assert len({one, zero, minus}) == 3
    assert builder.add(mul, [x, Literal(-0.0, F32)], {}) is minus
    first, second = (builder.add(reduce_sum, [x], {"axes": axes}) for axes in ((0,), ()))
    assert first is not second


def test_dead_nodes_go_and_inputs_stay() -> None:
    builder = Builder()
    x, y = builder.input(Aval((2,), F32), "x"), builder.input(Aval((2,), F32), "y")
    kept = builder.add(tanh, [x], {})
    builder.add(neg, [y], {})
    graph = builder.finish([kept])
    assert graph.nodes == (kept,)
    assert graph.inputs == (x, y)


def test_verifier() -> None:
    graph = parse(MODEL)
    a, b = graph.nodes[:2]
    with pytest.raises(GraphError, match="uses .* before it is defined"):
        verify(replace(graph, nodes=(b, a, *graph.nodes[2:])))
    wrong = Node(a.prim, a.operands, {}, Aval((9,), F32))
    with pytest.raises(GraphError, match=r"node 0 is declared f32\[9\] but mul gives f32\[8\]"):
        verify(Graph("f", graph.inputs, (wrong,), ()))
    with pytest.raises(GraphError, match="stands twice"):
        verify(Graph("f", graph.inputs, (a, a), (a,)))
    with pytest.raises(GraphError, match="output .* is not defined"):
        verify(Graph("f", graph.inputs, (), (a,)))
    with pytest.raises(GraphError, match="is not an input, or stands twice"):
        verify(Graph("f", (*graph.inputs, graph.inputs[0]), (), ()))


def test_users_and_inline() -> None:
    graph = parse(MODEL)
    b = graph.nodes[1]
    assert [n.prim.name for n in graph.users()[b]] == ["reduce_sum", "mul", "mul"]
    builder = Builder("twice")
    x = builder.input(Aval((8,), F32), "x")
    first = builder.inline(graph, [x, x])
    second = builder.inline(graph, [x, x])
    assert first == second
    assert [n.prim.name for n in builder.finish(first).nodes] == [n.prim.name for n in graph.nodes]


def test_interpreter_visits_every_node() -> None:
    graph = parse(MODEL)
    seen: list[str] = []
    x = np.linspace(0.0, 1.0, 8, dtype=np.float32)
    total, _ = interpret(graph, x, x, visit=lambda node, value: seen.append(node.prim.name))
    assert seen == [n.prim.name for n in graph.nodes]
    np.testing.assert_allclose(total, np.tanh(x * x).sum(), rtol=1e-6)


def test_joint_graph() -> None:
    graph = parse(
        "def f(x: f32[3], y: f32[3]) -> (f32, f32[3]):\n"
        "    a: f32[3] = mul(x, y)\n    return reduce_sum(a, axes=(0,)), a"
    )
    first = joint(graph, (0, 1))
    assert len(first.inputs) == 2 and len(first.outputs) == 4
    seeded = joint(graph, (0,), seeds=(0, 1))
    assert [str(n.aval) for n in seeded.inputs] == ["f32[3]", "f32[3]", "f32", "f32[3]"]
    x, y, ct = (np.array(v, np.float32) for v in ([1, 2, 3], [4, 5, 6], [1, 0, 2]))
    np.testing.assert_array_equal(interpret(seeded, x, y, np.float32(2.0), ct)[2], (2 + ct) * y)


def test_joint_graph_of_what_does_not_depend_has_zeros_and_no_extra_inputs() -> None:
    graph = parse("def f(x: f32[3], y: f32[3]) -> f32:\n    return reduce_sum(x, axes=(0,))")
    gradient = joint(graph, (0, 1))
    assert len(gradient.inputs) == 2
    ones, zeros = interpret(gradient, np.ones(3, np.float32), np.ones(3, np.float32))[1:]
    np.testing.assert_array_equal(ones, [1, 1, 1])
    np.testing.assert_array_equal(zeros, [0, 0, 0])


def test_adjoint_nodes_carry_the_users_line() -> None:
    def fn(x: object) -> object:
        y = tnp.sin(x)
        return tnp.sum(y * y)

    gradient = joint(trace(fn, [Aval((3,), F32)]).graph, (0,))
    sine = next(n for n in gradient.nodes if n.prim.name == "sin")
    cosine = next(n for n in gradient.nodes if n.prim.name == "cos")
    assert sine.where is not None and cosine.where is not None
    assert cosine.where.line == sine.where.line == fn.__code__.co_firstlineno + 1
    assert all(n.where is not None and n.where.file == __file__ for n in gradient.nodes)


def test_cotangents_that_meet_are_added_once() -> None:
    gradient = joint(parse("def f(x: f64) -> f64:\n    a: f64 = mul(x, x)\n    return add(a, a)"), (0,))
    assert interpret(gradient, np.float64(3.0))[1] == 12.0


# --- the key in the cache ---------------------------------------------------------------------------------------------


def of(build: Any, *dtypes: Any, name: str = "main") -> Graph:
    names = [f"{name}{i}" for i in range(len(dtypes))]
    return trace(build, [Aval((3,), np.dtype(d)) for d in dtypes], name=name, names=names).graph


DIFFERENT = [
    of(lambda x, y: x - y, np.float32, np.float32),
    of(lambda x, y: y - x, np.float32, np.float32),
    of(lambda x, y: x - y, np.float64, np.float64),
    of(lambda x, y: x + y, np.float32, np.float32),
    of(lambda x, y: (x - y, x), np.float32, np.float32),
    of(lambda x, y: (x, x - y), np.float32, np.float32),
    of(lambda x, y, z: x - y, np.float32, np.float32, np.float32),
    of(lambda x: x * 0.0, np.float32),
    of(lambda x: x * -0.0, np.float32),
    of(lambda x: x * np.nan, np.float32),
    of(lambda x: 0.0, np.float32),
    of(lambda x: 0, np.float32),
    of(lambda x: x.sum(), np.float32),
    of(lambda x: x.sum(keepdims=True), np.float32),
    of(lambda x: x.astype(np.float64), np.float32),
    of(lambda x: x.astype(np.int64), np.float32),
    *[of(lambda x, k=k: tg.fori_loop(0, 3, lambda i, s: s + k * x, x), np.float32) for k in (1.0, 2.0)],
]  # fmt: skip


def test_keys_of_different_graphs_differ() -> None:
    assert len({key_text(graph) for graph in DIFFERENT}) == len(DIFFERENT)


@pytest.mark.parametrize("graph", DIFFERENT, ids=range(len(DIFFERENT)))
def test_the_key_survives_printing_and_knows_no_names(graph: Graph) -> None:
    assert key_text(parse(show(graph))) == key_text(graph)


def test_the_key_has_lines_where_they_matter() -> None:
    def add(x: Any) -> Any:
        return x + 1.0

    one, same, other = of(add, np.float32), of(add, np.float32, name="else"), of(lambda x: x + 1.0, np.float32)
    assert key_text(one) == key_text(same) == key_text(other)
    assert key_text(one, lines=True) == key_text(same, lines=True) != key_text(other, lines=True)
