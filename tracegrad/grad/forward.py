"""Forward mode. One walk serves both kinds of value: on tracers it writes the tangents' graph, on arrays it computes
them.

No primitive declares a tangent rule that follows from what it declares anyway:

    element-wise    the Jacobian is diagonal, so its transpose is the Jacobian: the vjp rule applied to each
    operand's tangent linear          the primitive itself, applied to the tangents; an operand without one is zero
    contraction     bilinear: op(ta, b) + op(a, tb)
    control flow    the graphs in its parameters are pushed forward; carries, slices and constants come with their
    tangents

Everything else has a `jvp` in its declaration. A tangent that is zero throughout is None and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracegrad.errors import GradientError
from tracegrad.grad.adjoint import as_tuple, zeros
from tracegrad.grad.custom import custom_jvp
from tracegrad.ir import Builder, Graph, Literal, Node, Operand, Primitive
from tracegrad.ir.aval import Aval, has_gradient
from tracegrad.ops import control
from tracegrad.ops.custom import custom
from tracegrad.ops.elementwise import stop_gradient, where
from tracegrad.ops.rewind import rewind
from tracegrad.ops.shape import broadcast
from tracegrad.trace import Trace, new_trace

Tangents = Sequence[Any]


# --- rules ------------------------------------------------------------------------------------------------------------
def elementwise_rule(node: Node, ts: Tangents, y: Any, operands: Sequence[Any]) -> Any:
    """Sum what the vjp rule gives for each tangent in the place of its own operand."""
    total = None
    for position, t in enumerate(ts):
        if t is None:
            continue
        if t.shape != node.shape:
            t = broadcast(t, shape=node.shape, axes=())
        part = as_tuple(node.prim.vjp(t, y, *operands, **node.params), len(operands))[position]
        if part is not None:
            total = part if total is None else total + part
    return total


def linear_rule(node: Node, ts: Tangents, y: Any, operands: Sequence[Any]) -> Any:
    """Apply the primitive to the tangents; what is not floating point (indices, conditions) stays."""
    like = next(t for t in ts if t is not None)
    moved = []
    for t, operand, value in zip(ts, node.operands, operands, strict=True):
        if t is not None:
            moved.append(t)
        elif not has_gradient(operand.aval):
            moved.append(value)
        else:
            moved.append(operand.dtype.type(0) if isinstance(operand, Literal) else zeros(operand.aval, like))
    return node.prim(*moved, **node.params)


def bilinear_rule(node: Node, ts: Tangents, y: Any, operands: Sequence[Any]) -> Any:
    total = None
    for position, t in enumerate(ts):
        if t is not None:
            part = node.prim(*operands[:position], t, *operands[position + 1 :], **node.params)
            total = part if total is None else total + part
    return total


def tangent_of(node: Node, ts: Tangents, y: Any, operands: Sequence[Any]) -> Any:
    """Return the tangent of one application, or None where it is zero."""
    prim = node.prim
    if prim is stop_gradient or not has_gradient(node.aval) or all(t is None for t in ts):
        return None
    if type(prim).jvp is not Primitive.jvp:
        return prim.jvp(tuple(ts), y, *operands, **node.params)
    if prim is where or (prim.linear and prim.kind != "elementwise"):
        return linear_rule(node, ts, y, operands)
    if prim.kind == "elementwise":
        return elementwise_rule(node, ts, y, operands)
    if prim.kind == "contract":
        return bilinear_rule(node, ts, y, operands)
    raise GradientError(
        f"{prim.name} has no forward-mode rule (used at {node.where})",
        fix="use reverse mode, or wrap its operand in tg.stop_gradient if no tangent is wanted",
    )


# --- control flow -----------------------------------------------------------------------------------------------------
def moving(graph: Graph, wrt: Sequence[int]) -> list[int]:
    """Return the outputs that may have a tangent when the inputs `wrt` have one."""
    reached = {graph.inputs[i] for i in wrt}
    for node in graph.nodes:
        if has_gradient(node.aval) and node.prim is not stop_gradient and any(o in reached for o in node.nodes()):
            reached.add(node)
    return [i for i, o in enumerate(graph.outputs) if isinstance(o, Node) and o in reached]


@dataclass(frozen=True)
class Moved:
    """A control-flow application with its tangents: where the primal and the tangent of each part stand in its
    result."""

    whole: Any
    primal: Sequence[int]
    tangent: Mapping[int, int]

    def value(self, part: int) -> Any:
        return control.item(self.whole, index=self.primal[part])

    def direction(self, part: int) -> Any:
        return control.item(self.whole, index=self.tangent[part]) if part in self.tangent else None


def move_cond(node: Node, ts: Tangents, operands: Sequence[Any]) -> Moved:
    """Push every branch forward."""
    branches: tuple[Graph, ...] = node.params["branches"]
    index, *rest = operands
    wrt = [i for i, t in enumerate(ts[1:]) if t is not None]
    keep = sorted({i for b in branches for i in moving(b, wrt)})
    pushed = tuple(pushforward(b, wrt, keep) for b in branches)
    whole = control.cond(index, *rest, *(ts[1 + i] for i in wrt), branches=pushed)
    n = len(branches[0].outputs)
    return Moved(whole, range(n), {i: n + k for k, i in enumerate(keep)})


@dataclass(frozen=True)
class MovedBody:
    """The body of a loop with its tangents, its inputs and outputs sorted into carries, slices and constants again."""

    graph: Graph
    carried: list[int]
    """which carries have a tangent"""
    given: list[int]
    """which further results have one, counted from the first one after the carries"""

    @classmethod
    def of(cls, body: Graph, n_carry: int, n_xs: int, ts: Tangents) -> MovedBody:
        """`ts` are the tangents of carry, slices and constants. A carry moves when a round makes it move."""
        n, rest = len(body.inputs), [i for i, t in enumerate(ts) if t is not None and i >= n_carry]
        carried = [i for i, t in enumerate(ts[:n_carry]) if t is not None]
        while True:
            found = moving(body, [*carried, *rest])
            again = sorted({*carried, *(i for i in found if i < n_carry)})
            if again == carried:
                break
            carried = again
        given = [i - n_carry for i in found if i >= n_carry]
        pushed = pushforward(body, [*carried, *rest], [*carried, *(n_carry + i for i in given)])
        tangent = dict(zip([*carried, *rest], pushed.inputs[n:], strict=True))
        groups = (range(n_carry), range(n_carry, n_carry + n_xs), range(n_carry + n_xs, n))
        inputs = tuple(
            node
            for group in groups
            for node in (*(pushed.inputs[i] for i in group), *(tangent[i] for i in group if i in tangent))
        )
        outs, n_out = pushed.outputs, len(body.outputs)
        split = n_out + len(carried)
        outputs = (*outs[:n_carry], *outs[n_out:split], *outs[n_carry:n_out], *outs[split:])
        return cls(Graph(pushed.name, inputs, pushed.nodes, outputs, pushed.names), carried, given)

    def places(self, n_carry: int, n_ys: int, gap: int = 0) -> tuple[list[int], dict[int, int]]:
        """Return where primals and tangents of a loop's parts stand; `gap` parts come between carries and the rest."""
        wide = n_carry + len(self.carried)
        primal = [*range(n_carry), *(wide + i for i in range(gap + n_ys))]
        tangent = {i: n_carry + k for k, i in enumerate(self.carried)}
        tangent |= {n_carry + gap + i: wide + gap + n_ys + k for k, i in enumerate(self.given)}
        return primal, tangent


def loop_operands(
    moved: MovedBody, n_carry: int, n_xs: int, ts: Tangents, operands: Sequence[Any], avals: Sequence[Aval]
) -> tuple[list[Any], list[Any], list[Any]]:
    """Return carries, slices and constants, each followed by their tangents."""
    like = next(t for t in ts if t is not None)
    first = [ts[i] if ts[i] is not None else zeros(avals[i], like) for i in moved.carried]
    ends = n_carry + n_xs
    xs = [*operands[n_carry:ends], *(t for t in ts[n_carry:ends] if t is not None)]
    consts = [*operands[ends:], *(t for t in ts[ends:] if t is not None)]
    return [*operands[:n_carry], *first], xs, consts


def move_scan(node: Node, ts: Tangents, operands: Sequence[Any]) -> Moved:
    """Scan with the tangents beside carries, slices and constants."""
    body, n_carry, n_xs = node.params["body"], node.params["n_carry"], node.params["n_xs"]
    moved = MovedBody.of(body, n_carry, n_xs, ts)
    carry, xs, consts = loop_operands(moved, n_carry, n_xs, ts, operands, [n.aval for n in body.inputs])
    params = {**node.params, "body": moved.graph, "n_carry": len(carry), "n_xs": len(xs)}
    whole = control.scan(*carry, *xs, *consts, **params)
    return Moved(whole, *moved.places(n_carry, len(body.outputs) - n_carry))


def move_while(node: Node, ts: Tangents, operands: Sequence[Any]) -> Moved:
    """The same loop with tangents beside carries, tapes and constants; its condition does not look at them."""
    condition, body = node.params["condition"], node.params["body"]
    n_carry, n_xs = node.params["n_carry"], node.params["n_xs"]
    rounds = () if condition is not None else (operands[0],)
    ts, operands = ts[len(rounds) :], operands[len(rounds) :]
    moved = MovedBody.of(body, n_carry, n_xs, ts)
    carry, xs, consts = loop_operands(moved, n_carry, n_xs, ts, operands, [n.aval for n in body.inputs])
    if condition is not None:
        condition = widened(condition, n_carry, [c.aval for c in moved.graph.inputs], len(carry))
    params = {**node.params, "condition": condition, "body": moved.graph, "n_carry": len(carry), "n_xs": len(xs)}
    whole = control.while_loop(*rounds, *carry, *xs, *consts, **params)
    return Moved(whole, *moved.places(n_carry, len(body.outputs) - n_carry, gap=1))


def move_rewind(node: Node, ts: Tangents, operands: Sequence[Any]) -> Moved:
    """The same with tangents beside carries, sums and constants: both graphs are pushed forward."""
    advance, step, n_carry = node.params["advance"], node.params["step"], node.params["n_carry"]
    n_sums = len(step.outputs)
    ends = n_carry + n_sums
    carry_ts, sum_ts, const_ts = ts[1 : 1 + n_carry], ts[1 + n_carry : 1 + ends], ts[1 + ends :]
    ahead = MovedBody.of(advance, n_carry, 0, [*carry_ts, *const_ts])
    rows = [carry_ts[i] if i in ahead.carried else None for i in range(n_carry)]
    like = next(t for t in ts if t is not None)
    rows = [zeros(advance.inputs[i].aval, like) if i in ahead.carried and t is None else t for i, t in enumerate(rows)]
    back = MovedBody.of(step, n_sums, n_carry, [*sum_ts, *rows, *const_ts])
    avals = [n.aval for n in step.inputs]
    order = [*operands[1 + n_carry : 1 + ends], *operands[1 : 1 + n_carry], *operands[1 + ends :]]
    sums, carry, consts = loop_operands(back, n_sums, n_carry, [*sum_ts, *rows, *const_ts], order, avals)
    params = {**node.params, "advance": ahead.graph, "step": back.graph, "n_carry": len(carry)}
    whole = rewind(operands[0], *carry, *sums, *consts, **params)
    return Moved(whole, *back.places(n_sums, 0))


def widened(condition: Graph, n_carry: int, avals: Sequence[Aval], wide: int) -> Graph:
    """Give a condition inputs for the tangents, which it does not read."""
    builder = Builder(condition.name)
    inputs = [builder.input(a) for a in avals]
    n_consts = len(condition.inputs) - n_carry
    return builder.finish(builder.inline(condition, [*inputs[:n_carry], *inputs[wide : wide + n_consts]]))


@dataclass(frozen=True)
class MovedCustom:
    """A function with a gradient of its own, with the tangents of its results."""

    whole: Any
    tangents: Sequence[Any]

    def value(self, part: int) -> Any:
        return control.item(self.whole, index=part)

    def direction(self, part: int) -> Any:
        return self.tangents[part]


def move_custom(node: Node, ts: Tangents, operands: Sequence[Any]) -> MovedCustom:
    whole = custom(*operands, **node.params)
    return MovedCustom(whole, custom_jvp(node, ts, whole, operands))


MOVES: dict[Primitive, Callable[[Node, Tangents, Sequence[Any]], Moved | MovedCustom]] = {
    control.cond: move_cond,
    control.scan: move_scan,
    control.while_loop: move_while,
    custom: move_custom,
    rewind: move_rewind,
}


# --- the walk ---------------------------------------------------------------------------------------------------------
class Walk:
    """Values and tangents of the nodes so far. Values that are not given are computed in `trace` on the way."""

    def __init__(self, values: dict[Node, Any], tangents: dict[Node, Any], trace: Trace | None = None):
        self.values = values
        self.tangents = tangents
        self.trace = trace
        self.moved: dict[Node, Moved | MovedCustom] = {}

    def value(self, operand: Operand) -> Any:
        return operand.dtype.type(operand.value) if isinstance(operand, Literal) else self.values[operand]

    def visit(self, node: Node) -> None:
        if self.trace is not None:
            self.trace.line = node.where
        if node.prim is control.item:
            self.part(node)
            return
        ts = [self.tangents.get(o) if isinstance(o, Node) else None for o in node.operands]
        if node.prim in MOVES and any(t is not None for t in ts):
            self.moved[node] = MOVES[node.prim](node, ts, [self.value(o) for o in node.operands])
            return
        operands = [self.value(o) for o in node.operands]
        if node not in self.values:
            assert self.trace is not None
            self.values[node] = self.trace.bind(node.prim, operands, dict(node.params), node.where)
        t = tangent_of(node, ts, self.values[node], operands)
        if t is not None:
            self.tangents[node] = t

    def part(self, node: Node) -> None:
        """Take one part out of a control-flow result, and out of its tangents."""
        (source,) = node.nodes()
        moved, index = self.moved.get(source), node.params["index"]
        if node not in self.values:
            self.values[node] = moved.value(index) if moved else control.item(self.values[source], index=index)
        t = moved.direction(index) if moved else None
        if t is not None:
            self.tangents[node] = t


def push(
    nodes: Sequence[Node], tangents: Mapping[Node, Any], outputs: Sequence[Operand], values: Mapping[Node, Any]
) -> list[Any]:
    """Push tangents of inputs forward to `outputs` over nodes whose values are known; None where a tangent is zero."""
    walk = Walk(dict(values), dict(tangents))
    for node in nodes:
        walk.visit(node)
    return [walk.tangents.get(o) if isinstance(o, Node) else None for o in outputs]


def pushforward(graph: Graph, wrt: Sequence[int], keep: Sequence[int] | None = None) -> Graph:
    """Return the graph of values and tangents.

    Its inputs are the graph's, then tangents of the inputs `wrt`; its outputs the graph's, then tangents of the outputs
    `keep` (by default all floating-point ones).
    """
    kept = [i for i, o in enumerate(graph.outputs) if has_gradient(o.aval)] if keep is None else keep
    with new_trace(f"{graph.name}_pushforward") as trace:
        inputs = [trace.input(n.aval, graph.names.get(n, ""), where=n.where) for n in graph.inputs]
        walk = Walk(dict(zip(graph.inputs, inputs, strict=True)), {}, trace)
        for i in wrt:
            node = graph.inputs[i]
            walk.tangents[node] = trace.input(node.aval, f"t_{graph.names.get(node, str(i))}", where=node.where)
        for node in graph.nodes:
            walk.visit(node)
        trace.line = None
        found = [walk.value(o) if isinstance(o, Node) else o for o in graph.outputs]
        for i in kept:
            output = graph.outputs[i]
            t = walk.tangents.get(output) if isinstance(output, Node) else None
            found.append(t if t is not None else trace.bind(broadcast, [output.dtype.type(0)], flat(output.aval)))
        return trace.builder.finish([trace.lift(v) for v in found])


def flat(aval: Aval) -> dict[str, Any]:
    return {"shape": aval.shape, "axes": ()}


__all__ = ["push", "pushforward"]
