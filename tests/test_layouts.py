"""Arrays that are stored transposed, or as part of wider rows: programs read them as they lie, and copy all others."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import tree
from tracegrad.api.retrace import OBSERVERS
from tracegrad.api.saved import inspect
from tracegrad.config import config
from tracegrad.errors import ArgumentError
from tracegrad.ir.layout import stored
from tracegrad.ir.text import parse, show
from tracegrad.nn import functional as F
from tracegrad.passes.stored import as_stored
from tracegrad.runtime import caller
from tracegrad.runtime.executable import Executable
from tracegrad.runtime.layout import laid_out, layout_of, lies_as, memory_of
from tracegrad.schedule.turn import turn_around

needs_native = pytest.mark.skipif(caller.method() is None, reason="another Python: calls go the long way")


def normal(*shape: int, seed: int = 0, dtype: Any = np.float64) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.fixture
def no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where an argument is not taken as it is."""

    def refuse(self: Any, position: int, value: Any) -> Any:
        raise AssertionError("an argument is converted")

    monkeypatch.setattr(Executable, "convert", refuse)


def draw(rng: np.random.Generator, ndim: int) -> Any:
    """Return an array of random sizes, order of axes, padded rows and slices."""
    shape = [int(n) for n in rng.choice([1, 2, 3, 5, 17, 40], ndim)]
    shape[rng.integers(ndim)] = 64
    padded = [n + int(rng.choice([0, 0, 0, 1, 7, n])) for n in shape]
    base = rng.standard_normal(padded)
    start = [int(rng.integers(0, p - n + 1)) for p, n in zip(padded, shape, strict=True)]
    step = [int(rng.choice([1, 1, 1, 1, -1])) for _ in shape]
    part = base[tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))]
    return part[tuple(slice(None, None, d) for d in step)].transpose(rng.permutation(ndim))


# --- what a layout is -------------------------------------------------------------------------------------------------

LAYOUTS: list[tuple[Any, Any]] = [
    (normal(6, 5), None),
    (normal(6, 5).T, (1, 5)),
    (normal(6, 5, 4).transpose(2, 0, 1), (1, 20, 4)),
    (np.asfortranarray(normal(6, 5, 4)), (1, 6, 30)),
    (normal(6, 9)[:, 2:7], (9, 1)),
    (normal(6, 9)[1:4, 2:7].T, (1, 9)),
    (normal(6, 1, 5).T, (1, 0, 5)),
    (normal(6, 5)[::-1], None),
    (normal(6, 5)[:, ::2], None),
    (normal(6, 50)[:, :5], None),  # a copy of so narrow a part costs less
    (normal(6, 5, 4)[:, :3], None),
    (np.broadcast_to(normal(5), (6, 5)), None),
    (normal(6, 5)[:, 1], None),
    (normal(0, 5).T, None),
    (np.zeros((6, 5), [("a", "i4"), ("b", "f8")])["b"].T, None),
    (np.zeros(8 * 30 + 1, np.uint8)[1:].view(np.float64).reshape(6, 5).T, None),
]


@pytest.mark.parametrize(("array", "layout"), LAYOUTS)
def test_permutations_of_c_order_with_padded_rows_have_a_layout(array: Any, layout: Any) -> None:
    assert layout_of(array, 0) == layout


@pytest.mark.parametrize("layout", [(1, 6), (9, 1), (1, 9), None])
def test_an_array_is_copied_into_a_layout(layout: Any) -> None:
    for array in (normal(6, 5), normal(5, 6).T, normal(6, 10)[:, ::2]):
        found = laid_out(array, layout)
        np.testing.assert_array_equal(found, array)
        assert lies_as(found, layout)
        assert laid_out(found, layout) is found
        memory = np.frombuffer(memory_of(array, layout))
        shape = (6, 5) if layout is None else stored((6, 5), layout).shape
        assert memory.size == np.prod(shape)
        here = memory.reshape(shape)
        np.testing.assert_array_equal(here[:6, :5] if layout in (None, (9, 1)) else here[:5, :6].T, array)


def test_the_graph_of_stored_inputs_is_a_view_of_them() -> None:
    head = "def f(x: f32[3, 2], y: f32[3, 4]) -> f32[3]:\n"
    graph = parse(head + "    a: f32[3] = reduce_sum(x, axes=(1,))\n    return a")
    assert show(as_stored(graph, [(1, 3), (5, 1)])) == (
        "def f(x: f32[2, 3], y: f32[3, 5]) -> f32[3]:\n"
        "    a: f32[3, 2] = transpose(x, perm=(1, 0))\n"
        "    b: f32[3] = reduce_sum(a, axes=(1,))\n"
        "    return b"
    )


# --- right results ----------------------------------------------------------------------------------------------------

FUNCTIONS: dict[str, Any] = {
    "copy": lambda x: x,
    "chain": lambda x: np.tanh(x) * 2.0 + x,
    "sum": lambda x: x.sum(),
    "means": lambda x: [x.mean(axis=a) for a in range(x.ndim)],
    "largest": lambda x: (x.max(axis=0), x.argmax(axis=-1)),
    "softmax": lambda x: np.exp(x - x.max(axis=-1, keepdims=True)),
    "reshape": lambda x: x.reshape(-1) + 1.0,
    "joined": lambda x: np.concatenate([x, x * x], axis=-1),
    "product": lambda x: tnp.tensordot(x, x, axes=([0], [0])) if x.ndim < 3 else x @ x.swapaxes(-1, -2),
    "mean and slice": lambda x: x[0] - x.mean(axis=0),
}


@pytest.mark.parametrize("seed", range(20))
def test_random_layouts_agree_with_numpy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = draw(rng, 1 + seed % 4)
    name = list(FUNCTIONS)[seed % len(FUNCTIONS)]
    program = tg.compile(lambda x: FUNCTIONS[name](x), x)
    for array in (x, np.ascontiguousarray(x), np.asfortranarray(x)):
        expected = FUNCTIONS[name](array) if name != "product" else FUNCTIONS[name](np.ascontiguousarray(array))
        for found, wanted in zip(tree.leaves(program(array)), tree.leaves(expected), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)
            assert np.asarray(found).flags.c_contiguous


TURNED = [((80, 60), (1, 0)), ((2, 70, 33), (2, 0, 1)), ((16, 2, 3, 64), (3, 1, 0, 2)), ((4096, 1, 3), (2, 1, 0))]


@pytest.mark.parametrize(("shape", "perm"), TURNED)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.bool_])
def test_large_transposes_are_copied_in_blocks(shape: Any, perm: Any, dtype: Any) -> None:
    x = (normal(*shape) * 9).astype(dtype)
    program = tg.compile(lambda x: (x.transpose(perm), x.transpose(perm).max(axis=0)), x)
    found, largest = program(x)
    np.testing.assert_array_equal(found, x.transpose(perm))
    np.testing.assert_array_equal(largest, x.transpose(perm).max(axis=0))


TRANSPOSES = {
    "copied for loops, read as they lie by others": (
        """
def f(x: f32[80, 70], y: f32[70, 80], w: f32[80, 5]) -> (f32[70, 80], f32[70], f32[70, 5], f32[80]):
    a: f32[70, 80] = transpose(x, perm=(1, 0))
    b: f32[70, 80] = add(a, y)
    c: f32[70] = reduce_sum(a, axes=(1,))
    d: f32[70, 5] = dot(a, w, batch=((), ()), contract=((1,), (0,)))
    e: f32[1, 80] = slice(a, size=(1, 80), start=(3, 0), step=(1, 1))
    f: f32[80] = reshape(e, shape=(80,))
    g: f32[80] = neg(f)
    return b, c, d, g
""",
        """
def f(x: f32[80, 70], y: f32[70, 80], w: f32[80, 5]) -> (f32[70, 80], f32[70], f32[70, 5], f32[80]):
    a: f32[70, 80] = transpose(x, perm=(1, 0))
    b: f32[70, 80] = turn(x, perm=(1, 0))
    c: f32[70, 80] = add(b, y)
    d: f32[70] = reduce_sum(x, axes=(0,))
    e: f32[70, 5] = dot(a, w, batch=((), ()), contract=((1,), (0,)))
    f: f32[1, 80] = slice(a, size=(1, 80), start=(3, 0), step=(1, 1))
    g: f32[80] = reshape(f, shape=(80,))
    h: f32[80] = neg(g)
    return c, d, e, h
""",
    ),
    "element-wise before": (
        """
def f(x: f32[80, 70], y: f32[80, 70], s: f32) -> (f32[70, 80], f32[80]):
    a: f32[70, 80] = transpose(x, perm=(1, 0))
    b: f32[70, 80] = transpose(y, perm=(1, 0))
    c: f32[70, 80] = add(a, b)
    d: f32[70, 80] = mul(c, s)
    e: f32[80] = reduce_max(d, axes=(0,))
    return d, e
""",
        """
def f(x: f32[80, 70], y: f32[80, 70], s: f32) -> (f32[70, 80], f32[80]):
    a: f32[80, 70] = add(x, y)
    b: f32[80, 70] = mul(a, s)
    c: f32[80] = reduce_max(b, axes=(1,))
    d: f32[70, 80] = turn(b, perm=(1, 0))
    return d, c
""",
    ),
    "one copy for two results": (
        """
def f(x: f32[80, 70]) -> (f32[70, 80], f32[70, 80]):
    a: f32[70, 80] = transpose(x, perm=(1, 0))
    b: f32[70, 80] = exp(a)
    c: f32[70, 80] = neg(a)
    return b, c
""",
        """
def f(x: f32[80, 70]) -> (f32[70, 80], f32[70, 80]):
    a: f32[70, 80] = turn(x, perm=(1, 0))
    b: f32[70, 80] = exp(a)
    c: f32[70, 80] = neg(a)
    return b, c
""",
    ),
    "read in two orders": (
        """
def f(x: f32[80, 80]) -> (f32[80, 80], f32[80]):
    a: f32[80, 80] = transpose(x, perm=(1, 0))
    b: f32[80, 80] = exp(a)
    c: f32[80, 80] = neg(b)
    d: f32[80, 80] = add(b, x)
    e: f32[80] = reduce_sum(c, axes=(0,))
    return d, e
""",
        """
def f(x: f32[80, 80]) -> (f32[80, 80], f32[80]):
    a: f32[80, 80] = turn(x, perm=(1, 0))
    b: f32[80, 80] = exp(a)
    c: f32[80, 80] = neg(b)
    d: f32[80, 80] = add(b, x)
    e: f32[80] = reduce_sum(c, axes=(0,))
    return d, e
""",
    ),
    "small ones stay views": (
        """
def f(x: f32[8, 7]) -> f32[7, 8]:
    a: f32[7, 8] = transpose(x, perm=(1, 0))
    b: f32[7, 8] = exp(a)
    return b
""",
        "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TRANSPOSES)
def test_loops_read_no_large_array_across_its_rows(name: str) -> None:
    before, after = (text.strip() for text in TRANSPOSES[name])
    assert show(turn_around(parse(before))) == (after or before)


# --- nothing is copied before the call --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fn", [lambda a, b: a @ b, lambda a, b: (a @ b[:, 0], b.sum(axis=0)), lambda a, b: np.exp(a) + b]
)
def test_a_call_takes_transposed_and_padded_arrays_as_they_lie(fn: Any, no_copies: None) -> None:
    wide = normal(40, 100, seed=1)
    a, b = normal(40, 40).T, wide[:, 60:]
    for found, wanted in zip(tree.leaves(tg.compile(fn, a, b)(a, b)), tree.leaves(fn(a, b)), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_products_pack_what_lies_transposed(no_copies: None) -> None:
    for a, b in [((60, 70), (80, 60)), ((70, 3), (3, 70)), ((2, 60, 70), (2, 80, 60))]:
        x, y = normal(*a).swapaxes(-1, -2), normal(*b, seed=1).swapaxes(-1, -2)
        program = tg.compile(lambda x, y: x @ y, x, y)
        assert program.kernels == 1
        np.testing.assert_allclose(program(x, y), x @ y, rtol=1e-12, atol=1e-12)


def test_images_with_channels_last(no_copies: None) -> None:
    x, w = normal(2, 9, 9, 8).transpose(0, 3, 1, 2), normal(3, 3, 8, 5, seed=1).transpose(3, 2, 0, 1)
    expected = tg.compile(F.conv2d, x.copy(), w.copy())(x.copy(order="C"), w.copy(order="C"))
    np.testing.assert_allclose(tg.compile(F.conv2d, x, w)(x, w), expected, rtol=1e-12, atol=1e-12)


# --- signatures -------------------------------------------------------------------------------------------------------


def test_the_layout_of_a_large_array_belongs_to_the_signature(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    f = tg.jit(lambda x, y: x.sum() + y.sum())
    small, large = normal(8, 8), normal(128, 64)
    f(large, small)
    f(large, small.T)
    assert f.traces == 1
    monkeypatch.setattr(config, "verbose", True)
    f(normal(64, 128).T, small)
    assert "x: f64[128, 64] became f64[128, 64] stored transposed" in capsys.readouterr().err
    f(np.zeros((128, 80))[:, :64], small)
    assert "stored with padded rows" in capsys.readouterr().err
    f(np.zeros((8, 16, 80))[..., :64].transpose(2, 0, 1).reshape(64, 128).T, small)
    f(np.zeros((128, 130))[:, ::2][:, :64], small)  # any other strides are copied into C order
    f(large[::-1], small)
    assert f.traces == 3


@needs_native
def test_both_layouts_of_a_function_are_called_natively(monkeypatch: pytest.MonkeyPatch) -> None:
    f = tg.jit(lambda x: x.sum(axis=0))
    x = normal(128, 64)
    both = [x, np.asfortranarray(x), np.concatenate([x, x], axis=1)[:, 64:]]
    for array in both:
        f(array)
    assert f.traces == 3
    monkeypatch.setattr(Executable, "checked", None)  # what calls of the long way go through
    for array in both:
        np.testing.assert_allclose(f(array), x.sum(axis=0))


def test_dimensions_of_one_element_have_no_stride() -> None:
    program = tg.compile(lambda x: x * 2.0, normal(6, 1, 5).T)
    assert program._specialised.program.layouts == ((1, 0, 5),)
    for array in (normal(6, 1, 5).T, np.lib.stride_tricks.as_strided(normal(30), (5, 1, 6), (8, 24, 40))):
        np.testing.assert_array_equal(program(array), array * 2.0)


def test_a_specification_means_c_order(no_copies: None) -> None:
    x = normal(6, 5)
    np.testing.assert_array_equal(tg.compile(lambda x: x * 2.0, tg.spec((6, 5)))(x), x * 2.0)


def test_captured_arrays_are_read_as_they_lie(no_copies: None) -> None:
    w = normal(64, 128).T
    f = tg.jit(lambda x: x @ w)
    x = normal(3, 128, seed=1)
    np.testing.assert_allclose(f(x), x @ w)
    w = np.ascontiguousarray(w)
    np.testing.assert_allclose(f(x), x @ w)
    assert f.traces == 2


def test_a_compiled_program_copies_a_captured_array_in_another_order() -> None:
    w = normal(64, 128).T
    program = tg.compile(lambda x: x @ w, tg.spec((3, 128)))
    x = normal(3, 128, seed=1)
    for other in (w, np.ascontiguousarray(w), normal(128, 64, seed=2), normal(128, 200, seed=3)[:, :64]):
        w = other
        np.testing.assert_allclose(program(x), x @ w)
    w = normal(128, 65)
    with pytest.raises(ArgumentError, match="captured w"):
        program(x)


def test_traces_are_counted_by_layout() -> None:
    seen: list[str] = []
    token = OBSERVERS.set((lambda name, reason: seen.append(reason),))
    try:
        f = tg.jit(lambda p: p["w"].sum())
        f({"w": normal(128, 64)})
        f({"w": normal(64, 128).T})
    finally:
        OBSERVERS.reset(token)
    assert seen == ["", "p['w']: f64[128, 64] became f64[128, 64] stored transposed"]


# --- transforms -------------------------------------------------------------------------------------------------------


def loss(w: Any, x: Any) -> Any:
    return (np.tanh(x @ w) ** 2).mean()


def test_gradients_come_back_in_c_order() -> None:
    w, x = normal(90, 100).T, normal(128, 100, seed=1)
    wanted = tg.grad(loss)(np.ascontiguousarray(w), x)
    value, found = tg.value_and_grad(loss)(w, np.asfortranarray(x))
    assert found.flags.c_contiguous and found.shape == (100, 90)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(value, loss(w, x))
    y, pull = tg.vjp(lambda w: x @ w, w)
    np.testing.assert_allclose(y, x @ w)
    (found,) = pull(np.ones((128, 90)))
    assert found.flags.c_contiguous
    np.testing.assert_allclose(found, x.T @ np.ones((128, 90)))


def test_vmap_jvp_and_tape_take_any_layout() -> None:
    x, v = normal(70, 3, 60).transpose(1, 2, 0), normal(70)
    np.testing.assert_allclose(tg.vmap(lambda a, v: a @ v, in_axes=(0, None))(x, v), x @ v)
    _, t = tg.jvp(lambda x: (x * x).sum(axis=0), (x,), (x,))
    np.testing.assert_allclose(t, 2.0 * (x * x).sum(axis=0))
    f = tg.jit(lambda x: (x * x).sum())
    f(x)
    tensor = tg.tensor(x, requires_grad=True)
    f(tensor).backward()
    np.testing.assert_allclose(tensor.grad.numpy(), 2.0 * x)


def test_donated_arrays_are_in_c_order() -> None:
    w, g = normal(50, 50).T, normal(50, 50, seed=1).T
    kept = w.copy()
    program = tg.compile(lambda w, g: w - 0.5 * g, w, g, donate=("w",))
    assert program._specialised.program.layouts == (None, (1, 50))
    found = program(w, g)
    np.testing.assert_array_equal(found, kept - 0.5 * g)
    np.testing.assert_array_equal(w, kept)  # a strided one is copied
    again = program(found, g)
    assert again is found
    memory = np.zeros((50, 50, 2))
    mine, other = memory[..., 0].copy(), memory.reshape(-1)[: 50 * 50].reshape(50, 50)
    with pytest.raises(ArgumentError, match="shares memory"):
        program(other, memory.reshape(-1)[2450:4950].reshape(50, 50).T)
    np.testing.assert_array_equal(program(mine, other.T), 0.0)


def test_padded_rows_of_donated_memory_are_noticed() -> None:
    """The last row of a padded array ends behind as many bytes as its elements take."""
    memory = np.zeros((60, 100))
    g, w = memory[:, :50], memory.reshape(-1)[5000:5100].reshape(50, 2)
    program = tg.compile(lambda w, g: w + g.sum(), np.zeros((50, 2)), g, donate=("w",))
    with pytest.raises(ArgumentError, match="shares memory"):
        program(w, g)


# --- programs with fixed arguments, in files, for C -------------------------------------------------------------------


def test_bound_programs_read_the_array_they_were_made_with() -> None:
    w, x = normal(50, 40).T, normal(3, 40)
    program = tg.compile(lambda w, x: x @ w, w, x)
    bound = program.bind(w, x)
    w *= 3.0
    np.testing.assert_allclose(bound(), x @ w)
    with pytest.raises(ArgumentError, match="stored as its example was"):
        program.bind(np.ascontiguousarray(w), x)


def test_bound_programs_refuse_a_captured_array_in_another_layout() -> None:
    w = normal(50, 40).T
    program = tg.compile(lambda x: x @ w, tg.spec((3, 40)))
    w = w.copy(order="C")
    with pytest.raises(ArgumentError, match="a captured array.*: bind needs an array that is stored"):
        program.bind(normal(3, 40))


def test_profiles_run_in_the_same_layout() -> None:
    w = normal(64, 48).T
    assert "dot" in str(tg.compile(lambda w: w @ w.T, w).profile(w))


@pytest.mark.parametrize("anew", [False, True])
def test_saved_programs_keep_layouts(tmp_path: Path, anew: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    w, x = normal(128, 64).T, normal(3, 80)[:, :64]
    path = tmp_path / "product.tgx"
    tg.compile(lambda x: x @ w, x).save(path)
    text = inspect(path)
    assert "x: f64[3, 64], stored with padded rows" in text
    if anew:
        monkeypatch.setattr("tracegrad.runtime.artefact.unfit", lambda found: "a test says so")
        with pytest.warns(UserWarning, match="a test says so"):
            loaded = tg.load(path)
    else:
        loaded = tg.load(path, strict=True)
    assert loaded._specialised.program.layouts == ((80, 1), (1, 64))
    for array in (x, np.ascontiguousarray(x), np.asfortranarray(x)):
        np.testing.assert_allclose(loaded(array), x @ w)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_the_header_for_c_tells_the_layout(tmp_path: Path) -> None:
    c, w, x = normal(70, 5).T[:, :60], normal(6, 7).T, normal(3, 10)[:, :7]
    program = tg.compile(lambda w, x: x @ w + c.sum(), w, x)
    library = ctypes.CDLL(str(program.export_c(tmp_path, "product")))
    header = (tmp_path / "product.h").read_text()
    assert "double[7][6]: w, stored transposed: strides of (1, 7) elements" in header
    assert "double[3][7]: x, stored with padded rows: strides of (10, 1) elements" in header
    found = np.zeros((3, 6))
    addresses = [ctypes.c_void_p(a.ctypes.data) for a in (w, x, found)]
    assert library.product(*addresses) == 0
    np.testing.assert_allclose(found, x @ w + c.sum())
