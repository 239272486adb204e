"""Epilogues: element-wise work that a library call does on each finished block of its result, while it is in cache.

Loops without a reduction that read the result of a product or a convolution at their own element become a part of the
call. The call then waits for whatever else they read, so none of that may depend on the result. Loops and call stay
what they are: a unit is called, and lowered as before, but its loops run over a block at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from tracegrad.ir import Graph, Node
from tracegrad.ops.contract import dot
from tracegrad.ops.conv import conv, conv_dw, conv_dx
from tracegrad.schedule.body import buffer_name
from tracegrad.schedule.form import Context
from tracegrad.schedule.fuse import Fusion, Refusal, Unit, ordered
from tracegrad.schedule.kernel import Kernel, Load, Store, walk
from tracegrad.schedule.lower import Elements
from tracegrad.schedule.reads import under_views

BLOCKWISE = (dot, conv, conv_dx, conv_dw)
"""Calls whose kernels finish their result block by block."""
ONE_TASK_FLOPS = 1 << 17
SHARED_WORK = 24_000
"""Calls below, and loops from, so much work: the call runs in one task, the loops alone would run in several."""


class Epilogues:
    """Moves loops into the library calls that they follow."""

    def __init__(self, fusion: Fusion, threads: int):
        self.fusion = fusion
        self.threads = threads
        self.last_reads = last_reads(fusion.graph)
        units = ordered(fusion)
        self.bit = {unit: 1 << i for i, unit in enumerate(units)}
        self.above: dict[Unit, int] = {}
        for unit in units:
            mask = self.bit[unit]
            for source in fusion.dependencies(unit):
                mask |= self.above[source]
            self.above[unit] = mask

    def run(self) -> None:
        for loops in [u for u in self.fusion.units if u.how == "point"]:
            for source, reader in sorted(self.results(loops).items(), key=lambda pair: -self.fusion.position[pair[0]]):
                call = self.fusion.unit_of[source]
                reason = self.refuse(loops, call)
                if not reason:
                    self.merge(loops, call)
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

    def refuse(self, loops: Unit, call: Unit) -> str:
        """Return why `loops` cannot run on the blocks of `call`, or an empty string."""
        node = call.nodes[0]
        if node.prim not in BLOCKWISE or node.dtype.kind != "f":
            return "its kernel has no finished blocks to work on"
        if node.prim is conv_dx and node.params["stride"][-1] > 1:
            return "with a stride the blocks of its result have gaps"
        if len(call.nodes) > 1:
            return "other loops run on the blocks of its result"
        if loops.axes is not None:
            return "the loops that read its result reduce"
        if loops.size != node.aval.size:
            return "its shape is not that of the result"
        for source in self.fusion.dependencies(loops):
            if source is not call and self.above[source] & self.bit[call]:
                return "another value that the loops read is computed from its result"
        kernel = loop_nest(loops, self.fusion, self.threads)
        if not reads_own_element(kernel, buffer_name(node)):
            return "it reads elements at other positions"
        if self.threads > 1 and flops(node) < ONE_TASK_FLOPS and kernel.work >= SHARED_WORK:
            return "the call is too small to share its work among threads, the loops are not"
        return ""

    def merge(self, loops: Unit, call: Unit) -> None:
        """Make the loops a part of the call, which keeps its place in the order as far as its operands allow.

        A result that may take over an argument's memory must come after whatever else reads the argument.
        """
        call.nodes += loops.nodes
        self.fusion.unit_of |= dict.fromkeys(loops.nodes, call)
        self.fusion.memory_reads.pop(call, None)
        self.fusion.units.remove(loops)
        givers = {n for n in self.arguments(loops) if n.aval.size == loops.size}
        call.last = max([call.last, *(self.last_reads[n] for n in givers if n in self.last_reads)])
        both = self.bit[loops] | self.bit[call]
        mask = self.above[loops] | self.above[call]
        self.bit[call] = both
        for unit, above in self.above.items():
            if above & both:
                self.above[unit] = above | mask

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


def loop_nest(loops: Unit, fusion: Fusion, threads: int) -> Kernel:
    """Lower the loops as if all their values were wanted."""
    (kernel,) = Elements(loops, set(loops.nodes), Context(fusion.inlines, {}, threads), "").lower().kernels
    return kernel


def reads_own_element(kernel: Kernel, buffer: str) -> bool:
    """Say whether loops read a buffer only at the element that they store."""
    places = {s.index for s in walk(kernel.body) if isinstance(s, Store)}
    loads = [s for s in walk(kernel.body) if isinstance(s, Load) and s.buffer == buffer]
    return len(places) == 1 and all(s.guard is None and s.index in places for s in loads)


def flops(node: Node) -> int:
    """Return the multiplications and additions of a product or a convolution."""
    a, b = (o.aval for o in node.operands)
    if node.prim is dot:
        inner: int = prod(a.shape[axis] for axis in node.params["contract"][0])
        return 2 * node.aval.size * inner
    weights = node.aval if node.prim is conv_dw else b
    output = {conv: node.aval, conv_dx: a, conv_dw: b}[node.prim]
    return 2 * output.size * prod(weights.shape[1:])


def fuse_epilogues(fusion: Fusion, threads: int) -> None:
    """Move loops into the library calls whose result they read, where that is right; note the reason where it is
    not."""
    if any(u.how == "library" for u in fusion.units):
        Epilogues(fusion, threads).run()


