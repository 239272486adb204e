"""Whole training steps against other libraries: import, cold start, warm start, steady step.

Every library runs in a process of its own, and only one of them works at a time: several spinning thread pools stall
each other for milliseconds. Rounds go over all libraries in turn, so that a slow minute of the machine hits all alike.

    import   seconds to import the library
    cold     seconds to the end of the first step, with empty caches: tracing, compiling, running
    warm     the same in a second process, which finds what the first one left on disk
    step     milliseconds of a step, median of the rounds' medians; spread is (largest - smallest) / median
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.machine import ROOT, describe

OURS = "tracegrad"
PEERS = ("torch", "inductor", "jax")
RESULTS = Path(__file__).parent / "results"


class WorkerError(RuntimeError):
    """A worker failed or ended."""


class Worker:
    """A process that runs one library: `module` answers the commands."""

    def __init__(self, library: str, python: str, caches: str, module: str = "bench.worker", cores: int = 0):
        folder = Path(caches)
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep),
            "TRACEGRAD_CACHE_DIR": str(folder / "tracegrad"),
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
            "PYTENSOR_FLAGS": f"base_compiledir={folder / 'pytensor'}",
            "NUMBA_CACHE_DIR": str(folder / "numba"),
            "JAX_COMPILATION_CACHE_DIR": str(folder / "jax"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PLATFORMS": "cpu",
            "PYTHONDONTWRITEBYTECODE": "",  # as installed: the second process finds its modules compiled
            "BENCH_CORES": str(cores),
        }
        self.library = library
        self.process = subprocess.Popen(
            [python, "-m", module, library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if library != OURS else None,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def ask(self, command: str) -> dict[str, Any]:
        """Send a command and return the answer."""
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            self.process.stdin.write(command + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        answer = json.loads(line) if line else {"error": f"the process ended with status {self.process.wait()}"}
        if "error" in answer:
            raise WorkerError(f"{self.library}: {answer['error']}")
        return dict(answer)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


@dataclass
class Row:
    """One library on one case; seconds."""

    case: str
    library: str
    version: str = ""
    imported: float = 0.0
    cold: float = 0.0
    warm: float = 0.0
    loss: float = 0.0
    rounds: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def step(self) -> float:
        return statistics.median(self.rounds) if self.rounds else float("nan")

    @property
    def spread(self) -> float:
        return (max(self.rounds) - min(self.rounds)) / self.step if self.rounds else float("nan")


def measure(case: str, pythons: dict[str, str], rounds: int, seconds: float) -> list[Row]:
    """Measure all libraries on one case."""
    rows: list[Row] = []
    workers: dict[str, Worker] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            for library, python in pythons.items():
                row = Row(case, library)
                rows.append(row)
                try:
                    workers[library] = started(row, library, python, f"{folder}/{library}")
                except WorkerError as error:
                    row.error = str(error)
            for _ in range(rounds):
                for row in rows:
                    if not row.error:
                        time.sleep(0.05)  # the last library's threads go to sleep
                        row.rounds.append(workers[row.library].ask(f"burst {seconds}")["step"])
        finally:
            for worker in workers.values():
                worker.close()
    return rows


def started(row: Row, library: str, python: str, caches: str) -> Worker:
    """Time a first process on empty caches and a second one on what it left; return the second, ready to run."""
    cold = Worker(library, python, caches)
    try:
        row.cold = cold.ask(f"start {row.case}")["first"]
    finally:
        cold.close()
    worker = Worker(library, python, caches)
    try:
        answer = worker.ask(f"start {row.case}")
    except WorkerError:
        worker.close()
        raise
    row.imported, row.warm, row.loss, row.version = (answer[k] for k in ("import", "first", "loss", "version"))
    return worker


def table(rows: Sequence[Row]) -> str:
    """Write the rows, with each peer's step over ours."""
    lines = [
        f"{'case':8}{'library':11}{'import':>8}{'cold':>9}{'warm':>9}{'step':>12}{'spread':>8}{'over ours':>11}  loss"
    ]
    for row in rows:
        if row.error:
            lines.append(f"{row.case:8}{row.library:11}{row.error[:90]}")
            continue
        ours = next((r.step for r in rows if r.case == row.case and r.library == OURS and not r.error), float("nan"))
        times = f"{row.imported:7.2f}s{row.cold:8.2f}s{row.warm:8.2f}s{1e3 * row.step:10.3f}ms{row.spread:8.0%}"
        lines.append(f"{row.case:8}{row.library:11}{times}{row.step / ours:10.2f}x  {row.loss:.4f}")
    return "\n".join(lines)


def save(rows: Sequence[Row], settings: dict[str, Any]) -> Path:
    """Write the measurement as JSON under bench/results; return the file."""
    RESULTS.mkdir(exist_ok=True)
    now = time.strftime("%Y-%m-%dT%H%M%S", time.gmtime())
    path = RESULTS / f"steps-{now}.json"
    found = [asdict(row) | {"step": row.step if row.rounds else None} for row in rows]
    content = {"time": now, "machine": describe(), "settings": settings, "rows": found}
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path


def report(cases: Sequence[str], peers: Sequence[str], peer_python: str, rounds: int, seconds: float) -> int:
    """Measure, print and save; return the exit status."""
    pythons = {OURS: sys.executable} | dict.fromkeys(peers, peer_python)
    machine = describe()
    print(f"{machine['processor']}, {machine['cores']} cores, commit {machine['commit'][:12]}")
    rows: list[Row] = []
    for case in cases:
        found = measure(case, pythons, rounds, seconds)
        print(table(found), flush=True)
        rows += found
    path = save(rows, {"rounds": rounds, "seconds": seconds})
    print(f"written to {path.relative_to(ROOT)}")
    return int(any(row.error for row in rows))
