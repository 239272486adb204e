"""Runs a graph node by node with the eager rules: the meaning that every pass and every back end must keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.ir.graph import Graph, Literal, Node, Operand


def interpret(graph: Graph, *arguments: Any, visit: Callable[[Node, Any], None] | None = None) -> tuple[Any, ...]:
    """Return the outputs of `graph` for `arguments`; `visit` sees every node with its value."""
    values: dict[Node, Any] = dict(zip(graph.inputs, arguments, strict=True))

    def value(operand: Operand) -> Any:
        return operand.dtype.type(operand.value) if isinstance(operand, Literal) else values[operand]

    with np.errstate(all="ignore"):
        for node in graph.nodes:
            values[node] = node.prim(*(value(o) for o in node.operands), **node.params)
            if visit is not None:
                visit(node, values[node])
    return tuple(value(o) for o in graph.outputs)
