"""Buffers as values: a model is split into parameters and buffers, and a call gives the new buffers back.

    params, buffers = nn.split(model)

    def loss(params, buffers, x, y):
        scores, buffers = nn.functional_call(params, buffers, x, training=True)
        return F.cross_entropy(scores, y), buffers

    (value, buffers), grads = tg.value_and_grad(loss, has_aux=True)(params, buffers, x, y)
    params, state = optimizer.step(grads, state, params)
    model = nn.merge(params, buffers)                               # to evaluate, or to save

Nothing is written in place. During `functional_call` a layer hands over what its buffers become with `update`; the call
collects them, so that a model of any depth need not pass them on by hand. Structure and shapes stay what they were:
a compiled step never traces again.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

from tracegrad.errors import ArgumentError
from tracegrad.nn.module import Module, modules_of, rebuilt
from tracegrad.trace import Trace, current_trace


class Record:
    """The buffers that the modules of one call have handed over, by the identity of the module."""

    def __init__(self, trace: Trace | None):
        self.trace = trace
        self.found: dict[int, tuple[Module, dict[str, Any]]] = {}


RECORD: ContextVar[Record | None] = ContextVar("tracegrad buffers", default=None)


def split(model: Any) -> tuple[Any, dict[str, Any]]:
    """Return the model without its buffers, and the buffers by dotted name; `merge` undoes it.

    The first is what to differentiate by and what an optimizer gets. `model` is a module, or lists, tuples and dicts of
    them.

    >>> from tracegrad import nn
    >>> params, buffers = split(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    >>> list(buffers)
    ['1.running_mean', '1.running_var', '1.num_batches_tracked']
    """
    buffers: dict[str, Any] = {}

    def emptied(prefix: str, module: Module) -> Module:
        own = {name: value for name in module.buffer_names if (value := module.__dict__[name]) is not None}
        buffers.update({prefix + name: value for name, value in own.items()})
        return module.replace(**dict.fromkeys(own)) if own else module

    return rebuilt(model, emptied), buffers


def merge(params: Any, buffers: Mapping[str, Any]) -> Any:
    """Return the model that `split` took apart. Raises ArgumentError for a buffer that belongs nowhere."""
    left = set(buffers)

    def filled(prefix: str, module: Module) -> Module:
        own = {name: buffers[prefix + name] for name in module.buffer_names if prefix + name in buffers}
        left.difference_update(prefix + name for name in own)
        return module.replace(**own) if own else module

    model = rebuilt(params, filled)
    if left:
        raise ArgumentError(
            f"nn.merge: the model has no place for {', '.join(sorted(left))}",
            fix="pass the params and buffers that one call of nn.split returned",
        )
    return model


def functional_call(params: Any, buffers: Mapping[str, Any], *args: Any, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
    """Return `merge(params, buffers)(*args, **kwargs)`, and the buffers as they are after it.

    Works alike on arrays, and inside compiled and differentiated functions. Raises ArgumentError when a module that
    changes its buffers is not part of the model, or runs inside a loop, a branch or a checkpoint, whose rounds cannot
    hand anything out.

    >>> import numpy as np
    >>> from tracegrad import nn
    >>> params, buffers = nn.split(nn.BatchNorm1d(2))
    >>> y, buffers = nn.functional_call(params, buffers, np.full((4, 2), np.float32(10)), training=True)
    >>> buffers["running_mean"].tolist()
    [1.0, 1.0]
    """
    model = merge(params, buffers)
    record = Record(current_trace())
    token = RECORD.set(record)
    try:
        result = model(*args, **kwargs)
    finally:
        RECORD.reset(token)
    after = dict(buffers)
    for prefix, module in modules_of(model):
        _, changed = record.found.pop(id(module), (module, {}))
        after.update({prefix + name: value for name, value in changed.items()})
    for module, _ in record.found.values():
        raise ArgumentError(
            f"nn.functional_call: a {type(module).__name__} that is not part of the model changed its buffers",
            fix="keep it in an attribute of the model, and call that one, not a copy",
        )
    return result, after


def latest(module: Module) -> dict[str, Any]:
    """Return the buffers of a module, as an earlier call of it in this `functional_call` left them."""
    record = RECORD.get()
    changed = record.found[id(module)][1] if record is not None and id(module) in record.found else {}
    return {name: changed.get(name, module.__dict__[name]) for name in module.buffer_names}


def update(module: Module, **buffers: Any) -> None:
    """Hand over what the buffers of `module` become, to the `functional_call` around it. Without one this is an error:
    the new values would be lost. Tensors (`tg.track(model)`) are overwritten instead, as in PyTorch."""
    name = type(module).__name__
    record = RECORD.get()
    if record is None and all(hasattr(module.__dict__[b], "copy_") for b in buffers) and current_trace() is None:
        for b, value in buffers.items():
            module.__dict__[b].detach().copy_(value)
        return
    if record is None:
        raise ArgumentError(
            f"{name}: training changes its {', '.join(buffers)}, and nothing takes the new values",
            fix="params, buffers = nn.split(model); y, buffers = nn.functional_call(params, buffers, x, training=True)",
        )
    if current_trace() is not record.trace:
        raise ArgumentError(
            f"{name}: training changes its {', '.join(buffers)} inside a loop, a branch, a checkpoint or a gradient, "
            "which cannot hand them out",
            fix="call nn.functional_call inside it and return the buffers, or use track_running_stats=False",
        )
    record.found[id(module)] = module, {**latest(module), **buffers}
