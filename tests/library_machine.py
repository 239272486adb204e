"""Running library kernels under guard: operands and scratch end at a page that no one may touch."""

from __future__ import annotations

import ctypes
import functools
import mmap
from collections.abc import Sequence

import numpy as np

from tracegrad.codegen import library
from tracegrad.codegen.plan import LibraryCall
from tracegrad.runtime.objects import define_symbols, load_object
from tracegrad.runtime.pool import Pool

PATTERN = 0xAB
JUNK = 0xFF  # NaN as a float: what scratch holds before a call
ENTRY = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)
PROT_NONE = 0


@functools.cache
def load_family(family: str, isa: str | None = None) -> dict[str, int]:
    """Compile and load a family once per process."""
    addresses = load_object(library.build(family, isa), library.FAMILIES[family])
    if family == "pool":
        define_symbols({"tg_par_for": addresses["tg_par_for"]})
    return addresses


@functools.cache
def pool_of(threads: int) -> Pool:
    return Pool(threads, load_family("pool")["tg_worker"])


class Guarded:
    """Memory of some bytes that ends right before an inaccessible page, and follows a pattern that is checked."""

    def __init__(self, size: int, fill: int = JUNK) -> None:
        page = mmap.PAGESIZE
        pages = -(-(size + 64) // page) * page
        self._map = mmap.mmap(-1, pages + page)
        block = np.frombuffer(self._map, np.uint8)
        protect = ctypes.CDLL(None).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        assert protect(block.ctypes.data + pages, page, PROT_NONE) == 0
        self._before = block[: pages - size]
        self._before[:] = PATTERN
        self.bytes = block[pages - size : pages]
        self.bytes[:] = fill

    def is_intact(self) -> bool:
        return bool((self._before == PATTERN).all())


def guarded_copy(array: np.ndarray) -> tuple[Guarded, np.ndarray]:
    """Return guarded memory and a contiguous copy of an array in it."""
    memory = Guarded(array.nbytes)
    view = memory.bytes.view(array.dtype).reshape(array.shape)
    view[...] = array
    return memory, view


def run(call: LibraryCall, inputs: Sequence[np.ndarray], output: np.ndarray, threads: int, isa: str | None = None):
    """Run a plan on guarded copies; return the output (its initial content is junk, or `output` where not written)."""
    load_family("pool")
    function = ENTRY(load_family(call.family, isa)[call.symbol])
    pairs = [guarded_copy(array) for array in [*inputs, output]]
    plan_memory, plan = guarded_copy(np.array(call.plan, np.int64))
    operands = np.array([view.ctypes.data for _, view in pairs], np.int64)
    assert call.scratch_bytes % 64 == 0
    scratch = Guarded(call.scratch_bytes)
    pool = pool_of(threads)
    pool.wake()
    function(plan.ctypes.data, operands.ctypes.data, scratch.bytes.ctypes.data, pool.ctl)
    assert plan.tolist() == list(call.plan)
    assert all(memory.is_intact() for memory in [plan_memory, scratch, *(memory for memory, _ in pairs)])
    for array, (_, view) in zip(inputs, pairs, strict=False):
        assert view.tobytes() == np.ascontiguousarray(array).tobytes()
    return pairs[-1][1].copy()
