"""Fusion: which nodes share loops.

A group has a domain (a shape) and, once a reduction has joined, the axes that it reduces. Its nodes live on two
levels: `inner` nodes have the domain's shape, `outer` nodes the shape that is left after reducing. An inner node
may read an outer one through a broadcast over the reduced axes: that makes the group a sequence of passes over the
same data (softmax, layer norm) with the reduced values kept in registers.

Nodes join greedily in topological order, groups merge when a node joins two of them; both only if no path leads out
of the group and back. Every refusal is kept with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from tracegrad.ir import Graph, Node
from tracegrad.ir.aval import is_half
from tracegrad.ir.primitive import INPUT
from tracegrad.ops.elementwise import convert
from tracegrad.ops.index import gather
from tracegrad.ops.shape import broadcast, reshape
from tracegrad.schedule.kinds import cost, lowering
from tracegrad.schedule.reads import (
    forced_nodes,
    is_affine,
    shared_nodes,
    split_nodes,
    under_reshapes,
    under_views,
    views_of,
)
from tracegrad.schedule.units import Link, Refusal, Unit

INLINE_COST = 12
INLINE_NODES = 8
LONGEST = 200
FULL_REDUCTION_SIZE = 1 << 16


class Fusion:
    """Cuts a graph into units; nodes in `alone` have loops of their own."""

    def __init__(self, graph: Graph, alone: Collection[Node] = ()):
        self.graph = graph
        self.alone = alone
        self.position = {n: i for i, n in enumerate((*graph.inputs, *graph.nodes))}
        self.unit_of: dict[Node, Unit] = {}
        self.units: dict[Unit, None] = {}
        self.refusals: list[Refusal] = []
        self.forced = forced_nodes(graph)
        self.split = split_nodes(graph)
        self.shared = shared_nodes(graph)
        self._inline: dict[Node, bool] = {}
        self._reads: dict[Node, tuple[Node, ...]] = {}
        self.memory_reads: dict[Unit, tuple[Node, ...]] = {}
        self.order: dict[Unit, int] = {}
        self.readers: dict[Unit, set[Unit]] = {}

    def run(self) -> Fusion:
        for node in self.graph.inputs:
            self.add(node, "input")
        for node in self.graph.nodes:
            how = lowering(node)
            if how in ("point", "reduce") and node not in self.alone:
                self.place(node, how)
            else:
                self.add(node, how)
        return self

    def add(self, node: Node, how: str) -> Unit:
        shape = node.operands[0].aval.shape if how == "reduce" else node.shape
        at = self.position[node]
        unit = Unit([node], how, shape, last=at)
        if how == "reduce":
            unit.how = "point"
            unit.axes = node.params["axes"]
            unit.outer.add(node)
        self.units[unit] = None
        self.unit_of[node] = unit
        self.note(unit, self.unit_reads(node, unit))
        return unit

    # --- joining ------------------------------------------------------------------------------------------------------

    def place(self, node: Node, how: str) -> None:
        """Put `node` into the unit of one of its operands, merging units where that is legal, or into a new one."""
        joined: Unit | None = None
        tried: set[Unit] = set()
        for link in sorted(self.links(node), key=lambda link: -self.position[link.source]):
            unit = self.unit_of[link.source]
            if unit.how != "point" or unit in tried or unit is joined:
                continue
            tried.add(unit)
            reason = self.refuse(node, how, unit) if joined is None else self.refuse_merge(node, joined, unit)
            if reason:
                self.refusals.append(Refusal(node, link.source, reason))
            elif joined is None:
                joined = self.join(node, how, unit)
            else:
                joined = self.merge(joined, unit)
        if joined is None:
            self.add(node, how)

    def join(self, node: Node, how: str, unit: Unit) -> Unit:
        if how == "reduce":
            unit.axes = node.params["axes"]
            unit.outer.add(node)
        elif node.shape != unit.shape:
            unit.outer.add(node)
        unit.nodes.append(node)
        self.memory_reads.pop(unit, None)
        unit.last = self.position[node]
        self.unit_of[node] = unit
        self.note(unit, self.unit_reads(node, unit))
        return unit

    def merge(self, a: Unit, b: Unit) -> Unit:
        a.nodes = sorted([*a.nodes, *b.nodes], key=self.position.__getitem__)
        a.axes = a.axes if a.axes is not None else b.axes
        a.outer |= b.outer
        self.absorb(a, b)
        return a

    def absorb(self, a: Unit, b: Unit) -> None:
        """Let `a`, which has the nodes of `b` by now, take its place: in the units, their dependencies and order."""
        self.memory_reads.pop(a, None)
        a.last = max(a.last, b.last)
        self.unit_of |= dict.fromkeys(b.nodes, a)
        del self.units[b]
        self.readers.setdefault(a, set()).update(self.readers.pop(b, ()))
        self.order[a] = min(self.order[a], self.order.pop(b))
        self.settle(a)

    def refuse(self, node: Node, how: str, unit: Unit) -> str:
        """Return why `node` cannot join `unit`, or an empty string."""
        if len(unit.nodes) >= LONGEST:
            return f"the loops hold {LONGEST} values already"
        if how == "reduce":
            axes = node.params["axes"]
            if node.operands[0].aval.shape != unit.shape:
                return "it reduces another shape than the loops walk"
            if unit.axes is not None and unit.axes != axes:
                return f"the loops already reduce axes {unit.axes}, not {axes}"
            if unit.axes is None and any(len(n.shape) != len(unit.shape) for n in unit.nodes):
                return "the loops hold values of another rank"
        elif node.shape != unit.shape and not (unit.axes and node.shape == unit.outer_shape):
            return f"its shape is not the loops' {list(unit.shape)}"
        reason = self.refuse_links(node, how, unit)
        if reason:
            return reason
        for read in self.unit_reads(node, unit):
            other = self.unit_of[read]
            if other is unit:
                return "it reads elements at other positions"
            if self.reaches(other, unit):
                return "a value in between is computed elsewhere"
        return ""

    def refuse_links(self, node: Node, how: str, unit: Unit) -> str:
        """Check that every value read inside the unit is read at an index the loops have at hand."""
        inner = how == "reduce" or node.shape == unit.shape
        for link in self.links(node):
            if self.unit_of[link.source] is not unit:
                continue
            from_outer = link.source in unit.outer
            if link.mode == "other":
                return "it reads elements at other positions"
            if inner and from_outer:
                if link.mode != "row" or link.axes != unit.kept:
                    return "it reads a reduced value other than row by row"
                if not unit.outer_shape and unit.size > FULL_REDUCTION_SIZE:
                    return "the whole array would have to be reduced by one task first"
            elif inner and link.mode != "same":
                return "it reads elements at other positions"
            elif not inner and (not from_outer or link.mode != "same"):
                return "it mixes rows and elements"
        return ""

    def refuse_merge(self, node: Node, a: Unit, b: Unit) -> str:
        """Return why two units that `node` reads from cannot become one, or an empty string."""
        if len(a.nodes) + len(b.nodes) > LONGEST:
            return f"together the loops would hold more than {LONGEST} values"
        if a.shape != b.shape:
            return f"the loops walk {list(a.shape)} and {list(b.shape)}"
        if a.axes is not None and b.axes is not None and a.axes != b.axes:
            return f"the loops reduce axes {a.axes} and {b.axes}"
        if a.axes is None and b.axes is None and node in a.outer:
            return "it mixes rows and elements"
        if not a.outer_shape and a.axes and max(a.size, b.size) > FULL_REDUCTION_SIZE:
            return "the whole array would have to be reduced by one task first"
        for link in self.links(node):
            if self.unit_of[link.source] is b:
                wanted = "row" if link.source in b.outer and node not in a.outer else "same"
                if link.mode != wanted or (node in a.outer and link.source not in b.outer):
                    return "it reads elements at other positions"
        if self.reaches(a, b, direct=False) or self.reaches(b, a, direct=False):
            return "a value in between is computed elsewhere"
        for x, y in ((a, b), (b, a)):
            for inner in x.nodes:
                for link in self.links(inner):
                    if self.unit_of[link.source] is y and inner is not node:
                        return "one of them reads the other"
        return ""

    # --- dependencies -------------------------------------------------------------------------------------------------

    def dependencies(self, unit: Unit) -> Iterator[Unit]:
        """Yield the other units whose values `unit` reads from memory."""
        found = self.memory_reads.get(unit)
        if found is None:
            reads = (read for node in unit.nodes for read in self.unit_reads(node, unit))
            found = self.memory_reads[unit] = tuple(dict.fromkeys(reads))
        for read in found:
            if self.unit_of[read] is not unit:
                yield self.unit_of[read]

    def unit_reads(self, node: Node, unit: Unit) -> Iterator[Node]:
        """Yield what `node`, computed in the loops of `unit`, reads from memory."""
        for operand in node.nodes():
            row = operand.operands[0] if operand.prim is broadcast else operand
            if self.unit_of[operand] is not unit and not (isinstance(row, Node) and self.unit_of[row] is unit):
                yield from self.reads(operand)
            if node is unit.nodes[0] and unit.how in ("library", "control"):
                yield from views_of(operand)

    def reads(self, node: Node) -> tuple[Node, ...]:
        """Return what must be in memory for another unit to read `node`: itself, or what it is computed from when
        inlined."""
        found = self._reads.get(node)
        if found is None:
            found = self._reads[node] = tuple(dict.fromkeys(self.find_reads(node)))
        return found

    def find_reads(self, node: Node) -> Iterator[Node]:
        while lowering(node) == "view":
            source = next(node.nodes(), None)
            if source is None:
                return
            if node.prim is reshape and not is_affine(node.shape, source.shape):
                yield under_reshapes(source)
                return
            node = source
        if self.inlines(node):
            for operand in node.nodes():
                yield from self.reads(operand)
        else:
            yield node

    def note(self, unit: Unit, reads: Iterable[Node]) -> None:
        """Keep readers and order true for a unit that got a node."""
        for read in reads:
            other = self.unit_of[read]
            if other is not unit:
                self.readers.setdefault(other, set()).add(unit)
        if unit not in self.order:
            self.order[unit] = len(self.position) + self.position[unit.nodes[0]]
        self.settle(unit)

    def settle(self, unit: Unit) -> None:
        """Bring `order` in order again: every unit stands behind all that it depends on.

        Where `unit` depends on units behind it, these and what they need change places with it and what needs it; all
        others stay (Pearce and Kelly, "A dynamic topological sort algorithm for directed acyclic graphs", 2006). So a
        graph costs as much as its nodes move, which is next to nothing: most nodes join the last unit that they read.
        """
        low = self.order[unit]
        high = max((self.order[u] for u in self.dependencies(unit)), default=low)
        if high <= low:
            return
        before = self.closure(unit, self.dependencies, low, len(self.position) * 2)
        after = self.closure(unit, self.reading, low, high)
        moved = [*sorted(before, key=self.order.__getitem__), unit, *sorted(after, key=self.order.__getitem__)]
        self.order.update(zip(moved, sorted(self.order[u] for u in moved), strict=True))

    def closure(self, unit: Unit, following: Callable[[Unit], Iterable[Unit]], low: int, high: int) -> set[Unit]:
        """Return what is reached from `unit` through units whose places in the order are between two places."""
        found: set[Unit] = set()
        pending = [unit]
        while pending:
            for other in following(pending.pop()):
                if low < self.order[other] <= high and other not in found:
                    found.add(other)
                    pending.append(other)
        return found

    def reading(self, unit: Unit) -> Iterator[Unit]:
        """Yield the other units that read `unit`; some of them may since have become one."""
        for reader in self.readers.get(unit, ()):
            other = self.unit_of[reader.nodes[0]]
            if other is not unit:
                yield other

    def reaches(self, start: Unit, goal: Unit, *, direct: bool = True) -> bool:
        """Say whether `start` depends on `goal`; without `direct`, through at least one other unit.

        What stands before `goal` in the order does not depend on it.
        """
        if start is goal:
            return True
        first = self.order[goal]
        pending = [u for u in self.dependencies(start) if direct or u is not goal]
        seen: set[Unit] = set()
        while pending:
            unit = pending.pop()
            if unit is goal:
                return True
            if unit in seen or self.order[unit] < first:
                continue
            seen.add(unit)
            pending.extend(self.dependencies(unit))
        return False

    # --- how operands are read ----------------------------------------------------------------------------------------

    def links(self, node: Node) -> Iterator[Link]:
        """Yield the computed values that `node` reads, seen through views and through values that are inlined."""
        whole = node.prim.kind not in ("elementwise", "reduce")
        for number, operand in enumerate(node.operands):
            if isinstance(operand, Node):
                index = node.prim is gather and number > 0 and operand.shape == node.shape
                yield from self.trace_link(operand, "same" if index or not whole else "other")

    def trace_link(self, source: Node, mode: str) -> Iterator[Link]:
        axes: tuple[int, ...] = ()
        while lowering(source) == "view":
            operands = list(source.nodes())
            if not operands:
                return
            if source.prim is broadcast and mode == "same":
                mode, axes = "row", source.params["axes"]
            else:
                mode = "other"
            source = operands[0]
        if mode == "other" and self.inlines(source):
            for operand in source.nodes():
                yield from self.trace_link(operand, "other")
            return
        yield Link(source, mode, axes)

    # --- inlining -----------------------------------------------------------------------------------------------------

    def inlines(self, node: Node) -> bool:
        """Say whether readers outside the unit compute `node` again instead of loading it: it is cheap, and reads at
        most one array of its own size, so that loading it would move as many bytes, or is read in pieces."""
        if node not in self._inline:
            self._inline[node] = self.decide_inline(node)
        return self._inline[node]

    def decide_inline(self, node: Node) -> bool:
        if node.prim.kind != "elementwise" or node in self.forced or stores_half(node):
            return False
        return self.is_cheap_to_repeat(node, self.forced) or self.is_cheap_to_repeat(node, self.forced | self.shared)

    def is_cheap_to_repeat(self, node: Node, in_memory: Collection[Node]) -> bool:
        """Say whether few operations make `node` from at most one array of its own size, the values `in_memory` being
        there."""
        sources: set[Node] = set()
        total = count = 0
        pending = [node]
        seen: set[Node] = set()
        while pending:
            current = pending.pop()
            if current in seen:
                continue
            seen.add(current)
            total += cost(current)
            count += 1
            if total > INLINE_COST or count > INLINE_NODES:
                return False
            for operand in current.nodes():
                under = under_views(operand)
                if under.prim.kind == "elementwise" and under not in in_memory and not stores_half(under):
                    pending.append(under)
                elif under.aval.size * 2 >= node.aval.size and under.prim.name != "iota":
                    sources.add(under)
        return len(sources) <= 1 or node in self.split


def stores_half(node: Node) -> bool:
    """Say whether a node rounds what is computed to half precision, to be stored: then it alone is kept in memory."""
    if node.prim is not convert or not is_half(node.dtype):
        return False
    source = next(node.nodes(), None)
    return source is not None and not is_half(source.dtype) and under_views(source).prim is not INPUT


def ordered(fusion: Fusion) -> list[Unit]:
    """Return the units so that each comes after what it reads, as close to the graph's order as possible."""
    done: set[Unit] = set()
    found: list[Unit] = []
    for root in sorted(fusion.units, key=lambda u: u.last):
        stack: list[tuple[Unit, Iterator[Unit]]] = [(root, fusion.dependencies(root))]
        active = {root}
        while stack:
            unit, pending = stack[-1]
            if unit in done:
                stack.pop()
                continue
            following = next((u for u in pending if u not in done), None)
            if following is None:
                done.add(unit)
                active.discard(unit)
                found.append(unit)
                stack.pop()
            else:
                assert following not in active, "fusion made a cycle"
                active.add(following)
                stack.append((following, fusion.dependencies(following)))
    return found
