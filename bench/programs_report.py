"""Plain NumPy programs, compiled as they stand, against NumPy itself, Numba and JAX.

Measured as the loops are (`loops_report`: a process for each library, rounds in turn, numbers compared first), on one
core and on all of them.

    cold       seconds to the end of the first run, with empty caches; ours compiles library kernels then, too
    warm       the same in a second process
    time       milliseconds of a run, median of the rounds' medians
    over ours  the peer's time / tracegrad's

Numba compiles the text of each program (`njit`), JAX that text or its rewriting in `peers/jax_programs.py`.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from bench.loops_report import Row, Suite, measure
from bench.loops_results import ours, picture, save, table
from bench.machine import ROOT, describe
from bench.programs_cases import CASES
from bench.steps_report import OURS

PEERS = ("numpy", "numba", "jax")


def summary(rows: Sequence[Row]) -> str:
    """Write the geometric mean and the least of each peer's times over ours, and how many programs it refuses."""
    lines = [f"{'over ours':11}{'programs':>9}{'mean':>8}{'least':>8}"]
    for library in dict.fromkeys(row.library for row in rows if row.library != OURS):
        ratios = {r.case: r.time / ours(rows, r.case) for r in rows if r.library == library and r.rounds}
        ratios = {case: ratio for case, ratio in ratios.items() if not math.isnan(ratio)}
        if ratios:
            least = min(ratios, key=lambda case: ratios[case])
            mean = statistics.geometric_mean(ratios.values())
            lines.append(f"{library:11}{len(ratios):9d}{mean:7.2f}x{ratios[least]:7.2f}x  {least}")
    return "\n".join(lines)


def report(cases: Sequence[str], peers: Sequence[str], peer_python: str, rounds: int, seconds: float) -> int:
    """Measure, print and save; return the exit status."""
    pythons = {OURS: sys.executable} | dict.fromkeys(peers, peer_python)
    machine = describe()
    print(f"{machine['processor']}, {machine['cores']} cores, commit {machine['commit'][:12]}")
    found: list[dict[str, Any]] = []
    failed = False
    for cores in sorted({1, machine["cores"]}):
        suite, rows = Suite(CASES, "bench.programs_worker", cores), list[Row]()
        print(f"on {cores} of the cores")
        for case in cases:
            of_case = measure(case, pythons, rounds, seconds, CASES[case].size, suite)
            print(table(of_case), flush=True)
            rows += of_case
        print(summary(rows))
        found += [asdict(row) | {"cores": cores, "time": row.time if row.rounds else None} for row in rows]
        failed |= any(row.error and not row.error.startswith("refused") for row in rows)
    path = save({"machine": machine, "settings": {"rounds": rounds, "seconds": seconds}, "rows": found}, "programs")
    drawn = picture(rows, path.with_suffix(".png"))
    print(f"written to {path.relative_to(ROOT)}" + (f" and {drawn.name}" if drawn else ""))
    return int(failed)
