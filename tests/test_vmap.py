"""`tg.vmap`: every primitive with every choice of batched operands, control flow, gradients, axes, refusals."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import nn, random, tree
from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.grad.batching import batched
from tracegrad.ir import PRIMITIVES, Aval, Primitive, interpret, verify
from tracegrad.nn import functional as F
from tracegrad.trace import trace

N = 3
SAMPLED = [p for p in PRIMITIVES.values() if p.samples]
POOLED = {"max_pool_route": "yxy", "max_pool_pick": "xxy"}


def draw(prim: Primitive, sample: dict[str, Any], rng: np.random.Generator) -> list[Any]:
    """Return one example's operands."""
    dtype = np.dtype(sample.get("dtype", np.float64))
    low, high = getattr(prim, "domain", (-2.0, 2.0))
    found: list[Any] = []
    for position, shape in enumerate(sample["shapes"]):
        if prim.name == "where" and position == 0:
            found.append(rng.integers(0, 2, shape).astype(np.bool_))
        elif dtype.kind == "f":
            found.append(np.asarray(rng.uniform(low, high, shape), dtype))
        else:
            found.append(np.asarray(rng.integers(0, 2 if dtype == np.bool_ else 5, shape)).astype(dtype))
    return [*found, *map(np.asarray, sample.get("constants", []))]


def compare(prim: Primitive, params: dict[str, Any], examples: list[list[Any]]) -> None:
    """Check every choice of batched operands against one example after the other."""
    avals = [Aval(a.shape, a.dtype) for a in examples[0]]
    graph = trace(lambda *xs: prim(*xs, **params), avals).graph
    for flags in itertools.product((False, True), repeat=len(avals)):
        if not any(flags):
            continue
        rows = [[e[i] if flag else examples[0][i] for i, flag in enumerate(flags)] for e in examples]
        operands = [np.stack([r[i] for r in rows]) if flag else rows[0][i] for i, flag in enumerate(flags)]
        many, (differs,) = batched(graph, flags, len(examples))
        assert differs
        (found,) = interpret(verify(many), *operands)
        expected = np.stack([np.asarray(interpret(graph, *row)[0]) for row in rows])
        assert np.shape(found) == expected.shape and found.dtype == expected.dtype, f"{flags}\n{many}"
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12, err_msg=f"{flags}\n{many}")


@pytest.mark.parametrize("prim", SAMPLED, ids=str)
def test_every_primitive(prim: Primitive) -> None:
    rng = np.random.default_rng(0)
    for sample in prim.samples:
        examples = [draw(prim, sample, rng) for _ in range(N)]
        if examples[0]:
            for example in examples[1:]:  # indices differ, too, and stay in range
                example[:] = [np.roll(a, 1, -1) if a.ndim and a.dtype.kind in "iu" else a for a in example]
            compare(prim, sample.get("params", {}), examples)


@pytest.mark.parametrize("name", POOLED)
def test_routing_of_pooled_maxima(name: str) -> None:
    rng = np.random.default_rng(1)
    for sample in PRIMITIVES["max_pool"].samples:
        examples = []
        for _ in range(N):
            x = rng.normal(size=sample["shapes"][0])
            y = PRIMITIVES["max_pool"](x, **sample["params"])
            like = y if POOLED[name][0] == "y" else x
            examples.append([rng.normal(size=like.shape), x, y])
        avals = [Aval(a.shape, a.dtype) for a in examples[0]]
        graph = trace(lambda *xs, s=sample: PRIMITIVES[name](*xs, **s["params"]), avals).graph
        many, _ = batched(graph, (True, True, True), N)
        expected = np.stack([interpret(graph, *e)[0] for e in examples])
        np.testing.assert_array_equal(interpret(many, *map(np.stack, zip(*examples, strict=True)))[0], expected)


def test_where_shares_what_is_scalar() -> None:
    x = np.arange(6.0).reshape(3, 2)
    found = tg.vmap(lambda c, x, s: np.where(c, x * s, 0.5), in_axes=(0, None, 0))(x[:, 0] > 1, x[0], x[:, 1])
    rows = zip(x[:, 0] > 1, x[:, 1], strict=True)
    np.testing.assert_array_equal(found, [np.where(c, x[0] * s, 0.5) for c, s in rows])


# --- whole functions --------------------------------------------------------------------------------------------------
RNG = np.random.default_rng(2)
ROWS, SHARED = RNG.normal(size=(4, 3)), RNG.normal(size=3)


@tg.custom_vjp
def clipped(x, w):
    return x * w


clipped.defvjp(
    lambda x, w: (clipped(x, w), (x, w)), lambda r, ct: (np.clip(ct * r[1], -1, 1), ct * r[0] + 0 * clipped(*r))
)


class Swish(tg.Function):
    @staticmethod
    def forward(ctx, x):
        s = 1.0 / (1.0 + np.exp(-x))
        ctx.save_for_backward(x, s)
        return x * s

    @staticmethod
    def backward(ctx, grad):
        x, s = ctx.saved_tensors
        return grad * s * (1.0 + x * (1.0 - s)) * SHARED


def rounds(x, w):
    """A loop whose length depends on the example."""
    return tg.while_loop(lambda c: np.sum(c * c) < 100.0, lambda c: c * 1.7 + np.sin(c) * w, x)


def counted(x, w):
    """A loop of unknown length that is the same for all examples."""
    return tg.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, np.sin(c[1]) * w), (0, x))[1]


def scanned(x, w):
    def step(carry, row):
        total, fixed = carry
        return (total * row + w[0], fixed + 1.0), (total, row * w)

    (total, fixed), (totals, rows) = tg.scan(step, (1.0, 0.0), x)
    return total + fixed + totals + rows[1]


FUNCTIONS = {
    "elementwise": lambda x, w: np.where(x > w, x, np.exp(w)) + x[0],
    "reductions": lambda x, w: (x - x.mean()) / x.std() + w.sum() + np.argmax(x) + np.sort(x * w) + np.cumsum(x),
    "indexing": lambda x, w: x[np.argsort(w)] + x[::-1] + tnp.asarray(x).at[1].add(w[2]),
    "traced index": lambda x, w: w[np.argmax(x)] * x + tnp.asarray(w).at[np.argmax(x)].set(x.sum()),
    "products": lambda x, w: np.outer(x, w) @ x + np.outer(w, w) @ x + np.einsum("i,j,j->i", w, x, w),
    "stacked": lambda x, w: np.stack([x, w, x * w]).T.reshape(-1),
    "pooled": lambda x, w: F.max_pool1d(np.concatenate([x, w])[None, None], 2)[0, 0],
    "cond": lambda x, w: tg.cond(np.sum(x) > 0.0, lambda a: a * w, lambda a: np.sin(a), x),
    "one branch": lambda x, w: tg.cond(np.sum(w) > 0.0, lambda a: a * w, lambda a: w, x),
    "scan": scanned,
    "while": rounds,
    "counted": counted,
    "checkpointed": lambda x, w: tg.while_loop(lambda c: c.sum() < 50.0, lambda c: c * c + 1.5, x * w, checkpoint=2),
    "loop in a loop": lambda x, w: tg.scan(lambda c, r: (tg.grad(lambda c: rounds(c, w).sum())(c), r), x, w)[0],
    "custom_vjp": clipped,
    "Function": lambda x, w: Swish.apply(x) * Swish.apply(w),
    "recomputed": lambda x, w: tg.checkpoint(lambda a: np.tanh(a * w))(x),
    "constant": lambda x, w: (w * 2.0, 1.5),
    "inside": lambda x, w: tg.vmap(lambda a, b: a * b + x.sum(), in_axes=(0, None))(x, w),
}


def by_hand(fn: Any, axes: tuple[Any, Any], *args: Any) -> Any:
    """Run the function for one example after the other, and stack the results."""
    each = []
    for i in range(4):
        row = [a if axis is None else a[i] for a, axis in zip(args, axes, strict=True)]
        lowered = (fn if hasattr(fn, "lower") else tg.jit(fn)).lower(*row)
        each.append(tree.unflatten(lowered.out_tree, interpret(lowered.graph, *row, *lowered.captures)))
    return stack_trees(each)


def stack_trees(each: list[Any]) -> Any:
    if isinstance(each[0], tuple):
        return tuple(stack_trees(list(column)) for column in zip(*each, strict=True))
    return np.stack(each)


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, tuple):
        for f, e in zip(found, expected, strict=True):
            assert_same(f, e)
        return
    assert np.shape(found) == np.shape(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("axes", [(0, None), (None, 0), (0, 0)], ids=str)
@pytest.mark.parametrize("fn", FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions_and_their_gradients(fn: Any, axes: tuple[Any, Any]) -> None:
    args = [ROWS * (1.0 + i) if axis == 0 else SHARED * (1.0 + i) for i, axis in enumerate(axes)]

    def loss(x: Any, w: Any) -> Any:
        found = fn(x, w)
        return np.sum((found[0] if isinstance(found, tuple) else found) ** 2)

    gradients = tg.grad(loss, argnums=(0, 1))

    def everything(x: Any, w: Any) -> Any:
        whole = lambda x, w: tg.vmap(loss, in_axes=axes)(x, w).sum()
        return tg.vmap(fn, axes)(x, w), tg.vmap(gradients, axes)(x, w), tg.grad(whole, argnums=(0, 1))(x, w)

    with tg.eager():  # the graphs are what is tested; one of each kind is compiled below
        values, of_each, of_all = everything(*args)
        assert_same(values, by_hand(fn, axes, *args))
        expected = by_hand(gradients, axes, *args)
    assert_same(of_each, expected)
    for found, per_example, axis in zip(of_all, expected, axes, strict=True):
        assert_same(found, per_example if axis == 0 else per_example.sum(0))


def test_compiled() -> None:
    """What is lowered in its own way, in one program."""
    names = ["traced index", "products", "cond", "scan", "while", "custom_vjp"]

    def everything(x: Any, w: Any) -> Any:
        found = []
        for name in names:
            loss = lambda x, w, fn=FUNCTIONS[name]: np.sum(fn(x, w) ** 2)
            found.append((tg.vmap(FUNCTIONS[name], (0, None))(x, w), tg.vmap(tg.grad(loss), (0, None))(x, w)))
        return tuple(found)

    for found, name in zip(tg.jit(everything)(ROWS, SHARED), names, strict=True):
        loss = lambda x, w, fn=FUNCTIONS[name]: np.sum(fn(x, w) ** 2)
        assert_same(found[0], by_hand(FUNCTIONS[name], (0, None), ROWS, SHARED))
        assert_same(found[1], by_hand(tg.grad(loss), (0, None), ROWS, SHARED))


def test_a_model_of_convolutions() -> None:
    model = nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1, groups=2, dtype=np.float64, key=random.key(0)), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(4, 2, 2, stride=2, dtype=np.float64, key=random.key(1)), nn.Flatten(0),
        nn.Linear(4, 3, dtype=np.float64, key=random.key(2)),
    )  # fmt: skip
    x, y = RNG.normal(size=(4, 2, 8)), np.array([0, 2, 1, 1])

    def loss(model: Any, x: Any, y: Any) -> Any:
        return F.cross_entropy(model(x)[None], y[None])

    with tg.eager():
        each = [tg.grad(loss)(model, a, b) for a, b in zip(x, y, strict=True)]
        found = tg.vmap(tg.grad(loss), (None, 0, 0))(model, x, y)  # one gradient per example
        for i, one in enumerate(each):
            for key, value in one.named_parameters().items():
                np.testing.assert_allclose(found.named_parameters()[key][i], value, rtol=1e-10, atol=1e-13)
        weights = model.layers[0].weight if hasattr(model, "layers") else model[0].weight
        kernels = np.stack([weights * k for k in range(4)])  # and one kernel per example
        per_example = tg.vmap(lambda w, x: F.conv1d(x, w, groups=2))(kernels, x)
        shared_input = tg.vmap(lambda w, x: F.conv1d(x, w, groups=2), (0, None))(kernels, x[0])
    for i in range(4):
        np.testing.assert_allclose(per_example[i], F.conv1d(x[i], kernels[i], groups=2), rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(shared_input[i], F.conv1d(x[0], kernels[i], groups=2), rtol=1e-12, atol=1e-14)


def test_random_numbers_from_one_key_per_example() -> None:
    keys = random.split(random.key(3), 4)
    found = tg.vmap(lambda key: random.normal(key, (5,)))(keys)
    np.testing.assert_array_equal(found, [random.normal(k, (5,)) for k in keys])


def test_forward_mode_and_hessians() -> None:
    f = lambda x: np.sum(np.sin(x) * x)
    np.testing.assert_allclose(tg.vmap(tg.hessian(f))(ROWS), [tg.hessian(f)(x) for x in ROWS], rtol=1e-12, atol=1e-13)
    found = tg.vmap(lambda x: tg.jvp(f, (x,), (SHARED,))[1])(ROWS)
    np.testing.assert_allclose(found, tg.vmap(tg.grad(f))(ROWS) @ SHARED, rtol=1e-12)


# --- the call ---------------------------------------------------------------------------------------------------------
def test_axes_of_arguments_and_results() -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    double = tg.vmap(lambda x: 2.0 * x, in_axes=1, out_axes=-1)
    np.testing.assert_array_equal(double(x), 2.0 * np.moveaxis(x, 1, -1))
    values = {"a": x, "b": (x[0], 3.0)}
    one = lambda t, y: {"s": t["a"].sum() * t["b"][1] + y, "c": t["b"][0]}
    found = tg.vmap(one, ({"a": 2, "b": (None, None)}, 0), {"s": 0, "c": None})(values, np.arange(4.0))
    np.testing.assert_array_equal(found["s"], 3.0 * x.sum(axis=(0, 1)) + np.arange(4.0))
    np.testing.assert_array_equal(found["c"], x[0])
    np.testing.assert_array_equal(tg.vmap(lambda a, *, b: a + b)(x[0], b=x[1]), x[0] + x[1])
    np.testing.assert_array_equal(tg.vmap(lambda x: 1.5)(np.ones(3)), [1.5, 1.5, 1.5])
    assert tg.vmap(np.sin)(np.ones((0, 3))).shape == (0, 3) and tg.vmap(np.sum)(np.ones((1, 3))) == [3.0]
    assert double.traces == 1


def test_captured_arrays_are_shared_and_read_at_each_call() -> None:
    table = np.array([1.0, 2.0, 3.0])
    run = tg.vmap(lambda x: x * table)
    np.testing.assert_array_equal(run(ROWS), ROWS * table)
    table[:] = 0.0
    np.testing.assert_array_equal(run(ROWS), 0.0 * ROWS)
    assert run.traces == 1


REFUSED = {
    "sizes": (lambda: tg.vmap(np.dot)(ROWS, ROWS[:2]), ShapeError, "numbers of examples, .* has 4, .* has 2"),
    "scalar": (lambda: tg.vmap(lambda x, y: x * y)(ROWS, 2.0), ShapeError, "takes y along axis 0, but it is f64"),
    "axis": (lambda: tg.vmap(np.sin, in_axes=2)(ROWS), ShapeError, r"along axis 2, but it is f64\[4, 3\]"),
    "nothing": (lambda: tg.vmap(np.sin, in_axes=None)(ROWS), ArgumentError, "no argument of .* has a batch axis"),
    "count": (lambda: tg.vmap(np.sin, in_axes=(0, 0))(ROWS), ArgumentError, "in_axes has 2 entries"),
    "prefix": (lambda: tg.vmap(np.sin, in_axes=({"a": 0},))(ROWS), ArgumentError, "is no prefix of the structure"),
    "entry": (lambda: tg.vmap(np.sin, in_axes=(0.5,))(ROWS), ArgumentError, "holds 0.5, which is no axis"),
    "shared result": (lambda: tg.vmap(np.sin, out_axes=None)(ROWS), ArgumentError, "but its out_axes is None"),
}


@pytest.mark.parametrize(("call", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refusals(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as found:
        call()
    assert "fix:" in str(found.value) and "test_vmap.py" in str(found.value)
