"""What is imported when it is first used: a process that finds its program in the cache pays for nothing else.

    saved = lazy.module("tracegrad.api.saved")            stands for the module until something of it is asked for
    __getattr__, __dir__ = lazy.names(__name__, {"tracegrad.api.forward": ("jvp", "hessian")})

The second form is for a package whose public names come from many modules; the imports that type checkers read stand
beside it, and `tests/test_structure.py` compares the two.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any


class Module:
    """Stands for a module."""

    __slots__ = ("_name",)

    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(importlib.import_module(self._name), attribute)

    def __repr__(self) -> str:
        return f"<{self._name}, imported when it is used>"


def module(name: str) -> Any:
    """Return what stands for a module."""
    return Module(name)


def names(
    package: str, places: Mapping[str, Iterable[str]], modules: Iterable[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return `__getattr__` and `__dir__` of a package: `places` says which module its names come from, `modules` are
    modules of its own."""
    homes = {name: place for place, several in places.items() for name in several}
    inner = frozenset(modules)

    def find(name: str) -> Any:
        if name in homes:
            found = getattr(importlib.import_module(homes[name]), name)
        elif name in inner:
            found = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, found)
        return found

    def known() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes, *inner})

    return find, known
