"""Functions with gradients of their own: `tg.custom_vjp` and `tg.Function`, everywhere in traced code."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.errors import ArgumentError, DTypeError, GradientError, ShapeError
from tracegrad.inlining import inline
from tracegrad.ir import parse
from tracegrad.testing import check_grads

X = np.array([0.3, -1.2, 2.0])
W = np.array([1.0, 2.0, 3.0])


@tg.custom_vjp
def product(x, y):
    return np.sin(x) * y


def product_fwd(x, y):
    return product(x, y), (np.cos(x), np.sin(x), y)


def product_bwd(residuals, ct):
    cos, sin, y = residuals
    return ct * cos * y, ct * sin


product.defvjp(product_fwd, product_bwd)


@tg.custom_vjp
def clipped(x):
    return x


clipped.defvjp(lambda x: (x, None), lambda _, ct: (np.clip(ct, -1.0, 1.0),))


class Exp(tg.Function):
    """exp(k x), from the saved result; k is no array."""

    @staticmethod
    def forward(ctx, x, k):
        y = np.exp(k * x)
        ctx.save_for_backward(y)
        ctx.k = k
        return y

    @staticmethod
    def backward(ctx, grad):
        (y,) = ctx.saved_tensors
        return grad * y * ctx.k, None


class Sin(tg.Function):
    """Its gradient is made of another function with its own gradient, and that one's of this."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return np.sin(x)

    @staticmethod
    def backward(ctx, grad):
        return grad * Cos.apply(*ctx.saved_tensors)


class Cos(tg.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return np.cos(x)

    @staticmethod
    def backward(ctx, grad):
        return -grad * Sin.apply(*ctx.saved_tensors)


CASES = {
    "custom_vjp": lambda x: product(x, x * W),
    "self": lambda x: product(product(x, 2.0 * x), x),
    "Function": lambda x: Exp.apply(x, 2) * x,
    "mutual": lambda x: Sin.apply(Cos.apply(x)),
    "in scan": lambda x: tg.scan(lambda c, row: (product(c, row), Sin.apply(c)), x, np.ones((3, 3)) * W)[1],
    "in while": lambda x: tg.while_loop(lambda c: c[1] < 3, lambda c: (product(c[0], x), c[1] + 1), (x, 0))[0],
    "in cond": lambda x: tg.cond(x[0] > 0.0, lambda v: Sin.apply(v) * W, lambda v: v, x),
    "checkpointed": lambda x: tg.checkpoint(lambda v: product(v, np.exp(v)))(x),
    "vjp": lambda x: tg.vjp(lambda v: product(v, v * v), x)[1](x)[0],
    "jit": lambda x: tg.jit(lambda v: product(v, W))(x),
}


@pytest.mark.parametrize("fn", CASES.values(), ids=CASES)
def test_gradients_to_second_order(fn: Any) -> None:
    """The rules here are true derivatives: finite differences of the traced function must agree."""
    check_grads(fn, [X])


def total(fn: Any) -> Any:
    return lambda x: np.sum(fn(x) ** 2)


@pytest.mark.parametrize("fn", CASES.values(), ids=CASES)
def test_compiled_is_eager(fn: Any) -> None:
    gradient = tg.value_and_grad(total(fn))
    with tg.eager():
        expected = gradient(X)
    for found, e in zip(gradient(X), expected, strict=True):
        np.testing.assert_allclose(found, e, rtol=1e-12)


def test_the_rule_is_used_not_the_derivative() -> None:
    x = np.array([0.25, 3.0, -7.0])
    expected = [0.5, 1.0, -1.0]
    loss = total(clipped)
    np.testing.assert_array_equal(tg.grad(loss)(x), expected)
    np.testing.assert_array_equal(tg.value_and_grad(loss)(x)[0], np.sum(x**2))
    np.testing.assert_array_equal(tg.vjp(lambda x: clipped(x), x)[1](np.array([0.5, 2.0, -2.0]))[0], [0.5, 1.0, -1.0])
    np.testing.assert_array_equal(tg.jacrev(loss)(x), expected)
    np.testing.assert_array_equal(tg.grad(loss, backend="python-source")(x), expected)
    np.testing.assert_array_equal(tg.compile(tg.grad(loss), x)(x), expected)
    np.testing.assert_array_equal(tg.grad(lambda x: tg.jit(loss)(x))(x), expected)
    with tg.eager():
        np.testing.assert_array_equal(tg.grad(loss)(x), expected)


def test_a_gradient_by_something_else_leaves_the_rule_in_place() -> None:
    """d/dx of (d/ds s^2 clipped(3x)) goes through the rule, though the inner gradient did not."""
    inner = tg.grad(lambda s, x: s**2 * clipped(3.0 * x))
    assert tg.grad(lambda x: inner(5.0, x))(2.0) == 3.0  # not 30: the cotangent 10 is clipped to 1


def test_third_order() -> None:
    def at(fn: Any) -> Any:
        return tg.grad(tg.grad(tg.grad(fn)))(0.5)

    np.testing.assert_allclose(at(lambda x: product(x, 2.0) * x), at(lambda x: np.sin(x) * 2.0 * x), rtol=1e-12)
    np.testing.assert_allclose(at(lambda x: Sin.apply(x)), -np.cos(0.5), rtol=1e-12)
    np.testing.assert_allclose(at(lambda x: Exp.apply(x, 2)), 8.0 * np.exp(1.0), rtol=1e-12)


def test_it_is_compiled_into_one_program() -> None:
    """Body, forward half and a saved result are one value: nothing is computed twice, nothing is called back."""
    calls = []

    class Softplus(tg.Function):
        @staticmethod
        def forward(ctx, x):
            calls.append("forward")
            e = np.exp(x)
            ctx.save_for_backward(e)
            return np.log(1.0 + e)

        @staticmethod
        def backward(ctx, grad):
            calls.append("backward")
            (e,) = ctx.saved_tensors
            return grad * e / (1.0 + e)

    step = tg.compile(tg.value_and_grad(lambda x: Softplus.apply(x).sum()), X)
    traced = list(calls)
    step(X), step(X)
    assert calls == traced and step.kernels == 1
    assert step.source.count("math.exp(") == 1


def test_it_runs_as_it_is_outside_of_transforms() -> None:
    np.testing.assert_array_equal(product(X, W), np.sin(X) * W)
    np.testing.assert_array_equal(Exp.apply(X, 2), np.exp(2 * X))
    assert product(x=0.5, y=2.0) == np.sin(0.5) * 2.0


def test_text_of_a_graph_with_a_rule() -> None:
    graph = tg.jit(lambda x: Exp.apply(x, 2)).lower(X).graph
    assert "custom(x, body=Exp, rule='Exp')" in str(graph)
    assert str(parse(str(graph))) == str(graph)
    with pytest.raises(GradientError, match="Exp.*has no backward"):
        tg.grad(lambda x: np.sum(np.stack(inline(parse(str(graph)), [x]))))(X)


# --- custom_vjp -------------------------------------------------------------------------------------------------------
def test_trees_and_values_that_are_no_arrays() -> None:
    @tg.custom_vjp
    def layer(params, x):
        return {"y": params["w"] * x + params["b"][0], "count": params["k"] + 1}

    def fwd(params, x):
        return layer(params, x), (params["w"], x, "a word", 7)

    def bwd(residuals, ct):
        w, x, word, seven = residuals
        assert (word, seven) == ("a word", 7) and ct["count"].dtype == np.int64
        return {"w": ct["y"] * x, "b": (None,), "k": None}, ct["y"] * w

    layer.defvjp(fwd, bwd)
    params = {"w": X, "b": (W,), "k": np.arange(3)}
    loss = lambda w, b, x: layer({**params, "w": w, "b": (b,)}, x)["y"].sum()
    by_w, by_b, by_x = tg.grad(loss, argnums=(0, 1, 2))(X, W, 2.0 * W)
    np.testing.assert_array_equal(by_w, 2.0 * W)
    np.testing.assert_array_equal(by_b, [0, 0, 0])
    np.testing.assert_array_equal(by_x, X)


def test_nondiff_arguments_come_first() -> None:
    @tg.custom_vjp(nondiff_argnums=(0, "power"))
    def apply(fn, x, power):
        return fn(x) ** power

    apply.defvjp(
        lambda fn, x, power: (fn(x) ** power, x),
        lambda fn, power, x, ct: (ct * power * fn(x) ** (power - 1) * np.cos(x),),
    )
    np.testing.assert_allclose(tg.grad(lambda x: apply(np.sin, x, 3).sum())(X), 3 * np.sin(X) ** 2 * np.cos(X))
    np.testing.assert_allclose(tg.grad(lambda x: apply(power=2, x=x, fn=np.sin).sum())(X), np.sin(2 * X))


def test_a_weak_number_keeps_float32() -> None:
    scale = tg.custom_vjp(lambda x, s: x * s)
    scale.defvjp(lambda x, s: (x * s, (x, s)), lambda r, ct: (ct * r[1], np.sum(ct * r[0])))
    by_x, by_s = tg.grad(lambda x, s: scale(x, s).sum(), argnums=(0, 1))(X.astype(np.float32), 3.0)
    assert by_x.dtype == np.float32 and by_s.dtype == np.float64
    np.testing.assert_allclose(by_s, X.sum(), rtol=1e-6)


def test_python_control_flow_in_all_three() -> None:
    pytest.importorskip("malt")

    @tg.custom_vjp
    def size(x):
        if x > 0:
            return x
        return -x

    size.defvjp(lambda x: (size(x), x), lambda x, ct: ((ct if x > 0 else -ct),))

    def grown(x):
        while x < 100.0:
            x = 2.0 * size(x)
        return x

    assert tg.grad(size)(-2.0) == -1.0 and tg.grad(size)(3.0) == 1.0
    assert tg.grad(grown)(-3.0) == -64.0


SCALE = 2.0
TABLE = np.array([1.0, 1.0, 1.0])


@tg.custom_vjp
def scaled(x):
    return x


scaled.defvjp(lambda x: (scaled(x), None), lambda _, ct: (ct * SCALE * TABLE * np.array([1.0, 10.0, 100.0]),))


def test_what_the_rule_reads_from_outside_is_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    gradient = tg.grad(lambda x: scaled(x).sum())
    np.testing.assert_array_equal(gradient(X), [2, 20, 200])
    monkeypatch.setitem(globals(), "TABLE", np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(gradient(X), [2, 40, 600])
    TABLE[1] = 0.0
    np.testing.assert_array_equal(gradient(X), [2, 0, 600])
    monkeypatch.setitem(globals(), "SCALE", 3.0)
    np.testing.assert_array_equal(gradient(X), [3, 0, 900])


def outside(uses_w: bool) -> Any:
    def loss(w, x):
        @tg.custom_vjp
        def inner(y):
            return y * x * (w if uses_w else 1.0)

        inner.defvjp(lambda y: (inner(y), None), lambda _, ct: (ct * x,))
        return inner(2.0 * w).sum()

    return loss


def test_a_traced_value_from_outside_is_a_constant_or_refused() -> None:
    np.testing.assert_array_equal(tg.grad(outside(False))(X, W), 2.0 * W)
    message = r"inner at test_custom.py:\d+: a gradient is wanted by a traced value f64\[3\] that it reads from outside"
    with pytest.raises(GradientError, match=message):
        tg.grad(outside(True))(X, W)
    with pytest.raises(GradientError, match=message), tg.eager():
        tg.grad(outside(False), argnums=1)(X, W)


def test_a_rule_that_calls_itself_and_reads_more_from_outside() -> None:
    table = np.array([2.0, 3.0, 4.0])

    @tg.custom_vjp
    def f(x):
        return x**3

    def bwd(x, ct):
        return (ct * 3.0 * x * f(x) / (x**2) * table / np.array([2.0, 3.0, 4.0]),)

    f.defvjp(lambda x: (f(x), x), bwd)
    check_grads(f, [X])

    @tg.custom_vjp
    def g(x):
        return x**2

    looped = lambda x, ct: (ct * table * tg.fori_loop(0, 2, lambda i, c: g(c), x),)
    g.defvjp(lambda x: (x**2, x), looped)
    with pytest.raises(GradientError, match="its rule calls it again, in a loop"):
        tg.grad(lambda x: g(x).sum())(X)


def with_rule(fwd: Any, bwd: Any) -> Any:
    @tg.custom_vjp
    def f(x):
        return x * 2.0

    f.defvjp(fwd, bwd)
    return lambda x: f(x).sum()


def good(x: Any) -> Any:
    return x * 2.0, None


WRONG_RULES = {
    "shape": (good, lambda _, ct: (ct.sum(),), ShapeError, r"returns a gradient f64 for x, which is f64\[3\]"),
    "dtype": (good, lambda _, ct: (ct.astype(np.float32),), DTypeError, r"gradient f32\[3\] for x, which is f64\[3\]"),
    "no tuple": (good, lambda _, ct: ct, ArgumentError, r"returns a f64\[3\], not a tuple with one gradient per"),
    "two": (good, lambda _, ct: (ct, ct), ArgumentError, r"returns 2 gradients, not a tuple"),
    "a dict": (good, lambda _, ct: ({"a": ct},), ArgumentError, r"of structure {'a':\*} for one argument, \*"),
    "a word": (good, lambda _, ct: ("word",), ArgumentError, "returns a str as the gradient for x"),
    "takes too little": (good, lambda ct: (ct,), ArgumentError, "too many positional arguments"),
    "no pair": (lambda x: x * 2.0, lambda _, ct: (ct,), ArgumentError, "fwd must return"),
    "other result": (lambda x: (x.sum(), None), lambda _, ct: (ct,), ShapeError, r"fwd returns \(f64\) but the"),
    "other structure": (lambda x: ((x, x), None), lambda _, ct: (ct,), ShapeError, r"the structure \(\*, \*\)"),
}


@pytest.mark.parametrize(("fwd", "bwd", "error", "message"), WRONG_RULES.values(), ids=WRONG_RULES)
def test_wrong_rules(fwd: Any, bwd: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as found:
        tg.grad(with_rule(fwd, bwd))(X)
    assert "test_custom.py" in str(found.value) and "fix:" in str(found.value)


def test_the_line_of_a_wrong_gradient() -> None:
    def bwd(_, ct):
        ct = ct * 2.0
        return (ct.sum(axis=0),)

    with pytest.raises(ShapeError) as found:
        tg.grad(with_rule(good, bwd))(X)
    line = bwd.__code__.co_firstlineno + 2
    assert str(found.value) == (
        f"f at test_custom.py:{line}: bwd returns a gradient f64 for x, which is f64[3]\n"
        "  fix: return a gradient of the argument's shape: sum over axes that were broadcast"
    )


def test_other_refusals() -> None:
    no_rule = tg.custom_vjp(lambda x: x)
    with pytest.raises(GradientError, match="its gradient has not been defined"):
        no_rule(1.0)
    with pytest.raises(ArgumentError, match="name it in nondiff_argnums of product"):
        tg.jit(lambda x: product(x, "word"))(1.0)
    count = tg.custom_vjp(lambda x, n: x * n)
    count.defvjp(lambda x, n: (x * n, n), lambda n, ct: (ct * n, ct))
    with pytest.raises(GradientError, match="returns a gradient for n, which is i64 and has none"):
        tg.grad(lambda x, n: count(x, n))(1.0, 3)
    only = tg.custom_vjp(lambda x, *, n: x * n)
    only.defvjp(lambda x: (x, None), lambda _, ct: (ct,))
    with pytest.raises(ArgumentError, match="n cannot be passed by position"):
        only(1.0, n=2)
    with pytest.raises(ArgumentError, match="not a function"):
        tg.custom_vjp(3.0)
    with pytest.raises(ArgumentError, match="bwd is not a function"):
        no_rule.defvjp(good, None)


FORWARD = (lambda f: lambda x: tg.jvp(f, (x,), (x,)), tg.jacfwd, lambda f: tg.hessian(total(f)))


@pytest.mark.parametrize("transform", FORWARD)
def test_forward_mode_is_refused_where_the_backward_is_not_linear(transform: Any) -> None:
    with pytest.raises(GradientError, match=r"clipped at test_custom.py:\d+: forward mode has no rule, because its"):
        transform(lambda x: clipped(x * W))(X)


AFFINE = {
    "plus a constant": lambda x, ct: (ct * x + 1.0,),
    "squared": lambda x, ct: (ct * ct,),
    "where by its sign": lambda x, ct: (np.where(ct > 0.0, ct, 0.0),),
    "over it": lambda x, ct: (x / ct,),
    "stopped": lambda x, ct: (tg.stop_gradient(ct),),
    "in a loop": lambda x, ct: (tg.fori_loop(0, 2, lambda i, c: c * x, ct),),
    "a constant": lambda x, ct: (x,),
    "rounded": lambda x, ct: (ct.astype(np.int64).astype(np.float64),),
}


@pytest.mark.parametrize("bwd", AFFINE.values(), ids=AFFINE)
def test_what_is_not_known_to_be_linear_is_refused(bwd: Any) -> None:
    f = tg.custom_vjp(lambda x: x * 2.0)
    f.defvjp(lambda x: (x * 2.0, x), bwd)
    with pytest.raises(GradientError, match="is not linear in the gradients"):
        tg.jit(lambda x: tg.jvp(f, (x,), (x,))).lower(X)


def test_linear_rules_go_forward() -> None:
    """All kinds of linear steps in one backward: J t is the transpose of what the rule gives."""
    m = np.arange(9.0).reshape(3, 3)

    @tg.custom_vjp
    def f(x):
        return x * 2.0, np.sum(x), np.argmax(x)

    def bwd(x, cts):
        ct, total, _ = cts
        parts = np.concatenate([ct[::-1] * x, tnp.zeros(2), (m @ ct)[:1]])[np.array([0, 5, 2])]
        chosen = np.where(x > 0.0, parts, 0.0) - ct / 3.0 + np.broadcast_to(total, (3,))
        return (np.cumsum(chosen) + tnp.zeros(3).at[np.array([1, 1])].add(ct[:2]),)

    f.defvjp(lambda x: (f(x), x), bwd)
    jacobian = np.stack([tg.vjp(lambda x: f(x)[0], X)[1](e)[0] for e in np.eye(3)])
    row = tg.grad(lambda x: f(x)[1])(X)
    t = np.array([1.0, -2.0, 0.5])
    for mode in (contextlib.nullcontext, tg.eager):
        with mode():
            values, tangents = tg.jvp(f, (X,), (t,))
        np.testing.assert_allclose(tangents[0], jacobian @ t, rtol=1e-12)
        np.testing.assert_allclose(tangents[1], row @ t, rtol=1e-12)
        assert tangents[2] is None and values[2] == 2


@pytest.mark.parametrize("name", ["self", "Function", "mutual", "in scan", "in while"])
def test_jacobians_in_both_modes(name: str) -> None:
    fn = CASES[name]

    def everything(x: Any) -> Any:
        loss = total(fn)
        columns, rows = tg.jacfwd(fn)(x), tg.jacrev(fn)(x)
        return columns, rows, tg.hessian(loss)(x), tg.jacrev(tg.jacrev(loss))(x)

    if name == "Function":
        columns, rows, mixed, reverse = tg.jit(everything)(X)
    else:
        with tg.eager():
            columns, rows, mixed, reverse = everything(X)
    np.testing.assert_allclose(columns, rows, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(mixed, reverse, rtol=1e-9, atol=1e-10)


def test_forward_mode_knows_what_the_rule_does_not() -> None:
    with pytest.raises(GradientError, match=r"a gradient is wanted by a traced value f64\[3\] that it reads"):
        tg.jvp(lambda x: outside(True)(x, W), (X,), (X,))


# --- Function ---------------------------------------------------------------------------------------------------------
class Many(tg.Function):
    """Several results, some of them without gradients, and everything that ctx may hold."""

    @staticmethod
    def forward(ctx, a, b, flag=None):
        ctx.save_for_backward(a, None, b)
        ctx.flag, ctx.twice, ctx.nested = flag, 2.0 * a, {"b": [b, 1]}
        place, difference = np.argmax(a), a - b
        ctx.mark_non_differentiable(place, difference)
        return a * b, place, difference, None, "text"

    @staticmethod
    def backward(ctx, grad, place, difference, *others):
        a, nothing, _ = ctx.saved_tensors
        assert nothing is None and ctx.flag == "flag" and ctx.nested["b"][1] == 1 and others == (None, None)
        assert ctx.needs_input_grad == (True, True, False)
        assert (place.dtype, place.shape, difference.shape) == (np.int64, (), (3,))
        return grad * ctx.nested["b"][0] + 0.0 * ctx.twice, grad * a, None


def many(a: Any, b: Any) -> Any:
    product, place, difference, nothing, text = Many.apply(a, b, "flag")
    assert (nothing, text) == (None, "text")
    return product.sum() + 100.0 * difference.sum() + place


def test_results_without_gradients_and_attributes_of_ctx() -> None:
    value, (by_a, by_b) = tg.value_and_grad(many, argnums=(0, 1))(X, W)
    np.testing.assert_allclose(value, X @ W + 100.0 * (X - W).sum() + 2)
    np.testing.assert_array_equal(by_a, W)
    np.testing.assert_array_equal(by_b, X)
    mixed = tg.grad(lambda a: (tg.grad(many, argnums=1)(a, W) ** 2).sum())(X)
    np.testing.assert_allclose(mixed, 2.0 * X)


def test_setup_context() -> None:
    class Double(tg.Function):
        @staticmethod
        def forward(a):
            return a * 2.0

        @staticmethod
        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(inputs[0], output)

        @staticmethod
        def backward(ctx, grad):
            a, y = ctx.saved_tensors
            return grad * y / a

    np.testing.assert_allclose(tg.grad(lambda a: Double.apply(a).sum())(X), [2, 2, 2], rtol=1e-15)
    np.testing.assert_array_equal(Double.apply(X), 2.0 * X)


def times(backward: Any) -> Any:
    class Times(tg.Function):
        @staticmethod
        def forward(ctx, a, k):
            return a * k

    if backward is not None:
        Times.backward = staticmethod(backward)
    return lambda a: Times.apply(a, 2).sum()


WRONG_BACKWARDS = {
    "none": (None, GradientError, "has no backward, so no gradient flows through it"),
    "too few": (lambda ctx, g: g, ArgumentError, "backward returns 1 gradients for 2 arguments"),
    "too many": (lambda ctx, g: (g, None, g), ArgumentError, "backward returns 3 gradients for 2 arguments"),
    "a number's": (lambda ctx, g: (g, g), GradientError, "a gradient for argument 1, which is 2 and not an array"),
    "shape": (lambda ctx, g: (g.sum(), None), ShapeError, r"returns a gradient f64 for a, which is f64\[3\]"),
    "dtype": (lambda ctx, g: (g.astype(np.float32), None), DTypeError, r"a gradient f32\[3\] for a, which is f64\[3\]"),
    "dirty": (lambda ctx, g: ctx.mark_dirty(g), GradientError, "cannot change its arguments in place"),
}


@pytest.mark.parametrize(("backward", "error", "message"), WRONG_BACKWARDS.values(), ids=WRONG_BACKWARDS)
def test_wrong_backwards(backward: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as found:
        tg.grad(times(backward))(X)
    assert "test_custom.py" in str(found.value) and "fix:" in str(found.value)
    if backward is None:
        np.testing.assert_allclose(tg.jit(times(None))(X), 2.0 * X.sum())
        by_rest = tg.grad(lambda a: a.sum() + tg.stop_gradient(times(None)(a)))(X)
        np.testing.assert_array_equal(by_rest, [1, 1, 1])


def test_more_of_what_functions_refuse() -> None:
    class Listed(tg.Function):
        @staticmethod
        def forward(ctx, a):
            return [a]

    class Endless(tg.Function):
        @staticmethod
        def forward(ctx, a):
            return Endless.apply(a)

    with pytest.raises(ArgumentError, match="forward returns a list"):
        tg.jit(lambda a: Listed.apply(a))(X)
    with pytest.raises(ArgumentError, match="calls itself with arguments of the same shapes"):
        tg.jit(lambda a: Endless.apply(a))(X)
    with pytest.raises(ArgumentError, match="it has no forward"):
        tg.jit(lambda a: tg.Function.apply(a))(X)
    with pytest.raises(AttributeError, match="ctx has no attribute 'missing'"):
        tg.grad(times(lambda ctx, g: (ctx.missing, None)))(X)


def test_trailing_nones_are_taken() -> None:
    np.testing.assert_array_equal(tg.grad(times(lambda ctx, g: (2.0 * g, None, None)))(X), [2, 2, 2])
