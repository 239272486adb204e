"""Printed graphs, adjoints and kernels of small programs against files; `pytest --update-golden` writes them anew."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import assert_close, graph_of

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.codegen.program import show_source
from tracegrad.codegen.reference import BACKENDS, run_source
from tracegrad.errors import IndexOutOfBounds
from tracegrad.grad.adjoint import joint
from tracegrad.ir import Graph, interpret
from tracegrad.passes.simplify import simplify
from tracegrad.schedule.memory import assign_memory
from tracegrad.schedule.plan import build_plan

GOLDEN = Path(__file__).parent / "golden"
f32 = np.float32


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def dense_loss(w: Any, b: Any, x: Any, y: Any) -> Any:
    return np.mean((tnp.maximum(x @ w + b, 0.0) - y) ** 2)


def lookup(table: Any, place: Any) -> Any:
    return (table[place] * 2.0).sum()


PROGRAMS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], tuple[int, ...] | None]] = {
    "mean_of_squares": (lambda x: np.mean(3.0 * (x - 2.0) ** 2), (np.ones((2, 2)),), (0,)),
    "softmax": (softmax, (np.ones((3, 5), f32),), None),
    "column_moments": (lambda x: (x.mean(axis=0), x.var(axis=0)), (np.ones((6, 40), f32),), None),
    "dense_loss": (dense_loss, tuple(np.ones(s, f32) for s in [(40, 30), (30,), (50, 40), (50, 30)]), (0, 1)),
    "small_dense_loss": (dense_loss, tuple(np.ones(s, f32) for s in [(4, 3), (3,), (5, 4), (5, 3)]), None),
    "lookup": (lookup, (np.ones((4, 3)), np.array([1, 3, 1])), (0,)),
    "views": (lambda x: np.pad(x.T[::-1], ((1, 0), (0, 2))) + 1.0, (np.ones((2, 3), np.int32),), None),
}


def sections(graph: Graph, wrt: tuple[int, ...] | None) -> tuple[str, Graph]:
    """Return everything that is printed about a program, and the graph that is compiled."""
    compiled = graph if wrt is None else joint(graph, wrt)
    plan = build_plan(simplify(compiled), 2)
    parts = [("graph", str(graph))]
    if wrt is not None:
        parts.append(("adjoint", str(compiled)))
    parts.append(("simplified", str(simplify(compiled))))
    parts.append(("kernels", show_source(plan, assign_memory(plan))))
    text = "\n\n".join(f"# --- {title}\n\n{text}" for title, text in parts) + "\n"
    return re.sub(r"test_codegen_golden\.py:\d+", "here", text), compiled


def graph_named(name: str) -> tuple[Graph, tuple[Any, ...], tuple[int, ...] | None]:
    fn, arrays, wrt = PROGRAMS[name]
    return graph_of(fn, *arrays, name=name), arrays, wrt


@pytest.mark.parametrize("name", PROGRAMS)
def test_printed_program(name: str, request: pytest.FixtureRequest) -> None:
    graph, _, wrt = graph_named(name)
    found, _ = sections(graph, wrt)
    path = GOLDEN / f"{name}.txt"
    if request.config.getoption("--update-golden"):
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(found)
    expected = path.read_text()
    difference = difflib.unified_diff(expected.splitlines(), found.splitlines(), str(path.name), "now", lineterm="")
    assert found == expected, "\n".join(difference) + "\n\npytest --update-golden writes the files anew"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_printed_source_runs(name: str, backend: str) -> None:
    graph, arrays, wrt = graph_named(name)
    _, compiled = sections(graph, wrt)
    rng = np.random.default_rng(23)
    given = [np.asarray(rng.standard_normal(a.shape), a.dtype) if a.dtype.kind == "f" else a for a in arrays]
    plan = build_plan(simplify(compiled), 2)
    found = run_source(plan, assign_memory(plan), given, backend)
    for a, b in zip(found, interpret(compiled, *given), strict=True):
        assert_close(a, b, 1e-5, 1e-6, name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_source_as_a_back_end(backend: str) -> None:
    """The same calls, the same errors, donation included."""
    f = tg.jit(lambda x, i: np.tanh(x[i]).sum(axis=0), backend=backend)
    x, at = np.arange(12.0).reshape(4, 3), np.array([0, 3, -1])
    np.testing.assert_allclose(f(x, at), np.tanh(x[at]).sum(axis=0), rtol=1e-12)
    with pytest.raises(IndexOutOfBounds, match="an index is out of bounds for an axis of size 4"):
        f(x, np.array([0, 4, 0]))
    step = tg.compile(lambda p, g: p - 0.5 * g, x, x, donate="p", backend=backend)
    p = np.ones((4, 3))
    assert step(p, x) is p and step.kernels == 1
    np.testing.assert_array_equal(p, 1.0 - 0.5 * x)
