"""The five training steps in tracegrad's plain style: parameters in a dict, NumPy functions, Adam written out.

    fn, arguments, donate = step("mlp")
    compiled = tg.compile(fn, *arguments, donate=donate)
    params, m, v, loss = compiled(params, m, v, t, x, y)

`t` counts the steps, starts at 1.0, and is traced: it never compiles again. params, m and v are donated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

import tracegrad as tg
import tracegrad.numpy as tnp
from bench.cases import BLOCKS, HEADS, LAYERS, STAGES, WIDTH, Params, data, parameters
from tracegrad import tree
from tracegrad.nn import functional as F

Step = Callable[[Params, Params, Params, float, Any, Any], tuple[Params, Params, Params, Any]]
DONATE = ("params", "m", "v")


def mlp(p: Params, x: Any) -> Any:
    h = F.relu(x @ p["w1"] + p["b1"])
    return F.relu(h @ p["w2"] + p["b2"]) @ p["w3"] + p["b3"]


def lenet(p: Params, x: Any) -> Any:
    x = F.max_pool2d(F.relu(F.conv2d(x, p["c1"], p["d1"])), 2)
    x = F.max_pool2d(F.relu(F.conv2d(x, p["c2"], p["d2"])), 2)
    return mlp(p, x.reshape(x.shape[0], -1))


def cnn(p: Params, x: Any) -> Any:
    for i in "123":
        x = F.max_pool2d(F.relu(F.conv2d(x, p[f"c{i}"], p[f"d{i}"], padding=1)), 2)
    return F.relu(x.reshape(x.shape[0], -1) @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]


def normed(x: Any, scale: Any, shift: Any) -> Any:
    return F.batch_norm(x, weight=scale, bias=shift, training=True)


def resnet(p: Params, x: Any) -> Any:
    x = F.relu(normed(F.conv2d(x, p["c0"], padding=1), p["g0"], p["h0"]))
    for i in range(BLOCKS * len(STAGES)):
        stride = 2 if f"s{i}" in p else 1
        y = F.relu(normed(F.conv2d(x, p[f"a{i}"], stride=stride, padding=1), p[f"ag{i}"], p[f"ah{i}"]))
        y = normed(F.conv2d(y, p[f"b{i}"], padding=1), p[f"bg{i}"], p[f"bh{i}"])
        if stride == 2:
            x = F.conv2d(x, p[f"s{i}"], stride=2)
        x = F.relu(x + y)
    return x.mean(axis=(2, 3)) @ p["hw"] + p["hb"]


def heads(x: Any) -> Any:
    """[n, t, width] -> [n, heads, t, width / heads]"""
    n, t, width = x.shape
    return x.reshape(n, t, HEADS, width // HEADS).transpose(0, 2, 1, 3)


def attention(x: Any, qkv: Any, out: Any) -> Any:
    n, t, width = x.shape
    q, k, v = (heads(part) for part in tnp.split(x @ qkv, 3, axis=-1))
    place = tnp.arange(t)
    seen = place[:, None] >= place[None, :]
    scores = tnp.where(seen, q @ k.transpose(0, 1, 3, 2) * (1.0 / math.sqrt(width // HEADS)), -1e9)
    return (F.softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(n, t, width) @ out


def gpt(p: Params, x: Any) -> Any:
    h = F.embedding(x, p["te"]) + p["pe"]
    for i in range(LAYERS):
        h = h + attention(F.layer_norm(h, (WIDTH,), p[f"g{i}"], p[f"h{i}"]), p[f"qkv{i}"], p[f"pr{i}"])
        u = F.layer_norm(h, (WIDTH,), p[f"g2{i}"], p[f"h2{i}"]) @ p[f"f{i}"] + p[f"fb{i}"]
        h = h + F.gelu(u) @ p[f"p{i}"] + p[f"pb{i}"]
    return F.layer_norm(h, (WIDTH,), p["gf"], p["hf"]) @ p["hd"]


NETS: dict[str, Callable[[Params, Any], Any]] = {"mlp": mlp, "lenet": lenet, "cnn": cnn, "resnet": resnet, "gpt": gpt}


def loss_of(case: str) -> Callable[[Params, Any, Any], Any]:
    """Return the loss of one case: mean cross-entropy of the net's scores."""
    net = NETS[case]

    def loss(p: Params, x: Any, y: Any) -> Any:
        scores = net(p, x)
        return F.cross_entropy(scores.reshape(-1, scores.shape[-1]), y.reshape(-1))

    return loss


def step(case: str) -> tuple[Step, tuple[Any, ...], tuple[str, ...]]:
    """Return the step of one case, example arguments, and the names of the arguments to donate."""
    loss = loss_of(case)

    def train_step(
        params: Params, m: Params, v: Params, t: float, x: Any, y: Any
    ) -> tuple[Params, Params, Params, Any]:
        value, g = tg.value_and_grad(loss)(params, x, y)
        m = tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
        v = tree.map(lambda a, b: 0.999 * a + 0.001 * b * b, v, g)
        first, second = 1.0 / (1.0 - 0.9**t), 1.0 / (1.0 - 0.999**t)
        params = tree.map(lambda p, a, b: p - 1e-3 * (a * first) / (tnp.sqrt(b * second) + 1e-8), params, m, v)
        return params, m, v, value

    params = parameters(case)
    m, v = (tree.map(np.zeros_like, params) for _ in range(2))
    return train_step, (params, m, v, 1.0, *data(case)), DONATE
