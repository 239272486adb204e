"""Reverse mode through control flow: vjp rules that differentiate the graphs in the parameters.

scan      c', y = f(c, x, k):  a first scan also stacks the carries that the pullback reads; a second one runs from the last slice
          to the first, carries the cotangent of c and the sum of those of k, and stacks those of x.
cond      the pullback of each branch is a branch of a second cond.

The pullback of a body computes the body again from its inputs: only carries are kept between forward and backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegrad.errors import GradientError
from tracegrad.grad.adjoint import joint
from tracegrad.ir import Builder, Graph, Literal, Node
from tracegrad.ir.aval import has_gradient
from tracegrad.ops import control
from tracegrad.ops.elementwise import add
from tracegrad.ops.shape import broadcast


def constant_zeros(like: Any, shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
    return broadcast.beside(like, dtype.type(0), shape=tuple(shape), axes=())


def anchor(*values: Any) -> Any:
    """Return a value that belongs to the trace of the rule, to make constants beside."""
    return next((v for v in values if hasattr(v, "_trace")), None)


def pullback_of(graph: Graph, wanted: Sequence[int], given: Sequence[int]) -> Graph:
    """Return inputs, cotangents of the outputs `given` -> cotangents of the inputs `wanted`."""
    both = joint(graph, wanted, seeds=given, name=f"{graph.name}_pullback")
    builder = Builder(both.name)
    inputs = [builder.input(n.aval, both.names.get(n, ""), n.where) for n in both.inputs]
    outputs = builder.inline(both, inputs)
    return builder.finish(outputs[len(graph.outputs) :])


def floats(avals: Sequence[Any]) -> list[int]:
    return [i for i, a in enumerate(avals) if has_gradient(a)]


def cond_vjp(ct: Any, y: Any, index: Any, *operands: Any, branches: tuple[Graph, ...]) -> Any:
    """Run the pullback of the branch that was taken."""
    given = [i for i, c in enumerate(ct) if c is not None]
    wanted = floats([n.aval for n in branches[0].inputs])
    pulled = tuple(pullback_of(b, wanted, given) for b in branches)
    whole = control.cond(index, *operands, *(ct[i] for i in given), branches=pulled)
    found: list[Any] = [None] * len(operands)
    for position, i in enumerate(wanted):
        found[i] = control.item(whole, index=position)
    return (None, *found)


def scan_vjp(
    ct: Any, y: Any, *operands: Any, body: Graph, n_carry: int, n_xs: int, length: int, reverse: bool
) -> Any:
    """Run a scan over the slices in the other direction that pulls cotangents back through the body."""
    n_inputs, n_ys = len(body.inputs), len(body.outputs) - n_carry
    carried = floats([o.aval for o in body.outputs[:n_carry]])
    given_ys = [i for i in range(n_ys) if ct[n_carry + i] is not None]
    inputs_avals = [n.aval for n in body.inputs]
    xs_wanted = [i for i in floats(inputs_avals) if n_carry <= i < n_carry + n_xs]
    consts_wanted = [i for i in floats(inputs_avals) if i >= n_carry + n_xs]
    pulled = pullback_of(body, [*carried, *xs_wanted, *consts_wanted], [*carried, *(n_carry + i for i in given_ys)])
    saved = [i for i in range(n_carry) if reads(pulled, pulled.inputs[i])]
    carries = stacked_carries(operands, saved, body, n_carry, n_xs, length, reverse)
    step = backward_body(pulled, body, n_carry, n_xs, carried, saved, given_ys, len(xs_wanted), len(consts_wanted))
    like = anchor(*operands, *[c for c in ct if c is not None])
    first = [ct[i] if ct[i] is not None else zeros_like(like, body.outputs[i].aval) for i in carried]
    sums = [zeros_like(like, inputs_avals[i]) for i in consts_wanted]
    xs = [*carries, *operands[n_carry : n_carry + n_xs], *(ct[n_carry + i] for i in given_ys)]
    whole = control.scan(
        *first, *sums, *xs, *operands[n_carry + n_xs :],
        body=step, n_carry=len(first) + len(sums), n_xs=len(xs), length=length, reverse=not reverse,
    )  # fmt: skip
    found: list[Any] = [None] * n_inputs
    places = [*carried, *consts_wanted, *xs_wanted]
    for position, i in enumerate(places):
        found[i] = control.item(whole, index=position)
    return tuple(found)


def zeros_like(like: Any, aval: Any) -> Any:
    return constant_zeros(like, aval.shape, aval.dtype)


def reads(graph: Graph, node: Node) -> bool:
    return any(node in n.operands for n in graph.nodes) or node in graph.outputs


def stacked_carries(
    operands: Sequence[Any], saved: Sequence[int], body: Graph, n_carry: int, n_xs: int, length: int, reverse: bool
) -> list[Any]:
    """Run the forward scan once more (it is merged with the first one) and stack the carries each round starts from."""
    if not saved:
        return []
    outputs = (*body.outputs, *(body.inputs[i] for i in saved))
    recording = Graph(f"{body.name}_recording", body.inputs, body.nodes, outputs, body.names)
    whole = control.scan(*operands, body=recording, n_carry=n_carry, n_xs=n_xs, length=length, reverse=reverse)
    return [control.item(whole, index=len(body.outputs) + i) for i in range(len(saved))]


def backward_body(
    pulled: Graph, body: Graph, n_carry: int, n_xs: int, carried: Sequence[int], saved: Sequence[int],
    given_ys: Sequence[int], n_dx: int, n_dk: int,
) -> Graph:  # fmt: skip
    """Return (ct of carry, sums, saved carries, x, ct of y, consts) -> (ct of carry, sums, ct of x)."""
    builder = Builder(f"{body.name}_backward")
    avals = [n.aval for n in body.inputs]
    cts = [builder.input(body.outputs[i].aval, f"ct{i}") for i in carried]
    consts_wanted = pulled.outputs[len(carried) + n_dx :]
    sums = [builder.input(o.aval, f"sum{i}") for i, o in enumerate(consts_wanted)]
    kept = {i: builder.input(avals[i], f"carry{i}") for i in saved}
    xs = [builder.input(avals[n_carry + i], f"x{i}") for i in range(n_xs)]
    ct_ys = [builder.input(body.outputs[n_carry + i].aval, f"ct_y{i}") for i in given_ys]
    consts = [builder.input(a, f"const{i}") for i, a in enumerate(avals[n_carry + n_xs :])]
    blank = [kept.get(i) or unread(builder, avals[i]) for i in range(n_carry)]
    found = builder.inline(pulled, [*blank, *xs, *consts, *cts, *ct_ys])
    totals = [
        builder.add(add, [s, c], {}) for s, c in zip(sums, found[len(carried) + n_dx :], strict=True)
    ]
    assert len(totals) == n_dk
    return builder.finish([*found[: len(carried)], *totals, *found[len(carried) : len(carried) + n_dx]])


def unread(builder: Builder, aval: Any) -> Node:
    """Stand in for a carry that the pullback does not read."""
    return builder.add(broadcast, [Literal(aval.dtype.type(0).item(), aval.dtype)], {"shape": aval.shape, "axes": ()})


def while_vjp(ct: Any, y: Any, *operands: Any, condition: Graph, body: Graph) -> Any:
    raise GradientError(
        "while_loop: reverse mode through a loop of unknown length is not supported yet",
        fix="use tg.fori_loop with a static number of rounds, or tg.scan",
    )


control.RULES.update(cond=cond_vjp, scan=scan_vjp, while_loop=while_vjp)
