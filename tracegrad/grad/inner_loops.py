"""Loops in the body of a loop, in reverse mode.

The pullback of an inner loop reads values that the inner loop leaves when it is run again from the carries of the outer
one. Where these values take less memory than the carries (elements that a nest of loops reads from the array it fills),
the outer loop keeps them instead, and nothing is run again.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracegrad.ir import Builder, Graph, Node, Operand
from tracegrad.ir.aval import Avals, TapeAval
from tracegrad.ir.build import live, mapped, number
from tracegrad.ops.control import item


def keep_inner_loops(
    body: Graph, pulled: Graph, kept: Sequence[Node], n_carry: int
) -> tuple[Graph, Graph, Sequence[Node]]:
    """Return the body, its pullback and the values that are handed over, which are inputs of the pullback behind the
    body's: with those of inner loops among them, computed by the body, if that takes less memory."""
    given = len(body.inputs) + len(kept)
    records = inner_records(pulled, given)
    if not records:
        return body, pulled, kept
    cut = cut_at(pulled, records, given)
    before, after = (bytes_read(graph, n_carry) for graph in (pulled, cut))
    if after + sum(n.aval.nbytes for n in records) >= before:
        return body, pulled, kept
    recording, found = appended(body, pulled, kept, records)
    return recording, cut, (*kept, *found)


def inner_records(pulled: Graph, given: int) -> list[Node]:
    """Return the results of loops that depend on none of the inputs behind `given`, and that what depends on those
    reads."""
    late = set(pulled.inputs[given:])
    records: dict[Node, None] = {}
    for node in pulled.nodes:
        if any(o in late for o in node.nodes()):
            late.add(node)
            records |= {n: None for n in node.nodes() if n.prim is item and n not in late}
    return [n for n in records if not isinstance(n.aval, (Avals, TapeAval))]


def cut_at(pulled: Graph, records: Sequence[Node], given: int) -> Graph:
    """Make inputs of some values, behind the first `given` ones."""
    builder = Builder(pulled.name)
    here: dict[Node, Operand] = {}
    for node in (*pulled.inputs[:given], *records, *pulled.inputs[given:]):
        here[node] = builder.input(node.aval, pulled.names.get(node, ""), node.where)
    for node in pulled.nodes:
        if node not in here:
            here[node] = builder.copy(node, [mapped(here, o) for o in node.operands])
    return builder.finish([mapped(here, o) for o in pulled.outputs])


def bytes_read(pulled: Graph, n_carry: int) -> int:
    """Return the bytes of the carries that a pullback reads."""
    read = {o for n in pulled.nodes for o in n.operands} | set(pulled.outputs)
    return sum(n.aval.nbytes for n in pulled.inputs[:n_carry] if n in read)


def appended(body: Graph, pulled: Graph, kept: Sequence[Node], records: Sequence[Node]) -> tuple[Graph, list[Node]]:
    """Return a body that computes values of its pullback, too, behind its own nodes, and those values."""
    known = {number(n.prim, n.operands, n.params): n for n in body.nodes}
    here: dict[Node, Operand] = dict(zip(pulled.inputs, (*body.inputs, *kept), strict=False))
    nodes = list(body.nodes)
    for node in live(pulled.nodes, records):
        operands = tuple(mapped(here, o) for o in node.operands)
        key = number(node.prim, operands, node.params)
        if key not in known:
            known[key] = Node(node.prim, operands, node.params, node.aval, node.where)
            nodes.append(known[key])
        here[node] = known[key]
    found = [here[n] for n in records]
    return Graph(body.name, body.inputs, tuple(nodes), body.outputs, body.names), found  # type: ignore[return-value]
