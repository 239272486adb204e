"""The inputs of a graph as they are stored: views in front make of them what the graph reads."""

from __future__ import annotations

from collections.abc import Sequence

from tracegrad.ir import Aval, Graph, Operand
from tracegrad.ir.build import Builder
from tracegrad.ir.layout import Layout, stored
from tracegrad.ops.shape import slice_, transpose


def as_stored(graph: Graph, layouts: Sequence[Layout]) -> Graph:
    """Return the graph of stored inputs: slices take off padded rows, transposes put the axes into their order.

    def f(x: f32[3, 2]) stored transposed becomes def f(x: f32[2, 3]): a: f32[3, 2] = transpose(x, perm=(1, 0))
    """
    if not any(layouts):
        return graph
    builder = Builder(graph.name)
    inputs: list[Operand] = []
    for node, layout in zip(graph.inputs, layouts, strict=True):
        found = None if layout is None else stored(node.shape, layout)
        aval = node.aval if found is None else Aval(found.shape, node.dtype)
        value = builder.input(aval, graph.names.get(node, ""), node.where)
        if found is not None:
            axes = len(found.shape)
            if found.shape != found.taken:
                params = {"start": (0,) * axes, "size": found.taken, "step": (1,) * axes}
                value = builder.add(slice_, [value], params, node.where)
            value = builder.add(transpose, [value], {"perm": found.back}, node.where)
        inputs.append(value)
    return builder.finish(builder.inline(graph, inputs))
