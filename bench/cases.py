"""The five training steps: sizes, data and initial parameters, the same for every library."""

from __future__ import annotations

from typing import Any

import numpy as np

CASES = ("mlp", "lenet", "cnn", "resnet", "gpt")
BATCH = {"mlp": 128, "lenet": 64, "cnn": 32, "resnet": 16, "gpt": 8}
IMAGE = {"mlp": (784,), "lenet": (1, 28, 28), "cnn": (3, 32, 32), "resnet": (3, 32, 32)}
LAYERS, HEADS, WIDTH, LENGTH, WORDS = 2, 4, 128, 64, 256
STAGES = (16, 32, 64)
BLOCKS = 3

Params = dict[str, Any]


def data(case: str, seed: int = 0) -> tuple[Any, Any]:
    """Return one batch of inputs and classes."""
    rng = np.random.default_rng(seed)
    n = BATCH[case]
    if case == "gpt":
        return rng.integers(0, WORDS, (n, LENGTH)), rng.integers(0, WORDS, (n, LENGTH))
    return rng.normal(size=(n, *IMAGE[case])).astype(np.float32), rng.integers(0, 10, n)


def parameters(case: str, seed: int = 1) -> Params:
    """Return the initial parameters, all float32."""
    rng = np.random.default_rng(seed)

    def w(*shape: int) -> Any:
        fan = np.prod(shape[1:]) if len(shape) > 2 else shape[0]
        return (rng.normal(size=shape) / np.sqrt(fan)).astype(np.float32)

    makers = {"mlp": mlp, "lenet": lenet, "cnn": cnn, "resnet": resnet, "gpt": gpt}
    return makers[case](w)


def z(n: int) -> Any:
    return np.zeros(n, np.float32)


def o(n: int) -> Any:
    return np.ones(n, np.float32)


def mlp(w: Any) -> Params:
    return {"w1": w(784, 512), "b1": z(512), "w2": w(512, 512), "b2": z(512), "w3": w(512, 10), "b3": z(10)}


def lenet(w: Any) -> Params:
    convolutions = {"c1": w(6, 1, 5, 5), "d1": z(6), "c2": w(16, 6, 5, 5), "d2": z(16)}
    return convolutions | {"w1": w(256, 120), "b1": z(120), "w2": w(120, 84), "b2": z(84), "w3": w(84, 10), "b3": z(10)}


def cnn(w: Any) -> Params:
    convolutions = {
        "c1": w(32, 3, 3, 3),
        "d1": z(32),
        "c2": w(64, 32, 3, 3),
        "d2": z(64),
        "c3": w(128, 64, 3, 3),
        "d3": z(128),
    }
    return convolutions | {"w1": w(2048, 128), "b1": z(128), "w2": w(128, 10), "b2": z(10)}


def resnet(w: Any) -> Params:
    found = {"c0": w(16, 3, 3, 3), "g0": o(16), "h0": z(16)}
    before, i = 16, 0
    for after in STAGES:
        for _ in range(BLOCKS):
            found |= {f"a{i}": w(after, before, 3, 3), f"ag{i}": o(after), f"ah{i}": z(after)}
            found |= {f"b{i}": w(after, after, 3, 3), f"bg{i}": o(after), f"bh{i}": z(after)}
            if before != after:
                found[f"s{i}"] = w(after, before, 1, 1)
            before, i = after, i + 1
    return found | {"hw": w(64, 10), "hb": z(10)}


def gpt(w: Any) -> Params:
    d = WIDTH
    found = {"te": w(WORDS, d), "pe": w(LENGTH, d)}
    for i in range(LAYERS):
        found |= {f"g{i}": o(d), f"h{i}": z(d), f"qkv{i}": w(d, 3 * d), f"pr{i}": w(d, d)}
        found |= {
            f"g2{i}": o(d),
            f"h2{i}": z(d),
            f"f{i}": w(d, 4 * d),
            f"fb{i}": z(4 * d),
            f"p{i}": w(4 * d, d),
            f"pb{i}": z(d),
        }
    return found | {"gf": o(d), "hf": z(d), "hd": w(d, WORDS)}
