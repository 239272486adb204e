"""Matrix products and convolutions against other libraries: the same numbers first, then rates.

Every library runs in a process of its own, and only one of them works at a time; rounds go over all libraries in turn.

    GF/s       1e9 multiplications and additions per second, median of the rounds' medians
    of peak    the rate over that of independent fused multiply-adds in registers, measured in the same run
    over ours  the peer's time / tracegrad's
"""

from __future__ import annotations

import importlib
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.contractions_cases import CASES, DIRECTIONS, Conv
from bench.machine import ROOT, describe
from bench.steps_report import OURS, RESULTS, Worker, WorkerError

PEERS = ("torch", "jax", "numpy")
PEAK = "peak"

PAUSE = 0.3
"""Seconds between two libraries' turns: OpenBLAS's threads, and OpenMP's, wait busily for up to a fifth of a second."""


@dataclass
class Row:
    """One library on one case; seconds."""

    case: str
    library: str
    cores: int
    peak: float
    version: str = ""
    value: float = 0.0
    rounds: list[float] = field(default_factory=list)
    error: str = ""

    @property
    def time(self) -> float:
        return statistics.median(self.rounds) if self.rounds else math.nan

    @property
    def rate(self) -> float:
        """Operations per second."""
        return CASES[self.case].flops / self.time


def measure(
    cases: Sequence[str], workers: dict[str, Worker], cores: int, rounds: int, seconds: float
) -> Iterable[list[Row]]:
    """Measure all libraries on every case."""
    peaks = {dtype: cores * peak(workers[PEAK], dtype, seconds) for dtype in ("float32", "float64")}
    for case in cases:
        rows = [Row(case, library, cores, peaks[CASES[case].dtype]) for library in workers if library != PEAK]
        for row in rows:
            try:
                found = workers[row.library].ask(f"start {case}")
                row.version, row.value = found["version"], found["loss"]
            except WorkerError as error:
                row.error = str(error).partition(": ")[2]
            if not row.error and not rows[0].error:
                row.error = disagreement(row, rows[0])
        for _ in range(rounds):
            for row in rows:
                if not row.error:
                    time.sleep(PAUSE)
                    row.rounds.append(workers[row.library].ask(f"burst {seconds}")["step"])
        yield rows


def peak(worker: Worker, dtype: str, seconds: float) -> float:
    """Return operations per second of each core, all of them working."""
    flops = importlib.import_module("bench.peak")
    worker.ask(f"start peak-{dtype}")
    best = min(worker.ask(f"burst {seconds}")["step"] for _ in range(5))
    return 2 * flops.CHAINS * flops.ROUNDS * flops.lanes(dtype) / best


def disagreement(row: Row, ours: Row) -> str:
    """Say that a library's result differs from ours by more than the case's tolerance."""
    tolerance = CASES[row.case].tolerance
    if math.isclose(row.value, ours.value, rel_tol=tolerance, abs_tol=tolerance):
        return ""
    return f"gives {row.value}, tracegrad {ours.value}"


def ours(rows: Sequence[Row], row: Row) -> float:
    return next(r.time for r in rows if (r.case, r.cores, r.library) == (row.case, row.cores, OURS))


def table(rows: Sequence[Row]) -> str:
    """Write the rows of a case on one line."""
    parts = []
    for row in rows:
        if row.error:
            parts.append(f"{row.library} {row.error[:60]}")
        elif row.library == OURS:
            parts.append(f"{row.rate / 1e9:8.1f} GF/s {row.rate / row.peak:5.0%} of peak")
        else:
            parts.append(f"{row.library} {row.rate / 1e9:7.1f} ({row.time / ours(rows, row):.2f}x)")
    return f"{rows[0].case:38}{rows[0].cores:2d}  " + "  ".join(parts)


def kind(case: str) -> str:
    """Return what a case is summed up with: its group, and the direction of convolutions."""
    found = CASES[case]
    if isinstance(found, Conv):
        return f"conv {found.direction}"
    return f"{case.partition('-')[0]} {found.dtype}"


def summary(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return geometric mean and extremes of the peers' times over ours, by kind, cores and library."""
    found: dict[tuple[str, int, str], list[tuple[float, str]]] = {}
    for row in rows:
        if row.library != OURS and row.rounds:
            ratio = row.time / ours(rows, row)
            found.setdefault((kind(row.case), row.cores, row.library), []).append((ratio, row.case))
    return [
        {
            "kind": key[0], "cores": key[1], "library": key[2], "cases": len(ratios),
            "mean": math.exp(statistics.fmean(math.log(r) for r, _ in ratios)),
            "least": min(ratios)[0], "least_case": min(ratios)[1], "largest": max(ratios)[0],
        }
        for key, ratios in found.items()
    ]  # fmt: skip


def summary_table(rows: Sequence[Row]) -> str:
    head = f"{'time over ours':18}{'cores':>6}  {'library':8}{'cases':>6}{'mean':>8}{'least':>8}{'largest':>9}"
    lines = [f"{head}  least at"]
    for s in summary(rows):
        ratios = f"{s['mean']:7.2f}x{s['least']:7.2f}x{s['largest']:8.2f}x"
        lines.append(f"{s['kind']:18}{s['cores']:6d}  {s['library']:8}{s['cases']:6d}{ratios}  {s['least_case']}")
    return "\n".join(lines)


def picture(rows: Sequence[Row], path: Path) -> Path | None:
    """Draw the peers' times over ours as bars; return the file, or None where matplotlib is not installed."""
    try:
        figure = importlib.import_module("matplotlib.figure")
    except ImportError:
        return None
    peers = [p for p in PEERS if any(r.library == p and r.rounds for r in rows)]
    most = max((r.cores for r in rows), default=0)
    shown = [r for r in rows if r.cores == most and r.rounds and r.library != OURS]
    cases = list(dict.fromkeys(r.case for r in shown))
    if not cases:
        return None
    whole = figure.Figure(figsize=(max(9, 0.16 * len(cases)), 3 * len(peers)), layout="constrained")
    for peer, axes in zip(peers, whole.subplots(len(peers), squeeze=False)[:, 0], strict=True):
        of_peer = {r.case: r.time / ours(rows, r) for r in shown if r.library == peer}
        axes.bar(list(of_peer), list(of_peer.values()), color=["C0" if v >= 1 else "C3" for v in of_peer.values()])
        axes.set_yscale("log")
        axes.axhline(1.0, color="black", linewidth=0.8)
        axes.set_ylabel(f"{peer}'s time / ours", fontsize=8)
        axes.tick_params(axis="x", rotation=90, labelsize=5)
        axes.margins(x=0.005)
    whole.suptitle(f"{most} cores; above 1: tracegrad is faster", fontsize=9)
    whole.savefig(path, dpi=150)
    return path


def chosen(names: Sequence[str]) -> list[str]:
    """Return the cases that names of groups, directions or cases stand for."""
    return [
        c
        for c in CASES
        if any(c == n or c.partition("-")[0] == n or (n in DIRECTIONS and c.endswith(f"-{n}")) for n in names)
    ]


def report(
    names: Sequence[str],
    peers: Sequence[str],
    peer_python: str,
    rounds: int,
    seconds: float,
    cores: Sequence[int] = (1, 2),
) -> int:
    """Measure, print and save; return the exit status."""
    machine = describe()
    print(f"{machine['processor']}, {machine['cores']} cores, commit {machine['commit'][:12]}")
    cases = chosen(names)
    rows: list[Row] = []
    for count in cores:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            pythons = {OURS: sys.executable, PEAK: sys.executable}
            pythons |= {p: sys.executable if p == "numpy" else peer_python for p in peers}
            workers: dict[str, Worker] = {}
            try:
                for name, python in pythons.items():
                    workers[name] = Worker(name, python, f"{folder}/{name}", "bench.contractions_worker", count)
                for found in measure(cases, workers, count, rounds, seconds):
                    print(table(found), flush=True)
                    rows += found
            finally:
                for worker in workers.values():
                    worker.close()
    print(summary_table(rows))
    path = save(rows, machine, {"rounds": rounds, "seconds": seconds, "cores": list(cores)})
    print(f"written to {path.relative_to(ROOT)}")
    if drawn := picture(rows, path.with_suffix(".png")):
        print(f"drawn in {drawn.relative_to(ROOT)}")
    return int(any(row.error and "refused" not in row.error for row in rows))


def save(rows: Sequence[Row], machine: dict[str, Any], settings: dict[str, Any]) -> Path:
    """Write a measurement as JSON under bench/results; return the file."""
    RESULTS.mkdir(exist_ok=True)
    now = time.strftime("%Y-%m-%dT%H%M%S", time.gmtime())
    path = RESULTS / f"contractions-{now}.json"
    found = [asdict(r) | {"time": r.time, "rate": r.rate} for r in rows if r.rounds]
    found += [asdict(r) for r in rows if not r.rounds]
    content = {"time": now, "machine": machine, "settings": settings, "summary": summary(rows), "rows": found}
    path.write_text(json.dumps(content, indent=1) + "\n")
    return path
