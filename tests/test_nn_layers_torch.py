"""Layers with state, recurrence or attention against PyTorch: outputs, gradients, and what they keep."""

from __future__ import annotations

import numpy as np
import pytest

from tracegrad import nn
from tracegrad.nn import functional as F

torch = pytest.importorskip("torch")
from torch_peer import assert_close, check, compare_module, normal  # noqa: E402 (it needs PyTorch)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
TF = torch.nn.functional
F64 = {"dtype": np.float64}


# --- normalisation ----------------------------------------------------------------------------------------------------
BATCH_NORMS = [
    (nn.BatchNorm1d, torch.nn.BatchNorm1d, (4,), (6, 4)),
    (nn.BatchNorm1d, torch.nn.BatchNorm1d, (4, 1e-3, 0.3, False), (6, 4, 5)),
    (nn.BatchNorm2d, torch.nn.BatchNorm2d, (3, 1e-5, None), (2, 3, 4, 5)),
    (nn.BatchNorm2d, torch.nn.BatchNorm2d, (3, 1e-5, 0.1, True, False), (2, 3, 4, 5)),
    (nn.BatchNorm3d, torch.nn.BatchNorm3d, (3,), (2, 3, 2, 2, 3)),
]


@pytest.mark.parametrize(("ours", "theirs", "arguments", "shape"), BATCH_NORMS, ids=range(len(BATCH_NORMS)))
@pytest.mark.parametrize("compiled", [False, True])
def test_batch_norm_in_training_and_evaluation(ours, theirs, arguments, shape, compiled):
    module, peer = ours(*arguments, **F64), theirs(*arguments, dtype=torch.float64)
    if module.weight is not None:
        module = module.replace(weight=normal(1, arguments[0]), bias=normal(2, arguments[0]))
        peer.load_state_dict({n: torch.tensor(v) for n, v in module.state_dict().items()})
    params, buffers = nn.split(module)
    for n in range(3):
        x = normal(n, *shape) * (n + 1) + n
        _, buffers = nn.functional_call(params, buffers, x, training=True)
        peer(torch.tensor(x))
    module = nn.merge(params, buffers)
    theirs_now = {name: value.numpy() for name, value in peer.state_dict().items()}
    assert list(module.state_dict()) == list(theirs_now)
    for name, value in module.state_dict().items():
        assert_close(value, theirs_now[name], 1e-12)

    def train(model, x):
        if isinstance(model, torch.nn.Module):
            return model.train()(x)
        return nn.functional_call(*nn.split(model), x, training=True)[0]

    def evaluate(model, x):
        return model.eval()(x) if isinstance(model, torch.nn.Module) else model(x)

    compare_module(module, peer, normal(7, *shape), call=evaluate, compiled=compiled)
    compare_module(module, peer, normal(7, *shape), call=train, compiled=compiled)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(("arguments", "shape"), [((2, 6), (3, 6, 4)), ((3, 3, 1e-3, False), (2, 3, 4, 5))])
def test_group_norm(arguments, shape, compiled):
    peer = torch.nn.GroupNorm(*arguments, dtype=torch.float64)
    compare_module(nn.GroupNorm(*arguments, **F64), peer, normal(0, *shape), compiled=compiled)
    w, b = normal(1, 4), normal(2, 4)
    check(
        lambda x, w, b: F.group_norm(x, 2, w, b), lambda x, w, b: TF.group_norm(x, 2, w, b), normal(0, 3, 4, 2), w, b
    )
