"""Gradients for NumPy code at the speed of the machine: trace once, differentiate, compile, call."""

from typing import TYPE_CHECKING

from tracegrad import lazy, numpy
from tracegrad.api.compiled import Compiled, compile, load
from tracegrad.api.function import grad, jit, value_and_grad
from tracegrad.api.signature import spec
from tracegrad.config import config
from tracegrad.errors import TracegradError
from tracegrad.trace import eager

if TYPE_CHECKING:
    from tracegrad import autograd, data, nn, optim, random, testing  # noqa: F401 (of MODULES)
    from tracegrad.api.associative import associative_scan
    from tracegrad.api.batching import vmap
    from tracegrad.api.benchmark import benchmark
    from tracegrad.api.control import checkpoint, cond, fori_loop, map, scan, switch, while_loop
    from tracegrad.api.custom_function import Function
    from tracegrad.api.custom_vjp import custom_vjp
    from tracegrad.api.forward import hessian, jacfwd, jacrev, jvp
    from tracegrad.api.pullback import stop_gradient, vjp
    from tracegrad.tape.create import as_tensor, from_dlpack, from_numpy, tensor, track, untrack
    from tracegrad.tape.modes import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
    from tracegrad.tape.tensor import Tensor

PLACES = {
    "tracegrad.api.associative": ("associative_scan",),
    "tracegrad.api.batching": ("vmap",),
    "tracegrad.api.benchmark": ("benchmark",),
    "tracegrad.api.control": ("checkpoint", "cond", "fori_loop", "map", "scan", "switch", "while_loop"),
    "tracegrad.api.custom_function": ("Function",),
    "tracegrad.api.custom_vjp": ("custom_vjp",),
    "tracegrad.api.forward": ("hessian", "jacfwd", "jacrev", "jvp"),
    "tracegrad.api.pullback": ("stop_gradient", "vjp"),
    "tracegrad.tape.create": ("as_tensor", "from_dlpack", "from_numpy", "tensor", "track", "untrack"),
    "tracegrad.tape.modes": ("enable_grad", "is_grad_enabled", "no_grad", "set_grad_enabled"),
    "tracegrad.tape.tensor": ("Tensor",),
}
MODULES = ("autograd", "data", "nn", "optim", "random", "testing")
__getattr__, __dir__ = lazy.names(__name__, PLACES, MODULES)

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
