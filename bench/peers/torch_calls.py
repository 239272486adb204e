"""Calls in PyTorch: functions through torch.compile (Inductor)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bench.calls_cases import arrays
from bench.peers.torch_steps import version
from bench.session import Repeated


def call_of(case: str) -> Callable[[], Any]:
    kind, given = arrays(case)
    xs = [torch.from_numpy(x) for x in given]
    if kind == "dict":
        named = {f"x{i}": x for i, x in enumerate(xs)}
        last = f"x{len(xs) - 1}"
        of_dict = torch.compile(lambda d: d["x0"] + d[last])
        return lambda: of_dict(named)
    functions: dict[str, Callable[..., Any]] = {
        "flat": lambda *a: a[0] + a[-1],
        "grad": torch.func.grad(lambda *a: (a[0] * a[-1]).sum()),
    }
    if kind not in functions:
        raise NotImplementedError(f"torch.compile has no {kind} calls")
    function = torch.compile(functions[kind])
    return lambda: function(*xs)


SESSIONS = {"inductor": lambda case: Repeated(call_of(case))}
__all__ = ["SESSIONS", "version"]
