"""What is shown of the measured loops: a table, a JSON file and a picture."""

from __future__ import annotations

import importlib
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from bench.steps_report import OURS, RESULTS


class Row(Protocol):
    """What is shown of a measurement."""

    case: str
    library: str
    size: int
    factor: int
    cold: float
    warm: float
    error: str

    @property
    def time(self) -> float: ...

    @property
    def spread(self) -> float: ...


def ours(rows: Sequence[Row], case: str) -> float:
    return next((r.time for r in rows if r.case == case and r.library == OURS and not r.error), math.nan)


def table(rows: Sequence[Row]) -> str:
    """Write the rows of a case, with each peer's time over ours; ~ marks a time scaled from fewer rounds."""
    wide = max(19, *(len(row.case) + 1 for row in rows)) if rows else 19
    head = f"{'case':{wide}}{'library':11}{'size':>9}{'cold':>9}{'warm':>9}{'time':>14}{'spread':>8}{'over ours':>12}"
    lines = [head]
    for row in rows:
        name = f"{row.case:{wide}}{row.library:11}"
        if row.error:
            lines.append(f"{name}{row.error[:100]}")
            continue
        mark = "~" if row.factor > 1 else " "
        times = f"{row.cold:8.2f}s{row.warm:8.2f}s{mark:>2}{1e3 * row.time:10.3f}ms{row.spread:8.0%}"
        lines.append(f"{name}{row.size:9d}{times}{row.time / ours(rows, row.case):11.2f}x")
    return "\n".join(lines)


def compile_table(compiling: dict[str, list[float]], trips: Sequence[int]) -> str:
    """Write the seconds to compile by the number of rounds."""
    lines = [f"{'compile seconds':19}" + "".join(f"{f'{n} rounds':>16}" for n in trips)]
    for case, seconds in compiling.items():
        lines.append(f"{case:19}" + "".join(f"{s:15.3f}s" for s in seconds))
    return "\n".join(lines)


def save(content: dict[str, Any], what: str = "loops") -> Path:
    """Write a measurement as JSON under bench/results; return the file."""
    RESULTS.mkdir(exist_ok=True)
    now = time.strftime("%Y-%m-%dT%H%M%S", time.gmtime())
    path = RESULTS / f"{what}-{now}.json"
    path.write_text(json.dumps({"time": now} | content, indent=1) + "\n")
    return path


def picture(rows: Sequence[Row], path: Path) -> Path | None:
    """Draw every library's time over ours as bars; return the file, or None where matplotlib is not installed."""
    try:
        figure = importlib.import_module("matplotlib.figure")
    except ImportError:
        return None
    cases = list(dict.fromkeys(row.case for row in rows))
    names = list(dict.fromkeys(row.library for row in rows))
    whole = figure.Figure(figsize=(9, 1.2 + 0.8 * len(cases)), layout="constrained")
    axes = whole.subplots()
    height = 0.8 / len(names)
    for i, name in enumerate(names):
        shown = [r for r in rows if r.library == name and not r.error]
        places = [cases.index(r.case) + (i - (len(names) - 1) / 2) * height for r in shown]
        ratios = [r.time / ours(rows, r.case) for r in shown]
        bars = axes.barh(places, ratios, height, label=name, left=0)
        axes.bar_label(bars, labels=[f" {ratio:,.2f}" for ratio in ratios], fontsize=7)
    axes.set_yticks(range(len(cases)), cases)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.set_xlabel(f"time / {OURS}'s time (log scale; longer is slower)")
    axes.legend(fontsize=8)
    axes.margins(x=0.12)
    whole.savefig(path, dpi=150)
    return path
