"""The mission's cases with their figures, compiled; one test per row, named after its id.

The same rows on the eager tape stand in test_seed_cases_tape.py.
"""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad import data, nn, optim, random
from tracegrad.nn import functional as F

V = np.array([0.1, 1.0, 0.0001])


# --- convolutions -----------------------------------------------------------------------------------------------------
def gradients(fn, cts, *args):
    """Return the values of `fn`, and the gradients of sum(values * cts) by all arguments, from one compiled program."""

    def loss(*args):
        values = fn(*args)
        return sum(tnp.sum(v * c) for v, c in zip(values, cts, strict=True)), values

    (_, values), found = tg.value_and_grad(loss, argnums=tuple(range(len(args))), has_aux=True)(*args)
    return values, found


CONV1D = [
    dict(in_channels=4, out_channels=6, kernel_size=3, **options)
    for options in [
        {}, {"stride": 2}, {"padding": 2}, {"dilation": 2}, {"groups": 2}, {"bias": False},
        {"padding": 2, "padding_mode": "circular"}, {"padding": "same"}, {"padding": "valid"},
        *(
            {"stride": s, "padding": p, "dilation": d, "groups": g, "padding_mode": mode, "bias": b}
            for s, p, d, (g, b), mode in itertools.product(
                (1, 2), (1, 3), (1, 3), ((1, False), (2, True)), ("zeros", "circular")
            )
        ),
    ]
]  # fmt: skip


def compare_with_torch(torch, ours, theirs, x):
    """Check values and gradients of modules, which get the same parameters, on one input; one program for all."""
    parameters = [[p for p in (m.weight, m.bias) if p is not None] for m in ours]
    for their, values in zip(theirs, parameters, strict=True):
        with torch.no_grad():
            for p, v in zip(their.parameters(), values, strict=True):
                p.copy_(torch.tensor(np.asarray(v)))
    tx = torch.tensor(x, requires_grad=True)
    expected = [m(tx) for m in theirs]
    rng = np.random.default_rng(0)
    cts = [rng.normal(size=tuple(e.shape)) for e in expected]
    sum((e * torch.tensor(c)).sum() for e, c in zip(expected, cts, strict=True)).backward()

    values, (by_x, by_modules) = gradients(lambda x, modules: [m(x) for m in modules], cts, x, ours)
    np.testing.assert_allclose(by_x, tx.grad.numpy(), rtol=1e-9, atol=1e-9)
    for value, e, module, their in zip(values, expected, by_modules, theirs, strict=True):
        np.testing.assert_allclose(value, e.detach().numpy(), rtol=1e-9, atol=1e-10)
        for p, q in zip([p for p in (module.weight, module.bias) if p is not None], their.parameters(), strict=True):
            np.testing.assert_allclose(p, q.grad.numpy(), rtol=1e-9, atol=1e-9)


def test_C1_conv1d_has_the_signature_and_semantics_of_pytorch():
    torch = pytest.importorskip("torch")
    ours, theirs = (list(inspect.signature(m.Conv1d.__init__).parameters.values())[1:10] for m in (nn, torch.nn))
    assert [(p.name, p.default) for p in ours] == [(p.name, p.default) for p in theirs]
    layers = [nn.Conv1d(**options, dtype=np.float64) for options in CONV1D]
    peers = [torch.nn.Conv1d(**options, dtype=torch.float64) for options in CONV1D]
    compare_with_torch(torch, layers, peers, np.random.default_rng(1).normal(size=(2, 4, 11)))


def shapes_of(conv, *shape):
    y = tg.jit(lambda conv, x: conv(x))(conv, np.ones(shape, np.float32))
    return conv.weight.shape, conv.bias.shape, y.shape


def test_C2_conv1d_shapes():
    assert shapes_of(nn.Conv1d(2, 16, 3), 1, 2, 64) == ((16, 2, 3), (16,), (1, 16, 62))
    assert shapes_of(nn.Conv1d(2, 16, 5), 1, 2, 64)[2] == (1, 16, 60)


def test_C2_as_pytorch():
    torch = pytest.importorskip("torch")
    ours, theirs = nn.Conv1d(2, 16, 3, dtype=np.float64), torch.nn.Conv1d(2, 16, 3, dtype=torch.float64)
    compare_with_torch(torch, [ours], [theirs], np.random.default_rng(2).normal(size=(1, 2, 64)))


def test_C3_conv2d_shapes():
    conv = nn.Conv2d(20, 16, (3, 5))
    assert shapes_of(conv, 1, 20, 64, 128) == ((16, 20, 3, 5), (16,), (1, 16, 62, 124))
    conv = nn.Conv2d(20, 16, (3, 5), stride=1, padding=(1, 2))
    assert shapes_of(conv, 1, 20, 64, 128)[2] == (1, 16, 64, 128)


def test_C3_as_pytorch():
    torch = pytest.importorskip("torch")
    options = [{}, {"stride": 1, "padding": (1, 2)}]
    ours = [nn.Conv2d(20, 16, (3, 5), dtype=np.float64, **o) for o in options]
    theirs = [torch.nn.Conv2d(20, 16, (3, 5), dtype=torch.float64, **o) for o in options]
    compare_with_torch(torch, ours, theirs, np.random.default_rng(3).normal(size=(1, 20, 8, 12)))


def test_C4_a_convolution_is_a_banded_matrix():
    rng = np.random.default_rng(4)
    m, k, n = 3, 4, 9
    height = n - k + 1
    kernels, x, ct = rng.normal(size=(m, k)), rng.normal(size=n), rng.normal(size=(m, height))
    shifts = np.array([np.eye(k, n, s) for s in range(height)])  # row s of kernel w is w @ shifts[s]

    def banded(kernels, x):
        matrix = np.einsum("mk,skn->msn", kernels, shifts)  # every row is a kernel, shifted
        assert matrix.shape == (m, height, n)
        return [matrix @ x]

    def convolved(kernels, x):
        return [F.conv1d(x[None, None], kernels[:, None])[0]]

    ours, theirs = gradients(convolved, [ct], kernels, x), gradients(banded, [ct], kernels, x)
    for found, expected in zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("channels", [1, 2])
def test_C5_signals_with_and_without_a_batch(channels):
    conv = nn.Conv1d(channels, 3, 5, dtype=np.float64)
    x = np.random.default_rng(5).normal(size=(4, channels, 16))
    run = tg.jit(lambda conv, x: conv(x))
    batched = run(conv, x)
    assert batched.shape == (4, 3, 12)
    for one, expected in zip(x, batched, strict=True):
        np.testing.assert_allclose(run(conv, one), expected, rtol=1e-12)


def test_C5_images_with_and_without_a_batch():
    conv = nn.Conv2d(20, 2, 3, dtype=np.float64)  # hyperspectral: 20 channels
    x = np.random.default_rng(5).normal(size=(2, 20, 6, 7))
    run = tg.jit(lambda conv, x: conv(x))
    batched = run(conv, x)
    assert batched.shape == (2, 2, 4, 5)
    np.testing.assert_allclose(run(conv, x[1]), batched[1], rtol=1e-12)


# --- the gradient engine ----------------------------------------------------------------------------------------------
def test_A1_mean_of_a_square():
    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(tg.grad(lambda x: np.mean(3 * (x - 2) ** 2))(x), [[-1.5, 0.0], [1.5, 3.0]])


def test_A3_doubling_while_the_norm_is_below_1000():
    pytest.importorskip("malt")

    def doubled(x):
        y, rounds = 2 * x, 0
        while np.sqrt(np.sum(y * y)) < 1000:
            y = 2 * y
            rounds += 1
        return y, rounds

    def weighted(x):
        y, rounds = doubled(x)
        return np.sum(y * V), (y, rounds)

    pulled = tg.grad(weighted, has_aux=True)
    first = pulled.lower(np.ones(3)).graph
    assert sum(node.prim.name == "while_loop" for node in first.nodes) >= 1  # a loop, not unrolled
    counts = set()
    for x in (np.ones(3), np.array([1e-3, 0.5, -2.0]), np.array([300.0, -300.0, 300.0])):
        gradient, (y, rounds) = pulled(x)
        expected, i = 2 * x, 0
        while np.linalg.norm(expected) < 1000:
            expected, i = 2 * expected, i + 1
        assert rounds == i
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(gradient, V * 2.0 ** (i + 1))
        counts.add(i)
        if i == 9:
            np.testing.assert_allclose(gradient, [102.4, 1024.0, 0.1024], rtol=1e-15)
    assert pulled.traces == 1 and 9 in counts and len(counts) == 3


def test_A6_mean_of_a_cone():
    np.testing.assert_array_equal(tg.grad(lambda x: np.mean(3 * (x + 2) ** 2))(np.ones(3)), [6.0, 6.0, 6.0])


def test_A7_ten_doublings():
    def doubled(x):
        y = 2 * x
        for _ in range(10):
            y = 2 * y
        return y

    x = np.array([1.1] * 3)
    y, pullback = tg.vjp(doubled, x)
    np.testing.assert_allclose(y, [2252.8] * 3, rtol=1e-15)
    np.testing.assert_allclose(pullback(V)[0], [204.8, 2048.0, 0.2048], rtol=1e-15)
    with pytest.raises(tg.TracegradError, match=r"returns f64\[3\], not a scalar"):
        tg.grad(doubled)(x)


def descend(loss, w, rate, rounds):
    """Yield (w after the step, loss before it) of gradient descent in one compiled step."""
    step = tg.jit(lambda w: (lambda value, g: (w - rate * g, value))(*tg.value_and_grad(loss)(w)))
    for _ in range(rounds):
        w, value = step(w)
        yield w, value
    assert step.traces == 1


def test_A10_one_weight():
    losses = [value for _, value in descend(lambda w: (w * 1.0 - 2.0) ** 2, np.float64(1.0), 0.01, 100)]
    assert losses[0] == 1.0 and round(float(losses[1]), 4) == 0.9604
    by_tens = [0.9604, 0.6412, 0.4281, 0.2858, 0.1908, 0.1274, 0.0850, 0.0568, 0.0379, 0.0253]
    assert [round(float(v), 4) for v in losses[1::10]] == by_tens


X4 = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
Y4 = 2.0 * X4


def mean_square(w):
    return np.mean((w * X4 - Y4) ** 2)


def test_A11_linear_regression():
    found = {i + 1: pair for i, pair in enumerate(descend(mean_square, np.float32(0.0), np.float32(0.01), 50))}
    expected = {
        1: (0.300, 30.0), 11: (1.665, 1.16278565), 21: (1.934, 0.04506890), 31: (1.987, 0.00174685),
        41: (1.997, 0.00006770),
    }  # fmt: skip
    for number, (w, loss) in expected.items():
        assert round(float(found[number][0]), 3) == w
        np.testing.assert_allclose(found[number][1], loss, rtol=1e-4, atol=5e-9)


def test_A12_the_gradient_by_hand():
    """dot(2X, wX - Y) is the gradient of the sum; the mean's is 1/N of it."""
    w = 0.0
    compiled = tg.grad(mean_square)
    for _ in range(20):
        by_hand = np.dot(2.0 * X4, w * X4 - Y4)
        np.testing.assert_allclose(compiled(w), by_hand / len(X4), rtol=1e-5, atol=1e-6)
        w -= 0.01 * float(by_hand)
    assert abs(w - 2.0) < 1e-5


class Add(tg.Function):
    """Copies the cotangent."""

    @staticmethod
    def forward(ctx, a, b):
        return a + b

    @staticmethod
    def backward(ctx, grad):
        return grad, grad


class Split(tg.Function):
    """Sums the cotangents."""

    @staticmethod
    def forward(ctx, x):
        return x, x

    @staticmethod
    def backward(ctx, first, second):
        return first + second


class Max(tg.Function):
    """Gives the cotangent to the winner, 0 to all others."""

    @staticmethod
    def forward(ctx, x):
        winner = np.argmax(x)
        ctx.save_for_backward(winner)
        ctx.size = x.shape[0]
        return x[winner]

    @staticmethod
    def backward(ctx, grad):
        (winner,) = ctx.saved_tensors
        return np.where(np.arange(ctx.size) == winner, grad, 0.0)


def test_A13_custom_gradients():
    x, y = np.array([1.0, 5.0, -2.0]), np.array([0.5, 1.0, 4.0])
    ct = np.array([1.0, 10.0, 100.0])
    by_x, by_y = tg.grad(lambda x, y: np.sum(Add.apply(x, y) * ct), argnums=(0, 1))(x, y)
    np.testing.assert_array_equal(by_x, ct)
    np.testing.assert_array_equal(by_y, ct)

    def both(x):
        first, second = Split.apply(x)
        return np.sum(first * ct) + np.sum(second * 3.0)

    np.testing.assert_array_equal(tg.grad(both)(x), ct + 3.0)
    np.testing.assert_array_equal(tg.grad(lambda x: 7.0 * Max.apply(x))(x), [0.0, 7.0, 0.0])
    np.testing.assert_array_equal(tg.grad(lambda x: Max.apply(x * x) + Max.apply(-x))(x), [0.0, 10.0, -1.0])
    assert Max.apply(x) == 5.0  # outside of transforms it simply runs

    def anywhere(x, y):
        first, second = Split.apply(x)
        looped = tg.scan(lambda c, row: (Add.apply(c, row * first), None), second, np.stack([y, y]))[0]
        return Max.apply(Add.apply(looped, x * y))

    # max over i of x + 2 y x + x y = x (1 + 3 y): the winner is the second, 5 (1 + 3)
    value, (by_x, by_y) = tg.value_and_grad(anywhere, argnums=(0, 1))(x, y)
    assert value == 20.0
    np.testing.assert_array_equal(by_x, [0.0, 4.0, 0.0])
    np.testing.assert_array_equal(by_y, [0.0, 15.0, 0.0])


def test_A13_as_pytorch():
    torch = pytest.importorskip("torch")

    class TorchMax(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            winner = torch.argmax(x)
            ctx.save_for_backward(winner)
            ctx.size = x.shape[0]
            return x[winner].clone()

        @staticmethod
        def backward(ctx, grad):
            (winner,) = ctx.saved_tensors
            return torch.where(torch.arange(ctx.size) == winner, grad, 0.0)

    x = np.random.default_rng(13).normal(size=7)
    tx = torch.tensor(x, requires_grad=True)
    (torch.sin(TorchMax.apply(tx * tx)) * TorchMax.apply(tx)).backward()
    found = tg.grad(lambda x: np.sin(Max.apply(x * x)) * Max.apply(x))(x)
    np.testing.assert_allclose(found, tx.grad.numpy(), rtol=1e-12)


# --- modules and practice ---------------------------------------------------------------------------------------------
def deep(w, x):
    """A network as deep as its input is long: one layer per element."""
    h = tnp.zeros(3)
    for element in x:
        h = np.tanh(w["hidden"] @ h + w["input"] * element)
    return h @ w["output"]


def deep_weights():
    rng = np.random.default_rng(8)
    return {"hidden": rng.normal(size=(3, 3)) * 0.5, "input": rng.normal(size=3), "output": rng.normal(size=3)}


def test_M1_graphs_are_printed_and_drawn():
    def diamond(x, y):
        shared = np.sin(x)
        return np.sum(shared * y + shared * shared)

    x = np.ones(3)
    forward, both = tg.jit(diamond).lower(x, x).graph, tg.value_and_grad(diamond).lower(x, x).graph
    assert str(forward).startswith("def diamond(x: f64[3], y: f64[3]) -> f64:") and "sin(x)" in str(forward)
    assert str(both).startswith("def diamond_adjoint(") and "cos(x)" in str(both)
    assert forward.to_dot().startswith("digraph") and "shape=box" not in forward.to_dot()
    drawn = both.to_dot(forward)
    assert drawn.count("shape=ellipse") == len(forward.nodes) and drawn.count("shape=box") > 0
    assert "test_seed_cases.py:" in drawn
    np.testing.assert_allclose(tg.grad(diamond)(x, x), np.cos(x) * (1.0 + 2.0 * np.sin(x)), rtol=1e-14)


def test_M1_a_network_as_deep_as_its_input_is_long_trains():
    """Several lengths, one compiled step: the input is padded, and a traced length ends the loop."""
    weights, rng = deep_weights(), np.random.default_rng(9)

    def network(w, padded, length):
        layer = lambda i, h: np.tanh(w["hidden"] @ h + w["input"] * padded[i])
        return tg.fori_loop(0, length, layer, tnp.zeros(3)) @ w["output"]

    def loss(w, padded, length, target):
        return (network(w, padded, length) - target) ** 2

    @tg.jit
    def step(w, state, padded, length, target):
        value, gradient = tg.value_and_grad(loss)(w, padded, length, target)
        return *optimizer.step(gradient, state, w), value

    optimizer = optim.adam(0.01)
    state = optimizer.init(weights)
    lengths = [int(n) for n in rng.integers(1, 9, 120)]
    losses = []
    for n in lengths:
        x = rng.uniform(-1, 1, n)
        padded = np.concatenate([x, np.zeros(8 - n)])
        if n in (1, 5):  # the same as the network of that depth, written out
            expected = tg.grad(lambda w, x: deep(w, x))(weights, x)
            found = tg.grad(network)(weights, padded, n)
            for key in weights:
                np.testing.assert_allclose(found[key], expected[key], rtol=1e-9, atol=1e-12)
        weights, state, value = step(weights, state, padded, n, np.sin(x.sum()))
        losses.append(value)
    assert step.traces == 1 and len(set(lengths)) == 8
    assert np.mean(losses[-30:]) < 0.5 * np.mean(losses[:30])


def test_M2_gradients_of_modules_in_closed_form():
    rng = np.random.default_rng(10)
    w, x, dy = rng.normal(size=(4, 3)), rng.normal(size=(3, 5)), rng.normal(size=(4, 5))
    _, (dw, dx) = gradients(lambda w, x: [w @ x], [dy], w, x)
    np.testing.assert_allclose(dx, w.T @ dy, rtol=1e-12)
    np.testing.assert_allclose(dw, dy @ x.T, rtol=1e-12)
    linear = nn.Linear(3, 4, dtype=np.float64)
    _, (module, dx) = gradients(lambda m, x: [m(x)], [dy.T], linear, x.T)
    np.testing.assert_allclose(dx, dy.T @ linear.weight, rtol=1e-12)
    np.testing.assert_allclose(module.weight, dy @ x.T, rtol=1e-12)
    np.testing.assert_allclose(module.bias, dy.sum(axis=1), rtol=1e-12)

    a, b, ct = rng.normal(size=6), rng.normal(size=6), rng.normal(size=6)
    np.testing.assert_array_equal(gradients(lambda a: [nn.ReLU()(a)], [ct], a)[1][0], np.where(a < 0, 0.0, ct))
    duplicate = gradients(lambda a: [a, a], [ct, 2.0 * ct], a)[1][0]  # the sum over branches
    np.testing.assert_allclose(duplicate, 3.0 * ct, rtol=1e-15)
    for found in gradients(lambda a, b: [a + b], [ct], a, b)[1]:  # copied
        np.testing.assert_array_equal(found, ct)
    da, db = gradients(lambda a, b: [np.maximum(a, b)], [ct], a, b)[1]  # routed to the larger
    np.testing.assert_array_equal(da, np.where(a > b, ct, 0.0))
    np.testing.assert_array_equal(db, np.where(a > b, 0.0, ct))


def test_M3_stable_at_1000():
    x = np.array([-1000.0, -1.0, 0.0, 1.0, 1000.0], np.float32)

    def everything(x):
        return F.softmax(x), F.log_softmax(x), F.softplus(x), F.sigmoid(x)

    values = tg.jit(everything)(x)
    wide = np.exp(x.astype(np.float64) - 1000.0)
    expected = (
        wide / wide.sum(), x - 1000.0 - np.log(wide.sum()), np.logaddexp(0.0, x.astype(np.float64)),
        [0.0, 1.0 / (1.0 + np.e), 0.5, np.e / (1.0 + np.e), 1.0],
    )  # fmt: skip
    for value, e in zip(values, expected, strict=True):
        assert value.dtype == np.float32 and np.isfinite(value).all()
        np.testing.assert_allclose(value, e, rtol=1e-6, atol=1e-30)
    for i in range(4):
        assert np.isfinite(tg.grad(lambda x, i=i: np.sum(everything(x)[i] * np.arange(5, dtype=np.float32)))(x)).all()
    # the wrong class leads by 1000: softmax is flat there, log-softmax still pulls
    scores = np.array([0.0, 1000.0], np.float32)
    np.testing.assert_array_equal(tg.grad(lambda s: F.softmax(s)[0])(scores), [0.0, 0.0])
    np.testing.assert_array_equal(tg.grad(lambda s: F.log_softmax(s)[0])(scores), [1.0, -1.0])


def test_M4_cross_entropy_minibatches_shuffling_and_normalised_inputs():
    rng = np.random.default_rng(11)
    scores, classes = rng.normal(size=(6, 4)), rng.integers(0, 4, 6)
    by_hand = -np.mean(np.log(np.exp(scores) / np.exp(scores).sum(1, keepdims=True))[np.arange(6), classes])
    np.testing.assert_allclose(tg.jit(F.cross_entropy)(scores, classes), by_hand, rtol=1e-12)
    np.testing.assert_allclose(F.nll_loss(F.log_softmax(scores), classes), by_hand, rtol=1e-12)
    expected = (F.softmax(scores) - np.eye(4)[classes]) / 6
    np.testing.assert_allclose(tg.grad(F.cross_entropy)(scores, classes), expected, rtol=1e-10, atol=1e-13)

    rows = np.arange(10)
    epochs = [[b for (b,) in data.batches([rows], 5, seed=3, epoch=e)] for e in (0, 1, 0)]
    orders = [np.concatenate(batches).tolist() for batches in epochs]
    assert orders[0] != orders[1] and orders[0] == orders[2]
    assert all(sorted(order) == rows.tolist() and order != rows.tolist() for order in orders)

    images = rng.normal(3.0, 2.0, size=(8, 3, 4, 4))
    images[:, 2] = 7.0  # a constant channel: sigma is 0, eps takes its place
    normal, _, sigma = data.normalise(images, axis=(0, 2, 3), eps=1e-3)
    np.testing.assert_allclose(sigma.ravel(), np.maximum(images.std(axis=(0, 2, 3)), 1e-3), rtol=1e-12)
    np.testing.assert_allclose(normal.mean(axis=(0, 2, 3)), 0.0, atol=1e-10)
    np.testing.assert_allclose(normal.std(axis=(0, 2, 3)), [1.0, 1.0, 0.0], atol=1e-10)

    w = np.zeros((5, 2))
    inputs = rng.normal(size=(60, 5))
    labels = (inputs[:, 0] > 0).astype(np.int64)
    loss = lambda w, x, y: F.cross_entropy(x @ w, y)
    step = tg.jit(lambda w, x, y: w - 0.5 * tg.grad(loss)(w, x, y))
    before = loss(w, inputs, labels)
    for epoch in range(5):
        for x, y in data.batches((inputs, labels), 20, seed=0, epoch=epoch):
            w = step(w, x, y)
    assert loss(w, inputs, labels) < 0.5 * before and step.traces == 1


def test_M5_updates_equal_their_closed_forms():
    rng = np.random.default_rng(12)
    w, g, eta, alpha = rng.normal(size=5), rng.normal(size=5), 0.1, 0.03

    def one_step(optimizer, w, g):
        return tg.jit(lambda w, g: optimizer.step(g, optimizer.init(w), w)[0])(w, g)

    ridge = one_step(optim.chain(optim.l2_decay(alpha), optim.sgd(eta)), w, g)
    np.testing.assert_allclose(ridge, (1 - 2 * eta * alpha) * w - eta * g, rtol=1e-12, atol=1e-15)
    lasso = one_step(optim.chain(optim.l1_decay(alpha), optim.sgd(eta)), w, g)
    np.testing.assert_allclose(lasso, w - eta * (g + alpha * np.sign(w)), rtol=1e-12, atol=1e-15)

    optimizer, m, v, expected = optim.adam(eta), np.zeros(5), np.zeros(5), w
    state, found = optimizer.init(w), w
    step = tg.jit(lambda g, state, w: optimizer.step(g, state, w))
    for t in range(1, 6):
        gradient = g * t
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        expected = expected - eta * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        found, state = step(gradient, state, found)
        np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert step.traces == 1

    falling = {
        "step": (optim.step_decay(1.0, 10, 0.5), lambda n: 0.5 ** (n // 10)),
        "exponential": (optim.exponential(1.0, 0.9), lambda n: 0.9**n),
        "cosine": (optim.cosine(1.0, 30), lambda n: 0.5 * (1 + np.cos(np.pi * min(n / 30, 1.0)))),
    }
    for schedule, closed in falling.values():
        rate = tg.jit(schedule)
        rates = [float(rate(n)) for n in range(40)]
        np.testing.assert_allclose(rates, [closed(n) for n in range(40)], rtol=1e-6, atol=1e-7)
        assert rates == sorted(rates, reverse=True) and rates[-1] < rates[0] and rate.traces == 1


def test_M6_kaiming_initialisation_and_dropout():
    for fan_in in (64, 1024):
        w = nn.init.kaiming_normal(random.key(1), (512, fan_in))
        np.testing.assert_allclose(np.var(w), 2.0 / fan_in, rtol=0.03)
        np.testing.assert_array_equal(w, nn.init.kaiming_normal(random.key(1), (512, fan_in)))
        uniform = nn.init.kaiming_uniform(random.key(2), (512, fan_in), nonlinearity="relu")
        np.testing.assert_allclose(np.var(uniform), 2.0 / fan_in, rtol=0.03)
        assert not np.array_equal(w, nn.init.kaiming_normal(random.key(3), (512, fan_in)))

    drop, x = nn.Dropout(0.25), np.ones(4000)
    np.testing.assert_array_equal(tg.jit(lambda x: drop(x))(x), x)  # in evaluation the identity

    @tg.jit
    def step(x, key, count):
        return drop(x, key=random.fold_in(key, count), training=True)

    key = random.key(7)
    masks = [step(x, key, n) for n in range(3)]
    assert step.traces == 1  # a fresh mask each step, one compile
    for mask in masks:
        assert set(np.unique(mask)) == {0.0, 1.0 / 0.75}
        np.testing.assert_allclose(np.mean(mask == 0.0), 0.25, atol=0.03)
    assert not np.array_equal(masks[0], masks[1]) and not np.array_equal(masks[1], masks[2])
    np.testing.assert_array_equal(step(x, key, 1), masks[1])
