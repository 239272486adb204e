"""Pytrees, over optree: nested tuples, lists, dicts, dataclass-like modules, None; everything else is a leaf."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import optree

NAMESPACE = "tracegrad"
PyTree = Any
TreeDef = optree.PyTreeSpec


def flatten(tree: PyTree) -> tuple[list[Any], TreeDef]:
    """Return the leaves and the structure of `tree`."""
    leaves, treedef = optree.tree_flatten(tree, none_is_leaf=False, namespace=NAMESPACE)
    return leaves, treedef


def flatten_with_none(tree: PyTree) -> tuple[list[Any], TreeDef]:
    """Return the leaves and the structure of `tree`; None is a leaf like any other."""
    leaves, treedef = optree.tree_flatten(tree, none_is_leaf=True, namespace=NAMESPACE)
    return leaves, treedef


def unflatten(treedef: TreeDef, leaves: Iterable[Any]) -> PyTree:
    """Put `leaves` back into the structure `treedef`."""
    return optree.tree_unflatten(treedef, leaves)


def map(fn: Callable[..., Any], tree: PyTree, *rest: PyTree) -> PyTree:  # noqa: A001 (the name users know)
    """Apply `fn` leaf by leaf to trees of one structure.

    >>> map(lambda a, b: a + b, {"x": 1}, {"x": 2})
    {'x': 3}
    """
    return optree.tree_map(fn, tree, *rest, none_is_leaf=False, namespace=NAMESPACE)


def leaves(tree: PyTree) -> list[Any]:
    """Return the leaves of `tree` in order."""
    return flatten(tree)[0]


def paths(tree: PyTree) -> list[str]:
    """Name each leaf by its path, for instance `['w'][0]`."""
    found, _, _ = optree.tree_flatten_with_path(tree, none_is_leaf=False, namespace=NAMESPACE)
    return ["".join(f"[{entry!r}]" for entry in path) for path in found]


def register(
    cls: type,
    flatten_fn: Callable[[Any], tuple[Iterable[Any], Any]],
    unflatten_fn: Callable[[Any, Any], Any],
) -> type:
    """Register `cls` as a pytree node: flatten to (children, static data), unflatten from (static data, children)."""
    optree.register_pytree_node(cls, flatten_fn, unflatten_fn, namespace=NAMESPACE)
    return cls


def registration(cls: type) -> Callable[[Any, Any], Any] | None:
    """Return what puts an instance of a registered class together from (static data, children), or None."""
    entry = optree.register_pytree_node.get(cls, namespace=NAMESPACE)
    return None if entry is None else entry.unflatten_func
