"""Gradients for NumPy code at the speed of the machine: trace once, differentiate, compile, call."""

import importlib
from typing import Any

from tracegrad import numpy
from tracegrad.api.associative import associative_scan
from tracegrad.api.batching import vmap
from tracegrad.api.benchmark import benchmark
from tracegrad.api.compiled import Compiled, compile, load
from tracegrad.api.control import checkpoint, cond, fori_loop, map, scan, switch, while_loop
from tracegrad.api.custom_function import Function
from tracegrad.api.custom_vjp import custom_vjp
from tracegrad.api.forward import hessian, jacfwd, jacrev, jvp
from tracegrad.api.function import grad, jit, value_and_grad
from tracegrad.api.pullback import stop_gradient, vjp
from tracegrad.api.signature import spec
from tracegrad.config import config
from tracegrad.errors import TracegradError
from tracegrad.trace import eager

__version__ = "0.1.0"
__all__ = [
    "Compiled",
    "Function",
    "Tensor",
    "TracegradError",
    "as_tensor",
    "associative_scan",
    "benchmark",
    "checkpoint",
    "compile",
    "cond",
    "config",
    "custom_vjp",
    "eager",
    "enable_grad",
    "fori_loop",
    "from_dlpack",
    "from_numpy",
    "grad",
    "hessian",
    "is_grad_enabled",
    "jacfwd",
    "jacrev",
    "jit",
    "jvp",
    "load",
    "map",
    "no_grad",
    "numpy",
    "scan",
    "set_grad_enabled",
    "spec",
    "stop_gradient",
    "switch",
    "tensor",
    "track",
    "untrack",
    "value_and_grad",
    "vjp",
    "vmap",
    "while_loop",
]


TAPE = (
    "Tensor", "as_tensor", "enable_grad", "from_dlpack", "from_numpy", "is_grad_enabled", "no_grad", "set_grad_enabled",
    "tensor", "track", "untrack",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    """Import the tape, `nn`, `optim`, `random` and `data` when they are first used: gradients alone need none."""
    if name in TAPE:
        found = getattr(importlib.import_module("tracegrad.tape"), name)
    elif name in ("autograd", "data", "nn", "optim", "random", "testing"):
        found = importlib.import_module(f"tracegrad.{name}")
    else:
        raise AttributeError(f"module 'tracegrad' has no attribute {name!r}")
    globals()[name] = found
    return found
