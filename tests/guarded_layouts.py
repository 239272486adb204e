"""Programs on arrays with padded rows, in guarded memory: what lies behind the last row is nobody's."""

from __future__ import annotations

import numpy as np
import pytest

import tracegrad as tg
from tests.library_machine import Guarded
from tracegrad import tree
from tracegrad.nn import functional as F

FUNCTIONS = {
    "products": lambda x: (x @ x.T, x.T @ x),
    "vectors": lambda x: (x @ x[0], x[:, 0] @ x, x @ x[:3].T, x[:5] @ x.T),
    "loops": lambda x: np.exp(x) + 1.0,
    "sums": lambda x: (x.sum(), x.sum(0), x.sum(1), x.max(0)),
    "stencil": lambda x: np.pad(x, 2)[1:-3, 3:-1] + np.pad(x[2:, :-4] * x[1:-1, 4:], ((1, 1), (3, 1))),
    "copies": lambda x: (x, x.T, np.concatenate([x, x])),
    "convolution": lambda x: F.conv1d(x[None], x[None, :, :3], padding=1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rows", "row", "pitch"), [(66, 65, 130), (17, 301, 1204)])
def test_nothing_is_read_behind_the_last_row(name, dtype, rows, row, pitch):
    elements = (rows - 1) * pitch + row
    for side in ("end", "start"):
        memory = Guarded(elements * np.dtype(dtype).itemsize, side)
        line = memory.bytes.view(dtype)
        line[:] = np.random.default_rng(0).standard_normal(elements)
        x = np.lib.stride_tricks.as_strided(line, (rows, row), (pitch * line.itemsize, line.itemsize))
        for y in (x, x.T) if side == "end" else (x,):
            program = tg.compile(FUNCTIONS[name], y)
            assert program._specialised.program.layouts[0] is not None
            plain = y.copy(order="C")
            for a, b in zip(tree.leaves(program(y)), tree.leaves(FUNCTIONS[name](plain)), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        assert memory.is_intact()
