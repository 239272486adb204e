"""Transposes that are done once, in blocks, because loops would read their operands across rows of memory.

A view costs nothing where its elements are read along rows, and a matrix product reads rows and columns alike. Loops
that read the columns of a large array load a whole cache line for each element. So where a transpose moves the last
axis,

    reduce(transpose(x))          becomes transpose(reduce(x)): the order of a reduction is the schedule's to choose
    f(transpose(x), ...)          becomes transpose(f(x, ...)), if all operands are transposed alike and what reads it
                                  does the same, reduces it, is a product, or nothing (a result)
    transpose(x) in other loops   becomes turn(x): a copy in blocks, whose lines are read and written whole
"""

from __future__ import annotations

from typing import TypeGuard

from tracegrad.ir import Builder, Graph, Node, Operand
from tracegrad.ir.build import mapped
from tracegrad.ops.contract import dot
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
    stored = computed_as_stored(graph, readers)
    builder = Builder(graph.name)
    builder.inputs, builder.names = [*graph.inputs], dict(graph.names)
    here: dict[Node, Operand] = {n: n for n in graph.inputs}
    for node in graph.nodes:
        operands = [mapped(here, o) for o in node.operands]
        if is_reduction(node) and is_turned(operands[0]):
            here[node] = reduce_first(builder, node, operands[0])
        elif node.prim is not transpose and node in stored and all(is_turned(o) for o in operands if o.aval.shape):
            inner = [o.operands[0] if is_turned(o) else o for o in operands]
            computed = builder.add(node.prim, inner, node.params, node.where)
            here[node] = builder.add(transpose, [computed], {"perm": stored[node]}, node.where)
        else:
            if wants(node, readers):
                operands = [in_memory(builder, o) for o in operands]
            here[node] = builder.add(node.prim, operands, node.params, node.where)
    return builder.finish(in_memory(builder, mapped(here, o)) for o in graph.outputs)


def is_turned(operand: Operand) -> TypeGuard[Node]:
    return isinstance(operand, Node) and moves_rows(operand)


def in_memory(builder: Builder, operand: Operand) -> Operand:
    """Return a transpose that moves rows as a copy."""
    return builder.add(turn, operand.operands, operand.params, operand.where) if is_turned(operand) else operand


def computed_as_stored(graph: Graph, readers: dict[Node, list[Node]]) -> dict[Node, tuple[int, ...]]:
    """Return the element-wise nodes that are computed before their operands are transposed, and the transposes, with
    the permutation of each."""
    perms: dict[Node, tuple[int, ...]] = {}
    for node in graph.nodes:
        if moves_rows(node):
            perms[node] = node.params["perm"]
        elif node.prim.kind == "elementwise":
            found = {perms.get(o) for o in node.nodes() if o.shape}
            perm = found.pop() if len(found) == 1 else None
            if perm is not None:
                perms[node] = perm
    sources = sum(map(moves_rows, perms))
    for results_too in (True, False):
        chosen = dict(perms)
        for node in reversed(list(perms)):
            alike = all(r in chosen or r.prim is dot or is_reduction(r) for r in readers[node])
            if not alike or (node in graph.outputs and not results_too):
                del chosen[node]
        if sum(node in graph.outputs for node in chosen) <= sources:
            break
    return chosen


def is_reduction(node: Node) -> bool:
    return node.prim.kind == "reduce" and node.prim not in (argmax, argmin)


def wants(node: Node, readers: dict[Node, list[Node]]) -> bool:
    """Say whether a node is computed in loops that read all of its operand, in the order of the operand's axes."""
    if node.prim in (broadcast, pad) or (node.prim is reshape and is_affine(node.shape, node.operands[0].aval.shape)):
        return any(wants(reader, readers) for reader in readers[node])
    return node.prim.kind in ("elementwise", "window", "scatter") or node.prim is concat


def reduce_first(builder: Builder, node: Node, turned: Node) -> Operand:
    """Add transpose(reduce(x)) for reduce(transpose(x))."""
    perm, axes = turned.params["perm"], node.params["axes"]
    inner = tuple(sorted(perm[a] for a in axes))
    reduced = builder.add(node.prim, turned.operands, {**node.params, "axes": inner}, node.where)
    left = kept(len(perm), inner)
    order = tuple(left.index(perm[a]) for a in kept(len(perm), axes))
    if order == tuple(range(len(order))):
        return reduced
    return builder.add(transpose, [reduced], {"perm": order}, node.where)
