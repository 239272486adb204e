"""What the forms of lowering share: loop variables, the body, which node is computed in which pass, loops that
collapse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tracegrad.ir import Node
from tracegrad.ir.aval import NAMES, is_float
from tracegrad.schedule.body import Body, Checks, buffer_name
from tracegrad.schedule.index import ZERO, Affine, Index, dot, strides
from tracegrad.schedule.kernel import Const, Kernel, Local, Loop, Stmt, Store, affines, substitute
from tracegrad.schedule.kinds import cost
from tracegrad.schedule.reads import under_views
from tracegrad.schedule.units import Unit

KEEP_COST = 10
KEEP_SIZE = 4096


@dataclass(frozen=True)
class Context:
    """What lowering needs to know about the program."""

    inlines: Callable[[Node], bool]
    checks: Checks
    threads: int


@dataclass(frozen=True)
class Lowered:
    """Kernels in order, the nodes they read from memory, and temporary buffers (name -> dtype, size) between them."""

    kernels: tuple[Kernel, ...]
    needs: tuple[Node, ...]
    temporaries: tuple[tuple[str, str, int], ...] = ()


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
        live = self.live()
        for node in self.unit.nodes:
            if node not in live:
                continue
            stage = 0
            for source in self.sources(node):
                later = 1 if self.is_reduction(source) else 0
                stage = max(stage, self.stage[source] + later)
            self.stage[node] = stage

    def live(self) -> set[Node]:
        """Return the nodes that the wanted ones depend on."""
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

    def compute_in_order(self, nodes: Sequence[Node], index: Index) -> None:
        """Compute values from first to last, so that no value is reached through a deep recursion."""
        for node in nodes:
            self.body.value(node, index)

    def used_in(self, stage: int) -> list[Node]:
        """Return, in order, the inner nodes that a pass computes."""
        pending = [n.operands[0] for n in self.reductions(stage)] + list(self.inner_stores(stage))
        roots = [under_views(r) for r in pending if isinstance(r, Node)]
        used: set[Node] = set()
        while roots:
            node = roots.pop()
            if node not in used and node in self.stage and node not in self.unit.outer:
                used.add(node)
                if (node, self.index) not in self.body.recalls:
                    roots.extend(self.sources(node))
        return [n for n in self.unit.nodes if n in used]

    def outer_values(self, stage: int) -> list[Node]:
        """Return, in order, the outer nodes that become known after a pass."""
        outer = self.unit.outer
        return [
            n
            for n in self.unit.nodes
            if n in outer and n in self.stage and not self.is_reduction(n) and self.ready(n) == stage
        ]

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
            for node in self.used_in(stage):
                uses.setdefault(node, set()).add(stage)
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


def first_value(node: Node) -> Const:
    """Return what an accumulator starts from."""
    dtype = node.dtype
    identity = getattr(node.prim, "identity", lambda d: None)(dtype)
    if identity is None:
        smallest = "maximum" in getattr(node.prim, "combine", "")
        if is_float(dtype):
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
