"""`+ - * /` of tensors on a short way: floats of one dtype and shape, or beside a Python number, need no promotion.

Everything else goes the long way, through `tracegrad.numpy`, to the same primitive. In both, `Tape.bind` computes and
records.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracegrad.ir import Primitive
from tracegrad.ir.aval import is_float
from tracegrad.ops import elementwise as ops
from tracegrad.tape.tensor import TAPE, Tensor
from tracegrad.trace import Tracer

BINARY: dict[str, Primitive] = {"add": ops.add, "sub": ops.sub, "mul": ops.mul, "truediv": ops.div}
LARGEST = 1e30
"""Python numbers up to this are floats of every dtype, without overflow."""


def short(prim: Primitive, long: Callable[[Any, Any], Any], *, swap: bool) -> Callable[[Any, Any], Any]:
    """Return the operator of a primitive; `long` takes what needs promotion or broadcasting."""
    bind = TAPE.bind

    def operator(self: Tensor, other: Any) -> Any:
        dtype = self.dtype
        if is_float(dtype):
            kind = type(other)
            if kind is Tensor:
                if other.dtype is dtype and other.shape == self.shape:
                    return bind(prim, (self, other), {})
            elif (kind is float or kind is int) and -LARGEST < other < LARGEST:
                number = dtype.type(other)
                return bind(prim, (number, self) if swap else (self, number), {})
        return long(self, other)

    operator.__name__ = long.__name__
    operator.__doc__ = long.__doc__
    return operator


METHODS: dict[str, Callable[..., Any]] = {
    f"__{side}{name}__": short(prim, getattr(Tracer, f"__{side}{name}__"), swap=side == "r")
    for name, prim in BINARY.items()
    for side in ("", "r")
}
