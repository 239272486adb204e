"""Frozen classes of named fields, made without writing code.

    @record
    class Spec:
        shape: tuple[int, ...]
        dtype: np.dtype[Any]

`dataclasses` writes the methods of every class as text and compiles them: a millisecond each, which is felt at the
start of a process that finds its program in the cache. What the modules of a warm start declare is made of closures
instead. Records are what a frozen data class with slots is: equal by their fields (by identity with `eq=False`),
hashable, matched by position, printed with names.
"""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any, NoReturn, TypeVar, dataclass_transform, overload

T = TypeVar("T")


@overload
def record(cls: type[T]) -> type[T]: ...
@overload
def record(*, eq: bool = True) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True)
def record(cls: type[T] | None = None, *, eq: bool = True) -> Any:
    """Make a record of a class whose annotations are its fields, those of its bases first."""
    return (lambda one: made(one, eq)) if cls is None else made(cls, eq)


def made(cls: type[T], eq: bool) -> type[T]:
    """Return the class with slots for its fields and the methods that it does not define itself."""
    body = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    own = tuple(cls.__annotations__)
    inherited: tuple[str, ...] = getattr(cls, "__match_args__", ())
    fields = (*inherited, *own)
    defaults = getattr(cls, "_defaults", {}) | {name: body.pop(name) for name in own if name in body}
    methods = {"__init__": initialiser(fields, defaults), "__repr__": show}
    if eq:
        methods |= {"__eq__": equal, "__hash__": hashed}
    fixed = {"__setattr__": refuse_change, "__delattr__": refuse_change, "__reduce__": reduced, "__slots__": own}
    read = attrgetter(*fields) if len(fields) > 1 else lambda self: (getattr(self, fields[0]),)
    known = {"__match_args__": fields, "_defaults": defaults, "_values": property(read)}
    kind: Any = type(cls)
    found: Any = kind(cls.__name__, cls.__bases__, {**methods, **body, **fixed, **known})
    found._setters = tuple([getattr(found, field).__set__ for field in fields])
    return found  # type: ignore[no-any-return]


def setters(cls: type) -> tuple[Callable[[Any, Any], None], ...]:
    """Return what sets each field, for the `__init__` of a record that is made so often that it has its own."""
    return cls._setters  # type: ignore[attr-defined, no-any-return]


def initialiser(fields: tuple[str, ...], defaults: dict[str, Any]) -> Callable[..., None]:
    """Return `__init__`, which takes the fields by position or name."""
    count = len(fields)

    def fill(self: Any, *values: Any, **named: Any) -> None:
        if named or len(values) != count:
            values = settled(type(self).__qualname__, fields, defaults, values, named)
        for put, value in zip(self._setters, values):  # noqa: B905 (they are equally many)
            put(self, value)

    return fill


def settled(
    name: str, fields: tuple[str, ...], defaults: dict[str, Any], values: tuple[Any, ...], named: dict[str, Any]
) -> tuple[Any, ...]:
    """Return the values of all fields; raise TypeError as a function of these parameters would."""
    if len(values) > len(fields):
        raise TypeError(f"{name}() takes {len(fields)} values but {len(values)} were given")
    given = dict(zip(fields, values))  # noqa: B905 (the first of them)
    for field in named:
        if field in given or field not in fields:
            raise TypeError(f"{name}() got {'two values for' if field in given else 'an unexpected field'} {field!r}")
    found = defaults | given | named
    if len(found) != len(fields):
        raise TypeError(f"{name}() needs {', '.join(repr(field) for field in fields if field not in found)}")
    return tuple([found[field] for field in fields])


def show(self: Any) -> str:
    values = ", ".join(f"{name}={value!r}" for name, value in zip(self.__match_args__, self._values, strict=True))
    return f"{type(self).__qualname__}({values})"


def equal(self: Any, other: Any) -> Any:
    return self._values == other._values if type(other) is type(self) else NotImplemented


def hashed(self: Any) -> int:
    return hash(self._values)


def refuse_change(self: Any, name: str, *value: Any) -> NoReturn:
    raise AttributeError(f"{type(self).__qualname__} is frozen: {name} cannot be changed")


def reduced(self: Any) -> tuple[Any, ...]:
    """Copy a record by making it anew."""
    return type(self), self._values


def replace(record: T, **changes: Any) -> T:
    """Return a record with other values of some fields."""
    return type(record)(**(as_dict(record) | changes))


def as_dict(record: Any) -> dict[str, Any]:
    """Return the fields by name; the values are those of the record, not copies."""
    return dict(zip(record.__match_args__, record._values, strict=True))
