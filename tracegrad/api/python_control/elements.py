"""Functions that ask a traced value for its elements (`float(x)`, `math.sin(x)`, `np.array([x, y])`), or make an array
to be filled: in converted functions, their traced versions are called."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import tracegrad.numpy as tnp
from tracegrad import tree
from tracegrad.api.python_control import BUFFERS
from tracegrad.api.python_control.state import as_weak
from tracegrad.errors import ShapeError
from tracegrad.ir.aval import can_hold
from tracegrad.numpy.indexing import getitem
from tracegrad.numpy.promote import shown
from tracegrad.trace import FUNCTIONS, Tracer

Function = Callable[..., Any]


def scalar(name: str, x: Any, dtype: Any) -> Any:
    """Return a traced value that stands for a number of Python's: promoted like one."""
    x = tnp.asarray(x)
    if x.size != 1:
        raise ShapeError(f"{name}: {shown(x)} is not one number", fix=f"use x.astype(np.{np.dtype(dtype).name})")
    return as_weak(x.reshape(()).astype(dtype), True)


def number(kind: type) -> Function:
    """Return `float` or `int` for a traced value."""
    return lambda x: scalar(kind.__name__, x, kind)


def typed(kind: type[np.generic]) -> Function:
    """Return the constructor of a dtype for a traced value."""
    return lambda x: tnp.astype(x, kind)


def mathematical(name: str, function: Function, result: type = float) -> Function:
    """Return a function of `math`, which computes in float64, for traced values."""
    return lambda *xs: scalar(f"math.{name}", function(*(scalar(f"math.{name}", x, float) for x in xs)), result)


def logarithm(x: Any, base: Any = math.e) -> Any:
    return tnp.log(x) if base is math.e else tnp.log(x) / tnp.log(base)


MATH = (
    "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "copysign", "cos", "cosh", "degrees", "exp",
    "exp2", "expm1", "fabs", "fmod", "hypot", "log10", "log1p", "log2", "pow", "radians", "sin", "sinh", "sqrt", "tan",
    "tanh",
)  # fmt: skip
TRACED: dict[Any, Function] = {
    float: number(float),
    int: number(int),
    math.log: mathematical("log", logarithm),
    np.array: tnp.array,
    np.asarray: tnp.asarray,
    **{getattr(math, name): mathematical(name, getattr(tnp, name)) for name in MATH},
    **{getattr(math, name): mathematical(name, getattr(tnp, name), int) for name in ("ceil", "floor", "trunc")},
    **{getattr(math, name): mathematical(name, getattr(tnp, name), bool) for name in ("isfinite", "isinf", "isnan")},
}
"""What is called instead when an argument is traced."""
FILLED: dict[Any, Function] = {
    getattr(np, name): getattr(tnp, name)
    for name in (
        "arange", "array", "copy", "empty", "empty_like", "eye", "full", "full_like", "identity", "linspace", "ones",
        "ones_like", "zeros", "zeros_like",
    )
}
"""What is called instead where arrays of NumPy's were to be filled with traced values."""


def item(value: Any, index: Any) -> Any:
    """Return `value[index]`; an array of NumPy's takes traced indices, too."""
    if isinstance(value, np.ndarray) and can_hold(value.dtype):
        parts = index if isinstance(index, tuple) else (index,)
        if any(isinstance(part, Tracer) for part in parts):
            return getitem(value, index)
    return value[index]


def traced_version(fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Function | None:
    """Return what a converted function calls in place of `fn`, if it is something else."""
    try:
        found = FILLED.get(fn) if BUFFERS.get() else None
        found = found or TRACED.get(fn)
    except TypeError:  # it cannot be hashed
        return None
    if found is None and isinstance(fn, type) and issubclass(fn, np.generic):
        found = typed(fn)
    name = getattr(fn, "__name__", "")
    if found is None and getattr(np, name, None) is fn and not any(isinstance(x, Tracer) for x in args):
        found = FUNCTIONS.get(name)  # for lists of traced values, as in np.sum([x, y]): NumPy asks all others itself
    if found is None or fn in FILLED and BUFFERS.get():
        return found
    return found if any(isinstance(x, Tracer) for x in tree.flatten((args, kwargs))[0]) else None
