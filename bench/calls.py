"""Calls in tracegrad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tracegrad as tg
from bench.calls_cases import arrays
from bench.ours import version
from bench.session import Repeated


def ends(*xs: Any) -> Any:
    return xs[0] + xs[-1]


def call_of(case: str) -> Callable[[], Any]:
    """Return the call to time."""
    kind, xs = arrays(case)
    if kind == "dict":
        named = {f"x{i}": x for i, x in enumerate(xs)}
        last = f"x{len(xs) - 1}"
        of_dict = tg.jit(lambda d: d["x0"] + d[last])
        return lambda: of_dict(named)
    if kind == "bound":
        return tg.compile(ends, *xs).bind(*xs)
    makers: dict[str, Callable[[], Any]] = {
        "flat": lambda: tg.jit(ends),
        "grad": lambda: tg.grad(lambda *a: (a[0] * a[-1]).sum()),
        "compiled": lambda: tg.compile(ends, *xs),
    }
    function = makers[kind]()
    return lambda: function(*xs)


SESSIONS = {"tracegrad": lambda case: Repeated(call_of(case))}
__all__ = ["SESSIONS", "version"]
