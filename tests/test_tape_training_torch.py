"""Training on the tape beside PyTorch: optimizers with unusual options over 100 steps, whole models with PyTorch's
weights from a file, losses with everything at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad import nn, optim
from tracegrad.nn import functional as F

torch = pytest.importorskip("torch")
TF = torch.nn.functional
SHAPES = [(4, 3), (3,), ()]
SGD_NESTEROV = {"momentum": 0.8, "weight_decay": 0.1, "nesterov": True, "maximize": True}
OPTIMIZERS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("SGD", (0.05, 0.9, 0.3, 0.1), {}),
    ("SGD", (0.05,), SGD_NESTEROV),
    ("SGD", (0.05,), {"weight_decay": 0.2, "maximize": True}),
    ("Adam", (0.1, (0.7, 0.95), 1e-4, 0.2, True), {}),
    ("Adam", (0.1,), {"weight_decay": 0.3, "maximize": True}),
    ("AdamW", (0.1, (0.7, 0.95), 1e-4, 0.3, True), {"maximize": True}),
    ("RMSprop", (0.05, 0.8, 1e-3, 0.1, 0.7, True), {"maximize": True}),
    ("RMSprop", (0.05, 0.9), {"momentum": 0.5}),
    ("Adagrad", (0.3, 0.1, 0.2, 0.5, 1e-4), {"maximize": True}),
    ("Adagrad", (0.3, 0.05), {}),
]


@pytest.mark.parametrize(("name", "arguments", "more"), OPTIMIZERS)
def test_a_hundred_steps(name: str, arguments: tuple[Any, ...], more: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    starts = [rng.normal(size=s) for s in SHAPES]
    ours = [tg.tensor(a, requires_grad=True) for a in starts]
    theirs = [torch.tensor(a, requires_grad=True) for a in starts]
    a = getattr(optim, name)([{"params": ours[:2]}, {"params": ours[2:], "lr": 0.01}], *arguments, **more)
    b = getattr(torch.optim, name)([{"params": theirs[:2]}, {"params": theirs[2:], "lr": 0.01}], *arguments, **more)
    for n in range(100):
        slopes = [rng.normal(size=s) for s in SHAPES]
        for T, values, optimizer in ((tg, ours, a), (torch, theirs, b)):
            optimizer.zero_grad(set_to_none=n % 3 == 0)
            terms = zip(values, slopes, strict=True)
            loss: Any = sum((0.1 * v.tanh() * v + T.tensor(s) * v).sum() for v, s in terms)
            if n % 10 != 7:  # and some steps without some gradients
                loss.backward()
            elif n % 20 == 7:
                values[0].sum().backward()
            optimizer.step()
        if n == 40:  # saved and loaded in between
            a.load_state_dict(a.state_dict())
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x.detach().numpy(), y.detach().numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, 3.0, np.inf])
@pytest.mark.parametrize("scale", [0.01, 10.0])
def test_clipping_gradients(norm_type: float, scale: float) -> None:
    rng = np.random.default_rng(1)
    found: list[Any] = []
    slopes = [scale * rng.normal(size=s) for s in SHAPES]
    for T, clip, limit in (
        (tg, optim.clip_grad_norm_, optim.clip_grad_value_),
        (torch, torch.nn.utils.clip_grad_norm_, torch.nn.utils.clip_grad_value_),
    ):
        xs = [T.tensor(np.ones(s), requires_grad=True) for s in SHAPES]
        sum((x * T.tensor(s)).sum() for x, s in zip(xs, slopes, strict=True)).backward()  # type: ignore[union-attr]
        norm = clip(xs, 1.5, norm_type)
        clipped = [x.grad.numpy().copy() for x in xs]
        limit(xs, 0.2)
        found.append([float(norm), *clipped, *(x.grad.numpy() for x in xs)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


def test_norms_that_are_not_finite() -> None:
    for T, clip in ((tg, optim.clip_grad_norm_), (torch, torch.nn.utils.clip_grad_norm_)):
        x = T.tensor([1.0, 2.0], requires_grad=True)
        (x * float("nan")).sum().backward()
        with pytest.raises((RuntimeError, TypeError)):
            clip([x], 1.0, error_if_nonfinite=True)
        assert np.isnan(float(clip([x], 1.0))) and np.isnan(x.grad.numpy()).all()


def test_a_loss_with_every_option() -> None:
    rng = np.random.default_rng(2)
    scores, weight = rng.normal(size=(4, 5, 3)), rng.uniform(0.5, 2.0, 5)
    target = rng.integers(0, 5, (4, 3))
    target[1, 2] = target[3, 0] = 2
    found = []
    for T, loss in ((tg, F.cross_entropy), (torch, TF.cross_entropy)):
        for reduction in ("mean", "sum", "none"):
            x = T.tensor(scores, requires_grad=True)
            how = {"ignore_index": 2, "label_smoothing": 0.15, "reduction": reduction}
            value = loss(x, T.tensor(target), weight=T.tensor(weight), **how)
            value.sum().backward()
            found.append((value.detach().numpy(), x.grad.numpy()))
    for ours, theirs in zip(found[:3], found[3:], strict=True):
        np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-12)
        np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-10, atol=1e-14)


class TorchNetwork(torch.nn.Module):  # type: ignore[misc, name-defined, unused-ignore]
    """Layers with unusual options, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 6, 3, 2, 1, dilation=1, groups=2, padding_mode="circular")
        self.norm = torch.nn.BatchNorm2d(6, momentum=None, eps=1e-3)
        self.up = torch.nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1, groups=2, bias=False)
        self.group = torch.nn.GroupNorm(2, 4)
        self.gru = torch.nn.GRU(4, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.attention = torch.nn.MultiheadAttention(10, 2, batch_first=True, add_bias_kv=True)
        self.last = torch.nn.Linear(10, 3)


class Network(nn.Module):
    """The same here."""

    def __init__(self) -> None:
        self.conv = nn.Conv2d(2, 6, 3, 2, 1, dilation=1, groups=2, padding_mode="circular")
        self.norm = nn.BatchNorm2d(6, momentum=None, eps=1e-3)
        self.up = nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1, output_padding=1, groups=2, bias=False)
        self.group = nn.GroupNorm(2, 4)
        self.gru = nn.GRU(4, 5, num_layers=2, bidirectional=True, batch_first=True)
        self.attention = nn.MultiheadAttention(10, 2, batch_first=True, add_bias_kv=True)
        self.last = nn.Linear(10, 3)


def forward(model: Any, T: Any, x: Any, mask: Any, **training: Any) -> Any:
    y = model.norm(model.conv(x), **training)
    y = model.group(model.up(y)).relu()
    y = y.reshape(y.shape[0], 4, -1)[:, :, :6]
    y, _ = model.gru(y.transpose(1, 2) if T is torch else y.mT)
    y, _ = model.attention(y, y, y, key_padding_mask=mask, need_weights=False)
    return model.last(y.mean(dim=1))


def test_a_network_with_pytorchs_weights_from_a_file(tmp_path: Any) -> None:
    """PyTorch saves, this library loads, both train on; then the file goes the other way."""
    save_file = pytest.importorskip("safetensors.torch").save_file
    torch.manual_seed(0)
    theirs = TorchNetwork()
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    ours = tg.track(Network().load_state_dict(nn.load_file(tmp_path / "theirs.safetensors")))
    rng = np.random.default_rng(3)
    mask = np.zeros((3, 6), bool)
    mask[0, 4:] = mask[2, 1] = True
    a = optim.SGD(ours, 0.05, 0.9, weight_decay=0.01, nesterov=True)
    b = torch.optim.SGD(theirs.parameters(), 0.05, 0.9, weight_decay=0.01, nesterov=True)
    for _ in range(5):
        x, target = rng.normal(size=(3, 2, 6, 6)).astype(np.float32), rng.integers(0, 3, 3)
        how = {"label_smoothing": 0.1}
        loss = F.cross_entropy(forward(ours, tg, tg.tensor(x), tg.tensor(mask), training=True), target, **how)
        wanted = TF.cross_entropy(
            forward(theirs, torch, torch.tensor(x), torch.tensor(mask)), torch.tensor(target), **how
        )
        for optimizer, value in ((a, loss), (b, wanted)):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        np.testing.assert_allclose(loss.item(), wanted.item(), rtol=2e-4)
    nn.save_file(tg.untrack(ours), tmp_path / "ours.safetensors")
    again = TorchNetwork()
    again.load_state_dict(pytest.importorskip("safetensors.torch").load_file(tmp_path / "ours.safetensors"))
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(again.state_dict()[name].numpy(), value.numpy(), rtol=2e-3, atol=2e-4, err_msg=name)
