"""Compiled pooling between guard pages: arguments, results and the arena, forward and backward."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy as tnp
from tests.library_machine import Guarded, guarded_copy
from tracegrad.nn import functional as F

POOLS = {
    "max1d": (lambda x: F.max_pool1d(x, 3, 2, 1), (2, 3, 37)),
    "max2d": (lambda x: F.max_pool2d(x, (3, 2), (2, 1), (1, 0)), (2, 3, 13, 17)),
    "average1d": (lambda x: F.avg_pool1d(x, 4, 3, 2), (2, 3, 37)),
    "average2d": (lambda x: F.avg_pool2d(x, (2, 3), (1, 2), (1, 1)), (2, 3, 13, 17)),
}


def run_guarded(function: Any, x: np.ndarray, side: str) -> list[np.ndarray]:
    """Run a program of one array with all of its memory flush with a guard page, the arena full of NaN."""
    executable = tg.compile(function, x)._specialised.program.executable
    memory, given = guarded_copy(x, side)
    results = [guarded_copy(np.zeros(shape, dtype), side) for dtype, shape, _ in executable.outputs]
    arena = Guarded(max(executable.facts.arena_bytes, 64), side)
    addresses = [given.ctypes.data, *(r.ctypes.data for _, r in results)]
    table = executable.table_type(
        executable.pool.ctl, arena.bytes.ctypes.data, 0, *addresses, executable.stamp_address
    )  # fmt: skip
    executable.pool.wake()
    assert executable.entry(ctypes.addressof(table)) == 0
    assert all(m.is_intact() for m in (memory, arena, *(m for m, _ in results)))
    assert given.tobytes() == x.tobytes()
    return [r.copy() for _, r in results]


@pytest.mark.parametrize("side", ["start", "end"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", POOLS)
def test_pooling(name, dtype, side):
    pool, shape = POOLS[name]
    x = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    x.flat[5] = np.nan
    function = tg.value_and_grad(lambda x: tnp.sum(pool(x) ** 2))
    found = run_guarded(function, x, side)
    with tg.eager():
        expected = function(x)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)

