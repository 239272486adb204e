"""The benchmarks of starting and of calls: their calls compute, their tables, files and pictures are written."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from bench import calls_report, loops_results, start_report
from bench.__main__ import main
from bench.calls import SESSIONS, call_of
from bench.calls_cases import CASES, arrays
from tracegrad.config import config
from tracegrad.runtime import cache


@pytest.mark.parametrize("case", [c for c in CASES if c.endswith("-2")])
def test_the_timed_calls_compute(case: str) -> None:
    kind, (first, last) = arrays(case)
    np.testing.assert_array_equal(call_of(case)(), last if kind == "grad" else first + last)
    assert SESSIONS["tracegrad"](case).run(2) == 0.0


def test_calls_are_measured_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setattr(loops_results, "RESULTS", tmp_path)
    monkeypatch.setattr(calls_report, "ROOT", tmp_path)
    assert main(["calls", "flat-2", "--rounds", "1", "--seconds", "0.01"]) == 0
    out = capsys.readouterr().out
    assert "flat-2        tracegrad" in out and "1.00x" in out
    (path,) = tmp_path.glob("calls-*.json")
    (row,) = json.loads(path.read_text())["rows"]
    assert row["library"] == "tracegrad" and len(row["rounds"]) == 1 and not row["error"]


def test_starts_are_tabled(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = iter([(0.2, 3.0, 4.0), (0.2, 1.0, 2.0), (0.1, 0.2, 0.4), (0.5, 2.0, 3.0), (0.4, 1.0, 2.0)])
    monkeypatch.setattr(start_report, "first_step", lambda row, python, caches: next(steps))
    rows = [start_report.Row("mlp", "tracegrad"), start_report.Row("mlp", "jax"), start_report.Row("mlp", "torch")]
    for row in rows[:2]:
        start_report.measure(row, sys.executable)
    rows[2].error = "torch: not installed"
    lines = start_report.table(rows).splitlines()
    assert [line.split()[2:] for line in lines[1:3]] == [
        ["0.10s", "3.00s", "1.00s", "0.20s", "0.40s", "1.00x"], ["0.40s", "2.00s", "2.00s", "1.00s", "2.00s", "5.00x"]
    ]  # fmt: skip
    assert lines[3].endswith("torch: not installed")


def test_programs_are_forgotten_and_library_kernels_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "cache", True)
    monkeypatch.setattr(config, "cache_dir", tmp_path / "tracegrad")
    for key, about in {"a": "program f", "b": "library kernels pool", "c": "calls"}.items():
        assert cache.store(key, {"steps": ["k"] * 99}, b"code", about)
    assert start_report.forget_programs(str(tmp_path))
    assert sorted(e.path.stem for e in cache.entries()) == ["b", "c"]
    assert not start_report.forget_programs(str(tmp_path))
