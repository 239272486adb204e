"""Why a function is traced again: what its new signature has that no earlier one had."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from tracegrad import tree
from tracegrad.api.captures import Environment
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


def reason(parameters: Parameters, environment: Environment, known: Iterable[Any], key: Any) -> str:
    """Compare a signature with the one among `known` that is nearest to it; "" if there is none.

    A signature is ((structure, leaves, static values), captured values), as `Function` keeps it.
    """
    found = [list(differences(parameters, environment, old, key)) for old in known]
    fewest = min((len(texts) for texts in found), default=0)
    return next(("; ".join(texts) for texts in reversed(found) if len(texts) == fewest), "")


def differences(parameters: Parameters, environment: Environment, old: Any, new: Any) -> Iterator[str]:
    """Say each thing in which two signatures differ."""
    found = [*leaf_differences(parameters, old[0][:2], new[0][:2]), *value_differences(environment, old, new)]
    if not found:
        found.append(f"another structure: {old[0][0]} became {new[0][0]}")
    yield from found


def value_differences(environment: Environment, old: Any, new: Any) -> Iterator[str]:
    """Name the static and the captured values that changed."""
    (*_, old_static), old_outside = old
    (*_, new_static), new_outside = new
    before, after = dict(old_static), dict(new_static)
    for name in sorted(before.keys() | after.keys()):
        a, b = (repr(values[name]) if name in values else "not given" for values in (before, after))
        if a != b:
            yield f"static {name}: {a} became {b}"
    for variable, a, b in zip(environment.variables, old_outside, new_outside, strict=True):
        if a != b:
            yield f"captured {variable.label()}: {outside(a)} became {outside(b)}"


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
    """Write the key of a captured value: a number or string, or an array's shape and dtype."""
    if isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], type):
        return key[1] if isinstance(key[1], str) and key[0] is not str else repr(key[1])
    return describe(key)
