"""Gradients for NumPy code at the speed of the machine: trace once, differentiate, compile, call."""

import importlib
from typing import Any

from tracegrad import numpy
from tracegrad.api.benchmark import benchmark
from tracegrad.api.compiled import Compiled, compile, load
from tracegrad.api.control import associative_scan, checkpoint, cond, fori_loop, map, scan, switch, while_loop
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
    "TracegradError",
    "associative_scan",
    "benchmark",
    "checkpoint",
    "compile",
    "cond",
    "config",
    "custom_vjp",
    "eager",
    "fori_loop",
    "grad",
    "hessian",
    "jacfwd",
    "jacrev",
    "jit",
    "jvp",
    "load",
    "map",
    "numpy",
    "scan",
    "spec",
    "stop_gradient",
    "switch",
    "value_and_grad",
    "vjp",
    "while_loop",
]


def __getattr__(name: str) -> Any:
    """Import `nn`, `optim`, `random` and `data` when they are first used: gradients alone need none of them."""
    if name in ("data", "nn", "optim", "random"):
        return importlib.import_module(f"tracegrad.{name}")
    raise AttributeError(f"module 'tracegrad' has no attribute {name!r}")
