"""The mission's cases on the eager tape: one test per row, named after its id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.nn.functional as F
import tracegrad.numpy as tnp
from tracegrad import data, nn, optim, random, tree

F32 = np.float32
V = [0.1, 1.0, 0.0001]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def close(found: Any, wanted: Any, rtol: float = 1e-12, atol: float = 0.0) -> None:
    found = found.detach().numpy() if isinstance(found, tg.Tensor) else found
    np.testing.assert_allclose(found, wanted, rtol=rtol, atol=atol)


def gradient(fn: Callable[..., Any], *xs: Any) -> list[Any]:
    """Return the gradients of the sum of a function's result on the tape."""
    leaves = [tg.tensor(x, requires_grad=True) for x in xs]
    fn(*leaves).sum().backward()
    return [x.grad.numpy() for x in leaves]


# --- convolutions -----------------------------------------------------------------------------------------------------


def test_c1_conv1d_options_as_pytorch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    rows = [
        {"stride": s, "padding": p, "dilation": d, "groups": g, "bias": b, "padding_mode": m}
        for s, p, d, g, b, m in [
            (1, 0, 1, 1, True, "zeros"), (2, 1, 1, 1, True, "zeros"), (1, 2, 2, 2, False, "zeros"),
            (3, 2, 1, 2, True, "circular"), (2, 3, 2, 1, False, "circular"), (1, "same", 1, 1, True, "zeros"),
        ]
    ]  # fmt: skip
    for options in rows:
        x, w = rng.normal(size=(2, 4, 13)), rng.normal(size=(6, 4 // options["groups"], 3))
        bias = rng.normal(size=6) if options["bias"] else None
        ours = nn.Conv1d(4, 6, 3, **options, dtype=np.float64).replace(weight=tg.tensor(w, requires_grad=True))
        theirs = torch.nn.Conv1d(4, 6, 3, **options, dtype=torch.float64)
        theirs.weight.data = torch.tensor(w)
        if bias is not None:
            ours = ours.replace(bias=tg.tensor(bias, requires_grad=True))
            theirs.bias.data = torch.tensor(bias)
        a, b = tg.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y, z = ours(a), theirs(b)
        (y * y).sum().backward()
        (z * z).sum().backward()
        close(y, z.detach().numpy())
        close(a.grad, b.grad.numpy(), atol=1e-12)
        close(ours.weight.grad, theirs.weight.grad.numpy(), atol=1e-12)
        if bias is not None:
            close(ours.bias.grad, theirs.bias.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize(("kernel", "length"), [(3, 62), (5, 60)])
def test_c2_conv1d_shapes(kernel: int, length: int) -> None:
    conv = tg.track(nn.Conv1d(2, 16, kernel))
    y = conv(tg.tensor(np.ones((1, 2, 64), F32)))
    assert (conv.weight.shape, conv.bias.shape, y.shape) == ((16, 2, kernel), (16,), (1, 16, length))
    y.sum().backward()
    close(conv.bias.grad, np.full(16, length, F32))


def test_c3_conv2d_shapes() -> None:
    x = tg.tensor(np.ones((1, 20, 64, 128), F32))
    conv = tg.track(nn.Conv2d(20, 16, (3, 5)))
    assert conv.weight.shape == (16, 20, 3, 5)
    y = conv(x)
    assert y.shape == (1, 16, 62, 124)
    assert nn.Conv2d(20, 16, (3, 5), stride=1, padding=(1, 2))(x).shape == (1, 16, 64, 128)
    y.sum().backward()
    close(conv.bias.grad, np.full(16, 62 * 124, F32))


@pytest.mark.parametrize("channels", [1, 2])
def test_c5_signals_with_and_without_batch(channels: int, rng: np.random.Generator) -> None:
    conv = nn.Conv1d(channels, 3, 4)
    x = tg.tensor(rng.normal(size=(5, channels, 20)).astype(F32), requires_grad=True)
    batched, single = conv(x), conv(x[1])
    assert (batched.shape, single.shape) == ((5, 3, 17), (3, 17))
    close(batched[1], single.detach().numpy(), rtol=1e-5, atol=1e-6)
    single.sum().backward()
    assert np.flatnonzero(np.abs(x.grad.numpy()).sum(axis=(1, 2))).tolist() == [1]
    hyperspectral = nn.Conv2d(20, 3, 3)(tg.tensor(np.ones((20, 8, 9), F32)))
    assert hyperspectral.shape == (3, 6, 7)


# --- the gradient engine ----------------------------------------------------------------------------------------------


def test_a1_mean_of_three_squares() -> None:
    x = tg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    y = x - 2
    z = 3 * y**2
    a = z.mean()
    a.backward()
    close(a, 4.5)
    close(x.grad, [[-1.5, 0.0], [1.5, 3.0]])
    assert x.grad.shape == x.shape


def test_a2_the_tape_can_be_walked() -> None:
    x = tg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    y = x - 2
    assert y.grad_fn.name() == "SubBackward0"
    assert y.grad_fn.next_functions[0][0].variable is x
    assert x.grad_fn is None


def test_a3_a_loop_whose_length_depends_on_the_data() -> None:
    x = tg.tensor([0.8, -1.2, 0.6], requires_grad=True)
    y, rounds = x * 2, 0
    while y.norm() < 1000:
        y = y * 2
        rounds += 1
    y.backward(tg.tensor(V))
    assert rounds == 9
    close(x.grad, [102.4, 1024.0, 0.1024])


def test_a4_dot_product() -> None:
    x = tg.tensor(np.arange(1.0, 6.0), requires_grad=True)
    w = tg.tensor(np.ones(5), requires_grad=True)
    (w @ x).backward()
    close(x.grad, np.ones(5))
    close(w.grad, np.arange(1.0, 6.0))


def test_a5_backward_of_what_is_not_tracked() -> None:
    x, w = tg.tensor(np.arange(1.0, 6.0)), tg.tensor(np.ones(5))
    with pytest.raises(tg.TracegradError, match=r"does not depend on a tensor that requires a gradient.*\n.*fix: set"):
        (w @ x).backward()
    with tg.no_grad():
        z = tg.tensor(np.ones(5), requires_grad=True) @ x
    with pytest.raises(RuntimeError, match=r"no_grad\(\)(.|\n)*fix: "):
        z.backward()


def test_a6_mean_of_three_shifted_squares() -> None:
    x = tg.tensor(np.ones(3), requires_grad=True)
    np.mean(3 * (x + 2) ** 2).backward()
    close(x.grad, [6.0, 6.0, 6.0])


def test_a7_ten_doublings() -> None:
    x = tg.tensor([1.1] * 3, requires_grad=True)
    y = x * 2
    for _ in range(10):
        y = y * 2
    close(y, [2252.8] * 3)
    with pytest.raises(RuntimeError, match="is not a scalar"):
        y.backward()
    y.backward(tg.tensor(V))
    close(x.grad, [204.8, 2048.0, 0.2048])


def test_a8_requires_grad_detach_no_grad() -> None:
    a = tg.tensor([[1.0, 2.0]])
    assert (a * 3).grad_fn is None
    assert not (a * 3).requires_grad
    a.requires_grad_(True)
    b = (a * a).sum()
    assert b.grad_fn is not None
    detached = a.detach()
    assert not detached.requires_grad
    assert np.shares_memory(detached.numpy(), a.detach().numpy())
    with tg.no_grad():
        assert not (a * 2).requires_grad
    a.requires_grad_(False)
    assert (a * 3).grad_fn is None


def test_a9_three_rounds_of_training() -> None:
    w = tg.tensor(np.ones(4), requires_grad=True)
    for _ in range(3):
        output = (3 * w).sum()
        output.backward()
        close(w.grad, [3.0] * 4)
        with tg.no_grad():
            w -= 0.1 * w.grad
        w.grad.zero_()
    close(w, [0.1] * 4, rtol=1e-9)
    close(output, 4.8)
    for number in (1, 2, 3):
        (3 * w).sum().backward()
        close(w.grad, [3.0 * number] * 4)


def test_a10_one_weight() -> None:
    x, y, w = tg.tensor(1.0), tg.tensor(2.0), tg.tensor(1.0, requires_grad=True)
    losses = []
    for _ in range(102):
        loss = (w * x - y) ** 2
        losses.append(loss.item())
        loss.backward()
        with tg.no_grad():
            w -= 0.01 * w.grad
        w.grad = None
    assert [f"{v:.4f}" for v in losses[:2]] == ["1.0000", "0.9604"]
    by_tens = [0.9604, 0.6412, 0.4281, 0.2858, 0.1908, 0.1274, 0.0850, 0.0568, 0.0379, 0.0253]
    close(losses[1:101:10], by_tens, atol=5.1e-5)


def test_a11_a_line_through_four_points() -> None:
    X = tg.tensor([1.0, 2.0, 3.0, 4.0], dtype=F32)
    Y, w = X * 2, tg.tensor(0.0, dtype=F32, requires_grad=True)
    seen = []
    for _ in range(50):
        loss = ((w * X - Y) ** 2).mean()
        loss.backward()
        with tg.no_grad():
            w -= 0.01 * w.grad
        w.grad.zero_()
        seen.append((w.item(), loss.item()))
    wanted = [(0.300, 30.0), (1.665, 1.16278565), (1.934, 0.04506890), (1.987, 0.00174685), (1.997, 0.00006770)]
    for (w_now, loss_now), (w_then, loss_then) in zip(seen[::10], wanted, strict=True):
        assert f"{w_now:.3f}" == f"{w_then:.3f}"
        close(loss_now, loss_then, rtol=1e-4)


def test_a12_the_gradient_by_hand() -> None:
    X = tg.tensor([1.0, 2.0, 3.0, 4.0])
    Y, w = X * 2, tg.tensor(0.0, requires_grad=True)
    for _ in range(20):
        ((w * X - Y) ** 2).mean().backward()
        with tg.no_grad():
            by_hand = (2 * X).dot(w * X - Y)
            close(w.grad * len(X), by_hand.numpy())
            w -= 0.01 * by_hand
        w.grad = None


class Add(tg.Function):
    """Copies the cotangent."""

    @staticmethod
    def forward(ctx: Any, a: Any, b: Any) -> Any:
        return a + b

    @staticmethod
    def backward(ctx: Any, ct: Any) -> Any:
        return ct, ct


class Split(tg.Function):
    """Sums the cotangents."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x * 1.0, x * 1.0

    @staticmethod
    def backward(ctx: Any, first: Any, second: Any) -> Any:
        return first + second


class Max(tg.Function):
    """Gives the cotangent to the winner."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        winner = tnp.argmax(x)
        ctx.save_for_backward(winner)
        ctx.size = x.shape[0]
        return tnp.max(x)

    @staticmethod
    def backward(ctx: Any, ct: Any) -> Any:
        (winner,) = ctx.saved_tensors
        return tnp.where(tnp.arange(ctx.size) == winner, ct, 0.0)


def test_a13_custom_gradients() -> None:
    def net(a: Any, b: Any) -> Any:
        first, second = Split.apply(tnp.tanh(a))
        return Max.apply(Add.apply(first * 2.0, second * b)) ** 2

    a, b = np.array([0.1, 0.9, -0.4]), np.array([1.0, 2.0, 3.0])
    x, y = tg.tensor(a, requires_grad=True), tg.tensor(b, requires_grad=True)
    value = net(x, y)
    value.backward()
    t = np.tanh(a[1])
    close(value, (4.0 * t) ** 2)
    close(x.grad, [0.0, 2.0 * 4.0 * t * 4.0 * (1.0 - t * t), 0.0])
    close(y.grad, [0.0, 2.0 * 4.0 * t * t, 0.0])
    for found, wanted in zip(tg.grad(net, (0, 1))(a, b), (x.grad, y.grad), strict=True):
        close(found, wanted.numpy())


# --- modules and practice ---------------------------------------------------------------------------------------------


def test_m1_depth_depends_on_the_input() -> None:
    layer = tg.track(nn.Linear(3, 3, key=random.key(1)))
    optimizer = optim.Adam(layer, lr=0.05)
    losses, graphs = [], []
    for number in range(60):
        length = number % 4 + 1
        h = tg.tensor(np.full(3, 0.5, F32))
        for _ in range(length):
            h = h.add(layer(h)).tanh()
        loss = ((h - 0.1 * length) ** 2).mean()
        if number < 4:
            graphs.append((tg.autograd.graph(loss), tg.autograd.graph(loss, adjoint=True)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    for depth, (forward, adjoint) in enumerate(graphs, 1):
        assert str(forward).count(" = tanh(") == str(adjoint).count(" = tanh(") == depth
        assert len(str(adjoint)) > len(str(forward))
        assert forward.to_dot().startswith("digraph")
        assert adjoint.to_dot(forward).startswith("digraph")
    assert sum(losses[-4:]) < 0.1 * sum(losses[:4])


def test_m2_gradients_in_closed_form(rng: np.random.Generator) -> None:
    x, w, dy = rng.normal(size=(3, 4)), rng.normal(size=(5, 3)), rng.normal(size=(5, 4))
    dx, dw = gradient(lambda x, w: (w @ x) * dy, x, w)
    close(dx, w.T @ dy)
    close(dw, dy @ x.T)
    (relu,) = gradient(lambda x: F.relu(x) * dy[:3], x)
    close(relu, np.where(x < 0, 0.0, dy[:3]))
    (duplicated,) = gradient(lambda x: x * dy[:3] + x * dy[1:4], x)
    close(duplicated, dy[:3] + dy[1:4])
    for copied in gradient(lambda a, b: (a + b) * dy[:3], x, x):
        close(copied, dy[:3])
    first, second = gradient(lambda a, b: np.maximum(a, b) * dy[:3], x, -x)
    close(first, np.where(x > -x, dy[:3], 0.0))
    close(second, np.where(x > -x, 0.0, dy[:3]))


def test_m3_stable_at_large_inputs() -> None:
    for size in (-1000.0, 1000.0):
        x = tg.tensor([size, 0.0, -size], dtype=F32, requires_grad=True)
        for f in (F.softmax, F.log_softmax):
            y = f(x, dim=0)
            y.sum().backward()
            assert np.isfinite(y.detach().numpy()).all()
            assert np.isfinite(x.grad.numpy()).all()
        y = F.softplus(x) + F.sigmoid(x)
        y.sum().backward()
        assert np.isfinite(y.detach().numpy()).all()
        assert np.isfinite(x.grad.numpy()).all()
    x = tg.tensor([1000.0, 0.0], dtype=F32, requires_grad=True)
    (vanishing,) = tg.autograd.grad(F.softmax(x, dim=0)[1], x)
    (useful,) = tg.autograd.grad(F.log_softmax(x, dim=0)[1], x)
    close(vanishing, [0.0, 0.0])
    close(useful, [-1.0, 1.0])


def test_m4_minibatches_of_normalised_inputs(rng: np.random.Generator) -> None:
    x = rng.normal(5.0, 3.0, size=(60, 2)).astype(F32)
    x[:, 1] = 7.0
    y = (x[:, 0] > 5.0).astype(np.int64)
    normalised = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-6)
    model = tg.track(nn.Linear(2, 2, key=random.key(0)))
    optimizer = optim.SGD(model, lr=0.5)
    orders = []
    for epoch in range(10):
        for rows, labels in data.batches((normalised, y), 20, seed=3, epoch=epoch):
            orders.append(np.asarray(labels).tolist())
            optimizer.zero_grad()
            loss = F.cross_entropy(model(tg.tensor(rows)), labels)
            loss.backward()
            optimizer.step()
    assert orders[:3] != orders[3:6]
    assert loss.item() < 0.3


def test_m5_updates_equal_the_closed_form() -> None:
    start, slope, eta, alpha = np.array([1.0, -2.0]), np.array([0.5, 0.25]), 0.1, 0.01
    w = tg.tensor(start, requires_grad=True)
    optimizer = optim.SGD([w], lr=eta, weight_decay=2 * alpha)
    (w * slope).sum().backward()
    optimizer.step()
    close(w, (1 - 2 * eta * alpha) * start - eta * slope)
    lasso = tg.tensor(start, requires_grad=True)
    ((lasso * slope).sum() + alpha * lasso.abs().sum()).backward()
    close(lasso.grad, slope + alpha * np.sign(start))
    v = tg.tensor(start, requires_grad=True)
    adam = optim.Adam([v], lr=optim.exponential(eta, 0.5))
    m = s = 0.0
    p = start.copy()
    for t in range(1, 4):
        adam.zero_grad()
        (v * v * slope).sum().backward()
        adam.step()
        g = 2 * p * slope
        m, s = 0.9 * m + 0.1 * g, 0.999 * s + 0.001 * g * g
        p = p - eta * 0.5 ** (t - 1) * (m / (1 - 0.9**t)) / (np.sqrt(s / (1 - 0.999**t)) + 1e-8)
        close(v, p, rtol=1e-9)


def test_m6_initialisation_and_dropout() -> None:
    for fan_in in (50, 200):
        w = nn.init.kaiming_normal(random.key(0), (300, fan_in))
        close(np.var(w) * fan_in, 2.0, rtol=0.05)
    again = nn.init.kaiming_normal(random.key(0), (300, 200))
    np.testing.assert_array_equal(w, again)
    x = tg.tensor(np.ones(1000, F32), requires_grad=True)
    layer = nn.Dropout(0.25)
    y = layer(x, key=random.key(1), training=True)
    y.sum().backward()
    zeros = int((y == 0).sum())
    assert 200 < zeros < 300
    close(x.grad, y.detach().numpy())
    np.testing.assert_array_equal(layer(x).detach().numpy(), np.ones(1000, F32))
    other = layer(x, key=random.key(2), training=True)
    assert not tnp.array_equal(y, other)
    np.testing.assert_array_equal(layer(x, key=random.key(1), training=True).tolist(), y.tolist())


def test_every_leaf_of_a_tracked_model_is_a_tensor() -> None:
    assert all(isinstance(leaf, tg.Tensor) and leaf.is_leaf for leaf in tree.leaves(tg.track(nn.Linear(2, 3))))
