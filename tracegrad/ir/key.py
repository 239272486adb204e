"""What a graph is known by in the cache: all that its text says but the names, written so that it takes little time.

    3 inputs: f32[8] f32[8] f32
    mul 0 1
    reduce_sum 3 axes=(0,)
    mul 4 2.0f32
    results: 5

Nodes are known by their numbers, inputs first. The avals of nodes follow from the shape rules. Graphs that control flow
runs stand in front, and are numbered, too.
"""

from __future__ import annotations

from typing import Any

from tracegrad.ir.aval import dtype_name
from tracegrad.ir.graph import Graph, Node, Operand
from tracegrad.ir.text import show_param


def key_text(graph: Graph, *, lines: bool = False) -> str:
    """Write a graph's identity; with `lines`, the user's file and line of each node belong to it."""
    parts: list[str] = []
    write(graph, lines, {}, parts)
    return "\n".join(parts)


def write(graph: Graph, lines: bool, bodies: dict[Graph, str], parts: list[str]) -> None:
    """Add the lines of a graph, after those of the graphs that it holds; `bodies` are known already."""
    numbers: dict[Node, str] = {}
    for node in graph.inputs:
        numbers[node] = str(len(numbers))
    found = [f"{len(numbers)} inputs: {' '.join([str(node.aval) for node in graph.inputs])}"]
    for node in graph.nodes:
        words = [node.prim.name, *[operand_word(o, numbers) for o in node.operands]]
        for name, value in sorted(node.params.items()) if node.params else ():
            for body in value if type(value) is tuple else (value,):
                if type(body) is Graph and body not in bodies:
                    write(body, lines, bodies, parts)
                    bodies[body] = f"graph{len(bodies)}"
            words.append(f"{name}={param_word(value, bodies)}")
        if lines and node.where is not None:
            words.append(f"# {node.where}")
        found.append(" ".join(words))
        numbers[node] = str(len(numbers))
    found.append(f"results: {' '.join([operand_word(o, numbers) for o in graph.outputs])}")
    parts += found


def operand_word(operand: Operand, numbers: dict[Node, str]) -> str:
    return numbers[operand] if isinstance(operand, Node) else f"{operand.value!r}{dtype_name(operand.dtype)}"


def param_word(value: Any, bodies: dict[Graph, str]) -> str:
    """Write a static parameter; a tuple of integers, the most frequent one, is written at once."""
    if type(value) is tuple and set(map(type, value)) == {int}:
        return repr(value)
    return show_param(value, bodies)
