"""The last axis is reduced: for each row, one pass after the other, with the reduced values in registers."""

from __future__ import annotations

from tracegrad.ir.aval import NAMES
from tracegrad.schedule.form import Form, Lowered, collapse, combine, first_value, nest
from tracegrad.schedule.kernel import Accumulate, Declare, ReadAcc


class Rows(Form):
    """The last axis is reduced: accumulators are registers."""

    def lower(self) -> Lowered:
        body, unit = self.body, self.unit
        kept = self.kept_values()
        self.declare_kept(kept)
        inner_loops = [(self.dims[a], unit.shape[a]) for a in unit.axes or ()]
        for stage in range(self.passes):
            accumulators = {n: body.names("acc") for n in self.reductions(stage)}
            for node, acc in accumulators.items():
                body.emit(Declare(acc, NAMES[node.dtype], first_value(node)))
            with body.scope() as inside:
                self.use_kept(kept, stage)
                self.compute_in_order(self.used_in(stage), self.index)
                for node, acc in accumulators.items():
                    value = body.value(node.operands[0], self.index)
                    body.emit(Accumulate(acc, NAMES[node.dtype], combine(node), value))
                for node in self.inner_stores(stage):
                    self.store(node, self.index)
            if inside:
                body.emit(nest(inner_loops, inside))
            for node, acc in accumulators.items():
                name = body.names()
                body.emit(ReadAcc(name, NAMES[node.dtype], acc))
                body.memo[(node, self.row, None)] = name
            self.compute_in_order(self.outer_values(stage), self.row)
            for node in self.outer_nodes(stage):
                self.store(node, self.row)
        outer = [(self.dims[a], unit.shape[a]) for a in unit.kept]
        outer, statements = collapse(outer, body.statements)
        work = unit.size * max(body.work, 1)
        return Lowered((self.kernel(outer, statements, work),), tuple(body.needs))
