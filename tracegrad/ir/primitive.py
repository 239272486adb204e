"""The base of every op: one declaration gives shape rule, eager rule, vjp, kind, lowering and samples.

Positional arguments are array operands, keyword arguments are static parameters. Calling a primitive on arrays runs its
eager rule; on traced values it adds a node to the innermost trace among the operands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np

from tracegrad.ir.aval import Aval, is_half

Kind = Literal[
    "input", "elementwise", "reduce", "shape", "gather", "scatter", "contract", "window", "random", "control", "item",
    "opaque",
]  # fmt: skip
Sample = dict[str, Any]
FLOAT32 = np.dtype(np.float32)


class Trace(Protocol):
    """What a traced value belongs to; traces nest by level."""

    level: int

    def bind(self, prim: Primitive, operands: Sequence[Any], params: dict[str, Any]) -> Any: ...


PRIMITIVES: dict[str, Primitive] = {}


class Primitive:
    """One op. Subclasses fill in the rules; an instance registers itself under its name.

    `linear` says that the cotangent of each operand is a linear function of `ct` that reads no operand's value: such a
    rule keeps a zero cotangent zero whatever the values are. `private` says that the rule reads only such parts of the
    result as nobody else sees. `costly` is the number of elements from which NumPy takes much longer than compiled code
    (0: it does not): the tape compiles it when it is used much. `constant` says that the gradient is zero everywhere.
    `moves` says that elements are copied and never computed with, so that half-precision ones may stay as they are;
    `picks` that the result consists of elements of the operands and constants, so that rounding it changes nothing.
    """

    name: str
    kind: Kind = "opaque"
    linear: bool = False
    private: bool = False
    costly: int = 0
    constant: bool = False
    moves: bool = False
    picks: bool = False
    samples: list[Sample] = []

    def __init__(self) -> None:
        if self.name in PRIMITIVES:
            raise ValueError(f"primitive {self.name} is declared twice")
        PRIMITIVES[self.name] = self

    def aval(self, *operands: Aval, **params: Any) -> Aval:
        """Return shape and dtype of the result, or raise the user's error."""
        raise NotImplementedError(f"{self.name} has no shape rule")

    def eager(self, *operands: Any, **params: Any) -> Any:
        """Compute the result with NumPy."""
        raise NotImplementedError(f"{self.name} has no eager rule")

    def vjp(self, ct: Any, y: Any, *operands: Any, **params: Any) -> Any:
        """Return the cotangent of each operand: one value, or a tuple with None for the ones without a gradient."""
        raise NotImplementedError(f"{self.name} has no vjp rule")

    def vjp_of(self, needed: Sequence[bool], ct: Any, y: Any, *operands: Any, **params: Any) -> Any:
        """Return what `vjp` does, where only some cotangents are needed; costly rules leave the others out (None)."""
        return self.vjp(ct, y, *operands, **params)

    def jvp(self, ts: tuple[Any, ...], y: Any, *operands: Any, **params: Any) -> Any:
        """Return the tangent of the result, where it does not follow from the other rules (see `grad.forward`)."""
        raise NotImplementedError(f"{self.name} has no jvp rule")

    def __call__(self, *operands: Any, **params: Any) -> Any:
        return self.apply(operands, params)

    def apply(self, operands: Sequence[Any], params: dict[str, Any]) -> Any:
        """Bind in the innermost trace among the operands; without any, compute."""
        trace: Trace | None = None
        for operand in operands:
            found = getattr(operand, "_trace", None)
            if found is not None and (trace is None or found.level > trace.level):
                trace = found
        if not self.moves:
            for operand in operands:
                dtype = getattr(operand, "dtype", None)
                if dtype is not None and is_half(dtype):
                    return self.in_float32(trace, operands, params)
        if trace is not None:
            return trace.bind(self, operands, params)
        return self.eager(*operands, **params)

    def in_float32(self, trace: Trace | None, operands: Sequence[Any], params: dict[str, Any]) -> Any:
        """Apply to half-precision operands: compute in float32, and round once to what the shape rule promises."""
        result = self.aval(*(Aval(np.shape(o), o.dtype) for o in operands), **params)
        found = self(*(as_float32(o, trace) for o in operands), **params)
        return found if found.dtype == result.dtype else PRIMITIVES["convert"](found, dtype=result.dtype)

    def beside(self, like: Any, *operands: Any, **params: Any) -> Any:
        """Apply to operands that may all be scalars, in the trace of `like`: rules make constants with it."""
        trace: Trace | None = getattr(like, "_trace", None)
        return self(*operands, **params) if trace is None else trace.bind(self, operands, params)

    def __repr__(self) -> str:
        return self.name


class _Input(Primitive):
    """An argument of a graph."""

    name = "input"
    kind = "input"


INPUT = _Input()


def holds_half(operand: Any) -> bool:
    dtype = getattr(operand, "dtype", None)
    return isinstance(dtype, np.dtype) and is_half(dtype)


def as_float32(operand: Any, trace: Trace | None = None) -> Any:
    """Convert what is half precision, an array as a part of `trace`; scalars stay scalars."""
    if not holds_half(operand):
        return operand
    if isinstance(operand, np.generic):
        return np.float32(operand)
    convert = PRIMITIVES["convert"]
    return convert(operand, dtype=FLOAT32) if trace is None else trace.bind(convert, [operand], {"dtype": FLOAT32})


def as_eager(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return an eager result with the dtype that the shape rule promises."""
    array = np.asarray(value)
    return array if array.dtype == dtype else array.astype(dtype)
