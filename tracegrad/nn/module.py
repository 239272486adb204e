"""The base of modules: a frozen object that is a pytree.

When `__init__` returns, every attribute is sorted into one of two kinds and can no longer be assigned. Arrays, modules,
and lists, tuples and dicts with any of them inside are children, and part of the pytree; everything else (sizes, flags,
functions) is static configuration, part of the structure, and must be hashable.

Arrays that no gradient belongs to (running statistics, class weights) are *buffers*: a class names them in
`buffer_names`, and `nn.split` takes them apart from the parameters.

A pytree holds values, not objects: an array or a module that stands in two places of a model is two leaves, which train
apart. To tie weights, keep them in one place, and pass them on in `__call__`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self
from weakref import WeakValueDictionary

from tracegrad import tree
from tracegrad.errors import ArgumentError
from tracegrad.nn.loading import matched


class Layout:
    """What is static about a module: the names of its children, and its other attributes with their values.

    Every call takes models apart and puts them together again, so hash and template are made once, and a module without
    children, which never differs from its like, is kept in `shared`. There is one layout for all modules that have the
    same: native code tells them by its address.
    """

    __slots__ = ("__weakref__", "children", "hash", "key", "shared", "static", "template")
    static_fields = ("children", "static")
    """What the class is made of again when a saved program is loaded (`tracegrad.structure`)."""

    children: tuple[str, ...]
    static: tuple[tuple[str, Any], ...]
    key: Any
    hash: int
    template: dict[str, Any]
    shared: dict[type, Module]

    def __new__(cls, children: tuple[str, ...], static: tuple[tuple[str, Any], ...]) -> Layout:
        key = tree.exact_key((children, static))
        found = None if key is None else LAYOUTS.get(key)
        if found is not None:
            return found
        found = object.__new__(cls)
        found.children = children
        found.static = static
        found.key = key
        found.hash = hash((children, static))
        found.template = {**dict(static), tree.STATIC: found}
        found.shared = {}
        if key is not None:
            LAYOUTS[key] = found
        return found

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        return isinstance(other, Layout) and (self.key, self.children, self.static) == (
            other.key, other.children, other.static
        )  # fmt: skip

    def __hash__(self) -> int:
        return self.hash

    def __repr__(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.static)


LAYOUTS: WeakValueDictionary[Any, Layout] = WeakValueDictionary()


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
        found.shared.setdefault(type(module), module)
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
    found: Layout = attributes[tree.STATIC]
    return [attributes[name] for name in found.children], found, found.children


def put_together(cls: type, static: Layout, children: Any) -> Any:
    if (shared := static.shared.get(cls)) is not None:
        return shared
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
        tree.register(cls, flatten, lambda static, children: put_together(cls, static, children), is_frozen=True)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        module = super().__call__(*args, **kwargs)
        if tree.STATIC not in module.__dict__:
            module.__dict__[tree.STATIC] = layout(module)
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

    buffer_names: ClassVar[tuple[str, ...]] = ()

    def __setattr__(self, name: str, value: Any) -> None:
        if tree.STATIC in self.__dict__:
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
        copy.__dict__[tree.STATIC] = layout(copy)
        return copy

    def attributes(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != tree.STATIC}

    def named_parameters(self) -> dict[str, Any]:
        """Return the parameters by dotted name, as in PyTorch; buffers are not among them.

        >>> from tracegrad import nn
        >>> list(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)).named_parameters())
        ['0.weight', '0.bias', '1.weight', '1.bias']
        """
        return {name: value for name, value, buffer in named_leaves(self) if not buffer}

    def parameters(self) -> list[Any]:
        """Return the parameters, in the order of `named_parameters`.

        >>> from tracegrad import nn
        >>> [p.shape for p in nn.Linear(2, 3).parameters()]
        [(3, 2), (3,)]
        """
        return list(self.named_parameters().values())

    def named_buffers(self) -> dict[str, Any]:
        """Return the buffers by dotted name.

        >>> from tracegrad import nn
        >>> list(nn.BatchNorm1d(3).named_buffers())
        ['running_mean', 'running_var', 'num_batches_tracked']
        """
        return {name: value for name, value, buffer in named_leaves(self) if buffer}

    def state_dict(self) -> dict[str, Any]:
        """Return parameters and buffers by dotted name, with the names that PyTorch's modules use.

        >>> from tracegrad import nn
        >>> list(nn.Sequential(nn.Linear(2, 3)).state_dict())
        ['0.weight', '0.bias']
        """
        return {name: value for name, value, _ in named_leaves(self)}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> Self:
        """Return a copy with the arrays of `state_dict`, each in the dtype that this module has there.

        Raises StateDictError, which lists every missing and every unexpected key and every array of another shape.
        With strict=False keys may be missing (the old value stays) or unexpected; shapes must fit in any case.

        >>> from tracegrad import nn
        >>> a, b = nn.Linear(2, 3), nn.Linear(2, 3)
        >>> bool((b.load_state_dict(a.state_dict()).weight == a.weight).all())
        True
        """
        found = matched(type(self).__name__, self.state_dict(), state_dict, strict)
        loaded: Self = tree.unflatten(tree.flatten(self)[1], found)
        return loaded

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


def named_leaves(module: Module) -> Iterator[tuple[str, Any, bool]]:
    """Yield name, value, and whether it is a buffer, for each leaf in the order of the pytree."""
    seen: set[str] = set()
    values, structure = tree.flatten(module)
    for path, value in zip(structure.paths(), values, strict=True):
        name = ".".join(str(entry) for entry in path)
        if name in seen:
            raise ArgumentError(f"{type(module).__name__}: two arrays have the name {name}", fix="rename a dict's key")
        seen.add(name)
        yield name, value, is_buffer(module, path)


def is_buffer(node: Any, path: tuple[Any, ...]) -> bool:
    """Tell whether the leaf at `path` lies in an attribute that its module calls a buffer."""
    found = False
    for entry in path:
        if isinstance(node, Module):
            found = entry in node.buffer_names
            node = node.__dict__[entry]
        else:
            node = node[entry]
    return found


def rebuilt(value: Any, change: Callable[[str, Any], Any], prefix: str = "") -> Any:
    """Return a copy in which `change(prefix, module)` stands for every module, inner ones first."""
    match value:
        case Module():
            changes = {
                name: rebuilt(held, change, f"{prefix}{name}.")
                for name, held in value.attributes().items()
                if holds_arrays(held)
            }
            return change(prefix, value.replace(**changes))
        case dict():
            return type(value)((key, rebuilt(held, change, f"{prefix}{key}.")) for key, held in value.items())
        case list() | tuple():
            held = [rebuilt(v, change, f"{prefix}{i}.") for i, v in enumerate(value)]
            return type(value)(*held) if hasattr(value, "_fields") else type(value)(held)
    return value


def modules_of(value: Any, prefix: str = "") -> Iterator[tuple[str, Module]]:
    """Yield every module inside `value`, itself included, after the prefix of its names."""
    if isinstance(value, Module):
        yield prefix, value
        value = value.attributes()
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    for entry, held in value.items() if isinstance(value, dict) else ():
        yield from modules_of(held, f"{prefix}{entry}.")
