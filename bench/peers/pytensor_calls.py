"""Calls in PyTensor: compiled functions of vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytensor
import pytensor.tensor as pt

from bench.calls_cases import arrays
from bench.session import Repeated


def call_of(case: str) -> Callable[[], Any]:
    kind, xs = arrays(case)
    names = [pt.vector(f"x{i}", dtype="float32") for i in range(len(xs))]
    results: dict[str, Callable[[], Any]] = {
        "flat": lambda: names[0] + names[-1],
        "compiled": lambda: names[0] + names[-1],
        "grad": lambda: pytensor.grad((names[0] * names[-1]).sum(), names[0]),
    }
    if kind not in results:
        raise NotImplementedError(f"PyTensor has no {kind} calls")
    function = pytensor.function(names, results[kind](), on_unused_input="ignore")
    return lambda: function(*xs)


def version() -> str:
    """Return the library's version."""
    return str(pytensor.__version__)


SESSIONS = {"pytensor": lambda case: Repeated(call_of(case))}
