"""Activations, losses, pools and initial values without PyTorch: closed forms, gradients, messages."""

from __future__ import annotations

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import nn, random
from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.nn import functional as F
from tracegrad.testing import check_grads

KEY = random.key(0)


def normal(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


SMOOTH = [
    F.celu, F.selu, F.mish, F.softsign, F.hardtanh, F.relu6, F.hardsigmoid, F.hardswish, lambda x: F.glu(x, 0),
    lambda x: F.prelu(x, np.array([0.1, 0.2, 0.3])), lambda x: F.group_norm(x, 3),
    lambda x: F.adaptive_avg_pool1d(x, 2),
    lambda x: F.binary_cross_entropy(F.sigmoid(x), np.full(x.shape, 0.3)),
    lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
]  # fmt: skip


@pytest.mark.parametrize("index", range(len(SMOOTH)))
def test_gradients_to_second_order(index):
    check_grads(SMOOTH[index], (normal(index, 4, 3, 5) * 1.7,), order=2)


def test_closed_forms():
    x = np.array([-7.0, -2.0, 0.0, 2.0, 7.0])
    np.testing.assert_allclose(F.relu6(x), [0, 0, 0, 2, 6])
    np.testing.assert_allclose(F.hardsigmoid(x), [0, 1 / 6, 0.5, 5 / 6, 1])
    np.testing.assert_allclose(F.hardswish(x), [0, -2 / 6, 0, 10 / 6, 7])
    np.testing.assert_allclose(F.softsign(x), [-7 / 8, -2 / 3, 0, 2 / 3, 7 / 8])
    np.testing.assert_allclose(F.celu(x, 2.0), np.where(x > 0, x, 2 * np.expm1(x / 2)))
    np.testing.assert_allclose(F.mish(x), x * np.tanh(np.log1p(np.exp(x))))
    assert F.relu6(np.float32([2.0])).dtype == np.float32


def test_compiled_equals_eager():
    x = normal(0, 4, 6, dtype=np.float32) * 4

    def several(x):
        found = [f(x) for f in (F.celu, F.selu, F.mish, F.softsign, F.relu6, F.hardswish)]
        return [*found, F.binary_cross_entropy(F.sigmoid(x), np.full(x.shape, np.float32(0.3)))]

    for a, b in zip(tg.jit(several)(x), several(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=3e-6, atol=1e-6)
        assert a.dtype == np.float32


def test_adaptive_pools_cover_every_element_and_nothing_else():
    x = normal(0, 2, 7)
    expected = [x[:, 0:3].mean(1), x[:, 2:5].mean(1), x[:, 4:7].mean(1)]
    np.testing.assert_allclose(F.adaptive_avg_pool1d(x, 3), np.stack(expected, 1))
    x[0, 6] = np.inf
    assert np.isfinite(F.adaptive_avg_pool1d(x, 3)).tolist() == [[True, True, False], [True, True, True]]
    assert F.adaptive_avg_pool2d(np.ones((2, 3, 4, 5), np.float32), (None, 2)).shape == (2, 3, 4, 2)


@pytest.mark.parametrize("weight", [None, np.array([0.0, 1.0, 1.0])])
def test_a_batch_of_ignored_classes_has_no_gradient(weight):
    x = normal(0, 2, 3, dtype=np.float64)
    y = np.array([-100, -100]) if weight is None else np.array([0, 0])
    for loss in (F.cross_entropy, F.nll_loss):
        value, gradient = tg.value_and_grad(lambda x, loss=loss: loss(x, y, weight))(x)
        assert np.isnan(value) and not gradient.any()


def test_a_model_with_a_weighted_loss_trains_its_parameters_alone():
    class WithLoss(nn.Module):
        def __init__(self):
            self.layer = nn.Linear(3, 2, key=KEY)
            self.loss = nn.CrossEntropyLoss(np.array([1.0, 2.0], np.float32))

        def __call__(self, x, y):
            return self.loss(self.layer(x), y)

    params, buffers = nn.split(WithLoss())
    assert list(buffers) == ["loss.weight"]
    x, y = normal(0, 4, 3, dtype=np.float32), np.array([0, 1, 1, 0])
    grads = tg.grad(lambda p, b: nn.functional_call(p, b, x, y)[0])(params, buffers)
    assert list(grads.named_parameters()) == ["layer.weight", "layer.bias"]


def test_orthogonal_and_truncated_draws():
    for shape in [(5, 8), (8, 5), (4, 2, 3)]:
        w = nn.init.orthogonal(KEY, shape, 2.0, np.float64).reshape(shape[0], -1)
        square = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
        np.testing.assert_allclose(square, 4 * np.eye(len(square)), atol=1e-12)
    draws = nn.init.trunc_normal(KEY, (20_000,), 1.0, 2.0, 0.0, 2.0)
    assert draws.dtype == np.float32 and 0 <= draws.min() < 0.01 and 1.99 < draws.max() <= 2
    assert abs(draws.mean() - 1) < 0.02
    np.testing.assert_array_equal(draws, nn.init.trunc_normal(KEY, (20_000,), 1.0, 2.0, 0.0, 2.0))


ERRORS = [
    (lambda: nn.ReLU(True), ArgumentError, "ReLU at .*: inplace=True is not supported"),
    (lambda: F.hardtanh(np.ones(2), 1.0, 1.0), ArgumentError, "min_val=1.0 is not below max_val=1.0"),
    (lambda: F.prelu(np.ones((2, 3)), np.ones(2)), ShapeError, r"a weight of shape \(2,\) does not fit the channels"),
    (lambda: F.glu(np.ones((2, 3))), ShapeError, r"\(2, 3\) has no halves along dim -1"),
    (lambda: F.adaptive_avg_pool1d(np.ones((2, 3)), 0), ShapeError, r"\(3,\) cannot be pooled to \(0,\)"),
    (lambda: F.adaptive_avg_pool2d(np.ones((2, 3)), 1), ShapeError, r"is not a floating-point array \[C, H, W\]"),
    (lambda: F.adaptive_avg_pool2d(np.ones((2, 3, 4)), (1, 2, 3)), ArgumentError, "output_size=.* or 2 of them"),
    (lambda: F.avg_pool2d(np.ones((1, 4, 4)), 2, divisor_override=0), ArgumentError, "divisor_override is 0"),
    (lambda: F.huber_loss(1.0, 2.0, delta=0.0), ArgumentError, "huber_loss at .*: delta is 0.0, not positive"),
    (lambda: nn.MSELoss(reduction="avg"), ArgumentError, "MSELoss at .*: reduction='avg' is not known"),
    (lambda: nn.BCELoss()(np.ones(2), np.ones(3)), ShapeError, "differ in shape"),
    (lambda: nn.init.orthogonal(KEY, (3,)), ShapeError, r"the shape \(3,\) has fewer than 2 axes"),
    (lambda: nn.init.trunc_normal(KEY, (3,), 0.0, 1.0, 5.0, 6.0), ArgumentError, r"\[5.0, 6.0\] holds too little"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS, ids=range(len(ERRORS)))
def test_errors(call, kind, text):
    with pytest.raises(kind, match=text) as caught:
        call()
    assert "\n  fix: " in str(caught.value)
