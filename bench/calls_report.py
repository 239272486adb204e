"""What a call costs, against other libraries: microseconds from Python and back, the work itself being next to nothing.

Every library runs in a process of its own; rounds go over all libraries in turn. `time` is the median over the rounds
of their medians, `best` the least of them.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from bench.calls_cases import KINDS
from bench.loops_results import picture, save
from bench.machine import ROOT, describe
from bench.steps_report import OURS, Worker, WorkerError

PEERS = ("jax", "inductor", "pytensor", "autograd")


@dataclass
class Row:
    """One library on one case; seconds."""

    case: str
    library: str
    version: str = ""
    imported: float = 0.0
    cold: float = 0.0
    warm: float = 0.0
    rounds: list[float] = field(default_factory=list)
    size: int = 0
    factor: int = 1
    error: str = ""

    @property
    def time(self) -> float:
        return statistics.median(self.rounds) if self.rounds else math.nan

    @property
    def spread(self) -> float:
        return (max(self.rounds) - min(self.rounds)) / self.time if self.rounds else math.nan


def measure(case: str, pythons: dict[str, str], rounds: int, seconds: float) -> list[Row]:
    """Measure all libraries on one case."""
    rows = [Row(case, library) for library in pythons]
    workers: dict[str, Worker] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            for row in rows:
                worker = Worker(row.library, pythons[row.library], f"{folder}/{row.library}", "bench.calls_worker")
                workers[row.library] = worker
                try:
                    answer = worker.ask(f"start {case}")
                    row.imported, row.cold, row.version = (answer[k] for k in ("import", "first", "version"))
                except WorkerError as error:
                    row.error = str(error)
            for _ in range(rounds):
                for row in rows:
                    if not row.error:
                        row.rounds.append(workers[row.library].ask(f"burst {seconds}")["step"])
        finally:
            for worker in workers.values():
                worker.close()
    return rows


def table(rows: Sequence[Row]) -> str:
    """Write the rows, with each peer's time over ours."""
    lines = [f"{'case':14}{'library':11}{'time':>11}{'best':>11}{'spread':>8}{'over ours':>11}"]
    for row in rows:
        name = f"{row.case:14}{row.library:11}"
        if row.error:
            lines.append(f"{name}{row.error[:90]}")
            continue
        ours = next((r.time for r in rows if r.case == row.case and r.library == OURS), math.nan)
        best = 1e6 * min(row.rounds)
        lines.append(f"{name}{1e6 * row.time:9.2f}us{best:9.2f}us{row.spread:8.0%}{row.time / ours:10.2f}x")
    return "\n".join(lines)


def report(cases: Sequence[str], peers: Sequence[str], peer_python: str, rounds: int, seconds: float) -> int:
    """Measure, print and save; return the exit status."""
    pythons = {OURS: sys.executable} | dict.fromkeys(peers, peer_python)
    machine = describe()
    print(f"{machine['processor']}, {machine['cores']} cores, commit {machine['commit'][:12]}")
    print("\n".join(f"{kind}: {text}" for kind, text in KINDS.items()))
    rows: list[Row] = []
    for case in cases:
        found = measure(case, pythons, rounds, seconds)
        print(table(found), flush=True)
        rows += found
    settings = {"rounds": rounds, "seconds": seconds}
    found_rows = [asdict(r) | {"time": r.time if r.rounds else None} for r in rows]
    path = save({"machine": machine, "settings": settings, "rows": found_rows}, "calls")
    drawn = picture(rows, path.with_suffix(".png"))
    print(f"written to {path.relative_to(ROOT)}" + (f" and {drawn.name}" if drawn else ""))
    return int(any(row.error for row in rows if row.library == OURS))
