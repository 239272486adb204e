"""The options `where=` and `initial=` of NumPy's reductions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.numpy import arithmetic
from tracegrad.numpy.promote import operand, shape_of

Function = Callable[..., Any]
WHERE = inspect.Parameter("where", inspect.Parameter.KEYWORD_ONLY, default=True)
INITIAL = inspect.Parameter("initial", inspect.Parameter.KEYWORD_ONLY, default=None)


def optional(*, fill: Any, combine: Function | None = None) -> Callable[[Function], Function]:
    """Let a reduction leave out what `where=` does not hold for, with `fill` in its place (None: `initial`, which is
    needed then), and let it start from `initial=`, if it has a `combine`."""

    def decorate(function: Function) -> Function:
        name = function.__name__

        @functools.wraps(function)
        def reduce(x: Any, *args: Any, where: Any = True, initial: Any = None, **kwargs: Any) -> Any:
            start = None if initial is np._NoValue else initial
            if where is not True and where is not np._NoValue:
                if fill is None and start is None:
                    raise ArgumentError(
                        f"{name}: where= leaves nothing to start from where no element is chosen", fix="give initial="
                    )
                x, whole = arithmetic.where(where, x, start if fill is None else fill), shape_of(operand(name, x))
                if shape_of(x) != whole:
                    raise ShapeError(f"{name}: where= does not fit the shape {whole}", fix="check where=")
            found = function(x, *args, **kwargs)
            return found if start is None or combine is None else combine(found, start)

        own = inspect.signature(function)
        more = [WHERE] if combine is None else [WHERE, INITIAL]
        reduce.__signature__ = own.replace(parameters=[*own.parameters.values(), *more])  # type: ignore[attr-defined]
        return reduce

    return decorate
