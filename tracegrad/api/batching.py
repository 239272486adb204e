"""`tg.vmap`: a function of one example, applied to many."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from tracegrad import numpy as tnp
from tracegrad import tree
from tracegrad.api.function import Function, typed
from tracegrad.api.pullback import as_function
from tracegrad.api.signature import Arguments, Spec, leaf_aval
from tracegrad.api.transform import Jit
from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.grad import batching_rules as _rules  # noqa: F401  (fills the tables)
from tracegrad.grad.batching import batched
from tracegrad.inlining import inline

Axes = Any
"""An axis, None, or a pytree of them that is a prefix of the values' structure."""


def vmap(fn: Callable[..., Any], in_axes: Axes = 0, out_axes: Axes = 0) -> Function:
    """Return the function that applies `fn` to many examples at once, compiled once per signature.

    Every array has one axis more than `fn` takes: `in_axes` says which (one for all arguments, or a tuple with one per
    argument, each of them a pytree prefix), None for arguments that all examples share; keyword arguments have it in
    front. `out_axes` says where the results get it. The function is traced for one example, and its graph batched:
    products become batched products, and so on; loops and branches that differ from example to example run one example
    after the other, in compiled code.

    Raises ShapeError when the batch axes differ in size or do not exist, ArgumentError when `in_axes` does not fit.

    >>> import numpy as np, tracegrad as tg
    >>> tg.vmap(np.dot, in_axes=(0, None))(np.eye(3), np.array([1.0, 2.0, 3.0]))
    array([1., 2., 3.])
    """
    function = as_function(fn)
    name = function.__name__

    @functools.wraps(fn)
    def many(*args: Any, **kwargs: Any) -> Any:
        arguments = function.parameters.split(args, kwargs)
        names = function.parameters.leaf_names(arguments.treedef)
        axes = input_axes(name, in_axes, arguments)
        size = batch_size(name, arguments.leaves, axes, names)
        rows, values = [], []
        for leaf, axis in zip(arguments.leaves, axes, strict=True):
            rows.append(leaf if axis is None else row_of(leaf, axis))
            values.append(typed(leaf) if axis is None else tnp.moveaxis(leaf, axis, 0))
        traced = function.call_of(arguments).trace(rows)
        flags = [*(axis is not None for axis in axes), *(False for _ in traced.captures)]
        wanted = prefixed(f"{name}: out_axes", out_axes, traced.out_tree)
        graph, differ = batched(traced.graph, flags, size, [axis is not None for axis in wanted])
        found = inline(graph, [*values, *traced.captures])
        for axis, differs in zip(wanted, differ, strict=True):
            if axis is None and differs:
                raise ArgumentError(
                    f"vmap: {name} gives a result that differs from example to example, but its out_axes is None",
                    fix="give it an axis, for instance out_axes=0",
                )
        results = [v if axis is None else tnp.moveaxis(v, 0, axis) for v, axis in zip(found, wanted, strict=True)]
        return tree.unflatten(traced.out_tree, results)

    return Function(many, Jit(), static=tuple(function.parameters.static), backend=function.backend)


def input_axes(name: str, in_axes: Axes, arguments: Arguments) -> list[int | None]:
    """Return the batch axis of every leaf, None where it has none."""
    args, kwargs = tree.unflatten(arguments.treedef, range(arguments.treedef.num_leaves))
    if isinstance(in_axes, (tuple, list)):
        if len(in_axes) != len(args):
            raise ArgumentError(
                f"vmap: in_axes has {len(in_axes)} entries, and {name} is called with {len(args)} positional arguments",
                fix="give one entry per argument",
            )
        each: Sequence[Any] = in_axes
    else:
        each = [in_axes] * len(args)
    found: dict[int, int | None] = {}
    for argument, axes in [*zip(args, each, strict=True), (kwargs, 0)]:
        leaves, treedef = tree.flatten(argument)
        found.update(zip(leaves, prefixed(f"{name}: in_axes", axes, treedef), strict=True))
    return [found[i] for i in range(len(found))]


def prefixed(what: str, axes: Axes, treedef: tree.TreeDef) -> list[int | None]:
    """Spread a pytree prefix of axes over all leaves."""
    if axes is None or isinstance(axes, int):
        return [axes] * treedef.num_leaves
    whole = tree.unflatten(treedef, range(treedef.num_leaves))
    entries, prefix = tree.flatten_with_none(axes)
    try:
        below = prefix.flatten_up_to(whole)
    except (ValueError, TypeError):
        raise ArgumentError(
            f"vmap: {what} {axes!r} is no prefix of the structure it belongs to",
            fix="use one axis for all, or one per argument or result",
        ) from None
    found: list[int | None] = []
    for entry, part in zip(entries, below, strict=True):
        if entry is not None and not isinstance(entry, int):
            raise ArgumentError(f"vmap: {what} holds {entry!r}, which is no axis", fix="use integers and None")
        found += [entry] * len(tree.leaves(part))
    return found


def batch_size(name: str, leaves: Sequence[Any], axes: Sequence[int | None], names: Sequence[str]) -> int:
    """Return the number of examples, which all batch axes must have in common."""
    sizes: dict[str, int] = {}
    for leaf, axis, label in zip(leaves, axes, names, strict=True):
        aval, _ = leaf_aval(leaf, label)
        if axis is None:
            continue
        if not -aval.ndim <= axis < aval.ndim:
            raise ShapeError(
                f"vmap: {name} takes {label} along axis {axis}, but it is {aval}",
                fix="pass an array with a batch axis, or None in in_axes",
            )
        sizes[label] = aval.shape[axis]
    if not sizes:
        raise ArgumentError(f"vmap: no argument of {name} has a batch axis", fix="give one of them an axis in in_axes")
    if len(set(sizes.values())) > 1:
        shown = ", ".join(f"{label} has {n}" for label, n in sizes.items())
        raise ShapeError(
            f"vmap: the arguments of {name} have different numbers of examples, {shown}",
            fix="check in_axes, or the shapes",
        )
    return next(iter(sizes.values()))


def row_of(leaf: Any, axis: int) -> Spec:
    """Return what one example of a leaf looks like."""
    aval, _ = leaf_aval(leaf, "")
    axis %= aval.ndim
    return Spec((*aval.shape[:axis], *aval.shape[axis + 1 :]), aval.dtype)
