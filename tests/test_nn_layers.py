"""Recurrence and attention without PyTorch: formulas in NumPy, compiled against eager, one trace, messages."""

from __future__ import annotations

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import nn, random, tree
from tracegrad.errors import ArgumentError, DTypeError, ShapeError
from tracegrad.nn import functional as F

KEY = random.key(0)
F64 = {"dtype": np.float64}


def normal(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def rnn_step(p, x, h):
    return (np.tanh(p["weight_ih_l0"] @ x + p["bias_ih_l0"] + p["weight_hh_l0"] @ h[0] + p["bias_hh_l0"]),)


def gru_step(p, x, h):
    a = np.split(p["weight_ih_l0"] @ x + p["bias_ih_l0"], 3)
    b = np.split(p["weight_hh_l0"] @ h[0] + p["bias_hh_l0"], 3)
    r, z = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
    return ((1 - z) * np.tanh(a[2] + r * b[2]) + z * h[0],)


def lstm_step(p, x, state):
    h, c = state
    z = p["weight_ih_l0"] @ x + p["bias_ih_l0"] + p["weight_hh_l0"] @ h + p["bias_hh_l0"]
    i, f, g, o = np.split(z, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


@pytest.mark.parametrize(("layer", "step", "parts"), [(nn.RNN, rnn_step, 1), (nn.GRU, gru_step, 1),
                                                      (nn.LSTM, lstm_step, 2)])  # fmt: skip
def test_recurrent_layers_follow_their_formulas(layer, step, parts):
    module = layer(3, 4, key=KEY, **F64)
    x = normal(0, 6, 3)
    state, rows = (np.zeros(4),) * parts, []
    for now in x:
        state = step(module.state_dict(), now, state)
        rows.append(state[0])
    y, last = module(x)
    np.testing.assert_allclose(y, rows, rtol=1e-12)
    np.testing.assert_allclose(tree.leaves(last), [s[None] for s in state], rtol=1e-12)


@pytest.mark.parametrize("layer", [nn.GRU, nn.LSTM])
def test_compiled_recurrence_equals_eager_with_gradients(layer):
    module = layer(3, 4, 2, batch_first=True, bidirectional=True, key=KEY, **F64)
    c = normal(5, 2, 5, 8)
    gradient = tg.value_and_grad(lambda m, x: (m(x)[0] * c).sum())
    for seed in (0, 1):
        x = normal(seed, 2, 5, 3)
        value, grads = gradient(module, x)
        with tg.eager():
            expected, theirs = gradient(module, x)
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        for a, b in zip(tree.leaves(grads), tree.leaves(theirs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    assert gradient.traces == 1


def test_names_shapes_and_initial_values_are_torchs():
    module = nn.LSTM(3, 100, 2, bidirectional=True, proj_size=5)
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    assert len(shapes) == 20 and shapes["weight_ih_l1_reverse"] == (400, 10) and shapes["weight_hr_l0"] == (5, 100)
    assert shapes["weight_hh_l1"] == (400, 5) and shapes["bias_hh_l0_reverse"] == (400,)
    assert all(np.abs(w).max() <= 0.1 and w.dtype == np.float32 for w in module.state_dict().values())
    assert np.abs(module.weight_hh_l0).max() > 0.099


def test_a_reversed_direction_is_the_layer_on_the_reversed_sequence():
    both = nn.GRU(3, 4, bidirectional=True, key=KEY, **F64)
    back = nn.GRU(3, 4, key=KEY, **F64).load_state_dict(
        {n.removesuffix("_reverse"): v for n, v in both.state_dict().items() if n.endswith("_reverse")}
    )
    x = normal(0, 5, 2, 3)
    y, last = both(x)
    np.testing.assert_allclose(y[..., 4:], back(x[::-1])[0][::-1], rtol=1e-12)
    np.testing.assert_allclose(last[1], back(x[::-1])[1][0], rtol=1e-12)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_attention_is_its_formula_and_compiled_equals_eager():
    module = nn.MultiheadAttention(8, 2, batch_first=True, key=KEY, **F64)
    module = module.replace(in_proj_bias=normal(1, 24))
    x = normal(0, 2, 5, 8)
    y, weights = module(x, x, x, is_causal=True)
    q, k, v = np.split(x @ module.in_proj_weight.T + module.in_proj_bias, 3, axis=-1)
    rows = []
    for n in (0, 1):
        heads = []
        for part in (slice(0, 4), slice(4, 8)):
            scores = q[n][:, part] @ k[n][:, part].T / 2
            scores[np.triu_indices(5, 1)] = -np.inf
            heads.append(softmax(scores) @ v[n][:, part])
        rows.append(np.concatenate(heads, 1) @ module.out_proj.weight.T + module.out_proj.bias)
    np.testing.assert_allclose(y, rows, rtol=1e-10)
    np.testing.assert_allclose(weights.sum(-1), 1)
    assert (weights[:, np.triu_indices(5, 1)[0], np.triu_indices(5, 1)[1]] == 0).all()
    gradient = tg.value_and_grad(lambda m, x: (m(x, x, x, is_causal=True)[0] ** 2).sum())
    value, grads = gradient(module, x)
    with tg.eager():
        expected, theirs = gradient(module, x)
    np.testing.assert_allclose(value, expected, rtol=1e-12)
    for a, b in zip(tree.leaves(grads), tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_a_row_that_sees_nothing_is_zero_and_a_nan_is_not_hidden():
    x = normal(0, 3, 4)
    shut = np.array([[True, True, True], [True, False, False], [False, False, False]])
    y = F.scaled_dot_product_attention(x, x, x, shut)
    assert (y[2] == 0).all() and np.isfinite(y).all()
    with tg.eager():
        gradient = tg.grad(lambda q: F.scaled_dot_product_attention(q, x, x, shut).sum())(x)
    assert np.isfinite(gradient).all() and (gradient[2] == 0).all()
    x[1] = np.nan
    assert np.isnan(F.scaled_dot_product_attention(x, x, x, np.ones((3, 3), bool))).all()


def test_attention_weights_are_dropped_with_a_key():
    module = nn.MultiheadAttention(4, 1, dropout=0.5, key=KEY, **F64)
    x = normal(0, 6, 1, 4)
    _, kept = module(x, x, x)
    _, dropped = module(x, x, x, dropout_key=KEY, training=True)
    assert set(np.round(dropped / kept, 9).ravel()) == {0.0, 2.0}


X = normal(0, 5, 2, 3, dtype=np.float32)
ERRORS = [
    (lambda: nn.RNN(4, 2)(X), ShapeError, r"f32\[5, 2, 3\] is not \[T, N, input_size\] or .* input_size = 4"),
    (lambda: nn.GRU(3, 2, batch_first=True)(X, X), ShapeError, r"f32\[5, 2, 3\] is not \[1, 5, 2\]"),
    (lambda: nn.RNN(3, 2)(X, np.zeros((1, 2, 2))), DTypeError, "the initial state is float64, but .* are float32"),
    (lambda: nn.LSTM(3, 2)(X, X), ArgumentError, "the initial state is not a pair"),
    (lambda: nn.LSTM(3, 2)(X[:0]), ShapeError, "the sequence has no steps"),
    (lambda: nn.LSTM(3, 2, proj_size=2), ArgumentError, "proj_size=2 is not smaller than hidden_size=2"),
    (lambda: nn.GRU(3, 0), ArgumentError, "hidden_size=0, num_layers=1 must be positive"),
    (lambda: nn.GRU(3, 2, 2, dropout=2.0), ArgumentError, "dropout is 2.0, not a probability"),
    (lambda: nn.GRU(3, 2, 2, dropout=0.5)(X, training=True), ArgumentError, "training with dropout needs a key"),
    (lambda: nn.RNN(3, 2, nonlinearity="sin"), ArgumentError, "nonlinearity='sin' is not known"),
    (lambda: nn.MultiheadAttention(3, 2), ShapeError, "num_heads=2 does not divide embed_dim=3"),
    (lambda: nn.MultiheadAttention(4, 2)(X, X, X), ShapeError, r"are not \[T, N, .\] .* of widths \(4, 4, 4\)"),
    (lambda: nn.MultiheadAttention(3, 1)(X, X, X, X), ShapeError, r"key_padding_mask .* of shape \(2, 5\)"),
    (lambda: nn.MultiheadAttention(3, 1)(X, X, X, attn_mask=X), ShapeError, r"attn_mask .* \(5, 5\) or \(2, 5, 5\)"),
    (lambda: F.scaled_dot_product_attention(X, X, X[:, :1]), ShapeError, r"and f32\[5, 1, 3\] are not"),
    (lambda: F.scaled_dot_product_attention(X, X, X, X), ShapeError, r"does not fit scores of shape \(5, 2, 2\)"),
    (lambda: F.scaled_dot_product_attention(X, X, X, np.ones((2, 2), int)), DTypeError, "neither bool nor floating"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS, ids=range(len(ERRORS)))
def test_errors(call, kind, text):
    with pytest.raises(kind, match=text) as caught:
        call()
    assert "\n  fix: " in str(caught.value)


def test_dropout_of_one_layer_is_warned_about():
    with pytest.warns(UserWarning, match="GRU: dropout acts between layers, and num_layers is 1"):
        nn.GRU(3, 2, dropout=0.5)
