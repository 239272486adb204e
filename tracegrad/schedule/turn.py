"""Transposes that are done once, in blocks, because loops would read their operands across rows of memory.

A view costs nothing where its elements are read along rows, and a matrix product reads rows and columns alike. Loops
that read the columns of a large array load a whole cache line for each element. So where a transpose moves the last
axis,

    reduce(transpose(x))          becomes transpose(reduce(x)): the order of a reduction is the schedule's to choose
    transpose(x) in other loops   becomes turn(x): a copy in blocks, whose lines are read and written whole
"""

from __future__ import annotations

from tracegrad.ir import Builder, Graph, Node, Operand
from tracegrad.ir.build import mapped
from tracegrad.ops.reduce import argmax, argmin, kept
from tracegrad.ops.shape import broadcast, concat, pad, reshape, transpose, turn
from tracegrad.schedule.reads import is_affine, under_views

SMALLEST = 1 << 12
"""Elements below which an array stays in the nearest cache."""


def moves_rows(node: Node) -> bool:
    """Say whether a node is a transpose of a large array whose rows do not stay rows."""
    if node.prim is not transpose or node.aval.size < SMALLEST:
        return False
    perm, source = node.params["perm"], node.operands[0]
    wide = [axis for axis in perm if source.aval.shape[axis] != 1]
    return wide[-1] != max(wide) and isinstance(source, Node) and under_views(source).aval.size >= node.aval.size


def turn_around(graph: Graph) -> Graph:
    """Return a graph whose loops read no large array across its rows."""
    if not any(map(moves_rows, graph.nodes)):
        return graph
    readers = graph.users()
    builder = Builder(graph.name)
    builder.inputs, builder.names = [*graph.inputs], dict(graph.names)
    here: dict[Node, Operand] = {n: n for n in graph.inputs}
    copies: dict[Node, Operand] = {}
    for node in graph.nodes:
        if is_reduction(node) and moves_rows(node.operands[0]):  # type: ignore[arg-type]
            here[node] = reduce_first(builder, node, here)
            continue
        operands = [copies[o] if o in copies and wants(node, readers) else mapped(here, o) for o in node.operands]
        here[node] = builder.add(node.prim, operands, node.params, node.where)
        if moves_rows(node) and (node in graph.outputs or any(wants(r, readers) for r in readers[node])):
            copies[node] = builder.add(turn, [mapped(here, node.operands[0])], node.params, node.where)
    return builder.finish(copies[o] if o in copies else mapped(here, o) for o in graph.outputs)


def is_reduction(node: Node) -> bool:
    return node.prim.kind == "reduce" and node.prim not in (argmax, argmin)


def wants(node: Node, readers: dict[Node, list[Node]]) -> bool:
    """Say whether a node is computed in loops that read all of its operand, in the order of the operand's axes."""
    if node.prim in (broadcast, pad) or (node.prim is reshape and is_affine(node.shape, node.operands[0].aval.shape)):
        return any(wants(reader, readers) for reader in readers[node])
    return node.prim.kind in ("elementwise", "window", "scatter") or node.prim is concat


def reduce_first(builder: Builder, node: Node, here: dict[Node, Operand]) -> Operand:
    """Add transpose(reduce(x)) for reduce(transpose(x))."""
    turned = node.operands[0]
    assert isinstance(turned, Node)
    perm, axes = turned.params["perm"], node.params["axes"]
    inner = tuple(sorted(perm[a] for a in axes))
    reduced = builder.add(node.prim, [mapped(here, turned.operands[0])], {**node.params, "axes": inner}, node.where)
    left = kept(len(perm), inner)
    order = tuple(left.index(perm[a]) for a in kept(len(perm), axes))
    if order == tuple(range(len(order))):
        return reduced
    return builder.add(transpose, [reduced], {"perm": order}, node.where)
