"""The base of modules: a frozen object that is a pytree.

When `__init__` returns, every attribute is sorted into one of two kinds and can no longer be assigned. Arrays, modules,
and lists, tuples and dicts with any of them inside are children, and part of the pytree; everything else (sizes, flags,
functions) is static configuration, part of the structure, and must be hashable.
"""

from __future__ import annotations

from typing import Any, Self

from tracegrad import tree
from tracegrad.errors import ArgumentError


class Layout:
    """What is static about a module: the names of its children, and its other attributes with their values.

    Every call takes models apart and puts them together again, so hash and template are made once, and a module without
    children, which never differs from its like, is kept in `shared`.
    """

    __slots__ = ("children", "hash", "shared", "static", "template")

    def __init__(self, children: tuple[str, ...], static: tuple[tuple[str, Any], ...]):
        self.children = children
        self.static = static
        self.hash = hash((children, static))
        self.template: dict[str, Any] = {**dict(static), "_layout": self}
        self.shared: Module | None = None

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Layout) and (self.children, self.static) == (other.children, other.static)

    def __hash__(self) -> int:
        return self.hash

    def __repr__(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.static)


def layout(module: Module) -> Layout:
    """Sort the attributes of a module, all of which must be children or hashable."""
    children = tuple(name for name, value in module.__dict__.items() if holds_arrays(value))
    static = tuple((name, value) for name, value in module.__dict__.items() if name not in children)
    for name, value in static:
        try:
            hash(value)
        except TypeError:
            raise ArgumentError(
                f"{type(module).__name__}.{name}: a {type(value).__name__} without arrays must be hashable",
                fix="store a tuple, or an array",
            ) from None
    found = Layout(children, static)
    if not children:
        found.shared = module
    return found


def holds_arrays(value: Any) -> bool:
    """Tell whether an attribute is part of the pytree."""
    if isinstance(value, (list, tuple)):
        return any(holds_arrays(v) for v in value)
    if isinstance(value, dict):
        return any(holds_arrays(v) for v in value.values())
    return isinstance(value, Module) or (hasattr(value, "shape") and hasattr(value, "dtype"))


def take_apart(module: Module) -> tuple[list[Any], Layout, tuple[str, ...]]:
    """Flatten: children, static data, names of the children."""
    attributes = module.__dict__
    found: Layout = attributes["_layout"]
    return [attributes[name] for name in found.children], found, found.children


def put_together(cls: type, static: Layout, children: Any) -> Any:
    if type(static.shared) is cls:
        return static.shared
    module: Any = object.__new__(cls)
    attributes = module.__dict__
    attributes.update(static.template)
    attributes.update(zip(static.children, children, strict=True))
    return module


class ModuleType(type):
    """Registers each module class as a pytree and freezes each instance."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any]):
        super().__init__(name, bases, namespace)
        flatten: Any = take_apart  # also names the children, which optree takes as a third part
        tree.register(cls, flatten, lambda static, children: put_together(cls, static, children))

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        module = super().__call__(*args, **kwargs)
        if "_layout" not in module.__dict__:
            module.__dict__["_layout"] = layout(module)
        return module


class Module(metaclass=ModuleType):
    """Base class of models. Assign arrays and modules in `__init__`, and compute in `__call__`.

    >>> import numpy as np
    >>> class Scale(Module):
    ...     def __init__(self, n):
    ...         self.weight = np.ones(n)
    ...
    ...     def __call__(self, x):
    ...         return x * self.weight
    >>> [w.shape for w in tree.leaves(Scale(3))]
    [(3,)]
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if "_layout" in self.__dict__:
            raise AttributeError(
                f"{type(self).__name__}.{name} cannot be assigned: modules are immutable."
                f"\n  fix: module = module.replace({name}=...)"
            )
        self.__dict__[name] = value

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some attributes changed.

        >>> import numpy as np
        >>> from tracegrad import nn
        >>> nn.Linear(2, 1).replace(weight=np.zeros((1, 2), np.float32)).weight
        array([[0., 0.]], dtype=float32)
        """
        unknown = set(changes) - set(self.attributes())
        if unknown:
            raise ArgumentError(
                f"{type(self).__name__} has no attribute {', '.join(sorted(unknown))}", fix="check the name"
            )
        copy = object.__new__(type(self))
        copy.__dict__.update(self.attributes() | changes)
        copy.__dict__["_layout"] = layout(copy)
        return copy

    def attributes(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_layout"}

    def named_parameters(self) -> dict[str, Any]:
        """Return the leaves by dotted name, as in PyTorch's `state_dict`.

        >>> from tracegrad import nn
        >>> list(nn.Sequential(nn.Linear(2, 3)).named_parameters())
        ['0.weight', '0.bias']
        """
        names = [".".join(str(entry) for entry in path) for path in tree.flatten(self)[1].paths()]
        return dict(zip(names, tree.leaves(self), strict=True))

    def __repr__(self) -> str:
        parts = []
        for name, value in self.attributes().items():
            text = (
                f"{value.dtype}{list(value.shape)}"
                if hasattr(value, "dtype") and hasattr(value, "shape")
                else repr(value)
            )
            parts.append(f"{name}={text}")
        inner = ", ".join(parts)
        if len(inner) > 100 or "\n" in inner:
            inner = "\n" + ",\n".join(parts).replace("\n", "\n  ")
            inner = inner.replace("\n", "\n  ", 1) + "\n"
        return f"{type(self).__name__}({inner})"
