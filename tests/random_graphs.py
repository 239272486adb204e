"""Random graphs for the tests of passes, schedules and code.

case = draw(cases())            any graph
case = draw(losses())           a differentiable one, with one scalar result
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import random_steps as steps
from hypothesis import strategies as st
from random_writer import BOOL, FLOATS, INTS, Case, Writer

from tracegrad.ir import PRIMITIVES as P
from tracegrad.ir import Aval, Operand

STEPS = (
    (steps.unary, 2),
    (steps.binary, 4),
    (steps.compare, 1),
    (steps.logic, 1),
    (steps.select, 1),
    (steps.smooth_function, 2),
    (steps.convert, 1),
    (steps.reduce, 3),
    (steps.position, 1),
    (steps.scan, 1),
    (steps.broadcast, 1),
    (steps.transpose, 2),
    (steps.reshape, 2),
    (steps.slice_, 2),
    (steps.pad, 1),
    (steps.concat, 1),
    (steps.iota, 1),
    (steps.gather, 1),
    (steps.scatter, 1),
    (steps.set_slice, 1),
    (steps.dot, 2),
    (steps.conv, 1),
    (steps.window, 2),
    (steps.bits, 1),
)
"""Steps, and how often they are drawn."""
SMOOTH_STEPS = (
    (steps.unary, 1),
    (steps.binary, 3),
    (steps.smooth_function, 2),
    (steps.reduce, 2),
    (steps.scan, 1),
    (steps.broadcast, 1),
    (steps.transpose, 1),
    (steps.reshape, 1),
    (steps.slice_, 1),
    (steps.pad, 1),
    (steps.concat, 1),
    (steps.gather, 1),
    (steps.scatter, 1),
    (steps.set_slice, 1),
    (steps.dot, 1),
    (steps.conv, 1),
    (steps.window, 1),
    (steps.select, 1),
    (steps.compare, 1),
)


def step_of(table: Any) -> Any:
    """Return the strategy that draws one of these steps."""
    return st.sampled_from([step for step, weight in table for _ in range(weight)])


def dtypes_of(draw: Callable[[Any], Any], kind: str) -> tuple[np.dtype[Any], ...]:
    if kind == "float":
        return (draw(st.sampled_from(FLOATS)), np.dtype(np.int64))
    if kind == "int":
        return (draw(st.sampled_from(INTS)), draw(st.sampled_from(INTS)), draw(st.sampled_from(FLOATS)))
    return (np.dtype(np.float64),)


@st.composite
def cases(draw: Callable[[Any], Any], *, length: int = 14) -> Case:
    """Draw a graph of about `length` nodes and arguments for it."""
    kind = draw(st.sampled_from(("float", "float", "int", "special", "smooth")))
    writer = Writer(draw, dtypes_of(draw, kind), inexact=kind == "smooth", special=kind == "special")
    for _ in range(draw(st.integers(1, 3))):
        writer.pool.append(writer.input(Aval(writer.shape(), draw(st.sampled_from(writer.dtypes)))))
    if draw(st.booleans()):
        writer.pool.append(writer.input(Aval(writer.pool[0].shape, BOOL)))
    for _ in range(draw(st.integers(1, length))):
        draw(step_of(STEPS))(writer)
    outputs: list[Operand] = [writer.pool[-1]]
    for _ in range(draw(st.integers(0, 3))):
        outputs.append(writer.value() if writer.integer(0, 9) else writer.literal(writer.dtypes[0]))
    graph = writer.builder.finish(outputs)
    floats = [i for i, n in enumerate(graph.inputs)]
    donate = tuple(i for i in floats if draw(st.integers(0, 2)) == 0)
    return Case(graph, writer.arguments, donate, not writer.smooth)


@st.composite
def losses(draw: Callable[[Any], Any], *, length: int = 8) -> Case:
    """Draw a differentiable graph with one scalar float64 result."""
    writer = Writer(draw, (np.dtype(np.float64),), differentiable=True)
    for _ in range(draw(st.integers(1, 3))):
        writer.pool.append(writer.input(Aval(writer.shape(), np.dtype(np.float64))))
    condition = writer.input(Aval(writer.pool[0].shape, BOOL))
    writer.pool.append(condition)
    for _ in range(draw(st.integers(1, length))):
        draw(step_of(SMOOTH_STEPS))(writer)
    last = writer.value(lambda n: n.dtype.kind == "f")
    assert last is not None
    bounded = writer.builder.add(P["tanh"], (last,), {})
    total = writer.builder.add(P["reduce_sum"], (bounded,), {"axes": tuple(range(last.aval.ndim))})
    return Case(writer.builder.finish([total]), writer.arguments, (), False)
