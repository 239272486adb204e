"""Where a value read from outside comes from, and its part in the signature.

A traced function may read variables of enclosing functions and of modules, and what hangs in them: items of lists,
tuples and dicts, attributes of objects. Arrays found there are inputs of the program, read anew at every call; numbers,
strings and functions are part of the signature, as are the lengths of lists and the keys of dicts. `environment.py`
finds them.
"""

from __future__ import annotations

import enum
import operator
import types
import weakref
from collections import deque
from contextvars import ContextVar
from typing import Any

import numpy as np

from tracegrad.api.signature import array_key
from tracegrad.record import record
from tracegrad.trace import Tracer

Plain = (bool, int, float, str, bytes)
Constant = (*Plain, complex, type(None), np.generic, np.dtype, slice, range, enum.Enum)
Mappings = (dict, types.MappingProxyType)
Containers = (*Mappings, list, tuple, deque)
Sets = (set, frozenset)
Holders = (ContextVar, weakref.ref)
LONGEST = 1024
"""What is in longer containers is told by identity, and not followed."""
Functions = (types.FunctionType, types.BuiltinFunctionType, np.ufunc, type)


class Missing:
    """What is read of a variable that is not there (any more)."""


@record
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
            return Missing


@record
class Global:
    """A variable of a module."""

    namespace: dict[str, Any]
    name: str

    def label(self) -> str:
        return self.name

    def read(self) -> Any:
        return self.namespace.get(self.name, Missing)


@record
class Fixed:
    """A value that hangs somewhere else: kept by reference, so in-place changes of it are seen."""

    value: Any
    name: str = "array"

    def label(self) -> str:
        return self.name

    def read(self) -> Any:
        return self.value


@record
class Attribute:
    """An attribute of what another source reads."""

    owner: Source
    name: str

    def label(self) -> str:
        return f"{self.owner.label()}.{self.name}"

    def read(self) -> Any:
        return self.part(self.owner.read())

    def part(self, owner: Any) -> Any:
        return getattr(owner, self.name, Missing)


@record
class Item:
    """An item of the dict, list or tuple that another source reads."""

    owner: Source
    key: Any

    def label(self) -> str:
        return f"{self.owner.label()}[{self.key!r}]"

    def read(self) -> Any:
        return self.part(self.owner.read())

    def part(self, owner: Any) -> Any:
        try:
            return owner[self.key]
        except (LookupError, TypeError):
            return Missing


@record
class Content:
    """What the context variable or the weak reference that another source reads holds."""

    owner: Source
    name: str = "content"

    def label(self) -> str:
        return f"{self.owner.label()}.{self.name}"

    def read(self) -> Any:
        return self.part(self.owner.read())

    def part(self, owner: Any) -> Any:
        if isinstance(owner, ContextVar):
            return owner.get(Missing)
        return owner() if isinstance(owner, weakref.ref) else Missing


Source = Cell | Global | Fixed | Attribute | Item | Content


def key_of(value: Any) -> Any:
    """Return the part of the signature that a value read from outside makes; `outside` writes it."""
    kind = type(value)
    if isinstance(value, np.ndarray):
        return array_key(value)
    if isinstance(value, Tracer):
        return value.shape, value.dtype
    if isinstance(value, Plain):
        return (kind, value) if value and value == value else (kind, repr(value))  # tells 0.0 from -0.0
    if isinstance(value, Constant):
        return kind, repr(value)
    if isinstance(value, (*Containers, *Sets)) and len(value) > LONGEST:
        return kind, Contents(value)
    if isinstance(value, Containers):
        return kind, tuple(value) if isinstance(value, Mappings) else len(value)
    if isinstance(value, Sets):
        return kind, frozenset(value)
    if isinstance(value, types.MethodType):
        return value.__func__
    if isinstance(value, types.FunctionType) and not (value.__closure__ or value.__defaults__ or value.__kwdefaults__):
        return value.__code__, id(value.__globals__)  # defined once more by the same text, it is the same
    return value if isinstance(value, Functions) or is_wrapper(value) else kind


class Contents:
    """What is in a long container: equal to the same objects in the same order."""

    def __init__(self, container: Any) -> None:
        self.parts = [*container, *container.values()] if isinstance(container, Mappings) else list(container)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Contents) or len(self.parts) != len(other.parts):
            return False
        return all(map(operator.is_, self.parts, other.parts))

    def __hash__(self) -> int:
        return len(self.parts)


def is_wrapper(value: Any) -> bool:
    """Say whether a value stands for functions, and is told from others by what it is, not by its attributes."""
    return callable(value) and (has_functions(value) or wrapped(value) is not None)


def has_functions(value: Any) -> bool:
    """Say whether a value names the functions that a trace of it runs."""
    return hasattr(value if isinstance(value, type) else type(value), "traced_functions")


def wrapped(value: Any) -> Any:
    """Return what a wrapper says that it wraps, without running code of a user's class."""
    return value.__dict__.get("__wrapped__") if has_dict(value) else None


def has_dict(value: Any) -> bool:
    """Say whether an object has attributes of its own."""
    return type(value).__dictoffset__ != 0
