"""The steps in JAX: one jitted function with donated parameters and moments, as a JAX user would write them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bench.cases import BLOCKS, HEADS, LAYERS, STAGES, WIDTH, data, parameters

Params = dict[str, Any]
relu = jax.nn.relu


def conv(x: Any, w: Any, stride: int = 1, padding: Any = "VALID") -> Any:
    return jax.lax.conv_general_dilated(x, w, (stride, stride), padding)


def pool(x: Any) -> Any:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def channels(b: Any) -> Any:
    return b[None, :, None, None]


def normed(x: Any, axes: tuple[int, ...]) -> Any:
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) * jax.lax.rsqrt(variance + 1e-5)


def batch_norm(x: Any, scale: Any, shift: Any) -> Any:
    return normed(x, (0, 2, 3)) * channels(scale) + channels(shift)


def layer_norm(x: Any, scale: Any, shift: Any) -> Any:
    return normed(x, (-1,)) * scale + shift


def mlp(p: Params, x: Any) -> Any:
    return relu(relu(x @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]) @ p["w3"] + p["b3"]


def lenet(p: Params, x: Any) -> Any:
    x = pool(relu(conv(x, p["c1"]) + channels(p["d1"])))
    x = pool(relu(conv(x, p["c2"]) + channels(p["d2"])))
    return mlp(p, x.reshape(x.shape[0], -1))


def cnn(p: Params, x: Any) -> Any:
    for i in "123":
        x = pool(relu(conv(x, p[f"c{i}"], 1, "SAME") + channels(p[f"d{i}"])))
    return relu(x.reshape(x.shape[0], -1) @ p["w1"] + p["b1"]) @ p["w2"] + p["b2"]


def resnet(p: Params, x: Any) -> Any:
    around = [(1, 1), (1, 1)]
    x = relu(batch_norm(conv(x, p["c0"], 1, around), p["g0"], p["h0"]))
    for i in range(BLOCKS * len(STAGES)):
        stride = 2 if f"s{i}" in p else 1
        y = relu(batch_norm(conv(x, p[f"a{i}"], stride, around), p[f"ag{i}"], p[f"ah{i}"]))
        y = batch_norm(conv(y, p[f"b{i}"], 1, around), p[f"bg{i}"], p[f"bh{i}"])
        x = relu((conv(x, p[f"s{i}"], 2) if stride == 2 else x) + y)
    return x.mean((2, 3)) @ p["hw"] + p["hb"]


def heads(x: Any) -> Any:
    n, t, width = x.shape
    return x.reshape(n, t, HEADS, width // HEADS).transpose(0, 2, 1, 3)


def gpt(p: Params, x: Any) -> Any:
    h = p["te"][x] + p["pe"]
    t = h.shape[1]
    seen = jnp.tril(jnp.ones((t, t), bool))
    for i in range(LAYERS):
        a = layer_norm(h, p[f"g{i}"], p[f"h{i}"]) @ p[f"qkv{i}"]
        q, k, v = (heads(part) for part in jnp.split(a, 3, -1))
        scores = jnp.where(seen, q @ k.swapaxes(-1, -2) / (WIDTH // HEADS) ** 0.5, -1e9)
        h = h + (jax.nn.softmax(scores) @ v).transpose(0, 2, 1, 3).reshape(h.shape) @ p[f"pr{i}"]
        u = layer_norm(h, p[f"g2{i}"], p[f"h2{i}"]) @ p[f"f{i}"] + p[f"fb{i}"]
        h = h + jax.nn.gelu(u, approximate=False) @ p[f"p{i}"] + p[f"pb{i}"]
    return layer_norm(h, p["gf"], p["hf"]) @ p["hd"]


NETS: dict[str, Callable[[Params, Any], Any]] = {"mlp": mlp, "lenet": lenet, "cnn": cnn, "resnet": resnet, "gpt": gpt}


def step_of(case: str) -> Callable[..., Any]:
    """Return the jitted step of one case."""
    net = NETS[case]

    def loss(p: Params, x: Any, y: Any) -> Any:
        logp = jax.nn.log_softmax(net(p, x))
        return -jnp.take_along_axis(logp, y[..., None], -1).mean()

    def step(p: Params, m: Params, v: Params, t: Any, x: Any, y: Any) -> Any:
        value, g = jax.value_and_grad(loss)(p, x, y)
        m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
        v = jax.tree.map(lambda a, b: 0.999 * a + 0.001 * b * b, v, g)
        first, second = 1.0 / (1.0 - 0.9**t), 1.0 / (1.0 - 0.999**t)
        p = jax.tree.map(lambda p, a, b: p - 1e-3 * (a * first) / (jnp.sqrt(b * second) + 1e-8), p, m, v)
        return p, m, v, value

    jitted: Callable[..., Any] = jax.jit(step, donate_argnums=(0, 1, 2))
    return jitted


class Jax:
    """The jitted step and its state."""

    def __init__(self, case: str):
        self.params = jax.tree.map(jnp.asarray, parameters(case))
        self.m, self.v = (jax.tree.map(jnp.zeros_like, self.params) for _ in range(2))
        self.x, self.y = (jnp.asarray(a) for a in data(case))
        self.step = step_of(case)
        self.t = 0.0

    def run(self, n: int) -> float:
        value: Any = 0.0
        for _ in range(n):
            self.t += 1.0
            self.params, self.m, self.v, value = self.step(self.params, self.m, self.v, self.t, self.x, self.y)
        return float(value)


def version() -> str:
    """Return the library's version."""
    return str(jax.__version__)


SESSIONS = {"jax": Jax}
