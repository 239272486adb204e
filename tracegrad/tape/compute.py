"""One primitive, computed at once: without NumPy's warnings, and with the shape rule's errors."""

from __future__ import annotations

import contextvars
import threading
from typing import Any

import numpy as np

from tracegrad.errors import TracegradError
from tracegrad.ir import Primitive
from tracegrad.tape.node import aval_of

FRESH = ("elementwise", "reduce", "contract")
"""Kinds whose results never share memory with an operand (`stop_gradient` apart)."""
TRUSTED = (*FRESH, "shape")
"""Kinds whose eager rules refuse operands that do not fit: their shape rules need not run first."""


class Quiet(threading.local):
    """A context in which NumPy does not warn of overflow and invalid values: entered faster than `np.errstate`."""

    def __init__(self) -> None:
        self.context = contextvars.Context()
        self.context.run(np.seterr, all="ignore")


QUIET = Quiet()


def compute(prim: Primitive, values: list[Any], params: dict[str, Any]) -> Any:
    """Run the eager rule; operands that do not fit get the error of the shape rule."""
    if prim.kind not in TRUSTED:
        prim.aval(*map(aval_of, values), **params)
    try:
        return QUIET.context.run(prim.eager, *values, **params)
    except TracegradError:
        raise
    except (ValueError, TypeError, IndexError):
        prim.aval(*map(aval_of, values), **params)
        raise
