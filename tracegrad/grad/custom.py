"""Reverse and forward mode through functions with a gradient of their own.

The rule's forward graph is added beside the primal node (what the two have in common is one value), and its backward
graph turns residuals and cotangents into the cotangents of the operands. A residual that is a result is taken from the
primal node, so that further differentiation uses the rule again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracegrad.errors import GradientError
from tracegrad.grad.adjoint import Refusal, pullback, zeros
from tracegrad.inlining import apply_nodes, inline
from tracegrad.ir import Graph, Literal, Node, Operand
from tracegrad.ir.aval import Aval, has_gradient
from tracegrad.ops.control import RULES, item
from tracegrad.ops.custom import Rule, custom
from tracegrad.ops.elementwise import div, mul, stop_gradient
from tracegrad.ops.pool import max_pool_pick, max_pool_route
from tracegrad.trace import STATE


def residuals_of(y: Any, operands: Sequence[Any], body: Graph, rule: Rule) -> list[Any]:
    """Add the forward half, and return what it keeps."""
    assert rule.forward is not None
    count = len(body.outputs)
    results, own = rule.forward.outputs[:count], set(rule.forward.inputs)
    computed = inline(rule.forward, operands)
    here = STATE.get().traces[-1:]
    if here and not here[0].computes and getattr(y, "_trace", None) is not here[0]:
        y = custom(*operands, body=body, rule=rule)  # in a loop over cotangents: all results together cannot enter it
    return [
        item(y, index=results.index(o)) if isinstance(o, Node) and o in results and o not in own else value
        for o, value in zip(rule.forward.outputs[count:], computed[count:], strict=True)
    ]


def refusal(rule: Rule, aval: Aval) -> Refusal:
    """Return the error for a derivative that the rule does not know."""
    return Refusal(
        f"{rule.name}: a gradient is wanted by a traced value {aval} that it reads from outside",
        fix=f"pass the value to {rule.name} as an argument, or wrap it in tg.stop_gradient",
    )


def custom_vjp(ct: Any, y: Any, *operands: Any, body: Graph, rule: Rule | str) -> Any:
    """Apply the user's rule."""
    if isinstance(rule, str) or rule.forward is None or rule.backward is None:
        name = rule if isinstance(rule, str) else rule.name
        raise GradientError(
            f"{name}: it has no backward, so no gradient flows through it",
            fix="define backward(ctx, *grads), or wrap the call in tg.stop_gradient if no gradient is wanted",
        )
    residuals = residuals_of(y, operands, body, rule)
    like = next(c for c in ct if c is not None)
    cts = [zeros(o.aval, like) if c is None else c for o, c in zip(body.outputs, ct, strict=True)]
    outside = operands[len(operands) - rule.n_outside :]
    found: list[Any] = [None] * len(operands)
    for position, value in zip(rule.wanted, inline(rule.backward, [*residuals, *cts, *outside]), strict=True):
        found[position] = value
    for position in rule.traced:
        found[position] = refusal(rule, body.inputs[position].aval)
    return tuple(found)


# --- forward mode -----------------------------------------------------------------------------------------------------
def custom_jvp(node: Node, ts: Sequence[Any], y: Any, operands: Sequence[Any]) -> list[Any]:
    """Return the tangents of all results, None where they are zero.

    The backward half gives g = A^T ct. If it is linear in ct, its own pullback takes tangents of the operands to A t,
    which are those of the results.
    """
    body, rule = node.params["body"], node.params["rule"]
    name = rule if isinstance(rule, str) else rule.name
    for position in () if isinstance(rule, str) else rule.traced:
        if ts[position] is not None:
            unknown = refusal(rule, body.inputs[position].aval)
            raise GradientError(unknown.message, fix=unknown.fix, where=node.where)
    if isinstance(rule, str) or rule.backward is None or not is_linear(rule.backward, *ct_places(body, rule)):
        raise GradientError(
            f"{name}: forward mode has no rule, because its backward is not linear in the gradients that it gets",
            fix="use reverse mode: tg.grad, tg.vjp, or tg.jacrev(tg.jacrev(fn)) in place of tg.hessian(fn)",
            where=node.where,
        )
    residuals = residuals_of(y, operands, body, rule)
    like = next(t for t in ts if t is not None)
    outside = operands[len(operands) - rule.n_outside :]
    blank = [zeros(o.aval, like) for o in body.outputs]
    values = apply_nodes(rule.backward, [*residuals, *blank, *outside])
    first, last = ct_places(body, rule)
    cts = rule.backward.inputs[first:last]
    given = [ts[i] for i in rule.wanted]
    if all(g is None for g in given):
        return [None] * len(cts)
    found = pullback(rule.backward.nodes, cts, rule.backward.outputs, given, values)
    return [f if has_gradient(n.aval) else None for f, n in zip(found, cts, strict=True)]


def ct_places(body: Graph, rule: Rule) -> tuple[int, int]:
    """Return which inputs of the backward half are cotangents: from the first up to the second number."""
    assert rule.backward is not None
    last = len(rule.backward.inputs) - rule.n_outside
    return last - len(body.outputs), last


def is_linear(graph: Graph, first: int, last: int) -> bool:
    """Say whether the outputs of a graph are certainly linear in its inputs from `first` up to `last`."""
    moving: set[Operand] = set(graph.inputs[first:last])
    zero: set[Operand] = set()

    def still(operand: Operand) -> bool:
        return operand not in moving

    def none(operand: Operand) -> bool:
        return operand in zero or (isinstance(operand, Literal) and operand.value == 0)

    for node in graph.nodes:
        operands = node.operands
        if all(map(still, operands)):
            if node.prim.kind == "shape" and operands and all(map(none, operands)):
                zero.add(node)
            continue
        if not has_gradient(node.aval) or not keeps_linear(node, still, none):
            return False
        moving.add(node)
    return all(o in moving or none(o) for o in graph.outputs)


def keeps_linear(node: Node, still: Callable[[Operand], bool], none: Callable[[Operand], bool]) -> bool:
    """Say whether a node is linear in those of its operands that move, the others being constant."""
    operands, prim = node.operands, node.prim
    if prim is mul or prim.kind == "contract":
        return sum(map(still, operands)) == 1
    if prim in (div, max_pool_route, max_pool_pick):
        return all(map(still, operands[1:]))
    if prim is stop_gradient or not prim.linear:
        return False
    return all(not still(o) or none(o) or not has_gradient(o.aval) for o in operands)


RULES["custom"] = custom_vjp
