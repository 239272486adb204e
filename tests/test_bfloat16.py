"""bfloat16, where ml_dtypes is installed: what is its own. The rest it shares with float16 (`test_half`)."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_half import EXACT, PATTERNS, normal, random_expression, same_bits

import tracegrad as tg
import tracegrad.nn.functional as F
import tracegrad.numpy as tnp
from tracegrad import nn, optim, random
from tracegrad.errors import DTypeError

ml_dtypes = pytest.importorskip("ml_dtypes")
BF16 = np.dtype(ml_dtypes.bfloat16)


def neighbours(dtype: Any) -> Any:
    """Every number between two neighbours, the numbers just beside it, and those out of range."""
    numbers = PATTERNS.view(BF16).astype(np.float64)
    finite = np.unique(numbers[np.isfinite(numbers)])
    between = ((finite[1:] + finite[:-1]) / 2).astype(dtype)
    infinite = np.array(np.inf, dtype)
    around = [between, np.nextafter(between, infinite), np.nextafter(between, -infinite), finite.astype(dtype)]
    return np.concatenate([*around, np.array([np.finfo(dtype).max, np.inf, -np.inf, np.nan, -np.nan, -0.0], dtype)])


def check_conversions() -> None:
    """Compare every conversion from and to bfloat16 with ml_dtypes'."""
    bits = np.random.default_rng(0).integers(0, 1 << 64, 1 << 16, dtype=np.uint64)
    floats = {d: np.concatenate([neighbours(d), bits.view(d)]) for d in (np.float32, np.float64)}
    arrays: dict[Any, Any] = floats | {d: bits.astype(d) for d in (np.bool_, np.int8, np.uint8, np.int32, np.int64)}
    arrays[np.float16] = PATTERNS.view(np.float16)
    all_of_them = PATTERNS.view(BF16)
    with np.errstate(all="ignore"):
        found = tg.jit(lambda xs: [x.astype(BF16) for x in xs])(list(arrays.values()))
        for mine, values in zip(found, arrays.values(), strict=True):
            same_bits(mine, values.astype(BF16))
        back = tg.jit(lambda x: [x.astype(d) for d in (np.float32, np.float64, np.float16)])(all_of_them)
        for mine in back:
            same_bits(mine, all_of_them.astype(np.float32).astype(mine.dtype))


def test_every_conversion_on_this_cpu() -> None:
    check_conversions()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="a level of x86-64")
def test_every_conversion_on_another_cpu() -> None:
    environment = os.environ | {"TRACEGRAD_CPU": "x86-64-v2", "PYTHONPATH": os.pathsep.join([*sys.path, "tests"])}
    code = "import test_bfloat16; test_bfloat16.check_conversions()"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize("ufunc", EXACT, ids=lambda f: f.__name__)
def test_operations_round_once(ufunc: Any) -> None:
    x, y = normal(500, dtype=BF16), normal(500, seed=1, dtype=BF16)
    x[:6] = [np.inf, -np.inf, np.nan, 3.38e38, 1e-40, 0.0]
    with np.errstate(all="ignore"):
        expected = ufunc(x.astype(np.float32), y.astype(np.float32)).astype(BF16)
        same_bits(tg.jit(ufunc)(x, y), expected)
        same_bits(tg.jit(ufunc, backend="python-source")(x, y), expected)
        same_bits(ufunc(tg.tensor(x), y).numpy(), expected)


@pytest.mark.parametrize("seed", range(6))
def test_expressions_agree_in_every_way_to_run(seed: int) -> None:
    expression = random_expression(seed)
    x, y = normal(100, dtype=BF16), normal(100, seed=1, dtype=BF16)
    with np.errstate(all="ignore"):
        compiled = tg.jit(expression)(x, y)
        assert compiled.dtype == BF16
        same_bits(tg.jit(expression, backend="python-source")(x, y), compiled)
        same_bits(expression(tg.tensor(x), tg.tensor(y)).numpy(), compiled)
        value = tg.value_and_grad(lambda x, y: expression(x, y).max())
        with tg.eager():
            eager, slope = value(x, y)
        same_bits(np.asarray(eager), np.asarray(value(x, y)[0]))
        assert slope.dtype == BF16


def test_moved_elements_keep_their_bits() -> None:
    x = PATTERNS.view(BF16).reshape(256, 256)

    def moves(x: Any) -> Any:
        return tnp.concatenate([tnp.pad(x[::-1].T, 1)[np.array([3, 1, 255])], tnp.where(x == 1, x, x)[:, :1].T.repeat(
            258, axis=1)[:2, :258]])  # fmt: skip

    np.testing.assert_array_equal(tg.jit(moves)(x).view(np.uint16), moves(x).view(np.uint16))


def test_promotion() -> None:
    x = normal(3, dtype=BF16)
    add = tg.jit(lambda x, y: x + y)
    for other, dtype in [(np.float32, np.float32), (np.float64, np.float64), (np.int8, BF16), (np.bool_, BF16)]:
        assert add(x, np.ones(3, other)).dtype == dtype
    for number in (2.5, 3, True):
        assert add(x, number).dtype == BF16  # as float16 beside a number; ml_dtypes gives float32
    for other in (np.float16, np.int16, np.int64):
        with pytest.raises(DTypeError, match=r"bfloat16 and \w+ have no dtype in common|\w+ and bfloat16 have no"):
            add(x, np.ones(3, other))
    assert tnp.result_type(BF16, np.float32) == np.float32


def test_names_of_the_dtype() -> None:
    compiled = tg.compile(lambda x: x.astype("bfloat16") * 2, tg.spec((3,), "bfloat16"))
    assert "bf16[3]" in str(compiled.graph)
    assert tg.jit(lambda x: tnp.asarray([1.0, 2.0], dtype=BF16) * x)(BF16.type(2)).tolist() == [2.0, 4.0]
    with pytest.raises(DTypeError, match=r"x.astype\(ml_dtypes.bfloat16\)"):
        compiled(np.ones(3, np.float32))
    assert str(tg.tensor(np.array([1.5, -2.25], BF16))) == "tensor([ 1.5000, -2.2500], dtype=bfloat16)"


def test_scalars_go_in_and_out() -> None:
    twice = tg.compile(lambda x: x * 2, tg.spec((), BF16))
    for argument in (BF16.type(1.5), np.array(1.5, BF16), 1.5):
        found = twice(argument)
        assert found == 3.0
        assert found.dtype == BF16


def test_gradients_and_layers() -> None:
    x, w = normal(8, 16, dtype=BF16), normal(4, 16, dtype=BF16)

    def loss(w: Any, x: Any) -> Any:
        return F.cross_entropy(F.gelu(F.linear(x, w)), np.arange(8) % 4)

    value, gradient = tg.value_and_grad(loss)(w, x)
    exact, slope = tg.value_and_grad(loss)(w.astype(np.float64), x.astype(np.float64))
    assert value.dtype == gradient.dtype == BF16
    np.testing.assert_allclose(float(value), exact, rtol=1e-2)
    np.testing.assert_allclose(gradient.astype(np.float64), slope, rtol=0.03, atol=5e-3)
    tensor = tg.tensor(w, requires_grad=True)
    loss(tensor, x).backward()
    assert tensor.grad.dtype == BF16
    np.testing.assert_allclose(tensor.grad.numpy().astype(np.float64), slope, rtol=0.03, atol=5e-3)


def test_training_in_bfloat16() -> None:
    x = normal(64, 8, dtype=BF16)
    y = x[:, 0] * BF16.type(2)
    optimizer = optim.adam(0.05)
    params = nn.Linear(8, 1, dtype=BF16, key=random.key(0))

    @tg.jit
    def step(params: Any, state: Any) -> Any:
        value, grads = tg.value_and_grad(lambda p: F.mse_loss(p(x)[:, 0], y))(params)
        return (*optimizer.step(grads, state, params), value)

    state, values = optimizer.init(params), []
    for _ in range(80):
        params, state, value = step(params, state)
        values.append(float(value))
    assert params.weight.dtype == BF16
    assert values[-1] < 0.05 * values[0]


def test_files(tmp_path: Path) -> None:
    w = normal(3, dtype=BF16)
    compiled = tg.compile(lambda x, scale: x * w * scale, tg.spec((3,), BF16), tg.spec((), BF16))
    compiled.save(tmp_path / "step.tgx")
    code = f"""
import tracegrad as tg, numpy as np
step = tg.load({str(tmp_path / 'step.tgx')!r})
import ml_dtypes
print(step(np.ones(3, ml_dtypes.bfloat16), np.array(2, ml_dtypes.bfloat16)).tolist())
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str((w * BF16.type(2)).tolist())


def test_weights_in_files(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    nn.save_file({"w": normal(3, dtype=BF16)}, tmp_path / "w")
    found = nn.load_file(tmp_path / "w")["w"]
    assert found.dtype == np.float32
    same_bits(found.astype(BF16), normal(3, dtype=BF16))


def test_without_ml_dtypes() -> None:
    code = """
import sys
sys.modules["ml_dtypes"] = None
import tracegrad as tg
try:
    tg.spec((3,), "bfloat16")
except tg.TracegradError as error:
    print(error)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert "which is not installed" in done.stdout
    assert "fix: pip install ml_dtypes" in done.stdout
