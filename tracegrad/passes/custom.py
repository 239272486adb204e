"""Puts the bodies of functions with a gradient of their own, and of primitives that are written in others, in their
places, when no gradient is asked for any more."""

from __future__ import annotations

from tracegrad.ir import Builder, Graph, Node, Operand
from tracegrad.ir.build import mapped
from tracegrad.ops.control import item
from tracegrad.ops.custom import Written, custom


def inline_custom(graph: Graph) -> Graph:
    """Return `graph` without `custom` and written nodes; those in the bodies of loops and branches stay."""
    if not any(node.prim is custom or isinstance(node.prim, Written) for node in graph.nodes):
        return graph
    builder = Builder(graph.name)
    here: dict[Node, Operand] = {}
    results: dict[Node, list[Operand]] = {}
    for node in graph.inputs:
        here[node] = builder.input(node.aval, graph.names.get(node, ""), node.where)
    for node in graph.nodes:
        if node.prim is custom:
            results[node] = builder.inline(inline_custom(node.params["body"]), [mapped(here, o) for o in node.operands])
        elif isinstance(node.prim, Written):
            body = node.prim.body(*(o.aval for o in node.operands), **node.params)
            (here[node],) = builder.inline(inline_custom(body), [mapped(here, o) for o in node.operands])
        elif node.prim is item and node.operands[0] in results:
            here[node] = results[next(node.nodes())][node.params["index"]]
        else:
            here[node] = builder.add(node.prim, [mapped(here, o) for o in node.operands], node.params, node.where)
    return builder.finish([mapped(here, o) for o in graph.outputs])
