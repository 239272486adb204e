"""Reverse mode through functions with a gradient of their own.

The rule's forward graph is added beside the primal node (what the two have in common is one value), and its backward
graph turns residuals and cotangents into the cotangents of the operands. A residual that is a result is taken from the
primal node, so that further differentiation uses the rule again.
"""

from __future__ import annotations

from typing import Any

from tracegrad.errors import GradientError
from tracegrad.grad.adjoint import Refusal, zeros
from tracegrad.ir import Graph, Node
from tracegrad.ops.control import RULES, item
from tracegrad.ops.custom import Rule
from tracegrad.trace import inline


def custom_vjp(ct: Any, y: Any, *operands: Any, body: Graph, rule: Rule | str) -> Any:
    """Apply the user's rule."""
    if isinstance(rule, str) or rule.forward is None or rule.backward is None:
        name = rule if isinstance(rule, str) else rule.name
        raise GradientError(
            f"{name}: it has no backward, so no gradient flows through it",
            fix="define backward(ctx, *grads), or wrap the call in tg.stop_gradient if no gradient is wanted",
        )
    count = len(body.outputs)
    results, own = rule.forward.outputs[:count], set(rule.forward.inputs)
    computed = inline(rule.forward, operands)
    residuals = [
        item(y, index=results.index(o)) if isinstance(o, Node) and o in results and o not in own else value
        for o, value in zip(rule.forward.outputs[count:], computed[count:], strict=True)
    ]
    like = next(c for c in ct if c is not None)
    cts = [zeros(o.aval, like) if c is None else c for o, c in zip(body.outputs, ct, strict=True)]
    outside = operands[len(operands) - rule.n_outside :]
    found: list[Any] = [None] * len(operands)
    for position, value in zip(rule.wanted, inline(rule.backward, [*residuals, *cts, *outside]), strict=True):
        found[position] = value
    for position in rule.traced:
        aval = body.inputs[position].aval
        found[position] = Refusal(
            f"{rule.name}: a gradient is wanted by a traced value {aval} that it reads from outside",
            fix=f"pass the value to {rule.name} as an argument, or wrap it in tg.stop_gradient",
        )
    return tuple(found)


RULES["custom"] = custom_vjp
