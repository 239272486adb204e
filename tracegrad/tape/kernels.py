"""Compiled kernels for single primitives at which NumPy is slow: convolutions, pooling, transcendentals, random bits.

A signature (primitive, shapes, dtypes, parameters) starts in NumPy. Once NumPy has worked through so many elements that
compiling would have paid, a program of one node takes over, for good: that is decided by counting, never by a clock, so
a run can be repeated bit for bit. `TRACEGRAD_TAPE_KERNELS=0` (`tg.config`: `tape_kernels`) keeps everything in NumPy,
and so does `tg.eager()`, the reference that compiled code is compared with.
"""

from __future__ import annotations

import itertools
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegrad.config import config
from tracegrad.errors import CompileError
from tracegrad.ir import Aval, Primitive
from tracegrad.runtime.program import Program, build
from tracegrad.trace import STATE, State, trace

ENOUGH = 1 << 20
"""Elements, operands and results together, after which a signature is compiled. That is some 50 ms of NumPy's time, and
compiling takes 25 to 110 ms, or 3 to 15 ms when the cache on disk has the program already."""
PER_CALL = 1000
"""What a call counts for beside its elements."""
MOST = 512
"""Signatures that are kept; when there are more, the half that was used longest ago is forgotten."""

Signature = tuple[Any, ...]
CLOCK = itertools.count()


class Use:
    """What has become of one signature: elements counted so far, then a program."""

    __slots__ = ("compiling", "elements", "failed", "last", "program")

    def __init__(self) -> None:
        self.elements = 0
        self.last = 0
        self.failed = False
        self.program: Program | None = None
        self.compiling = threading.Lock()


USES: dict[Signature, Use] = {}
TIDYING = threading.Lock()


def usable(prim: Primitive, values: Sequence[Any]) -> bool:
    """Say whether a program may stand in for the eager rule here."""
    if not config.tape_kernels or STATE.get().eager:
        return False
    return prim.costly == 1 or max([v.size for v in values if isinstance(v, np.ndarray)], default=0) >= prim.costly


def use_of(prim: Primitive, values: Sequence[Any], params: dict[str, Any]) -> Use:
    """Return the record of a call's signature."""
    shapes = tuple([(v.shape, v.dtype) for v in values])
    key = (prim, shapes, tuple(params.items()), config.threads)
    use = USES.get(key)
    if use is None:
        use = USES.setdefault(key, Use())
        if len(USES) > MOST:
            tidy()
    use.last = next(CLOCK)
    return use


def tidy() -> None:
    """Forget what was used longest ago. Nobody waits: another thread may be at it, or have been when it was forked."""
    if TIDYING.acquire(blocking=False):
        try:
            entries = list(USES.items())  # at once: other threads add to it
            entries.sort(key=lambda entry: entry[1].last)
            for key, _ in entries[: MOST // 2]:
                USES.pop(key, None)
        finally:
            TIDYING.release()


def program_of(prim: Primitive, values: Sequence[Any], params: dict[str, Any]) -> Program | None:
    """Return the program for a call, compiling it if that pays by now; None: NumPy does it."""
    use = use_of(prim, values, params)
    if use.program is not None or use.failed:
        return use.program
    use.elements += PER_CALL + elements(prim, values, params)
    if use.elements < ENOUGH or not use.compiling.acquire(blocking=False):
        return None
    try:
        use.program = one_node(prim, values, params)
    except CompileError as error:
        use.failed = True
        warnings.warn(f"{prim.name} stays with NumPy on the tape: {error}", RuntimeWarning, stacklevel=2)
    finally:
        use.compiling.release()
    return use.program


def elements(prim: Primitive, values: Sequence[Any], params: dict[str, Any]) -> int:
    """Count the elements that one call works through."""
    avals = [Aval(v.shape, v.dtype) for v in values]
    return sum(a.size for a in avals) + prim.aval(*avals, **params).size


def one_node(prim: Primitive, values: Sequence[Any], params: dict[str, Any]) -> Program:
    """Compile `prim` alone, outside whatever is being traced or switched off here."""
    token = STATE.set(State())
    try:
        avals = [Aval(tuple(v.shape), v.dtype) for v in values]
        return build(trace(lambda *operands: prim(*operands, **params), avals, name=prim.name).graph)
    finally:
        STATE.reset(token)
