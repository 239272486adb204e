"""The last axis is kept: for each block of columns, passes over the rows with the sums of the block on the stack."""

from __future__ import annotations

from collections.abc import Sequence

from tracegrad.ir import Node
from tracegrad.ir.aval import NAMES
from tracegrad.schedule.form import Form, Lowered, combine, first_value, nest
from tracegrad.schedule.index import Affine
from tracegrad.schedule.kernel import Local, Loop, Stmt, Store

BLOCK = 512


class Columns(Form):
    """The last axis is kept: accumulators are arrays over a block of columns."""

    def lower(self) -> Lowered:
        body, unit = self.body, self.unit
        last = len(unit.shape) - 1
        width = unit.shape[last]
        block = min(BLOCK, max(32, -(-width // (2 * self.context.threads))))
        blocks = -(-width // block)
        self.width, self.column = width, self.dims[last]
        self.block = block if blocks > 1 else width
        self.slot = Affine.var(self.column)
        if blocks > 1:
            self.slot = self.slot + Affine.var("b", -block)
        for stage in range(self.passes):
            self.one_pass(stage)
        outer = [(self.dims[a], unit.shape[a]) for a in unit.kept if a != last]
        if blocks > 1:
            outer.append(("b", blocks))
        work = unit.size * max(body.work, 1)
        return Lowered((self.kernel(outer, body.statements, work),), tuple(body.needs))

    def columns(self, inside: Sequence[Stmt]) -> Loop:
        """Loop over the columns of this task's block, or over all of them where one block holds them."""
        if self.block == self.width:
            return Loop(self.column, self.width, tuple(inside))
        return Loop(self.column, self.block, tuple(inside), Affine.var("b", self.block), self.width)

    def one_pass(self, stage: int) -> None:
        body, unit = self.body, self.unit
        accumulators = {n: body.names("acc") for n in self.reductions(stage)}
        for node, acc in accumulators.items():
            body.emit(Local(acc, NAMES[node.dtype], self.block))
        with body.scope() as inside:
            for node, acc in accumulators.items():
                body.emit(Store(acc, self.slot, first_value(node), NAMES[node.dtype]))
        if inside:
            body.emit(self.columns(inside))
        with body.scope() as inside:
            self.compute_in_order(self.used_in(stage), self.index)
            for node, acc in accumulators.items():
                value = body.value(node.operands[0], self.index)
                dtype = NAMES[node.dtype]
                before = body.load(acc, dtype, self.slot)
                body.emit(
                    Store(acc, self.slot, body.compute(combine(node), [(before, dtype), (value, dtype)], dtype), dtype)
                )
            for node in self.inner_stores(stage):
                self.store(node, self.index)
        if inside:
            loops = [(self.dims[a], unit.shape[a]) for a in unit.axes or ()]
            body.emit(nest(loops, [self.columns(inside)]))
        self.recall(accumulators)
        self.outer_pass(stage)

    def recall(self, places: dict[Node, str]) -> None:
        """Let later passes read these row values from the stack."""
        for node, name in places.items():
            self.body.recalls[node, self.row] = (name, self.slot)

    def outer_pass(self, stage: int) -> None:
        """After a pass: store the outer values it completes, and keep on the stack those that later passes read."""
        body = self.body
        later = {
            s
            for n in self.unit.nodes
            if self.stage.get(n, -1) > stage and n not in self.unit.outer
            for s in self.sources(n)
            if s in self.unit.outer and not self.is_reduction(s) and self.ready(s) == stage
        }
        places = {n: body.names("row") for n in self.unit.nodes if n in later}
        for node, name in places.items():
            body.emit(Local(name, NAMES[node.dtype], self.block))
        with body.scope() as inside:
            self.compute_in_order(self.outer_values(stage), self.row)
            for node in self.outer_nodes(stage):
                self.store(node, self.row)
            for node, name in places.items():
                body.emit(Store(name, self.slot, body.value(node, self.row), NAMES[node.dtype]))
        self.recall(places)
        if inside:
            body.emit(self.columns(inside))
