"""The benchmark of loops: its programs are right, its processes answer, and its table, file and picture are written."""

from __future__ import annotations

import json
import math
import sys

import numpy as np
import pytest

from bench import loops_report, loops_results
from bench.__main__ import main
from bench.loops import PROGRAMS
from bench.loops_cases import CASES, RATE, X0, stop
from bench.loops_report import Row, disagreement, libraries, measure
from bench.loops_worker import numbers
from bench.peers import numba_loops

TINY = {"logistic": 50, "while": 50, "rk4": 20, "filter": 60, "lstm": 4}


def tiny(case):
    return TINY[case.partition("-")[0]]


def test_every_case_is_written():
    assert list(PROGRAMS) == list(CASES) == list(numba_loops.PROGRAMS)


@pytest.mark.parametrize("case", [case for case in CASES if case != "lstm-gradient"])
def test_programs_equal_the_loops_and_adjoints_written_by_hand(case):
    ours, by_hand = (numbers(programs[case](tiny(case))()) for programs in (PROGRAMS, numba_loops.PROGRAMS))
    np.testing.assert_allclose(ours, by_hand, rtol=1e-9)


def test_the_adjoint_of_the_lstm_equals_the_one_written_by_hand():
    pytest.importorskip("scipy")  # Numba's matrix products are SciPy's
    ours, by_hand = (numbers(programs["lstm-gradient"](4)()) for programs in (PROGRAMS, numba_loops.PROGRAMS))
    np.testing.assert_allclose(ours, by_hand, rtol=1e-3)


def test_the_tolerance_gives_about_the_wanted_number_of_rounds():
    x, change, rounds = X0, 1.0, 0
    while change > stop(5000):
        y = RATE * x * (1.0 - x)
        change, x, rounds = abs(y - x), y, rounds + 1
    assert rounds == pytest.approx(5000, rel=0.02)


def test_one_case_in_a_process_of_its_own():
    (row,) = measure("rk4-gradient", {"tracegrad": sys.executable}, rounds=2, seconds=0.01, full=20)
    assert not row.error and len(row.rounds) == 2 and row.time > 0 and row.cold > 0 and row.warm > 0
    assert len(row.values) == 6


def test_wrong_numbers_are_not_timed():
    ours, peer = (Row("rk4-forward", name, 10, 1, values=[1.0, 2.0]) for name in ("tracegrad", "numba"))
    assert disagreement(peer, ours, 1e-9) == ""
    peer.values = [1.0, 2.1]
    assert disagreement(peer, ours, 1e-9) == "gives 2.1 as number 1, tracegrad 2.0"


def test_times_of_fewer_rounds_are_scaled():
    row = loops_report.row_of("logistic-forward", "torch", 1_000_000)
    row.rounds = [0.1, 0.2, 0.4]
    assert (row.size, row.factor) == (10_000, 100) and row.time == pytest.approx(20.0) and math.isclose(row.spread, 1.5)


def test_command_line(tmp_path, monkeypatch, capsys):
    def measured(case, pythons, rounds, seconds, full):
        ours = Row(case, "tracegrad", full, 1, rounds=[0.002])
        return [ours, Row(case, "numba", full // 2, 2, rounds=[0.003]), Row(case, "jax", full, 1, error="refused: no")]

    monkeypatch.setattr(loops_report, "measure", measured)
    monkeypatch.setattr(loops_report, "compile_seconds", lambda python: {"logistic-forward": [0.01, 0.02]})
    monkeypatch.setattr(loops_report, "ROOT", tmp_path)
    monkeypatch.setattr(loops_results, "RESULTS", tmp_path / "results")
    assert main(["loops", "while-gradient", "--peers", "numba,jax"]) == 0
    printed = capsys.readouterr().out
    assert "~     6.000ms" in printed and "3.00x" in printed and "refused: no" in printed
    (written,) = (tmp_path / "results").glob("*.json")
    assert [row["library"] for row in json.loads(written.read_text())["rows"]] == ["tracegrad", "numba", "jax"]
    with pytest.raises(SystemExit):
        main(["loops", "nonsense"])
    assert "nonsense is not one of" in capsys.readouterr().err


def test_the_layer_of_pytorch_is_beside_its_cell():
    assert libraries("lstm-gradient", ["torch"], "py") == {"tracegrad": sys.executable, "torch": "py", "torch.nn": "py"}
    assert libraries("rk4-forward", ["numba"], "py") == {"tracegrad": sys.executable, "numba": sys.executable}
