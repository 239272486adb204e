"""Loops with a known number of rounds that are compiled, because written out they would be a long program.

A loop over `range(1000)` can be unrolled: its counter is a number of Python's in every round. That takes as long to
compile as it is long, so the first round is traced to see how much one is, and then the loop becomes a `scan` over its
counter. Python's integers have no limits, those of a program have 64 bits: the integers that follow from the counter
alone are bounded here, and a loop that could leave 64 bits is unrolled.
"""

from __future__ import annotations

from typing import Any

from tracegrad.api.python_control import ROLLING
from tracegrad.api.python_control.carry import Carry
from tracegrad.api.python_control.state import Region
from tracegrad.errors import Mismatch
from tracegrad.ir import Graph, Literal, Node, Operand
from tracegrad.numpy.intervals import ALL, BOUNDS, Interval
from tracegrad.trace import Tracer

MOST_NODES = 300
"""A loop whose rounds together have more nodes is compiled."""
MOST_FAILURES = 2
"""A loop that could not be compiled so often, inside another one, is unrolled at once."""
LIMIT, SMALL = 2**63, 2**31
GROWING = ("mul", "power", "left_shift", "square")


class Integers:
    """Bounds of the numbers that follow from counters alone: Python would know them if the loop were unrolled."""

    def __init__(self, known: dict[Operand, Interval | None], region: Region):
        self.known = known
        captures = region.traced.captures
        self.outer = {
            node: value._node
            for node, value in zip(region.traced.graph.inputs[::-1], captures[::-1], strict=False)
            if isinstance(value, Tracer)
        }
        self.strict = False

    def bound(self, operand: Operand) -> Interval | None:
        """Return the bounds of a number, None if it depends on anything else than counters."""
        if isinstance(operand, Literal):
            return (operand.value, operand.value) if operand.dtype.kind in "iu" else ALL
        if operand not in self.known:
            self.known[operand] = self.of_node(operand)
        return self.known[operand]

    def of_node(self, node: Node) -> Interval | None:
        if getattr(node.aval, "shape", ()):  # arrays, and what has several results, are data
            return None
        if node in self.outer:
            return self.bound(self.outer[node])
        parts = [self.bound(operand) for operand in node.operands]
        bounds = [part for part in parts if part is not None]
        if not parts or len(bounds) < len(parts):
            return None
        if node.prim.kind == "elementwise" and node.dtype.kind not in "iu":
            return ALL
        rule = BOUNDS.get(node.prim.name)
        found = ALL if rule is None else rule(*bounds)
        if self.strict and (
            rule is None
            or (found == ALL and node.prim.name in GROWING)
            or (found != ALL and not -LIMIT <= found[0] <= found[1] < LIMIT)
        ):
            raise Mismatch("for: its integers may need more than 64 bits", fix="use floats, or np.int64 numbers")
        return found

    def check(self, graph: Graph) -> None:
        """Refuse what may leave 64 bits in a graph; what its own loops and branches read has 32 bits there."""
        self.strict = True
        for node in graph.nodes:
            inner = [g for g in node.params.values() if isinstance(g, Graph)]
            inner += [g for v in node.params.values() if isinstance(v, tuple) for g in v if isinstance(g, Graph)]
            for part in inner:
                self.known |= {n: (-SMALL, SMALL) for n in part.inputs if not n.shape and n.dtype.kind in "iu"}
                self.check(part)
            if not inner and node.prim.kind == "elementwise":
                self.bound(node)


def check_integers(carry: Carry, region: Region, counter: range) -> None:
    """Refuse to compile a loop whose integers, known to Python if it is unrolled, may need more than 64 bits."""
    rolled = ROLLING.get()
    if rolled is None or max(abs(counter[0]), abs(counter[-1])) >= SMALL:
        raise Mismatch("for: its counter may need more than 32 bits", fix="use np.int64 numbers")
    inputs, starts = region.traced.graph.inputs, carry.leaves()
    changed = {
        i
        for i, (weak, aval, end) in enumerate(zip(carry.weak, carry.avals, carry.ends, strict=True))
        if weak and aval.dtype.kind == "i" and not (isinstance(end, Tracer) and end._node is inputs[i])
    }
    known: set[int] = set()
    while known != changed:  # those that depend on data are no numbers of Python's if the loop is unrolled, either
        known = changed
        integers = Integers({**rolled.bounds, **{inputs[i]: ALL for i in known}}, region)
        changed = {i for i in known if not isinstance(carry.ends[i], Tracer) or integers.bound(carry.ends[i]._node)}
    bounds: dict[Operand, Interval | None] = dict(rolled.bounds)
    for i in known:
        step = increment(carry.ends[i], inputs[i]) * len(counter)
        start = starts[i] if isinstance(starts[i], int) else None
        bounds[inputs[i]] = ALL if start is None else (min(start, start + step), max(start, start + step))
    Integers(bounds, region).check(region.traced.graph)
    rolled.loops += 1


def increment(end: Any, start: Operand) -> int:
    """Return by how much an integer grows in every round, or refuse."""
    match getattr(end, "_node", None):
        case Node(prim=prim, operands=(a, Literal(value=int(step)))) if a is start and prim.name in ("add", "sub"):
            return step if prim.name == "add" else -step
        case Node(prim=prim, operands=(Literal(value=int(step)), b)) if b is start and prim.name == "add":
            return step
    raise Mismatch("for: its integers may need more than 64 bits", fix="use floats, or np.int64 numbers")
