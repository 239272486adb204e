"""The steps in PyTorch, eager and through torch.compile (Inductor), as a PyTorch user would write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from bench.cases import BLOCKS, HEADS, LAYERS, STAGES, WIDTH, data, parameters

Params = dict[str, Any]


def mlp(p: Params, x: Any) -> Any:
    h = F.relu(x @ p["w1"] + p["b1"])
    return F.relu(h @ p["w2"] + p["b2"]) @ p["w3"] + p["b3"]


def lenet(p: Params, x: Any) -> Any:
    x = F.max_pool2d(F.relu(F.conv2d(x, p["c1"], p["d1"])), 2)
    return mlp(p, F.max_pool2d(F.relu(F.conv2d(x, p["c2"], p["d2"])), 2).flatten(1))


def cnn(p: Params, x: Any) -> Any:
    for i in "123":
        x = F.max_pool2d(F.relu(F.conv2d(x, p[f"c{i}"], p[f"d{i}"], padding=1)), 2)
    return F.relu(x.flatten(1) @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]


def normed(x: Any, scale: Any, shift: Any) -> Any:
    return F.batch_norm(x, None, None, scale, shift, training=True)


def resnet(p: Params, x: Any) -> Any:
    x = F.relu(normed(F.conv2d(x, p["c0"], padding=1), p["g0"], p["h0"]))
    for i in range(BLOCKS * len(STAGES)):
        stride = 2 if f"s{i}" in p else 1
        y = F.relu(normed(F.conv2d(x, p[f"a{i}"], stride=stride, padding=1), p[f"ag{i}"], p[f"ah{i}"]))
        y = normed(F.conv2d(y, p[f"b{i}"], padding=1), p[f"bg{i}"], p[f"bh{i}"])
        x = F.relu((F.conv2d(x, p[f"s{i}"], stride=2) if stride == 2 else x) + y)
    return x.mean((2, 3)) @ p["hw"] + p["hb"]


def heads(x: Any) -> Any:
    n, t, width = x.shape
    return x.reshape(n, t, HEADS, width // HEADS).transpose(1, 2)


def gpt(p: Params, x: Any) -> Any:
    h = p["te"][x] + p["pe"]
    for i in range(LAYERS):
        a = F.layer_norm(h, (WIDTH,), p[f"g{i}"], p[f"h{i}"]) @ p[f"qkv{i}"]
        q, k, v = (heads(part) for part in a.split(WIDTH, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        h = h + mixed.transpose(1, 2).reshape(h.shape) @ p[f"pr{i}"]
        u = F.layer_norm(h, (WIDTH,), p[f"g2{i}"], p[f"h2{i}"]) @ p[f"f{i}"] + p[f"fb{i}"]
        h = h + F.gelu(u) @ p[f"p{i}"] + p[f"pb{i}"]
    return F.layer_norm(h, (WIDTH,), p["gf"], p["hf"]) @ p["hd"]


NETS: dict[str, Callable[[Params, Any], Any]] = {"mlp": mlp, "lenet": lenet, "cnn": cnn, "resnet": resnet, "gpt": gpt}


def loss_of(case: str) -> Callable[[Params, Any, Any], Any]:
    """Return the loss of one case."""
    net = NETS[case]

    def loss(p: Params, x: Any, y: Any) -> Any:
        return F.cross_entropy(net(p, x).flatten(0, -2), y.flatten())

    return loss


class Torch:
    """Eager PyTorch with the multi-tensor Adam."""

    def __init__(self, case: str, compiled: bool = False):
        self.params = {k: torch.nn.Parameter(torch.from_numpy(v)) for k, v in parameters(case).items()}
        self.x, self.y = (torch.from_numpy(a) for a in data(case))
        self.optimizer = torch.optim.Adam(self.params.values(), lr=1e-3, foreach=True)
        self.loss = torch.compile(loss_of(case)) if compiled else loss_of(case)
        self.update = torch.compile(self.optimizer.step) if compiled else self.optimizer.step

    def run(self, n: int) -> float:
        loss = torch.zeros(())
        for _ in range(n):
            self.optimizer.zero_grad()
            loss = self.loss(self.params, self.x, self.y)
            loss.backward()
            self.update()
        return float(loss.detach())


class Inductor(Torch):
    """The same through torch.compile, the optimizer's step included."""

    def __init__(self, case: str):
        super().__init__(case, compiled=True)


def version() -> str:
    """Return the library's version."""
    return str(torch.__version__)


SESSIONS = {"torch": Torch, "inductor": Inductor}
