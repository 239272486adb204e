"""Cotangents of one value, added up."""

from __future__ import annotations

from typing import Any

from tracegrad.ir import Builder, Literal, Node, Operand
from tracegrad.ir.aval import TapeAval
from tracegrad.ops.control import item, while_loop
from tracegrad.ops.elementwise import add
from tracegrad.ops.index import scatter_add
from tracegrad.ops.shape import broadcast
from tracegrad.trace import Tracer


def joined(node: Any, held: Any, ct: Any, values: Any) -> Any:
    """Add another cotangent of a node; one that is elements put into zeros is put into the others instead."""
    if isinstance(node.aval, TapeAval):
        return sum_of_tapes(node, held, ct, values)
    for so_far, other in ((held, ct), (ct, held)):
        if is_put_into_zeros(other) and type(so_far) is Tracer and so_far._trace is other._trace:
            parts = [o if isinstance(o, Literal) else Tracer(other._trace, o) for o in other._node.operands[1:]]
            return scatter_add(so_far, *parts, **other._node.params)
    return held + ct


def is_put_into_zeros(ct: Any) -> bool:
    """Say whether a traced cotangent is a gather's: updates at some places of zeros."""
    return type(ct) is Tracer and not ct._trace.computes and has_zeros_below(ct._node)


def has_zeros_below(node: Any) -> bool:
    """Say whether a node adds updates to zeros at some places."""
    base = node.operands[0] if isinstance(node, Node) and node.prim is scatter_add else None
    if not isinstance(base, Node) or base.prim is not broadcast:
        return False
    return isinstance(base.operands[0], Literal) and base.operands[0].value == 0


def added(builder: Builder, total: Operand, ct: Operand) -> Operand:
    """Add a cotangent to a sum in a graph that is being built; what is put into zeros is put into the sum."""
    if has_zeros_below(ct):
        assert isinstance(ct, Node)
        return builder.add(scatter_add, [total, *ct.operands[1:]], ct.params)
    return builder.add(add, [total, ct], {})


def sum_of_tapes(node: Node, a: Any, b: Any, values: Any) -> Any:
    """Add two cotangents of a tape row by row, in a loop of as many rounds as the one that left the tape has had."""
    (source,) = node.nodes()
    assert isinstance(node.aval, TapeAval)
    builder = Builder("sum_of_rows")
    rows = [builder.input(node.aval.row), builder.input(node.aval.row)]
    body = builder.finish([builder.add(add, rows, {})])
    rounds = item(values.result(source), index=source.params["n_carry"])
    return item(while_loop(rounds, a, b, condition=None, body=body, n_carry=0, n_xs=2, reverse=False), index=1)
