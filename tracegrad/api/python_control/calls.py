"""Calls inside converted functions: the user's own functions are converted, too, and a few builtins take traced
values."""

from __future__ import annotations

import builtins
import functools
import inspect
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracegrad.api.python_control import MARK, ROLLING, CannotConvert, convert, elements, refusal
from tracegrad.api.python_control.branches import and_, if_exp, or_, truth
from tracegrad.api.python_control.effects import is_users, refuse_next
from tracegrad.api.python_control.state import as_weak, is_number, is_traced
from tracegrad.errors import ArgumentError, TracerBoolError, TracerError
from tracegrad.numpy.promote import array
from tracegrad.trace import Tracer

CONTROL = "tracegrad.api.control"


@dataclass(frozen=True)
class TracedRange:
    """`range` with a limit that only the compiled program knows."""

    start: Any
    stop: Any
    step: Any

    @classmethod
    def of(cls, *limits: Any) -> TracedRange:
        if any(is_traced(n) and (n.dtype.kind not in "iu" or n.size != 1) for n in limits):
            raise ArgumentError("range: its limits must be integers", fix="use n.astype(np.int64)")
        start, stop, step = (0, *limits, 1) if len(limits) == 1 else (*limits, 1)[:3]
        if not is_traced(step) and step == 0:
            raise ValueError("range() arg 3 must not be zero")
        return cls(start, stop, step)

    def holds(self, number: Any) -> Any:
        """Say whether the loop goes on with this number."""
        if not is_traced(self.step):
            return number < self.stop if self.step > 0 else number > self.stop
        return ((self.step > 0) & (number < self.stop)) | ((self.step < 0) & (number > self.stop))

    def backwards(self) -> TracedRange:
        """Return the same numbers from the last to the first."""
        if is_traced(self.step):
            raise TracerError("reversed: the step of a range is not known while tracing", fix="make it static")
        sign = 1 if self.step > 0 else -1
        last = self.start + (self.stop - self.start - sign) // self.step * self.step
        return TracedRange(last, self.start - self.step, -self.step)

    def __iter__(self) -> Iterator[Any]:
        for limit in (self.start, self.stop, self.step):
            range(limit)
        return iter(())


@dataclass(frozen=True)
class Rows:
    """What a `for` over arrays goes through: rows of each, put together by `item`."""

    arrays: tuple[Any, ...]
    item: Callable[[tuple[Any, ...]], Any]

    def __len__(self) -> int:
        return int(min(a.shape[0] for a in self.arrays))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int) and index >= len(self):
            raise IndexError(index)
        return self.item(tuple(array("for", a)[index] if is_traced(index) else a[index] for a in self.arrays))

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))


def is_array(value: Any) -> bool:
    return isinstance(value, (Tracer, np.ndarray)) and is_number(value) and value.ndim > 0


def enumerated(values: Any, start: int = 0) -> Any:
    if not is_array(values):
        return enumerate(values, start)
    n = values.shape[0]
    return Rows((np.arange(start, start + n), values), lambda row: (counter(row[0], start, start + n - 1), row[1]))


def counter(number: Any, first: int, last: int) -> Any:
    """Return a loop's number as one of Python's, known to lie between two others."""
    found = as_weak(number, True)
    if isinstance(found, Tracer):
        found._trace.bounds[found._node] = bounds = (min(first, last), max(first, last))
        if (context := ROLLING.get()) is not None:
            context.bounds[found._node] = bounds
    return found


def zipped(*parts: Any, strict: bool = False) -> Any:
    if not parts or not all(is_array(p) for p in parts):
        return zip(*parts, strict=strict)
    n = min(p.shape[0] for p in parts)
    if strict and any(p.shape[0] != n for p in parts):
        raise ValueError("zip(): the arrays differ in length")
    return Rows(tuple(p[:n] for p in parts), lambda row: tuple(row))


def backwards(values: Any) -> Any:
    if isinstance(values, range):
        return values[::-1]
    if isinstance(values, TracedRange):
        return values.backwards()
    return Rows((values[::-1],), lambda row: row[0]) if is_array(values) else reversed(values)


def ranged(*limits: Any) -> Any:
    return TracedRange.of(*limits) if any(is_traced(n) for n in limits) else range(*limits)


def boolean(value: Any = False) -> Any:
    return truth(value) if is_traced(value) else bool(value)


def extreme(plain: Callable[..., Any], better: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """Return `min` or `max` for numbers that may be traced; ties and NaN as in Python."""

    def pick(*values: Any, **options: Any) -> Any:
        given = list(values[0]) if len(values) == 1 and isinstance(values[0], (list, tuple, Tracer)) else list(values)
        if options or not any(is_traced(v) for v in given):
            return plain(*values, **options)
        return functools.reduce(lambda a, b: if_exp(better(b, a), lambda: b, lambda: a), given)

    return pick


def folded(plain: Callable[[Any], bool], join: Callable[[Any, Callable[[], Any]], Any]) -> Callable[[Any], Any]:
    """Return `any` or `all` for elements that may be traced."""

    def fold(values: Any) -> Any:
        given = list(values)
        if not any(is_traced(v) for v in given):
            return plain(given)
        return functools.reduce(lambda a, b: join(lambda: a, lambda: b), map(boolean, given))

    return fold


def in_order(values: Any, **options: Any) -> Any:
    given = list(values)
    if any(is_traced(v) for v in given):
        raise TracerError("sorted: the order of traced values is not known while tracing", fix="use np.sort(x)")
    return sorted(given, **options)


BUILTINS: dict[Any, Callable[..., Any]] = {
    all: folded(all, and_),
    any: folded(any, or_),
    bool: boolean,
    enumerate: enumerated,
    max: extreme(builtins.max, lambda b, a: b > a),
    min: extreme(builtins.min, lambda b, a: b < a),
    range: ranged,
    reversed: backwards,
    sorted: in_order,
    zip: zipped,
}


def code_of(fn: Any) -> types.FunctionType | None:
    """Return the Python function that a call of `fn` runs, or None."""
    while isinstance(fn, (functools.partial, types.MethodType)):
        fn = fn.func if isinstance(fn, functools.partial) else fn.__func__
    if not isinstance(fn, types.FunctionType) and not isinstance(fn, type):
        fn = getattr(type(fn), "__call__", None)  # noqa: B004 (the method is wanted)
    return fn if isinstance(fn, types.FunctionType) else None


def own(fn: Any) -> bool:
    """Say whether `fn` is a function of the user's that can be converted at all."""
    function = code_of(fn)
    if function is None or getattr(function, MARK, False) or inspect.isgeneratorfunction(function):
        return False
    return is_users(function.__code__.co_filename, function.__module__ or "")


def converted_call(fn: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None = None, scope: Any = None) -> Any:
    """Call `fn`, converted if it is the user's own."""
    del scope
    kwargs = kwargs or {}
    refuse_next((*args, getattr(fn, "__self__", None)))
    try:
        replaced = BUILTINS.get(fn)
    except TypeError:
        replaced = None
    if replaced is not None:
        return replaced(*args, **kwargs)
    replaced = elements.traced_version(fn, args, kwargs)
    if replaced is not None:
        return replaced(*args, **kwargs)
    if getattr(fn, "__module__", None) == CONTROL and isinstance(fn, types.FunctionType):
        args = tuple(argument(a) for a in args)
        kwargs = {name: argument(a) for name, a in kwargs.items()}
    if not own(fn):
        return fn(*args, **kwargs)
    try:
        target = convert(fn)
    except CannotConvert as reason:
        try:
            return fn(*args, **kwargs)
        except TracerBoolError as error:
            raise refusal(error, reason) from None
    return target(*args, **kwargs)


def argument(value: Any) -> Any:
    """Convert a function that is passed to cond, scan and the like."""
    if isinstance(value, (list, tuple)):
        return type(value)(argument(v) for v in value) if type(value) in (list, tuple) else value
    if not callable(value) or isinstance(value, type) or not own(value):
        return value
    try:
        return convert(value)
    except CannotConvert:
        return value
