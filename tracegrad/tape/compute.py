"""One primitive, computed at once: without NumPy's warnings, and with the shape rule's errors. What NumPy is slow at is
compiled once it has been used enough (`kernels`)."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import numpy as np

from tracegrad.errors import TracegradError
from tracegrad.ir import Primitive
from tracegrad.tape.kernels import program_of, usable
from tracegrad.tape.node import aval_of

FRESH = ("elementwise", "reduce", "contract", "window")
"""Kinds whose results never share memory with an operand (`stop_gradient` apart)."""
TRUSTED = ("elementwise", "reduce", "contract", "shape")
"""Kinds whose eager rules refuse operands that do not fit: their shape rules need not run first."""


class Quiet(threading.local):
    """A context in which NumPy does not warn of overflow and invalid values: entered faster than `np.errstate`."""

    def __init__(self) -> None:
        self.context = contextvars.Context()
        self.context.run(np.seterr, all="ignore")


QUIET = Quiet()


def compute(prim: Primitive, values: list[Any], params: dict[str, Any]) -> Any:
    """Run the eager rule, or a program that stands in for it; operands that do not fit get the shape rule's error."""
    if prim.kind not in TRUSTED:
        prim.aval(*map(aval_of, values), **params)
    if prim.costly and usable(prim, values):
        program = program_of(prim, values, params)
        if program is not None:
            return np.asarray(program(values)[0])
    try:
        return QUIET.context.run(prim.eager, *values, **params)
    except TracegradError:
        raise
    except (ValueError, TypeError, IndexError):
        prim.aval(*map(aval_of, values), **params)
        raise
