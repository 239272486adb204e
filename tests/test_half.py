"""Half precision is storage: every conversion is exact or rounded once, and what computes, computes in float32."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.nn.functional as F
import tracegrad.numpy as tnp
from tests.library_machine import guarded_copy
from tracegrad import nn, optim, random
from tracegrad.errors import ArgumentError, DTypeError

HALF = np.dtype(np.float16)
PATTERNS = np.arange(1 << 16, dtype=np.uint16)


def same_bits(found: Any, expected: Any) -> None:
    """Compare bits; every NaN is like every other."""
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    bits = f"u{found.dtype.itemsize}"
    nan = expected != expected
    np.testing.assert_array_equal(found != found, nan)
    np.testing.assert_array_equal(found.view(bits)[~nan], expected.view(bits)[~nan])


def normal(*shape: int, seed: int = 0, dtype: Any = HALF) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def neighbours(dtype: Any) -> Any:
    """Every number between two neighbours in half precision, the numbers just beside it, and those out of range."""
    with np.errstate(all="ignore"):
        numbers = PATTERNS.view(HALF).astype(np.float64)
    finite = np.unique(numbers[np.isfinite(numbers)])
    between = np.concatenate([(finite[1:] + finite[:-1]) / 2, [65520.0, -65520.0]]).astype(dtype)
    tiny, huge, infinite = np.finfo(dtype).tiny, np.finfo(dtype).max, np.array(np.inf, dtype)
    around = [between, np.nextafter(between, infinite), np.nextafter(between, -infinite), finite.astype(dtype)]
    return np.concatenate([*around, np.array([tiny, -tiny, tiny / 4, huge, -huge, np.inf, -np.inf, np.nan], dtype)])


def check_conversions() -> None:
    """Compare every conversion from and to half precision with NumPy's."""
    halves = PATTERNS.view(HALF)
    bits = np.random.default_rng(0).integers(0, 1 << 64, 1 << 16, dtype=np.uint64)
    floats = {d: np.concatenate([neighbours(d), bits.view(d)]) for d in (np.float32, np.float64)}
    whole = {d: bits.astype(d) for d in (np.bool_, np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint64)}
    back = {d: halves if d in floats else np.array([0.0, -0.0, 1.0, 2.5, 99.75], HALF) for d in floats | whole}
    with np.errstate(all="ignore"):
        for found, values in zip(tg.jit(to_half)(floats | whole).values(), (floats | whole).values(), strict=True):
            same_bits(found, values.astype(HALF))
        for dtype, found in tg.jit(from_half)(back).items():
            same_bits(found, back[dtype].astype(dtype))


def to_half(arrays: dict[Any, Any]) -> dict[Any, Any]:
    return {dtype: x.astype(HALF) for dtype, x in arrays.items()}


def from_half(arrays: dict[Any, Any]) -> dict[Any, Any]:
    return {dtype: x.astype(dtype) for dtype, x in arrays.items()}


# --- conversions ------------------------------------------------------------------------------------------------------
def test_every_conversion_on_this_cpu() -> None:
    check_conversions()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="a level of x86-64")
def test_every_conversion_on_a_cpu_that_has_no_instructions_for_it() -> None:
    environment = os.environ | {"TRACEGRAD_CPU": "x86-64-v2", "PYTHONPATH": os.pathsep.join([*sys.path, "tests"])}
    code = "import test_half; test_half.check_conversions()"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_moved_elements_keep_their_bits() -> None:
    """NaN with any payload included: nothing is converted on the way."""
    x = PATTERNS.view(HALF).reshape(256, 256)
    index = np.array([3, 1, 255, 1])

    def moves(x: Any) -> Any:
        padded = tnp.pad(x[::-1].T, ((1, 2), (0, 3)))[1:, ::2]
        return tnp.concatenate([padded[index], tnp.where(x[:4, :130] == 1.0, x[4:8, :130], x[8:12, :130])], axis=1)

    expected = moves(x)
    for run in (tg.jit(moves), tg.jit(moves, backend="python-source")):
        np.testing.assert_array_equal(run(x).view(np.uint16), expected.view(np.uint16))


def test_a_conversion_that_loses_digits_stays() -> None:
    x = np.array([1.0001, 3.00001, 1e6], np.float32)
    with np.errstate(over="ignore"):
        expected = x.astype(HALF).astype(np.float32)
    same_bits(tg.jit(lambda x: x.astype(HALF).astype(np.float32))(x), expected)


def test_a_conversion_there_and_back_is_taken_out() -> None:
    x = PATTERNS.view(HALF)
    for wide in (np.float32, np.float64):
        compiled = tg.compile(lambda x, wide=wide: x.astype(wide).astype(HALF), x)
        assert "f32(" not in compiled.source
        assert "f64(" not in compiled.source
        same_bits(compiled(x), x)


# --- arithmetic -------------------------------------------------------------------------------------------------------
EXACT = (np.add, np.subtract, np.multiply, np.divide, np.maximum, np.minimum)
EXACT_ONE = (np.negative, np.abs, np.floor, np.square, np.sign)


def random_expression(seed: int) -> Any:
    """Return a function of two arrays made of operations whose float32 result NumPy rounds just as we do."""
    rng = np.random.default_rng(seed)
    choices = [(rng.integers(3), rng.integers(99), rng.integers(99), rng.integers(99)) for _ in range(10)]

    def expression(x: Any, y: Any) -> Any:
        values = [x, y]
        for kind, which, i, j in choices:
            a, b = values[i % len(values)], values[j % len(values)]
            if kind == 0:
                values.append(EXACT_ONE[which % len(EXACT_ONE)](a))
            elif kind == 1:
                values.append(EXACT[which % len(EXACT)](a, b))
            else:
                values.append(np.where(a > b, a * 1.7, b - 3))
        return values[-1] + values[-2]

    return expression


@pytest.mark.parametrize("seed", range(12))
def test_expressions_have_the_bits_of_numpys(seed: int) -> None:
    expression = random_expression(seed)
    x, y = normal(300, seed=seed), normal(300, seed=seed + 100) * HALF.type(8)
    x[:8] = [np.inf, -np.inf, np.nan, 65504.0, 6e-8, -6e-8, 0.0, -0.0]
    with np.errstate(all="ignore"):
        expected = expression(x, y)
        same_bits(tg.jit(expression)(x, y), expected)
        same_bits(tg.jit(expression, backend="python-source")(x, y), expected)
        same_bits(expression(tg.tensor(x), y).numpy(), expected)
        with tg.eager():
            same_bits(np.asarray(tg.jit(expression)(x, y)), expected)


OF_ONE = ["exp", "log", "tanh", "sin", "sqrt", "cbrt"]


@pytest.mark.parametrize("name", [*OF_ONE, "hypot", "logaddexp", "power", "arctan2"])
def test_functions_are_rounded_once(name: str) -> None:
    x = np.abs(normal(2000)) + HALF.type(0.01)
    operands = (x,) if name in OF_ONE else (x, x[::-1].copy())
    found = tg.jit(getattr(tnp, name))(*operands)
    exact = getattr(np, name)(*(o.astype(np.float64) for o in operands))
    assert found.dtype == HALF
    error = np.abs(found.astype(np.float64) - exact) / np.spacing(np.abs(exact.astype(HALF))).astype(np.float64)
    assert error.max() < 0.501  # float32's error may lie on the wrong side of a tie


def test_numbers_take_the_storage_dtype() -> None:
    x = normal(50)
    same_bits(tg.jit(lambda x: (x + 0.1) * 3)(x), (x + 0.1) * 3)
    assert tg.jit(lambda x: x * np.float32(2))(x).dtype == np.float32
    same_bits(tg.jit(lambda x, n: x * n)(x, np.arange(50, dtype=np.uint8)), x * np.arange(50, dtype=np.uint8))
    same_bits(tg.jit(lambda x: x * tnp.arange(50, dtype=HALF))(x), x * np.arange(50, dtype=HALF))


# --- sums and products ------------------------------------------------------------------------------------------------
REDUCTIONS = {
    "sum": lambda m, x: m.sum(x, axis=0),
    "mean": lambda m, x: m.mean(x, axis=1),
    "var": lambda m, x: m.var(x, axis=0),
    "std": lambda m, x: m.std(x),
    "prod": lambda m, x: m.prod(x, axis=0),
    "max": lambda m, x: m.max(x),
    "cumsum": lambda m, x: m.cumsum(x, axis=0),
    "cumprod": lambda m, x: m.cumprod(x, axis=0),
    "norm": lambda m, x: m.linalg.norm(x, axis=1),
    "median": lambda m, x: m.median(x, axis=0),
    "average": lambda m, x: m.average(x, axis=0, weights=np.arange(1, 41).astype(x.dtype)),
    "matmul": lambda m, x: m.matmul(x, m.transpose(x)),
    "einsum": lambda m, x: m.einsum("ij,kj,kl->il", x, x, x),
    "trace": lambda m, x: m.trace(x),
    "nanmean": lambda m, x: m.nanmean(x, axis=0),
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reductions_are_rounded_once(name: str) -> None:
    x = normal(40, 30)
    wide = REDUCTIONS[name](tnp, x.astype(np.float32))
    found = tg.jit(lambda x: REDUCTIONS[name](tnp, x))(x)
    assert found.dtype == HALF
    np.testing.assert_allclose(found.astype(np.float64), wide, rtol=2.0**-10.9, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(REDUCTIONS[name](tnp, x)).dtype, HALF)


def test_sums_do_not_overflow_on_the_way() -> None:
    many = np.full(100_000, 3.0, HALF)
    assert tg.jit(tnp.mean)(many) == 3.0
    assert tg.jit(tnp.std)(many) == 0.0
    assert tg.jit(tnp.linalg.norm)(np.full(100, 1000.0, HALF)) == 10_000.0
    assert tg.jit(lambda x: tnp.sum(x, dtype=np.float32))(many) == 300_000.0
    np.testing.assert_array_equal(tg.jit(lambda x: F.layer_norm(x, (100_000,)))(many), np.zeros(100_000, HALF))
    assert tg.jit(lambda x: F.softmax(x, 0).sum())(np.full(4096, 9.0, HALF)) == 1.0


def test_sorting_and_searching() -> None:
    x = normal(7, 33)
    x[0, :3] = np.nan, np.inf, -np.inf
    same_bits(tg.jit(tnp.sort)(x), np.sort(x))
    np.testing.assert_array_equal(tg.jit(tnp.argsort)(x), np.argsort(x, kind="stable"))
    np.testing.assert_array_equal(tg.jit(lambda x: x.argmax(axis=1))(x), x.argmax(axis=1))


FUNCTIONS = {
    "softmax": lambda x, w: F.softmax(x, -1),
    "gelu": lambda x, w: F.gelu(x),
    "silu": lambda x, w: F.silu(x),
    "layer_norm": lambda x, w: F.layer_norm(x, (30,), w, w),
    "linear": lambda x, w: F.linear(x, w, w[0]),
    "cross_entropy": lambda x, w: F.cross_entropy(x, np.arange(16)),
    "mse_loss": lambda x, w: F.mse_loss(x, x * 2),
    "conv1d": lambda x, w: F.conv1d(x[None, None], w[None, None, :5], w[:1], padding=2),
    "max_pool1d": lambda x, w: F.max_pool1d(x[None], 3),
    "avg_pool1d": lambda x, w: F.avg_pool1d(x[None], 3),
    "attention": lambda x, w: F.scaled_dot_product_attention(x, x, x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_layers_compute_in_float32_and_round_once(name: str) -> None:
    x, w = normal(16, 30), normal(30)
    x = x[0] if name == "conv1d" else x
    wide = tg.jit(FUNCTIONS[name])(x.astype(np.float32), w.astype(np.float32))
    same_bits(np.asarray(tg.jit(FUNCTIONS[name])(x, w)), np.asarray(wide.astype(HALF)))


def test_library_calls_round_in_their_epilogues() -> None:
    x, w = normal(64, 48), normal(48, 96)
    compiled = tg.compile(lambda x, w: np.maximum(x @ w, 0), x, w)
    assert "on each finished block" in compiled.source
    wide = tg.jit(lambda x, w: x @ w)(x.astype(np.float32), w.astype(np.float32))
    same_bits(compiled(x, w), np.maximum(wide.astype(HALF), HALF.type(0)))


# --- gradients --------------------------------------------------------------------------------------------------------
def network(x: Any, w: Any, b: Any) -> Any:
    h = np.tanh(x @ w + b)
    h = tnp.where(h > 0, np.sqrt(np.abs(h) + 0.1), h * h)
    return F.layer_norm(h, (6,)).sum(axis=1)[::2].mean() + np.exp(h).mean()


@pytest.mark.parametrize("run", ["compiled", "eager", "tape"])
def test_gradients_have_the_primals_dtype_and_agree_with_float64(run: str) -> None:
    arrays = normal(8, 5), normal(5, 6, seed=1), normal(6, seed=2)
    expected = tg.grad(network, argnums=(0, 1, 2))(*(a.astype(np.float64) for a in arrays))
    if run == "tape":
        tensors = [tg.tensor(a, requires_grad=True) for a in arrays]
        network(*tensors).backward()
        found = [t.grad.numpy() for t in tensors]
    elif run == "eager":
        with tg.eager():
            found = tg.grad(network, argnums=(0, 1, 2))(*arrays)
    else:
        found = tg.grad(network, argnums=(0, 1, 2))(*arrays)
    for mine, exact in zip(found, expected, strict=True):
        assert mine.dtype == HALF
        np.testing.assert_allclose(mine.astype(np.float64), exact, rtol=0.02, atol=4e-3)


def test_other_transforms() -> None:
    x = normal(6)
    wide = x.astype(np.float64)

    def f(x: Any) -> Any:
        return (np.sin(x) * x[::-1]).sum()

    for transform in (tg.hessian, tg.jacfwd, tg.jacrev, lambda f: tg.grad(lambda x: tg.grad(f)(x).sum())):
        found = transform(f)(x)
        assert found.dtype == HALF
        np.testing.assert_allclose(found.astype(np.float64), transform(f)(wide), rtol=5e-3, atol=4e-3)
    value, tangent = tg.jvp(f, (x,), (x,))
    assert value.dtype == tangent.dtype == HALF
    assert tg.vmap(lambda row: row @ row)(normal(3, 4)).dtype == HALF


def test_loops_and_branches_carry_it() -> None:
    x = np.abs(normal(5)) + HALF.type(0.1)

    def grow(x: Any) -> Any:
        x = tg.while_loop(lambda c: c.sum() < 50, lambda c: c * 1.5, x)
        x, rows = tg.scan(lambda c, r: (np.tanh(c + r), c), x, tnp.stack([x, x * 0.5]))
        return tg.cond(x[0] > 0, lambda v: v * 2, lambda v: v, x).sum() + rows.sum()

    value, gradient = tg.value_and_grad(grow)(x)
    wide, exact = tg.value_and_grad(grow)(x.astype(np.float64))
    assert value.dtype == gradient.dtype == HALF
    np.testing.assert_allclose(float(value), wide, rtol=5e-3)
    np.testing.assert_allclose(gradient.astype(np.float64), exact, rtol=2e-2, atol=2e-2)


# --- programs ---------------------------------------------------------------------------------------------------------
def test_specs_donation_captured_arrays_and_files(tmp_path: Path) -> None:
    w = normal(4)
    compiled = tg.compile(lambda x: x * w + 1, tg.spec((4,), "float16"), donate=("x",))
    x = np.ones(4, HALF)
    found = compiled(x)
    same_bits(found, w + HALF.type(1))
    assert found is x or np.shares_memory(found, x)
    w[:] = 2.0
    same_bits(compiled(np.ones(4, HALF)), np.full(4, 3.0, HALF))
    compiled.save(tmp_path / "step.tgx")
    same_bits(tg.load(tmp_path / "step.tgx")(np.ones(4, HALF)), np.full(4, 3.0, HALF))
    with pytest.raises(tg.TracegradError, match="f16"):
        compiled(np.ones(4, np.float32))


@pytest.mark.parametrize("side", ["start", "end"])
def test_kernels_stay_inside_their_buffers(side: str) -> None:
    """Memory around the arguments and the result, which takes the place of a donated one, is out of bounds."""
    for size in (1, 2, 3, 7, 8, 15, 16, 17, 33, 255):
        x, y = normal(size), normal(size, seed=1)
        step = tg.compile(lambda x, y: np.where(x > 0, x * y, y[::-1]) + 1, x, y, donate=("x",))
        (held, mine), (_, other) = guarded_copy(x, side), guarded_copy(y, side)
        found = step(mine, other)
        assert np.shares_memory(found, mine)
        same_bits(found, np.where(x > 0, x * y, y[::-1]) + HALF.type(1))
        assert held.is_intact()


def test_the_c_header_says_what_the_words_are(tmp_path: Path) -> None:
    compiled = tg.compile(lambda x: x * 2, tg.spec((4,), "float16"))
    compiled.export_c(tmp_path, name="twice")
    header = next(tmp_path.glob("*.h")).read_text()
    assert "const uint16_t *x" in header
    assert "the bits of f16" in header


def test_what_is_refused() -> None:
    x = normal(3)
    with pytest.raises(ArgumentError, match=r"numba-source.*\n.*fix: "):
        tg.jit(lambda x: x + 1, backend="numba-source")(x)
    with pytest.raises(ArgumentError, match="float64"):
        tg.testing.check_grads(lambda x: (x * x).sum(), (x,))
    with pytest.raises(DTypeError, match="not integers"):
        tg.jit(lambda x: x & 1)(x)


def test_stored_activations_take_half_the_memory() -> None:
    """Library calls convert what they read, each for itself; rules read what is stored."""
    x, y = normal(512, 128, dtype=np.float32), normal(512, 128, seed=1, dtype=np.float32)
    weights = [normal(128, 128, seed=i, dtype=np.float32) * 0.1 for i in range(12)]

    def arena(dtype: Any) -> int:
        def loss(weights: Any) -> Any:
            h = x.astype(dtype)
            for w in weights:
                h = F.relu(h @ w.astype(dtype))
            return ((h.astype(np.float32) - y) ** 2).mean()

        return int(tg.compile(tg.grad(loss), weights).arena_bytes)

    assert arena(HALF) < 0.8 * arena(np.float32)


@pytest.mark.parametrize("activation", [F.relu, np.tanh, lambda h: h.max(axis=1, keepdims=True) * h])
def test_programs_agree_however_conversions_are_placed(activation: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weights = normal(96, 64), [normal(64, 64, seed=i) * HALF.type(0.2) for i in range(3)]

    def loss(weights: Any) -> Any:
        h = x
        for w in weights:
            h = activation(h @ w)
        return h.astype(np.float32).sum()

    apart = tg.compile(tg.value_and_grad(loss), weights)
    monkeypatch.setattr("tracegrad.schedule.conversions.SMALLEST", 1 << 40)
    shared = tg.compile(tg.value_and_grad(lambda weights: loss(weights)), weights)
    for mine, other in zip(tg.tree.leaves(apart(weights)), tg.tree.leaves(shared(weights)), strict=True):
        same_bits(mine, other)


# --- training ---------------------------------------------------------------------------------------------------------
def test_mixed_precision_training() -> None:
    """Float32 weights, stored activations and products in half precision, images as bytes."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 20), np.uint8)
    target = (images[:, :3].astype(np.float32) / 255).sum(axis=1)
    optimizer = optim.adam(3e-2)
    params = {"w": normal(20, 16, dtype=np.float32) * 0.3, "v": normal(16, dtype=np.float32) * 0.3}

    def loss(params: Any, images: Any) -> Any:
        w, v = params["w"].astype(HALF), params["v"].astype(HALF)
        h = np.tanh(images.astype(HALF) / 255 @ w)
        return ((h @ v).astype(np.float32) - target) ** 2

    @tg.jit
    def step(params: Any, state: Any, images: Any) -> Any:
        value, grads = tg.value_and_grad(lambda p: loss(p, images).mean())(params)
        params, state = optimizer.step(grads, state, params)
        return params, state, value

    state, values = optimizer.init(params), []
    for _ in range(60):
        params, state, value = step(params, state, images)
        values.append(float(value))
    assert params["w"].dtype == np.float32
    assert values[-1] < 0.1 * values[0]


@pytest.mark.parametrize("make", [optim.sgd, optim.adam, optim.adamw, optim.rmsprop, optim.adagrad, optim.lamb])
def test_optimizers_of_half_precision_weights_compute_in_float32(make: Any) -> None:
    optimizer = optim.chain(optim.clip_by_global_norm(1.0), make(1e-2))
    params, grads = {"w": normal(300)}, {"w": normal(300, seed=1) * HALF.type(300)}
    wide = {"w": params["w"].astype(np.float32)}
    state, exact = optimizer.init(params), optimizer.init(wide)
    after, state = tg.jit(optimizer.step)(grads, state, params)
    assert after["w"].dtype == HALF
    assert all(leaf.dtype != HALF for leaf in tg.tree.leaves(state))
    expected, _ = optimizer.step({"w": grads["w"].astype(np.float32)}, exact, wide)
    np.testing.assert_allclose(after["w"].astype(np.float32), expected["w"], rtol=1e-3, atol=1e-5)


def test_modules_with_half_precision_weights() -> None:
    key = random.key(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, dtype=HALF, key=key), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3, dtype=HALF, key=key)
    )
    x = normal(5, 2, 8, 8)
    value, gradient = tg.value_and_grad(lambda m: F.cross_entropy(m(x), np.array([0, 1, 2, 0, 1])))(model)
    assert value.dtype == HALF
    assert {leaf.dtype for leaf in tg.tree.leaves(gradient)} == {HALF}
    assert random.normal(key, (3,), HALF).dtype == random.uniform(key, (3,), HALF).dtype == HALF


def test_weights_in_files(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    nn.save_file({"w": normal(3, 4)}, tmp_path / "w")
    same_bits(nn.load_file(tmp_path / "w")["w"], normal(3, 4))
