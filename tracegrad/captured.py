"""What a traced function reads without it being an argument: arrays, and values of the traces around it.

Arrays are read anew at each call. One that is changed in place while the function is traced (a buffer that a loop
fills) is another constant each time: what has been traced reads what the array held then.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegrad.errors import TracerError
from tracegrad.ir import Graph, Node
from tracegrad.record import record

LARGE = 1 << 22
"""Bytes up to which captured arrays are copied, to notice changes of them."""


@record(eq=False)
class Capture:
    """An array (or an outer trace's value) that the traced function reads without it being an argument."""

    node: Node
    value: Any
    before: Any = None
    """a copy of an array that may be changed in place while the function is traced, or a checksum of a large one"""

    def unchanged(self) -> bool:
        """Say whether the array still holds what it held when it was captured."""
        if isinstance(self.before, int):
            return checksum(self.value) == self.before
        return self.before is None or same_bytes(self.value, self.before)

    def held(self) -> Any:
        """Return what the program reads: the array, or what it was if it has been changed while tracing."""
        if self.unchanged():
            return self.value
        if isinstance(self.before, int):
            raise TracerError(
                f"an array {self.node.aval} from outside was changed in place after the traced function had used it",
                fix="change a copy: x = x.copy()",
                where=self.node.where,
            )
        return self.before


def checksum(array: np.ndarray[Any, Any]) -> int:
    return zlib.crc32(bits(array).data)


def same_bytes(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> bool:
    """Say whether two arrays hold the same bits: NaN is NaN, and -0.0 is not 0.0."""
    return a.shape == b.shape and np.array_equal(bits(a), bits(b))


def bits(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def picture(value: Any, whole: bool) -> Any:
    """Return what changes of an array are noticed by: a copy, a checksum of a large one unless `whole`, or None."""
    if not isinstance(value, np.ndarray) or not value.flags.writeable:
        return None
    return value.copy() if whole or value.nbytes <= LARGE else checksum(value)


def without_unused(graph: Graph, captured: Sequence[Capture]) -> tuple[Graph, tuple[Any, ...]]:
    """Return the graph without the captured inputs that nothing reads, and the values of the others."""
    read = {id(o) for node in graph.nodes for o in node.operands} | set(map(id, graph.outputs))
    unused = {c.node for c in captured if id(c.node) not in read}
    values = tuple(c.held() for c in captured if c.node not in unused)
    if unused:
        inputs = tuple(n for n in graph.inputs if n not in unused)
        names = {node: name for node, name in graph.names.items() if node not in unused}
        first = len(inputs) - len(values)
        names |= {node: f"captured{i}" for i, node in enumerate(inputs[first:])}
        graph = Graph(graph.name, inputs, graph.nodes, graph.outputs, names)
    return graph, values
