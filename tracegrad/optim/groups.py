"""Different rules for different parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import tracegrad.numpy as tnp
from tracegrad import tree
from tracegrad.errors import ArgumentError
from tracegrad.optim.optimizer import Optimizer, PyTree

Labels = Callable[[str, Any], Any] | PyTree


def groups(optimizers: Mapping[Any, Optimizer], labels: Labels) -> Optimizer:
    """Give every parameter to the optimizer of its label.

    `labels` is a function of a parameter's dotted name and the parameter, or a pytree of labels with the structure of
    the params. Each optimizer sees its own parameters as a list. Raises ArgumentError for an unknown label.

    >>> from tracegrad import nn, optim
    >>> optimizer = groups(
    ...     {"decay": optim.adamw(1e-3), "rest": optim.adam(1e-3)}, lambda name, p: "decay" if p.ndim > 1 else "rest"
    ... )
    >>> sorted(optimizer.init(nn.Linear(2, 3)))
    ['decay', 'rest']
    """
    for label, optimizer in optimizers.items():
        if not isinstance(optimizer, Optimizer):
            raise ArgumentError(
                f"groups: a {type(optimizer).__name__} stands at {label!r}, not an optimizer",
                fix="call it: optim.adam(1e-3)",
            )

    def members(params: PyTree) -> dict[Any, list[int]]:
        found: dict[Any, list[int]] = {label: [] for label in optimizers}
        for i, (name, label) in enumerate(labels_of("groups", params, labels)):
            if label not in found:
                raise ArgumentError(
                    f"groups: the label {label!r} of {name} has no optimizer", fix=f"use one of {list(optimizers)}"
                )
            found[label].append(i)
        return found

    def init(params: PyTree) -> PyTree:
        leaves = tree.leaves(params)
        return {
            label: optimizers[label].init([leaves[i] for i in indices]) for label, indices in members(params).items()
        }

    def update(grads: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        leaves, structure = tree.flatten(params)
        slopes, given = tree.flatten(grads)
        if given != structure:
            raise ArgumentError(
                f"groups: the gradients have the structure {given}, but the params {structure}",
                fix="pass the gradients of exactly these params",
            )
        updates: list[Any] = [None] * len(leaves)
        after = {}
        for label, indices in members(params).items():
            own, after[label] = optimizers[label].update(
                [slopes[i] for i in indices], state[label], [leaves[i] for i in indices]
            )
            for i, value in zip(indices, own, strict=True):
                updates[i] = value
        return tree.unflatten(structure, updates), after

    return Optimizer(init, update, any(o.descends for o in optimizers.values()))


def masked(optimizer: Optimizer, mask: Labels) -> Optimizer:
    """Apply `optimizer` to the parameters whose mask is true only.

    Elsewhere a transformation (clipping, decay) leaves the gradients as they are, and an optimizer leaves the
    parameters as they are. `mask` is a function of name and parameter, or a pytree of bools with the structure of the
    params.

    >>> from tracegrad import optim
    >>> optimizer = optim.chain(masked(optim.weight_decay(0.1), lambda name, p: p.ndim > 1), optim.sgd(0.1))
    """
    rest = frozen() if optimizer.descends else Optimizer(lambda params: (), lambda g, s, p: (g, s), descends=False)
    chosen = (lambda name, p: bool(mask(name, p))) if is_function(mask) else tree.map(bool, mask)
    return groups({True: optimizer, False: rest}, chosen)


def frozen() -> Optimizer:
    """Leave the parameters as they are, for a group in `groups`."""
    return Optimizer(lambda params: (), lambda grads, state, params: (tree.map(tnp.zeros_like, grads), state))


def is_function(labels: Labels) -> bool:
    """Tell a function of name and parameter from a pytree, which may be a module and callable, too."""
    leaves = tree.leaves(labels)
    return callable(labels) and len(leaves) == 1 and leaves[0] is labels


def labels_of(what: str, params: PyTree, labels: Labels) -> list[tuple[str, Any]]:
    """Return name and label of every parameter."""
    leaves, structure = tree.flatten(params)
    names = [".".join(str(entry) for entry in path) for path in structure.paths()]
    if is_function(labels):
        return [(name, labels(name, leaf)) for name, leaf in zip(names, leaves, strict=True)]
    found, given = tree.flatten(labels)
    if given != structure:
        raise ArgumentError(
            f"{what}: the labels have the structure {given}, but the params {structure}",
            fix="make them with tree.map, or pass a function of name and parameter",
        )
    return list(zip(names, found, strict=True))
