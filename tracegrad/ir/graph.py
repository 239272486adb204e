"""Nodes, literals and graphs. All are frozen; nodes are compared by identity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from tracegrad.errors import Where
from tracegrad.ir.aval import Aval, scalar_aval
from tracegrad.record import record, setters

if TYPE_CHECKING:
    from tracegrad.ir.primitive import Primitive


@record
class Literal:
    """A scalar constant."""

    value: bool | int | float
    dtype: np.dtype[Any]

    @property
    def aval(self) -> Aval:
        return scalar_aval(self.dtype)

    @property
    def key(self) -> tuple[str, str]:
        return repr(self.value), self.dtype.str


@record(eq=False)
class Node:
    """One application of a primitive."""

    prim: Primitive
    operands: tuple[Node | Literal, ...]
    params: Mapping[str, Any]
    aval: Aval
    where: Where | None = None

    def __init__(
        self,
        prim: Primitive,
        operands: tuple[Node | Literal, ...],
        params: Mapping[str, Any],
        aval: Aval,
        where: Where | None = None,
    ):
        put_prim(self, prim)
        put_operands(self, operands)
        put_params(self, params)
        put_aval(self, aval)
        put_where(self, where)

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


put_prim, put_operands, put_params, put_aval, put_where = setters(Node)
Operand: TypeAlias = Node | Literal


@record(eq=False)
class Graph:
    """Nodes in topological order between inputs and outputs. `nodes` does not hold the inputs."""

    name: str
    inputs: tuple[Node, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Operand, ...]
    names: Mapping[Node, str] = MappingProxyType({})

    def users(self) -> dict[Node, list[Node]]:
        """Map every node to the nodes that use it, in order."""
        found: dict[Node, list[Node]] = {node: [] for node in (*self.inputs, *self.nodes)}
        for node in self.nodes:
            for operand in node.nodes():
                found[operand].append(node)
        return found
