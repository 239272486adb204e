"""What the tape holds, as a graph: to print, to draw, to look at its adjoint."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.errors import TapeError
from tracegrad.grad.adjoint import joint
from tracegrad.ir import Graph, Literal
from tracegrad.ir import Node as GraphNode
from tracegrad.ir.aval import is_float
from tracegrad.ir.build import Builder
from tracegrad.tape.custom import APPLIED
from tracegrad.tape.engine import listed, reachable, required
from tracegrad.tape.node import Node, aval_of


def graph(outputs: Any, adjoint: bool = False) -> Graph:
    """Return the graph that was recorded for tensors, from their leaves (`x0`, `x1`, ... in order of use) and
    constants.

    It prints as Python; `adjoint=True` appends the computation of the leaves' gradients, as the tape's walk does it.
    Raises TapeError for untracked tensors, after `backward()` has freed the graph, and for calls of a `tg.Function`,
    whose methods are no graph.

    >>> import tracegrad as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> print(tg.autograd.graph((x * x).sum()))
    def tape(x0: f64[2]) -> f64:
        a: f64[2] = mul(x0, x0)
        b: f64 = reduce_sum(a, axes=(0,))
        return b
    """
    roots = [required(t, "graph") for t in listed(outputs)]
    nodes, leaves, _ = reachable(roots)
    builder = Builder("tape")
    here: dict[Node, GraphNode] = {}
    for number, leaf in enumerate(leaves):
        here[leaf] = builder.input(leaf.aval, f"x{number}")
    made: list[GraphNode] = []
    constants: dict[int, GraphNode] = {}
    for node in nodes:
        if node.saved is None or node.prim is APPLIED:
            why = "has been freed by backward" if node.saved is None else "is a tg.Function, whose methods are no graph"
            raise TapeError(f"graph: {node.label} (at {node.where}) {why}", fix="take the graph before, or of a part")
        operands = [operand_of(builder, here, constants, node, place) for place in range(len(node.operands))]
        aval = node.prim.aval(*(o.aval for o in operands), **node.params)
        here[node] = GraphNode(node.prim, tuple(operands), node.params, aval, node.where)
        made.append(here[node])
    found = Graph("tape", tuple(builder.inputs), tuple(made), tuple(here[r] for r in roots), builder.names)
    if not adjoint:
        return found
    floating = tuple(i for i, r in enumerate(found.outputs) if is_float(r.dtype))
    return joint(found, range(len(leaves)), seeds=floating)


def operand_of(
    builder: Builder, here: dict[Node, GraphNode], constants: dict[int, GraphNode], node: Node, place: int
) -> GraphNode | Literal:
    """Return an operand: a node, a number, or a constant array as a further input."""
    source = node.operands[place]
    if source is not None:
        return here[source]
    assert node.saved is not None
    value = node.saved[place + 1]
    if isinstance(value, np.generic):
        return Literal(value.item(), value.dtype)
    held = constants.get(id(value))
    if held is None:
        aval = value if not isinstance(value, np.ndarray) else aval_of(value)
        held = constants[id(value)] = builder.input(aval, f"constant{len(constants)}")
    return held

