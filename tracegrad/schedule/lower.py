"""Units -> kernels. Three forms, by what a unit reduces:

    no reduction     for each element: compute, store
    rows             the last axis is reduced: for each row { pass over the row; row values; pass over the row; ... }
    columns          the last axis is kept: for each block of columns { for each row { for each column ... }; ... }
    everything       the whole domain is reduced: partial results per chunk in one kernel, their sum in a second one
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tracegrad.ir import Node
from tracegrad.ir.aval import NAMES
from tracegrad.schedule.body import Body, buffer_name
from tracegrad.schedule.fuse import Unit
from tracegrad.schedule.index import ZERO, Affine, Index, dot, strides
from tracegrad.schedule.kernel import (
    Accumulate,
    Const,
    Declare,
    Kernel,
    Load,
    Local,
    Loop,
    ReadAcc,
    Stmt,
    Store,
    affines,
    substitute,
)
from tracegrad.schedule.kinds import cost

KEEP_COST = 10
KEEP_SIZE = 4096
CHUNK = 8192
BLOCK = 512
SMALL = 1 << 14


@dataclass(frozen=True)
class Context:
    """What lowering needs to know about the program."""

    inlines: Callable[[Node], bool]
    checks: dict[int, Node]
    threads: int


@dataclass(frozen=True)
class Lowered:
    """Kernels in order, the nodes they read from memory, and temporary buffers (name -> dtype, size) between them."""

    kernels: tuple[Kernel, ...]
    needs: tuple[Node, ...]
    temporaries: tuple[tuple[str, str, int], ...] = ()


def lower(unit: Unit, wanted: set[Node], context: Context, name: str) -> Lowered:
    """Lower one fused unit; `wanted` are its nodes that others read from memory."""
    if unit.axes is None:
        return Elements(unit, wanted, context, name).lower()
    if not unit.kept:
        return Everything(unit, wanted, context, name).lower()
    if len(unit.shape) - 1 in unit.axes:
        return Rows(unit, wanted, context, name).lower()
    return Columns(unit, wanted, context, name).lower()


class Form:
    """Common to all forms: loop variables, the body, and which node is computed in which pass."""

    def __init__(self, unit: Unit, wanted: set[Node], context: Context, name: str):
        self.unit = unit
        self.wanted = [n for n in unit.nodes if n in wanted]
        self.context = context
        self.name = name
        self.body = Body(context.inlines, context.checks)
        self.dims = [f"i{a}" for a in range(len(unit.shape))]
        self.index: Index = tuple(Affine.var(d) for d in self.dims)
        self.row: Index = tuple(self.index[a] for a in unit.kept)
        self.body.here = set(unit.nodes)
        self.stage: dict[Node, int] = {}
        if unit.axes is not None:
            self.assign_stages()

    def assign_stages(self) -> None:
        """A reduction of pass s is known after it, so what reads it belongs to pass s + 1."""
        mine = set(self.unit.nodes)
        live = self.live(mine)
        for node in self.unit.nodes:
            if node not in live:
                continue
            stage = 0
            for source in self.sources(node):
                later = 1 if self.is_reduction(source) else 0
                stage = max(stage, self.stage[source] + later)
            self.stage[node] = stage

    def live(self, mine: set[Node]) -> set[Node]:
        live = set(self.wanted)
        for node in reversed(self.unit.nodes):
            if node in live:
                live.update(s for s in self.sources(node))
        return live

    def sources(self, node: Node) -> list[Node]:
        """Return the nodes of this unit that `node` reads, seen through broadcasts."""
        found = []
        for operand in node.nodes():
            source = operand
            while source not in self.body.here and source.prim.kind == "shape" and any(True for _ in source.nodes()):
                source = next(source.nodes())
            if source in self.body.here:
                found.append(source)
        return found

    def is_reduction(self, node: Node) -> bool:
        return node.prim.kind == "reduce"

    @property
    def passes(self) -> int:
        outer = self.unit.outer
        return max((s for n, s in self.stage.items() if n not in outer or self.is_reduction(n)), default=0) + 1

    def reductions(self, stage: int) -> list[Node]:
        return [n for n in self.unit.nodes if self.is_reduction(n) and self.stage.get(n) == stage]

    def outer_nodes(self, stage: int) -> list[Node]:
        """Return the wanted outer nodes that are known after this pass and not before."""
        return [n for n in self.wanted if n in self.unit.outer and self.ready(n) == stage]

    def ready(self, node: Node) -> int:
        return self.stage[node] if self.is_reduction(node) else max(self.stage[node] - 1, 0)

    def inner_stores(self, stage: int) -> list[Node]:
        return [n for n in self.wanted if n not in self.unit.outer and self.stage[n] == stage]

    def store(self, node: Node, index: Index) -> None:
        value = self.body.value(node, index)
        self.body.emit(Store(buffer_name(node), dot(index, strides(node.shape)), value, NAMES[node.dtype]))

    def kernel(self, outer: Sequence[tuple[str, int]], body: Sequence[Stmt], work: int, suffix: str = "") -> Kernel:
        wheres = {n.where: None for n in self.unit.nodes if n.where is not None}
        notes = tuple(str(w) for w in list(wheres)[:4])
        return Kernel(self.name + suffix, tuple(outer), tuple(body), work=work, notes=notes)

    # --- values that later passes need again --------------------------------------------------------------------------

    def kept_values(self) -> dict[Node, str]:
        """Choose the expensive inner values that more than one pass uses: they stay in an array on the stack."""
        uses: dict[Node, set[int]] = {}
        for stage in range(self.passes):
            roots = [n.operands[0] for n in self.reductions(stage)] + list(self.inner_stores(stage))
            pending = [r for r in roots if isinstance(r, Node)]
            seen: set[Node] = set()
            while pending:
                node = pending.pop()
                if node in seen or node not in self.stage or node in self.unit.outer:
                    continue
                seen.add(node)
                uses.setdefault(node, set()).add(stage)
                pending.extend(self.sources(node))
        size = self.unit.size // max(int(np.prod(self.unit.outer_shape)), 1)
        if size > KEEP_SIZE:
            return {}
        return {n: f"keep{i}" for i, n in enumerate(uses) if len(uses[n]) > 1 and cost(n) >= KEEP_COST}

    def inner_strides(self) -> tuple[int, ...]:
        """Return factors that number the elements of one row."""
        axes = self.unit.axes or ()
        steps = strides([self.unit.shape[a] for a in axes])
        factors = dict(zip(axes, steps, strict=True))
        return tuple(factors.get(a, 0) for a in range(len(self.unit.shape)))

    def declare_kept(self, kept: dict[Node, str]) -> None:
        size = int(np.prod([self.unit.shape[a] for a in self.unit.axes or ()]))
        for node, name in kept.items():
            self.body.emit(Local(name, NAMES[node.dtype], size))

    def use_kept(self, kept: dict[Node, str], stage: int) -> None:
        """At the start of a pass, compute and keep the values that belong to it, and read those of earlier passes."""
        place = dot(self.index, self.inner_strides())
        for node, name in kept.items():
            if self.stage[node] == stage:
                value = self.body.value(node, self.index)
                self.body.emit(Store(name, place, value, NAMES[node.dtype]))
            elif self.stage[node] < stage:
                self.body.recalls[node, self.index] = (name, place)


class Elements(Form):
    """One pass over a domain, nothing reduced."""

    def lower(self) -> Lowered:
        for node in self.wanted:
            self.store(node, self.index)
        loops = list(zip(self.dims, self.unit.shape, strict=True))
        outer, body = collapse(loops, self.body.statements)
        work = self.unit.size * max(self.body.work, 1)
        if len(outer) > 1:
            inner = outer.pop()
            body = [Loop(inner[0], inner[1], tuple(body))]
        return Lowered((self.kernel(outer, body, work),), tuple(self.body.needs))


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
            self.outer_values(stage)
            with body.scope() as inside:
                self.use_kept(kept, stage)
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
            for node in self.outer_nodes(stage):
                self.store(node, self.row)
        outer = [(self.dims[a], unit.shape[a]) for a in unit.kept]
        outer, statements = collapse(outer, body.statements)
        work = unit.size * max(body.work, 1)
        return Lowered((self.kernel(outer, statements, work),), tuple(body.needs))

    def outer_values(self, stage: int) -> None:
        """Compute, before a pass, the row values that its elements read."""
        for node in self.unit.nodes:
            if self.stage.get(node) == stage and node not in self.unit.outer:
                for source in self.sources(node):
                    if source in self.unit.outer:
                        self.body.value(source, self.row)


class Columns(Form):
    """The last axis is kept: accumulators are arrays over a block of columns."""

    def lower(self) -> Lowered:
        body, unit = self.body, self.unit
        last = len(unit.shape) - 1
        width = unit.shape[last]
        block = min(BLOCK, max(32, -(-width // (2 * self.context.threads))))
        blocks = -(-width // block)
        self.block, self.width, self.column = block, width, self.dims[last]
        self.slot = Affine.var(self.column) + Affine.var("b", -block)
        for stage in range(self.passes):
            self.one_pass(stage)
        outer = [(self.dims[a], unit.shape[a]) for a in unit.kept if a != last] + [("b", blocks)]
        work = unit.size * max(body.work, 1)
        return Lowered((self.kernel(outer, body.statements, work),), tuple(body.needs))

    def columns(self, inside: Sequence[Stmt]) -> Loop:
        """Loop over the columns of this task's block."""
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
            for node, acc in accumulators.items():
                value = body.value(node.operands[0], self.index)
                dtype = NAMES[node.dtype]
                before = body.load(acc, dtype, self.slot)
                body.emit(Store(acc, self.slot, body.compute(combine(node), [(before, dtype), (value, dtype)], dtype), dtype))
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
            for node in self.outer_nodes(stage):
                self.store(node, self.row)
            for node, name in places.items():
                body.emit(Store(name, self.slot, body.value(node, self.row), NAMES[node.dtype]))
        self.recall(places)
        if inside:
            body.emit(self.columns(inside))


class Everything(Rows):
    """The whole domain is reduced to scalars: by one task when it is small, else chunk by chunk and then together."""

    def lower(self) -> Lowered:
        if self.unit.size <= SMALL or self.passes > 1:
            return super().lower()
        loops = list(zip(self.dims, self.unit.shape, strict=True))
        reductions = self.reductions(0)
        body = self.body
        with body.scope() as inside:
            values = {n: body.value(n.operands[0], self.index) for n in reductions}
            for node in self.inner_stores(0):
                self.store(node, self.index)
        loops, inside = collapse(loops, inside)
        outer, inner, count = self.chunks(loops)
        task = dot([Affine.var(name) for name, _ in outer], strides([n for _, n in outer]))
        partials = {n: f"{self.name}.partial{i}" for i, n in enumerate(reductions)}
        accumulators = {n: body.names("acc") for n in reductions}
        for node, acc in accumulators.items():
            body.emit(Declare(acc, NAMES[node.dtype], first_value(node)))
            inside.append(Accumulate(acc, NAMES[node.dtype], combine(node), values[node]))
        body.emit(inner(inside))
        for node, acc in accumulators.items():
            name = body.names()
            body.emit(ReadAcc(name, NAMES[node.dtype], acc))
            body.emit(Store(partials[node], task, name, NAMES[node.dtype]))
        work = self.unit.size * max(body.work, 1)
        first = self.kernel(outer, body.statements, work)
        needs = list(body.needs)
        second, more = self.finish(partials, count)
        temporaries = tuple((name, NAMES[n.dtype], count) for n, name in partials.items())
        return Lowered((first, second), (*needs, *more), temporaries)

    def chunks(self, loops: list[tuple[str, int]]) -> tuple[list[tuple[str, int]], Callable[[list[Stmt]], Loop], int]:
        """Split the domain into tasks: the outer loops, the inner nest, and how many partial results there are."""
        if len(loops) == 1:
            var, n = loops[0]
            count = -(-n // CHUNK)
            return [("c", count)], lambda inside: Loop(var, CHUNK, tuple(inside), Affine.var("c", CHUNK), n), count
        outer, inner, count, rest = [], list(loops), 1, self.unit.size
        while len(inner) > 1 and rest > CHUNK:
            outer.append(inner.pop(0))
            count *= outer[-1][1]
            rest //= outer[-1][1]
        return outer, lambda inside: nest(inner, inside), count

    def finish(self, partials: dict[Node, str], count: int) -> tuple[Kernel, list[Node]]:
        """Join the partial results, and compute what follows from them."""
        body = Body(self.context.inlines, self.context.checks)
        body.here = set(self.unit.nodes)
        self.body = body
        for node, buffer in partials.items():
            dtype = NAMES[node.dtype]
            acc = body.names("acc")
            wide = "f64" if dtype == "f32" else dtype
            start = first_value(node)
            body.emit(Declare(acc, wide, Const(start.value, wide)))
            with body.scope() as inside:
                value = body.load(buffer, dtype, Affine.var("c"))
                widened = body.compute("{0}", [(value, dtype)], wide) if wide != dtype else value
                body.emit(Accumulate(acc, wide, combine(node), widened))
            body.emit(Loop("c", count, tuple(inside)))
            total = body.names()
            body.emit(ReadAcc(total, wide, acc))
            body.memo[(node, (), None)] = body.compute("{0}", [(total, wide)], dtype) if wide != dtype else total
        for node in self.outer_nodes(0):
            self.store(node, ())
        return self.kernel([], body.statements, count, "_total"), body.needs


def first_value(node: Node) -> Const:
    """Return what an accumulator starts from."""
    dtype = node.dtype
    identity = getattr(node.prim, "identity", lambda d: None)(dtype)
    if identity is None:
        smallest = "maximum" in getattr(node.prim, "combine", "")
        if dtype.kind == "f":
            identity = -np.inf if smallest else np.inf
        elif dtype.kind == "b":
            identity = not smallest
        else:
            info = np.iinfo(dtype)
            identity = int(info.min if smallest else info.max)
    return Const(identity, NAMES[dtype])


def combine(node: Node) -> str:
    return str(getattr(node.prim, "combine", ""))


def nest(loops: Sequence[tuple[str, int]], inside: Sequence[Stmt]) -> Loop:
    """Wrap statements into loops, collapsing neighbours that walk memory as one."""
    loops, body = collapse(list(loops), list(inside))
    if not loops:
        loops = [("once", 1)]
    for var, n in reversed(loops):
        body = [Loop(var, n, tuple(body))]
    loop = body[0]
    assert isinstance(loop, Loop)
    return loop


def collapse(loops: Sequence[tuple[str, int]], body: Sequence[Stmt]) -> tuple[list[tuple[str, int]], list[Stmt]]:
    """Drop loops of one round, and join neighbouring loops whose indices advance as one."""
    statements = tuple(body)
    once = {var: ZERO for var, n in loops if n == 1}
    if once:
        statements = substitute(statements, once)
    kept = [(var, n) for var, n in loops if n != 1]
    found: list[tuple[str, int]] = []
    used = list(affines(statements))
    for var, n in kept:
        if found:
            outer, m = found[-1]
            if all(a.factor(outer) == a.factor(var) * n for a in used):
                statements = substitute(statements, {outer: ZERO})
                used = list(affines(statements))
                found[-1] = (var, m * n)
                continue
        found.append((var, n))
    return found, list(statements)


__all__ = ["Context", "Form", "Load", "Lowered", "collapse", "lower", "nest"]
