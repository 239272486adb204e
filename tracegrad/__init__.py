"""Gradients for NumPy code at the speed of the machine: trace once, differentiate, compile, call."""

from tracegrad import numpy
from tracegrad.api.benchmark import benchmark
from tracegrad.api.compiled import Compiled, compile
from tracegrad.api.function import grad, jit, value_and_grad
from tracegrad.api.pullback import stop_gradient, vjp
from tracegrad.api.signature import spec
from tracegrad.config import config
from tracegrad.errors import TracegradError
from tracegrad.trace import eager

__version__ = "0.1.0"
__all__ = [
    "Compiled",
    "TracegradError",
    "benchmark",
    "compile",
    "config",
    "eager",
    "grad",
    "jit",
    "numpy",
    "spec",
    "stop_gradient",
    "value_and_grad",
    "vjp",
]
