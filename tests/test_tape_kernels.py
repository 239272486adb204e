"""Compiled kernels on the tape: when they take over, that they give what NumPy gives, and what keeps them out."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from test_ops import SAMPLES, draw, order_of

import tracegrad as tg
from tracegrad.config import config
from tracegrad.errors import CompileError, ShapeError
from tracegrad.ir import PRIMITIVES, Primitive
from tracegrad.nn import functional as F
from tracegrad.ops.conv import conv
from tracegrad.ops.elementwise import erf
from tracegrad.tape import kernels
from tracegrad.testing import check_grads

COSTLY = [s for s in SAMPLES if s.values[0].costly and s.values[1]["shapes"][:1] not in ([()], [(5,)], [(0, 2)])]
GEOMETRY: dict[str, Any] = {"stride": (1, 1), "padding": ((1, 1), (1, 1)), "dilation": (1, 1), "groups": 1}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.fixture(autouse=True)
def uses(monkeypatch: pytest.MonkeyPatch) -> dict[Any, kernels.Use]:
    """Start without signatures."""
    found: dict[Any, kernels.Use] = {}
    monkeypatch.setattr(kernels, "USES", found)
    return found


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile everything the first time it is used."""
    monkeypatch.setattr(kernels, "ENOUGH", 0)
    for prim in PRIMITIVES.values():
        if prim.costly:
            monkeypatch.setattr(prim, "costly", 1)


def programs(uses: dict[Any, kernels.Use]) -> list[str]:
    return [key[0].name for key, use in uses.items() if use.program is not None]


@pytest.mark.parametrize(("prim", "sample"), COSTLY)
def test_values_and_gradients_are_those_of_numpy(
    prim: Primitive, sample: dict[str, Any], rng: np.random.Generator, at_once: None, uses: dict[Any, kernels.Use]
) -> None:
    arrays, params = draw(prim, sample, rng), sample.get("params", {})
    wrt = [i for i, a in enumerate(arrays) if np.asarray(a).dtype == np.float64 and order_of(prim, sample)]

    def run() -> list[Any]:
        xs = [tg.tensor(a, requires_grad=i in wrt) for i, a in enumerate(arrays)]
        leaves = [xs[i] for i in wrt]
        y = prim(*xs, **params)
        if not leaves:
            return [y]
        first = tg.autograd.grad((y * y).sum(), leaves, create_graph=True)
        y = prim(*xs, **params)  # and once more without create_graph, where rules work on arrays
        plain = tg.autograd.grad((y * y).sum(), leaves)
        second = tg.autograd.grad(sum((g * g).sum() for g in first), leaves, allow_unused=True)
        return [y, *first, *plain, *(g for g in second if g is not None)]

    found = run()
    assert prim.name in programs(uses)
    with tg.eager():
        before = programs(uses)
        wanted = run()
        assert programs(uses) == before
    for a, b in zip(found, wanted, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-11, atol=1e-11)


def test_a_signature_is_compiled_once_numpy_has_done_enough(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, uses: dict[Any, kernels.Use]
) -> None:
    x, w = tg.tensor(rng.normal(size=(1, 2, 4, 4))), tg.tensor(rng.normal(size=(3, 2, 3, 3)))
    each = kernels.PER_CALL + 32 + 54 + 48
    monkeypatch.setattr(kernels, "ENOUGH", 3 * each)
    results = []
    for calls in range(1, 6):
        results.append(conv(x, w, **GEOMETRY).numpy())
        assert programs(uses) == (["conv"] if calls >= 3 else [])
    np.testing.assert_array_equal(results[2], results[4])
    np.testing.assert_allclose(results[0], results[4], rtol=1e-13, atol=1e-13)
    conv(x[:, :, :3], w, **GEOMETRY)  # another shape is counted for itself
    assert len(uses) == 2 and programs(uses) == ["conv"]


def test_small_arrays_stay_with_numpy(monkeypatch: pytest.MonkeyPatch, uses: dict[Any, kernels.Use]) -> None:
    monkeypatch.setattr(kernels, "ENOUGH", 0)
    erf(tg.tensor(np.ones(erf.costly - 1)))
    assert not uses
    erf(tg.tensor(np.ones(erf.costly)))
    assert programs(uses) == ["erf"]


def test_the_setting_switches_them_off(
    at_once: None, monkeypatch: pytest.MonkeyPatch, uses: dict[Any, kernels.Use], rng: np.random.Generator
) -> None:
    monkeypatch.setattr(config, "tape_kernels", False)
    x = tg.tensor(rng.normal(size=(1, 2, 4, 4)), requires_grad=True)
    F.max_pool2d(x, 2).sum().backward()
    assert not uses


def test_plain_arrays_stay_with_numpy(at_once: None, uses: dict[Any, kernels.Use]) -> None:
    F.max_pool2d(np.ones((1, 1, 4, 4)), 2)
    assert not uses


def test_operands_in_any_layout(at_once: None, rng: np.random.Generator) -> None:
    data, weights = rng.normal(size=(4, 4, 2, 2)), rng.normal(size=(3, 3, 2, 3))
    x, w = tg.tensor(data).T, tg.tensor(weights).T[:, :, ::-1]
    np.testing.assert_allclose(
        conv(x, w, **GEOMETRY).numpy(), conv(data.T, weights.T[:, :, ::-1], **GEOMETRY), rtol=1e-12, atol=1e-12
    )


def test_the_gradient_of_one_operand_alone(at_once: None, rng: np.random.Generator) -> None:
    data, weights = rng.normal(size=(1, 2, 4, 4)), rng.normal(size=(3, 2, 3, 3))
    check_grads(lambda x: conv(x, tg.tensor(weights), **GEOMETRY), (data,), order=2)
    check_grads(lambda w: conv(tg.tensor(data), w, **GEOMETRY), (weights,), order=2)


def test_shapes_that_do_not_fit_have_their_message(at_once: None) -> None:
    with pytest.raises(ShapeError, match="has 2 channels but w .* expects 3"):
        conv(tg.tensor(np.ones((1, 2, 4, 4))), tg.tensor(np.ones((3, 3, 3, 3))), **GEOMETRY)


def test_old_signatures_are_forgotten(monkeypatch: pytest.MonkeyPatch, uses: dict[Any, kernels.Use]) -> None:
    monkeypatch.setattr(kernels, "MOST", 4)
    for width in range(2, 12):
        F.max_pool1d(tg.tensor(np.ones((1, 1, width))), 2)
        F.max_pool1d(tg.tensor(np.ones((1, 1, 20))), 2)
    assert len(uses) <= 4
    assert ((1, 1, 20), np.dtype(np.float64)) in [key[1][0] for key in uses]


def test_what_cannot_be_compiled_stays_with_numpy(
    at_once: None, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    def broken(graph: Any) -> Any:
        raise CompileError("compiling failed", fix="report it")

    monkeypatch.setattr(kernels, "build", broken)
    data = rng.normal(size=(1, 1, 6))
    with pytest.warns(RuntimeWarning, match="max_pool stays with NumPy"):
        found = F.max_pool1d(tg.tensor(data), 2)
    np.testing.assert_array_equal(found.numpy(), data.reshape(1, 1, 3, 2).max(-1))
    F.max_pool1d(tg.tensor(data), 2)  # and warns no more


def test_threads_share_the_kernels(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    monkeypatch.setattr(kernels, "ENOUGH", 20 * kernels.PER_CALL)
    data, weights = rng.normal(size=(2, 2, 6, 6)), rng.normal(size=(3, 2, 3, 3))
    x = tg.tensor(data)
    gradients: list[Any] = []

    def work() -> None:
        for _ in range(20):
            w = tg.tensor(weights, requires_grad=True)
            F.relu(F.conv2d(x, w, padding=1)).sum().backward()
            gradients.append(w.grad.numpy())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(gradients) == 80
    for gradient in gradients:
        np.testing.assert_allclose(gradient, gradients[0], rtol=1e-12, atol=1e-12)
