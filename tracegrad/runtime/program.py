"""A compiled graph as something to call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegrad.ir import Graph
from tracegrad.ir.interpret import interpret


class Program:
    """Runs a graph with the interpreter."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.timings: dict[str, float] = {}

    def summary(self) -> str:
        return f"{len(self.graph.nodes)} nodes"

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        arrays = [np.asarray(x, n.dtype) for x, n in zip(inputs, self.graph.inputs, strict=True)]
        return [np.array(o)[()] for o in interpret(self.graph, *arrays)]


def build(graph: Graph, *, donate: Sequence[int] = (), names: Sequence[str] = (), backend: str = "cpu") -> Program:
    return Program(graph)
