"""Checks a graph: order, ownership of operands, and every aval against its shape rule."""

from __future__ import annotations

from tracegrad.errors import GraphError
from tracegrad.ir.graph import Graph, Node
from tracegrad.ir.primitive import INPUT


def verify(graph: Graph) -> Graph:
    """Return `graph`, or raise GraphError naming the first node that is wrong."""
    known: set[Node] = set()
    for node in graph.inputs:
        if node.prim is not INPUT or node in known:
            raise GraphError(f"{graph.name}: input {node!r} is not an input, or stands twice")
        known.add(node)
    for position, node in enumerate(graph.nodes):
        for operand in node.nodes():
            if operand not in known:
                raise GraphError(f"{graph.name}: node {position} {node!r} uses {operand!r} before it is defined")
        aval = node.prim.aval(*(o.aval for o in node.operands), **node.params)
        if aval != node.aval:
            raise GraphError(f"{graph.name}: node {position} is declared {node.aval} but {node.prim} gives {aval}")
        if node in known:
            raise GraphError(f"{graph.name}: node {position} {node!r} stands twice")
        known.add(node)
    for output in graph.outputs:
        if isinstance(output, Node) and output not in known:
            raise GraphError(f"{graph.name}: output {output!r} is not defined")
    return graph
