"""Transformed functions: when they are traced again, what they read, what they return, how they nest."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.trace import STATE


class Counted:
    """A function that counts how often Python runs it, which is how often it is traced."""

    def __init__(self, fn: Callable[..., Any]):
        self.fn = fn
        self.runs = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.runs += 1
        return self.fn(*args, **kwargs)


def counted(fn: Callable[..., Any], **options: Any) -> tuple[Counted, Any]:
    count = Counted(fn)
    return count, tg.jit(lambda *args, **kwargs: count(*args, **kwargs), **options)


# --- signatures -------------------------------------------------------------------------------------------------------
A, B = np.arange(3.0), np.arange(4.0)
SAME: list[tuple[str, list[tuple[Any, ...]]]] = [
    ("other values", [(A,), (A + 1.0,), (A * np.nan,)]),
    ("other float", [(A, 2.0), (A, 3.0), (A, float("inf"))]),
    ("other int", [(A, 2), (A, 3), (A, -(2**40))]),
    ("other bool", [(A, True), (A, False)]),
    ("other scalar array", [(np.array(1.0),), (np.float64(2.0),), (np.array(3.0),)]),
    ("another layout", [(np.ones((3, 4)),), (np.ones((4, 3)).T,), (np.ones((6, 4))[::2],)]),
    ("not writeable", [(A,), (np.broadcast_to(1.0, 3),)]),
    ("same structure", [({"a": A, "b": [A, None]},), ({"b": [A + 1, None], "a": A},)]),
]
DIFFERENT: list[tuple[str, list[tuple[Any, ...]]]] = [
    ("shape", [(A,), (B,)]),
    ("rank", [(A,), (A[None],)]),
    ("dtype", [(A,), (A.astype(np.float32),), (A.astype(np.int64),), (A > 1,)]),
    ("kind of number", [(A, 2), (A, 2.0), (A, True)]),
    ("number and array", [(A, 2.0), (A, np.array(2.0))]),
    ("structure", [({"a": A},), ({"b": A},), ([A],), ((A,),), (A, A), ([A, A],)]),
    ("None", [([A, None],), ([A, A],)]),
]


def total(*args: Any) -> Any:
    leaves = tg.tree.leaves(args) if hasattr(tg, "tree") else flat(args)
    return sum(tnp.sum(tnp.asarray(leaf) * 1.0) for leaf in leaves)


def flat(tree: Any) -> list[Any]:
    if tree is None:
        return []
    parts = list(tree.values()) if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else None
    return [tree] if parts is None else [leaf for part in parts for leaf in flat(part)]


@pytest.mark.parametrize(("name", "calls"), SAME, ids=[s[0] for s in SAME])
def test_traced_once(name: str, calls: list[tuple[Any, ...]]) -> None:
    count, f = counted(total)
    for args in calls:
        np.testing.assert_allclose(f(*args), sum(np.sum(leaf) for leaf in flat(args)), rtol=1e-12)
    assert (count.runs, f.traces) == (1, 1)


@pytest.mark.parametrize(("name", "calls"), DIFFERENT, ids=[s[0] for s in DIFFERENT])
def test_traced_for_every_signature(name: str, calls: list[tuple[Any, ...]]) -> None:
    count, f = counted(total)
    for _ in range(2):
        for args in calls:
            np.testing.assert_allclose(f(*args), sum(np.sum(leaf) for leaf in flat(args)), rtol=1e-6)
    assert (count.runs, f.traces) == (len(calls), len(calls))


def test_static_values() -> None:
    runs = []

    @tg.jit(static=("power", "name"))
    def f(x: Any, power: int, name: str = "a") -> Any:
        runs.append((power, name))
        return x**power if name == "a" else x

    np.testing.assert_array_equal(f(A, 2), A**2)
    np.testing.assert_array_equal(f(A + 1, 2), (A + 1) ** 2)
    np.testing.assert_array_equal(f(A, power=3), A**3)
    np.testing.assert_array_equal(f(A, 3, name="b"), A)
    np.testing.assert_array_equal(f(A, 3, "b"), A)
    assert runs[:3] == [(2, "a"), (3, "a"), (3, "b")]
    with pytest.raises(ArgumentError, match="static argument power.*: a list cannot be hashed"):
        f(A, [2])


def test_keywords_and_defaults() -> None:
    f = tg.jit(lambda x, *, scale=2.0: x * scale)
    np.testing.assert_array_equal(f(A), A * 2.0)
    np.testing.assert_array_equal(f(A, scale=3.0), A * 3.0)
    np.testing.assert_array_equal(f(A, scale=4.0), A * 4.0)
    assert f.traces == 2


# --- what is read from outside ----------------------------------------------------------------------------------------
def test_captured_arrays_are_read_at_every_call() -> None:
    w = np.ones(3)
    runs = []

    @tg.jit
    def f(x: Any) -> Any:
        runs.append(1)
        return x * w

    np.testing.assert_array_equal(f(A), A)
    w = np.full(3, 5.0)
    np.testing.assert_array_equal(f(A), A * 5.0)
    w[:] = 7.0
    np.testing.assert_array_equal(f(A), A * 7.0)
    assert len(runs) == 1
    w = np.ones((1, 3))
    assert f(A).shape == (1, 3)
    assert len(runs) == 2


def test_captured_numbers_belong_to_the_signature() -> None:
    rate = 0.5
    f = tg.jit(lambda x: x * rate)
    np.testing.assert_array_equal(f(A), A * 0.5)
    rate = 2.0
    np.testing.assert_array_equal(f(A), A * 2.0)
    assert f.traces == 2
    rate = 0.5
    np.testing.assert_array_equal(f(A), A * 0.5)
    assert f.traces == 2


def test_captured_zeros_have_a_sign_and_nan_is_one_value() -> None:
    zero = 0.0
    f = tg.jit(lambda x: np.arctan2(zero * x, -1.0))
    assert f(A)[1] > 3.0
    zero = -0.0
    assert f(A)[1] < -3.0
    for _ in range(3):
        zero = float("nan")
        assert np.isnan(f(A)).all()
    assert f.traces == 3


def test_captures_of_named_functions() -> None:
    bias = np.ones(3)

    def inner(x: Any) -> Any:
        return x + bias

    f = tg.jit(lambda x: inner(x) * 2.0)
    np.testing.assert_array_equal(f(A), (A + 1.0) * 2.0)
    bias = np.zeros(3)
    np.testing.assert_array_equal(f(A), A * 2.0)


def test_gradients_read_captured_arrays_at_every_call() -> None:
    w = np.ones(3)
    g = tg.grad(lambda x: np.sum(x * x * w))
    np.testing.assert_array_equal(g(A), 2.0 * A)
    w = np.full(3, 3.0)
    np.testing.assert_array_equal(g(A), 6.0 * A)


def test_pullbacks_read_captured_arrays_at_every_call() -> None:
    w = np.ones(3)

    def f(x: Any) -> Any:
        return np.sin(x) * w

    for factor in (1.0, 4.0):
        w = np.full(3, factor)
        y, pull = tg.vjp(f, A)
        np.testing.assert_allclose(y, np.sin(A) * factor)
        np.testing.assert_allclose(pull(np.ones(3))[0], np.cos(A) * factor)


# --- arguments and results --------------------------------------------------------------------------------------------
def test_inputs_are_never_changed() -> None:
    x, y = np.arange(12.0).reshape(3, 4), np.ones(4)
    kept = x.copy(), y.copy()

    def f(a: Any, b: Any) -> Any:
        return a * b, a, a.T, tnp.cumsum(a, axis=0), a + b

    results = tg.jit(f)(x, y)
    for result in results:
        assert not np.shares_memory(result, x)
        result[...] = -1.0
    np.testing.assert_array_equal(x, kept[0])
    np.testing.assert_array_equal(y, kept[1])


def test_results_of_two_calls_do_not_share_memory() -> None:
    f = tg.jit(lambda x: x + 1.0)
    first = f(A)
    second = f(A + 1.0)
    np.testing.assert_array_equal(first, A + 1.0)
    assert not np.shares_memory(first, second)


@pytest.mark.parametrize(
    "layout", [lambda x: x[::-1], lambda x: x[:, ::2], lambda x: x.T, np.asfortranarray], ids=range(4)
)
def test_strided_arguments(layout: Callable[[Any], Any]) -> None:
    x = layout(np.arange(24.0).reshape(4, 6))
    np.testing.assert_allclose(tg.jit(lambda v: np.exp(v).sum(axis=0) - v[0])(x), np.exp(x).sum(axis=0) - x[0])


def test_scalars_are_numpy_scalars() -> None:
    value, flag, count = tg.jit(lambda x: (x.sum(), (x > 0).any(), x.argmax()))(A)
    assert (type(value), type(flag), type(count)) == (np.float64, np.bool_, np.int64)
    assert type(tg.grad(lambda x: x * x)(3.0)) is np.float64


def test_results_keep_their_structure() -> None:
    found = tg.jit(lambda x: {"a": (x, None), "b": [x + 1.0, 2]})(A)
    assert found["a"][1] is None and set(found) == {"a", "b"}
    assert found["b"][1] == 2 and isinstance(found["b"], list)


# --- eager is compiled ------------------------------------------------------------------------------------------------
X, W = np.random.default_rng(1).standard_normal((4, 5)), np.random.default_rng(2).standard_normal((5, 3))
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "dense": lambda x, w: np.tanh(x @ w).sum(),
    "softmax": lambda x, w: np.log(np.exp(x @ w).sum(axis=1)).mean(),
    "where": lambda x, w: np.where(x > 0, x, x * 0.1).sum() * w.sum(),
    "slices": lambda x, w: (x[1:, ::2] * w[::2, 0]).sum(),
    "gather": lambda x, w: x[np.array([0, 2, 2])].sum() + (w**2).sum(),
    "joined": lambda x, w: (np.concatenate([x.T, w], axis=1) ** 2).mean(),
    "maximum": lambda x, w: np.maximum(x, 0.3).sum() + x.max() + w.min(),
    "sorted": lambda x, w: (np.sort(x, axis=1) * np.arange(5.0)).sum() + w.sum(),
    "cumulated": lambda x, w: (np.cumsum(x, axis=1) @ w).sum(),
    "moments": lambda x, w: x.var(axis=0).sum() + w.std(),
    "einsum": lambda x, w: np.einsum("ij,jk->k", x, w).prod(),
    "powers": lambda x, w: (np.abs(x) ** 1.5).sum() + (w**3).sum(),
    "clipped": lambda x, w: np.clip(x, -0.5, 0.5).sum() * w.mean(),
}


@pytest.mark.parametrize("fn", FUNCTIONS.values(), ids=FUNCTIONS)
def test_eager_equals_compiled(fn: Callable[..., Any]) -> None:
    transformed = [tg.jit(fn), tg.grad(fn, argnums=(0, 1)), tg.value_and_grad(fn)]
    for f in transformed:
        compiled = flat(f(X, W))
        with tg.eager():
            eager = flat(f(X, W))
        assert len(compiled) == len(eager)
        for a, b in zip(compiled, eager, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
            assert np.shape(a) == np.shape(b)
    np.testing.assert_allclose(transformed[0](X, W), fn(X, W), rtol=1e-10)


@pytest.mark.parametrize("fn", FUNCTIONS.values(), ids=FUNCTIONS)
def test_vjp_halves_equal_grad(fn: Callable[..., Any]) -> None:
    value, pull = tg.vjp(fn, X, W)
    expected = tg.value_and_grad(fn, argnums=(0, 1))(X, W)
    np.testing.assert_allclose(value, expected[0], rtol=1e-12)
    for scale in (1.0, -2.0):
        for found, wanted in zip(pull(np.float64(scale)), expected[1], strict=True):
            np.testing.assert_allclose(found, scale * wanted, rtol=1e-10, atol=1e-12)


# --- nesting ----------------------------------------------------------------------------------------------------------
def test_gradients_of_gradients() -> None:
    f = lambda x: x**5 + np.sin(x)
    x = 0.7
    derivative = tg.grad(tg.grad(tg.grad(f)))
    np.testing.assert_allclose(derivative(x), 60 * x**2 - np.cos(x), rtol=1e-12)
    np.testing.assert_allclose(tg.jit(tg.grad(tg.grad(f)))(x), 20 * x**3 - np.sin(x), rtol=1e-12)


def test_jit_inside_grad_inside_jit() -> None:
    inner = tg.jit(lambda x, w: np.tanh(x * w))

    @tg.jit
    def outer(x: Any, w: Any) -> Any:
        g = tg.grad(lambda v: inner(v, w).sum())(x)
        return tg.value_and_grad(lambda v: (inner(v, g) * v).sum())(w)

    def by_hand(x: Any, w: Any) -> Any:
        g = w * (1 - np.tanh(x * w) ** 2)
        t = np.tanh(w * g)
        return (t * w).sum(), t + w * g * (1 - t * t)

    w = np.linspace(-1.0, 1.0, 3)
    for found, expected in zip(outer(A, w), by_hand(A, w), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_gradient_of_a_function_of_a_gradient() -> None:
    def penalty(w: Any) -> Any:
        slope = tg.grad(lambda x: np.sum(np.sin(x) * w))(A)
        return np.sum(slope**2)

    w = np.array([0.5, 1.0, -2.0])
    np.testing.assert_allclose(tg.grad(penalty)(w), 2 * w * np.cos(A) ** 2, rtol=1e-12)


def test_value_and_grad_with_everything() -> None:
    def loss(p: Any, x: Any, scale: Any) -> Any:
        y = x @ p["w"] + p["b"]
        return (y * y).sum() * scale, {"prediction": y, "count": 3}

    p = {"w": W, "b": np.ones(3)}
    (value, aux), (dp, dscale) = tg.value_and_grad(loss, argnums=("p", "scale"), has_aux=True)(p, X, 0.5)
    y = X @ W + 1.0
    np.testing.assert_allclose(value, 0.5 * (y * y).sum())
    np.testing.assert_allclose(aux["prediction"], y)
    assert aux["count"] == 3
    np.testing.assert_allclose(dp["w"], X.T @ y, rtol=1e-12)
    np.testing.assert_allclose(dp["b"], y.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(dscale, (y * y).sum())
    gradient, _ = tg.grad(loss, argnums=2, has_aux=True)(p, X, 0.5)
    np.testing.assert_allclose(gradient, dscale)


def test_methods_take_their_instance_as_an_argument() -> None:
    class Model:
        scale = 3.0

        @tg.jit(static="self")
        def __call__(self, x: Any) -> Any:
            return x * self.scale

    np.testing.assert_array_equal(Model()(A), A * 3.0)


# --- errors -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("transform", [tg.jit, tg.grad, tg.value_and_grad], ids=lambda t: t.__name__)
@pytest.mark.parametrize("eager", [False, True], ids=["compiled", "eager"])
def test_errors_of_the_function_pass_through(transform: Any, eager: bool) -> None:
    fail = True

    def f(x: Any) -> Any:
        y = np.sum(x * x)
        if fail:
            raise KeyError("mine")
        return y

    g = transform(f)
    if eager:
        with tg.eager(), pytest.raises(KeyError, match="mine"):
            g(A)
    else:
        with pytest.raises(KeyError, match="mine"):
            g(A)
    assert STATE.get().traces == () and not STATE.get().eager
    fail = False
    assert flat(g(A))


def test_functions_are_not_kept_alive_by_their_errors() -> None:
    with pytest.raises(ShapeError):
        tg.jit(lambda x: x + np.ones(7))(A)
    gc.collect()
    np.testing.assert_array_equal(tg.jit(lambda x: x + np.ones(3))(A), A + 1.0)


def test_a_python_int_that_does_not_fit_is_refused() -> None:
    scaled = tg.jit(lambda x, n: x * n)
    x = np.arange(3, dtype=np.int32)
    assert np.array_equal(scaled(x, 5), 5 * x)
    for n in (2**40, 2**70):
        with pytest.raises(tg.TracegradError, match="argument n"):
            scaled(x, n)
    assert scaled.traces == 1
