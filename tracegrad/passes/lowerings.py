"""Rewrites of primitives that have no code of their own into others that do. All are exact."""

from __future__ import annotations

from math import prod

import numpy as np

from tracegrad.ir import Literal, Node, Operand
from tracegrad.ir.aval import is_float
from tracegrad.ops import elementwise as el
from tracegrad.ops.contract import contraction_cut, dot, free, is_run
from tracegrad.ops.index import argsort, set_slice
from tracegrad.ops.reduce import argmax, argmin, cumsum, reduce_max, reduce_min
from tracegrad.ops.shape import broadcast, iota, pad, transpose
from tracegrad.passes.rewrite import Rewriter, rule

FEWEST_ROWS = 48  # of a product: with fewer, bringing the shared operand into order for each costs more than a copy


@rule(argmax, argmin)
def lower_argmax(r: Rewriter, node: Node) -> Operand | None:
    """argmax(x) -> the least position whose element equals the maximum, or is NaN: two reductions that share loops."""
    x = node.operands[0]
    assert isinstance(x, Node)
    (axis,) = node.params["axes"]
    best = r.add(reduce_max if node.prim is argmax else reduce_min, x, axes=(axis,))
    kept = tuple(a for a in range(len(x.shape)) if a != axis)
    hit = r.add(el.equal, x, r.add(broadcast, best, shape=x.shape, axes=kept))
    if is_float(x.dtype):
        hit = r.add(el.bitwise_or, hit, r.add(el.isnan, x))
    narrow = np.dtype(np.int32 if x.shape[axis] < 2**31 else np.int64)  # CPUs have a vector minimum of 32 bits
    place = r.add(iota, shape=x.shape, axis=axis, dtype=narrow)
    place = r.add(el.where, hit, place, Literal(x.shape[axis], narrow))
    found = r.add(reduce_min, place, axes=(axis,))
    return found if narrow == node.dtype else r.add(el.convert, found, dtype=node.dtype)


@rule(set_slice)
def choose_large_updates(r: Rewriter, node: Node) -> Operand | None:
    """set_slice(x, u) -> where(inside, pad(u), x) if u replaces at least half of x: one loop, which fuses with what
    makes u and with what reads the result, in place of a copy and a second loop."""
    x, u = node.operands
    start, step, size = node.params["start"], node.params["step"], u.aval.shape
    if any(s != 1 for s in step) or 2 * u.aval.size < x.aval.size or not size:
        return None
    high = tuple(n - a - k for n, a, k in zip(x.aval.shape, start, size, strict=True))
    edges = {"low": tuple(start), "high": high, "gap": (0,) * len(size)}
    true = Literal(True, np.dtype(np.bool_))
    inside = r.add(pad, r.add(broadcast, true, shape=size, axes=()), **edges)
    value = u.operands[0] if isinstance(u, Node) and u.prim is broadcast else u
    padded = value if isinstance(value, Literal) else r.add(pad, u, **edges)
    return r.add(el.where, inside, padded, x)


WIDE = {
    **{np.dtype(t): np.dtype(np.int32) for t in (np.bool_, np.int8, np.int16, np.uint8, np.uint16, np.uint32)},
    np.dtype(np.uint64): np.dtype(np.int64),
}


@rule(dot, cumsum, argsort)
def widen_integers(r: Rewriter, node: Node) -> Operand | None:
    """dot(x, y) of i8 -> i8(dot(i32(x), i32(y))): library kernels know wide integers only; what wraps, wraps alike.

    The sum of bools is `or`: whether the count is not zero, which is how a number converts to bool.
    """
    dtype = node.operands[0].dtype
    wide = WIDE.get(dtype)
    if wide is None or (node.prim is argsort and dtype.itemsize >= 4):
        return None
    operands = [r.add(el.convert, o, dtype=wide) for o in node.operands]
    found = r.add(node.prim, *operands, **node.params)
    return found if node.prim is argsort else r.add(el.convert, found, dtype=dtype)


@rule(dot)
def scale_instead_of_dot(r: Rewriter, node: Node) -> Operand | None:
    """dot(2.0, x) -> 2.0 * x + 0.0: a product with a scalar sums over nothing, and a sum starts from 0.0, not -0.0."""
    if node.dtype in WIDE or all(o.aval.shape for o in node.operands):
        return None
    shaped = [o if o.aval.shape else r.add(broadcast, o, shape=node.shape, axes=()) for o in node.operands]
    found = r.add(el.mul, *shaped)
    return r.add(el.add, found, Literal(0.0, node.dtype)) if is_float(node.dtype) else found


@rule(dot)
def group_dot_axes(r: Rewriter, node: Node) -> Operand | None:
    """dot(a[k, i, l], b) over k, l -> dot(transpose(a)[i, k, l], b): a product walks rows, columns and batch with one
    stride each, and the axes that it sums over with two."""
    contract, batch = node.params["contract"], node.params["batch"]
    cut = contraction_cut(node.operands[0].aval.shape, node.operands[1].aval.shape, contract) or 0
    operands: list[Operand] = []
    places: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    for side, operand in enumerate(node.operands):
        shape = operand.aval.shape
        groups = [batch[side], free(len(shape), contract[side], batch[side]), contract[side]]
        inner_runs = [contract[side][:cut], contract[side][cut:]]
        if all(is_run(shape, group) for group in (*groups[:2], *inner_runs)):
            operands.append(operand)
            places.append((contract[side], batch[side]))
        else:
            operands.append(r.add(transpose, operand, perm=tuple(a for group in groups for a in group)))
            inner = len(contract[side])
            places.append((tuple(range(len(shape) - inner, len(shape))), tuple(range(len(batch[side])))))
    if all(new is old for new, old in zip(operands, node.operands, strict=True)):
        return None
    (a_inner, a_batch), (b_inner, b_batch) = places
    return r.add(dot, *operands, contract=(a_inner, b_inner), batch=(a_batch, b_batch))


@rule(dot)
def absorb_transposes(r: Rewriter, node: Node) -> Operand | None:
    """dot(transpose(a), b) -> dot(a, b) over other axes, if the free axes keep their order and groups stay runs."""
    contract, batch = [*node.params["contract"]], [*node.params["batch"]]
    operands = list(node.operands)
    for side, operand in enumerate(node.operands):
        if not isinstance(operand, Node) or operand.prim is not transpose:
            continue
        perm, source = operand.params["perm"], operand.operands[0]
        groups = [batch[side], free(len(perm), contract[side], batch[side]), contract[side]]
        inner = [tuple(perm[a] for a in group) for group in groups]
        runs = [is_run(source.aval.shape, group) for group in inner]
        if inner[1] != tuple(sorted(inner[1])) or not all(runs[:2]):
            continue
        pairs = [(source.aval.shape, inner[2]), (operands[1 - side].aval.shape, contract[1 - side])]
        if runs[2] or contraction_cut(pairs[0][0], pairs[1][0], (pairs[0][1], pairs[1][1])) is not None:
            batch[side], _, contract[side] = inner
            operands[side] = source
    if all(new is old for new, old in zip(operands, node.operands, strict=True)):
        return None
    return r.add(dot, *operands, contract=tuple(contract), batch=tuple(batch))


@rule(dot)
def stacked_rows_are_a_batch(r: Rewriter, node: Node) -> Operand | None:
    """dot(transpose(a[B, k, m]), b[k, n]) -> dot(a, broadcast(b), batch=B): rows that are walked with two strides need
    no copy of a, for products of a batch may share b."""
    a, b = node.operands
    if not isinstance(a, Node) or a.prim is not transpose or node.params["batch"][0]:
        return None
    perm, source, contract = a.params["perm"], a.operands[0], node.params["contract"]
    shape = source.aval.shape
    rows = tuple(perm[axis] for axis in free(len(perm), contract[0], ()))
    inner = tuple(perm[axis] for axis in contract[0])
    if not is_run(shape, inner) or is_run(shape, rows):
        return None
    for cut in range(1, len(rows)):
        outer, each = rows[:cut], rows[cut:]
        if is_run(shape, outer) and is_run(shape, each) and list(each) == sorted(each):
            break
    else:
        return None
    columns = prod(b.aval.shape[axis] for axis in free(b.aval.ndim, contract[1], ()))
    if prod(shape[axis] for axis in each) < min(FEWEST_ROWS, 8 * columns):
        return None
    axes = tuple(range(len(outer), len(outer) + b.aval.ndim))
    shared = r.add(broadcast, b, shape=(*(shape[axis] for axis in outer), *b.aval.shape), axes=axes)
    contracted = tuple(axes[axis] for axis in contract[1])
    return r.add(dot, source, shared, contract=(inner, contracted), batch=(outer, tuple(range(len(outer)))))
