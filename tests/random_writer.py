"""Writes random graphs for the tests of passes, schedules and code. Every value is exact, so results must be equal.

Floats hold small integers, and a value that may grow is clipped: sums in any order, products and comparisons are then
exact in every dtype. `inexact` adds smooth functions; those values never reach a comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tracegrad.ir import PRIMITIVES as P
from tracegrad.ir import Aval, Builder, Graph, Literal, Node, Operand

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
INTS = tuple(np.dtype(t) for t in (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64))
BOOL = np.dtype(np.bool_)
LIMIT = 2000.0
SIZE = 1500


class Case:
    """A graph with arguments for it; `donate` numbers the arguments that may be overwritten."""

    def __init__(self, graph: Graph, arguments: list[Any], donate: tuple[int, ...], exact: bool):
        self.graph = graph
        self.arguments = arguments
        self.donate = donate
        self.exact = exact

    def __repr__(self) -> str:
        return f"Case(donate={self.donate}, exact={self.exact})"


@dataclass
class Writer:
    """Adds random nodes; `bound` holds how large a value may be, `smooth` which values are rounded."""

    draw: Callable[[Any], Any]
    dtypes: tuple[np.dtype[Any], ...]
    inexact: bool = False
    special: bool = False
    differentiable: bool = False
    builder: Builder = field(default_factory=lambda: Builder("random"))
    arguments: list[Any] = field(default_factory=list)
    pool: list[Node] = field(default_factory=list)
    bound: dict[Node, float] = field(default_factory=dict)
    smooth: set[Node] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.draw(st.integers(0, 2**32)))

    # --- choices ------------------------------------------------------------------------------------------------------

    def integer(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def chance(self) -> bool:
        return bool(self.draw(st.booleans()))

    def choice(self, options: Any) -> Any:
        return self.draw(st.sampled_from(list(options)))

    def dimension(self) -> int:
        return int(
            self.choice(
                (1, 2, 3, 4, 5, 2, 3, 7, 17, 33) if self.differentiable else (1, 2, 3, 4, 5, 0, 2, 3, 7, 17, 33)
            )
        )

    def shape(self, ndim: int | None = None) -> tuple[int, ...]:
        found: list[int] = []
        for _ in range(self.integer(0, 3) if ndim is None else ndim):
            n = self.dimension()
            found.append(n if math.prod(found) * n <= SIZE else 1)
        return tuple(found)

    def value(self, test: Callable[[Node], bool] = lambda n: True) -> Node | None:
        """Pick a value, later ones more often."""
        found = [n for n in self.pool if test(n)]
        if not found:
            return None
        return found[len(found) - 1 - min(self.integer(0, len(found) - 1), self.integer(0, len(found) - 1))]

    def arithmetic(self, node: Node) -> bool:
        return node.dtype.kind in "iuf"

    def comparable(self, node: Node) -> bool:
        return node not in self.smooth

    # --- nodes --------------------------------------------------------------------------------------------------------

    def input(self, aval: Aval, array: Any = None) -> Node:
        if array is None:
            array = self.array(aval)
        node = self.builder.input(aval)
        self.arguments.append(array)
        self.bound[node] = 3.0
        return node

    def array(self, aval: Aval) -> Any:
        if aval.dtype == BOOL:
            return self.rng.integers(0, 2, aval.shape).astype(np.bool_)
        found = np.asarray(self.rng.integers(0 if aval.dtype.kind == "u" else -3, 4, aval.shape)).astype(aval.dtype)
        if self.differentiable and aval.dtype.kind == "f":
            return np.asarray(self.rng.uniform(-1.5, 1.5, aval.shape), aval.dtype)
        if self.special and aval.dtype.kind == "f":
            mask = self.rng.random(aval.shape) < 0.2
            found = np.where(mask, self.rng.choice([np.nan, np.inf, -np.inf, -0.0], aval.shape), found).astype(
                aval.dtype
            )
        return found

    def add(self, name: str, *operands: Operand, bound: float = 3.0, **params: Any) -> Node:
        """Add a node to the pool, clipped when it may be large."""
        node = self.builder.add(P[name], operands, params)
        self.bound.setdefault(node, bound)
        if any(o in self.smooth for o in operands if isinstance(o, Node)) and node.dtype.kind == "f":
            self.smooth.add(node)
        if self.bound[node] > LIMIT and node.dtype.kind in "iuf":
            low = Literal(0 if node.dtype.kind == "u" else node.dtype.type(-8).item(), node.dtype)
            least = self.builder.add(P["maximum"], (node, low), {})
            clipped = self.builder.add(P["minimum"], (least, Literal(node.dtype.type(8).item(), node.dtype)), {})
            if node in self.smooth:
                self.smooth.update((least, clipped))
            self.bound[least], self.bound[clipped] = LIMIT, 8.0
            node = clipped
        self.pool.append(node)
        return node

    def literal(self, dtype: np.dtype[Any]) -> Literal:
        if dtype == BOOL:
            return Literal(self.chance(), dtype)
        return Literal(dtype.type(self.choice((0, 1, 2, 3) if dtype.kind == "u" else (0, 1, -1, 2, -3))).item(), dtype)

    def fit(self, value: Node, shape: tuple[int, ...]) -> Node:
        """Bring a value to a shape by reshaping, broadcasting, slicing or reducing it."""
        if value.shape == shape:
            return value
        bound = self.bound[value]
        if math.prod(shape) == value.aval.size:
            return self.add("reshape", value, shape=shape, bound=bound)
        at = iter(range(len(shape)))
        axes = [next((a for a in at if shape[a] == n), None) for n in value.shape]
        if None not in axes:
            return self.add("broadcast", value, shape=shape, axes=tuple(axes), bound=bound)
        if len(shape) == value.aval.ndim and all(m <= n for m, n in zip(shape, value.shape, strict=True)):
            zeros = (0,) * len(shape)
            return self.add("slice", value, start=zeros, size=shape, step=(1,) * len(shape), bound=bound)
        total = self.add("reduce_sum", value, axes=tuple(range(value.aval.ndim)), bound=bound * max(value.aval.size, 1))
        return self.add("broadcast", total, shape=shape, axes=(), bound=self.bound[total])

    def like(self, value: Node) -> Operand:
        """Return a second operand beside `value`."""
        if self.integer(0, 3) == 0:
            return self.literal(value.dtype)
        other = self.value(lambda n: n.dtype == value.dtype)
        assert other is not None
        return self.fit(other, value.shape)

    def size(self, operand: Operand) -> float:
        return abs(float(operand.value)) if isinstance(operand, Literal) else self.bound[operand]
