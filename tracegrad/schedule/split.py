"""Reductions with too few results to share among tasks: partial results of pieces in one kernel, joined in a
second one.

Which reductions are split, and how, depends on shapes alone, never on the number of threads: the result is the
same everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tracegrad.ir import Node
from tracegrad.ir.aval import NAMES
from tracegrad.schedule.body import Body
from tracegrad.schedule.form import Form, Lowered, collapse, combine, first_value, nest
from tracegrad.schedule.index import Affine, dot, strides
from tracegrad.schedule.kernel import Accumulate, Const, Declare, Kernel, Local, Loop, ReadAcc, Stmt, Store, Value
from tracegrad.schedule.units import Unit

CHUNK = 8192
SMALL = 1 << 14
FEW_ROWS = 32
NARROW = 64

Loops = list[tuple[str, int]]


def keeps_last(unit: Unit) -> bool:
    return len(unit.shape) - 1 not in (unit.axes or ())


def is_split(unit: Unit, passes: int) -> bool:
    """Say whether a reduction of one pass has few results and many elements."""
    results = math.prod(unit.outer_shape)
    return passes == 1 and unit.size > SMALL and results <= (NARROW if keeps_last(unit) else FEW_ROWS)


class Split(Form):
    """One pass, cut into pieces along the reduced axes."""

    def lower(self) -> Lowered:
        body, unit = self.body, self.unit
        self.reduced = self.reductions(0)
        self.kept = [(self.dims[a], unit.shape[a]) for a in unit.kept]
        self.results = math.prod(unit.outer_shape)
        self.slot = dot(self.row, strides(unit.outer_shape))
        self.partials = {n: f"{self.name}.partial{i}" for i, n in enumerate(self.reduced)}
        with body.scope() as inside:
            self.compute_in_order(self.used_in(0), self.index)
            values = {n: body.value(n.operands[0], self.index) for n in self.reduced}
            for node in self.inner_stores(0):
                self.store(node, self.index)
        reduced, inside = collapse([(self.dims[a], unit.shape[a]) for a in unit.axes or ()], inside)
        pieces, inner = cut(reduced, max(CHUNK // (self.results if keeps_last(unit) else 1), 1))
        count = math.prod(n for _, n in pieces)
        piece = dot([Affine.var(v) for v, _ in pieces], strides([n for _, n in pieces])) * self.results
        if keeps_last(unit):
            self.on_stack(inside, values, inner, piece)
            outer = pieces
        else:
            self.in_registers(inside, values, inner, piece + self.slot)
            outer = [*self.kept, *pieces]
        first = self.kernel(outer, body.statements, unit.size * max(body.work, 1))
        needs = list(body.needs)
        second = self.join(count)
        temporaries = tuple((name, NAMES[n.dtype], count * self.results) for n, name in self.partials.items())
        return Lowered((first, second), (*needs, *self.body.needs), temporaries)

    def in_registers(
        self, inside: list[Stmt], values: dict[Node, Value], inner: Sequence[Loop], place: Affine
    ) -> None:
        """The last axis is reduced: one accumulator per reduction."""
        body = self.body
        accumulators = {n: body.names("acc") for n in self.reduced}
        for node, acc in accumulators.items():
            body.emit(Declare(acc, NAMES[node.dtype], first_value(node)))
            inside.append(Accumulate(acc, NAMES[node.dtype], combine(node), values[node]))
        body.emit(wrap(inner, inside))
        for node, acc in accumulators.items():
            name = body.names()
            body.emit(ReadAcc(name, NAMES[node.dtype], acc))
            body.emit(Store(self.partials[node], place, name, NAMES[node.dtype]))

    def on_stack(self, inside: list[Stmt], values: dict[Node, Value], inner: Sequence[Loop], piece: Affine) -> None:
        """The last axis is kept: one row of sums per reduction, on the stack."""
        body = self.body
        rows = {n: body.names("row") for n in self.reduced}
        for node, row in rows.items():
            dtype = NAMES[node.dtype]
            body.emit(Local(row, dtype, self.results))
            body.emit(nest(self.kept, [Store(row, self.slot, first_value(node), dtype)]))
        with body.scope() as sums:
            for node, row in rows.items():
                dtype = NAMES[node.dtype]
                before = body.load(row, dtype, self.slot)
                total = body.compute(combine(node), [(before, dtype), (values[node], dtype)], dtype)
                body.emit(Store(row, self.slot, total, dtype))
        body.emit(wrap(inner, [nest(self.kept, [*inside, *sums])]))
        for node, row in rows.items():
            dtype = NAMES[node.dtype]
            with body.scope() as copy:
                body.emit(Store(self.partials[node], piece + self.slot, body.load(row, dtype, self.slot), dtype))
            body.emit(nest(self.kept, copy))

    def join(self, count: int) -> Kernel:
        """Join the partial results of each row, and compute what follows from them."""
        body = self.body = Body(self.context.inlines, self.context.checks)
        body.here = set(self.unit.nodes)
        for node, buffer in self.partials.items():
            dtype = NAMES[node.dtype]
            wide = "f64" if dtype == "f32" else dtype
            acc = body.names("acc")
            body.emit(Declare(acc, wide, Const(first_value(node).value, wide)))
            with body.scope() as inside:
                value: Value = body.load(buffer, dtype, Affine.var("c", self.results) + self.slot)
                if wide != dtype:
                    value = body.compute("{0}", [(value, dtype)], wide)
                body.emit(Accumulate(acc, wide, combine(node), value))
            body.emit(Loop("c", count, tuple(inside)))
            total = body.names()
            body.emit(ReadAcc(total, wide, acc))
            body.memo[(node, self.row, None)] = (
                body.compute("{0}", [(total, wide)], dtype) if wide != dtype else total
            )
        self.compute_in_order(self.outer_values(0), self.row)
        for node in self.outer_nodes(0):
            self.store(node, self.row)
        return self.kernel(self.kept, body.statements, count * self.results, "_total")


def cut(loops: Loops, chunk: int) -> tuple[Loops, list[Loop]]:
    """Cut a loop nest into pieces of about `chunk` rounds: the loops that number them, and the (empty) loops of
    one piece."""
    pieces: Loops = []
    rest = list(loops)
    while len(rest) > 1 and math.prod(n for _, n in rest[1:]) >= chunk:
        pieces.append(rest.pop(0))
    var, n = rest.pop(0)
    step = min(max(chunk // math.prod(m for _, m in rest), 1), n)
    pieces.append(("c", -(-n // step)))
    first = Loop(var, step, (), Affine.var("c", step), n)
    return pieces, [first, *(Loop(v, m, ()) for v, m in rest)]


def wrap(loops: Sequence[Loop], inside: Sequence[Stmt]) -> Loop:
    """Put statements into the innermost of these loops."""
    body = tuple(inside)
    for loop in reversed(loops):
        body = (Loop(loop.var, loop.extent, body, loop.start, loop.limit),)
    found = body[0]
    assert isinstance(found, Loop)
    return found
