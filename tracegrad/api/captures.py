"""Where a captured array comes from, so that each call reads it anew.

An array that the traced function reads from a closure or a global is looked up again at every call: rebinding
`w = w - g` between two calls is seen. Numbers and strings read in the same way are part of the signature: changing one
traces again. Only what hangs directly in a cell or a global of the function, or of the plain functions it names, is
followed; an array found elsewhere (an attribute, a list) is kept by reference, so in-place changes are seen and
rebinding is not.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracegrad.trace import Tracer

Constant = (bool, int, float, str)


@dataclass(frozen=True, slots=True)
class Cell:
    """A variable of an enclosing function."""

    cell: types.CellType
    name: str = ""

    def label(self) -> str:
        return self.name

    def read(self) -> Any:
        try:
            return self.cell.cell_contents
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Global:
    """A variable of a module."""

    namespace: dict[str, Any]
    name: str

    def label(self) -> str:
        return self.name

    def read(self) -> Any:
        return self.namespace.get(self.name)


@dataclass(frozen=True, slots=True)
class Fixed:
    """An array that hangs somewhere else: kept by reference."""

    value: Any

    def label(self) -> str:
        return "array"

    def read(self) -> Any:
        return self.value


Source = Cell | Global | Fixed


def names_of(code: types.CodeType) -> set[str]:
    """Return the global names that a code object and the functions defined in it may read."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= names_of(constant)
    return found


def plain(fn: Any) -> types.FunctionType | None:
    """Return the Python function behind bound methods and wrappers, or None."""
    seen = 0
    while fn is not None and not isinstance(fn, types.FunctionType) and seen < 8:
        fn = getattr(fn, "__func__", None) or getattr(fn, "__wrapped__", None) or getattr(fn, "func", None)
        seen += 1
    return fn if isinstance(fn, types.FunctionType) else None


def sources(fn: Callable[..., Any]) -> list[Source]:
    """Return the variables that `fn` and the user's functions it names read from outside."""
    found: list[Source] = []
    pending = [plain(fn)]
    seen: set[int] = set()
    while pending:
        function = pending.pop()
        if (
            function is None
            or id(function) in seen
            or (function.__module__ or "").split(".")[0] in ("tracegrad", "numpy")
        ):
            continue
        seen.add(id(function))
        names = function.__code__.co_freevars
        here: list[Source] = [Cell(c, n) for c, n in zip(function.__closure__ or (), names, strict=True)]
        here += [
            Global(function.__globals__, n) for n in sorted(names_of(function.__code__)) if n in function.__globals__
        ]
        for source in here:
            value = source.read()
            if isinstance(value, (np.ndarray, Tracer, *Constant)):
                found.append(source)
            elif callable(getattr(value, "traced_functions", None)):
                pending += [plain(part) for part in value.traced_functions()]
            elif callable(value) and not isinstance(value, type):
                pending.append(plain(value))
    return found


@dataclass(frozen=True)
class Environment:
    """The outside variables of one function."""

    variables: tuple[Source, ...]

    @classmethod
    def of(cls, fn: Callable[..., Any]) -> Environment:
        return cls(tuple(sources(fn)))

    def key(self) -> tuple[Any, ...]:
        """Return the part of the signature that outside numbers, strings, and array shapes make."""
        return tuple([environment_key(v.read()) for v in self.variables])

    def locate(self, value: Any) -> Source:
        """Return where a captured array was read from."""
        for variable in self.variables:
            if variable.read() is value:
                return variable
        return Fixed(value)


def environment_key(value: Any) -> Any:
    if isinstance(value, (np.ndarray, Tracer)):
        return value.shape, value.dtype
    if not isinstance(value, Constant):
        return type(value)
    return (type(value), value) if value and value == value else (type(value), repr(value))  # tells 0.0 from -0.0
