"""Operations in place: the memory is overwritten, the change is counted, and the tensor takes over the new node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tracegrad.numpy as tnp
from tracegrad.errors import DTypeError, ShapeError, TapeError, user_place
from tracegrad.ir import Aval
from tracegrad.numpy import indexing, torch_names
from tracegrad.numpy.updates import Update
from tracegrad.ops.index import set_slice
from tracegrad.tape.node import NUMBERS, Node, Version
from tracegrad.tape.tensor import Tensor, edge
from tracegrad.tape.views import moved, put
from tracegrad.trace import STATE, Tracer


def check_writable(t: Tensor, name: str) -> None:
    """Refuse to change what must not be changed."""
    state = STATE.get()
    if state.traces and not state.traces[-1].computes:
        raise TapeError(f"{name}: a traced function cannot change the tensor {t.aval}", fix="return the result")
    if not t._data.flags.writeable and t._data.size:
        raise TapeError(
            f"{name}: the memory of {t.aval} is read-only, or shows one element in several places",
            fix="change a copy: x.clone()",
        )
    if state.grad_off >= 0:
        return
    instead = "write y = x + 1 instead of x += 1, or update it under tg.no_grad()"
    if t._leaf:
        raise TapeError(f"{name}: {t.aval} is a leaf that requires a gradient, and would be lost", fix=instead)
    if t._view is not None and t._view.base._leaf:
        raise TapeError(f"{name}: {t.aval} is a view of a leaf that requires a gradient", fix=instead)
    if t._view is not None and not t._view.recorded and t._view.base.requires_grad:
        raise TapeError(
            f"{name}: {t.aval} is a view made under tg.no_grad() of a tensor that requires a gradient",
            fix="make the view outside tg.no_grad(), or change it under tg.no_grad()",
        )


def fitting(t: Tensor, value: Any, name: str, *, strict: bool) -> Any:
    """Return a value in t's dtype and shape; with `strict` it must have the shape already."""
    found = tnp.asarray(value)
    if not np.can_cast(found.dtype, t.dtype, "same_kind"):
        raise DTypeError(
            f"{name}: the result {Aval(tuple(found.shape), found.dtype)} cannot be stored in {t.aval}",
            fix="convert it with .astype(...), or write x = x + y",
        )
    if strict and tuple(found.shape) != t.shape:
        raise ShapeError(
            f"{name}: the result has shape {tuple(found.shape)}, the tensor is {t.aval}",
            fix="write x = x + y, which makes a new tensor",
        )
    found = found if found.dtype == t.dtype else tnp.astype(found, t.dtype)
    return found if tuple(found.shape) == t.shape else tnp.broadcast_to(found, t.shape)


def store(t: Tensor, value: Any, node: Node | None, since: int) -> None:
    """Overwrite the memory of `t` with `value`, which `node` has made; views and bases learn of it.

    `since` is the number of the first node that belongs to this operation.
    """
    array = value._data if isinstance(value, Tensor) else value
    if node is not None:
        keep_operands(node, t._counter, since)
    if array.size:
        np.copyto(t._data, array)
    place = user_place()
    t._counter.count += 1
    t._counter.changed = place
    if STATE.get().grad_off >= 0:
        return
    if node is not None and node.saved is not None and node.saved[0] is array:
        node.saved[0] = t._data  # the rule reads the result: here it is now, and changes to it count
        node.versions = [v for v in node.versions if v[0] != 0] + [(0, t._counter, t._counter.count)]
    view = t._view
    if view is None:
        replace_node(t, node)
        return
    base = view.base
    start = edge(base)
    if node is not None or start is not None:
        replace_node(base, put((start, base.aval), view.steps, (node, t.aval), place)[0])


def replace_node(t: Tensor, node: Node | None) -> None:
    """Let a changed tensor be the result of `node`."""
    if node is not None:
        node.succeed(t._node)
    t._node = node


def keep_operands(last: Node, version: Version, since: int) -> None:
    """Copy what the nodes made since then, which are about to overwrite this memory, have kept of it."""
    pending = [last]
    while pending:
        node = pending.pop()
        if node.saved is None or node.number < since:
            continue
        touched = {p for p, v, _ in node.versions if v is version}
        for position in touched:
            node.saved[position] = node.saved[position].copy()
        node.versions = [entry for entry in node.versions if entry[0] not in touched]
        pending.extend([o for o in node.operands if o is not None])


def in_place(name: str, function: Callable[..., Any]) -> Callable[..., Tensor]:
    """Make the in-place version of a function."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_writable(self, name)
        since = next(NUMBERS)
        found = fitting(self, function(self, *args, **kwargs), name, strict=True)
        store(self, found, edge(found) if isinstance(found, Tensor) else None, since)
        return self

    method.__name__ = name
    method.__doc__ = f"`{function.__name__}` in place."
    return method


def copy_(self: Tensor, source: Any) -> Tensor:
    """Overwrite with `source`, which is broadcast and converted; gradients flow to it."""
    check_writable(self, "copy_")
    since = next(NUMBERS)
    found = tnp.asarray(source)
    found = found if found.dtype == self.dtype else tnp.astype(found, self.dtype)
    found = fitting(self, found, "copy_", strict=False)
    mine, theirs = edge(self), edge(found) if isinstance(found, Tensor) else None
    whole = {"start": (0,) * len(self.shape), "step": (1,) * len(self.shape)}
    node = None
    if STATE.get().grad_off < 0:
        node, _ = moved(set_slice, [(mine, self.aval), (theirs, self.aval)], whole, user_place())
    store(self, found, node, since)
    return self


def fill_(self: Tensor, value: Any) -> Tensor:
    """Set every element to a number or a scalar tensor."""
    if np.shape(value if not isinstance(value, Tracer) else value._data) != ():  # type: ignore[attr-defined]
        raise ShapeError(f"fill_: the value is not a scalar, the tensor is {self.aval}", fix="use copy_")
    return copy_(self, value)


def zero_(self: Tensor) -> Tensor:
    """Set every element to 0."""
    return copy_(self, 0)


def setitem(self: Tensor, index: Any, value: Any) -> None:
    """x[index] = value: in place, with the gradient of what was overwritten cut off."""
    check_writable(self, "item assignment")
    how = Update(self, indexing.plan(index, self))
    if not how._how.points:
        copy_(indexing.read(self, how._how), how.fit(value))
        return
    since = next(NUMBERS)
    found = how.set(value)
    store(self, found, edge(found), since)


def detach_(self: Tensor) -> Tensor:
    """Take the tensor out of the graph: it becomes a leaf without gradient."""
    if self._view is not None:
        raise TapeError(f"detach_: {self.aval} is a view", fix="use x.detach()")
    self._node, self._leaf = None, False
    return self


METHODS: dict[str, Callable[..., Any]] = {
    "copy_": copy_, "detach_": detach_, "fill_": fill_, "zero_": zero_, "__setitem__": setitem,
}  # fmt: skip
IN_PLACE: dict[str, Callable[..., Any]] = {
    "abs_": tnp.abs, "add_": torch_names.add, "ceil_": tnp.ceil, "clamp_": torch_names.clamp,
    "clip_": torch_names.clamp, "cos_": tnp.cos, "div_": tnp.divide, "exp_": tnp.exp, "floor_": tnp.floor,
    "log_": tnp.log, "mul_": tnp.multiply, "neg_": tnp.negative, "pow_": tnp.power, "reciprocal_": tnp.reciprocal,
    "relu_": torch_names.relu, "round_": tnp.round, "rsqrt_": torch_names.rsqrt, "sigmoid_": torch_names.sigmoid,
    "sin_": tnp.sin, "sqrt_": tnp.sqrt, "square_": tnp.square, "sub_": torch_names.sub, "tanh_": tnp.tanh,
    "trunc_": tnp.trunc,
}  # fmt: skip
OPERATORS: dict[str, Callable[..., Any]] = {
    "__iadd__": tnp.add, "__isub__": tnp.subtract, "__imul__": tnp.multiply, "__itruediv__": tnp.divide,
    "__ifloordiv__": tnp.floor_divide, "__imod__": tnp.remainder, "__ipow__": tnp.power, "__iand__": tnp.bitwise_and,
    "__ior__": tnp.bitwise_or, "__ixor__": tnp.bitwise_xor, "__ilshift__": tnp.left_shift,
    "__irshift__": tnp.right_shift,
}  # fmt: skip
