"""Schedules of long graphs: what they cost to make, counted, and that shortcuts find what a full search finds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.passes.simplify import simplify
from tracegrad.schedule import plan
from tracegrad.schedule.fuse import Fusion, ordered
from tracegrad.schedule.memory import Arena
from tracegrad.schedule.units import Unit


def test_the_arena_takes_the_lowest_gap() -> None:
    """Against a search that looks at one pair at a time."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        arena, held = Arena(), []
        for _ in range(60):
            size, first = 64 * int(rng.integers(1, 9)), int(rng.integers(0, 30))
            last = first + int(rng.integers(0, 12))
            lowest = 0
            for start, stop in sorted((o, e) for o, e, f, t in held if f <= last and first <= t):
                if lowest + size <= start:
                    break
                lowest = max(lowest, stop)
            assert arena.take(size, first, last) == lowest
            held.append((lowest, lowest + size, first, last))
        assert arena.size == max(stop for _, stop, _, _ in held)


def test_the_order_of_units_holds_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever joins and merges: what a unit depends on stands before it, so looking for a path can stop early."""
    settle = Fusion.settle

    def checked(self: Fusion, unit: Unit) -> None:
        settle(self, unit)
        assert len(set(self.order.values())) == len(self.order)
        for other in self.order:
            assert all(self.order[d] < self.order[other] for d in self.dependencies(other))

    monkeypatch.setattr(Fusion, "settle", checked)

    def f(x: Any, w: Any) -> Any:
        total, early = 0.0, np.exp(w)
        for i in range(6):
            x = np.sin(x) * 0.5 + np.roll(x, 1) * early[i]
            total = total + x.mean() * np.tanh(w.sum() + i)
        return total

    graph = simplify(tg.value_and_grad(f, argnums=(0, 1)).lower(tg.spec((16,)), tg.spec((6,))).graph)
    fusion = Fusion(graph).run()
    assert len(fusion.units) == len(fusion.order)
    assert len(ordered(fusion)) == len(fusion.units)


def test_a_graph_costs_as_much_as_it_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted, not timed: how often fusion asks what a unit depends on grows with the graph, not with its square."""
    calls = 0
    dependencies = Fusion.dependencies

    def counted(self: Fusion, unit: Unit) -> Iterator[Unit]:
        nonlocal calls
        calls += 1
        return dependencies(self, unit)

    monkeypatch.setattr(Fusion, "dependencies", counted)
    found = []
    for rounds in (30, 60, 120):

        def f(x: Any, rounds: int = rounds) -> Any:
            total = 0.0
            for i in list(range(rounds)):  # unrolled: not a range
                x = np.sin(x) * 0.5 + np.roll(x, 1) * 0.3
                if i % 10 == 0:
                    total = total + x.mean()
            return total

        calls = 0
        Fusion(simplify(tg.grad(f).lower(tg.spec((64,))).graph)).run()
        found.append(calls)
    assert found[2] - found[1] < 2.5 * (found[1] - found[0]), found


def test_moving_readers_in_front_looks_at_each_kernel_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    touched = plan.touched

    def counted(step: plan.Step) -> list[str]:
        nonlocal calls
        calls += 1
        return touched(step)

    monkeypatch.setattr(plan, "touched", counted)
    found = []
    for rounds in (10, 20, 40):

        def fill(x: Any, rounds: int = rounds) -> Any:
            y = x.copy()
            for i in list(range(1, rounds)):  # unrolled: not a range
                y[i] = 0.5 * y[i - 1] + np.sin(x[i])
            return y.sum()

        graph = simplify(tg.grad(tg.checkpoint(fill)).lower(tg.spec((rounds,))).graph)
        calls = 0
        plan.build_plan(graph, threads=1)
        found.append(calls)
    assert found[2] - found[1] < 3.0 * (found[1] - found[0]), found
