"""The tape: tensors with PyTorch's semantics, on the same primitives and vjp rules as compiled code."""

from __future__ import annotations

from tracegrad.tape import custom as _custom  # noqa: F401  (tg.Function on tensors)
from tracegrad.tape import engine, hooks, inplace, operators, protocol, values, views
from tracegrad.tape.create import as_tensor, from_dlpack, from_numpy, tensor, track, untrack
from tracegrad.tape.hooks import RemovableHandle
from tracegrad.tape.modes import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from tracegrad.tape.tensor import Tensor

__all__ = [
    "RemovableHandle", "Tensor", "as_tensor", "enable_grad", "from_dlpack", "from_numpy", "is_grad_enabled", "no_grad",
    "set_grad_enabled", "tensor", "track", "untrack",
]  # fmt: skip


def backward(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensor | list[Tensor] | None = None,
) -> None:
    """Pull the gradient of this tensor back to its leaves, and add it to their `.grad`; see `tg.autograd.backward`.

    `gradient` is the cotangent, optional for a scalar.

    >>> import tracegrad as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> (x * x).backward(tg.tensor([1.0, 1.0]))
    >>> x.grad
    tensor([2., 4.])
    """
    engine.backward([self], [gradient], retain_graph, create_graph, inputs)


def install() -> None:
    """Put on Tensor what is written in the other files of this package."""
    methods = values.METHODS | hooks.METHODS | inplace.METHODS | operators.METHODS | protocol.METHODS
    for name, method in {**methods, "backward": backward}.items():
        setattr(Tensor, name, method)
    for name in views.VIEWING:
        if hasattr(Tensor, name):
            setattr(Tensor, name, views.always_new(getattr(Tensor, name)))
    for name in ("T", "mT"):
        plain = getattr(Tensor, name)
        setattr(Tensor, name, property(views.always_new(plain.fget), doc=plain.__doc__))
    for name, function in {**inplace.IN_PLACE, **inplace.OPERATORS}.items():
        setattr(Tensor, name, inplace.in_place(name, function))


install()
