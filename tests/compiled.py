"""What the tests of compiled code share: running graphs every way, and putting many graphs into one program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracegrad.ir import Aval, Builder, Graph, interpret
from tracegrad.runtime.program import Program, build
from tracegrad.trace import trace


def avals(arrays: Sequence[Any]) -> list[Aval]:
    return [Aval(np.shape(a), np.asarray(a).dtype) for a in arrays]


def graph_of(fn: Callable[..., Any], *arrays: Any, name: str = "main") -> Graph:
    """Trace a function of arrays; it must not capture any."""
    traced = trace(fn, avals(arrays), name=name)
    assert not traced.captures
    return traced.graph


def together(graphs: Sequence[Graph], *, name: str = "together") -> Graph:
    """Return one graph with the inputs and the outputs of all."""
    builder = Builder(name)
    outputs = []
    for graph in graphs:
        outputs += builder.inline(graph, [builder.input(n.aval) for n in graph.inputs])
    return builder.finish(outputs)


def program_of(fn: Callable[..., Any], *arrays: Any, **options: Any) -> Program:
    return build(graph_of(fn, *arrays), **options)


class Batch:
    """Collects graphs with their arguments; compiles them as one program and compares it with the interpreter."""

    def __init__(self) -> None:
        self.graphs: list[Graph] = []
        self.arguments: list[list[Any]] = []
        self.labels: list[str] = []

    def add(self, graph: Graph, arguments: Sequence[Any], label: str = "") -> None:
        self.graphs.append(graph)
        self.arguments.append([np.asarray(a) for a in arguments])
        self.labels.append(label)

    def compare(self, rtol: float, atol: float = 0.0) -> None:
        """Check every output: floats up to a tolerance (NaN and infinity exactly), everything else exactly."""
        found = iter(build(together(self.graphs))([np.array(a) for args in self.arguments for a in args]))
        for graph, arguments, label in zip(self.graphs, self.arguments, self.labels, strict=True):
            for number, expected in enumerate(interpret(graph, *arguments)):
                assert_close(next(found), expected, rtol, atol, f"output {number} of {label}\n{graph}")


def assert_close(found: Any, expected: Any, rtol: float, atol: float, message: str) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape and found.dtype == expected.dtype, message
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol, err_msg=message)
    else:
        np.testing.assert_array_equal(found, expected, err_msg=message)
