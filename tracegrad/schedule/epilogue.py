"""Epilogues: element-wise work that a library call does on each finished block of its result, while it is in cache.

Loops that read the result of a product or a convolution at their own element become a part of the call; so do loops
that reduce its last axes (softmax, layer norm, a mean over each plane) where its blocks are whole rows. The call then
waits for whatever else they read, so none of that may depend on the result. Loops and call stay what they are: a unit
is called, and lowered as before, but its loops run over a block at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod

from tracegrad.ir import Graph, Node
from tracegrad.ir.aval import is_float
from tracegrad.ops.contract import dot
from tracegrad.ops.conv import conv, conv_dw, conv_dx
from tracegrad.schedule.body import buffer_name
from tracegrad.schedule.form import Context, Form, Lowered
from tracegrad.schedule.fuse import LONGEST, Fusion
from tracegrad.schedule.index import Affine, strides
from tracegrad.schedule.index import dot as offset
from tracegrad.schedule.kernel import Kernel, Load, Loop, Stmt, Store, walk
from tracegrad.schedule.lower import Elements
from tracegrad.schedule.reads import under_views
from tracegrad.schedule.rows import Rows
from tracegrad.schedule.split import is_split
from tracegrad.schedule.units import Refusal, Unit

BLOCKWISE = (dot, conv, conv_dx, conv_dw)
"""Calls whose kernels finish their result block by block."""
ONE_TASK_FLOPS = 1 << 17
SHARED_WORK = 24_000
"""Calls below, and loops from, so much work: the call runs in one task, the loops alone would run in several."""


Grain = Callable[[Node], int]
"""How many neighbours the finished blocks of a call's result are multiples of; 0 where they are parts of rows."""


class Epilogues:
    """Moves loops into the library calls that they follow."""

    def __init__(self, fusion: Fusion, threads: int, grain: Grain):
        self.fusion = fusion
        self.threads = threads
        self.grain = grain
        self.context = Context(fusion.inlines, {}, threads)
        self.last_reads = last_reads(fusion.graph)

    def run(self) -> None:
        for loops in [u for u in self.fusion.units if u.how == "point"]:
            for source, reader in sorted(self.results(loops).items(), key=lambda pair: -self.fusion.position[pair[0]]):
                call = self.fusion.unit_of[source]
                joined = self.joined(loops, call)
                reason = self.refuse(loops, call, joined)
                if not reason and joined is not None:
                    self.merge(loops, call, joined)
                    break
                self.fusion.refusals.append(Refusal(reader, source, reason))

    def results(self, loops: Unit) -> dict[Node, Node]:
        """Map the results of library calls that these loops read to the first node that reads them."""
        found: dict[Node, Node] = {}
        for node in loops.nodes:
            for read in self.fusion.unit_reads(node, loops):
                if self.fusion.unit_of[read].nodes[0] is read and self.fusion.unit_of[read].how == "library":
                    found.setdefault(read, node)
        return found

    def joined(self, loops: Unit, call: Unit) -> Unit | None:
        """Return these loops with those that run on the blocks already, or None if they are not one loop nest."""
        first = call.epilogue
        if first is None:
            return loops
        is_apart = not any(r in first.nodes for n in loops.nodes for r in self.fusion.unit_reads(n, loops))
        axes = {u.axes for u in (first, loops) if u.axes is not None}
        nodes = sorted([*first.nodes, *loops.nodes], key=self.fusion.position.__getitem__)
        if is_apart and first.shape == loops.shape and len(axes) < 2 and len(nodes) <= LONGEST:
            return Unit(nodes, "point", loops.shape, next(iter(axes), None), first.outer | loops.outer)
        return None

    def refuse(self, loops: Unit, call: Unit, joined: Unit | None) -> str:
        """Return why `loops` cannot run on the blocks of `call`, as a part of `joined`, or an empty string."""
        node = call.nodes[0]
        if node.prim not in BLOCKWISE or not is_float(node.dtype):
            return "its kernel has no finished blocks to work on"
        if joined is None:
            return "other loops run on the blocks of its result"
        if loops.size != node.aval.size:
            return "its shape is not that of the result"
        for source in self.fusion.dependencies(loops):
            if source is not call and self.fusion.reaches(source, call):
                return "another value that the loops read is computed from its result"
        reason = self.refuse_rows(joined, node) if joined.axes is not None else ""
        if reason:
            return reason
        (kernel,) = loop_nest(joined, self.context).kernels
        if not reads_own_blocks(joined, kernel, buffer_name(node)):
            return "it reads elements at other positions"
        if self.threads > 1 and kernel.work >= SHARED_WORK:
            if flops(node) < ONE_TASK_FLOPS:
                return "the call is too small to share its work among threads, the loops are not"
            if self.grain(node) == loops.size:
                return "its result is one block, the loops have work for several threads"
        return ""

    def refuse_rows(self, loops: Unit, node: Node) -> str:
        """Return why loops that reduce cannot run on the blocks of a result, or an empty string."""
        assert loops.axes is not None
        if loops.size == 0:
            return "its result has no blocks"
        if loops.kept != tuple(range(len(loops.kept))):
            return "the loops that read its result reduce other axes than the last"
        passes = Form(loops, set(loops.nodes), self.context, "").passes
        if is_split(loops, passes):
            return "the loops that read its result reduce so much that tasks share a row"
        grain = self.grain(node)
        if grain == 0 or grain % (loops.size // prod(loops.outer_shape)):
            return "the loops that read its result reduce, and its blocks are not whole rows"
        return ""

    def merge(self, loops: Unit, call: Unit, joined: Unit) -> None:
        """Make the loops a part of the call, which keeps its place in the order as far as its operands allow.

        A result that may take over an argument's memory must come after whatever else reads the argument.
        """
        call.nodes += loops.nodes
        call.epilogue = joined
        last = call.last
        self.fusion.absorb(call, loops)
        givers = {n for n in self.arguments(loops) if n.aval.size == loops.size}
        call.last = max([last, *(self.last_reads[n] for n in givers if n in self.last_reads)])

    def arguments(self, loops: Unit) -> Iterator[Node]:
        """Yield the inputs of the graph that these loops read."""
        for node in loops.nodes:
            for operand in node.nodes():
                source = under_views(operand)
                if self.fusion.unit_of[source].how == "input":
                    yield source


def last_reads(graph: Graph) -> dict[Node, int]:
    """Return the position of the last node before any update that reads each input of the graph."""
    offset = len(graph.inputs)
    inputs = set(graph.inputs)
    found: dict[Node, int] = {}
    for i, node in enumerate(graph.nodes):
        for operand in node.nodes():
            source = under_views(operand)
            if source in inputs and node.prim.kind != "elementwise":
                found[source] = i + offset
    return found


def loop_nest(loops: Unit, context: Context, wanted: set[Node] | None = None, name: str = "") -> Lowered:
    """Lower loops that run on blocks; without `wanted`, as if all their values were."""
    form = Elements if loops.axes is None else Rows
    return form(loops, set(loops.nodes) if wanted is None else wanted, context, name).lower()


def reads_own_blocks(loops: Unit, kernel: Kernel, buffer: str) -> bool:
    """Say whether loops read of a buffer only what lies in the block that they run on."""
    if loops.axes is None:
        return reads_own_element(kernel, buffer)
    return reads_own_row(kernel, buffer, loops.size // kernel.extent)


def reads_own_element(kernel: Kernel, buffer: str) -> bool:
    """Say whether loops read a buffer only at the element that they store."""
    places = {s.index for s in walk(kernel.body) if isinstance(s, Store)}
    loads = [s for s in walk(kernel.body) if isinstance(s, Load) and s.buffer == buffer]
    return len(places) == 1 and all(s.guard is None and s.index in places for s in loads)


def reads_own_row(kernel: Kernel, buffer: str, row: int) -> bool:
    """Say whether each round of a kernel reads a buffer only in its own `row` neighbours."""
    steps = strides([n for _, n in kernel.outer])
    first = offset([Affine.var(v) for v, _ in kernel.outer], [step * row for step in steps])
    return all(
        s.guard is None and lies_within(s.index + first * -1, extents, row)
        for s, extents in loads_of(kernel.body, buffer, {})
    )


def loads_of(body: Iterable[Stmt], buffer: str, extents: Mapping[str, int]) -> Iterator[tuple[Load, Mapping[str, int]]]:
    """Yield the loads of a buffer, with the extents of the loops around each."""
    for s in body:
        if isinstance(s, Loop):
            yield from loads_of(s.body, buffer, {**extents, s.var: s.extent})
        elif isinstance(s, Load) and s.buffer == buffer:
            yield s, extents


def lies_within(index: Affine, extents: Mapping[str, int], size: int) -> bool:
    """Say whether an index is one of 0..size-1 in every round of the loops around it."""
    if any(v not in extents or factor < 0 for v, factor in index.terms) or index.const < 0:
        return False
    return index.const + sum(factor * (extents[v] - 1) for v, factor in index.terms) < size


def flops(node: Node) -> int:
    """Return the multiplications and additions of a product or a convolution."""
    a, b = (o.aval for o in node.operands)
    if node.prim is dot:
        inner: int = prod(a.shape[axis] for axis in node.params["contract"][0])
        return 2 * node.aval.size * inner
    weights = node.aval if node.prim is conv_dw else b
    output = {conv: node.aval, conv_dx: a, conv_dw: b}[node.prim]
    return 2 * output.size * prod(weights.shape[1:])


def fuse_epilogues(fusion: Fusion, threads: int, grain: Grain) -> None:
    """Move loops into the library calls whose result they read, where that is right; note the reason where it is
    not."""
    if any(u.how == "library" for u in fusion.units):
        Epilogues(fusion, threads, grain).run()


