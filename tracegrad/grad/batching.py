"""Batches: a graph of one example becomes the graph of many, whose first axis numbers them.

A value either has that axis, or is the same for all examples. The rules say how a primitive is applied to values that
have it; most need it only in their parameters. Whatever has no rule (a loop whose number of rounds differs from example
to example, a branch that does) is run example by example in a compiled loop, which is always right; so is a whole
graph whose loops leave records of unknown length behind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tracegrad.ir import Builder, Graph, Literal, Node, Operand, Primitive
from tracegrad.ir.aval import Aval, Avals, TapeAval
from tracegrad.ir.build import mapped
from tracegrad.ops import control
from tracegrad.ops.custom import Rule
from tracegrad.ops.shape import broadcast, transpose
from tracegrad.trace import Trace, new_trace

Flags = tuple[bool, ...]


@dataclass
class Batch:
    """A walk over one graph: what every node is, and whether it differs from example to example."""

    n: int
    trace: Trace
    values: dict[Node, Any] = field(default_factory=dict)
    differs: set[Node] = field(default_factory=set)
    parts: dict[Node, list[tuple[Any, bool]]] = field(default_factory=dict)
    rules: dict[tuple[Rule, Flags], Rule] = field(default_factory=dict)
    """Rules of the user's that have been batched, or are being so: they may be recursive."""

    def add(self, prim: Primitive, *operands: Any, **params: Any) -> Any:
        return self.trace.bind(prim, operands, params)

    def value(self, operand: Operand) -> Any:
        return operand.dtype.type(operand.value) if isinstance(operand, Literal) else self.values[operand]

    def flag(self, operand: Operand) -> bool:
        return operand in self.differs

    def flags(self, node: Node) -> Flags:
        return tuple(self.flag(o) for o in node.operands)

    def repeated(self, value: Any, aval: Aval, differs: bool) -> Any:
        """Return a value with the batch axis, repeated if it has none."""
        if differs:
            return value
        axes = tuple(range(1, aval.ndim + 1))
        return self.add(broadcast, value, shape=(self.n, *aval.shape), axes=axes)

    def all_repeated(self, node: Node) -> list[Any]:
        return [self.repeated(self.value(o), o.aval, self.flag(o)) for o in node.operands]

    def to_front(self, value: Any, axis: int) -> Any:
        """Move an axis of a value to the front."""
        if axis == 0:
            return value
        rest = [a for a in range(value.ndim) if a != axis]
        return self.add(transpose, value, perm=(axis, *rest))

    def from_front(self, value: Any, axis: int) -> Any:
        """Move the first axis of a value to the place `axis`."""
        if axis == 0:
            return value
        order = list(range(1, value.ndim))
        order.insert(axis, 0)
        return self.add(transpose, value, perm=tuple(order))

    def visit(self, node: Node) -> None:
        self.trace.line = node.where
        if node.prim is control.item:
            self.pick(node)
        elif not any(self.flags(node)):
            self.values[node] = self.add(node.prim, *map(self.value, node.operands), **node.params)
        elif isinstance(node.aval, Avals):
            self.parts[node] = CONTROL.get(node.prim.name, row_by_row)(self, node)
        else:
            rule = RULES.get(node.prim.name) or KINDS.get(node.prim.kind)
            self.values[node] = rule(self, node) if rule is not None else row_by_row(self, node)[0][0]
            self.differs.add(node)

    def pick(self, node: Node) -> None:
        """Take one part of a control-flow result."""
        (source,) = node.nodes()
        if source not in self.parts:
            self.values[node] = self.add(control.item, self.values[source], **node.params)
            return
        self.values[node], differs = self.parts[source][node.params["index"]]
        if differs:
            self.differs.add(node)


OneRule = Callable[[Batch, Node], Any]
ManyRule = Callable[[Batch, Node], list[tuple[Any, bool]]]
KINDS: dict[str, OneRule] = {}
RULES: dict[str, OneRule] = {}
CONTROL: dict[str, ManyRule] = {}
"""Rules by kind, by name, and by name for what has several results; `batching_rules` fills them."""


def batched(
    graph: Graph, flags: Sequence[bool], n: int, keep: Sequence[bool] | None = None, outer: Batch | None = None
) -> tuple[Graph, Flags]:
    """Return `graph` for `n` examples at once, and which of its outputs have the batch axis.

    The inputs `flags` have it; the outputs `keep` get it whether they need it or not.
    """
    if has_tapes(graph):
        return whole_graph_in_a_loop(graph, flags, n)
    with new_trace(graph.name) as trace:
        this = Batch(n, trace, rules=outer.rules if outer is not None else {})
        for node, flag in zip(graph.inputs, flags, strict=True):
            aval = node.aval.with_shape((n, *node.shape)) if flag else node.aval
            this.values[node] = trace.input(aval, graph.names.get(node, ""), where=node.where)
            if flag:
                this.differs.add(node)
        for node in graph.nodes:
            this.visit(node)
        trace.line = None
        outputs, found = [], []
        for i, output in enumerate(graph.outputs):
            differs = this.flag(output)
            value: Any = output if isinstance(output, Literal) else this.values[output]
            if keep is not None and keep[i] and not differs:
                value, differs = this.repeated(this.value(output), output.aval, False), True
            outputs.append(trace.lift(value))
            found.append(differs)
        return trace.builder.finish(outputs), tuple(found)


def has_tapes(graph: Graph) -> bool:
    avals = [a for n in graph.nodes for a in (n.aval.parts if isinstance(n.aval, Avals) else (n.aval,))]
    return any(isinstance(a, TapeAval) for a in avals)


def loop_over_rows(
    body: Graph, rows: Sequence[bool], values: Sequence[Any], n: int, add: Callable[..., Any]
) -> list[Any]:
    """Run a graph for one example after the other; return its stacked outputs."""
    order = [i for i, r in enumerate(rows) if r] + [i for i, r in enumerate(rows) if not r]
    inputs = tuple(body.inputs[i] for i in order)
    sorted_body = Graph(body.name, inputs, body.nodes, body.outputs, body.names)
    whole = add(
        control.scan, *(values[i] for i in order),
        body=sorted_body, n_carry=0, n_xs=sum(rows), length=n, reverse=False,
    )  # fmt: skip
    return [add(control.item, whole, index=i) for i in range(len(body.outputs))]


def whole_graph_in_a_loop(graph: Graph, flags: Sequence[bool], n: int) -> tuple[Graph, Flags]:
    with new_trace(graph.name) as trace:
        values = []
        for node, flag in zip(graph.inputs, flags, strict=True):
            aval = node.aval.with_shape((n, *node.shape)) if flag else node.aval
            values.append(trace.input(aval, graph.names.get(node, ""), where=node.where))
        add = lambda prim, *operands, **params: trace.bind(prim, operands, params)
        found = loop_over_rows(graph, flags, values, n, add)
        return trace.builder.finish([trace.lift(v) for v in found]), (True,) * len(found)


def row_by_row(this: Batch, node: Node) -> list[tuple[Any, bool]]:
    """Apply a primitive to one example after the other, in a compiled loop."""
    builder = Builder(f"{node.prim.name}_of_one")
    here: dict[Node, Operand] = {}
    for operand in node.nodes():
        if operand not in here:
            here[operand] = builder.input(operand.aval)
    found = builder.add(node.prim, [mapped(here, o) for o in node.operands], node.params, node.where)
    if isinstance(node.aval, Avals):
        outputs = [builder.add(control.item, [found], {"index": i}, node.where) for i in range(len(node.aval.parts))]
    else:
        outputs = [found]
    body = builder.finish(outputs)
    rows = [o in this.differs for o in here]
    return [(v, True) for v in loop_over_rows(body, rows, [this.values[o] for o in here], this.n, this.add)]


INDEX = np.dtype(np.int64)
__all__ = ["INDEX", "Batch", "batched", "row_by_row"]
