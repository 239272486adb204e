"""Python's own `if`, `while`, `for`, `and`, `or`, `not` on traced values.

A function is traced as it is. Only when its tracing meets the truth of a traced value (or an index that Python itself
must know, as in `range(n)`) it is converted: its statements become calls of the operators in `branches` and `loops`,
which run plain Python where the condition is known and build `cond`, `while_loop` and `scan` where it is traced. The
conversion needs the optional library diastatic-malt (`pip install "tracegrad[loops]"`); `transpile`, the one module
that imports it, is loaded here and only then.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import types
from collections.abc import Callable
from typing import Any

from tracegrad.errors import TracerBoolError, TracerError

INSTALL = 'pip install "tracegrad[loops]"'
MARK = "__tracegrad_converted__"


class CannotConvert(Exception):
    """Why a function cannot be converted."""


def convert(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return `fn` with its control flow as operators, or raise CannotConvert."""
    if getattr(fn, MARK, False):
        return fn
    if isinstance(fn, functools.partial):
        return functools.partial(convert(fn.func), *fn.args, **fn.keywords)
    if isinstance(fn, types.MethodType):
        return types.MethodType(convert(fn.__func__), fn.__self__)
    if not isinstance(fn, types.FunctionType):
        call = getattr(type(fn), "__call__", None)  # noqa: B004 (the method is wanted)
        if not isinstance(call, types.FunctionType):
            raise CannotConvert(f"a {type(fn).__name__} is not a Python function")
        return functools.partial(convert(call), fn)
    if importlib.util.find_spec("malt") is None:
        raise CannotConvert(f"to use Python's if, while and for on traced values: {INSTALL}")
    converted: Callable[..., Any] = importlib.import_module("tracegrad.api.python_control.transpile").convert(fn)
    return converted


def retry(error: TracerBoolError, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return `fn` converted after tracing it met `error`, or raise the error with the reason why that cannot be."""
    try:
        return convert(fn)
    except CannotConvert as reason:
        raise refusal(error, reason) from None


def refusal(error: TracerBoolError, reason: CannotConvert) -> TracerError:
    """Return the error for a decision that Python cannot take and tracegrad cannot convert."""
    fix = f"{error.fix}; write it with tg.cond or tg.while_loop; {reason}"
    return TracerError(error.message, fix=fix, where=error.where)
