"""Splits a joint graph into forward and backward, and decides what is kept in between.

A forward value that the backward half needs is either a residual (kept) or recomputed. It is recomputed when it is a
cheap chain of element-wise operations over values that are kept anyway, or over arguments: then keeping it would only
cost memory. Everything else is kept.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracegrad.ir import INPUT, Builder, Graph, Literal, Node, Operand
from tracegrad.ir.aval import Avals, TapeAval
from tracegrad.ir.build import live, mapped

CHEAP_KINDS = ("elementwise", "shape")
CHEAP_COST = 4


@dataclass(frozen=True)
class Halves:
    """`forward`: inputs -> outputs, residuals. `backward`: residuals, cotangents -> gradients."""

    forward: Graph
    backward: Graph
    n_outputs: int
    n_residuals: int


def is_cheap(node: Node) -> bool:
    return node.prim.kind in CHEAP_KINDS and getattr(node.prim, "cost", 1) <= CHEAP_COST


def partition(graph: Graph, n_inputs: int, n_outputs: int) -> Halves:
    """Split a joint graph whose first `n_inputs` inputs and `n_outputs` outputs are the primal ones."""
    primal = graph.inputs[:n_inputs]
    cotangents = graph.inputs[n_inputs:]
    backward_only: set[Node] = set(cotangents)
    for node in graph.nodes:
        if any(o in backward_only for o in node.nodes()):
            backward_only.add(node)
    gradients = graph.outputs[n_outputs:]
    residuals = choose_residuals(graph, primal, gradients, backward_only)
    forward_outputs = (*graph.outputs[:n_outputs], *residuals)
    forward = Graph(graph.name, primal, live(graph.nodes, forward_outputs), forward_outputs, graph.names)
    return Halves(forward, backward_half(graph, residuals, cotangents, gradients), n_outputs, len(residuals))


def choose_residuals(
    graph: Graph, primal: tuple[Node, ...], gradients: tuple[Operand, ...], backward_only: set[Node]
) -> list[Node]:
    """Walk from the gradients back to the forward values they need; recompute the cheap ones, keep the others."""
    position = {n: i for i, n in enumerate((*primal, *graph.nodes))}
    needed: set[Node] = set()
    pending = [o for o in gradients if isinstance(o, Node)]
    kept: set[Node] = set()
    while pending:
        node = pending.pop()
        if node in needed or node in kept:
            continue
        if node.prim is INPUT:
            if node in position:
                kept.add(node)
            continue
        if node not in backward_only and not recomputes(node) and not is_internal(node):
            kept.add(node)
            continue
        needed.add(node)
        pending.extend(node.nodes())
    return sorted(kept, key=position.__getitem__)


def is_internal(node: Node) -> bool:
    """Say whether a value cannot leave its program: tapes, and control-flow results before `item` picks a part."""
    return isinstance(node.aval, (Avals, TapeAval))


def recomputes(node: Node, depth: int = 6) -> bool:
    """Say whether a forward value is a short cheap chain over at most one array of its size."""
    if not is_cheap(node) or depth == 0:
        return False
    large = [o for o in node.nodes() if o.aval.size >= node.aval.size]
    return len(large) <= 1


def backward_half(
    graph: Graph, residuals: list[Node], cotangents: tuple[Node, ...], gradients: tuple[Operand, ...]
) -> Graph:
    builder = Builder(f"{graph.name}_backward")
    here: dict[Node, Operand] = {}
    for number, node in enumerate(residuals):
        here[node] = builder.input(node.aval, graph.names.get(node, f"residual{number}"), node.where)
    for node in cotangents:
        here[node] = builder.input(node.aval, graph.names.get(node, ""), node.where)
    for node in needed_nodes(graph, set(here), gradients):
        here[node] = builder.add(node.prim, [mapped(here, o) for o in node.operands], node.params, node.where)
    return builder.finish([o if isinstance(o, Literal) else here[o] for o in gradients])


def needed_nodes(graph: Graph, given: set[Node], outputs: tuple[Operand, ...]) -> list[Node]:
    """Return, in order, the nodes between the given values and the outputs."""
    wanted = {o for o in outputs if isinstance(o, Node)} - given
    found = []
    for node in reversed(graph.nodes):
        if node in wanted:
            found.append(node)
            wanted.update(o for o in node.nodes() if o not in given)
    return found[::-1]
