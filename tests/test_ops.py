"""Every primitive, from the registry: a new op is tested by the samples it declares."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad.numpy  # noqa: F401 (puts the operators on traced values)
from tracegrad.errors import DTypeError, IndexOutOfBounds, ShapeError
from tracegrad.grad.adjoint import joint
from tracegrad.ir import PRIMITIVES, Aval, Primitive, interpret, parse, verify
from tracegrad.ops import elementwise as ew
from tracegrad.ops import index, pool, reduce, shape
from tracegrad.ops.contract import dot
from tracegrad.ops.custom import Written
from tracegrad.testing import check_grads
from tracegrad.trace import trace

Runner = Callable[..., tuple[Any, ...]]
RUNNERS: dict[str, Runner] = {"interpret": interpret}
SAMPLES = [
    pytest.param(prim, sample, id=f"{prim.name}-{number}")
    for prim in PRIMITIVES.values()
    for number, sample in enumerate(prim.samples)
]
ROUTED = ("max_pool_route", "max_pool_pick", "input")


@pytest.fixture(params=RUNNERS.values(), ids=RUNNERS)
def runner(request: pytest.FixtureRequest) -> Runner:
    return request.param


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def draw(prim: Primitive, sample: dict[str, Any], rng: np.random.Generator) -> list[Any]:
    """Return operands: distinct values inside the primitive's domain, then the sample's constants."""
    dtype = np.dtype(sample.get("dtype", np.float64))
    low, high = getattr(prim, "domain", (-2.0, 2.0))
    found: list[Any] = []
    for position, size in enumerate(sample["shapes"]):
        if prim.name == "where" and position == 0:
            found.append(rng.integers(0, 2, size).astype(np.bool_))
        elif dtype.kind == "f":
            found.append(np.asarray(rng.uniform(low, high, size), dtype))
        else:
            found.append(np.asarray(rng.integers(0, 2 if dtype == np.bool_ else 5, size)).astype(dtype))
    return [*found, *sample.get("constants", [])]


def avals(arrays: list[Any]) -> list[Aval]:
    return [Aval(np.shape(a), np.asarray(a).dtype) for a in arrays]


def applied(prim: Primitive, sample: dict[str, Any], arrays: list[Any]) -> Any:
    return trace(lambda *xs: prim(*xs, **sample.get("params", {})), avals(arrays)).graph if arrays else None


def order_of(prim: Primitive, sample: dict[str, Any]) -> int:
    return sample.get("order", 2 if getattr(prim, "differentiable", True) else 0)


def test_every_primitive_has_samples_or_its_own_tests() -> None:
    elsewhere = ("control", "item")  # tests/test_control_*.py
    left = [p for p in PRIMITIVES.values() if not p.samples and p.name not in ROUTED and p.kind not in elsewhere]
    assert [p.name for p in left if not isinstance(p, Written)] == []  # these: tests/test_linalg.py


@pytest.mark.parametrize(("prim", "sample"), SAMPLES)
def test_shape_rule_is_the_eager_result(prim: Primitive, sample: dict[str, Any], rng: np.random.Generator) -> None:
    arrays = draw(prim, sample, rng)
    kept = [np.array(a) for a in arrays]
    found = prim(*arrays, **sample.get("params", {}))
    assert Aval(np.shape(found), found.dtype) == prim.aval(*avals(arrays), **sample.get("params", {}))
    for before, after in zip(kept, arrays, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(("prim", "sample"), SAMPLES)
def test_graph_computes_what_eager_computes(
    prim: Primitive, sample: dict[str, Any], rng: np.random.Generator, runner: Runner
) -> None:
    arrays = draw(prim, sample, rng)
    if not arrays:
        return
    kept = [np.array(a) for a in arrays]
    graph = verify(applied(prim, sample, arrays))
    (found,) = runner(graph, *arrays)
    np.testing.assert_allclose(found, prim(*arrays, **sample.get("params", {})), rtol=1e-13)
    for before, after in zip(kept, arrays, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(("prim", "sample"), SAMPLES)
def test_vjp_matches_finite_differences(
    prim: Primitive, sample: dict[str, Any], rng: np.random.Generator, runner: Runner
) -> None:
    arrays = draw(prim, sample, rng)
    order = order_of(prim, sample)
    if order and arrays:
        check_grads(lambda *xs: prim(*xs, **sample.get("params", {})), arrays, order, run=runner)


@pytest.mark.parametrize(("prim", "sample"), SAMPLES)
def test_text_round_trip(prim: Primitive, sample: dict[str, Any], rng: np.random.Generator) -> None:
    arrays = draw(prim, sample, rng)
    if not arrays:
        return
    graphs = [applied(prim, sample, arrays)]
    if order_of(prim, sample):
        wrt = [i for i, a in enumerate(arrays) if np.asarray(a).dtype == np.float64]
        graphs.append(joint(graphs[0], wrt, seeds=(0,)))
    for graph in graphs:
        text = str(graph)
        assert str(parse(text)) == text
        verify(parse(text))


@pytest.mark.parametrize("prim", [p for p in PRIMITIVES.values() if p.kind == "elementwise"], ids=str)
def test_elementwise_keeps_shape_at_special_values(prim: Any) -> None:
    special = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, 1e300, 5e-324])
    accepts = getattr(prim, "accepts", "f")
    if "f" not in accepts:
        special = np.array([0, 1, 1, 0, 1]).astype(np.bool_ if accepts == "b" else np.int64)
    operands = [special] * prim.nargs
    if prim.name == "where":
        operands[0] = special > 0
    params = {"dtype": np.dtype(np.int32)} if prim.name == "convert" else {}
    with np.errstate(all="ignore"):
        found = prim(*operands, **params)
    assert found.shape == special.shape


def test_a_wrong_rule_fails_the_checker(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.array([0.3, -0.7])
    check_grads(ew.tanh, [x])
    monkeypatch.setattr(ew.tanh, "_vjp", lambda ct, y, x: ct * (1.0 - y))
    with pytest.raises(AssertionError, match="order 1: the gradient gives"):
        check_grads(ew.tanh, [x])


def test_a_rule_wrong_at_second_order_fails_the_checker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ew.sin, "_vjp", lambda ct, y, x: ct * ew.stop_gradient(ew.cos(x)))
    check_grads(ew.sin, [np.array([0.3, -0.7])], order=1)
    with pytest.raises(AssertionError, match="order 2"):
        check_grads(ew.sin, [np.array([0.3, -0.7])], order=2)


# --- ties, kinks and edges, by hand -----------------------------------------------------------------------------------
def gradient(fn: Callable[..., Any], *arrays: Any, runner: Runner = interpret) -> Any:
    """Return d sum(fn) / d x of the first array."""

    def summed(*xs: Any) -> Any:
        y = fn(*xs)
        return reduce.reduce_sum(y, axes=tuple(range(y.ndim)))

    traced = trace(summed, avals(list(arrays)))
    return runner(joint(traced.graph, (0,)), *arrays, *traced.captures)[1]


def test_ties_share_the_gradient(runner: Runner) -> None:
    x = np.array([1.0, 3.0, 3.0])
    np.testing.assert_array_equal(
        gradient(lambda v: reduce.reduce_max(v, axes=(0,)), x, runner=runner), [0.0, 0.5, 0.5]
    )
    np.testing.assert_array_equal(
        gradient(lambda v: reduce.reduce_min(v, axes=(0,)), x, runner=runner), [1.0, 0.0, 0.0]
    )
    np.testing.assert_array_equal(gradient(ew.maximum, x, np.array([2.0, 3.0, 1.0]), runner=runner), [0.0, 0.5, 1.0])
    np.testing.assert_array_equal(gradient(ew.minimum, x, np.array([2.0, 3.0, 1.0]), runner=runner), [1.0, 0.5, 0.0])


def test_kinks_at_zero(runner: Runner) -> None:
    x = np.array([-1.0, 0.0, 2.0])
    np.testing.assert_array_equal(gradient(ew.abs_, x, runner=runner), [-1.0, 0.0, 1.0])
    np.testing.assert_array_equal(gradient(ew.relu, x, runner=runner), [0.0, 0.0, 1.0])
    np.testing.assert_array_equal(gradient(ew.floor, x, runner=runner), [0.0, 0.0, 0.0])


def test_power_at_zero(runner: Runner) -> None:
    x, p = np.array([0.0, 0.0, 0.0]), np.array([0.0, 1.0, 2.0])
    np.testing.assert_array_equal(gradient(ew.power, x, p, runner=runner), [0.0, 1.0, 0.0])
    np.testing.assert_array_equal(gradient(lambda q, v: ew.power(v, q), p + 1.0, x, runner=runner), [0.0, 0.0, 0.0])


def test_saturated_functions_have_no_nan(runner: Runner) -> None:
    x = np.array([-1000.0, -50.0, 0.0, 50.0, 1000.0], np.float32)
    for fn in (ew.sigmoid, ew.tanh, ew.erf, ew.erfc):
        assert np.isfinite(gradient(fn, x, runner=runner)).all(), fn


def test_nan_and_inf_pass_through_reductions() -> None:
    x = np.array([[1.0, np.nan], [np.inf, 2.0]])
    np.testing.assert_array_equal(reduce.reduce_max(x, axes=(1,)), [np.nan, np.inf])
    np.testing.assert_array_equal(reduce.reduce_min(x, axes=(1,)), [np.nan, 2.0])
    np.testing.assert_array_equal(reduce.argmax(x, axes=(1,)), [1, 0])
    np.testing.assert_array_equal(index.argsort(x), [[0, 1], [1, 0]])


def test_empty_reductions() -> None:
    empty = np.zeros((0, 3))
    np.testing.assert_array_equal(reduce.reduce_sum(empty, axes=(0,)), [0.0, 0.0, 0.0])
    with pytest.raises(ShapeError, match=r"reduce_max.*f64\[0, 3\] is empty along \(0,\)"):
        reduce.reduce_max.aval(Aval((0, 3), np.dtype(np.float64)), axes=(0,))


def test_empty_slices_and_pads(runner: Runner) -> None:
    x = np.arange(6.0).reshape(2, 3)
    params = {"start": (0, 0), "size": (0, 3), "step": (1, 1)}
    np.testing.assert_array_equal(gradient(lambda v: shape.slice_(v, **params), x, runner=runner), np.zeros((2, 3)))
    empty = np.zeros((0, 3))
    padded = {"low": (1, 0), "high": (0, 0), "gap": (2, 0)}
    np.testing.assert_array_equal(shape.pad(empty, **padded), np.zeros((1, 3)))
    np.testing.assert_array_equal(gradient(lambda v: shape.pad(v, **padded), empty, runner=runner), empty)
    joined = gradient(lambda v: shape.concat(v, v, axis=0), empty, runner=runner)
    assert joined.shape == (0, 3)


def test_dot_of_nothing_is_zero(runner: Runner) -> None:
    graph = trace(
        lambda a, b: dot(a, b, contract=((1,), (0,)), batch=((), ())), avals([np.zeros((2, 0)), np.zeros((0, 3))])
    )
    np.testing.assert_array_equal(runner(graph.graph, np.zeros((2, 0)), np.zeros((0, 3)))[0], np.zeros((2, 3)))


def test_scatter_set_keeps_the_last_and_its_gradient(runner: Runner) -> None:
    x, updates, at = np.zeros(3), np.array([1.0, 2.0, 3.0]), np.array([1, 1, 0])

    def put(u: Any, base: Any) -> Any:
        return index.scatter_set(base, u, at, axes=(0,))

    np.testing.assert_array_equal(put(updates, x), [3.0, 2.0, 0.0])
    np.testing.assert_array_equal(gradient(put, updates, x, runner=runner), [0.0, 1.0, 1.0])
    np.testing.assert_array_equal(gradient(lambda b, u: put(u, b), x, updates, runner=runner), [0.0, 0.0, 1.0])


def test_gather_refuses_an_index_out_of_bounds() -> None:
    with pytest.raises(IndexOutOfBounds, match="index 3 is out of bounds for an axis of size 3"):
        index.gather(np.zeros(3), np.array([0, 3]), axes=(0,))


GEOMETRIES = [pytest.param(s["shapes"][0], s["params"], id=str(n)) for n, s in enumerate(pool.max_pool.samples)]


@pytest.mark.parametrize(("size", "params"), GEOMETRIES)
def test_max_pool_route_and_pick_are_transposes(
    size: Any, params: Any, rng: np.random.Generator, runner: Runner
) -> None:
    """<ct, pick(t)> = <route(ct), t>, and both are differentiable in their first operand."""
    x = rng.permutation(math.prod(size)).reshape(size).astype(np.float64)
    x.flat[:2] = x.flat[2]
    y = pool.max_pool(x, **params)
    t, ct = rng.standard_normal(size), rng.standard_normal(y.shape)
    pick = trace(lambda *v: pool.max_pool_pick(*v, **params), avals([t, x, y])).graph
    route = trace(lambda *v: pool.max_pool_route(*v, **params), avals([ct, x, y])).graph
    picked, routed = runner(pick, t, x, y)[0], runner(route, ct, x, y)[0]
    assert picked.shape == y.shape and routed.shape == x.shape
    np.testing.assert_allclose(np.sum(ct * picked), np.sum(routed * t), rtol=1e-12)
    np.testing.assert_allclose(runner(pick, x, x, y)[0], y)
    for prim, first in ((pool.max_pool_pick, t), (pool.max_pool_route, ct)):
        check_grads(lambda v, p=prim: p(v, x, y, **params), [first], run=runner)


def test_max_pool_gives_a_tie_to_the_first(runner: Runner) -> None:
    x = np.array([[2.0, 2.0, 1.0, 5.0]])
    params = {"window": (2,), "stride": (2,), "padding": ((0, 0),)}
    np.testing.assert_array_equal(
        gradient(lambda v: pool.max_pool(v, **params), x, runner=runner), [[1.0, 0.0, 0.0, 1.0]]
    )


def test_errors_of_shape_rules() -> None:
    f = Aval((3,), np.dtype(np.float32))
    with pytest.raises(ShapeError, match=r"add.*: f32\[3\] and f32\[4\] differ in shape"):
        ew.add.aval(f, f.with_shape((4,)))
    with pytest.raises(DTypeError, match=r"add.*: f32\[3\] and f64\[3\] differ in dtype"):
        ew.add.aval(f, f.with_dtype(np.float64))
    with pytest.raises(DTypeError, match=r"sin.*: i64\[3\] is not float32 or float64"):
        ew.sin.aval(f.with_dtype(np.int64))
    with pytest.raises(ShapeError, match=r"matmul.*the inner sizes 10 and 12 differ"):
        dot.aval(f.with_shape((64, 10)), f.with_shape((12, 5)), contract=((1,), (0,)), batch=((), ()))
