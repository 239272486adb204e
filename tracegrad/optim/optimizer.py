"""What an optimizer is: `init` makes a state, `update` turns gradients into updates. Both are pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

import tracegrad.numpy as tnp
from tracegrad import tree
from tracegrad.errors import ArgumentError, DTypeError
from tracegrad.ir.aval import is_float
from tracegrad.ir.primitive import holds_half
from tracegrad.numpy.half import wide
from tracegrad.ops.elementwise import convert
from tracegrad.trace import is_scalar

PyTree = tree.PyTree
Number: TypeAlias = Any
"""A Python number, a NumPy scalar or a traced scalar."""
Rate: TypeAlias = Number | Callable[[Any], Any]
F64 = np.dtype(np.float64)


@dataclass(frozen=True)
class Optimizer:
    """A pair of pure functions.

    `init(params)` returns a state; `update(grads, state, params)` returns `(updates, state)`, and updates are to be
    added to params. States are pytrees of arrays: they can be donated, saved, and passed to compiled functions.
    `descends` is False for a transformation of gradients, whose updates are not to be added yet.
    """

    init: Callable[[PyTree], PyTree]
    update: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
    descends: bool = True

    def step(self, grads: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        """Return the new params and state.

        >>> from tracegrad import optim
        >>> optimizer = optim.sgd(0.1)
        >>> params = {"w": np.ones(2)}
        >>> params, state = optimizer.step({"w": np.ones(2)}, optimizer.init(params), params)
        >>> params["w"].tolist()
        [0.9, 0.9]
        """
        updates, state = self.update(grads, state, params)
        return apply_updates(params, updates), state


def apply_updates(params: PyTree, updates: PyTree) -> PyTree:
    """Return params + updates, leaf by leaf, in the dtype of params."""

    def single(p: Any, u: Any) -> Any:
        return tnp.astype(p + u, p.dtype) if holds_half(p) else p + u

    return tree.map(single, params, updates)


def chain(*parts: Optimizer) -> Optimizer:
    """Apply several transformations in order: what one returns as updates is what the next gets as gradients.

    >>> from tracegrad import optim
    >>> optimizer = chain(optim.clip_by_global_norm(1.0), optim.adam(1e-3))
    """
    for part in parts:
        if not isinstance(part, Optimizer):
            raise ArgumentError(f"chain: a {type(part).__name__} is not an optimizer", fix="call it: optim.adam(1e-3)")

    def init(params: PyTree) -> PyTree:
        return tuple(part.init(params) for part in parts)

    def update(grads: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        after = []
        for part, held in zip(parts, state, strict=True):
            grads, held = part.update(grads, held, params)
            after.append(held)
        return grads, tuple(after)

    return Optimizer(init, update, any(part.descends for part in parts))


def start() -> Any:
    """Return the count of updates at the beginning."""
    return np.zeros((), np.int64)


def zeros(params: PyTree) -> PyTree:
    """Return zeros like params, all of which must be floating point; float32 for parameters in half precision."""
    for name, leaf in zip(tree.paths(params), tree.leaves(params), strict=True):
        dtype = getattr(leaf, "dtype", None)
        if dtype is not None and not is_float(np.dtype(dtype)):
            raise DTypeError(
                f"optim: the parameter {name or 'given'} is {dtype}, not floating point",
                fix="optimise params alone: params, buffers = nn.split(model)",
            )
    return tree.map(lambda p: wide(tnp.zeros_like(p)), params)


def rows(params: PyTree, grads: PyTree, *held: PyTree) -> Iterator[tuple[Any, ...]]:
    """Yield gradient, parameter and what is held for it, leaf by leaf; what is held may be None as a whole.

    Gradients and parameters in half precision come as float32.
    """
    structure = tree.flatten(params)[1]
    leaves, given = tree.flatten(grads)
    if given != structure:
        raise ArgumentError(
            f"optim: the gradients have the structure {given}, but the params {structure}",
            fix="pass the gradients of exactly these params",
        )
    columns = [tree.leaves(h) if h is not None else [None] * len(leaves) for h in held]
    if any(len(column) != len(leaves) for column in columns):
        raise ArgumentError(
            "optim: the state belongs to other params", fix="make it with optimizer.init(params), and keep it"
        )
    return zip(map(wide, leaves), map(wide, tree.leaves(params)), *columns, strict=True)


def rate_at(rate: Rate, count: Any) -> Number:
    """Return the learning rate at `count` updates made."""
    return rate(count) if callable(rate) else rate


def beside(value: Number, like: Any) -> Number:
    """Return a scalar so that it does not change the dtype of `like` when they meet."""
    if is_scalar(value):
        return value
    if isinstance(value, np.generic):
        return value.astype(like.dtype)
    return convert(value, dtype=np.dtype(like.dtype))


def as_float(count: Any) -> Any:
    """Return a count as float64."""
    return float(count) if is_scalar(count) else convert(count, dtype=F64)


def unzip(params: PyTree, rows: list[tuple[Any, ...]], n: int) -> tuple[PyTree, ...]:
    """Turn one row of results per leaf into `n` trees of the structure of params."""
    structure = tree.flatten(params)[1]
    columns = zip(*rows, strict=True) if rows else ((),) * n
    return tuple(tree.unflatten(structure, column) for column in columns)
