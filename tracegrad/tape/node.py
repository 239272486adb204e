"""What the tape records: one node per primitive, with the values that its vjp rule will read, and their versions."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracegrad.errors import Place, TapeError, TracegradError, Where, where_of
from tracegrad.ir import INPUT, Aval, Primitive
from tracegrad.ir.aval import Avals
from tracegrad.ops.control import item
from tracegrad.trace import new_trace

NUMBERS = itertools.count()
Shape = tuple[int, ...]


class Version:
    """Counts the in-place changes of one piece of memory; shared by a tensor, its views and its detached copies."""

    __slots__ = ("changed", "count")

    def __init__(self) -> None:
        self.count = 0
        self.changed: Place | None = None


class Node:
    """One recorded application of a primitive: `grad_fn` of its result.

    `operands` are the nodes of the operands, None for constants; `saved` the result and the operands as the rule will
    see them (an operand that it does not read is its aval), None once they have been freed.
    """

    __slots__ = (
        "__weakref__", "aval", "dtype", "hooks", "keeps", "number", "operands", "params", "place", "prim", "retained",
        "saved", "shape", "versions",
    )  # fmt: skip

    def __init__(self, prim: Primitive, operands: tuple[Node | None, ...], params: dict[str, Any], place: Place | None):
        self.prim = prim
        self.operands = operands
        self.params = params
        self.place = place
        self.number = next(NUMBERS)
        self.hooks: dict[int, Callable[[Any], Any]] | None = None
        self.retained: Any = None
        self.versions: list[tuple[int, Version, int]] = []

    shape: Shape
    dtype: np.dtype[Any]
    aval: Any
    keeps: bool
    saved: list[Any] | None

    def name(self) -> str:
        """Return what the operation is called, in PyTorch's style.

        >>> import tracegrad as tg
        >>> (tg.tensor(1.0, requires_grad=True) - 2.0).grad_fn.name()
        'SubBackward0'
        """
        if self.prim is item and self.operands[0] is not None:
            return self.operands[0].name()
        words = self.prim.name.removeprefix("reduce_").split("_")
        return "".join(word.capitalize() for word in words) + "Backward0"

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.prim.name

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        """The nodes that the cotangents of the operands go to, with the number of the result that is meant."""
        return tuple((None if n is None else n, part_of(n)) for n in self.operands)

    @property
    def where(self) -> Where | None:
        """The user's line that was recorded."""
        return where_of(self.place)

    def succeed(self, old: Node | None) -> None:
        """Take over from the node that a tensor had before it was changed in place: its gradient is kept, still."""
        if old is not None and old.retained is not None:
            self.retained, old.retained = old.retained, None

    def free(self) -> None:
        """Drop what was kept for the rule."""
        if self.keeps:
            self.saved = None

    def check(self) -> None:
        """Refuse to go on if what the rule reads has been freed, or changed in place."""
        if self.saved is None:
            raise TapeError(
                f"backward: the values that {self.label} (at {self.where}) kept for its gradient have been freed by"
                " an earlier backward",
                fix="pass retain_graph=True to the earlier call, or compute the result again",
            )
        for position, version, count in self.versions:
            if version.count != count:
                raise self.changed(position, version, count)

    def changed(self, position: int, version: Version, count: int) -> TapeError:
        """Return the error for a saved value that was changed in place."""
        what = "its result" if position == 0 else f"operand {position - 1}"
        what = f"{what} {aval_of((self.saved or [])[position])}" if position >= 0 else "a tensor that it saved"
        return TapeError(
            f"backward: {self.label} (at {self.where}) needs {what} as it"
            f" was at version {count}, but it was changed in place at {where_of(version.changed)} (version"
            f" {version.count})",
            fix="write y = x + 1 instead of x += 1, or change a copy: x.clone()",
        )

    def __repr__(self) -> str:
        return f"<{self.name()}>"


def part_of(node: Node | None) -> int:
    return node.params["index"] if node is not None and node.prim is item else 0


class AccumulateGrad(Node):
    """The end of the tape at a leaf: adds to `variable.grad`."""

    __slots__ = ("variable",)

    def __init__(self, variable: Any):
        super().__init__(INPUT, (), {}, None)
        self.variable = variable
        self.shape, self.dtype = variable.shape, variable.dtype
        self.aval = Aval(self.shape, self.dtype)
        self.keeps, self.saved = False, []

    def name(self) -> str:
        return "AccumulateGrad"


def aval_of(value: Any) -> Aval | Avals:
    """Return shape and dtype of a value of the tape; of the parts of a control-flow result one each."""
    if isinstance(value, tuple):
        return Avals.of(aval_of(v) for v in value)
    if isinstance(value, list):
        return Aval((len(value),), np.dtype(np.bool_))
    return Aval(tuple(value.shape), value.dtype)


Reads = tuple[bool, ...]
"""For the result and every operand of a primitive: does the rule read its elements?"""
READS: dict[tuple[Primitive, tuple[bool, ...]], Reads] = {}
SETTLED = ("elementwise", "reduce", "shape", "gather", "scatter", "contract", "window")
"""Kinds whose rules read the same operands whatever the parameters are."""


def reads_of(prim: Primitive, needed: tuple[bool, ...], values: Sequence[Any], result: Any, params: Any) -> Reads:
    """Return what the rule reads when the cotangents `needed` are asked for: trace it once, and look."""
    if prim is item:
        return (False, False)
    found = READS.get((prim, needed))
    if found is None:
        if prim.kind not in SETTLED or isinstance(result, tuple):
            return (not (prim.linear and prim.kind == "opaque"),) * (len(values) + 1)
        found = READS[prim, needed] = traced_reads(prim, needed, values, result, params)
    return found


def traced_reads(prim: Primitive, needed: tuple[bool, ...], values: Sequence[Any], result: Any, params: Any) -> Reads:
    with new_trace("rule") as trace:
        ct, y, *operands = (trace.input(aval_of(v)) for v in (result, result, *values))
        inputs = list(trace.builder.inputs)
        try:
            given = prim.vjp_of(needed, ct, y, *operands, **params)
        except NotImplementedError:
            return (False,) * (len(values) + 1)
        except TracegradError:
            return (True,) * (len(values) + 1)
        used = {o for node in trace.builder.nodes for o in node.operands}
        used |= {trace.lift(g) for g in (given if isinstance(given, tuple) else (given,)) if g is not None}
    return tuple(node in used for node in inputs[1:])
