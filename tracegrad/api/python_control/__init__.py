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
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any, TypeVar

from tracegrad.errors import LongLoop, TracerBoolError, TracerError, TracerValueError
from tracegrad.memory import BUFFER_FIX
from tracegrad.trace import patience

F = TypeVar("F")
T = TypeVar("T")
INSTALL = 'pip install "tracegrad[loops]"'
MARK = "__tracegrad_converted__"
BUFFERS: ContextVar[bool] = ContextVar("tracegrad_buffers", default=False)
"""Whether `np.zeros` and the like make traced arrays in converted functions, so that these can be filled."""
PATIENCE = 300
"""How many nodes a line of a function may make before its loops are to be compiled."""


class Rolled:
    """The loops that are compiled because they are long: how many, and the bounds of their counters' nodes.

    `failed` counts by their code those that had to be unrolled after all.
    `rows`: loops over arrays are compiled for that reason alone, too, so that their integers are to be looked at.
    """

    def __init__(self, rows: bool):
        self.rows = rows
        self.loops = 0
        self.bounds: dict[Any, tuple[float, float] | None] = {}
        self.failed: Counter[types.CodeType] = Counter()


ROLLING: ContextVar[Rolled | None] = ContextVar("tracegrad_rolling", default=None)


@contextmanager
def compiling_loops(rows: bool) -> Iterator[Rolled]:
    """Compile long loops of converted functions inside this block, instead of unrolling them."""
    found = Rolled(rows)
    token = ROLLING.set(found)
    try:
        yield found
    finally:
        ROLLING.reset(token)


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


def retry(fn: Callable[..., Any], error: TracerBoolError) -> Callable[..., Any]:
    """Return `fn` converted after tracing it met `error`, or raise the error with the reason why that cannot be."""
    try:
        converted = convert(fn)
    except CannotConvert as reason:
        raise refusal(error, reason) from None
    return functools.partial(again, converted)


def converted_at_need(fn: F, run: Callable[[F], T], convert: Callable[[F, TracerBoolError], F]) -> T:
    """Return `run(fn)`; where that meets a decision on a traced value or a long loop, run what `convert` makes of it.

    If it fails with long loops compiled, they are unrolled.
    """
    try:
        with patience(PATIENCE):
            return run(fn)
    except LongLoop as error:
        with suppress(Exception):  # then it is unrolled
            return with_its_loops(convert(fn, error), run, rows=True)
    except TracerBoolError as error:
        return with_its_loops(convert(fn, error), run, rows=False)
    with patience(0):
        try:
            return run(fn)
        except TracerBoolError as error:
            converted = convert(fn, error)
        return run(converted)


def with_its_loops(converted: F, run: Callable[[F], T], rows: bool) -> T:
    """Run something converted with its long loops compiled; if that fails, with these unrolled."""
    with patience(0):
        with compiling_loops(rows) as rolled:
            try:
                return run(converted)
            except Exception:
                if not rolled.loops:
                    raise
        return run(converted)


def again(converted: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a converted function; if it fills arrays of NumPy's with traced values, call it with traced arrays."""
    try:
        with asking():
            return converted(*args, **kwargs)
    except TracerValueError as error:
        token, first = BUFFERS.set(True), error
    try:
        with asking():
            return converted(*args, **kwargs)
    except TracerError:
        raise TracerError(first.message, fix=first.fix, where=first.where) from None
    finally:
        BUFFERS.reset(token)


@contextmanager
def asking() -> Iterator[None]:
    """Turn NumPy's `setting an array element with a sequence` into the error of the traced value it asked."""
    try:
        yield
    except ValueError as error:
        if isinstance(error.__cause__, TracerValueError):
            raise TracerValueError(
                "item assignment: an array of NumPy's cannot hold a traced value",
                fix=f"use {BUFFER_FIX}",
                where=error.__cause__.where,
            ) from None
        raise


def refusal(error: TracerBoolError, reason: CannotConvert) -> TracerError:
    """Return the error for a decision that Python cannot take and tracegrad cannot convert."""
    control = "" if isinstance(error, TracerValueError) else "write it with tg.cond or tg.while_loop; "
    return TracerError(error.message, fix=f"{error.fix}; {control}{reason}", where=error.where)
