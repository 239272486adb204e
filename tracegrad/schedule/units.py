"""What fusion makes of a graph: units, and why a node did not join one."""

from __future__ import annotations

from dataclasses import dataclass, field

from tracegrad.ir import Node


@dataclass(eq=False)
class Unit:
    """Nodes that are lowered together: a fused group, or a single view, nest or library node.

    epilogue: the group that runs on the finished blocks of a library node; its nodes are this unit's, too.
    """

    nodes: list[Node]
    how: str
    shape: tuple[int, ...] = ()
    axes: tuple[int, ...] | None = None
    outer: set[Node] = field(default_factory=set)
    last: int = 0
    epilogue: Unit | None = None

    @property
    def kept(self) -> tuple[int, ...]:
        return tuple(a for a in range(len(self.shape)) if a not in (self.axes or ()))

    @property
    def outer_shape(self) -> tuple[int, ...]:
        return tuple(self.shape[a] for a in self.kept)

    @property
    def size(self) -> int:
        total = 1
        for n in self.shape:
            total *= n
        return total

    def title(self) -> str:
        return "_".join(n.prim.name for n in self.nodes[:3])


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a node did not join the loops of one of its operands."""

    node: Node
    operand: Node
    reason: str

    def __str__(self) -> str:
        place = f" ({self.node.where})" if self.node.where else ""
        pair = f"{self.node.prim.name} {self.node.aval} does not join {self.operand.prim.name} {self.operand.aval}"
        return f"{pair}: {self.reason}{place}"


@dataclass(frozen=True, slots=True)
class Link:
    """How a node reads an operand: at its own index, at the row's index through a broadcast, or in another way."""

    source: Node
    mode: str
    axes: tuple[int, ...] = ()
