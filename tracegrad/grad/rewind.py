"""The vjp rule of `rewind`, the pullback of a loop over few saved carries: gradients of gradients keep every carry."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.grad.adjoint import Masked
from tracegrad.grad.control import anchor, floats, masks_of, pullback_of, selects
from tracegrad.inlining import inline
from tracegrad.ir import Aval, Builder, Graph
from tracegrad.ops import control
from tracegrad.ops.control import item, while_loop
from tracegrad.ops.rewind import rewind


def as_loops(operands: Any, advance: Graph, step: Graph, n_carry: int) -> Graph:
    """Return the same value in two loops: one leaves all carries on tapes, the other one walks back over them."""
    builder = Builder(step.name)
    inputs = [builder.input(o) for o in operands]
    rounds, carry, sums, consts = rewind.parts(tuple(inputs), step, n_carry)
    outputs = (*advance.outputs, *advance.inputs[:n_carry])
    recording = Graph(f"{advance.name}_recording", advance.inputs, advance.nodes, outputs, advance.names)
    forward = {"condition": None, "body": recording, "n_carry": n_carry, "n_xs": 0, "reverse": False}
    recorded = builder.add(while_loop, [rounds, *carry, *consts], forward)
    tapes = [builder.add(item, [recorded], {"index": n_carry + 1 + i}) for i in range(n_carry)]
    back = {"condition": None, "body": step, "n_carry": len(sums), "n_xs": n_carry, "reverse": True}
    whole = builder.add(while_loop, [rounds, *sums, *tapes, *consts], back)
    return builder.finish([builder.add(item, [whole], {"index": i}) for i in range(len(sums))])


def rewind_vjp(ct: Any, y: Any, *operands: Any, advance: Graph, step: Graph, n_carry: int, slots: int) -> Any:
    """Pull back through the two loops."""
    n_sums = len(step.outputs)
    inputs = [*advance.inputs[:n_carry], *step.inputs[:n_sums], *advance.inputs[n_carry:]]
    avals = [Aval((), np.dtype(np.int64)), *(n.aval for n in inputs)]
    loops = as_loops(avals, advance, step, n_carry)
    given, wanted = [i for i, c in enumerate(ct) if c is not None], floats(avals)
    masks = masks_of(ct, given, anchor(*operands, *(ct[i] for i in given)), selects(step, step.inputs[:n_sums]))
    graph = pullback_of(loops, wanted, given, masked=bool(masks))
    pulled = inline(graph, [*operands, *(ct[i] for i in given), *masks])
    found: list[Any] = [None] * len(operands)
    for position, i in enumerate(wanted):
        found[i] = Masked(pulled[position], pulled[len(wanted) + position]) if masks else pulled[position]
    return tuple(found)


control.RULES.update(rewind=rewind_vjp)
