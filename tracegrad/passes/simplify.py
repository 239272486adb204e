"""Applies rewrite rules until none fires."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from tracegrad.config import config
from tracegrad.ir import Builder, Graph, Literal, Node, Operand, Primitive
from tracegrad.ir.build import mapped
from tracegrad.ops.control import scan, while_loop
from tracegrad.passes.batch_sums import join_batch_sums
from tracegrad.passes.custom import inline_custom
from tracegrad.passes.hoist import hoist
from tracegrad.passes.rewrite import Rewriter, Rule
from tracegrad.passes.rules import EXACT, FAST_MATH
from tracegrad.passes.scans import improve_scans

LIMIT = 40


@lru_cache(maxsize=512)
def rules_for(prim: Primitive, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    return tuple(r for r in rules if not r.prims or prim in r.prims)


def default_rules() -> tuple[Rule, ...]:
    return (*EXACT, *FAST_MATH) if config.fast_math else tuple(EXACT)


def simplify(graph: Graph, rules: Sequence[Rule] | None = None) -> Graph:
    """Rewrite `graph` by `rules` (the exact ones, and the fast-math ones when switched on) to a fixed point."""
    chosen = default_rules() if rules is None else tuple(rules)
    graph = improve_scans(hoist(simplify_bodies(merge_scans(inline_custom(graph)), chosen)))
    graph = join_batch_sums(graph)
    for _ in range(LIMIT):
        graph, fired = one_pass(graph, chosen)
        if not fired:
            return graph
    return graph


def simplify_bodies(graph: Graph, rules: tuple[Rule, ...]) -> Graph:
    """Rewrite the graphs that control flow runs."""
    if not any(node.prim.kind == "control" for node in graph.nodes):
        return graph
    done: dict[Graph, Graph] = {}

    def simple(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(simple(v) for v in value)
        if not isinstance(value, Graph):
            return value
        if value not in done:
            done[value] = simplify(value, rules)
        return done[value]

    return with_params(
        graph, {n: {k: simple(v) for k, v in n.params.items()} for n in graph.nodes if n.prim.kind == "control"}
    )


def with_params(graph: Graph, params: Mapping[Node, Mapping[str, Any]]) -> Graph:
    """Rebuild a graph with other parameters for some nodes."""
    builder = Builder(graph.name)
    here: dict[Node, Operand] = {}
    for node in graph.inputs:
        here[node] = builder.input(node.aval, graph.names.get(node, ""), node.where)
    for node in graph.nodes:
        operands = [mapped(here, o) for o in node.operands]
        here[node] = builder.add(node.prim, operands, params.get(node, node.params), node.where)
    return builder.finish([mapped(here, o) for o in graph.outputs])


def merge_scans(graph: Graph) -> Graph:
    """Let a loop whose results another loop over the same operands also gives run once: the pullback of a loop runs it
    again with the carries as further results."""
    scans = [n for n in graph.nodes if n.prim in (scan, while_loop)]
    richer: dict[Node, Mapping[str, Any]] = {}
    for one in scans:
        for other in scans:
            if one is not other and extends(other, one):
                richer[one] = other.params
    return with_params(graph, richer) if richer else graph


def extends(richer: Node, node: Node) -> bool:
    """Say whether a loop gives all results of another, and more."""
    if richer.prim is not node.prim:
        return False
    a, b = richer.params["body"], node.params["body"]
    same = all(richer.params[k] == v for k, v in node.params.items() if k != "body")
    prefix = len(a.outputs) > len(b.outputs) and a.outputs[: len(b.outputs)] == b.outputs
    prefix = prefix and a.inputs == b.inputs and a.nodes[: len(b.nodes)] == b.nodes
    return same and richer.operands == node.operands and prefix


def one_pass(graph: Graph, rules: tuple[Rule, ...]) -> tuple[Graph, int]:
    """Rebuild the graph once, rewriting every node as it is added; return how many rules fired."""
    builder = Builder(graph.name)
    rewriter = Rewriter(builder)
    here: dict[Node, Operand] = {}
    fired = 0
    for node in graph.inputs:
        here[node] = builder.input(node.aval, graph.names.get(node, ""), node.where)
    for node in graph.nodes:
        operands = [mapped(here, o) for o in node.operands]
        rewriter.where = node.where
        new: Operand = builder.add(node.prim, operands, node.params, node.where)
        new, count = rewrite_fully(rewriter, new, rules)
        fired += count
        here[node] = new
    return builder.finish([mapped(here, o) for o in graph.outputs]), fired


def rewrite_fully(rewriter: Rewriter, node: Operand, rules: tuple[Rule, ...]) -> tuple[Operand, int]:
    """Apply rules to one node until none fires."""
    fired = 0
    while not isinstance(node, Literal) and fired < LIMIT:
        for rule in rules_for(node.prim, rules):
            found = rule.apply(rewriter, node)
            if found is not None and found is not node:
                node, fired = found, fired + 1
                break
        else:
            break
    return node, fired
