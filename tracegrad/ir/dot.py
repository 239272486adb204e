"""Graphs as drawings: the text that Graphviz's `dot` lays out.

    Path("loss.dot").write_text(tg.grad(loss).lower(x).graph.to_dot())      then: dot -Tsvg loss.dot > loss.svg

What the forward graph computes is drawn as ellipses, what was added for the gradient as grey boxes, when both graphs
are at hand. Every node carries the user's line as its tooltip; the graphs that loops and branches run are boxes of
their own.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Any

from tracegrad.ir.build import operand_key
from tracegrad.ir.graph import Graph, Literal, Node, Operand
from tracegrad.ir.text import assign_names, nested_graphs, show, show_literal, show_param

STYLES = {
    "input": "shape=plaintext",
    "forward": "shape=ellipse",
    "adjoint": 'shape=box, style=filled, fillcolor="grey90"',
    "output": "shape=plaintext",
}


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def values_of(graph: Graph) -> dict[Node, Hashable]:
    """Number the values of a graph such that equal ones in two graphs of the same inputs have equal keys."""
    found: dict[Node, Hashable] = {node: ("input", i) for i, node in enumerate(graph.inputs)}
    for node in graph.nodes:
        operands = tuple(operand_key(o) if isinstance(o, Literal) else found[o] for o in node.operands)
        params = tuple((key, param_key(value)) for key, value in sorted(node.params.items()))
        found[node] = hash((node.prim.name, operands, params))
    return found


def param_key(value: Any) -> Hashable:
    if isinstance(value, Graph):
        return show(value)
    return tuple(param_key(v) for v in value) if isinstance(value, tuple) else value


def label(node: Node, graphs: dict[Graph, str]) -> str:
    """Write a node's primitive with its literals and parameters, and its aval below."""
    parts = ["." if isinstance(o, Node) else show_literal(o, node.dtype) for o in node.operands]
    parts += [f"{key}={show_param(value, graphs)}" for key, value in sorted(node.params.items())]
    if set(parts) <= {"."}:
        return f"{node.prim.name}\n{node.aval}"
    return f"{node.prim.name}({', '.join(parts)})\n{node.aval}"


def body_lines(graph: Graph, prefix: str, forward: set[Node]) -> Iterator[str]:
    """Yield the statements that draw one graph; names start with `prefix`."""
    names, graphs = assign_names(graph), nested_graphs(graph)

    def draw(name: str, text: str, style: str, node: Operand | None = None) -> str:
        where = node.where if isinstance(node, Node) else None
        tip = f", tooltip={quoted(str(where))}" if where else ""
        return f"{quoted(prefix + name)} [label={quoted(text)}, {STYLES[style]}{tip}];"

    for node in graph.inputs:
        yield draw(names[node], f"{names[node]}\n{node.aval}", "input", node)
    for node in graph.nodes:
        yield draw(names[node], label(node, graphs), "forward" if node in forward else "adjoint", node)
        for operand in node.nodes():
            yield f"{quoted(prefix + names[operand])} -> {quoted(prefix + names[node])};"
    for i, output in enumerate(graph.outputs):
        text = f"result {i}" if isinstance(output, Node) else f"result {i}\n{show_literal(output, None)}"
        yield draw(f"result{i}", text, "output", output)
        if isinstance(output, Node):
            yield f"{quoted(prefix + names[output])} -> {quoted(f'{prefix}result{i}')};"
    for inner, name in graphs.items():
        yield f"subgraph {quoted(f'cluster_{prefix}{name}')} {{"
        yield f"  label={quoted(name)};"
        yield from (f"  {line}" for line in body_lines(inner, f"{prefix}{name}.", set(inner.nodes)))
        yield "}"


def to_dot(graph: Graph, forward: Graph | None = None) -> str:
    """Return the text of a drawing of `graph`, in Graphviz's language.

    With `forward`, the graph of the same function before differentiation, what only the gradient needs is set apart.

    >>> import tracegrad as tg
    >>> for line in tg.jit(lambda x: 2.0 * x).lower(1.0).graph.to_dot().splitlines():
    ...     print(line.partition(" [")[0])
    digraph "main" {
      rankdir=TB;
      "x"
      "a"
      "x" -> "a";
      "result0"
      "a" -> "result0";
    }
    """
    if forward is None:
        plain = set(graph.nodes)
    else:
        known = set(values_of(forward).values())
        plain = {node for node, value in values_of(graph).items() if value in known}
    lines = [f"digraph {quoted(graph.name)} {{", "  rankdir=TB;"]
    return "\n".join([*lines, *(f"  {line}" for line in body_lines(graph, "", plain)), "}"])


Graph.to_dot = to_dot  # type: ignore[attr-defined]
