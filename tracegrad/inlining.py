"""Graphs put into a trace once more: node by node, or, where nothing can differ, by copying their nodes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegrad.ir import Graph, Literal, Node, Operand
from tracegrad.ir.build import mapped
from tracegrad.trace import Trace, Tracer, current_trace


def copied(graph: Graph, trace: Trace, values: Sequence[Any]) -> dict[Node, Any] | None:
    """Return what every node is in `trace`, by copying; None where that could be something else."""
    if not trace.takes_copies():
        return None
    inputs = [trace.lift(value) for value in values]
    if any(old.aval != new.aval for old, new in zip(graph.inputs, inputs, strict=True)):
        return None
    line = trace.line or trace.lines.now(0)
    here: dict[Node, Operand] = dict(zip(graph.inputs, inputs, strict=True))
    found: dict[Node, Any] = dict(zip(graph.inputs, values, strict=True))
    for node in graph.nodes:
        here[node] = copy = trace.builder.copy(node, [mapped(here, o) for o in node.operands], line)
        found[node] = Tracer(trace, copy)
    return found


def inline(graph: Graph, values: Sequence[Any]) -> list[Any]:
    """Apply `graph` to `values`, node by node, in the trace they belong to or eagerly; constants join the innermost.

    The nodes keep their lines.
    """
    trace = current_trace()
    here = None
    if trace is not None and any(type(v) is Tracer and v._trace is trace for v in values):
        here = copied(graph, trace, values)
    if here is None:
        here = apply_nodes(graph, values)
    return [o.dtype.type(o.value) if isinstance(o, Literal) else here[o] for o in graph.outputs]


def apply_nodes(graph: Graph, values: Sequence[Any]) -> dict[Node, Any]:
    """Do so, and return what every node is."""
    here: dict[Node, Any] = dict(zip(graph.inputs, values, strict=True))
    innermost = max((v for v in values if isinstance(v, Tracer)), key=lambda v: v._trace.level, default=None)
    line = None if innermost is None else innermost._trace.line

    def value(operand: Operand) -> Any:
        return operand.dtype.type(operand.value) if isinstance(operand, Literal) else here[operand]

    for node in graph.nodes:
        operands = [value(o) for o in node.operands]
        if innermost is not None:
            innermost._trace.line = node.where or line
        traced = any(isinstance(o, Tracer) for o in operands)
        here[node] = (
            node.prim(*operands, **node.params) if traced else node.prim.beside(innermost, *operands, **node.params)
        )
    if innermost is not None:
        innermost._trace.line = line
    return here
