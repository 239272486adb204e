"""The tape against the graph: every primitive's gradient, random programs in place, compiled calls, messages."""

from __future__ import annotations

import copy
import gc
import itertools
import re
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tape_methods import MATRIX, METHODS
from test_ops import SAMPLES, avals, draw, order_of

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import nn, optim, random, tree
from tracegrad.grad.adjoint import joint
from tracegrad.inlining import inline
from tracegrad.ir import Primitive, interpret
from tracegrad.tape.node import SETTLED, traced_reads
from tracegrad.trace import trace


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def tracked(*arrays: Any) -> list[tg.Tensor]:
    return [tg.tensor(a, requires_grad=np.asarray(a).dtype.kind == "f") for a in arrays]


def values(tensors: Any) -> list[Any]:
    return [t.detach().numpy() for t in tensors]


# --- every primitive --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("prim", "sample"), SAMPLES)
def test_gradients_are_those_of_the_graph(prim: Primitive, sample: dict[str, Any], rng: np.random.Generator) -> None:
    arrays, params = draw(prim, sample, rng), sample.get("params", {})
    wrt = [i for i, a in enumerate(arrays) if np.asarray(a).dtype == np.float64]
    if not order_of(prim, sample) or not wrt:
        return
    graph = trace(lambda *xs: prim(*xs, **params), avals(arrays)).graph
    both = joint(graph, wrt, seeds=(0,))
    xs = tracked(*arrays)
    y = prim(*xs, **params)
    ct = rng.normal(size=y.shape)
    wanted = interpret(both, *arrays, ct)[1:]
    leaves = [xs[i] for i in wrt]
    if not y.requires_grad:
        assert all(not w.any() for w in wanted)
        return
    found = tg.autograd.grad(y, leaves, tg.tensor(ct), create_graph=True)
    for f, w in zip(values(found), wanted, strict=True):
        np.testing.assert_allclose(f, w, rtol=1e-13, atol=1e-14)
    weights = [rng.normal(size=w.shape) for w in wanted]

    def penalty(*xs: Any) -> Any:
        gradients = inline(both, [*xs, ct])[1:]
        return sum((tnp.sum(g * w) for g, w in zip(gradients, weights, strict=True)), tnp.sum(xs[wrt[0]] * 0.0))

    traced = trace(penalty, avals(arrays))
    second = interpret(joint(traced.graph, wrt), *arrays, *traced.captures)[1:]
    total = sum(((g * w).sum() for g, w in zip(found, weights, strict=True)), (leaves[0] * 0.0).sum())
    for f, w in zip(values(tg.autograd.grad(total, leaves, materialize_grads=True)), second, strict=True):
        np.testing.assert_allclose(f, w, rtol=1e-11, atol=1e-12)


def test_what_a_rule_reads_does_not_depend_on_its_parameters(rng: np.random.Generator) -> None:
    """The tape traces a rule once for all calls of a primitive: see `reads_of`."""
    seen: dict[Any, Any] = {}
    for prim, sample in (p.values for p in SAMPLES):
        arrays, params = draw(prim, sample, rng), sample.get("params", {})
        if prim.kind not in SETTLED or not arrays or 0 in [np.size(a) for a in arrays]:
            continue
        result = prim(*arrays, **params)
        for needed in itertools.product([False, True], repeat=len(arrays)):
            if any(needed) and all(np.asarray(a).dtype.kind == "f" for a, n in zip(arrays, needed, strict=True) if n):
                reads = traced_reads(prim, needed, arrays, result, params)
                assert seen.setdefault((prim, needed), reads) == reads, prim


def test_only_what_is_read_is_kept() -> None:
    x, w = tracked(np.ones(1000), np.ones(1000))
    y = x * 2.0
    held = weakref.ref(y._data)
    z = (y + w).sum()
    del y
    gc.collect()
    assert held() is None
    product = x * w
    kept = weakref.ref(product._data)
    squared = product * product
    del product
    assert kept() is not None
    squared.sum().backward()
    del squared
    assert kept() is None
    z.backward()


def test_a_long_chain() -> None:
    (x,) = tracked(1.0)
    y = x
    for _ in range(20000):
        y = y + 1.0
    y.backward()
    del y
    assert x.grad.item() == 1.0


def test_nothing_waits_for_the_garbage_collector() -> None:
    gc.collect()
    gc.disable()
    try:
        (x,) = tracked(np.ones(10))
        y = Doubled.apply(x * 2.0).exp()
        held = [weakref.ref(y), weakref.ref(y.grad_fn), weakref.ref(y.grad_fn.next_functions[0][0])]
        y.sum().backward()
        del y
        assert [ref() for ref in held] == [None] * 3
        held = [weakref.ref(x)]
        del x
        assert held[0]() is None
    finally:
        gc.enable()


def test_constants_get_no_cotangent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cotangent of the data of a first layer is never computed."""
    shapes = []
    dot = tg.numpy.products.contract
    eager = type(dot).eager
    monkeypatch.setattr(type(dot), "eager", lambda self, *xs, **p: shapes.append(1) or eager(self, *xs, **p))
    (w,) = tracked(np.ones((3, 2)))
    (tg.tensor(np.ones((4, 3))) @ w).sum().backward()
    assert len(shapes) == 2


# --- in place ---------------------------------------------------------------------------------------------------------

STEPS: dict[str, Callable[[Any, Any], Any]] = {
    "scale row": lambda x, w: x[1].mul_(w[0]),
    "add to column": lambda x, w: x[:, 1].add_(w[:2]),
    "square all": lambda x, w: x.mul_(x),
    "copy row": lambda x, w: x[0].copy_(x[1].clone() * w[2]),
    "assign element": lambda x, w: x.__setitem__((0, 2), w[3] * w[4]),
    "assign list": lambda x, w: x.__setitem__(([0, 1], [1, 0]), w[1:3]),
    "flat slice": lambda x, w: x.view(6)[1:5:2].sub_(w[4]),
    "transposed": lambda x, w: x.T[1:].mul_(0.5),
    "reversed": lambda x, w: x[::-1][0].add_(w[5]),
    "zero element": lambda x, w: x[1, 1:].zero_(),
    "fill": lambda x, w: x[0, :1].fill_(2.0),
    "sine": lambda x, w: x[:1].sin_(),
    "iadd": lambda x, w: x.__iadd__(w.reshape(2, 3)),
    "mask": lambda x, w: x.__setitem__(x.detach() > 1.5170437, 0.5),
}
VIEWS: dict[str, Callable[[Any], Any]] = {
    "row": lambda x: x[0], "flat": lambda x: x.view(6), "turned": lambda x: x.T[1], "part": lambda x: x[:, 1:],
    "deep": lambda x: x.T.reshape(3, 2, 1)[0],
}  # fmt: skip


def changed(w: Any, steps: list[tuple[str, str]]) -> Any:
    """Change a tensor step by step, with views taken before, between and after the changes, and add it all up."""
    x = (w * 1.5).reshape(2, 3) * 1.0
    views = []
    for step, view in steps:
        views.append(VIEWS[view](x))
        STEPS[step](x, w)
    weight = 1.0
    total = (x * x).sum()
    for view in views:
        weight += 0.25
        total = total + (view * view).sum() * weight
    return total


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.sampled_from(sorted(VIEWS))), min_size=1, max_size=5))
def test_programs_in_place_match_finite_differences(steps: list[tuple[str, str]]) -> None:
    start = np.array([0.3, -0.7, 1.1, 0.9, -0.4, 0.6])
    (w,) = tracked(start)
    changed(w, steps).backward()
    with tg.no_grad():
        for i in range(6):
            ends = []
            for sign in (1.0, -1.0):
                moved = start.copy()
                moved[i] += sign * 1e-6
                ends.append(changed(tg.tensor(moved), steps).item())
            noise = 2e-6 + 1e-9 * abs(ends[0])
            np.testing.assert_allclose(w.grad[i].item(), (ends[0] - ends[1]) / 2e-6, rtol=2e-5, atol=noise)


def test_in_place_beside_what_autograd_in_pytorch_refuses() -> None:
    """y *= y overwrites both operands; the old ones are kept, and the gradient is right."""
    (x,) = tracked([1.0, 2.0, 3.0])
    y = x * 1.0
    y *= y
    y.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2.0, 4.0, 6.0])


def test_a_view_made_under_no_grad() -> None:
    (w,) = tracked([1.0, 2.0])
    x = w * 1.0
    with tg.no_grad():
        v = x[:1]
        v.mul_(3.0)
    with pytest.raises(tg.TracegradError, match="a view made under"):
        v.add_(1.0)


# --- NumPy's side -----------------------------------------------------------------------------------------------------

FUNCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "np.mean": lambda xp, x: xp.mean(x, axis=0), "np.einsum": lambda xp, x: xp.einsum("ij,kj->ik", x, x),
    "np.concatenate": lambda xp, x: xp.concatenate([x, x * 2.0], axis=1), "np.stack": lambda xp, x: xp.stack([x, x]),
    "np.linalg.norm": lambda xp, x: xp.linalg.norm(x), "np.where": lambda xp, x: xp.where(x > 0, x * x, -x),
    "np.maximum": lambda xp, x: xp.maximum(x, 0.5), "np.pad": lambda xp, x: xp.pad(x, 1),
    "np.outer": lambda xp, x: xp.outer(x[0], x[1]), "np.cumsum": lambda xp, x: xp.cumsum(x),
    "np.add.reduce": lambda xp, x: np.add.reduce(x), "np.sort": lambda xp, x: xp.sort(x),
    "np.multiply.outer": lambda xp, x: np.multiply.outer(x, x), "np.clip": lambda xp, x: xp.clip(x, -0.5, 0.5),
    "reflected": lambda xp, x: np.ones(3) * x + np.float64(2.0) - x / np.ones((2, 1)),
    "np.tensordot": lambda xp, x: xp.tensordot(x, x, 2),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("xp", [np, tnp], ids=["numpy", "tracegrad.numpy"])
def test_numpy_functions_on_tensors(name: str, xp: Any, rng: np.random.Generator) -> None:
    array = rng.normal(size=(2, 3))
    (x,) = tracked(array)
    y = FUNCTIONS[name](xp, x)
    assert isinstance(y, tg.Tensor)
    np.testing.assert_allclose(y.detach().numpy(), FUNCTIONS[name](np, array), rtol=1e-14)
    weights = rng.normal(size=y.shape)
    (y * weights).sum().backward()
    wanted = tg.grad(lambda v: tnp.sum(FUNCTIONS[name](tnp, v) * weights))
    with tg.eager():
        np.testing.assert_allclose(x.grad.numpy(), wanted(array), rtol=1e-13)


@pytest.mark.parametrize("name", METHODS)
def test_pytorch_methods_are_the_same_in_a_traced_function(name: str) -> None:
    (x,) = tracked(MATRIX)
    y = METHODS[name](x)
    traced = trace(METHODS[name], avals([np.array(MATRIX)]))
    (found,) = interpret(traced.graph, np.array(MATRIX), *traced.captures)
    np.testing.assert_allclose(y.detach().numpy(), found, rtol=1e-14)


def test_a_copy_is_a_copy() -> None:
    x = tg.tensor([1.0, 2.0])
    for y in (np.copy(x), x.copy(), tnp.array(x), x.astype(np.float64), x.clone(), tg.tensor(x), copy.deepcopy(x)):
        y += 1.0
    assert x.tolist() == [1.0, 2.0]


def test_numpy_functions_without_a_gradient_run_on_untracked_tensors() -> None:
    x = tg.tensor([3.0, 1.0, 3.0])
    assert np.unique(x).tolist() == [1.0, 3.0]
    assert isinstance(np.unique(x), tg.Tensor)
    with pytest.raises(tg.TracegradError, match=r"numpy\.unique has no gradient(.|\n)*fix: "):
        np.unique(x.requires_grad_())


def test_assigning_a_tracked_tensor_into_an_array_is_refused() -> None:
    array = np.zeros(2)
    (x,) = tracked([1.0, 2.0])
    with pytest.raises(tg.TracegradError, match="requires a gradient"):
        array[:] = x
    with pytest.raises(tg.TracegradError, match="requires a gradient"):
        array += x
    with pytest.raises(tg.TracegradError, match="a tensor cannot be written to"):
        np.add(x, 1.0, out=x.detach())
    array += x.detach()
    assert isinstance(array, np.ndarray)
    assert array.tolist() == [1.0, 2.0]


def test_classes_of_a_tensor_are_known() -> None:
    assert nn.functional.one_hot(tg.tensor([0, 2])).tolist() == [[1, 0, 0], [0, 0, 1]]
    with pytest.raises(IndexError, match="class 7 is out of bounds"):
        nn.functional.cross_entropy(tg.tensor(np.eye(3)), tg.tensor([0, 1, 7]))


def test_dlpack_both_ways() -> None:
    x = tg.tensor([1.0, 2.0])
    array = np.from_dlpack(x)
    x += 1.0
    np.testing.assert_array_equal(array, [2.0, 3.0])
    y = tg.from_dlpack(array)
    y[0] = 9.0
    np.testing.assert_array_equal(x.numpy(), [9.0, 3.0])
    assert x.__dlpack_device__() == (1, 0)
    with pytest.raises(tg.TracegradError, match="has no __dlpack__"):
        tg.from_dlpack([1.0])


# --- the tape and compiled code ---------------------------------------------------------------------------------------


def network(w: Any, x: Any) -> Any:
    return tnp.sum(tnp.tanh(x @ w) ** 2)


def test_a_compiled_call_is_one_node(rng: np.random.Generator) -> None:
    w, x = rng.normal(size=(3, 2)), rng.normal(size=(4, 3))
    compiled = tg.jit(network)
    found = []
    for f in (network, compiled):
        (v,) = tracked(w)
        y = f(v, x)
        (first,) = tg.autograd.grad(y, v, create_graph=True)
        (second,) = tg.autograd.grad((first * first).sum(), v, create_graph=True)
        (third,) = tg.autograd.grad((second**2).sum(), v)
        found.append(values([y, first, second, third]))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)
    assert y.grad_fn.next_functions[0][0].next_functions[0][0].variable is v
    assert compiled.traces == 1
    compiled(w, x)
    assert compiled.traces == 1


def test_compiled_gradients_of_tensors_are_tensors(rng: np.random.Generator) -> None:
    w, x = rng.normal(size=(3, 2)), rng.normal(size=(4, 3))
    (v,) = tracked(w)
    g = tg.grad(network)(v, x)
    assert isinstance(g, tg.Tensor)
    assert g.requires_grad
    np.testing.assert_allclose(g.detach().numpy(), tg.grad(network)(w, x))
    assert not tg.grad(network)(v.detach(), x).requires_grad
    _, pull = tg.vjp(lambda w: tnp.sin(w), v)
    np.testing.assert_allclose(values(pull(np.ones((3, 2))))[0], np.cos(w))
    with tg.eager():
        np.testing.assert_allclose(values([tg.grad(network)(v, x)])[0], tg.grad(network)(w, x))


def test_results_of_compiled_calls_may_change_in_place() -> None:
    (x,) = tracked([1.0, 2.0])
    y = tg.jit(lambda x: tnp.exp(x))(x)
    y.mul_(0.0)
    z = tg.jit(lambda x: tnp.exp(x))(x)
    z.add_(1.0)
    z.sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), np.exp([1.0, 2.0]))


def test_captured_tensors_are_inputs() -> None:
    w = tg.tensor(3.0, requires_grad=True)
    f = tg.jit(lambda x: x * w)
    f(2.0).backward()
    assert w.grad.item() == 2.0
    with tg.no_grad():
        w += 1.0
    assert f(2.0).item() == 8.0
    assert f.traces == 1


def test_what_a_traced_function_cannot_do_with_a_captured_tensor() -> None:
    w = tg.tensor([3.0], requires_grad=True)
    for body in (lambda x: x * float(w), lambda x: w.add_(x), lambda x: (w * x).sum().backward(), lambda x: w.item()):
        with pytest.raises(tg.TracegradError, match="fix: "):
            tg.jit(body)(2.0)


def test_a_compiled_program_takes_tensors() -> None:
    program = tg.compile(lambda x: x * x, tg.spec((2,)))
    (x,) = tracked([1.0, 3.0])
    program(x).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), [2.0, 6.0])
    assert not program(x.detach()).requires_grad
    with pytest.raises(tg.TracegradError, match=r"f64\[2\](.|\n)*f64\[3\]"):
        program(tg.tensor([1.0, 2.0, 3.0]))
    donating = tg.compile(lambda x: x * x, tg.spec((2,)), donate=("x",))
    with pytest.raises(tg.TracegradError, match="tensors cannot be donated"):
        donating(x)


def test_integers_and_several_results_through_a_compiled_call() -> None:
    @tg.jit
    def f(x: Any, i: Any) -> Any:
        return {"picked": x[i], "order": tnp.argsort(x), "twice": 2.0 * x}

    (x,) = tracked([3.0, 1.0, 2.0])
    found = f(x, tg.tensor(1))
    assert not found["order"].requires_grad
    (found["picked"] ** 2).backward()
    np.testing.assert_array_equal(x.grad.numpy(), [0.0, 2.0, 0.0])


def test_no_grad_in_traced_code_makes_constants() -> None:
    def f(x: Any) -> Any:
        with tg.no_grad():
            scale = x * x
        return tnp.sum(scale * x)

    x = np.array([1.0, 3.0])
    (v,) = tracked(x)
    f(v).backward()
    np.testing.assert_array_equal(tg.grad(f)(x), [1.0, 9.0])
    np.testing.assert_array_equal(v.grad.numpy(), [1.0, 9.0])
    with tg.no_grad():
        np.testing.assert_array_equal(tg.grad(lambda x: tnp.sum(x * x))(x), [2.0, 6.0])


def test_control_flow_on_the_tape() -> None:
    c, xs = tracked(2.0, [1.0, 2.0, 3.0])
    carry, rows = tg.scan(lambda c, x: (c * x, c + x), c, xs)
    (carry + rows.sum()).backward()

    def total(c: Any, xs: Any) -> Any:
        carry, rows = tg.scan(lambda c, x: (c * x, c + x), c, xs)
        return carry + tnp.sum(rows)

    with tg.eager():
        wanted = tg.grad(total, (0, 1))
        np.testing.assert_allclose([c.grad.item(), *xs.grad.tolist()], np.hstack(wanted(2.0, xs.detach().numpy())))


def test_leaves_of_other_threads_and_modes_are_apart() -> None:
    seen = []
    with tg.no_grad():
        thread = threading.Thread(target=lambda: seen.append(tg.is_grad_enabled()))
        thread.start()
        thread.join()
    assert seen == [True]


def test_generators_keep_their_mode_apart() -> None:
    @tg.no_grad()
    def numbers() -> Any:
        yield tg.is_grad_enabled()
        yield tg.is_grad_enabled()

    assert [(inside, tg.is_grad_enabled()) for inside in numbers()] == [(False, True), (False, True)]


def test_the_recorded_graph_computes_what_the_tape_did(rng: np.random.Generator) -> None:
    w, x = tracked(rng.normal(size=(3, 2)), rng.normal(size=(4, 3)))
    y = network(w, x * np.arange(3.0))
    forward, adjoint = tg.autograd.graph(y), tg.autograd.graph(y, adjoint=True)
    arguments = [x.detach().numpy(), w.detach().numpy()] if forward.inputs[0].shape == (4, 3) else values([w, x])
    assert interpret(forward, *arguments, np.arange(3.0))[0] == y.item()
    y.backward()
    value, *gradients = interpret(adjoint, *arguments, np.arange(3.0), np.float64(1.0))
    assert value == y.item()
    for g in gradients:
        np.testing.assert_allclose(g, (w if g.shape == (3, 2) else x).grad.numpy(), rtol=1e-13)
    with pytest.raises(tg.TracegradError, match="has been freed by backward"):
        tg.autograd.graph(y)
    with pytest.raises(tg.TracegradError, match="is a tg.Function"):
        tg.autograd.graph(Doubled.apply(w))


# --- modules and optimizers -------------------------------------------------------------------------------------------


def mlp() -> Any:
    keys = random.split(random.key(3), 2)
    layers = [nn.Linear(4, 8, key=keys[0], dtype=np.float64), nn.Tanh(), nn.Linear(8, 2, key=keys[1], dtype=np.float64)]
    return nn.Sequential(*layers)


RULES: dict[str, tuple[Any, Any]] = {
    "sgd": (lambda p: optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True), optim.sgd(0.1, momentum=0.9, nesterov=True)),
    "adam": (lambda p: optim.Adam(p, lr=0.01), optim.adam(0.01)),
    "adamw": (lambda p: optim.AdamW(p, lr=0.01), optim.adamw(0.01)),
    "rmsprop": (lambda p: optim.RMSprop(p, lr=0.01, momentum=0.5), optim.rmsprop(0.01, momentum=0.5)),
    "adagrad": (lambda p: optim.Adagrad(p, lr=0.1), optim.adagrad(0.1)),
}


@pytest.mark.parametrize("name", RULES)
def test_training_on_the_tape_is_training_compiled(name: str, rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(16, 4)), rng.normal(size=(16, 2))
    make, rule = RULES[name]

    def loss(model: Any) -> Any:
        return tnp.mean((model(x) - y) ** 2)

    tape = tg.track(mlp())
    optimizer = make(tape)
    model, gradient = mlp(), tg.grad(loss)
    state = rule.init(model)
    for _ in range(5):
        optimizer.zero_grad()
        loss(tape).backward()
        optimizer.step()
        model, state = rule.step(gradient(model), state, model)
    for a, b in zip(tree.leaves(tg.untrack(tape)), tree.leaves(model), strict=True):
        assert isinstance(a, np.ndarray)
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_track_copies_and_leaves_integers_alone() -> None:
    held = {"w": np.ones(2), "n": np.arange(2), "name": "x", "none": None}
    found = tg.track(held)
    assert found["w"].requires_grad
    assert isinstance(found["n"], np.ndarray)
    with tg.no_grad():
        found["w"] += 1.0
    assert held["w"].tolist() == [1.0, 1.0]


def test_parameters_without_gradient_are_left_alone() -> None:
    a, b = tracked([1.0], [1.0])
    optimizer = optim.Adam([a, b], lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (a * 2.0).sum().backward()
        optimizer.step()
    assert b.tolist() == [1.0]
    assert b not in optimizer.state
    (a * b).sum().backward()
    optimizer.step()
    assert int(optimizer.state[a].count) == 3
    assert int(optimizer.state[b].count) == 1


def test_groups_rates_and_saved_states() -> None:
    def run(steps: int, optimizer: Any, a: Any, b: Any) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            ((a - 3.0) ** 2 + (b + 1.0) ** 2).sum().backward()
            optimizer.step()

    def pair() -> tuple[Any, Any, Any]:
        a, b = tracked([1.0], [1.0])
        return a, b, optim.SGD([{"params": [a], "lr": 0.5}, {"params": [b]}], lr=0.25, momentum=0.9)

    a, b, optimizer = pair()
    run(2, optimizer, a, b)
    optimizer.param_groups[1]["lr"] = 0.0
    held, before = copy.deepcopy(optimizer.state_dict()), (a.item(), b.item())
    run(2, optimizer, a, b)
    assert b.item() == before[1]
    a2, b2, again = pair()
    with tg.no_grad():
        a2.fill_(before[0])
        b2.fill_(before[1])
    again.load_state_dict(held)
    run(2, again, a2, b2)
    assert (a2.item(), b2.item()) == (a.item(), b.item())


def test_clipping_by_the_joint_norm() -> None:
    a, b = tracked([3.0], [4.0])
    ((a**2 + b**2).sum() / 2.0).backward()
    assert optim.clip_grad_norm_([a, b], 1.0) == pytest.approx(5.0)
    np.testing.assert_allclose([a.grad.item(), b.grad.item()], [0.6, 0.8], rtol=1e-6)


def test_a_closure_gives_the_loss() -> None:
    (a,) = tracked([3.0])
    optimizer = optim.SGD([a], lr=0.1)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (a * a).sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 9.0
    np.testing.assert_allclose(a.tolist(), [2.4])


# --- functions with their own gradient --------------------------------------------------------------------------------


class Doubled(tg.Function):
    """exp with twice its gradient, to see that the rule is used."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        y = tnp.exp(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, ct: Any) -> Any:
        (y,) = ctx.saved_tensors
        return ct * y * 2.0


def test_a_function_of_the_users_own() -> None:
    (x,) = tracked([0.0, 1.0])
    y = Doubled.apply(x)
    assert y.grad_fn.name() == "DoubledBackward"
    (first,) = tg.autograd.grad(y.sum(), x, create_graph=True)
    (second,) = tg.autograd.grad(first.sum(), x)
    np.testing.assert_allclose(first.detach().numpy(), 2.0 * np.exp([0.0, 1.0]))
    np.testing.assert_allclose(second.numpy(), 4.0 * np.exp([0.0, 1.0]))
    np.testing.assert_allclose(tg.grad(lambda x: tnp.sum(Doubled.apply(x)))(np.zeros(1)), [2.0])


def test_what_a_function_saved_is_guarded() -> None:
    (x,) = tracked([0.0, 1.0])
    y = Doubled.apply(x)
    y.mul_(2.0)
    with pytest.raises(tg.TracegradError, match="Doubled .* needs a tensor that it saved .* changed in place"):
        y.sum().backward()
    z = Doubled.apply(x).sum()
    z.backward()
    with pytest.raises(tg.TracegradError, match="freed"):
        z.backward()


def test_custom_vjp_on_the_tape() -> None:
    @tg.custom_vjp
    def f(x: Any) -> Any:
        return tnp.sin(x)

    f.defvjp(lambda x: (f(x), x), lambda x, ct: (ct * 7.0 * x,))
    (x,) = tracked([2.0])
    (first,) = tg.autograd.grad(f(x).sum(), x, create_graph=True)
    np.testing.assert_allclose(first.detach().numpy(), [14.0])
    np.testing.assert_allclose(values(tg.autograd.grad(first.sum(), x))[0], [7.0])


# --- messages ---------------------------------------------------------------------------------------------------------


def leaf() -> tg.Tensor:
    return tg.tensor([1.0, 2.0, 3.0], requires_grad=True)


def saved_value_changed() -> None:
    y = leaf().exp()
    y.add_(1.0)
    y.sum().backward()


def freed() -> None:
    y = leaf().exp().sum()
    y.backward()
    y.backward()


MESSAGES: dict[Callable[[], Any], str] = {
    saved_value_changed: "backward at test_tape.py:N: exp (at test_tape.py:N) needs its result f64[3] as it was at"
    " version 0, but it was changed in place at test_tape.py:N (version 1)"
    "\n  fix: write y = x + 1 instead of x += 1, or change a copy: x.clone()",
    freed: "backward at test_tape.py:N: the values that exp (at test_tape.py:N) kept for its gradient have been freed"
    " by an earlier backward\n  fix: pass retain_graph=True to the earlier call, or compute the result again",
    lambda: leaf().add_(1.0): "add_ at test_tape.py:N: f64[3] is a leaf that requires a gradient, and would be"
    " lost\n  fix: write y = x + 1 instead of x += 1, or update it under tg.no_grad()",
    lambda: (leaf() * 2.0).backward(): "backward at test_tape.py:N: f64[3] is not a scalar, so its gradient must be"
    " given\n  fix: reduce it with .sum() or .mean(), or pass gradient=, a tensor of the same shape",
    lambda: leaf().numpy(): "numpy at test_tape.py:N: f64[3] requires a gradient, which NumPy would lose\n"
    "  fix: use x.detach().numpy()",
    lambda: leaf().item(): "item at test_tape.py:N: f64[3] has 3 elements, not one\n  fix: use x.tolist(), or x[i]",
    lambda: tg.tensor([1], requires_grad=True): "requires_grad at test_tape.py:N: i64[1] cannot have a gradient, only"
    " floating-point tensors can\n  fix: convert it first, for instance x.astype(np.float64)",
    lambda: leaf() @ np.ones(4): "matmul: f64[3] @ f64[4] at test_tape.py:N: the inner sizes 3 and 4"
    " differ\n  fix: transpose one side, or check the layer sizes on that line",
    lambda: tg.tensor([1.0 + 2.0j]): "tensor: data of shape (1,) has dtype complex128 at"
    " test_tape.py:N: complex numbers are not supported\n  fix: pass x.real and x.imag as two arrays",
    lambda: tg.tensor([[1], [1, 2]]): "tensor at test_tape.py:N: the data do not make one array of numbers (setting an"
    " array element with a sequence)\n  fix: give all rows one length, or convert the data with np.asarray first",
    lambda: tg.tensor([1], dtype="nope"): "tensor at test_tape.py:N: 'nope' is not a dtype\n"
    "  fix: pass one, for instance np.float32",
    lambda: leaf().reshape(1, 3).transpose(0, 1): "transpose at test_tape.py:N: the axes (0, 1) of f64[1, 3] mean"
    " nothing to NumPy, and a swap to PyTorch\n  fix: write x.T, or np.transpose(x, axes)",
    lambda: optim.SGD([leaf() * 2.0]): "optim at test_tape.py:N: f64[3] is not a leaf, but the result of <MulBackward0>"
    "\n  fix: pass leaves",
}


@pytest.mark.parametrize("wrong", MESSAGES, ids=lambda f: MESSAGES[f][:40])
def test_message(wrong: Callable[[], Any]) -> None:
    with pytest.raises(tg.TracegradError) as caught:
        wrong()
    assert re.sub(r"\.py:\d+", ".py:N", str(caught.value)) == MESSAGES[wrong]


def test_a_wrong_index_names_the_line() -> None:
    with pytest.raises(IndexError, match=r"test_tape\.py"):
        leaf()[5]


def test_no_warning_reaches_the_user() -> None:
    (x,) = tracked([0.0, -1.0])
    (1.0 / x + tnp.sqrt(x)).sum().backward()
    assert np.isnan(x.grad.numpy()).tolist() == [True, True]
