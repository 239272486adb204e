"""Nodes, literals and graphs. All are frozen; nodes are compared by identity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tracegrad.errors import Where
from tracegrad.ir.aval import Aval

if TYPE_CHECKING:
    from tracegrad.ir.primitive import Primitive


@dataclass(frozen=True, slots=True)
class Literal:
    """A scalar constant."""

    value: bool | int | float
    dtype: np.dtype[Any]

    @property
    def aval(self) -> Aval:
        return Aval((), self.dtype)

    @property
    def key(self) -> tuple[str, str]:
        return repr(self.value), self.dtype.str


@dataclass(frozen=True, eq=False, slots=True)
class Node:
    """One application of a primitive."""

    prim: Primitive
    operands: tuple[Node | Literal, ...]
    params: Mapping[str, Any]
    aval: Aval
    where: Where | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.aval.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.aval.dtype

    def nodes(self) -> Iterator[Node]:
        """Yield the operands that are nodes."""
        return (o for o in self.operands if isinstance(o, Node))

    def __repr__(self) -> str:
        return f"<{self.prim.name} {self.aval}>"


Operand: TypeAlias = Node | Literal


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in topological order between inputs and outputs. `nodes` does not hold the inputs."""

    name: str
    inputs: tuple[Node, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Operand, ...]
    names: Mapping[Node, str] = field(default_factory=dict)

    def users(self) -> dict[Node, list[Node]]:
        """Map every node to the nodes that use it, in order."""
        found: dict[Node, list[Node]] = {node: [] for node in (*self.inputs, *self.nodes)}
        for node in self.nodes:
            for operand in node.nodes():
                found[operand].append(node)
        return found
