"""Modules and nn.functional, without PyTorch."""

from __future__ import annotations

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import nn, random, tree
from tracegrad.errors import ArgumentError, DTypeError, IndexOutOfBounds, ShapeError, TracerError
from tracegrad.nn import functional as F

KEY = random.key(0)


def normal(seed, *shape, dtype=np.float64):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def small_model():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding="same", key=KEY),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(64, 10, key=KEY),
    )


# --- modules as pytrees -----------------------------------------------------------------------------------------------
def test_parameters_are_the_leaves():
    model = small_model()
    assert list(model.named_parameters()) == ["0.weight", "0.bias", "5.weight", "5.bias"]
    assert [w.shape for w in tree.leaves(model)] == [(4, 1, 3, 3), (4,), (10, 64), (10,)]
    doubled = tree.map(lambda w: 2 * w, model)
    assert isinstance(doubled, nn.Sequential)
    np.testing.assert_array_equal(doubled[0].weight, 2 * model[0].weight)
    assert doubled[0].stride == (1, 1)


def test_two_models_of_one_configuration_have_one_structure():
    assert tree.flatten(small_model())[1] == tree.flatten(small_model())[1]
    assert hash(tree.flatten(small_model())[1]) == hash(tree.flatten(small_model())[1])
    other = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *list(small_model())[1:])
    assert tree.flatten(small_model())[1] != tree.flatten(other)[1]


def test_modules_are_immutable():
    layer = nn.Linear(2, 3, key=KEY)
    with pytest.raises(AttributeError, match=r"modules are immutable.*\n.*fix: module = module.replace\(weight=...\)"):
        layer.weight = np.zeros((3, 2))
    changed = layer.replace(bias=None)
    assert changed.bias is None and layer.bias is not None
    assert list(changed.named_parameters()) == ["weight"]
    with pytest.raises(ArgumentError, match="no attribute wieght"):
        layer.replace(wieght=1)


class Residual(nn.Module):
    def __init__(self, width, depth):
        self.blocks = [nn.Linear(width, width, key=random.fold_in(KEY, i)) for i in range(depth)]
        self.gain = np.float32(0.5)
        self.depth = depth

    def __call__(self, x):
        for block in self.blocks:
            x = x + self.gain * F.relu(block(x))
        return x


def test_own_modules_nest_and_train():
    model = Residual(3, 2)
    assert len(tree.leaves(model)) == 5
    gradient = tg.grad(lambda m, x: F.mse_loss(m(x), np.zeros_like(x)))(model, normal(0, 4, 3, dtype=np.float32))
    assert isinstance(gradient, Residual) and gradient.blocks[1].weight.shape == (3, 3) and gradient.depth == 2


def test_configuration_must_be_hashable():
    class Bad(nn.Module):
        def __init__(self):
            self.sizes = [1, 2]

    with pytest.raises(ArgumentError, match="Bad.sizes at .*: a list without arrays must be hashable"):
        Bad()


def test_a_model_is_an_argument_that_never_retraces():
    model = small_model()
    step = tg.jit(lambda m, x: (tree.map(lambda w: w * 0.9, m), m(x).sum()))
    x = normal(1, 2, 1, 8, 8, dtype=np.float32)
    for _ in range(3):
        model, _ = step(model, x)
    assert step.traces == 1 and isinstance(model, nn.Sequential)


def test_sequential_gives_every_layer_its_own_key():
    model = nn.Sequential(nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)), lambda x: x + 1)
    x = np.ones(100)
    np.testing.assert_array_equal(model(x), x + 1)
    y = model(x, key=KEY, training=True) - 1
    assert set(np.unique(y)) == {0.0, 4.0} and 10 < (y == 4).sum() < 45
    assert len(model[:1]) == 1 and isinstance(model[1], nn.Sequential)
    with pytest.raises(ArgumentError, match="layer 0 is a list, not a layer"):
        nn.Sequential([nn.ReLU()])


def test_seed_makes_initialisation_reproducible():
    nn.seed(3)
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    nn.seed(3)
    c = nn.Linear(2, 2)
    np.testing.assert_array_equal(a.weight, c.weight)
    assert not np.array_equal(a.weight, b.weight)
    nn.seed(0)


# --- initialisation ---------------------------------------------------------------------------------------------------
def test_initialisation_follows_the_formulas():
    layer = nn.Conv2d(8, 64, 5, key=KEY)
    bound = 1 / np.sqrt(8 * 25)
    assert layer.weight.dtype == np.float32 and np.abs(layer.weight).max() <= bound
    assert np.abs(layer.weight).max() > 0.99 * bound and np.abs(layer.bias).max() <= bound
    shape = (400, 300)
    for draw, variance in [
        (nn.init.kaiming_normal(KEY, shape, nonlinearity="relu"), 2 / 300),
        (nn.init.kaiming_uniform(KEY, shape, nonlinearity="relu"), 2 / 300),
        (nn.init.kaiming_normal(KEY, shape, mode="fan_out", nonlinearity="linear"), 1 / 400),
        (nn.init.xavier_normal(KEY, shape), 2 / 700),
        (nn.init.xavier_uniform(KEY, shape, gain=2.0), 8 / 700),
    ]:
        assert abs(draw.var() / variance - 1) < 0.02 and abs(draw.mean()) < 3 * np.sqrt(variance / draw.size)


# --- values against NumPy ---------------------------------------------------------------------------------------------
def test_conv1d_is_the_product_with_a_banded_matrix():
    x, w = normal(0, 1, 1, 9), normal(1, 1, 1, 3)
    band = np.zeros((7, 9))
    for i in range(7):
        band[i, i : i + 3] = w[0, 0]
    np.testing.assert_allclose(F.conv1d(x, w)[0, 0], band @ x[0, 0], atol=1e-14)


def test_seed_shapes_of_convolutions():
    assert nn.Conv1d(2, 16, 3)(np.ones((1, 2, 64), np.float32)).shape == (1, 16, 62)
    assert nn.Conv1d(2, 16, 5)(np.ones((1, 2, 64), np.float32)).shape == (1, 16, 60)
    conv = nn.Conv2d(20, 16, (3, 5))
    assert conv.weight.shape == (16, 20, 3, 5) and conv.bias.shape == (16,)
    assert conv(np.ones((1, 20, 64, 128), np.float32)).shape == (1, 16, 62, 124)
    conv = nn.Conv2d(20, 16, (3, 5), stride=1, padding=(1, 2))
    assert conv(np.ones((20, 64, 128), np.float32)).shape == (16, 64, 128)


def softmax_rows(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_softmax_family_is_stable():
    x = np.array([[1000.0, -1000.0, 0.0], [-1000.0, -1000.0, -1000.0]], np.float32)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert np.isfinite(F.log_softmax(x)).all() and np.isfinite(F.softmax(x)).all()
    np.testing.assert_allclose(F.softmax(x), softmax_rows(x))
    assert np.isfinite(F.softplus(x)).all() and F.softplus(np.float32(1000)) == 1000
    assert F.sigmoid(np.float32(-1000)) == 0 and F.logsigmoid(np.float32(-1000)) == -1000
    with tg.eager():
        saturated = tg.grad(lambda x: F.softmax(x)[0, 1])(x)
        logarithm = tg.grad(lambda x: F.log_softmax(x)[0, 1])(x)
    assert np.abs(saturated).max() == 0 and logarithm[0].tolist() == [-1, 1, 0]


@pytest.mark.parametrize("eager", [False, True])
def test_gradient_of_cross_entropy_is_softmax_minus_one_hot(eager):
    x, y = normal(0, 5, 4), np.array([0, 3, 2, 2, 1])
    if eager:
        with tg.eager():
            value, gradient = tg.value_and_grad(F.cross_entropy)(x, y)
    else:
        value, gradient = tg.value_and_grad(F.cross_entropy)(x, y)
    p = softmax_rows(x)
    np.testing.assert_allclose(value, -np.log(p[np.arange(5), y]).mean())
    np.testing.assert_allclose(gradient, (p - np.eye(4)[y]) / 5, atol=1e-12)


def test_ignored_rows_count_nothing_and_wrong_classes_are_never_silent():
    x, y = normal(0, 4, 3), np.array([0, -100, 2, 1])
    kept = [0, 2, 3]
    np.testing.assert_allclose(F.cross_entropy(x, y), F.cross_entropy(x[kept], y[kept]))
    infinite = x.copy()
    infinite[:, 0] = -np.inf
    y_infinite = np.array([1, -100, 2, 1])
    assert np.isfinite(F.cross_entropy(infinite, y_infinite))
    with pytest.raises(IndexOutOfBounds, match="class 3 is out of bounds for 3 classes"):
        F.cross_entropy(x, np.array([0, 1, 2, 3]))
    with tg.eager(), pytest.raises(IndexOutOfBounds, match="class -1"):
        tg.grad(F.cross_entropy)(x, np.array([0, 1, 2, -1]))
    rows = tg.value_and_grad(lambda x, y: F.cross_entropy(x, y, reduction="sum"))
    value, gradient = rows(x, np.array([0, 1, 3, 2]))
    assert np.isnan(value) and np.isnan(gradient[2]).all() and np.isfinite(gradient[[0, 1, 3]]).all()


def test_uint8_classes_work():
    x, y = normal(0, 3, 300), np.array([0, 255, 7])
    np.testing.assert_allclose(F.cross_entropy(x, y.astype(np.uint8)), F.cross_entropy(x, y))


def test_second_derivative_of_cross_entropy():
    x, y = normal(0, 1, 3), np.array([1])
    with tg.eager():
        hessian_vector = tg.grad(lambda x: (tg.grad(F.cross_entropy)(x, y) * np.array([[1.0, 2.0, -1.0]])).sum())(x)
    p = softmax_rows(x)[0]
    expected = (np.diag(p) - np.outer(p, p)) @ np.array([1.0, 2.0, -1.0])
    np.testing.assert_allclose(hessian_vector[0], expected, atol=1e-12)


def test_dropout_draws_a_fresh_mask_for_every_key_without_retracing():
    layer = nn.Dropout(0.25)
    step = tg.jit(lambda x, key, n: layer(x, key=random.fold_in(key, n), training=True))
    x = np.ones(4000, np.float32)
    masks = [step(x, KEY, n) for n in range(3)]
    assert step.traces == 1
    assert all(abs((m == 0).mean() - 0.25) < 0.03 and abs(m.mean() - 1) < 0.05 for m in masks)
    assert not np.array_equal(masks[0], masks[1]) and not np.array_equal(masks[1], masks[2])
    np.testing.assert_array_equal(masks[1], layer(x, key=random.fold_in(KEY, 1), training=True))
    np.testing.assert_array_equal(layer(x), x)
    assert (F.dropout(x, 1.0, key=KEY) == 0).all()


def test_normalisation():
    x = normal(0, 6, 4, 5) * 3 + 7
    y = F.batch_norm(x, training=True)
    np.testing.assert_allclose(y.mean((0, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(y.var((0, 2)), 1, rtol=1e-4)
    mean, variance = F.batch_statistics(x, np.zeros(4), np.ones(4), momentum=1.0)
    np.testing.assert_allclose(mean, x.mean((0, 2)))
    np.testing.assert_allclose(variance, x.var((0, 2), ddof=1))
    np.testing.assert_allclose(F.batch_norm(x, x.mean((0, 2)), x.var((0, 2))), y)
    with tg.eager():
        assert np.isfinite(tg.grad(lambda x: F.normalize(x).sum())(np.zeros((2, 3)))).all()


def test_embedding_and_one_hot():
    layer = nn.Embedding(5, 3, padding_idx=0, key=KEY)
    assert (layer.weight[0] == 0).all()
    index = np.array([[0, 2], [2, 4]])
    np.testing.assert_array_equal(layer(index), layer.weight[index])
    with tg.eager():
        gradient = tg.grad(lambda m: m(index).sum())(layer).weight
    np.testing.assert_array_equal(gradient[:, 0], [0, 0, 2, 0, 1])
    np.testing.assert_array_equal(F.one_hot(np.array([1, 0])), [[0, 1], [1, 0]])


def test_pad_modes_against_numpy():
    x = normal(0, 2, 5, 6)
    for ours, theirs in [("reflect", "reflect"), ("replicate", "edge"), ("circular", "wrap")]:
        np.testing.assert_array_equal(F.pad(x, (1, 2, 3, 0), ours), np.pad(x, ((0, 0), (3, 0), (1, 2)), theirs))
    np.testing.assert_array_equal(F.pad(x, (1, 2), value=5.0), np.pad(x, ((0, 0), (0, 0), (1, 2)), constant_values=5.0))
    np.testing.assert_array_equal(F.pad(x, (-1, 2)), np.pad(x[:, :, 1:], ((0, 0), (0, 0), (0, 2))))


# --- errors -----------------------------------------------------------------------------------------------------------
X = np.ones((2, 3, 8, 8), np.float32)
ERRORS = [
    (
        lambda: nn.Conv2d(4, 8, 3)(X),
        ShapeError,
        r"conv2d at .*: x f32\[2, 3, 8, 8\] has 3 channels but w f32\[8, 4, 3, 3\] expects 4",
    ),
    (lambda: nn.Conv2d(3, 8, 9)(X), ShapeError, "larger than x"),
    (lambda: nn.Conv2d(3, 8, 3)(X.astype(np.float64)), DTypeError, "one floating-point dtype"),
    (lambda: nn.Conv2d(3, 8, 3)(X[0, 0]), ShapeError, r"is not \[C, H, W\] or \[N, C, H, W\]"),
    (lambda: nn.Conv2d(3, 8, 3, groups=2), ShapeError, "groups=2 does not divide in_channels=3"),
    (lambda: nn.Conv2d(3, 8, 3, stride=2, padding="same"), ArgumentError, 'padding="same" needs stride 1'),
    (lambda: nn.Conv2d(3, 8, 3, padding="full"), ArgumentError, "padding='full' is not known"),
    (lambda: nn.Conv2d(3, 8, (3,)), ArgumentError, r"kernel_size=\(3,\) is not an integer or 2 of them"),
    (lambda: nn.Conv1d(3, 8, 3, padding_mode="wrap"), ArgumentError, "padding_mode='wrap' is not known"),
    (lambda: nn.Linear(4, 2)(X), ShapeError, r"the last axis of x f32\[2, 3, 8, 8\] does not fit weight f32\[2, 4\]"),
    (lambda: nn.MaxPool2d(2, padding=2)(X), ShapeError, "more than half"),
    (lambda: nn.MaxPool2d(9)(X), ShapeError, "larger than"),
    (lambda: nn.MaxPool2d(2, dilation=2)(X), ArgumentError, "dilation=2 is not supported"),
    (lambda: nn.LayerNorm(4)(X), ShapeError, r"the trailing axes of f32\[2, 3, 8, 8\] are not \(4,\)"),
    (lambda: nn.Dropout(1.5), ArgumentError, "p is 1.5, not a probability"),
    (lambda: nn.Dropout(0.5)(X, training=True), ArgumentError, "training needs a key"),
    (lambda: nn.Embedding(5, 3)(X), DTypeError, "is not an integer array"),
    (lambda: nn.Embedding(5, 3)(np.array([5])), IndexOutOfBounds, "index 5 is out of bounds"),
    (lambda: nn.GELU("fast")(X), ArgumentError, "approximate='fast' is not known"),
    (
        lambda: F.mse_loss(np.ones(3), np.ones((3, 1))),
        ShapeError,
        r"f64\[3\] and the target f64\[3, 1\] differ in shape",
    ),
    (lambda: F.mse_loss(np.ones(3), np.ones(3), reduction="avg"), ArgumentError, "reduction='avg' is not known"),
    (lambda: F.cross_entropy(np.ones((2, 3)), np.array([[0], [1]])), ShapeError, "the class axis is axis 1"),
    (lambda: F.cross_entropy(np.ones((2, 3)), np.ones((2, 2))), ShapeError, "do not fit the input"),
    (lambda: F.softmax(np.ones(3), 1), ShapeError, "dim 1 does not exist"),
    (lambda: F.pad(np.ones(3), (3, 0), "reflect"), ShapeError, "do not fit axis 0"),
]


@pytest.mark.parametrize(("call", "kind", "text"), ERRORS)
def test_errors_name_shapes_and_come_before_compiling(call, kind, text):
    with pytest.raises(kind, match=text):
        call()


def test_channel_error_is_the_same_when_traced():
    layer = nn.Conv2d(4, 8, 3)
    with pytest.raises(ShapeError, match="has 3 channels but w .* expects 4"):
        tg.jit(layer)(X)


def test_traced_training_flag_is_refused():
    with pytest.raises((ArgumentError, TracerError), match="static"):
        tg.jit(lambda x, training: nn.Dropout(0.5)(x, key=KEY, training=training))(X, True)
