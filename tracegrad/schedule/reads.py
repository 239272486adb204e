"""How nodes are read: through which views, in which pieces, from memory or not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tracegrad.ir import Graph, Node
from tracegrad.ops.shape import reshape, slice_
from tracegrad.schedule.index import Affine, through_reshape
from tracegrad.schedule.kinds import lowering


def under_views(node: Node) -> Node:
    """Return the node whose elements a chain of views shows."""
    while lowering(node) == "view" and node.operands and isinstance(node.operands[0], Node):
        node = node.operands[0]
    return node


def views_of(node: Node) -> Iterator[Node]:
    """Yield a view and the views under it: what reads from memory may need any of them to be there."""
    while lowering(node) == "view":
        yield node
        source = next(node.nodes(), None)
        if source is None:
            return
        node = source


def under_reshapes(node: Node) -> Node:
    """Return the node whose elements stand in the order that a chain of reshapes shows them in."""
    while node.prim is reshape and isinstance(node.operands[0], Node):
        node = node.operands[0]
    return node


def is_affine(shape: Sequence[int], source: Sequence[int]) -> bool:
    """Say whether an index after a reshape is an affine index before it."""
    return through_reshape(tuple(Affine.var(f"i{a}") for a in range(len(shape))), shape, source) is not None


def forced_nodes(graph: Graph) -> set[Node]:
    """Return the nodes that must be in memory: outputs, and what library calls and nests read."""
    found = {under_views(o) for o in graph.outputs if isinstance(o, Node)}
    for node in graph.nodes:
        if lowering(node) in ("library", "control"):
            found.update(under_views(operand) for operand in node.nodes())
    return found


def readers_of(graph: Graph) -> dict[Node, list[Node]]:
    """Return the nodes that read each node."""
    readers: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        for operand in set(node.nodes()):
            readers.setdefault(operand, []).append(node)
    return readers


def shared_nodes(graph: Graph) -> set[Node]:
    """Return the values behind several others that are read at other positions: with the first in memory, the others
    need not be. So are the terms of a filter's gradient, y * w[k], which are padded and added up."""
    readers = readers_of(graph)
    found: set[Node] = set()
    for node, by in readers.items():
        moved = [r for r in by if r.prim.kind == "elementwise" and is_moved(r, readers)]
        if len(moved) > 1 and node.prim.kind == "elementwise":
            found.add(node)
    return found


def is_moved(node: Node, readers: dict[Node, list[Node]]) -> bool:
    """Say whether all that reads a value does so at other positions."""
    by = readers.get(node, [])
    return bool(by) and all(lowering(r) == "view" and r.prim is not reshape for r in by)


def split_nodes(graph: Graph) -> set[Node]:
    """Return the values that are read in slices that share no element, and what only such values read: computing them
    where they are read computes nothing twice."""
    readers = readers_of(graph)
    found: set[Node] = set()
    for node in reversed(graph.nodes):
        by = readers.get(node, [])
        if by and all(r.prim is slice_ for r in by):
            if are_disjoint([box(r) for r in by]):
                found.add(node)
        elif len(by) == 1 and by[0] in found and by[0].prim.kind == "elementwise" and by[0].shape == node.shape:
            found.add(node)
    return found


def box(node: Node) -> tuple[tuple[int, int], ...]:
    """Return the first and last index that a slice takes of each axis."""
    ends = [
        sorted((a, a + d * (n - 1)))
        for a, d, n in zip(node.params["start"], node.params["step"], node.shape, strict=True)
    ]
    return tuple((low, high) for low, high in ends)


def are_disjoint(boxes: Sequence[tuple[tuple[int, int], ...]]) -> bool:
    """Say whether no two boxes share an element."""
    return all(
        any(a[1] < b[0] or b[1] < a[0] for a, b in zip(one, other, strict=True))
        for i, one in enumerate(boxes)
        for other in boxes[:i]
    )
