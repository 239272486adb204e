"""Calls in HIPS autograd: gradients on a tape that every call writes anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autograd import grad

from bench.calls_cases import arrays
from bench.peers.autograd_steps import version
from bench.session import Repeated


def call_of(case: str) -> Callable[[], Any]:
    kind, xs = arrays(case)
    if kind != "grad":
        raise NotImplementedError(f"autograd compiles nothing: it has no {kind} calls")
    function = grad(lambda *a: (a[0] * a[-1]).sum())
    return lambda: function(*xs)


SESSIONS = {"autograd": lambda case: Repeated(call_of(case))}
__all__ = ["SESSIONS", "version"]
