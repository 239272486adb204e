"""Why a function is traced again: what its new signature has that no earlier one had."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from types import CodeType
from typing import Any

from tracegrad import tree
from tracegrad.api.captures import Containers, Contents, Mappings, Sets
from tracegrad.api.signature import Parameters, describe

WARN_AFTER = 8
Observer = Callable[[str, str], None]
OBSERVERS: ContextVar[tuple[Observer, ...]] = ContextVar("tracegrad_observers", default=())
"""Who wants to hear that a function is traced: they are told its name and why, "" for the first time."""


def announce(name: str, reason: str, known: int, *, stacklevel: int) -> None:
    """Tell who asked that a function is traced; warn once when it happens again and again."""
    for observer in OBSERVERS.get():
        observer(name, reason)
    if known == WARN_AFTER:
        warnings.warn(
            f"{name} has been traced {WARN_AFTER} times, now because of {reason}; every new signature costs a"
            " compilation. fix: keep shapes and dtypes fixed (pad the last batch), pass changing numbers as"
            " arguments",
            stacklevel=stacklevel + 1,
        )


def reason(parameters: Parameters, known: Iterable[Any], key: Any) -> str:
    """Compare a signature with the one among `known` that is nearest to it; "" if there is none.

    A signature is ((structure, leaves, ..., static values), captured values), as `Function` keeps it.
    """
    found = [list(differences(parameters, old, key)) for old in known]
    fewest = min((len(texts) for texts in found), default=0)
    return next(("; ".join(texts) for texts in reversed(found) if len(texts) == fewest), "")


def differences(parameters: Parameters, old: Any, new: Any) -> Iterator[str]:
    """Say each thing in which two signatures differ."""
    found = [*leaf_differences(parameters, old[0][:2], new[0][:2]), *value_differences(old, new)]
    if not found:
        found.append(f"another structure: {old[0][0]} became {new[0][0]}")
    yield from found


def value_differences(old: Any, new: Any) -> Iterator[str]:
    """Name the static and the captured values that changed."""
    (*_, old_static), old_outside = old
    (*_, new_static), new_outside = new
    before, after = dict(old_static), dict(new_static)
    for name in sorted(before.keys() | after.keys()):
        a, b = (repr(values[name]) if name in values else "not given" for values in (before, after))
        if a != b:
            yield f"static {name}: {a} became {b}"
    yield from outside_differences(old_outside, new_outside)


def outside_differences(old: tuple[Any, ...], new: tuple[Any, ...]) -> list[str]:
    """Name the captured values that changed, or else those that came or went; the keys are those of an Environment."""
    before, after = (dict(zip(key[0], key[2:], strict=True)) if key else {} for key in (old, new))
    both = [name for name in before if name in after]
    found = [f"{n}: {outside(before[n])} became {outside(after[n])}" for n in both if before[n] != after[n]]
    if not found:
        found = [f"{n} is new" for n in after if n not in before]
        found += [f"{n} is not there any more" for n in before if n not in after]
    return ["captured " + text for text in found]


def leaf_differences(
    parameters: Parameters, old: tuple[tree.TreeDef, Sequence[Any]], new: tuple[tree.TreeDef, Sequence[Any]]
) -> Iterator[str]:
    """Name the leaves that changed, came or went."""
    before, after = (dict(zip(parameters.leaf_names(t), keys, strict=True)) for t, keys in (old, new))
    for name in [*before, *(n for n in after if n not in before)]:
        if name not in after:
            yield f"{name} is not there any more"
        elif name not in before:
            yield f"{name} is new: {describe(after[name])}"
        elif before[name] != after[name]:
            yield f"{name}: {describe(before[name])} became {describe(after[name])}"


def outside(key: Any) -> str:
    """Write the key of a captured value: a number or string, an array's shape and dtype, a container's size."""
    if isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], type):
        kind, content = key
        if isinstance(content, Contents):
            return f"{len(content.parts)} values"
        if issubclass(kind, Mappings):
            return "keys " + ", ".join(map(repr, content))
        if issubclass(kind, Containers):
            return f"{content} items"
        if issubclass(kind, Sets):
            return f"{len(content)} elements"
        return content if isinstance(content, str) and kind is not str else repr(content)
    code = key[0] if isinstance(key, tuple) else getattr(key, "__code__", None)
    if isinstance(code, CodeType):
        return f"{code.co_name} of line {code.co_firstlineno}"
    return describe(key)
