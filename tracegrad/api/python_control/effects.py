"""What a traced branch or loop changes besides its variables: lists, dictionaries, attributes, arrays, other functions'
variables.

Both branches of a traced condition run while tracing, and a loop's body runs once for all rounds. A change that is not
an assignment to a variable (`out.append(x)`) would then happen whatever the condition is. So what a piece of code can
reach is looked at before and after it is traced: a change is undone and refused, and a loop with a known number of
rounds is unrolled instead.
"""

from __future__ import annotations

import functools
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np

from tracegrad.errors import PACKAGE, Mismatch
from tracegrad.trace import Tracer

LIBRARY = tuple({sysconfig.get_paths()[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")})
MOST_OBJECTS = 2000
MOST_BYTES = 1 << 22
Part = tuple[str, Any]
"""How the user's code names an object, and the object."""
WATCHED: ContextVar[tuple[tuple[str, list[Part]], ...]] = ContextVar("tracegrad_watched", default=())
"""What is being traced, a loop or a branch, one in another, and the iterators from outside of each."""


@functools.lru_cache(maxsize=4096)
def is_users(file: str, module: str) -> bool:
    """Say whether code is the user's own: not tracegrad's, not the standard library's, not an installed package's."""
    if file.startswith((PACKAGE, "<frozen")) or module.partition(".")[0] in sys.stdlib_module_names - {"__main__"}:
        return False
    return not any(Path(file).is_relative_to(folder) for folder in LIBRARY)


def names_in(code: types.CodeType) -> set[str]:
    """Return the global names that code mentions, in the functions inside it, too."""
    return set(code.co_names).union(*(names_in(c) for c in code.co_consts if isinstance(c, types.CodeType)))


def has_users_attributes(value: Any) -> bool:
    """Say whether a value is an object of a class of the user's."""
    module = type(value).__module__
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    return isinstance(getattr(value, "__dict__", None), dict) and is_users(file, module)


class Box:
    """One place that may change: `read` gives what it holds, `put` sets that again."""

    def __init__(self, name: str, read: Callable[[], list[Any]], put: Callable[[list[Any]], None]):
        self.name = name
        self.read = read
        self.put = put
        self.before = read()

    def changed(self) -> bool:
        after = self.read()
        return len(after) != len(self.before) or any(a is not b for a, b in zip(after, self.before, strict=True))


class Items(Box):
    """The items of a dictionary, or the attributes of an object."""

    def __init__(self, name: str, items: dict[Any, Any]):
        self.items = items
        super().__init__(name, self.pairs, self.refill)

    def pairs(self) -> list[Any]:
        return [part for item in self.items.items() for part in item]

    def refill(self, before: list[Any]) -> None:
        self.items.clear()
        self.items.update(zip(before[::2], before[1::2], strict=True))


class Elements(Box):
    """The elements of a list, a deque or a set."""

    def __init__(self, name: str, elements: Any):
        self.elements = elements
        super().__init__(name, self.listed, self.refill)

    def listed(self) -> list[Any]:
        return sorted(self.elements, key=id) if isinstance(self.elements, set) else list(self.elements)

    def refill(self, before: list[Any]) -> None:
        self.elements.clear()
        (self.elements.update if isinstance(self.elements, set) else self.elements.extend)(before)


class Cell(Box):
    """A variable that functions share."""

    def __init__(self, name: str, cell: types.CellType):
        self.cell = cell
        super().__init__(name, self.content, self.fill)

    def content(self) -> list[Any]:
        try:
            return [self.cell.cell_contents]
        except ValueError:
            return []

    def fill(self, before: list[Any]) -> None:
        if before:
            self.cell.cell_contents = before[0]
        else:
            del self.cell.cell_contents


class Global(Box):
    """A variable of a module."""

    def __init__(self, name: str, space: dict[str, Any]):
        super().__init__(name, lambda: [space.get(name)], lambda before: space.__setitem__(name, before[0]))


def box_of(name: str, value: Any) -> Box | None:
    """Return the content of a container or an object as something to compare."""
    match value:
        case list() | deque() | set():
            return Elements(name, value)
        case dict():
            return Items(name, value)
        case _ if has_users_attributes(value):
            return Items(name, vars(value))
    return None


def refuse_next(values: Sequence[Any]) -> None:
    """Refuse to go on with an iterator from outside of what is being traced: it runs once while tracing."""
    found = [value for value in values if isinstance(value, Iterator)]
    if not found:
        return
    for what, iterators in WATCHED.get():
        for name, iterator in iterators:
            if any(value is iterator for value in found):
                raise Mismatch(
                    f"{what}: it takes the next of the iterator {name}, under a traced condition or in a traced loop",
                    fix="go through the values in a `for`, or read them from an array by the loop's counter",
                )


class Surroundings:
    """What pieces of code can reach and change, as it was; their own `variables` are no part of it."""

    def __init__(self, code: Sequence[Callable[..., Any]], variables: Sequence[str]):
        self.boxes: list[Box] = []
        self.arrays: list[tuple[str, Any, Any]] = []
        self.iterators: list[Part] = []
        self.bytes = MOST_BYTES
        seen: set[int] = set()
        pending: list[Part] = [part for fn in code for part in self.of_function(fn, variables)]
        while pending and len(seen) < MOST_OBJECTS:
            name, value = pending.pop()
            if id(value) not in seen:
                seen.add(id(value))
                pending.extend(self.look(name, value))

    def look(self, name: str, value: Any) -> Iterator[Part]:
        """Remember a value if it can change; yield what it holds."""
        if isinstance(value, (Tracer, str, bytes, int, float, type, types.ModuleType)):
            return
        if isinstance(value, np.ndarray):
            if value.nbytes <= self.bytes and value.flags.writeable and value.dtype != object:
                self.bytes -= value.nbytes
                self.arrays.append((name, value, value.copy()))
            return
        if isinstance(value, Iterator):
            self.iterators.append((name, value))
        box = box_of(name, value)
        if box is not None:
            self.boxes.append(box)
        match value:
            case types.FunctionType():
                yield from self.of_function(value, ())
            case types.MethodType():
                yield from [(name, value.__self__), (name, value.__func__)]
            case list() | tuple() | deque():
                yield from ((f"{name}[{i}]", v) for i, v in enumerate(value))
            case dict():
                yield from ((f"{name}[{k!r}]", v) for k, v in value.items())
            case _ if box is not None and not isinstance(value, set):
                yield from ((f"{name}.{k}", v) for k, v in vars(value).items())

    def of_function(self, fn: Callable[..., Any], variables: Sequence[str]) -> Iterator[Part]:
        """Remember the variables that a function shares with others; yield what they hold."""
        if not isinstance(fn, types.FunctionType) or not is_users(fn.__code__.co_filename, fn.__module__ or ""):
            return
        for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
            if name not in variables and name != "ag__":
                self.boxes.append(Cell(name, cell))
                yield from ((name, value) for value in self.boxes[-1].before)
        space = fn.__globals__
        for name in names_in(fn.__code__):
            if name in space:
                self.boxes.append(Global(name, space))
                yield name, space[name]

    def changes(self) -> tuple[list[Box], list[tuple[str, Any, Any]]]:
        """Return what has changed: places, and arrays of NumPy's."""
        written = [part for part in self.arrays if part[1].tobytes() != part[2].tobytes()]
        return [box for box in self.boxes if box.changed()], written

    def check(self, what: str) -> None:
        """Undo every change and refuse the first."""
        changed, written = self.changes()
        if not changed and not written:
            return
        for box in changed:
            box.put(box.before)
        for _, array, before in written:
            array[...] = before
        names = [*(box.name for box in changed), *(name for name, _, _ in written)]
        raise Mismatch(
            f"{what}: it changes {names[0]} in place, under a traced condition",
            fix="assign a new value to a variable instead; tg.scan collects a value per round",
        )

    @contextmanager
    def watched(self, what: str) -> Iterator[None]:
        """Within this block, refuse to take the next of an iterator that was there before."""
        token = WATCHED.set((*WATCHED.get(), (what, self.iterators)))
        try:
            yield
        finally:
            WATCHED.reset(token)
