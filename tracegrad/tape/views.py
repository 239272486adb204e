"""Views: tensors on the memory of another one, their base, that stay right when either is changed in place.

A view knows the steps (reshape, transpose, slice) from its base. When memory has been changed since the view was
recorded, its node is made again: the steps, applied to what the base is now. When a view is changed, the base becomes
the old base with the view written into it:

    put(x, [], v) = v        put(x, [f, ...], v) = back_f(x, put(f(x), [...], v))
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegrad.errors import Place, TapeError
from tracegrad.ir import Aval, Primitive
from tracegrad.ops.index import set_slice
from tracegrad.ops.shape import reshape, slice_, transpose
from tracegrad.tape.node import Node

Step = tuple[Primitive, dict[str, Any]]
Value = tuple[Node | None, Aval]
"""A node (None for a constant) with shape and dtype: enough for primitives that only move elements."""


class View:
    """How a tensor lies in its base; `seen` counts the changes at which its node was made."""

    __slots__ = ("base", "recorded", "seen", "steps")

    def __init__(self, base: Any, steps: tuple[Step, ...], recorded: bool):
        self.base = base
        self.steps = steps
        self.recorded = recorded
        self.seen: int = base._counter.count

    @classmethod
    def of(cls, source: Any, prim: Primitive, params: dict[str, Any], recorded: bool) -> View:
        """Return the view that one more step makes of a tensor."""
        held = source._view
        if held is None or source._leaf:
            return cls(source, ((prim, params),), recorded)
        return cls(held.base, (*held.steps, (prim, params)), recorded and held.recorded)


def always_new(method: Any) -> Any:
    """Let a method that gives the tensor itself where there is nothing to do give a view of all of it instead."""

    @functools.wraps(method)
    def viewing(self: Any, *args: Any, **kwargs: Any) -> Any:
        found = method(self, *args, **kwargs)
        return reshape(self, shape=self.shape) if found is self else found

    return viewing


VIEWING = (
    "__getitem__", "expand", "movedim", "narrow", "permute", "ravel", "reshape", "squeeze", "swapaxes", "t",
    "transpose", "unsqueeze", "view",
)  # fmt: skip
"""Methods whose results are other tensors than their operand, always; `T` and `mT` besides."""


def moved(prim: Primitive, operands: Sequence[Value], params: dict[str, Any], place: Place | None) -> Value:
    """Record a primitive that only moves elements; the memory holds its result already."""
    aval = prim.aval(*(a for _, a in operands), **params)
    edges = tuple(n for n, _ in operands)
    if edges == (None,) * len(edges):
        return None, aval
    node = Node(prim, edges, params, place)
    node.saved = [None, *(a if n is None else n for n, a in operands)]
    node.keeps, node.shape, node.dtype, node.aval = False, aval.shape, aval.dtype, None
    return node, aval


def replay(start: Node | None, view: View, place: Place | None) -> Node | None:
    """Record the steps from the base, which `start` is the node of."""
    value: Value = (start, Aval(view.base.shape, view.base.dtype))
    for prim, params in view.steps:
        value = moved(prim, [value], params, place)
    return value[0]


def put(x: Value, steps: Sequence[Step], v: Value, place: Place | None) -> Value:
    """Return x with `v` written where the steps lead."""
    if not steps:
        return v
    (prim, params), rest = steps[0], steps[1:]
    inside = moved(prim, [x], params, place) if rest else x
    found = put(inside, rest, v, place)
    if prim is reshape:
        return moved(reshape, [found], {"shape": x[1].shape}, place)
    if prim is transpose:
        return moved(transpose, [found], {"perm": tuple(int(p) for p in np.argsort(params["perm"]))}, place)
    if prim is slice_:
        return moved(set_slice, [x, found], {"start": params["start"], "step": params["step"]}, place)
    raise TapeError(
        f"in-place: a view made by {prim.name} shows one element in several places", fix="change a copy: x.clone()"
    )
