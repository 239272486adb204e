"""Half precision (float16, bfloat16) is for storage: compositions of primitives compute in float32 and round once.

A primitive does so by itself (`ir.primitive`). Where a function applies several, `rounded_once` converts its operands
before the first one and its result after the last.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar, overload

from tracegrad.ir.aval import is_float, is_half
from tracegrad.ir.primitive import as_float32, holds_half
from tracegrad.numpy.promote import FLOAT32, array_dtypes, cast, joined, operand

Function = TypeVar("Function", bound=Callable[..., Any])


@overload
def rounded_once(function: Function) -> Function: ...
@overload
def rounded_once(*, of_operands: bool) -> Callable[[Function], Function]: ...


def rounded_once(function: Any = None, *, of_operands: bool = False) -> Any:
    """Let a function compute half-precision arguments in float32, and round what it computes there once.

    The floating-point arguments decide the dtype of the result. `of_operands` says that all positional arguments are
    operands, as in NumPy's ufuncs: integer arrays among them promote, and numbers are rounded to the storage dtype.
    """

    def decorate(function: Any) -> Any:
        @wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            if not any(map(holds_half, args)) and not any(map(holds_half, kwargs.values())):
                return function(*args, **kwargs)
            dtypes = array_dtypes([*args, *kwargs.values()])
            target = joined(dtypes if of_operands else tuple(d for d in dtypes if is_float(d)), ())
            if of_operands and is_half(target):
                args = tuple(target.type(x) if type(x) is float else x for x in args)
            name = function.__name__
            found = function(*map(wide, args), **{k: wide(x) for k, x in kwargs.items()})
            return narrowed(name, found, target) if is_half(target) else found

        return call

    return decorate if function is None else decorate(function)


def wide(x: Any) -> Any:
    """Convert an array in half precision to float32."""
    return as_float32(operand("astype", x)) if holds_half(x) else x


def narrowed(name: str, found: Any, dtype: Any) -> Any:
    """Round what was computed in float32 to a storage dtype."""
    if isinstance(found, (tuple, list)) and not hasattr(found, "_fields"):
        return type(found)(narrowed(name, part, dtype) for part in found)
    return cast(name, found, dtype) if getattr(found, "dtype", None) == FLOAT32 else found
