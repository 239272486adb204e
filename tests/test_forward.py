"""Forward mode: every primitive's samples, control flow, Jacobians, and how the two modes nest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from compiled import Batch
from test_ops import SAMPLES, applied, avals, draw, order_of

import tracegrad as tg
from tracegrad.errors import ArgumentError, DTypeError, GradientError, ShapeError
from tracegrad.grad import forward
from tracegrad.grad.adjoint import joint
from tracegrad.grad.forward import pushforward
from tracegrad.ir import PRIMITIVES, Graph, Primitive, interpret, parse, verify
from tracegrad.ops import elementwise as ew
from tracegrad.ops import pool, reduce
from tracegrad.ops.contract import dot
from tracegrad.trace import trace

WAYS = [pytest.param(nullcontext, id="compiled"), pytest.param(tg.eager, id="eager")]
FLOATING = [p for p in SAMPLES if order_of(*p.values) and p.values[1]["shapes"]]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def floating(arrays: Sequence[Any]) -> list[int]:
    return [i for i, a in enumerate(arrays) if np.asarray(a).dtype == np.float64]


def directions(graph: Graph, wrt: Sequence[int], rng: np.random.Generator) -> list[Any]:
    return [np.asarray(rng.standard_normal(graph.inputs[i].shape)) for i in wrt]


def check_pushforward(graph: Graph, arrays: Sequence[Any], wrt: Sequence[int], rng: np.random.Generator) -> Graph:
    """Compare tangents with central differences, and <ct, J t> with <J^T ct, t>; return the pushforward."""
    ts = directions(graph, wrt, rng)
    pushed = verify(pushforward(graph, wrt))
    n = len(graph.outputs)
    found = interpret(pushed, *arrays, *ts)
    kept = [i for i, o in enumerate(graph.outputs) if o.dtype.kind == "f"]
    ends = []
    for step in (1e-6, -1e-6):
        moved = list(arrays)
        for i, t in zip(wrt, ts, strict=True):
            moved[i] = arrays[i] + step * t
        ends.append(interpret(graph, *moved))
    for y, expected in zip(found[:n], interpret(graph, *arrays), strict=True):
        np.testing.assert_array_equal(y, expected)
    for i, t in zip(kept, found[n:], strict=True):
        np.testing.assert_allclose(t, (ends[0][i] - ends[1][i]) / 2e-6, rtol=2e-5, atol=1e-6, err_msg=str(pushed))
    cts = [np.asarray(rng.standard_normal(graph.outputs[i].aval.shape)) for i in kept]
    pulled = interpret(joint(graph, wrt, seeds=kept), *arrays, *cts)[n:]
    forwards = sum(float(np.sum(c * t)) for c, t in zip(cts, found[n:], strict=True))
    backwards = sum(float(np.sum(g * t)) for g, t in zip(pulled, ts, strict=True))
    np.testing.assert_allclose(forwards, backwards, rtol=1e-10, atol=1e-10)
    return pushed


# --- primitives -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("prim", "sample"), FLOATING)
def test_primitive_forward_to_second_order(prim: Primitive, sample: dict[str, Any], rng: np.random.Generator) -> None:
    """Tangents, and the tangents of tangents and of cotangents."""
    arrays = draw(prim, sample, rng)
    graph, wrt = applied(prim, sample, arrays), floating(arrays)
    pushed = check_pushforward(graph, arrays, wrt, rng)
    ts = directions(graph, wrt, rng)
    check_pushforward(pushed, [*arrays, *ts], wrt, rng)
    adjoint = joint(graph, wrt, seeds=(0,))
    cts = [np.asarray(rng.standard_normal(graph.outputs[0].aval.shape))]
    check_pushforward(adjoint, [*arrays, *cts], wrt, rng)
    assert str(parse(str(pushed))) == str(pushed)


def test_primitives_forward_compiled(rng: np.random.Generator) -> None:
    batch = Batch()
    for number, (prim, sample) in enumerate(p.values for p in FLOATING):
        arrays = draw(prim, sample, rng)
        graph, wrt = applied(prim, sample, arrays), floating(arrays)
        batch.add(pushforward(graph, wrt), [*arrays, *directions(graph, wrt, rng)], f"{prim.name}-{number}")
    batch.compare(1e-11, 1e-12)


def test_integers_and_stopped_values_have_no_tangent() -> None:
    x = np.array([0.5, 1.5, 0.25])
    for fn in (
        ew.floor,
        ew.stop_gradient,
        ew.sign,
        lambda v: ew.convert(ew.convert(v, dtype=np.dtype(int)), dtype=v.dtype),
    ):
        np.testing.assert_array_equal(tg.jvp(fn, (x,), (np.ones(3),))[1], np.zeros(3))
    y, t = tg.jvp(lambda v: (np.argmax(v), v > 1.0, 2.0 * v), (x,), (np.ones(3),))
    assert y[0] == 1 and t[0] is None and t[1] is None
    np.testing.assert_array_equal(t[2], 2.0 * np.ones(3))


def test_ties_share_the_tangent() -> None:
    x, t = np.array([1.0, 3.0, 3.0]), np.array([5.0, 1.0, 2.0])
    assert tg.jvp(np.max, (x,), (t,))[1] == 1.5
    assert tg.jvp(np.min, (x,), (t,))[1] == 5.0
    np.testing.assert_array_equal(tg.jvp(np.maximum, (x, np.full(3, 3.0)), (t, np.zeros(3)))[1], [0.0, 0.5, 1.0])


@pytest.mark.parametrize("number", range(len(pool.max_pool.samples)))
def test_max_pool_route_and_pick_move_with_their_first_operand(number: int, rng: np.random.Generator) -> None:
    sample = pool.max_pool.samples[number]
    x = rng.standard_normal(sample["shapes"][0])
    y = pool.max_pool(x, **sample["params"])
    for prim, first in ((pool.max_pool_pick, x), (pool.max_pool_route, y)):
        graph = trace(lambda v, x, y, p=prim: p(v, x, y, **sample["params"]), avals([first, x, y])).graph
        check_pushforward(graph, [first, x, y], [0], rng)


@pytest.mark.parametrize("way", WAYS)
def test_where_keeps_the_branch_not_taken_out(way: Any) -> None:
    x = np.array([-1.0, 0.0, 4.0])

    def fn(v: Any) -> Any:
        return np.where(v > 0.0, np.sqrt(v) + np.log(v), 0.0)

    with way():
        np.testing.assert_array_equal(tg.jvp(fn, (x,), (np.ones(3),))[1], [0.0, 0.0, 0.5])
        second = tg.jvp(tg.grad(lambda v: np.sum(fn(v))), (x,), (np.ones(3),))[1]
        np.testing.assert_allclose(second, [0.0, 0.0, -0.25 * 4.0**-1.5 - 1.0 / 16.0])
        other = tg.grad(lambda v: np.sum(tg.jvp(fn, (v,), (np.ones(3),))[1]))(x)
        np.testing.assert_allclose(other, second)


def test_every_kind_has_a_rule() -> None:
    """A new primitive either follows from its kind, or declares `jvp`, or is named here with its reason."""
    integers_only = {"iota", "argsort", "argmax", "argmin", "random_bits", "reduce_prod", "input", "item"}
    for prim in PRIMITIVES.values():
        follows = prim.linear or prim.kind in ("elementwise", "contract", "control")
        assert follows or type(prim).jvp is not Primitive.jvp or prim.name in integers_only, prim.name


def test_a_primitive_without_a_rule_is_named() -> None:
    def fn(v: Any) -> Any:
        return reduce.reduce_prod(v, axes=(0,))

    with pytest.raises(GradientError, match=r"reduce_prod has no forward-mode rule"):
        tg.jvp(fn, (np.ones(3),), (np.ones(3),))


def test_a_wrong_rule_fails_the_check(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    monkeypatch.setattr(forward, "bilinear_rule", lambda node, ts, y, operands: y)
    arrays = [rng.standard_normal((2, 3)), rng.standard_normal((3, 2))]
    graph = trace(lambda a, b: dot(a, b, contract=((1,), (0,)), batch=((), ())), avals(arrays)).graph
    with pytest.raises(AssertionError):
        check_pushforward(graph, arrays, [0, 1], rng)


# --- control flow -----------------------------------------------------------------------------------------------------
def branches(x: Any, y: Any) -> Any:
    return tg.cond(x[0] > 0.0, lambda a: (np.sin(a) * y, np.sum(a)), lambda a: (a * a, np.float64(0.0)), x)


def loop(x: Any, y: Any) -> Any:
    """A carry that moves only because another one does, an integer carry, and a constant with a tangent."""
    return tg.while_loop(
        lambda c: c[0] < 4, lambda c: (c[0] + 1, np.tanh(c[1] * y + c[2]), c[1] * 0.5), (0, x, x * 0.0 + 1.0)
    )


def recurrence(x: Any, y: Any) -> Any:
    def step(carry: Any, row: Any) -> Any:
        (a, still), b = carry, row
        return (np.sin(a) * b + y[0], still), (a * b, still + 1)

    return tg.scan(step, (x[0], np.int64(3)), y * x)


def nested(x: Any, y: Any) -> Any:
    def inner(carry: Any, row: Any) -> Any:
        taken = tg.cond(
            row > 0.5,
            lambda c: c * row,
            lambda c: tg.while_loop(lambda d: d < 3.0, lambda d: np.abs(d) * 1.5 + 1.0, c),
            carry,
        )
        return taken, np.sum(taken)

    return tg.scan(lambda c, row: (tg.scan(inner, c, x)[0] * row, c), np.float64(0.7), y)


X, Y = np.array([0.3, 0.9, 1.4]), np.array([0.5, -0.6, 0.8])
PROGRAMS = [branches, loop, recurrence, nested]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("wrt", [(0,), (1,), (0, 1)], ids=str)
def test_control_flow_forward(program: Callable[..., Any], wrt: tuple[int, ...], rng: np.random.Generator) -> None:
    graph = trace(program, avals([X, Y]), name=program.__name__).graph
    pushed = check_pushforward(graph, [X, Y], wrt, rng)
    assert str(parse(str(pushed))) == str(pushed)
    ts = directions(graph, wrt, rng)
    check_pushforward(pushed, [X, Y, *ts], wrt, rng)
    batch = Batch()
    batch.add(pushed, [X, Y, *ts], program.__name__)
    batch.compare(1e-12, 1e-13)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_control_flow_forward_over_reverse(program: Callable[..., Any], rng: np.random.Generator) -> None:
    """The pullback of a loop of unknown length reads tapes: their tangents are tapes, too."""

    def total(x: Any, y: Any) -> Any:
        leaves = list(tg.numpy.ravel(program(x, y)[-1]))
        return sum(v * v for v in leaves)

    graph = joint(trace(total, avals([X, Y])).graph, (0, 1))
    ts = [rng.standard_normal(3), rng.standard_normal(3)]
    pushed = verify(pushforward(graph, (0, 1)))
    found = interpret(pushed, X, Y, *ts)
    high, low = (interpret(graph, X + s * ts[0], Y + s * ts[1]) for s in (1e-6, -1e-6))
    for k in range(3):
        np.testing.assert_allclose(found[3 + k], (high[k] - low[k]) / 2e-6, rtol=2e-5, atol=1e-6)
    batch = Batch()
    batch.add(pushed, [X, Y, *ts], program.__name__)
    batch.compare(1e-11, 1e-12)


def test_no_tangent_no_work() -> None:
    """What does not move is not computed twice: a loop over constants stays one loop without tangents."""

    def fn(x: Any, y: Any) -> Any:
        return x * tg.scan(lambda c, row: (c * row, None), np.float64(1.0), y)[0]

    pushed = pushforward(trace(fn, avals([np.float64(1.0), Y])).graph, (0,))
    scans = [n for n in pushed.nodes if n.prim.name == "scan"]
    assert len(scans) == 1 and scans[0].params["n_carry"] == 1
    both = pushforward(trace(fn, avals([np.float64(1.0), Y])).graph, (1,))
    scans = [n for n in both.nodes if n.prim.name == "scan"]
    assert len(scans) == 1 and scans[0].params["n_carry"] == 2


# --- the public functions ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize("way", WAYS)
def test_jvp_of_pytrees_and_captures(way: Any) -> None:
    scale = np.array([2.0, 3.0])

    def fn(p: Any, x: Any) -> Any:
        return {"y": p["w"] * x * scale, "n": 3.0}

    primals = ({"w": np.array([1.0, 2.0])}, np.array([5.0, 7.0]))
    tangents = ({"w": np.array([0.1, 0.2])}, np.array([1.0, 0.0]))
    with way():
        y, t = tg.jvp(fn, primals, tangents)
    np.testing.assert_allclose(y["y"], [10.0, 42.0])
    np.testing.assert_allclose(t["y"], [3.0, 4.2])
    assert y["n"] == 3.0 and t["n"] == 0.0


def test_jvp_reads_captured_arrays_anew_and_compiles_once() -> None:
    scale = np.array(2.0)

    def fn(x: Any) -> Any:
        return x * scale

    assert tg.jvp(fn, (1.0,), (1.0,))[1] == 2.0
    scale = np.array(5.0)
    assert tg.jvp(fn, (1.0,), (1.0,))[1] == 5.0
    scale[()] = 7.0
    assert tg.jvp(fn, (3.0,), (1,)) == (21.0, 7.0)


def test_jvp_keeps_float32() -> None:
    x = np.ones(3, np.float32)
    y, t = tg.jvp(lambda v: np.exp(v) * 2.0, (x,), (x,))
    assert y.dtype == t.dtype == np.float32


@pytest.mark.parametrize(
    ("error", "args", "text"),
    [
        (ArgumentError, (1.0, 1.0), "jvp.*: primals and tangents must be tuples"),
        (ArgumentError, ((1.0,), (1.0, 2.0)), "jvp.*: the tangents have another structure"),
        (GradientError, ((3,), (1,)), "jvp.*the primal x is i64, and only floating-point values have tangents"),
        (ShapeError, ((np.ones(2),), (np.ones(3),)), r"jvp.*the tangent of x is f64\[3\], the primal is f64\[2\]"),
        (DTypeError, ((1.0,), (np.float32(1.0),)), "jvp.*the tangent of x is f32, the primal is f64"),
    ],
)
def test_wrong_calls_of_jvp(error: type[Exception], args: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        tg.jvp(lambda x: x * 1.0, *args)


def test_a_jacobian_of_integers_is_refused() -> None:
    with pytest.raises(GradientError, match="returns i64, and only floating-point results have derivatives"):
        tg.jacfwd(lambda x: np.argmax(x))(np.ones(3))


def outer(x: Any) -> Any:
    return np.sin(x)[:, None] * np.sum(x) * np.ones((1, 2))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("jacobian", [tg.jacfwd, tg.jacrev], ids=lambda f: f.__name__)
def test_jacobians_have_the_result_s_shape_first(jacobian: Any, way: Any) -> None:
    x = np.array([0.3, 0.8, -0.2])
    eye = np.eye(3)
    expected = np.cos(x)[:, None, None] * eye[:, None, :] * np.sum(x) + np.sin(x)[:, None, None] + np.zeros((1, 2, 1))
    with way():
        np.testing.assert_allclose(jacobian(outer)(x), expected)
        assert jacobian(lambda v: v * 2.0)(3.0) == 2.0
        assert jacobian(lambda v: v * np.ones(3))(3.0).shape == (3,)
        assert jacobian(lambda v: np.sum(v))(np.ones((2, 3))).shape == (2, 3)
        assert jacobian(lambda v: v[:0])(x).shape == (0, 3)
        constant = jacobian(lambda v: np.ones(2))(x)
        np.testing.assert_array_equal(constant, np.zeros((2, 3)))


@pytest.mark.parametrize("jacobian", [tg.jacfwd, tg.jacrev], ids=lambda f: f.__name__)
def test_jacobians_nest_pytrees(jacobian: Any) -> None:
    def fn(p: Any, x: Any) -> Any:
        return {"a": p["w"] @ x, "b": (x * p["s"],)}

    p, x = {"w": np.ones((2, 3)), "s": 2.0}, np.arange(3.0)
    found = jacobian(fn, argnums=(0, 1))(p, x)
    assert found["a"][0]["w"].shape == (2, 2, 3) and found["a"][0]["s"].shape == (2,)
    np.testing.assert_allclose(found["a"][1], p["w"])
    np.testing.assert_allclose(found["b"][0][0]["s"], x)
    np.testing.assert_allclose(found["b"][0][1], 2.0 * np.eye(3))
    np.testing.assert_allclose(jacobian(fn, argnums="x")(p, x=x)["b"][0], 2.0 * np.eye(3))


@pytest.mark.parametrize("way", WAYS)
def test_hessian_against_other_compositions(way: Any) -> None:
    def fn(x: Any) -> Any:
        return np.sum(np.tanh(x) ** 3) * np.sum(x * x) + x[0] * x[1]

    x = np.array([0.3, 0.8, -0.5])
    with way():
        found = tg.hessian(fn)(x)
        for other in (
            tg.jacrev(tg.jacrev(fn)),
            tg.jacfwd(tg.jacfwd(fn)),
            tg.jacrev(tg.jacfwd(fn)),
            tg.jacfwd(tg.grad(fn)),
        ):
            np.testing.assert_allclose(other(x), found, rtol=1e-10)
    step = 1e-6 * np.eye(3)
    numeric = [(tg.grad(fn)(x + s) - tg.grad(fn)(x - s)) / 2e-6 for s in step]
    np.testing.assert_allclose(found, numeric, rtol=1e-6, atol=1e-7)


def test_hessian_of_vector_functions_and_pytrees() -> None:
    found = tg.hessian(lambda p: {"y": p["a"] * np.sum(p["b"] ** 2)})({"a": np.array([1.0, 2.0]), "b": np.arange(3.0)})[
        "y"
    ]
    assert found["a"]["b"].shape == (2, 2, 3) and found["b"]["a"].shape == (2, 3, 2)
    np.testing.assert_allclose(found["b"]["b"], 2.0 * np.eye(3) * np.array([1.0, 2.0])[:, None, None])
    np.testing.assert_allclose(found["a"]["b"][:, :, 2], 4.0 * np.eye(2))


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda f: f.__name__)
def test_jacobians_of_control_flow_agree(program: Callable[..., Any]) -> None:
    def fn(x: Any) -> Any:
        return [v for v in (program(x, Y)[0], program(x, Y)[-1]) if not isinstance(v, tuple) and v.dtype == np.float64]

    for a, b in zip(tg.jacfwd(fn)(X), tg.jacrev(fn)(X), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("way", WAYS)
def test_modes_nest(way: Any) -> None:
    """d/dx of d/dy and the other way round, with values of the outer function inside the inner one."""
    with way():
        cube = tg.grad(lambda x: tg.jvp(lambda y: x * y * y, (x,), (1.0,))[1])
        assert cube(3.0) == 12.0
        assert tg.jvp(lambda x: tg.grad(lambda y: x * y * y)(x), (3.0,), (1.0,)) == (18.0, 12.0)
        assert tg.jvp(lambda x: tg.jvp(lambda y: x * y * y, (x,), (1.0,))[1], (3.0,), (1.0,)) == (18.0, 12.0)
        assert tg.jit(lambda x: tg.jvp(np.sin, (x,), (2.0 * x,))[1])(0.0) == 0.0
        third = tg.jacfwd(tg.hessian(lambda x: np.sum(x**4)))(np.array([1.0, 2.0]))
        np.testing.assert_allclose(third[1, 1, 1], 48.0)


def test_a_jacobian_computes_the_values_once() -> None:
    """What does not depend on the basis vector stands outside the loop."""
    x = np.linspace(0.1, 1.0, 5)
    graph = tg.jacfwd(lambda v: np.tanh(np.exp(v))).lower(x).graph
    loops = [n for n in graph.nodes if n.prim.name == "scan"]
    assert len(loops) == 1
    assert not {"exp", "tanh"} & {n.prim.name for n in loops[0].params["body"].nodes}


@pytest.mark.parametrize("way", WAYS)
def test_vjp_of_a_transformed_function_keeps_its_transform(way: Any) -> None:
    with way():
        y, pull = tg.vjp(tg.grad(lambda x: x * x * x), 2.0)
        assert (y, pull(1.0)) == (12.0, (12.0,))
        assert tg.jvp(tg.grad(lambda x: x * x * x), (2.0,), (1.0,)) == (12.0, 12.0)
