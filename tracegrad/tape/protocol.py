"""NumPy's functions on tensors: ufuncs and functions with a differentiable version run it, others see the arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.errors import TapeError
from tracegrad.numpy.methods import DYNAMIC
from tracegrad.tape.tensor import Tensor, wrap
from tracegrad.trace import FUNCTIONS, STATE, UFUNCS, Tracer

INTO = "use the returned value, or x.copy_(...)"


def to_array(self: Tensor, dtype: Any = None, copy: bool | None = None) -> Any:
    return np.array(self.numpy(), dtype, copy=copy)


def array_ufunc(self: Tensor, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
    function = UFUNCS.get(ufunc) if method == "__call__" and not kwargs else None
    if function is not None:
        found = function(*inputs)
        return found if type(found) is Tensor else held(found)
    name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
    if kwargs.get("out") is not None:
        return into_array(getattr(ufunc, method), f"numpy.{name}", inputs, kwargs)
    if name in FUNCTIONS:
        return dispatch(name, f"numpy.{name}", inputs, kwargs)
    return plain_numpy(getattr(ufunc, method), f"numpy.{name}", inputs, kwargs)


def array_function(self: Tensor, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
    module = (func.__module__ or "numpy").removeprefix("numpy").strip(".")
    name = f"{module}.{func.__name__}" if module else func.__name__
    if name in FUNCTIONS and name not in DYNAMIC:
        return dispatch(name, f"numpy.{name}", args, kwargs)
    return plain_numpy(func, f"numpy.{name}", args, kwargs)


def dispatch(name: str, shown: str, args: Any, kwargs: Any) -> Any:
    if kwargs.get("out") is not None:
        raise TapeError(f"{shown}: out= cannot be written to", fix=INTO)
    return held(FUNCTIONS[name](*args, **{k: v for k, v in kwargs.items() if k != "out"}))


def held(found: Any) -> Any:
    """Return a result as a tensor if it is an array, outside of traces."""
    return wrap(found) if isinstance(found, np.ndarray) and not STATE.get().traces else found


def into_array(function: Any, shown: str, inputs: Any, kwargs: Any) -> Any:
    """Run a ufunc that writes into NumPy arrays, as in `array += tensor`; the arrays are what is returned."""
    if any(isinstance(o, Tracer) for o in kwargs["out"]):
        raise TapeError(f"{shown}: a tensor cannot be written to with out=", fix=INTO)
    if any(isinstance(x, Tensor) and x.requires_grad for x in inputs):
        raise TapeError(
            f"{shown}: a tensor that requires a gradient cannot be written into a NumPy array",
            fix="write x = x + y, which makes a tensor, or pass x.detach()",
        )
    return function(*(x.numpy() if isinstance(x, Tensor) else x for x in inputs), **kwargs)


def plain_numpy(function: Any, shown: str, args: Any, kwargs: Any) -> Any:
    """Run a NumPy function that has no differentiable version on the arrays behind tensors that need no gradient."""

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            if value.requires_grad:
                raise TapeError(
                    f"{shown} has no gradient", fix="pass x.detach(), or write it with the functions of tracegrad.numpy"
                )
            return value.numpy()
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else value

    found = function(*map(plain, args), **{k: plain(v) for k, v in kwargs.items()})
    return wrap(found) if isinstance(found, np.ndarray) else found


METHODS: dict[str, Any] = {
    "__array__": to_array, "__array_ufunc__": array_ufunc, "__array_function__": array_function,
}  # fmt: skip
