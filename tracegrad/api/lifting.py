"""Arrays from outside as traced values: a function runs on copies of what it reads, with tracers for the arrays.

An array that a closure, a global, a list or an object holds is a hidden input of the program. If tracing met the array
itself, then what NumPy makes of it alone (`w.T`, `2.0 * w`, `w.sum()`) would be computed once and frozen. So functions,
containers and objects from which such arrays can be reached are copied, with tracers in the arrays' places. Where
tracing needs a value after all (a mask, a size, a function without a traced version), it starts again with the integers
as they are, and then with every array as it is; arrays that were not traced are part of the signature by content.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tracegrad.api.captures import LONGEST, has_dict
from tracegrad.api.environment import in_library, is_module, names_of
from tracegrad.ir import Aval
from tracegrad.ir.aval import can_hold
from tracegrad.memory import Memory
from tracegrad.trace import Trace, Tracer

Mutable = (list, dict)


def liftable(value: Any) -> bool:
    """Say whether a traced value can stand for this array."""
    return isinstance(value, np.ndarray) and type(value) in (np.ndarray, np.memmap) and can_hold(value.dtype)


class Lifter:
    """Copies what leads to the arrays `wanted` (by identity), and takes back what the traced function changed."""

    def __init__(self, trace: Trace, wanted: set[int], names: frozenset[str]):
        self.trace = trace
        self.wanted = wanted
        self.names = names
        self.lifted: set[int] = set()
        self.reaching: set[int] = set()
        self.copies: dict[int, Any] = {}
        self.spaces: dict[int, dict[str, Any]] = {}
        self.kept: list[Any] = []
        self.changes: list[Callable[[], None]] = []

    def lift(self, fn: Any) -> Any:
        """Return `fn` on traced values."""
        self.search(fn)
        return self.copy(fn)

    def give_back(self) -> None:
        """Make the changes that the traced function made to its copies; then the copies hold what the originals do."""
        for change in self.changes:
            change()

    # --- what leads to an array ---------------------------------------------------------------------------------------
    def search(self, root: Any) -> None:
        """Find what leads to a wanted array."""
        readers: dict[int, list[int]] = {}
        pending, seen = [root], {id(root)}
        while pending:
            value = pending.pop()
            self.kept.append(value)
            for part in self.parts(value):
                readers.setdefault(id(part), []).append(id(value))
                if id(part) not in seen:
                    seen.add(id(part))
                    pending.append(part)
        reached = [i for i in self.wanted if i in seen]
        while reached:
            for reader in readers.get(reached.pop(), ()):
                if reader not in self.reaching:
                    self.reaching.add(reader)
                    reached.append(reader)

    def parts(self, value: Any) -> Iterator[Any]:
        """Yield what hangs in a value, if that can be copied."""
        if isinstance(value, types.FunctionType):
            if not in_library(value.__module__):
                yield from (cell.cell_contents for cell in value.__closure__ or () if filled(cell))
                yield from (value.__globals__[name] for name in global_names(value))
                yield from (value.__defaults__, value.__kwdefaults__)
        elif isinstance(value, types.MethodType):
            yield from (value.__func__, value.__self__)
        elif isinstance(value, functools.partial):
            yield from (value.func, value.args, value.keywords)
        elif type(value) in Mutable or isinstance(value, tuple):
            if len(value) <= LONGEST:
                yield from value.values() if isinstance(value, dict) else value
        elif copyable(value):
            yield from (vars(value)[name] for name in self.attributes(value))

    def attributes(self, value: Any) -> list[str]:
        return [n for n in vars(value) if not n.startswith("__") and (n in self.names or is_module(value))]

    # --- copies -------------------------------------------------------------------------------------------------------
    def copy(self, value: Any) -> Any:
        """Return a value on tracers: itself, if it leads to no wanted array."""
        if id(value) in self.copies:
            return self.copies[id(value)]
        if id(value) in self.wanted:
            self.lifted.add(id(value))
            node = self.trace.capture(value, Aval(value.shape, value.dtype), watched=False)
            found: Any = Tracer(self.trace, node)
            Memory(found, "an array from outside of the function")
        elif id(value) not in self.reaching:
            return value
        elif isinstance(value, types.FunctionType):
            return self.copy_function(value)
        elif isinstance(value, types.MethodType):
            found = types.MethodType(self.copy(value.__func__), self.copy(value.__self__))
        elif isinstance(value, functools.partial):
            found = functools.partial(self.copy(value.func), *self.copy(value.args), **self.copy(value.keywords))
        elif isinstance(value, tuple):
            items = [self.copy(item) for item in value]
            found = value._make(items) if hasattr(value, "_make") else tuple(items)
        elif isinstance(value, Mutable):
            return self.copy_container(value)
        else:
            return self.copy_object(value)
        self.copies[id(value)] = found
        return found

    def replaced(self, value: Any) -> bool:
        return id(value) in self.wanted or id(value) in self.reaching

    def copy_function(self, fn: types.FunctionType) -> types.FunctionType:
        cells = fn.__closure__ or ()
        moved = {i for i, cell in enumerate(cells) if filled(cell) and self.replaced(cell.cell_contents)}
        closure = tuple(types.CellType() if i in moved else cell for i, cell in enumerate(cells))
        names = [name for name in global_names(fn) if self.replaced(fn.__globals__[name])]
        space = self.spaces.setdefault(id(fn.__globals__), dict(fn.__globals__)) if names else fn.__globals__
        found = types.FunctionType(fn.__code__, space, fn.__name__, self.copy(fn.__defaults__), closure)
        self.copies[id(fn)] = found
        found.__kwdefaults__, found.__qualname__ = self.copy(fn.__kwdefaults__), fn.__qualname__
        found.__module__ = fn.__module__
        found.__dict__.update(fn.__dict__)
        for i in moved:
            given = closure[i].cell_contents = self.copy(cells[i].cell_contents)
            self.changes.append(functools.partial(self.take_cell, cells[i], closure[i], given))
        for name in names:
            space[name] = given = self.copy(fn.__globals__[name])
            self.changes.append(functools.partial(self.take_item, fn.__globals__, space, name, given))
        return found

    def copy_container(self, value: Any) -> Any:
        found: Any = type(value)()
        self.copies[id(value)] = found
        if isinstance(value, dict):
            found.update((key, self.copy(item)) for key, item in value.items())
            self.changes.append(functools.partial(self.take_dict, value, found, found.copy()))
        else:
            found.extend(self.copy(item) for item in value)
            self.changes.append(functools.partial(self.take_list, value, found, found.copy()))
        return found

    def copy_object(self, value: Any) -> Any:
        found = types.ModuleType(value.__name__) if isinstance(value, types.ModuleType) else object.__new__(type(value))
        self.copies[id(value)] = found
        vars(found).update(vars(value))
        for name in self.attributes(value):
            vars(found)[name] = self.copy(vars(value)[name])
        self.changes.append(functools.partial(self.take_dict, vars(value), vars(found), dict(vars(found))))
        return found

    # --- what the traced function changed -----------------------------------------------------------------------------
    def original(self, value: Any) -> Any:
        """Return what a copy is a copy of."""
        return next((v for v in self.kept if self.copies.get(id(v)) is value), value)

    def take_cell(self, cell: types.CellType, copy: types.CellType, given: Any) -> None:
        if filled(copy) and copy.cell_contents is not given:
            cell.cell_contents = self.original(copy.cell_contents)
        copy.cell_contents = cell.cell_contents

    def take_item(self, space: dict[str, Any], copy: dict[str, Any], name: str, given: Any) -> None:
        if copy.get(name) is not given:
            space[name] = self.original(copy[name])
        copy[name] = space[name]

    def take_dict(self, value: dict[Any, Any], copy: dict[Any, Any], given: dict[Any, Any]) -> None:
        for key in [key for key in given if key not in copy]:
            value.pop(key, None)
        for key in [key for key in copy if key not in given or copy[key] is not given[key]]:
            value[key] = self.original(copy[key])
        copy.clear()
        copy.update(value)

    def take_list(self, value: list[Any], copy: list[Any], given: list[Any]) -> None:
        if len(copy) != len(given) or any(a is not b for a, b in zip(copy, given, strict=True)):
            value[:] = [self.original(item) for item in copy]
        copy[:] = value


def filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 (an empty cell raises)
    except ValueError:
        return False
    return True


def global_names(fn: types.FunctionType) -> list[str]:
    return sorted(names_of(fn.__code__) & fn.__globals__.keys())


def copyable(value: Any) -> bool:
    """Say whether an object is no more than its class and its attributes."""
    if isinstance(value, types.ModuleType):
        return not in_library(value.__name__)
    if isinstance(value, (type, np.ndarray, Tracer)) or not has_dict(value):
        return False
    cls = type(value)
    special = {name for c in cls.__mro__[:-1] for name in vars(c) if name in ("__new__", "__slots__")}
    return not special and (is_module(value) or not in_library(cls.__module__))
