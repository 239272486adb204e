"""Contractions, convolutions, scans and sorts -> plans of library kernels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracegrad.codegen.plan import LibraryCall
from tracegrad.codegen.plan_conv import plan_conv
from tracegrad.codegen.plan_gemm import plan_gemm
from tracegrad.codegen.plan_sort import plan_cumsum, plan_sort
from tracegrad.errors import DTypeError
from tracegrad.ir import Node
from tracegrad.ops.contract import dot, free
from tracegrad.ops.conv import conv, conv_dw, conv_dx
from tracegrad.ops.index import argsort
from tracegrad.ops.reduce import cumsum
from tracegrad.schedule.index import strides
from tracegrad.schedule.plan import Call, View, merges

Pairs = list[tuple[int, int]]
Rule = Callable[[Call, int], list[LibraryCall]]


def plan_call(call: Call, threads: int) -> list[LibraryCall]:
    """Plan a library call of the schedule."""
    return RULES[call.node.prim](call, threads)


def block_grain(node: Node, threads: int) -> int:
    """Return the grain (`LibraryCall`) of the blocks that a call hands to an epilogue; 0 where it hands over none."""
    views = tuple(View(o, o.shape, 0, strides(o.shape)) for o in node.nodes())
    planned = plan_call(Call(node, views), threads)
    return planned[0].grain if len(planned) == 1 and planned[0].takes_epilogue else 0


def size(shape: Sequence[int], axes: Sequence[int]) -> int:
    total = 1
    for a in axes:
        total *= shape[a]
    return total


def step(view: View, axes: Sequence[int]) -> int:
    """Return the one stride with which a group of axes walks memory."""
    wide = [a for a in axes if view.shape[a] != 1]
    return view.strides[wide[-1]] if wide else 0


def two_levels(a: View, b: View, a_axes: Sequence[int], b_axes: Sequence[int]) -> tuple[Pairs, Pairs]:
    """Cut axes, pairs of (axis of a, axis of b), into two groups that both operands walk with one stride."""
    pairs = [(i, j) for i, j in zip(a_axes, b_axes, strict=True) if a.shape[i] != 1]
    for cut in (len(pairs), *range(1, len(pairs))):
        groups = pairs[:cut], pairs[cut:]
        if all(
            merges([i for i, _ in g], a.shape, a.strides) and merges([j for _, j in g], b.shape, b.strides)
            for g in groups
        ):
            return groups
    raise AssertionError(f"the schedule walks {pairs} with more than two strides")


def plan_dot(call: Call, threads: int) -> list[LibraryCall]:
    """C[batch, m, n] = A[batch, m, k] B[batch, k, n], where m and n are groups of axes with one stride each, batch and
    k with one or two."""
    a, b = call.operands
    params = call.node.params
    (a_inner, b_inner), (a_batch, b_batch) = params["contract"], params["batch"]
    rows = free(len(a.shape), a_inner, a_batch)
    columns = free(len(b.shape), b_inner, b_batch)
    batch, m, n = size(a.shape, a_batch), size(a.shape, rows), size(b.shape, columns)
    outer, inner = two_levels(a, b, a_batch, b_batch)
    terms, deeper = two_levels(a, b, a_inner, b_inner)
    if not deeper:
        terms, deeper = [], terms
    a_strides = (step(a, [i for i, _ in outer]), step(a, rows), step(a, [i for i, _ in deeper]))
    b_strides = (step(b, [j for _, j in outer]), step(b, [j for _, j in deeper]), step(b, columns))
    second, repeated = (
        (size(a.shape, [i for i, _ in pairs]), step(a, [i for i, _ in pairs]), step(b, [j for _, j in pairs]))
        for pairs in (inner, terms)
    )
    k = size(a.shape, [i for i, _ in deeper])
    dtype = call.node.dtype.name
    if dtype not in ("float32", "float64", "int32", "int64"):
        raise DTypeError(
            f"matmul: {call.node.aval} has no compiled matrix product",
            fix="convert with x.astype(np.int64)",
            where=call.node.where,
        )
    c_strides = (m * n, n, 1)
    return [
        plan_gemm(dtype, m, n, k, a_strides, b_strides, c_strides, batch, threads, inner=second, repeated=repeated)
    ]


def plan_convolution(kind: str) -> Rule:
    def rule(call: Call, threads: int) -> list[LibraryCall]:
        first, second = (v.shape for v in call.operands)
        shapes = {"forward": (first, second), "data": (call.node.shape, second), "weight": (first, call.node.shape)}
        x, w = shapes[kind]
        p = call.node.params
        dtype = call.node.dtype.name
        return [plan_conv(kind, dtype, x, w, p["stride"], p["padding"], p["dilation"], p["groups"], threads)]

    return rule


def plan_argsort(call: Call, threads: int) -> list[LibraryCall]:
    shape = call.node.shape
    return [plan_sort(call.operands[0].node.dtype.name, size(shape, range(len(shape) - 1)), shape[-1], threads)]


def plan_running_sum(call: Call, threads: int) -> list[LibraryCall]:
    shape, axis = call.node.shape, call.node.params["axis"]
    inner = strides(shape)[axis]
    return [
        plan_cumsum(
            call.node.dtype.name,
            size(shape, range(axis)),
            shape[axis],
            inner,
            threads,
            reverse=call.node.params["reverse"],
        )
    ]


RULES: dict[Any, Rule] = {
    dot: plan_dot,
    conv: plan_convolution("forward"),
    conv_dx: plan_convolution("data"),
    conv_dw: plan_convolution("weight"),
    argsort: plan_argsort,
    cumsum: plan_running_sum,
}
