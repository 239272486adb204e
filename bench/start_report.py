"""How fast a program starts, against other libraries: whole processes, from the interpreter's start to its first step.

    import  seconds to import the library
    ever    seconds of tracing, compiling and running the first step, with empty caches: library kernels included
    cold    the same where library kernels are cached and the program is not; the peers have none
    warm    the same in a process that finds everything in the cache
    whole   the whole warm process: interpreter, imports, first step

Every process is fresh; the table shows the least of the rounds, the file all of them.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.loops_results import picture, save
from bench.machine import ROOT, describe
from bench.steps_report import OURS, Worker, WorkerError

PEERS = ("jax", "inductor", "torch", "pytensor", "autograd")


@dataclass
class Row:
    """One library on one case; seconds, one number per round."""

    case: str
    library: str
    version: str = ""
    imports: list[float] = field(default_factory=list)
    ever: list[float] = field(default_factory=list)
    cold_rounds: list[float] = field(default_factory=list)
    warm_rounds: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    size: int = 0
    factor: int = 1
    error: str = ""

    @property
    def cold(self) -> float:
        return min(self.cold_rounds, default=math.nan)

    @property
    def warm(self) -> float:
        return min(self.warm_rounds, default=math.nan)

    @property
    def time(self) -> float:
        """Seconds of the whole warm process: what the picture compares."""
        return min(self.whole, default=math.nan)

    @property
    def spread(self) -> float:
        return (max(self.whole) - min(self.whole)) / self.time if self.whole else math.nan


def first_step(row: Row, python: str, caches: str) -> tuple[float, float, float]:
    """Run one fresh process; return the seconds of its import, of its first step, and of all."""
    began = time.perf_counter()
    worker = Worker(row.library, python, caches)
    try:
        answer = worker.ask(f"start {row.case}")
        whole = time.perf_counter() - began
    finally:
        worker.close()
    row.version = answer["version"]
    return answer["import"], answer["first"], whole


def forget_programs(caches: str) -> bool:
    """Delete compiled programs, not library kernels, from tracegrad's cache; say whether there were any."""
    found = [p for p in (Path(caches) / "tracegrad").glob("*.tgc") if b'"about": "program ' in p.read_bytes()[:600]]
    for path in found:
        path.unlink()
    return bool(found)


def measure(row: Row, python: str) -> None:
    """Measure one library on one case once more."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        _, first, _ = first_step(row, python, folder)
        row.ever.append(first)
        if row.library == OURS:
            forget_programs(folder)
            _, first, _ = first_step(row, python, folder)
        row.cold_rounds.append(first)
        imported, first, whole = first_step(row, python, folder)
        row.imports.append(imported)
        row.warm_rounds.append(first)
        row.whole.append(whole)


def table(rows: Sequence[Row]) -> str:
    """Write the least of the rounds."""
    names = ("import", "ever", "cold", "warm", "whole")
    lines = [f"{'case':8}{'library':11}" + "".join(f"{name:>9}" for name in names) + f"{'over ours':>11}"]
    for row in rows:
        if row.error:
            lines.append(f"{row.case:8}{row.library:11}{row.error[:90]}")
            continue
        ours = next((r.time for r in rows if r.case == row.case and r.library == OURS), math.nan)
        times = (min(row.imports), min(row.ever), row.cold, row.warm, row.time)
        lines.append(f"{row.case:8}{row.library:11}" + "".join(f"{t:8.2f}s" for t in times)
                     + f"{row.time / ours:10.2f}x")  # fmt: skip
    return "\n".join(lines)


def report(cases: Sequence[str], peers: Sequence[str], peer_python: str, rounds: int, seconds: float) -> int:
    """Measure, print and save; return the exit status."""
    pythons = {OURS: sys.executable} | dict.fromkeys(peers, peer_python)
    machine = describe()
    print(f"{machine['processor']}, {machine['cores']} cores, commit {machine['commit'][:12]}")
    rows: list[Row] = []
    for case in cases:
        found = [Row(case, library) for library in pythons]
        for _ in range(rounds):
            for row in found:
                if not row.error:
                    try:
                        measure(row, pythons[row.library])
                    except WorkerError as error:
                        row.error = str(error)
        print(table(found), flush=True)
        rows += found
    path = save({"machine": machine, "settings": {"rounds": rounds}, "rows": [asdict(r) for r in rows]}, "start")
    drawn = picture(rows, path.with_suffix(".png"))
    print(f"written to {path.relative_to(ROOT)}" + (f" and {drawn.name}" if drawn else ""))
    return int(any(row.error for row in rows if row.library == OURS))
