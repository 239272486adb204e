"""Moves what does not change from round to round out of loops.

A node of a body that depends on the loop's constants alone is computed once, before the loop, and handed in as one
more constant.
Views stay: they cost nothing. What may fail (an index check) stays too, because a loop of no rounds must not fail.
"""

from __future__ import annotations

from tracegrad.ir import Builder, Graph, Literal, Node, Operand
from tracegrad.ir.build import mapped
from tracegrad.ops.control import scan, while_loop

STAY = ("shape", "gather", "scatter", "control", "item", "input", "random")


def hoist(graph: Graph) -> Graph:
    """Return `graph` with the constant parts of its loops' bodies in front of the loops."""
    if not any(constant_nodes(n) for n in graph.nodes if n.prim in (scan, while_loop)):
        return graph
    builder = Builder(graph.name)
    here: dict[Node, Operand] = {}
    for node in graph.inputs:
        here[node] = builder.input(node.aval, graph.names.get(node, ""), node.where)
    for node in graph.nodes:
        operands = [mapped(here, o) for o in node.operands]
        moved = constant_nodes(node) if node.prim in (scan, while_loop) else []
        params = dict(node.params)
        if moved:
            body = params["body"]
            first = len(body.inputs) - number_of_consts(node)
            inner: dict[Node, Operand] = dict(
                zip(body.inputs[first:], operands[len(operands) - number_of_consts(node) :], strict=True)
            )
            for one in constant_closure(node):
                inner[one] = builder.add(one.prim, [mapped(inner, o) for o in one.operands], one.params, one.where)
            operands += [inner[one] for one in moved]
            params["body"] = with_inputs(body, moved)
            if params.get("condition") is not None:
                params["condition"] = with_extra(params["condition"], moved)
        here[node] = builder.add(node.prim, operands, params, node.where)
    return builder.finish([mapped(here, o) for o in graph.outputs])


def number_of_consts(node: Node) -> int:
    return len(node.params["body"].inputs) - int(node.params["n_carry"]) - int(node.params["n_xs"])


def constant_closure(node: Node) -> list[Node]:
    """Return, in order, the nodes of a loop's body that depend on its constants alone."""
    body = node.params["body"]
    n = number_of_consts(node)
    known: set[Node] = set(body.inputs[len(body.inputs) - n :]) if n else set()
    found = []
    for one in body.nodes:
        operands = list(one.nodes())
        if operands and all(o in known for o in operands) and (one.prim.kind == "shape" or one.prim.kind not in STAY):
            known.add(one)
            found.append(one)
    return found


def constant_nodes(node: Node) -> list[Node]:
    """Return the nodes to hand in: those of the closure that the rest of the body reads and that are not views."""
    closure = constant_closure(node)
    inside = set(closure)
    body = node.params["body"]
    read: set[Node] = {o for o in body.outputs if isinstance(o, Node)}
    for one in body.nodes:
        if one not in inside or one.prim.kind == "shape":
            read.update(one.nodes())
    return [one for one in closure if one in read and one.prim.kind != "shape"]


def with_inputs(body: Graph, moved: list[Node]) -> Graph:
    """Return a body that is given the values of `moved`."""
    builder = Builder(body.name)
    here: dict[Node, Operand] = {n: builder.input(n.aval, body.names.get(n, ""), n.where) for n in body.inputs}
    here |= {one: builder.input(one.aval, "", one.where) for one in moved}
    for one in body.nodes:
        if one not in here:
            here[one] = builder.add(one.prim, [mapped(here, o) for o in one.operands], one.params, one.where)
    return builder.finish([o if isinstance(o, Literal) else here[o] for o in body.outputs])


def with_extra(graph: Graph, moved: list[Node]) -> Graph:
    """Return a condition that takes, and does not read, as many more constants."""
    builder = Builder(graph.name)
    inputs: list[Operand] = [builder.input(n.aval, graph.names.get(n, ""), n.where) for n in graph.inputs]
    for one in moved:
        builder.input(one.aval, "", one.where)
    return builder.finish(builder.inline(graph, inputs))
