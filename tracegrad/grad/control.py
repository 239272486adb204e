"""Reverse mode through control flow: vjp rules that differentiate the graphs in the parameters.

scan      c', y = f(c, x, k):  a first scan also stacks the carries that the pullback reads; a second one runs from
the last slice
          to the first, carries the cotangent of c and the sum of those of k, and stacks those of x.
while     the same with tapes in place of stacked arrays, because the number of rounds is not known before.
cond      the pullback of each branch is a branch of a second cond.

The pullback of a body computes the body again from its inputs: between forward and backward only carries are kept, and
what costs more to compute than to load (matrix products, convolutions, sorts), or takes less memory than the carries
(elements of an array that a loop fills, also in a loop inside: `grad.inner_loops`).

Where results pass a `where`, the masks under which they matter (`adjoint.Masks`) go the way of their cotangents: into
the pullback of a branch or body, from round to round beside the cotangents of the carries, or-ed over the rounds
beside the sums of those of the constants, and out again to the operands.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tracegrad.grad.adjoint import Masked, flag, joint
from tracegrad.grad.inner_loops import keep_inner_loops
from tracegrad.grad.sums import added
from tracegrad.ir import Builder, Graph, Literal, Node, Operand
from tracegrad.ir.aval import has_gradient
from tracegrad.ir.build import mapped
from tracegrad.ops import control
from tracegrad.ops.elementwise import bitwise_or, where
from tracegrad.ops.rewind import rewind
from tracegrad.ops.shape import broadcast

COSTLY = ("contract", "opaque")
"""Kinds of primitives whose results in a loop body are kept for the pullback."""


SMALL = 4
"""What is at most one so-many-th of the array that it is read from is kept, so that the array need not be."""


def is_small_part(node: Node) -> bool:
    """Say whether a node reads a small part of an array: `y[i]` in a loop that fills y."""
    return node.prim.kind == "gather" and SMALL * node.aval.size <= node.operands[0].aval.size


def constant_zeros(like: Any, shape: Sequence[int], dtype: np.dtype[Any]) -> Any:
    return broadcast.beside(like, dtype.type(0), shape=tuple(shape), axes=())


def anchor(*values: Any) -> Any:
    """Return a value that belongs to the trace of the rule, to make constants beside."""
    return next((v for v in values if hasattr(v, "_trace")), None)


def pullback_of(
    graph: Graph, wanted: Sequence[int], given: Sequence[int], kept: Sequence[Node] = (), *, masked: bool = False
) -> Graph:
    """Return inputs, values of the nodes `kept`, cotangents of the outputs `given` -> cotangents of the inputs
    `wanted`. With `masked`, the masks of the outputs come last, and those of the inputs."""
    whole = Graph(graph.name, graph.inputs, graph.nodes, (*graph.outputs, *kept), graph.names)
    both = joint(whole, wanted, seeds=given, name=f"{graph.name}_pullback", masked=masked)
    n_in, n_out = len(graph.inputs), len(graph.outputs)
    builder = Builder(both.name)

    def take(nodes: Sequence[Node]) -> list[tuple[Node, Operand]]:
        return [(n, builder.input(n.aval, both.names.get(n, ""), n.where)) for n in nodes]

    values = [n for n in both.outputs[n_out : n_out + len(kept)] if isinstance(n, Node)]
    assert len(values) == len(kept), "a kept value became a literal"
    here: dict[Node, Operand] = dict([*take(both.inputs[:n_in]), *take(values), *take(both.inputs[n_in:])])
    for node in both.nodes:
        if node not in here:
            here[node] = builder.add(node.prim, [mapped(here, o) for o in node.operands], node.params, node.where)
    return builder.finish([mapped(here, o) for o in both.outputs[n_out + len(kept) :]])


def floats(avals: Sequence[Any]) -> list[int]:
    return [i for i, a in enumerate(avals) if has_gradient(a)]


def cond_vjp(ct: Any, y: Any, index: Any, *operands: Any, branches: tuple[Graph, ...]) -> Any:
    """Run the pullback of the branch that was taken."""
    given = [i for i, c in enumerate(ct) if c is not None]
    wanted = floats([n.aval for n in branches[0].inputs])
    forced = any(selects(b, b.inputs) for b in branches)
    masks = masks_of(ct, given, anchor(*operands, *(ct[i] for i in given)), forced)
    pulled = tuple(pullback_of(b, wanted, given, masked=bool(masks)) for b in branches)
    whole = control.cond(index, *operands, *(ct[i] for i in given), *masks, branches=pulled)
    return (None, *results(whole, len(operands), wanted, range(len(wanted)), len(wanted) if masks else 0))


def selects(graph: Graph, by: Sequence[Node]) -> bool:
    """Say whether a `where` follows one of the masks among the inputs `by`, so that its operands have masks, too: the
    pullback of a loop or branch that has had masks does."""
    reached = {n for n in by if n.dtype == np.bool_}
    for node in graph.nodes:
        if not any(o in reached for o in node.nodes()):
            continue
        inner = [g for p in node.params.values() for g in (p if isinstance(p, tuple) else (p,)) if isinstance(g, Graph)]
        if (node.prim is where and node.operands[0] in reached) or any(selects(g, g.inputs) for g in inner):
            return True
        reached.add(node)
    return False


def masks_of(ct: Any, given: Sequence[int], like: Any, forced: bool) -> list[Any]:
    """Return the masks under which parts of a result matter, or nothing if all of them always do."""
    masks = getattr(ct, "masks", (None,) * len(ct))
    if not forced and all(masks[i] is None for i in given):
        return []
    return [masks[i] if masks[i] is not None else flag(True, ct[i].shape, like) for i in given]


def results(whole: Any, n: int, wanted: Sequence[int], places: Sequence[int], gap: int) -> list[Any]:
    """Return n cotangents, of which those `wanted` stand at `places`, with their masks `gap` places further on."""
    found: list[Any] = [None] * n
    for i, place in zip(wanted, places, strict=True):
        found[i] = control.item(whole, index=place)
        if gap:
            found[i] = Masked(found[i], control.item(whole, index=place + gap))
    return found


@dataclass(frozen=True)
class Loop:
    """What scan and while_loop have in common: run a body over rows, with carries and constants."""

    body: Graph
    n_carry: int
    n_xs: int
    carry: Sequence[Any]
    xs: Sequence[Any]
    consts: Sequence[Any]
    run: Callable[..., Any]
    """(body, carry, xs, consts) -> the whole result of the same loop over other values in the same direction"""
    back: Callable[..., Any]
    """the same in the other direction; for a while_loop, for as many rounds as the forward loop had"""
    gap: int = 0
    """how many parts of the result stand between the carries and what the body gives per round"""


def loop_vjp(ct: Sequence[Any], loop: Loop) -> tuple[list[Any], list[Any], list[Any]]:
    """Return the cotangents of carry, xs and constants."""
    body, n_carry, n_xs = loop.body, loop.n_carry, loop.n_xs
    masks = without(getattr(ct, "masks", (None,) * len(ct)), n_carry, loop.gap)
    ct = without(ct, n_carry, loop.gap)
    avals = [n.aval for n in body.inputs]
    n_ys = len(body.outputs) - n_carry
    carried = floats([o.aval for o in body.outputs[:n_carry]])
    given_ys = [i for i in range(n_ys) if ct[n_carry + i] is not None]
    xs_wanted = [i for i in floats(avals) if n_carry <= i < n_carry + n_xs]
    consts_wanted = [i for i in floats(avals) if i >= n_carry + n_xs]
    costly: Sequence[Node] = [n for n in body.nodes if n.prim.kind in COSTLY or is_small_part(n)]
    wanted, given = [*carried, *xs_wanted, *consts_wanted], [*carried, *(n_carry + i for i in given_ys)]
    masked_ys = [i for i in given_ys if masks[n_carry + i] is not None]
    masked = bool(masked_ys) or any(masks[i] is not None for i in carried)
    masked = masked or selects(body, body.inputs[: n_carry + n_xs])
    pulled = pullback_of(body, wanted, given, costly, masked=masked)
    body, pulled, costly = keep_inner_loops(body, pulled, costly, n_carry)
    saved = [i for i in range(n_carry) if reads(pulled, pulled.inputs[i])]
    kept = [i for i in range(len(costly)) if reads(pulled, pulled.inputs[len(body.inputs) + i])]
    outputs = (*body.outputs, *(body.inputs[i] for i in saved), *(costly[i] for i in kept))
    recording = Graph(f"{body.name}_recording", body.inputs, body.nodes, outputs, body.names)
    recorded = loop.run(recording, loop.carry, loop.xs, loop.consts)
    records = [
        control.item(recorded, index=len(body.outputs) + loop.gap + i) for i in range(len(saved) + len(kept))
    ]
    rows = given_ys, masked_ys if masked else None
    step = backward_body(pulled, body, n_carry, n_xs, carried, saved, (costly, kept), rows, len(xs_wanted))
    like = anchor(*loop.carry, *loop.xs, *loop.consts, *[c for c in ct if c is not None])
    first = [ct[i] if ct[i] is not None else zeros_like(like, body.outputs[i].aval) for i in carried]
    sums = [zeros_like(like, avals[i]) for i in consts_wanted]
    flags = first_masks(ct, masks, carried, first, sums) if masked else []
    xs = [*records, *loop.xs, *(ct[n_carry + i] for i in given_ys), *(masks[n_carry + i] for i in masked_ys)]
    whole = loop.back(recorded, step, [*first, *sums, *flags], xs, loop.consts)
    n_sums, n_dx = len(first) + len(sums), len(xs_wanted)
    stacked = n_sums + len(flags) + loop.gap
    found = results(whole, len(avals), [*carried, *consts_wanted], range(n_sums), len(flags))
    slices = results(whole, len(avals), xs_wanted, range(stacked, stacked + n_dx), n_dx if masked else 0)
    return found[:n_carry], slices[n_carry : n_carry + n_xs], found[n_carry + n_xs :]


def without(parts: Sequence[Any], n_carry: int, gap: int) -> tuple[Any, ...]:
    """Leave out what stands between the carries and what the body gives per round."""
    return (*parts[:n_carry], *parts[n_carry + gap :])


def first_masks(
    ct: Sequence[Any], masks: Sequence[Any], carried: Sequence[int], first: Sequence[Any], sums: Sequence[Any]
) -> list[Any]:
    """Return the masks of the last carries, and of the constants as long as no round has read them."""
    ends = [
        masks[i] if masks[i] is not None else flag(ct[i] is not None, v.shape, v)
        for i, v in zip(carried, first, strict=True)
    ]
    return [*ends, *(flag(False, s.shape, s) for s in sums)]


def scan_vjp(ct: Any, y: Any, *operands: Any, body: Graph, n_carry: int, n_xs: int, length: int, reverse: bool) -> Any:
    """Run a scan over the slices in the other direction that pulls cotangents back through the body."""

    def scan(graph: Graph, carry: Sequence[Any], xs: Sequence[Any], consts: Sequence[Any], turned: bool) -> Any:
        return control.scan(
            *carry, *xs, *consts, body=graph, n_carry=len(carry), n_xs=len(xs), length=length, reverse=turned
        )

    def run(graph: Graph, carry: Sequence[Any], xs: Sequence[Any], consts: Sequence[Any]) -> Any:
        return scan(graph, carry, xs, consts, reverse)

    def back(recorded: Any, graph: Graph, carry: Sequence[Any], xs: Sequence[Any], consts: Sequence[Any]) -> Any:
        return scan(graph, carry, xs, consts, not reverse)

    parts = operands[:n_carry], operands[n_carry : n_carry + n_xs], operands[n_carry + n_xs :]
    loop = Loop(body, n_carry, n_xs, *parts, run, back)
    carry, xs, consts = loop_vjp(ct, loop)
    return (*carry, *xs, *consts)


def while_vjp(
    ct: Any, y: Any, *operands: Any, condition: Graph | None, body: Graph, n_carry: int, n_xs: int, reverse: bool,
    slots: int = 0,
) -> Any:  # fmt: skip
    """Run the loop once more, leaving its carries on tapes, and then as many rounds backwards over the tapes."""
    if slots:
        params = {"condition": condition, "body": body, "n_carry": n_carry, "n_xs": n_xs, "reverse": reverse}
        again = y if isinstance(y, tuple) else control.while_loop(*operands, **params, slots=slots)
        rounds = control.item(again, index=n_carry)
        return rewound_vjp(ct, rounds, operands[:n_carry], operands[n_carry:], body, slots)
    rounds, carry, xs, consts = control.while_loop.parts(operands, condition, n_carry, n_xs)
    first = () if rounds is None else (rounds,)

    def run(graph: Graph, carry: Sequence[Any], xs: Sequence[Any], consts: Sequence[Any]) -> Any:
        return control.while_loop(
            *first, *carry, *xs, *consts,
            condition=condition, body=graph, n_carry=len(carry), n_xs=len(xs), reverse=reverse,
        )  # fmt: skip

    def back(recorded: Any, graph: Graph, carry: Sequence[Any], xs: Sequence[Any], consts: Sequence[Any]) -> Any:
        count = rounds if rounds is not None else control.item(recorded, index=n_carry)
        return control.while_loop(
            count, *carry, *xs, *consts,
            condition=None, body=graph, n_carry=len(carry), n_xs=len(xs), reverse=not reverse,
        )  # fmt: skip

    d_carry, d_xs, d_consts = loop_vjp(ct, Loop(body, n_carry, n_xs, carry, xs, consts, run, back, gap=1))
    return (*(None for _ in first), *d_carry, *d_xs, *d_consts)


def rewound_vjp(
    ct: Any, rounds: Any, carry: Sequence[Any], consts: Sequence[Any], body: Graph, slots: int
) -> tuple[Any, ...]:
    """Walk back over the rounds of a loop, computing the carries again from a few saved ones."""
    n_carry, avals = len(carry), [n.aval for n in body.inputs]
    carried = floats(avals[:n_carry])
    wanted = [i for i in floats(avals) if i >= n_carry]
    masks = getattr(ct, "masks", (None,) * len(ct))
    masked = any(masks[i] is not None for i in carried) or selects(body, body.inputs[:n_carry])
    pulled = pullback_of(body, [*carried, *wanted], carried, masked=masked)
    step = backward_body(pulled, body, n_carry, 0, carried, range(n_carry), ([], []), ([], [] if masked else None), 0)
    like = anchor(*carry, *consts, *[c for c in ct if c is not None])
    first = [ct[i] if ct[i] is not None else zeros_like(like, avals[i]) for i in carried]
    sums = [zeros_like(like, avals[i]) for i in wanted]
    flags = first_masks(ct, masks, carried, first, sums) if masked else []
    back = [*first, *sums, *flags]
    whole = rewind(rounds, *carry, *back, *consts, advance=body, step=step, n_carry=n_carry, slots=slots)
    return tuple(results(whole, len(avals), [*carried, *wanted], range(len(first) + len(sums)), len(flags)))


def zeros_like(like: Any, aval: Any) -> Any:
    return constant_zeros(like, aval.shape, aval.dtype)


def reads(graph: Graph, node: Node) -> bool:
    return any(node in n.operands for n in graph.nodes) or node in graph.outputs


def backward_body(
    pulled: Graph, body: Graph, n_carry: int, n_xs: int, carried: Sequence[int], saved: Sequence[int],
    records: tuple[Sequence[Node], Sequence[int]], rows: tuple[Sequence[int], Sequence[int] | None], n_dx: int,
) -> Graph:  # fmt: skip
    """Return (ct of carry, sums, saved carries, kept values, x, ct of y, consts) -> (ct of carry, sums, ct of x).

    Where the masks of some y are given, the masks of carries and of constants come after the sums, those of y after
    their cotangents, and those of x after theirs.
    """
    builder = Builder(f"{body.name}_backward")
    costly, kept = records
    given_ys, masked_ys = rows
    n = len(pulled.outputs) // (1 if masked_ys is None else 2)
    avals = [n.aval for n in body.inputs]
    cts = [builder.input(body.outputs[i].aval, f"ct{i}") for i in carried]
    consts_wanted = pulled.outputs[len(carried) + n_dx : n]
    sums = [builder.input(o.aval, f"sum{i}") for i, o in enumerate(consts_wanted)]
    flags = [builder.input(o.aval.with_dtype(np.bool_)) for o in (*cts, *sums)] if masked_ys is not None else []
    carries = {i: builder.input(avals[i], f"carry{i}") for i in saved}
    values = {i: builder.input(costly[i].aval, f"value{i}") for i in kept}
    xs = [builder.input(avals[n_carry + i], f"x{i}") for i in range(n_xs)]
    ct_ys = [builder.input(body.outputs[n_carry + i].aval, f"ct_y{i}") for i in given_ys]
    y_flags = {i: builder.input(body.outputs[n_carry + i].aval.with_dtype(np.bool_)) for i in masked_ys or ()}
    consts = [builder.input(a, f"const{i}") for i, a in enumerate(avals[n_carry + n_xs :])]
    first = [carries.get(i) or unread(builder, avals[i]) for i in range(n_carry)]
    middle = [values.get(i) or unread(builder, n.aval) for i, n in enumerate(costly)]
    seen = [
        y_flags.get(i) or constant(builder, c.aval.with_dtype(np.bool_), 1)
        for i, c in zip(given_ys, ct_ys, strict=True)
    ]
    seeds = [*flags[: len(carried)], *seen] if masked_ys is not None else []
    found = builder.inline(pulled, [*first, *xs, *consts, *middle, *cts, *ct_ys, *seeds])

    def either(a: Operand, b: Operand) -> Operand:
        return builder.add(bitwise_or, [a, b], {})

    def sorted_out(
        join: Callable[[Operand, Operand], Operand], parts: Sequence[Operand], so_far: Sequence[Node]
    ) -> tuple[list[Any], list[Any]]:
        """Return (of carries, of constants with those of earlier rounds), and of x."""
        sums = [join(s, c) for s, c in zip(so_far, parts[len(carried) + n_dx :], strict=True)]
        return [*parts[: len(carried)], *sums], [*parts[len(carried) : len(carried) + n_dx]]

    carry, slices = sorted_out(partial(added, builder), found[:n], sums)
    carry_flags, slice_flags = sorted_out(either, found[n:], flags[len(carried) :]) if seeds else ([], [])
    return builder.finish([*carry, *carry_flags, *slices, *slice_flags])


def unread(builder: Builder, aval: Any) -> Node:
    """Stand in for a value that the pullback does not read."""
    return constant(builder, aval, 0)


def constant(builder: Builder, aval: Any, value: int) -> Node:
    literal = Literal(aval.dtype.type(value).item(), aval.dtype)
    return builder.add(broadcast, [literal], {"shape": aval.shape, "axes": ()})


control.RULES.update(cond=cond_vjp, scan=scan_vjp, while_loop=while_vjp)
