"""Half precision beside PyTorch's on the CPU, which computes in float32 and rounds once, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_half import normal

import tracegrad as tg
import tracegrad.nn.functional as F
import tracegrad.numpy as tnp

torch = pytest.importorskip("torch")

PROGRAMS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "arithmetic": (lambda x, y: (x * y - x) / (y * y + 1), lambda x, y: (x * y - x) / (y * y + 1)),
    "relu": (lambda x, y: F.relu(x) * y, lambda x, y: torch.relu(x) * y),
    "sqrt": (lambda x, y: tnp.sqrt(tnp.abs(x)) + y, lambda x, y: x.abs().sqrt() + y),
    "tanh": (lambda x, y: tnp.tanh(x) * y, lambda x, y: torch.tanh(x) * y),
    "gelu": (lambda x, y: F.gelu(x) + y, lambda x, y: torch.nn.functional.gelu(x) + y),
    "softmax": (lambda x, y: F.softmax(x, -1) * y, lambda x, y: torch.softmax(x, -1) * y),
    "mean": (lambda x, y: (x * y).mean(axis=0), lambda x, y: (x * y).mean(0)),
    "matmul": (lambda x, y: x @ y.T, lambda x, y: x @ y.T),
    "layer_norm": (lambda x, y: F.layer_norm(x, (24,)) + y, lambda x, y: torch.layer_norm(x, (24,)) + y),
    "max": (lambda x, y: x.max(axis=1) + y[:, 0], lambda x, y: x.max(1).values + y[:, 0]),
    "conv1d": (
        lambda x, y: F.conv1d(x[:, None], y[:3, None, :5], padding=2),
        lambda x, y: torch.nn.functional.conv1d(x[:, None], y[:3, None, :5], padding=2),
    ),
}
EXACT = ("arithmetic", "relu", "sqrt", "max")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_values_and_gradients(name: str, dtype: str) -> None:
    if dtype == "bfloat16":
        pytest.importorskip("ml_dtypes")
    ours, theirs = PROGRAMS[name]
    arrays = [normal(16, 24, seed=i, dtype=np.float32) for i in range(2)]
    leaves = [torch.tensor(a).to(getattr(torch, dtype)).requires_grad_() for a in arrays]
    expected = theirs(*leaves)
    expected.float().sum().backward()
    stored = [tnp.astype(a, dtype) for a in arrays]
    tensors = [tg.tensor(a, requires_grad=True) for a in stored]
    found = ours(*tensors)
    found.astype(np.float32).sum().backward()
    compiled = tg.jit(ours)(*stored)
    gradients = tg.grad(lambda x, y: ours(x, y).astype(np.float32).sum(), argnums=(0, 1))(*stored)
    digits = 2.0**-9 if dtype == "float16" else 2.0**-6
    wide = expected.detach().float().numpy()
    for value in (found.detach().numpy(), compiled):
        assert str(value.dtype) == dtype
        if name in EXACT:
            np.testing.assert_array_equal(value.astype(np.float32), wide)
        np.testing.assert_allclose(value.astype(np.float32), wide, rtol=digits, atol=digits / 4)
    for tensor, gradient, leaf in zip(tensors, gradients, leaves, strict=True):
        slope = leaf.grad.float().numpy()
        scale = max(1.0, float(np.abs(slope).max()))
        for mine in (tensor.grad.numpy(), gradient):
            assert str(mine.dtype) == dtype
            np.testing.assert_allclose(mine.astype(np.float32), slope, rtol=4 * digits, atol=4 * digits * scale)
