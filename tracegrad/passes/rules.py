"""The tables of rewrites.

EXACT rules keep every bit, for NaN, infinities, -0.0 and overflow too. FAST_MATH rules do not, and only run when
`config.fast_math` is on. A rule is a pair of expressions, or a function of a node that returns its replacement or None.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tracegrad.ir import Literal, Node, Operand
from tracegrad.ir.aval import is_float
from tracegrad.ops import elementwise as el
from tracegrad.ops.control import cond, scan, while_loop
from tracegrad.ops.reduce import argmax, argmin
from tracegrad.ops.rewind import rewind
from tracegrad.ops.shape import broadcast, concat, pad, reshape, slice_, transpose
from tracegrad.passes.lowerings import (
    absorb_transposes,
    choose_large_updates,
    group_dot_axes,
    lower_argmax,
    scale_instead_of_dot,
    stacked_rows_are_a_batch,
    widen_integers,
)
from tracegrad.passes.rewrite import Rewriter, Rule, rewrite, rule

# --- shapes -----------------------------------------------------------------------------------------------------------


@rule(reshape)
def merge_reshapes(r: Rewriter, node: Node) -> Operand | None:
    """reshape(reshape(x, s), t) -> reshape(x, t); nothing when the shape is x's own."""
    source = node.operands[0]
    if source.aval.shape == node.shape:
        return source
    if isinstance(source, Node) and source.prim is reshape:
        return r.add(reshape, source.operands[0], shape=node.shape)
    return None


@rule(transpose)
def merge_transposes(r: Rewriter, node: Node) -> Operand | None:
    """transpose(transpose(x)) is one transpose; one that moves nothing, or only axes of size 1, is none or a
    reshape."""
    source, perm = node.operands[0], node.params["perm"]
    if perm == tuple(range(len(perm))):
        return source
    if isinstance(source, Node) and source.prim is transpose:
        inner = source.params["perm"]
        return r.add(transpose, source.operands[0], perm=tuple(inner[p] for p in perm))
    wide = [p for p in perm if source.aval.shape[p] != 1]
    if wide == sorted(wide):
        return r.add(reshape, source, shape=node.shape)
    return None


@rule(broadcast)
def merge_broadcasts(r: Rewriter, node: Node) -> Operand | None:
    """broadcast(broadcast(x)) is one broadcast; one that repeats nothing is none."""
    source, axes = node.operands[0], node.params["axes"]
    if source.aval.shape == node.shape and isinstance(source, Node):
        return source
    if isinstance(source, Node) and source.prim is broadcast:
        inner = tuple(axes[a] for a in source.params["axes"])
        return r.add(broadcast, source.operands[0], shape=node.shape, axes=inner)
    return None


@rule(slice_)
def merge_slices(r: Rewriter, node: Node) -> Operand | None:
    """slice(slice(x)) is one slice; one that takes everything is none."""
    source = node.operands[0]
    start, step = node.params["start"], node.params["step"]
    if source.aval.shape == node.shape and not any(start) and all(d == 1 for d in step):
        return source
    if isinstance(source, Node) and source.prim is slice_ and node.aval.size:
        first = zip(source.params["start"], source.params["step"], start, step, strict=True)
        pairs = [(a + b * s, d * s) for a, s, b, d in first]
        return r.add(
            slice_,
            source.operands[0],
            start=tuple(p[0] for p in pairs),
            size=node.shape,
            step=tuple(p[1] for p in pairs),
        )
    return None


@rule(pad)
def drop_empty_pads(r: Rewriter, node: Node) -> Operand | None:
    """pad(x) without any zeros -> x"""
    return node.operands[0] if node.shape == node.operands[0].aval.shape else None


@rule(concat)
def drop_single_concats(r: Rewriter, node: Node) -> Operand | None:
    """concat(x) -> x"""
    return node.operands[0] if len(node.operands) == 1 else None


def is_wide(shape: Sequence[int]) -> bool:
    return 1 not in shape


def squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)


@rule()
def squeeze_elementwise(r: Rewriter, node: Node) -> Operand | None:
    """Compute on the shape without its axes of size 1, so that loops over (n, 1) and (n,) are the same loops."""
    if node.prim.kind != "elementwise" or is_wide(node.shape):
        return None
    shape = squeezed(node.shape)
    operands = [
        r.add(reshape, o, shape=squeezed(o.aval.shape)) if isinstance(o, Node) and o.aval.shape else o
        for o in node.operands
    ]
    return r.add(reshape, r.add(node.prim, *operands, **node.params), shape=node.shape) if shape != node.shape else None


@rule()
def squeeze_reduce(r: Rewriter, node: Node) -> Operand | None:
    """Reduce no axes of size 1; a reduction over none is its operand."""
    if node.prim.kind != "reduce" or node.prim in (argmax, argmin):
        return None
    source, axes = node.operands[0], node.params["axes"]
    if not axes:
        return source
    if is_wide(source.aval.shape):
        return None
    wide = [a for a, n in enumerate(source.aval.shape) if n != 1]
    inner = r.add(reshape, source, shape=squeezed(source.aval.shape))
    reduced = tuple(i for i, a in enumerate(wide) if a in axes)
    value = r.add(node.prim, inner, axes=reduced) if reduced else inner
    return r.add(reshape, value, shape=node.shape)


@rule(broadcast)
def squeeze_broadcast(r: Rewriter, node: Node) -> Operand | None:
    """Repeat along no axes of size 1."""
    source = node.operands[0]
    if is_wide(node.shape) or isinstance(source, Literal):
        return None
    wide = [a for a, n in enumerate(node.shape) if n != 1]
    inner = r.add(reshape, source, shape=squeezed(source.aval.shape))
    axes = tuple(wide.index(a) for a in node.params["axes"] if a in wide)
    return r.add(reshape, r.add(broadcast, inner, shape=squeezed(node.shape), axes=axes), shape=node.shape)


# --- literals ---------------------------------------------------------------------------------------------------------


@rule()
def literals_need_no_broadcast(r: Rewriter, node: Node) -> Operand | None:
    """mul(x, broadcast(2.0)) -> mul(x, 2.0), as long as one operand keeps the shape."""
    if node.prim.kind != "elementwise" or not node.shape:
        return None
    scalars = [under_literal(o) for o in node.operands]
    if not any(s is not None and isinstance(o, Node) for s, o in zip(scalars, node.operands, strict=True)):
        return None
    operands = [o if s is None else s for s, o in zip(scalars, node.operands, strict=True)]
    if all(isinstance(o, Literal) for o in operands):
        return r.add(broadcast, r.add(node.prim, *operands, **node.params), shape=node.shape, axes=())
    return r.add(node.prim, *operands, **node.params)


def under_literal(operand: Operand) -> Literal | None:
    """Return the literal that a broadcast (or reshape of one) repeats."""
    while isinstance(operand, Node) and operand.prim in (broadcast, reshape):
        operand = operand.operands[0]
    return operand if isinstance(operand, Literal) else None


@rule()
def fold_literals(r: Rewriter, node: Node) -> Operand | None:
    """Compute what depends on literals alone."""
    if node.prim.kind != "elementwise" or node.shape or not all(isinstance(o, Literal) for o in node.operands):
        return None
    arguments = [o.dtype.type(o.value) for o in node.operands if isinstance(o, Literal)]
    with np.errstate(all="ignore"):
        value = np.asarray(node.prim.eager(*arguments, **node.params)).astype(node.dtype)
    return Literal(value.item(), node.dtype)


@rule(reshape)
def reshape_of_literal(r: Rewriter, node: Node) -> Operand | None:
    """reshape(broadcast(2.0)) -> broadcast(2.0)"""
    literal = under_literal(node.operands[0])
    if literal is None:
        return None
    return r.add(broadcast, literal, shape=node.shape, axes=()) if node.shape else literal


# --- values -----------------------------------------------------------------------------------------------------------


@rule(el.stop_gradient)
def drop_stop_gradient(r: Rewriter, node: Node) -> Operand | None:
    """stop_gradient(x) -> x: differentiation is over."""
    return node.operands[0]


@rule(el.convert)
def drop_conversions(r: Rewriter, node: Node) -> Operand | None:
    """convert(x, x's dtype) -> x, and f16(f32(x)) -> x for x of f16: a wider float holds x as it is."""
    source = node.operands[0]
    if source.dtype == node.dtype:
        return source
    if isinstance(source, Node) and source.prim is el.convert and is_float(node.dtype) and is_float(source.dtype):
        inner = source.operands[0]
        return inner if inner.dtype == node.dtype and node.dtype.itemsize < source.dtype.itemsize else None
    return None


@rule(el.where)
def drop_equal_branches(r: Rewriter, node: Node) -> Operand | None:
    """where(c, x, x) -> x; where(True, x, y) -> x"""
    condition, x, y = node.operands
    if isinstance(condition, Literal):
        chosen = x if condition.value else y
        return chosen if chosen.aval == node.aval else None
    return x if x is y and x.aval == node.aval else None


@rule(cond, while_loop, scan, rewind)
def literals_of_control_in_memory(r: Rewriter, node: Node) -> Operand | None:
    """scan(0.0, x) -> scan(broadcast(0.0), x): loops and branches read their operands from memory."""
    if not any(isinstance(o, Literal) for o in node.operands):
        return None
    operands = [r.add(broadcast, o, shape=(), axes=()) if isinstance(o, Literal) else o for o in node.operands]
    return r.add(node.prim, *operands, **node.params)


EXACT: list[Rule] = [
    literals_of_control_in_memory,
    rewrite("mul-one", lambda x: x * 1.0, lambda x: x),
    rewrite("one-mul", lambda x: 1.0 * x, lambda x: x),
    rewrite("div-one", lambda x: x / 1.0, lambda x: x),
    rewrite("sub-zero", lambda x: x - 0.0, lambda x: x),
    rewrite("neg-neg", lambda x: -(-x), lambda x: x),
    rewrite("add-neg", lambda x, y: x + (-y), lambda x, y: x - y),
    rewrite("sub-neg", lambda x, y: x - (-y), lambda x, y: x + y),
    merge_reshapes,
    merge_transposes,
    absorb_transposes,
    merge_broadcasts,
    merge_slices,
    drop_empty_pads,
    drop_single_concats,
    reshape_of_literal,
    literals_need_no_broadcast,
    fold_literals,
    squeeze_elementwise,
    squeeze_reduce,
    squeeze_broadcast,
    drop_stop_gradient,
    drop_conversions,
    drop_equal_branches,
    lower_argmax,
    choose_large_updates,
    widen_integers,
    scale_instead_of_dot,
    stacked_rows_are_a_batch,
    group_dot_axes,
]
FAST_MATH: list[Rule] = [
    rewrite("add-zero", lambda x: x + 0.0, lambda x: x),
    rewrite("sub-self", lambda x: x - x, lambda x: x * 0.0),
]
