"""Functions that ask a traced value for its elements (`float(x)`, `math.sin(x)`, `np.array([x, y])`), or make an array
to be filled: in converted functions, their traced versions are called."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

import tracegrad.numpy as tnp
from tracegrad import tree
from tracegrad.api.python_control import BUFFERS
from tracegrad.api.python_control.state import as_weak
from tracegrad.errors import ShapeError
from tracegrad.ir.aval import can_hold
from tracegrad.numpy import special
from tracegrad.numpy.promote import shown
from tracegrad.numpy.slices import getitem
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
    "exp2", "expm1", "fabs", "fmod", "log10", "log1p", "log2", "pow", "radians", "sin", "sinh", "sqrt", "tan",
    "tanh",
)  # fmt: skip
SPECIAL = {"erf": special.erf, "erfc": special.erfc, "gamma": special.gamma, "lgamma": special.gammaln}


def hypotenuse(*xs: Any) -> Any:
    return functools.reduce(tnp.hypot, xs, 0.0)


def distance(p: Any, q: Any) -> Any:
    """Return `math.dist` of two sequences."""
    if len(p) != len(q):
        raise ValueError("both points must have the same number of dimensions")
    return hypotenuse(*(a - b for a, b in zip(p, q, strict=True)))


def product(values: Any, *, start: Any = 1) -> Any:
    return functools.reduce(operator.mul, values, start)


def close(a: Any, b: Any, *, rel_tol: Any = 1e-09, abs_tol: Any = 0.0) -> Any:
    """Return `math.isclose` as a traced bool."""
    near = tnp.abs(a - b) <= tnp.maximum(rel_tol * tnp.maximum(tnp.abs(a), tnp.abs(b)), abs_tol)
    return (a == b) | (near & tnp.isfinite(a) & tnp.isfinite(b))


TRACED: dict[Any, Function] = {
    float: number(float),
    int: number(int),
    math.log: mathematical("log", logarithm),
    np.array: tnp.array,
    np.asarray: tnp.asarray,
    np.asanyarray: tnp.asarray,
    np.ascontiguousarray: lambda x, dtype=None: tnp.asarray(tnp.atleast_1d(x), dtype).contiguous(),
    math.dist: distance,
    math.hypot: mathematical("hypot", hypotenuse),
    math.isclose: close,
    math.prod: product,
    **{getattr(math, name): mathematical(name, getattr(tnp, name)) for name in MATH},
    **{getattr(math, name): mathematical(name, function) for name, function in SPECIAL.items()},
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


def any_traced(part: slice) -> bool:
    return isinstance(part.start, Tracer) or isinstance(part.stop, Tracer)


def item(value: Any, index: Any) -> Any:
    """Return `value[index]`: NumPy's arrays take traced indices, `np.c_[x, y]` and `np.r_[x, y]` traced arrays."""
    parts = index if isinstance(index, tuple) else (index,)
    if not any(isinstance(part, Tracer) or (isinstance(part, slice) and any_traced(part)) for part in parts):
        return value[index]
    if (value is np.c_ or value is np.r_) and not any(isinstance(part, (slice, str)) for part in parts):
        arrays = [tnp.atleast_1d(part) for part in parts]
        return tnp.column_stack(arrays) if value is np.c_ else tnp.concatenate(arrays)
    if isinstance(value, np.ndarray) and can_hold(value.dtype):
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
    if found is None and vars(np).get(name) is fn and not any(isinstance(x, Tracer) for x in args):
        found = FUNCTIONS.get(name)  # for lists of traced values, as in np.sum([x, y]): NumPy asks all others itself
    if found is None or fn in FILLED and BUFFERS.get():
        return found
    return found if any(isinstance(x, Tracer) for x in tree.flatten((args, kwargs))[0]) else None
