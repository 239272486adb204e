"""The eager tape beside PyTorch's and HIPS autograd's: the same loss first, then microseconds per forward and backward.

Every library runs in a process of its own; rounds go over all libraries in turn, and medians are shown.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from bench.machine import ROOT, describe
from bench.steps_report import OURS, RESULTS, Worker, WorkerError

PEERS = ("torch", "autograd")


def measure(case: str, pythons: dict[str, str], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Measure all libraries on one case."""
    rows: list[dict[str, Any]] = []
    workers: dict[str, Worker] = {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        try:
            for library, python in pythons.items():
                row: dict[str, Any] = {"case": case, "library": library, "rounds": [], "error": ""}
                rows.append(row)
                workers[library] = Worker(library, python, f"{folder}/{library}", "bench.tape_worker")
                try:
                    found = workers[library].ask(f"start {case}")
                    row |= {"loss": found["loss"], "version": found["version"]}
                except WorkerError as error:
                    row["error"] = str(error).partition(": ")[2]
                if not row["error"] and not math.isclose(row["loss"], rows[0].get("loss", math.nan), rel_tol=1e-4):
                    row["error"] = f"gives {row['loss']}, tracegrad {rows[0].get('loss')}"
            for _ in range(rounds):
                for row in rows:
                    if not row["error"]:
                        row["rounds"].append(workers[row["library"]].ask(f"burst {seconds}")["step"])
        finally:
            for worker in workers.values():
                worker.close()
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Write the rows of a case, with each peer's time over ours."""
    lines = []
    for row in rows:
        name = f"{row['case']:8}{row['library']:11}"
        if row["error"]:
            lines.append(f"{name}{row['error'][:90]}")
            continue
        mine = statistics.median(rows[0]["rounds"]) if rows[0]["rounds"] else math.nan
        own = statistics.median(row["rounds"])
        lines.append(f"{name}{1e6 * own:10.1f} us{own / mine:8.2f}x")
    return "\n".join(lines)


def report(cases: Sequence[str], peers: Sequence[str], peer_python: str, rounds: int, seconds: float) -> int:
    """Measure, print and save; return the exit status."""
    machine = describe()
    print(f"{machine['processor']}, {machine['cores']} cores, commit {machine['commit'][:12]}")
    rows: list[dict[str, Any]] = []
    for case in cases:
        found = measure(case, {OURS: sys.executable} | dict.fromkeys(peers, peer_python), rounds, seconds)
        print(table(found), flush=True)
        rows += found
    RESULTS.mkdir(exist_ok=True)
    now = time.strftime("%Y-%m-%dT%H%M%S", time.gmtime())
    path = RESULTS / f"tape-{now}.json"
    settings = {"rounds": rounds, "seconds": seconds}
    path.write_text(json.dumps({"time": now, "machine": machine, "settings": settings, "rows": rows}, indent=1) + "\n")
    print(f"written to {path.relative_to(ROOT)}")
    return int(any(row["error"] and "refused" not in row["error"] for row in rows))
