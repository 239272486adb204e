"""Primitives with loops of their own: they write their buffer piece by piece, so nothing is fused behind them.

Each rule returns the kernels in order. A kernel that fills or copies is parallel; one that scatters runs in one task
where two updates may meet in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np

from tracegrad.ir import Literal, Node, Operand
from tracegrad.ir.aval import NAMES, is_float
from tracegrad.ops.index import scatter_add, scatter_set, set_slice
from tracegrad.ops.pool import max_pool_route, sum_pool_spread
from tracegrad.ops.shape import concat, pad, transpose, turn
from tracegrad.schedule.body import Body, buffer_name
from tracegrad.schedule.form import Context, Lowered, collapse
from tracegrad.schedule.index import Affine, Index, dot, strides
from tracegrad.schedule.kernel import Const, Guard, Kernel, Load, Local, Loop, Stmt, Store

Place = Callable[[Index], Index]
ROWS, ROW_BYTES = 64, 256
"""The block of a transpose: half of the L1 cache, and several neighbouring lines of both arrays at a time (4096 squared
in float32 takes 20 ms, and 40 ms with blocks of one line)."""


class Nest:
    """Collects the kernels of one node."""

    def __init__(self, node: Node, context: Context, name: str):
        self.node = node
        self.context = context
        self.name = name
        self.kernels: list[Kernel] = []
        self.needs: list[Node] = []

    def body(self) -> Body:
        return Body(self.context.inlines, self.context.checks)

    def finish(self, body: Body, outer: Sequence[tuple[str, int]], statements: Sequence[Stmt], work: int) -> None:
        name = f"{self.name}_{len(self.kernels)}" if self.kernels else self.name
        note = (str(self.node.where),) if self.node.where else ()
        self.kernels.append(Kernel(name, tuple(outer), tuple(statements), work=work, notes=note))
        self.needs += body.needs

    def write(self, operand: Operand, shape: Sequence[int], place: Place) -> None:
        """Store every element of `operand` (a scalar repeats) at `place(index)` of the result."""
        body = self.body()
        loops = [(f"i{a}", n) for a, n in enumerate(shape)]
        index = tuple(Affine.var(v) for v, _ in loops)
        value = body.value(operand, index if operand.aval.shape else ())
        offset = dot(place(index), strides(self.node.shape))
        body.emit(Store(buffer_name(self.node), offset, value, NAMES[self.node.dtype]))
        outer, statements = collapse(loops, body.statements)
        if len(outer) > 1:
            var, n = outer.pop()
            statements = [Loop(var, n, tuple(statements))]
        work = 2
        for n in shape:
            work *= n
        self.finish(body, outer, statements, work)

    def fill(self, value: float) -> None:
        zero = Literal(value if is_float(self.node.dtype) else int(value), self.node.dtype)
        self.write(zero, self.node.shape, lambda index: index)


def nest_concat(nest: Nest) -> None:
    axis = nest.node.params["axis"]
    at = 0
    for operand in nest.node.operands:
        start = at
        nest.write(operand, operand.aval.shape, lambda i, s=start: (*i[:axis], i[axis] + s, *i[axis + 1 :]))  # type: ignore[misc]
        at += operand.aval.shape[axis]


def nest_pad(nest: Nest) -> None:
    low, gap = nest.node.params["low"], nest.node.params["gap"]
    source = nest.node.operands[0]
    nest.fill(0.0)
    nest.write(source, source.aval.shape, lambda i: tuple(x * (g + 1) + a for x, g, a in zip(i, gap, low, strict=True)))


def nest_turn(nest: Nest) -> None:
    """Copy in blocks of lines of the operand and of the result, through an array on the stack.

    So every cache line of either is touched once, also where a power of two lies between lines and few of them fit
    into the cache together.
    """
    node = nest.node
    source, perm = node.operands[0], node.params["perm"]
    wide = [a for a, p in enumerate(perm) if source.aval.shape[p] != 1]
    along, across = wide[-1], max(wide, key=lambda axis: perm[axis])  # the last axes of the result and of the operand
    dtype, body = NAMES[node.dtype], nest.body()
    index = tuple(Affine.var(f"i{a}") for a in range(len(perm)))
    rows, columns = min(ROWS, node.shape[across]), min(ROW_BYTES // node.dtype.itemsize, node.shape[along])
    slot = Affine.var(f"i{along}", rows) + Affine.var("b", -columns * rows) + index[across] + Affine.var("a", -rows)

    def loop(axis: int, inside: Sequence[Stmt]) -> Loop:
        block, size, var = (rows, rows, "a") if axis == across else (columns, columns, "b")
        limit = node.shape[axis] if node.shape[axis] % block else None
        return Loop(f"i{axis}", size, tuple(inside), Affine.var(var, block), limit)

    with body.scope() as first:
        value = body.value(source, tuple(index[perm.index(a)] for a in range(len(perm))))
        body.emit(Store("block", slot, value, dtype))
    with body.scope() as second:
        body.emit(Store(buffer_name(node), dot(index, strides(node.shape)), body.load("block", dtype, slot), dtype))
    place = Local("block", dtype, rows * columns)
    block = (place, loop(along, [loop(across, first)]), loop(across, [loop(along, second)]))
    outer = [(f"i{a}", n) for a, n in enumerate(node.shape) if a not in (along, across)]
    outer.append(("a", -(-node.shape[across] // rows)))
    nest.finish(body, outer, [Loop("b", -(-node.shape[along] // columns), block)], 2 * node.aval.size)


def nest_set_slice(nest: Nest) -> None:
    base, updates = nest.node.operands
    start, step = nest.node.params["start"], nest.node.params["step"]
    nest.write(base, nest.node.shape, lambda i: i)
    nest.write(updates, updates.aval.shape, lambda i: tuple(x * d + a for x, d, a in zip(i, step, start, strict=True)))


def nest_scatter(nest: Nest, *, adds: bool) -> None:
    """Copy the base, then run over the updates in order; trailing axes that are not indexed are the inner loops."""
    node = nest.node
    base, updates, *indices = node.operands
    nest.write(base, node.shape, lambda i: i)
    axes = node.params["axes"]
    body = nest.body()
    loops = [(f"i{a}", n) for a, n in enumerate(updates.aval.shape)]
    index = tuple(Affine.var(v) for v, _ in loops)
    lead = len(indices[0].aval.shape)
    places: dict[int, Affine] = {}
    for axis, operand in zip(axes, indices, strict=True):
        value = body.value(operand, index[:lead] if operand.aval.shape else ())
        places[axis] = body.checked(value, NAMES[operand.dtype], node.shape[axis], node)
    rest = iter(index[lead:])
    full = tuple(places[a] if a in places else next(rest) for a in range(len(node.shape)))
    offset = dot(full, strides(node.shape))
    dtype = NAMES[node.dtype]
    with body.scope() as inside:
        value = body.value(updates, index if updates.aval.shape else ())
        if adds:
            before = body.load(buffer_name(node), dtype, offset)
            value = body.compute("{0} + {1}", [(before, dtype), (value, dtype)], dtype, node.where)
        body.emit(Store(buffer_name(node), offset, value, dtype))
    statements: list[Stmt] = list(inside)
    for var, n in reversed(loops[lead:]):
        statements = [Loop(var, n, tuple(statements))]
    statements = [*body.statements, *statements]
    for var, n in reversed(loops[:lead]):
        statements = [Loop(var, n, tuple(statements))]
    nest.finish(body, [], statements, 1)


def window_nest(nest: Nest, shape: Sequence[int], write: Callable[[Body, Index], None]) -> None:
    """Run over all windows of a pooled shape; planes are parallel, windows in one plane run in order."""
    window = nest.node.params["window"]
    body = nest.body()
    loops = [(f"i{a}", n) for a, n in enumerate(shape)]
    index = tuple(Affine.var(v) for v, _ in loops)
    write(body, index)
    lead = len(shape) - len(window)
    statements: list[Stmt] = body.statements
    for var, n in reversed(loops[lead:]):
        statements = [Loop(var, n, tuple(statements))]
    outer, statements = collapse(loops[:lead], statements)
    work = 4
    for n in (*shape, *window):
        work *= n
    nest.finish(body, outer, statements, work)


def covers(nest: Nest, size: Sequence[int], out: Sequence[int]) -> bool:
    """Say whether the windows tile the input without gap and overlap."""
    window, stride, padding = (nest.node.params[k] for k in ("window", "stride", "padding"))
    tiled = all(k == s and n == m * k for k, s, n, m in zip(window, stride, size, out, strict=True))
    return tiled and not any(map(any, padding))


def nest_max_pool_route(nest: Nest) -> None:
    node = nest.node
    ct, x, y = node.operands
    window, stride, padding = (node.params[k] for k in ("window", "stride", "padding"))
    spatial = len(window)
    size, out = x.aval.shape[-spatial:], y.aval.shape[-spatial:]
    tiled = covers(nest, size, out)
    if not tiled:
        nest.fill(0.0)
    dtype = NAMES[node.dtype]

    def write(body: Body, index: Index) -> None:
        top = body.value(y, index)
        flow = body.value(ct, index)
        free: Any = Const(True, "bool")
        for tap in product(*map(range, window)):
            inner, limits = tap_place(index, tap, stride, padding, size)
            value = body.guarded(x, inner, limits, -np.inf)
            args = [(value, dtype), (top, dtype), (free, "bool")]
            hit = body.compute("{2} & (({0} == {1}) | ({0} != {0}))", args, "bool", node.where)
            free = body.compute("{0} & ~{1}", [(free, "bool"), (hit, "bool")], "bool")
            share = body.compute("{1} if {0} else 0.0", [(hit, "bool"), (flow, dtype)], dtype)
            add_or_store(body, node, inner, limits, share, tiled)

    window_nest(nest, y.aval.shape, write)


def nest_sum_pool_spread(nest: Nest) -> None:
    node = nest.node
    ct = node.operands[0]
    window, stride, padding, size = (node.params[k] for k in ("window", "stride", "padding", "size"))
    tiled = covers(nest, size, ct.aval.shape[-len(window) :])
    if not tiled:
        nest.fill(0.0)

    def write(body: Body, index: Index) -> None:
        flow = body.value(ct, index)
        for tap in product(*map(range, window)):
            inner, limits = tap_place(index, tap, stride, padding, size)
            add_or_store(body, node, inner, limits, flow, tiled)

    window_nest(nest, ct.aval.shape, write)


def tap_place(
    index: Index, tap: Sequence[int], stride: Sequence[int], padding: Any, size: Sequence[int]
) -> tuple[Index, list[tuple[Affine, int, int]]]:
    """Return where one tap of a window lies, and the limits it must keep when there is padding."""
    lead = index[: len(index) - len(tap)]
    inner = [i * s + (t - p[0]) for i, s, t, p in zip(index[len(lead) :], stride, tap, padding, strict=True)]
    limits = [(i, 0, n) for i, n, p in zip(inner, size, padding, strict=True) if any(p)]
    return (*lead, *inner), limits


def add_or_store(body: Body, node: Node, index: Index, limits: Any, value: Any, tiled: bool) -> None:
    """Write one element if it lies inside the array: store it, or add to what is there."""
    dtype = NAMES[node.dtype]
    offset = dot(index, strides(node.shape))
    guard = Guard(tuple(limits)) if limits else None
    if not tiled:
        before = body.names()
        body.emit(Load(before, dtype, buffer_name(node), offset, guard))
        value = body.compute("{0} + {1}", [(before, dtype), (value, dtype)], dtype, node.where)
    body.emit(Store(buffer_name(node), offset, value, dtype, guard))


RULES: dict[Any, Callable[[Nest], None]] = {
    concat: nest_concat,
    transpose: nest_turn,
    turn: nest_turn,
    pad: nest_pad,
    set_slice: nest_set_slice,
    scatter_add: lambda nest: nest_scatter(nest, adds=True),
    scatter_set: lambda nest: nest_scatter(nest, adds=False),
    max_pool_route: nest_max_pool_route,
    sum_pool_spread: nest_sum_pool_spread,
}


def lower_nest(node: Node, context: Context, name: str) -> Lowered:
    """Lower one node with loops of its own."""
    nest = Nest(node, context, name)
    RULES[node.prim](nest)
    return Lowered(tuple(nest.kernels), tuple(nest.needs))
