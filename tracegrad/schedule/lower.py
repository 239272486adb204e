"""Units -> kernels. The form depends on what a unit reduces:

    elements    nothing: for each element compute and store
    rows        the last axis: for each row { pass over the row; row values; pass over the row; ... }
    columns     not the last axis: for each block of columns { for each row { for each column ... }; ... }
    split       a single pass with few results: partial results per piece in one kernel, joined in a second one
"""

from __future__ import annotations

from tracegrad.ir import Node
from tracegrad.schedule.columns import Columns
from tracegrad.schedule.form import Context, Form, Lowered, collapse
from tracegrad.schedule.kernel import Loop
from tracegrad.schedule.rows import Rows
from tracegrad.schedule.split import Split, is_split
from tracegrad.schedule.units import Unit


def lower(unit: Unit, wanted: set[Node], context: Context, name: str) -> Lowered:
    """Lower one fused unit; `wanted` are its nodes that others read from memory."""
    if unit.axes is None:
        return Elements(unit, wanted, context, name).lower()
    if is_split(unit, Form(unit, wanted, context, name).passes):
        return Split(unit, wanted, context, name).lower()
    if not unit.kept or len(unit.shape) - 1 in unit.axes:
        return Rows(unit, wanted, context, name).lower()
    return Columns(unit, wanted, context, name).lower()


class Elements(Form):
    """One pass over a domain, nothing reduced."""

    def lower(self) -> Lowered:
        live = self.live()
        self.compute_in_order([n for n in self.unit.nodes if n in live], self.index)
        for node in self.wanted:
            self.store(node, self.index)
        loops = list(zip(self.dims, self.unit.shape, strict=True))
        outer, body = collapse(loops, self.body.statements)
        work = self.unit.size * max(self.body.work, 1)
        if len(outer) > 1:
            inner = outer.pop()
            body = [Loop(inner[0], inner[1], tuple(body))]
        return Lowered((self.kernel(outer, body, work),), tuple(self.body.needs))
