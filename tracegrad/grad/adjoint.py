"""Reverse mode. One walk serves both kinds of value: on tracers it writes the adjoint graph, on arrays it pulls back.

Masks keep NaN out of `where`'s gradient. Where a value is used only by the branch of a `where`, its cotangent is zero
wherever the other branch was taken; but zero times an infinite derivative is NaN. So every node carries the mask under
which its value matters (the `or` over its users; none means everywhere), and the cotangents that a non-linear rule of
an element-wise primitive gives are selected by it. This is exact at every order, because outside the mask the cotangent
is zero by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from tracegrad.errors import GradientError
from tracegrad.grad.sums import joined
from tracegrad.inlining import copied
from tracegrad.ir import Aval, Builder, Graph, Literal, Node, Operand
from tracegrad.ir.aval import Avals, TapeAval, has_gradient, is_half
from tracegrad.ops.control import item
from tracegrad.ops.custom import Rule, custom
from tracegrad.ops.elementwise import bitwise_and as both
from tracegrad.ops.elementwise import bitwise_or, convert, not_equal, where
from tracegrad.ops.reduce import kept
from tracegrad.ops.shape import broadcast
from tracegrad.record import record
from tracegrad.trace import Trace, Tracer, new_trace


def zeros(aval: Aval, like: Any) -> Any:
    """Return zeros of `aval` where `like` lives: a broadcast scalar."""
    return broadcast.beside(like, aval.dtype.type(0), shape=aval.shape, axes=())


def active_nodes(nodes: Sequence[Node], wrt: Sequence[Node], outputs: Sequence[Operand]) -> set[Node]:
    """Return the nodes through which a gradient flows from the outputs to `wrt`."""
    reached: set[Node] = {n for n in wrt if has_gradient(n.aval)}
    for node in nodes:
        if has_gradient(node.aval) and node.prim.name != "stop_gradient" and any(o in reached for o in node.nodes()):
            reached.add(node)
    needed: set[Node] = {o for o in outputs if isinstance(o, Node)}
    for node in reversed(nodes):
        if node in needed and node in reached:
            needed.update([o for o in node.operands if type(o) is Node and o in reached])
    return reached & needed


class Special:
    """What a rule may give instead of a cotangent."""


@record
class Refusal(Special):
    """What a rule gives for an operand whose cotangent it cannot know: an error, if the gradient needs it."""

    message: str
    fix: str


class Values:
    """What the nodes of a graph are, as the walk asks for it: tracers or arrays by node. The tape has its own.

    `stored` are the nodes in half precision that hold results without loss: rules read these, and need no others.
    """

    __slots__ = ("found", "stored")

    def __init__(self, found: Mapping[Node, Any], stored: Mapping[Node, Node] | None = None):
        self.found = found
        self.stored = stored or {}

    def operands(self, node: Any) -> list[Any]:
        return [self.found[o] if isinstance(o, Node) else o.dtype.type(o.value) for o in node.operands]

    def result(self, node: Any) -> Any:
        stored = self.stored.get(node)
        return self.found[node] if stored is None else convert(self.found[stored], dtype=node.dtype)

    def ready(self, node: Any) -> None:
        """Called before the rule of a node is applied."""

    def rule(self, node: Any, needed: Sequence[bool], ct: Any) -> Any:
        """Apply the rule of a node."""
        return node.prim.vjp_of(needed, ct, self.result(node), *self.operands(node), **node.params)


class Parts(tuple[Any, ...]):
    """The cotangents of the parts of a control-flow result (None: nothing reads it), and the masks under which they
    matter (None: always)."""

    masks: tuple[Any, ...] = ()


@record
class Masked(Special):
    """What a control-flow rule gives for an operand that matters under a mask only."""

    ct: Any
    mask: Any


class Masks:
    """For each active node, the condition under which its value matters; absent means always.

    A control-flow result has one for each of its parts, under (node, index). Its rule hands them on to the operands.
    """

    def __init__(self) -> None:
        self.found: dict[Any, Any] = {}
        self.always: set[Any] = set()

    def add(self, node: Any, mask: Any | None) -> None:
        aval = node[0].aval.parts[node[1]] if isinstance(node, tuple) else node.aval
        if mask is None or (node in self.found and isinstance(aval, TapeAval)):
            self.always.add(node)
            self.found.pop(node, None)
        elif node not in self.always:
            held = self.found.get(node)
            self.found[node] = mask if held is None else held if held is mask else bitwise_or(held, mask)

    def visit(self, node: Node, active: Container[Any], values: Values) -> None:
        """Pass the mask of `node` on to its operands."""
        mask = self.found.get(node)
        if node.prim is item:
            self.add((node.operands[0], node.params["index"]), mask)
            return
        if node.prim.kind == "control":
            return
        for position, operand in enumerate(node.operands):
            if operand not in active or isinstance(operand, Literal):
                continue
            if node.prim is where and operand.shape == node.shape:
                condition = self.condition(node, values)
                if condition is not None:
                    taken = condition if position == 1 else condition ^ True
                    self.add(operand, taken if mask is None else both(mask, taken))
                    continue
            self.add(operand, self.through(node, position, mask, values))

    def part(self, node: Node, index: int) -> Any | None:
        """Return the mask of one part of a control-flow result."""
        return self.found.get((node, index))

    @staticmethod
    def condition(node: Node, values: Values) -> Any | None:
        if isinstance(node.operands[0], Literal):
            return None
        first = values.operands(node)[0]
        return first if tuple(first.shape) == node.shape else None

    @staticmethod
    def through(node: Node, position: int, mask: Any | None, values: Values) -> Any | None:
        """Return the mask of one operand of `node`, or None when it cannot be told."""
        operand = node.operands[position]
        if mask is None or isinstance(operand, Literal):
            return None
        if node.prim.kind == "elementwise" and operand.shape == node.shape:
            return mask
        if node.prim.kind == "reduce":
            return broadcast(mask, shape=operand.shape, axes=kept(len(operand.shape), node.params["axes"]))
        if node.prim.linear and node.prim.kind not in ("elementwise", "item"):
            ct = convert(mask, dtype=node.dtype)
            operands = values.operands(node)
            back = as_tuple(node.prim.vjp(ct, ct, *operands, **node.params), len(operands))[position]
            return None if back is None else not_equal(back, back.dtype.type(0))
        return None


def as_tuple(found: Any, length: int) -> tuple[Any, ...]:
    """Return what a rule gives as one cotangent per operand; None alone means that no operand has a gradient."""
    if found is None:
        return (None,) * length
    each = found if isinstance(found, tuple) else (found,)
    assert len(each) == length, f"a rule gives {len(each)} cotangents for {length} operands"
    return each


def pullback(
    nodes: Sequence[Node],
    wrt: Sequence[Node],
    outputs: Sequence[Operand],
    cts: Sequence[Any],
    values: Mapping[Node, Any],
    trace: Trace | None = None,
    masks: Masks | None = None,
) -> list[Any]:
    """Pull the cotangents of `outputs` back to `wrt`; `values` holds what every node is (tracers or arrays).

    A missing cotangent (None in `cts`) counts as zero; a gradient that does not depend on the outputs comes back as
    zeros. The nodes that rules add to `trace` carry the user's line of the node whose rule it is.
    """
    active = active_nodes(nodes, wrt, outputs)
    seeds = [(o, ct) for o, ct in zip(outputs, cts, strict=True) if isinstance(o, Node) and o in active]
    enter = None if trace is None else partial(set_line, trace)
    known = Values(values, stored_results(nodes))
    found = walk(nodes, active, [(o, ct) for o, ct in seeds if ct is not None], known, enter, masks=masks)
    if trace is not None:
        trace.line = None
    return [found[n] if n in found else zeros(n.aval, values[n]) for n in wrt]


def stored_results(nodes: Sequence[Node]) -> dict[Node, Node]:
    """Map what picks among half-precision operands to the nodes that store it in their dtype again."""
    found: dict[Node, Node] = {}
    for node in nodes:
        source = node.operands[0] if node.prim is convert and is_half(node.dtype) else None
        if isinstance(source, Node) and source.prim.picks:
            widened = [o for o in source.nodes() if o.prim is convert and o.operands[0].dtype == node.dtype]
            if len(widened) == len(source.operands):
                found[source] = node
    return found


def set_line(trace: Trace, node: Any, ct: Any) -> Any:
    """Give what the rule of `node` adds to the trace the node's line."""
    trace.line = node.where
    return ct


def walk(
    nodes: Sequence[Any],
    active: Container[Any],
    seeds: Iterable[tuple[Any, Any]],
    values: Any,
    enter: Callable[[Any, Any], Any] | None = None,
    leave: Callable[[Any], None] | None = None,
    masks: Masks | None = None,
) -> dict[Any, Any]:
    """Apply the rules of `nodes` (operands first) from last to first, and return the cotangents that are left over.

    `enter(node, ct)` sees each cotangent once it is complete, and returns the one to go on with; `leave(node)` follows
    when the rule has been applied. `values` is asked for operands and results: see `Values`. `masks` holds those of the
    seeds, if some do not always matter.
    """
    seeded = masks is not None
    if masks is None and any(node.prim is where for node in nodes):
        masks = Masks()
    found: dict[Any, Any] = {}
    for output, ct in seeds:
        found[output] = joined(output, found[output], ct, values) if output in found else ct
        if masks is not None and not seeded:
            masks.add(output, None)
    for node in reversed(nodes):
        if node not in found or node not in active:
            continue
        if enter is not None:
            found[node] = enter(node, found[node])
        needed = [o in active for o in node.operands]
        if True not in needed:  # the walk was for this node, and ends here
            continue
        values.ready(node)
        if masks is not None:
            masks.visit(node, active, values)
        if node.prim is item:
            give_part(found, node)
            continue
        ct = found.pop(node)
        try:
            cts = values.rule(node, needed, ct if type(node.aval) is not Avals else whole_ct(node, ct, masks))
        except NotImplementedError:
            raise no_rule(node) from None
        if type(cts) is not tuple:
            cts = as_tuple(cts, len(node.operands))
        for operand, ct, wanted in zip(node.operands, cts, needed, strict=True):
            if not wanted or ct is None:
                continue
            if masks is not None:
                ct = selected(node, operand, ct, masks)
            elif isinstance(ct, Special):
                ct = taken(node, ct)
            found[operand] = joined(operand, found[operand], ct, values) if operand in found else ct
        if leave is not None:
            leave(node)
    return found


def taken(node: Any, ct: Any) -> Any:
    """Return the cotangent that a rule gives beside other things; refuse if there is none."""
    if isinstance(ct, Refusal):
        raise GradientError(ct.message, fix=ct.fix, where=node.where)
    return ct.ct if isinstance(ct, Masked) else ct


def selected(node: Any, operand: Any, ct: Any, masks: Masks) -> Any:
    """Return a cotangent where the operand matters, 0 elsewhere; note under which mask a control-flow operand does."""
    ct_alone = taken(node, ct)
    if node.prim.kind == "control":
        masks.add(operand, ct.mask if isinstance(ct, Masked) else None)
    if node.prim.kind != "elementwise" or node.prim.linear or operand.shape != node.shape:
        return ct_alone
    mask = masks.found.get(node)
    return ct_alone if mask is None else where(mask, ct_alone, 0.0)


def give_part(found: dict[Any, Any], node: Any) -> None:
    """Put the cotangent of one part of a control-flow result beside those of the other parts."""
    (source,) = node.operands
    parts = found.setdefault(source, {})
    index = node.params["index"]
    ct = found.pop(node)
    parts[index] = ct if index not in parts else parts[index] + ct


def whole_ct(node: Node, ct: Any, masks: Masks | None) -> Any:
    """Return the cotangents of all parts of a control-flow result."""
    assert isinstance(node.aval, Avals)
    n = len(node.aval.parts)
    parts = Parts(ct.get(i) for i in range(n))
    parts.masks = tuple(masks.part(node, i) if masks is not None else None for i in range(n))
    return parts


def no_rule(node: Any) -> GradientError:
    return GradientError(
        f"{node.prim.name} has no gradient (used at {node.where})",
        fix="wrap its operand in tg.stop_gradient if no gradient is wanted",
    )


def replay(
    graph: Graph, trace: Trace, inputs: Sequence[Any], wrt: Sequence[Node] | None = None
) -> dict[Node, Any]:
    """Add the nodes of `graph` to `trace`, keeping the user's lines; return the tracer of every node.

    What a gradient of the outputs by `wrt` (by default: all inputs) flows through is about to be differentiated.
    """
    values: dict[Node, Any] = dict(zip(graph.inputs, inputs, strict=True))
    if all(node.prim is not custom for node in graph.nodes):
        found = copied(graph, trace, inputs)
        if found is not None:
            return found
    active = active_nodes(graph.nodes, graph.inputs if wrt is None else wrt, graph.outputs)
    for node in graph.nodes:
        operands = [values[o] if isinstance(o, Node) else o.dtype.type(o.value) for o in node.operands]
        values[node] = trace.bind(node.prim, operands, differentiated(node, active), node.where)
    return values


def differentiated(node: Node, active: set[Node]) -> dict[str, Any]:
    """Return the parameters of a node; one with its own gradient computes as its rule does, to share work."""
    rule = node.params.get("rule") if node.prim is custom and node in active else None
    return {**node.params, "body": rule.primal} if isinstance(rule, Rule) and rule.primal else dict(node.params)


def joint(
    graph: Graph, wrt: Sequence[int], *, seeds: Sequence[int] | None = None, name: str = "", masked: bool = False
) -> Graph:
    """Return the joint graph.

    Its inputs are the graph's, then cotangents of the outputs `seeds`; its outputs the graph's, then cotangents of the
    inputs `wrt`.

    Without `seeds`, the first output is a scalar whose cotangent is the literal 1. With `masked`, the masks under which
    the seeds matter are further inputs, and those under which the inputs `wrt` matter further outputs.
    """
    with new_trace(name or f"{graph.name}_adjoint") as trace:
        inputs = [trace.input(n.aval, graph.names.get(n, ""), where=n.where) for n in graph.inputs]
        targets = [graph.inputs[i] for i in wrt]
        values = replay(graph, trace, inputs, targets)
        cts: list[Any] = [None] * len(graph.outputs)
        if seeds is None:
            cts[0] = Tracer(trace, Literal(1.0, graph.outputs[0].dtype))
        else:
            for position in seeds:
                cts[position] = trace.input(graph.outputs[position].aval, f"ct{position}")
        masks = seed_masks(graph, seeds or (), trace) if masked else None
        gradients = pullback(graph.nodes, targets, graph.outputs, cts, values, trace, masks)
        outputs = [values[o] if isinstance(o, Node) else o for o in graph.outputs]
        found = [] if masks is None else [mask_of(masks, n, values[n]) for n in targets]
        assert not trace.captures, "a gradient rule has made an array of NumPy's: the graph would have one more input"
        return trace.builder.finish([trace.lift(v) for v in (*outputs, *gradients, *found)])


def seed_masks(graph: Graph, seeds: Sequence[int], trace: Trace) -> Masks:
    """Add an input for the mask of each seed."""
    masks = Masks()
    for position in seeds:
        output = graph.outputs[position]
        mask = trace.input(output.aval.with_dtype(np.bool_), f"mask{position}")
        if isinstance(output, Node):
            masks.add(output, mask)
    return masks


def mask_of(masks: Masks, node: Node, like: Any) -> Any:
    """Return the mask of an input as an array: true throughout if it always matters, false if it never does."""
    found = masks.found.get(node)
    return found if found is not None else flag(node in masks.always, node.shape, like)


def flag(value: bool, shape: Sequence[int], like: Any) -> Any:
    """Return a mask that is the same everywhere."""
    return broadcast.beside(like, np.bool_(value), shape=tuple(shape), axes=())


__all__ = ["Builder", "Literal", "active_nodes", "joint", "pullback", "replay", "zeros"]
