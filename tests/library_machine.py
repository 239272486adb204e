"""Running library kernels under guard: operands and scratch begin or end at a page that no one may touch."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
from collections.abc import Sequence

import numpy as np

from tracegrad.codegen.plan import LibraryCall
from tracegrad.codegen.tile_shape import SHAPES
from tracegrad.runtime import library
from tracegrad.runtime.pool import Pool

# Another tile than this CPU's, to run what the machine itself has no registers for; the cache must be off.
if os.environ.get("GUARDED_TILE"):
    SHAPES.update(dict.fromkeys(SHAPES, SHAPES[os.environ["GUARDED_TILE"]]))

FLOATS = tuple(os.environ.get("GUARDED_FLOATS", "float32 float64").split())
"""The dtypes whose kernels run: each takes a third of a minute to compile for another tile."""

PATTERN = 0xAB
JUNK = 0xFF  # NaN as a float: what scratch holds before a call
ENTRY = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
PROT_NONE = 0


@functools.cache
def load_family(family: str) -> dict[str, int]:
    """Load a family once per process: from the cache, or compiled now."""
    library.ensure([family])
    return library.loaded(family)


@functools.cache
def pool_of(threads: int) -> Pool:
    return Pool(threads, load_family("pool")["tg_worker"])


class Guarded:
    """Memory between inaccessible pages, flush with one of them; the gap to the other holds a pattern to be checked."""

    def __init__(self, size: int, side: str = "end", fill: int = JUNK) -> None:
        page = mmap.PAGESIZE
        inner = -(-(size + 64) // page) * page
        self._map = mmap.mmap(-1, inner + 2 * page)
        block = np.frombuffer(self._map, np.uint8)
        protect = ctypes.CDLL(None).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for guard in (0, page + inner):
            assert protect(block.ctypes.data + guard, page, PROT_NONE) == 0
        start = page if side == "start" else page + inner - size
        self._gaps = block[page:start], block[start + size : page + inner]
        for gap in self._gaps:
            gap[:] = PATTERN
        self.bytes = block[start : start + size]
        self.bytes[:] = fill

    def is_intact(self) -> bool:
        return all(bool((gap == PATTERN).all()) for gap in self._gaps)


def guarded_copy(array: np.ndarray, side: str = "end") -> tuple[Guarded, np.ndarray]:
    """Return guarded memory and a contiguous copy of an array in it."""
    memory = Guarded(array.nbytes, side)
    view = memory.bytes.view(array.dtype).reshape(array.shape)
    view[...] = array
    return memory, view


def run(
    call: LibraryCall,
    inputs: Sequence[np.ndarray],
    output: np.ndarray,
    threads: int,
    side: str = "end",
    keep_scratch: list[np.ndarray] | None = None,
) -> np.ndarray:
    """Run a plan on guarded copies; return the output (its initial content is junk, or `output` where not written)."""
    load_family("pool")
    function = ENTRY(load_family(call.family)[call.symbol])
    pairs = [guarded_copy(array, side) for array in [*inputs, output]]
    plan_memory, plan = guarded_copy(np.array(call.plan, np.int64), side)
    operands = np.array([view.ctypes.data for _, view in pairs] + [0, 0], np.int64)  # no epilogue
    assert call.scratch_bytes % 64 == 0
    scratch = Guarded(call.scratch_bytes, side)
    pool = pool_of(threads)
    pool.wake()
    function(plan.ctypes.data, operands.ctypes.data, scratch.bytes.ctypes.data, pool.ctl)
    assert plan.tolist() == list(call.plan)
    assert all(memory.is_intact() for memory in [plan_memory, scratch, *(memory for memory, _ in pairs)])
    for array, (_, view) in zip(inputs, pairs, strict=False):
        assert view.tobytes() == np.ascontiguousarray(array).tobytes()
    if keep_scratch is not None:
        keep_scratch.append(scratch.bytes.copy())
    return pairs[-1][1].copy()
