"""Builds graphs. Values are numbered: an application that is there already is returned, not added again."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from tracegrad.errors import Where
from tracegrad.ir.aval import Aval
from tracegrad.ir.graph import Graph, Literal, Node, Operand
from tracegrad.ir.primitive import INPUT, Primitive


class Builder:
    """Collects nodes in topological order."""

    def __init__(self, name: str = "main"):
        self.name = name
        self.inputs: list[Node] = []
        self.names: dict[Node, str] = {}
        self.nodes: list[Node] = []
        self._numbers: dict[Hashable, Node] = {}

    def input(self, aval: Aval, name: str = "", where: Where | None = None) -> Node:
        """Add an argument."""
        node = Node(INPUT, (), {}, aval, where)
        self.inputs.append(node)
        if name:
            self.names[node] = name
        return node

    def add(
        self,
        prim: Primitive,
        operands: Sequence[Operand],
        params: Mapping[str, Any],
        where: Where | None = None,
    ) -> Node:
        """Return the node for `prim(*operands, **params)`; its shape rule checks the operands."""
        key = number(prim, operands, params)
        found = self._numbers.get(key)
        if found is not None:
            return found
        aval = prim.aval(*[o.aval for o in operands], **params)
        return self.append(key, Node(prim, tuple(operands), dict(params), aval, where))

    def copy(self, node: Node, operands: Sequence[Operand], where: Where | None = None) -> Node:
        """Return `node` on other operands of the same avals: its shape rule need not be asked again."""
        key = number(node.prim, operands, node.params)
        found = self._numbers.get(key)
        if found is not None:
            return found
        return self.append(key, Node(node.prim, tuple(operands), node.params, node.aval, node.where or where))

    def append(self, key: Hashable, node: Node) -> Node:
        self._numbers[key] = node
        self.nodes.append(node)
        return node

    def inline(self, graph: Graph, inputs: Sequence[Operand]) -> list[Operand]:
        """Add the nodes of `graph` with its inputs replaced; return its outputs here."""
        here: dict[Node, Operand] = dict(zip(graph.inputs, inputs, strict=True))
        same = all(old.aval == new.aval for old, new in zip(graph.inputs, inputs, strict=True))
        for node in graph.nodes:
            operands = [mapped(here, o) for o in node.operands]
            if same:
                here[node] = self.copy(node, operands)
            else:
                here[node] = self.add(node.prim, operands, node.params, node.where)
        return [mapped(here, o) for o in graph.outputs]

    def finish(self, outputs: Iterable[Operand]) -> Graph:
        """Return the graph of what `outputs` need; all inputs stay."""
        outputs = tuple(outputs)
        return Graph(self.name, tuple(self.inputs), live(self.nodes, outputs), outputs, dict(self.names))


def operand_key(operand: Operand) -> Hashable:
    return operand.key if isinstance(operand, Literal) else operand


def number(prim: Primitive, operands: Sequence[Operand], params: Mapping[str, Any]) -> Hashable:
    """Return what two applications have in common that are one value; nodes stand for themselves."""
    return prim.name, tuple([operand_key(o) for o in operands]), tuple(sorted(params.items())) if params else ()


def mapped(here: Mapping[Node, Operand], operand: Operand) -> Operand:
    return operand if isinstance(operand, Literal) else here[operand]


def live(nodes: Sequence[Node], outputs: Iterable[Operand]) -> tuple[Node, ...]:
    """Keep the nodes that the outputs depend on, in order."""
    needed: set[Node] = {o for o in outputs if isinstance(o, Node)}
    kept: list[Node] = []
    for node in reversed(nodes):
        if node in needed:
            kept.append(node)
            needed.update([o for o in node.operands if type(o) is Node])
    return tuple(reversed(kept))
