"""Applies rewrite rules until none fires."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from tracegrad.config import config
from tracegrad.ir import Builder, Graph, Literal, Node, Operand, Primitive
from tracegrad.ir.build import mapped
from tracegrad.passes.rewrite import Rewriter, Rule
from tracegrad.passes.rules import EXACT, FAST_MATH

LIMIT = 40


@lru_cache(maxsize=512)
def rules_for(prim: Primitive, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    return tuple(r for r in rules if not r.prims or prim in r.prims)


def default_rules() -> tuple[Rule, ...]:
    return (*EXACT, *FAST_MATH) if config.fast_math else tuple(EXACT)


def simplify(graph: Graph, rules: Sequence[Rule] | None = None) -> Graph:
    """Rewrite `graph` by `rules` (the exact ones, and the fast-math ones when switched on) to a fixed point."""
    chosen = default_rules() if rules is None else tuple(rules)
    for _ in range(LIMIT):
        graph, fired = one_pass(graph, chosen)
        if not fired:
            return graph
    return graph


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
