"""Forward and backward, op by op, in float32: what an operation of an eager tape costs.

    chain    20 products of vectors of 64 elements, and a sum
    mlp      3 layers of width 64 with tanh, batch 32, mean of squares
    cnn      2 convolutions 3x3 with ReLU, 16 maps, on 8 images 3x16x16, mean of squares
"""

from __future__ import annotations

from typing import Any

import numpy as np

CASES = ("chain", "mlp", "cnn")
OPS = 20
LAYERS = 3


def data(case: str) -> dict[str, Any]:
    """Return the arrays of a case; all but x are differentiated (x, too, in the chain)."""
    rng = np.random.default_rng(0)

    def normal(*shape: int, scale: float = 0.1) -> Any:
        return (scale * rng.normal(size=shape)).astype(np.float32)

    if case == "chain":
        return {"x": 1.0 + normal(64)}
    if case == "mlp":
        layers = {f"{k}{i}": normal(*s) for i in range(LAYERS) for k, s in (("w", (64, 64)), ("b", (64,)))}
        return {"x": normal(32, 64, scale=1.0)} | layers
    return {"x": normal(8, 3, 16, 16, scale=1.0), "w0": normal(16, 3, 3, 3), "w1": normal(16, 16, 3, 3)}
