"""Library calls read float32: what is stored in half precision is converted for each of them anew.

A graph converts a value once, so a call of the forward pass and one of the backward pass read the same node. In memory
for both, it would live from one to the other beside the stored value, and half precision would need more memory than
float32. So calls that lie apart get conversions of their own; loops convert in registers and read what is stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tracegrad.ir import Graph, Node, Operand
from tracegrad.ir.aval import is_half
from tracegrad.ir.build import mapped
from tracegrad.ops.elementwise import convert
from tracegrad.schedule.kinds import lowering
from tracegrad.schedule.reads import under_views

SMALLEST = 1 << 12
"""Elements below which a copy is not worth a kernel of its own."""
NEAR = 4
"""Library calls from one reader of a conversion to the next that still shares it."""


@dataclass
class Own:
    """A conversion for calls that lie near each other: the number of the last one, and the copied nodes."""

    last: int
    copies: dict[Node, Node] = field(default_factory=dict)


class Conversions:
    """Rebuilds a graph: `alone` are the conversions that come long after the value was stored."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.outputs = set(graph.outputs)
        self.here: dict[Node, Operand] = {n: n for n in graph.inputs}
        self.nodes: list[Node] = []
        self.owns: dict[Node, Own] = {}
        self.alone: set[Node] = set()
        self.calls = 0

    def run(self) -> Graph:
        for node in self.graph.nodes:
            is_call = lowering(node) == "library"
            self.calls += is_call
            operands = tuple(self.for_call(o) if is_call else mapped(self.here, o) for o in node.operands)
            self.here[node] = self.add(node, operands)
        outputs = tuple(mapped(self.here, o) for o in self.graph.outputs)
        return Graph(self.graph.name, self.graph.inputs, tuple(self.nodes), outputs, self.graph.names)

    def add(self, node: Node, operands: tuple[Operand, ...], *, copy: bool = False) -> Node:
        new = node if operands == node.operands and not copy else Node(
            node.prim, operands, node.params, node.aval, node.where
        )  # fmt: skip
        self.nodes.append(new)
        return new

    def for_call(self, operand: Operand) -> Operand:
        """Return what a library call reads in the place of `operand`."""
        if not isinstance(operand, Node):
            return operand
        source = under_views(operand)
        if not converts_half(source) or source in self.outputs:
            return mapped(self.here, operand)
        own = self.owns.get(source)
        if own is None or self.calls - own.last > NEAR:
            is_first = own is None
            own = self.owns[source] = Own(self.calls)
            found = self.copy(operand, own)
            self.alone |= set() if is_first else {own.copies[source]}
            return found
        own.last = self.calls
        return self.copy(operand, own)

    def copy(self, node: Node, own: Own) -> Node:
        """Return the copy of a conversion, or of a view of one."""
        found = own.copies.get(node)
        if found is None:
            is_view = node.prim is not convert
            operands = (self.copy(o, own) if is_view else mapped(self.here, o) for o in node.nodes())
            found = own.copies[node] = self.add(node, tuple(operands), copy=True)
        return found


def converts_half(node: Node) -> bool:
    """Say whether a node reads much half precision for float32 to be computed with."""
    if node.prim is not convert or node.aval.size < SMALLEST:
        return False
    return is_half(node.operands[0].dtype) and not is_half(node.dtype)


def own_conversions(graph: Graph) -> tuple[Graph, set[Node]]:
    """Return the graph with conversions for library calls that lie apart, and those that are to have loops of their
    own, because the value that they convert was stored long ago."""
    if not any(map(converts_half, graph.nodes)):
        return graph, set()
    found = Conversions(graph)
    return found.run(), found.alone
