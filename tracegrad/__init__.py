"""Gradients for NumPy code at the speed of the machine: trace once, differentiate, compile, call."""

from tracegrad.api.function import grad, jit, value_and_grad
from tracegrad.api.signature import spec
from tracegrad.trace import eager

__all__ = ["eager", "grad", "jit", "spec", "value_and_grad"]
