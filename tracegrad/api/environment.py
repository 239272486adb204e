"""What a traced function reads from outside: found in its code, watched at every call.

Followed are the variables that the function names, and the user's functions and methods it names in turn; from there,
items of lists, tuples, dicts and sets, defaults of arguments, and attributes of objects whose names occur in that code
(all attributes of the modules in `tracegrad.nn`). Not seen are attributes whose names are computed elsewhere
(`getattr(x, name)`; of `getattr(x, "w")` and `getattr(x, f"w{i}")` they are known, or how they begin), methods that are
replaced by others, what hangs in the items of containers longer than LONGEST, what hangs deeper than DEEPEST, and more
than MOST values: these keep the value they had when the function was traced; arrays among them are kept by reference.
"""

from __future__ import annotations

import functools
import sys
import types
from collections import ChainMap, UserDict, UserList
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from operator import is_
from typing import Any

import numpy as np

from tracegrad.api.captures import (
    LONGEST,
    Attribute,
    Cell,
    Constant,
    Containers,
    Content,
    Fixed,
    Global,
    Holders,
    Item,
    Mappings,
    Missing,
    Sets,
    Source,
    has_functions,
    is_wrapper,
    key_of,
    wrapped,
)
from tracegrad.api.signature import without_layout
from tracegrad.trace import Tracer

DEEPEST = 8
MOST = 4096
LIBRARIES = {*sys.stdlib_module_names, "numpy", "scipy", "numba", "tracegrad"}
SELDOM = {"__init__", "__new__", "__post_init__", "__del__", "__repr__", "__str__", "__eq__", "__hash__"}
"""Methods that a traced function does not run on an object that is there already."""
BY_NAME = {"getattr", "hasattr", "attrgetter", "vars", "__dict__", "globals", "__getattribute__"}
"""What reads attributes by their names as text."""
INSIDE: dict[type, tuple[str, ...]] = {
    functools.partial: ("func", "args", "keywords"),
    types.MethodType: ("__self__",),
    UserDict: ("data",),
    UserList: ("data",),
    ChainMap: ("maps",),
}
"""The attributes in which objects of Python's library hold what they were made of."""


class Environment:
    """The outside variables of one function, with the names that its code reads.

    Arrays are part of the signature by shape and dtype; those with labels in `exact` by their contents, too.
    """

    def __init__(self, search: Search, exact: frozenset[str] = frozenset()):
        found = list(enumerate(search.found))
        self.names = frozenset(search.names)
        self.exact = exact
        self.variables = tuple(source for _, (source, _) in found)
        self.labels = tuple(source.label() for source in self.variables)
        self._cells = [(i, s.cell) for i, (s, _) in found if isinstance(s, Cell)]
        self._globals = [(i, s.namespace, s.name) for i, (s, _) in found if isinstance(s, Global)]
        self._roots = [(i, s.read) for i, (s, owner) in found if owner < 0 and not isinstance(s, (Cell, Global))]
        self._parts = [
            (i, s.part, owner) for i, (s, owner) in found if owner >= 0 and isinstance(s, (Attribute, Item, Content))
        ]
        self._last: tuple[list[Any], list[int], list[Any], tuple[Any, ...]] = [], [], [], ()

    @classmethod
    def of(
        cls, fn: Callable[..., Any], without: frozenset[str] = frozenset(), exact: frozenset[str] = frozenset()
    ) -> Environment:
        """Search a function for its variables; those with labels in `without` are not watched."""
        return cls(Search(fn, without), exact)

    def values(self) -> list[Any]:
        """Read all variables."""
        found: list[Any] = [Missing] * len(self.variables)
        for i, cell in self._cells:
            try:
                found[i] = cell.cell_contents
            except ValueError:
                continue
        for i, namespace, name in self._globals:
            found[i] = namespace.get(name, Missing)
        for i, read in self._roots:
            found[i] = read()
        for i, part, owner in self._parts:
            found[i] = part(found[owner])
        return found

    def key(self) -> tuple[Any, ...]:
        """Return the part of the signature that outside values make: numbers, names and shapes; () without any."""
        if not self.variables:
            return ()
        values = self.values()
        last, changeable, parts, key = self._last
        same = len(last) == len(values) and all(map(is_, values, last))
        if not same or any(self.part_key(i, values[i]) != parts[i] for i in changeable):
            changeable = [i for i, v in enumerate(values) if isinstance(v, (np.ndarray, *Containers, *Sets))]
            parts = [self.part_key(i, value) for i, value in enumerate(values)]
            first = {id(values[i]): i for i in reversed(changeable)}
            shared = tuple((i, first[id(values[i])]) for i in changeable if first[id(values[i])] != i)
            key = (self.labels, shared, *parts)
            self._last = values, changeable, parts, key
        return key

    def part_key(self, place: int, value: Any) -> Any:
        found = key_of(value)
        if isinstance(value, np.ndarray) and self.labels[place] in self.exact:
            return (*without_layout(found), blake2b(contents(value), digest_size=16).hexdigest())
        return found

    def arrays(self) -> list[tuple[str, np.ndarray[Any, Any]]]:
        """Return the arrays among the variables, with their labels."""
        found = zip(self.labels, self.values(), strict=True)
        return [(label, value) for label, value in found if isinstance(value, np.ndarray)]

    def changes(self, before: tuple[Any, ...]) -> frozenset[str]:
        """Return the labels of the variables whose part in the signature is another than it was before."""
        return frozenset(label for label, a, b in zip(self.labels, before[2:], self.key()[2:], strict=True) if a != b)

    def locate(self, values: Iterable[Any]) -> tuple[Source, ...]:
        """Return where captured arrays were read from."""
        read = self.values()
        places = {id(value): i for i, value in reversed(list(enumerate(read)))}
        return tuple(self.variables[places[id(v)]] if id(v) in places else Fixed(v) for v in values)


class Search:
    """Walks over the code and the values that a function reaches, again and again until no more names turn up."""

    def __init__(self, fn: Callable[..., Any], without: frozenset[str]):
        self.without = without
        self.names: set[str] = set()
        self.beginnings: tuple[str, ...] = ()
        self.found: list[tuple[Source, int]] = []
        self.entered: set[Any] = set()
        self.path: set[int] = set()
        known = -1
        while known < len(self.names):
            known = len(self.names)
            self.found.clear()
            self.entered.clear()
            self.follow(Fixed(fn, getattr(fn, "__name__", type(fn).__name__)), fn, -1)

    def enter(self, function: types.FunctionType) -> None:
        """Take in the names that a function reads, and follow its variables."""
        if id(function) in self.entered:
            return
        self.entered.add(id(function))
        names = names_of(function.__code__)
        if BY_NAME & names:
            texts = texts_of(function.__code__)
            names |= texts
            self.beginnings = (*self.beginnings, *sorted(texts.difference(self.beginnings)))
        self.names |= names
        for name in ("__defaults__", "__kwdefaults__"):
            given = getattr(function, name)
            if given and not all(isinstance(v, Constant) for v in (given.values() if name[2] == "k" else given)):
                self.visit(Fixed(given, f"{function.__name__}.{name}"), given, -1)
        for cell, name in zip(function.__closure__ or (), function.__code__.co_freevars, strict=True):
            self.root(Cell(cell, name), id(cell))
        space = function.__globals__
        for name in sorted(names & space.keys()):
            self.root(Global(space, name), (id(space), name))

    def root(self, source: Cell | Global, identity: Any) -> None:
        if identity not in self.entered:
            self.entered.add(identity)
            self.visit(source, source.read(), -1)

    def visit(self, source: Source, value: Any, owner: int) -> None:
        """Watch a value, and what hangs in it."""
        if isinstance(value, types.ModuleType) and in_library(value.__name__):
            return
        if len(self.found) >= MOST or len(self.path) >= DEEPEST or source.label() in self.without:
            return
        self.found.append((source, owner))
        if not isinstance(value, (np.ndarray, Tracer, *Constant)) and id(value) not in self.path:
            self.path.add(id(value))
            self.follow(source, value, len(self.found) - 1)
            self.path.discard(id(value))

    def follow(self, source: Source, value: Any, here: int) -> None:
        """Watch what hangs in a value."""
        if isinstance(value, Containers):
            if len(value) <= LONGEST:
                for key in list(value) if isinstance(value, Mappings) else range(len(value)):
                    self.visit(Item(source, key), value[key], here)
            return
        if isinstance(value, Holders):
            content = Content(source)
            self.visit(content, content.part(value), here)
            return
        for function in self.functions(value):
            if function is not None and not in_library(function.__module__):
                self.enter(function)
        for name in self.attributes(value):
            self.visit(Attribute(source, name), getattr(value, name, Missing), here)

    def functions(self, value: Any) -> Iterator[types.FunctionType | None]:
        """Yield the functions that run when a value is called or used."""
        if has_functions(value):
            yield from map(plain, value.traced_functions())
        elif callable(value) and (found := plain(value)) is not None:
            yield found
            yield plain(wrapped(found))
        elif not isinstance(value, types.ModuleType):
            unused = set() if isinstance(value, type) else SELDOM
            for cls in classes(value):
                for name, part in vars(cls).items():
                    if name in self.names or (name.startswith("__") and name not in unused):
                        yield plain(part)

    def attributes(self, value: Any) -> Iterable[str]:
        """Return the names of the attributes that the code may read."""
        inside = next((names for kind, names in INSIDE.items() if isinstance(value, kind)), ())
        if inside and not classes(value):
            return inside
        if isinstance(value, types.FunctionType) or is_wrapper(value):
            return ()
        if isinstance(value, types.ModuleType):
            return sorted(self.names & vars(value).keys())
        own = set(getattr(value, "__dict__", ()))
        for cls in classes(value):
            for name, part in vars(cls).items():
                (own.discard if is_computed(part) else own.add)(name)
        own = {name for name in own if not name.startswith("__")}
        if beginnings := tuple(text for text in self.beginnings if text not in own):
            self.names |= {name for name in own if name.startswith(beginnings)}
        return sorted((own if is_module(value) else own & self.names).union(inside))


def contents(array: np.ndarray[Any, Any]) -> Any:
    """Return the bytes of an array; dates and objects have no buffer of their own kind."""
    return np.ascontiguousarray(array).data if array.dtype.kind in "biufc" else array.tobytes()


def classes(value: Any) -> list[type]:
    """Return the user's classes behind an object, or behind a class."""
    order = value.__mro__ if isinstance(value, type) else type(value).__mro__
    return [cls for cls in order if not in_library(cls.__module__)]


def is_computed(part: Any) -> bool:
    """Say whether reading this part of a class through an object runs code: a method, a property, a descriptor."""
    return callable(part) or (hasattr(type(part), "__get__") and not isinstance(part, types.MemberDescriptorType))


def is_module(value: Any) -> bool:
    """Say whether all attributes of an object are its contents: those of modules, and of other pytrees."""
    return not isinstance(value, type) and any(cls.__module__.startswith("tracegrad.nn") for cls in type(value).__mro__)


@functools.lru_cache(maxsize=4096)
def in_library(module: str | None) -> bool:
    return (module or "").split(".")[0] in LIBRARIES


def plain(fn: Any) -> types.FunctionType | None:
    """Return the Python function behind bound methods, wrappers and properties, or None."""
    for _ in range(8):
        if fn is None or isinstance(fn, types.FunctionType):
            break
        fn = behind(fn)
    return fn if isinstance(fn, types.FunctionType) else None


def behind(fn: Any) -> Any:
    """Return what a method, a property or a wrapper calls, without running code of a user's class."""
    if isinstance(fn, (types.MethodType, classmethod, staticmethod)):
        return fn.__func__
    if isinstance(fn, property):
        return fn.fget
    return fn.func if isinstance(fn, (functools.partial, functools.cached_property)) else wrapped(fn)


def texts_of(code: types.CodeType) -> set[str]:
    """Return the texts in a code object, and in the functions defined in it, that may be names or how names begin."""
    found: set[str] = set()
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= texts_of(constant)
        texts = constant if isinstance(constant, (tuple, frozenset)) else (constant,)
        found |= {text for text in texts if isinstance(text, str) and text.isidentifier()}
    return found


def names_of(code: types.CodeType) -> set[str]:
    """Return the names of globals and attributes that a code object and the functions defined in it may read."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= names_of(constant)
    return found
