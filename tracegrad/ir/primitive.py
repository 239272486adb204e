"""The base of every op: one declaration gives shape rule, eager rule, vjp, kind, lowering and samples.

Positional arguments are array operands, keyword arguments are static parameters. Calling a primitive on arrays runs its
eager rule; on traced values it adds a node to the innermost trace among the operands.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import numpy as np

from tracegrad.ir.aval import Aval

Kind = Literal[
    "input", "elementwise", "reduce", "shape", "gather", "scatter", "contract", "window", "random", "control", "item",
    "opaque",
]  # fmt: skip
Sample = dict[str, Any]


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
    """

    name: str
    kind: Kind = "opaque"
    linear: bool = False
    private: bool = False
    costly: int = 0
    constant: bool = False
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
        trace: Trace | None = None
        for operand in operands:
            found = getattr(operand, "_trace", None)
            if found is not None and (trace is None or found.level > trace.level):
                trace = found
        if trace is not None:
            return trace.bind(self, operands, params)
        return self.eager(*operands, **params)

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


def as_eager(value: Any, dtype: np.dtype[Any]) -> Any:
    """Return an eager result with the dtype that the shape rule promises."""
    array = np.asarray(value)
    return array if array.dtype == dtype else array.astype(dtype)
