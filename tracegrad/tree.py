"""Pytrees, over optree: nested tuples, lists, dicts, dataclass-like modules, None; everything else is a leaf.

optree is a compiled module and Python around it, and the latter takes fifteen times as long to import. Nothing here
needs it but classes of users' own, so the compiled module is loaded alone, and handed over when that is imported
(by PyTorch, for instance). Where it is not what this file expects, optree's public functions do the work.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from tracegrad import lazy

if TYPE_CHECKING:
    import optree
else:
    optree = lazy.module("optree")

NAMESPACE = "tracegrad"
COMPILED = "optree._C"
STATIC = "_layout"
FROZEN: set[type] = set()
"""Classes that are registered as frozen."""
PyTree = Any


class Public:
    """optree's public functions, in the place of its compiled module."""

    PyTreeSpec = property(lambda self: optree.PyTreeSpec)

    def flatten(self, tree: PyTree, leaf: None, none_is_leaf: bool, namespace: str) -> tuple[list[Any], TreeDef]:
        return optree.tree_flatten(tree, leaf, none_is_leaf=none_is_leaf, namespace=namespace)

    def flatten_with_path(
        self, tree: PyTree, leaf: None, none_is_leaf: bool, namespace: str
    ) -> tuple[list[tuple[Any, ...]], list[Any], TreeDef]:
        return optree.tree_flatten_with_path(tree, leaf, none_is_leaf=none_is_leaf, namespace=namespace)


def compiled() -> Any:
    """Return optree's compiled module, or what stands for it."""
    found = sys.modules.get(COMPILED)
    try:
        if found is None:
            found = load_alone()
        leaves, treedef = found.flatten({"a": 1}, None, False, NAMESPACE)
        _, same, _ = found.flatten_with_path({"a": 1}, None, False, NAMESPACE)
        if leaves == same == [1] and treedef.unflatten([2]) == {"a": 2} and isinstance(treedef, found.PyTreeSpec):
            return found
    except (ImportError, AttributeError, TypeError):
        pass
    return Public()


def load_alone() -> Any:
    """Load the compiled module without the package around it, which will import it in the usual way."""
    package = importlib.util.find_spec("optree")
    spec = PathFinder.find_spec(COMPILED, package.submodule_search_locations if package else None)
    if spec is None or spec.loader is None:
        raise ImportError(COMPILED)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.meta_path.insert(0, Loaded(module))
    return module


class Loaded:
    """Gives a module that is loaded already to the first `import` of it: a compiled module cannot be loaded twice."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != self.module.__name__:
            return None
        sys.meta_path.remove(self)
        loader: Any = self
        return ModuleSpec(name, loader, origin=self.module.__file__)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: the module has been executed."""


_COMPILED = compiled()
if TYPE_CHECKING:
    TreeDef: TypeAlias = optree.PyTreeSpec
else:
    TreeDef = _COMPILED.PyTreeSpec


def flatten(tree: PyTree) -> tuple[list[Any], TreeDef]:
    """Return the leaves and the structure of `tree`."""
    return _COMPILED.flatten(tree, None, False, NAMESPACE)  # type: ignore[no-any-return]


def flatten_with_none(tree: PyTree) -> tuple[list[Any], TreeDef]:
    """Return the leaves and the structure of `tree`; None is a leaf like any other."""
    return _COMPILED.flatten(tree, None, True, NAMESPACE)  # type: ignore[no-any-return]


def unflatten(treedef: TreeDef, leaves: Iterable[Any]) -> PyTree:
    """Put `leaves` back into the structure `treedef`."""
    return treedef.unflatten(leaves)


def map(fn: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:  # noqa: A001 (the name users know)
    """Apply `fn` leaf by leaf to trees of one structure.

    >>> map(lambda a, b: a + b, {"x": 1}, {"x": 2})
    {'x': 3}
    """
    leaves, treedef = flatten(tree)
    others = [treedef.flatten_up_to(other) for other in rest]
    return treedef.unflatten([fn(*each) for each in zip(leaves, *others, strict=True)])


def leaves(tree: PyTree) -> list[Any]:
    """Return the leaves of `tree` in order."""
    return flatten(tree)[0]


def paths(tree: PyTree) -> list[str]:
    """Name each leaf by its path, for instance `['w'][0]`."""
    found, _, _ = _COMPILED.flatten_with_path(tree, None, False, NAMESPACE)
    return ["".join(f"[{entry!r}]" for entry in path) for path in found]


def register(
    cls: type,
    flatten_fn: Callable[[Any], tuple[Iterable[Any], Any]],
    unflatten_fn: Callable[[Any, Any], Any],
    *,
    is_frozen: bool = False,
) -> type:
    """Register `cls` as a pytree node: flatten to (children, static data), unflatten from (static data, children).

    is_frozen: an instance has its static data as the attribute STATIC, and its children as attributes, whose names are
    a third part of what `flatten_fn` returns; so native code can take it apart.
    """
    optree.register_pytree_node(cls, flatten_fn, unflatten_fn, namespace=NAMESPACE)
    if is_frozen:
        FROZEN.add(cls)
    return cls


def static_data(treedef: TreeDef) -> Any:
    """Return the static data of the root of a structure."""
    return treedef.walk([None] * treedef.num_leaves, lambda kind, data, children: data, lambda leaf: None)


def registration(cls: type) -> Callable[[Any, Any], Any] | None:
    """Return what puts an instance of a registered class together from (static data, children), or None."""
    entry = optree.register_pytree_node.get(cls, namespace=NAMESPACE)
    return None if entry is None else entry.unflatten_func


def exact_key(value: Any) -> Any:
    """Return what two values have in common only where nothing tells them apart, or None.

    1, True and 1.0 are equal, but no substitutes; what else is equal by a rule of its own may be no substitute, either.
    """
    kind: Any = type(value)
    if kind is tuple:
        parts = [exact_key(v) for v in value]
        return None if None in parts else (kind, *parts)
    if kind is float:
        return kind, value.hex()
    if value is None or kind in (bool, int, str) or kind.__eq__ is object.__eq__:
        return kind, value
    return None
