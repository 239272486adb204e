"""The benchmark's training steps: they learn, agree with eager and with PyTorch, and never retrace."""

from __future__ import annotations

import numpy as np
import pytest

import tracegrad as tg
from bench.cases import CASES, data, parameters
from bench.steps import loss_of, step
from bench.worker import burst
from tracegrad import tree


def gradients(case, dtype, *, eager):
    x, y = data(case)
    params = {k: v.astype(dtype) for k, v in parameters(case).items()}
    x = x if x.dtype.kind == "i" else x.astype(dtype)
    transformed = tg.value_and_grad(loss_of(case))
    if not eager:
        return transformed(params, x, y)
    with tg.eager():
        return transformed(params, x, y)


def distance(a, b):
    """Return the largest difference over all leaves, relative to the leaf's size; and the same for their norms."""
    pairs = [
        (np.asarray(u, np.float64), np.asarray(v, np.float64))
        for u, v in zip(tree.leaves(a), tree.leaves(b), strict=True)
    ]
    return max(float(np.linalg.norm(u - v) / np.linalg.norm(v)) for u, v in pairs)


@pytest.mark.parametrize("case", CASES)
def test_gradients_equal_pytorch_in_float64(case):
    torch = pytest.importorskip("torch")
    torch_steps = pytest.importorskip("bench.peers.torch_steps")
    value, found = gradients(case, np.float64, eager=True)
    params = {k: torch.tensor(v.astype(np.float64), requires_grad=True) for k, v in parameters(case).items()}
    x, y = (torch.from_numpy(a) for a in data(case))
    loss = torch_steps.loss_of(case)(params, x.double() if x.is_floating_point() else x, y)
    loss.backward()
    assert float(value) == pytest.approx(loss.item(), rel=1e-10)
    assert distance(found, {k: v.grad.numpy() for k, v in params.items()}) < 1e-9


@pytest.mark.parametrize("case", ["mlp", "lenet", "gpt"])
def test_compiled_gradients_equal_eager(case):
    value, found = gradients(case, np.float32, eager=False)
    expected_value, expected = gradients(case, np.float32, eager=True)
    assert float(value) == pytest.approx(float(expected_value), rel=1e-5)
    # A maximum that two elements nearly share may pick the other one in another order of sums.
    assert distance(found, expected) < (2e-2 if case == "lenet" else 1e-4)


def test_a_step_is_adam_and_learns():
    fn, (params, m, v, _, x, y), donate = step("mlp")
    before = tree.map(np.array, params)
    compiled = tg.compile(fn, params, m, v, 1.0, x, y, donate=donate)
    losses = []
    for t in range(1, 31):
        params, m, v, loss = compiled(params, m, v, float(t), x, y)
        losses.append(float(loss))
        if t == 1:
            _, g = gradients("mlp", np.float32, eager=True)
            steps = {k: (before[k] - params[k]) / 1e-3 for k in params}
            for k, s in steps.items():
                clear = np.abs(g[k]) > 1e-4
                np.testing.assert_allclose(s[clear], np.sign(g[k])[clear], atol=2e-3)
    assert losses[-1] < 0.5 * losses[0]


class Sleepless:
    def run(self, n):
        return 0.0


def test_a_burst_measures_a_step():
    assert 0 <= burst(Sleepless(), 0.01)["step"] < 1e-3
