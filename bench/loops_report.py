"""Loops and their gradients against other libraries: the same numbers first, then cold start, warm start and time.

Every library runs in a process of its own, and only one of them works at a time; rounds go over all libraries in turn,
so that a slow minute of the machine hits all alike. Libraries that run each round in Python get fewer rounds, and their
time is multiplied accordingly.

    size       rounds of the loop
    cold       seconds to the end of the first run, with empty caches: tracing, compiling, running
    warm       the same in a second process, which finds what the first one left on disk
    time       milliseconds of a run at full size, median of the rounds' medians
    spread     (largest - smallest) / median of the rounds
    over ours  the peer's time / tracegrad's
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.loops_cases import CASES, Case
from bench.loops_results import compile_table, picture, save, table
from bench.machine import ROOT, describe
from bench.steps_report import OURS, Worker, WorkerError

PEERS = ("numba", "jax", "torch")
BESIDE = {"torch": {"lstm-gradient": ("torch", "torch.nn")}}
# PyTorch's eager loops are run in Python: fewer rounds, and the time is scaled.
REDUCED = {("torch", "logistic"): 100, ("torch", "while"): 100, ("torch", "rk4"): 20}
TRIPS = (10, 1_000_000)
TRIP_CASES = ("logistic-forward", "logistic-gradient", "rk4-gradient")


@dataclass(frozen=True)
class Suite:
    """What is measured: the cases, and the module whose processes answer for them, on so many cores (0: on all)."""

    cases: Mapping[str, Case]
    worker: str
    cores: int = 0


LOOPS = Suite(CASES, "bench.loops_worker")


@dataclass
class Row:
    """One library on one case; seconds."""

    case: str
    library: str
    size: int
    factor: int
    version: str = ""
    imported: float = 0.0
    cold: float = 0.0
    warm: float = 0.0
    values: list[float] = field(default_factory=list)
    values_at_size: list[float] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def time(self) -> float:
        """Seconds of a run at full size."""
        return self.factor * statistics.median(self.rounds) if self.rounds else math.nan

    @property
    def spread(self) -> float:
        return (max(self.rounds) - min(self.rounds)) * self.factor / self.time if self.rounds else math.nan


def row_of(case: str, library: str, full: int) -> Row:
    factor = REDUCED.get((library, case.partition("-")[0]), 1)
    size = max(1, full // factor)
    return Row(case, library, size, full // size)


def started(row: Row, python: str, caches: str, suite: Suite) -> Worker:
    """Time a first process on empty caches and a second one on what it left; return the second, ready to run."""
    cold = Worker(row.library, python, caches, suite.worker, suite.cores)
    try:
        row.cold = cold.ask(f"start {row.case} {row.size}")["first"]
    finally:
        cold.close()
    worker = Worker(row.library, python, caches, suite.worker, suite.cores)
    try:
        found = worker.ask(f"start {row.case} {row.size}")
        row.imported, row.warm, row.version = (found[k] for k in ("import", "first", "version"))
        row.values_at_size = found["values"]
        row.values = worker.ask(f"values {row.case} {suite.cases[row.case].check}")["values"]
    except WorkerError:
        worker.close()
        raise
    return worker


def disagreement(row: Row, ours: Row, tolerance: float) -> str:
    """Say where a library's numbers differ from ours by more than a tolerance."""
    found, expected = list(row.values), list(ours.values)
    if row.size == ours.size:
        found, expected = found + row.values_at_size, expected + ours.values_at_size
    if len(found) != len(expected):
        return f"gives {len(found)} numbers, tracegrad {len(expected)}"
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        if not math.isclose(a, b, rel_tol=tolerance, abs_tol=1e-15):
            return f"gives {a} as number {i}, tracegrad {b}"
    return ""


def measure(
    case: str, pythons: dict[str, str], rounds: int, seconds: float, full: int, suite: Suite = LOOPS
) -> list[Row]:
    """Measure all libraries on one case."""
    rows: list[Row] = []
    workers: dict[str, Worker] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            for library, python in pythons.items():
                row = row_of(case, library, full)
                rows.append(row)
                try:
                    workers[library] = started(row, python, f"{folder}/{library}", suite)
                except WorkerError as error:
                    row.error = str(error).partition(": ")[2]
                if not row.error and not rows[0].error:
                    row.error = disagreement(row, rows[0], suite.cases[case].tolerance)
            for _ in range(rounds):
                for row in rows:
                    if not row.error:
                        time.sleep(0.05)  # the last library's threads go to sleep
                        row.rounds.append(workers[row.library].ask(f"burst {seconds}")["step"])
        finally:
            for worker in workers.values():
                worker.close()
    return rows


def compile_seconds(python: str, trips: Sequence[int] = TRIPS, repeats: int = 3) -> dict[str, list[float]]:
    """Return seconds to compile a loop of few and of many rounds: medians over programs that no cache knows."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        worker = Worker(OURS, python, folder, "bench.loops_worker")
        try:
            for case in TRIP_CASES:
                worker.ask(f"fresh {case} {min(trips) + repeats}")
                times: dict[int, list[float]] = {n: [] for n in trips}
                for i in range(repeats):
                    for n in trips:
                        times[n].append(worker.ask(f"fresh {case} {n + i}")["compile"])
                found[case] = [statistics.median(times[n]) for n in trips]
        finally:
            worker.close()
    return found


def libraries(case: str, peers: Sequence[str], peer_python: str) -> dict[str, str]:
    """Return the libraries of a case with their interpreters; Numba comes with tracegrad."""
    found = {OURS: sys.executable}
    for peer in peers:
        for name in BESIDE.get(peer, {}).get(case, (peer,)):
            found[name] = sys.executable if peer == "numba" else peer_python
    return found


def report(cases: Sequence[str], peers: Sequence[str], peer_python: str, rounds: int, seconds: float) -> int:
    """Measure, print and save; return the exit status."""
    machine = describe()
    print(f"{machine['processor']}, {machine['cores']} cores, commit {machine['commit'][:12]}")
    rows: list[Row] = []
    for case in cases:
        found = measure(case, libraries(case, peers, peer_python), rounds, seconds, CASES[case].size)
        print(table(found), flush=True)
        rows += found
    compiling = compile_seconds(sys.executable)
    print(compile_table(compiling, TRIPS))
    found_rows = [asdict(row) | {"time": row.time if row.rounds else None} for row in rows]
    settings: dict[str, Any] = {"rounds": rounds, "seconds": seconds, "trips": TRIPS}
    path = save({"machine": machine, "settings": settings, "rows": found_rows, "compile": compiling})
    print(f"written to {path.relative_to(ROOT)}")
    if drawn := picture(rows, Path(path).with_suffix(".png")):
        print(f"drawn in {drawn.relative_to(ROOT)}")
    return int(any(row.error and not row.error.startswith("refused") for row in rows))
