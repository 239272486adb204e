"""Random programs have one value: interpreted, simplified, run from their printed source, and compiled."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st
from random_graphs import Case, cases, losses

import tracegrad.numpy  # noqa: F401 (puts the operators on traced values)
from tracegrad.codegen import entry
from tracegrad.codegen.reference import run_source
from tracegrad.config import config
from tracegrad.grad.adjoint import joint
from tracegrad.ir import Graph, interpret, parse, verify
from tracegrad.passes.simplify import simplify
from tracegrad.runtime import program
from tracegrad.runtime.executable import Executable, aligned_bytes
from tracegrad.runtime.program import build
from tracegrad.schedule import columns, split
from tracegrad.schedule.memory import assign_memory
from tracegrad.schedule.plan import build_plan
from tracegrad.testing import moved

EXAMPLES = int(os.environ.get("RANDOM_PROGRAMS", "80"))
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize="RANDOM_PROGRAMS" not in os.environ,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink),
    print_blob=True,
)


class Nowhere:
    """Random programs are never met again, and their tasks are cut with other constants: they stay out of the cache."""

    @staticmethod
    def load(key: str) -> None:
        return None

    @staticmethod
    def store(key: str, facts: Any, data: bytes, label: str = "") -> bool:
        return False


def junk_arena(executable: Executable) -> tuple[Any, int]:
    """Return an arena full of NaN: what is read before it is written shows."""
    memory = aligned_bytes(max(executable.facts.arena_bytes, 64))
    memory[:] = 0xFF
    return memory, int(memory.ctypes.data)


@contextmanager
def small_tasks(size: int) -> Iterator[None]:
    """Cut kernels into tasks, whole reductions into chunks and columns into blocks of about `size` elements."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config, "threads", 2)
        patch.setattr(program, "cache", Nowhere)
        patch.setattr(Executable, "new_arena", junk_arena)
        if size:
            patch.setattr(entry, "SERIAL_WORK", 1)
            patch.setattr(entry, "TASK_WORK", size)
            patch.setattr(split, "SMALL", size)
            patch.setattr(split, "CHUNK", size)
            patch.setattr(columns, "BLOCK", size)
        yield


def assert_same(found: Sequence[Any], expected: Sequence[Any], case: Case, stage: str) -> None:
    for position, (a, b) in enumerate(zip(found, expected, strict=True)):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape and a.dtype == b.dtype, (
            f"{stage}: output {position}: {a.dtype}{a.shape} {b.dtype}{b.shape}"
        )
        if case.exact or b.dtype.kind != "f":
            np.testing.assert_array_equal(a, b, err_msg=f"{stage}: output {position} of\n{case.graph}")
        else:
            np.testing.assert_allclose(
                a, b, rtol=1e-6, atol=1e-6, err_msg=f"{stage}: output {position} of\n{case.graph}"
            )


def check(case: Case, graph: Graph, donate: Sequence[int] = ()) -> None:
    """Compare every way to run a graph with the interpreter."""
    note(str(graph))
    note("arguments: " + ", ".join(f"{a!r}"[:400] for a in case.arguments))
    verify(graph)
    text = str(graph)
    assert str(parse(text)) == text
    expected = interpret(graph, *case.arguments)
    simple = verify(simplify(graph))
    assert_same(interpret(simple, *case.arguments), expected, case, "simplified")
    plan = build_plan(simple, config.threads)
    memory = assign_memory(plan, donate)
    assert_same(run_source(plan, memory, copies(case.arguments)), expected, case, "source")
    given = copies(case.arguments)
    found = build(graph, donate=donate)(given)
    assert_same(found, expected, case, "compiled")
    for position, array in enumerate(case.arguments):
        if position not in memory.donated.values():
            np.testing.assert_array_equal(given[position], array)
    for slot, position in memory.donated.items():
        assert found[slot] is given[position] or not found[slot].shape
    check_apart(found, given, memory.donated)


def check_apart(found: Sequence[Any], given: Sequence[Any], donated: dict[int, int]) -> None:
    """Results share memory with no argument but the donated one, and with no other result."""
    for slot, result in enumerate(found):
        for position, array in enumerate(given):
            assert donated.get(slot) == position or not np.shares_memory(result, array)
        for other in found[:slot]:
            assert not np.shares_memory(result, other)


def copies(arrays: Sequence[Any]) -> list[Any]:
    return [np.array(a) for a in arrays]


SIZES = st.sampled_from((0, 5, 64))


@SETTINGS
@given(cases(), SIZES)
def test_random_programs(case: Case, size: int) -> None:
    with small_tasks(size):
        check(case, case.graph, case.donate)


@SETTINGS
@given(losses(), SIZES, st.integers(0, 2**32 - 1))
def test_gradients_of_random_programs(case: Case, size: int, seed: int) -> None:
    wrt = [i for i, a in enumerate(case.arguments) if a.dtype == np.float64]
    adjoint = joint(case.graph, wrt)
    with small_tasks(size):
        check(case, adjoint)
    values = interpret(adjoint, *case.arguments)
    rng = np.random.default_rng(seed)
    directions = {i: rng.standard_normal(case.arguments[i].shape) for i in wrt}
    slope = sum(float(np.sum(g * directions[i])) for i, g in zip(wrt, values[1:], strict=True))
    high, low = (float(interpret(case.graph, *moved(case.arguments, directions, step))[0]) for step in (1e-6, -1e-6))
    assert slope == pytest.approx((high - low) / 2e-6, rel=2e-3, abs=2e-3)
