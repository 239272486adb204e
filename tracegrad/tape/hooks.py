"""Hooks: functions that see gradients on their way."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any

from tracegrad.errors import TapeError
from tracegrad.tape.tensor import Tensor, current_node

IDS = itertools.count()


class RemovableHandle:
    """Takes a hook off again: `handle.remove()`, or at the end of a `with` block."""

    def __init__(self, hooks: dict[int, Any], number: int):
        self._hooks = hooks
        self._number = number

    def remove(self) -> None:
        self._hooks.pop(self._number, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *error: Any) -> None:
        self.remove()


def added(hooks: dict[int, Any], hook: Callable[[Any], Any]) -> RemovableHandle:
    number = next(IDS)
    hooks[number] = hook
    return RemovableHandle(hooks, number)


def register_hook(self: Tensor, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Call `hook(grad)` whenever the gradient of this tensor is computed; what it returns (not None) replaces it.

    >>> import tracegrad as tg
    >>> x = tg.tensor(1.0, requires_grad=True)
    >>> handle = x.register_hook(lambda g: g * 10.0)
    >>> (2.0 * x).backward()
    >>> handle.remove()
    >>> x.grad
    tensor(20.)
    """
    node = current_node(self)
    if node is None:
        if not self._leaf:
            raise TapeError(f"register_hook: {self.aval} does not require a gradient", fix="call x.requires_grad_()")
        if self._hooks is None:
            self._hooks = {}
        return added(self._hooks, hook)
    if node.hooks is None:
        node.hooks = {}
    return added(node.hooks, hook)


def register_post_accumulate_grad_hook(self: Tensor, hook: Callable[[Tensor], None]) -> RemovableHandle:
    """Call `hook(tensor)` after a gradient has been added to the `.grad` of this leaf."""
    if not self._leaf:
        raise TapeError(
            f"register_post_accumulate_grad_hook: {self.aval} is not a leaf that requires a gradient",
            fix="use register_hook for results",
        )
    if self._post_hooks is None:
        self._post_hooks = {}
    return added(self._post_hooks, hook)


def retain_grad(self: Tensor) -> None:
    """Keep the gradient of this result in `.grad` as well; leaves keep theirs anyway."""
    node = current_node(self)
    if node is not None:
        node.retained = weakref.ref(self)
    elif not self._leaf:
        raise TapeError(f"retain_grad: {self.aval} does not require a gradient", fix="call x.requires_grad_()")


def retains_grad(self: Tensor) -> bool:
    """Whether a result keeps its gradient."""
    node = current_node(self)
    return node is not None and node.retained is not None


METHODS: dict[str, Any] = {
    "register_hook": register_hook,
    "register_post_accumulate_grad_hook": register_post_accumulate_grad_hook,
    "retain_grad": retain_grad,
    "retains_grad": property(retains_grad),
}
