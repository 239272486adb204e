"""Random bits from a counter: Threefry-2x32 with 20 rounds.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.

The bits of element i are a function of the key, the stream and i alone: the same on every machine, with any number of
threads, and in eager and compiled code.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tracegrad.errors import DTypeError
from tracegrad.ir.aval import Aval
from tracegrad.ir.primitive import Primitive

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA


def threefry(k0: Any, k1: Any, c0: Any, c1: Any) -> tuple[Any, Any]:
    """Return the two words of the block (c0, c1) under the key (k0, k1); all uint32 arrays."""
    keys = (k0, k1, np.uint32(PARITY) ^ k0 ^ k1)
    x0, x1 = c0 + keys[0], c1 + keys[1]
    for group in range(5):
        for r in ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = (x1 << np.uint32(r)) | (x1 >> np.uint32(32 - r))
            x1 = x1 ^ x0
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x0, x1


class RandomBits(Primitive):
    """32 random bits per element; `word` picks one of the block's two words, `stream` separates uses of one key."""

    name = "random_bits"
    kind = "random"
    costly = 1
    samples = [
        {
            "shapes": [],
            "constants": [np.array([1, 2], np.uint32)],
            "params": {"shape": (3, 5), "word": w, "stream": 0},
            "order": 0,
        }
        for w in (0, 1)
    ]

    def aval(self, key: Aval, *, shape: tuple[int, ...], word: int, stream: int) -> Aval:  # type: ignore[override]
        if key.shape != (2,) or key.dtype != np.uint32:
            raise DTypeError(f"random: the key {key} is not u32[2]", fix="make one with tg.random.key(seed)")
        return Aval(shape, np.dtype(np.uint32))

    def eager(self, key: Any, *, shape: tuple[int, ...], word: int, stream: int) -> Any:
        n = np.arange(math.prod(shape), dtype=np.uint64)
        high = (n >> np.uint64(32)).astype(np.uint32) ^ np.uint32(stream)
        with np.errstate(over="ignore"):
            words = threefry(np.uint32(key[0]), np.uint32(key[1]), high, n.astype(np.uint32))
        return words[word].reshape(shape)

    def vjp(self, ct: Any, y: Any, key: Any, **params: Any) -> Any:
        return None


random_bits = RandomBits()
