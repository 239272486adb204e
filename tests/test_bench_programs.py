"""The benchmark of programs: compiled they give NumPy's numbers, dtypes and shapes, and its report is written."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import numpy as np
import pytest

from bench import loops_results, programs_report
from bench.__main__ import main
from bench.loops_cases import Refused
from bench.loops_report import Row, Suite, measure
from bench.loops_worker import numbers
from bench.peers import numba_programs, numpy_programs
from bench.programs import PROGRAMS
from bench.programs_cases import CASES, arguments, as_tuple, rewritten

VALUES = tuple(case for case in CASES if not CASES[case].wrt)
GRADIENTS = tuple(case for case in CASES if CASES[case].wrt)


@pytest.mark.parametrize("case", VALUES)
def test_compiled_programs_give_numpys_numbers_dtypes_and_shapes(case):
    size = CASES[case].check
    for ours, expected in zip(PROGRAMS[case](size)(), numpy_programs.PROGRAMS[case](size)(), strict=True):
        assert (ours.dtype, ours.shape) == (np.asarray(expected).dtype, np.shape(expected))
        np.testing.assert_allclose(ours, expected, rtol=CASES[case].tolerance, atol=1e-12)


@pytest.mark.parametrize("case", GRADIENTS)
def test_gradients_equal_differences_along_a_direction(case):
    written, size = CASES[case], CASES[case].check
    data, rng = arguments(case, size), np.random.default_rng(1)
    value, gradients = PROGRAMS[case](size)()
    np.testing.assert_allclose(value, written.fn(*data), rtol=written.tolerance)
    directions = {i: rng.normal(size=np.shape(data[i])) for i in written.wrt}
    slope = sum(float(np.sum(g * directions[i])) for i, g in zip(written.wrt, gradients, strict=True))

    def moved(h):
        wide = [d.astype(np.float64) if getattr(d, "dtype", None) == np.float32 else d for d in data]
        return written.fn(*[d + h * directions[i] if i in directions else d for i, d in enumerate(wide)])

    assert slope == pytest.approx((moved(1e-5) - moved(-1e-5)) / 2e-5, rel=3e-3)


def test_numba_takes_the_text_as_it_stands_or_refuses_it():
    ours, peer = (numbers(programs["time-warping"](12)()) for programs in (PROGRAMS, numba_programs.PROGRAMS))
    np.testing.assert_allclose(peer, ours, rtol=1e-9)
    with pytest.raises(Refused, match="einsum"):
        numba_programs.PROGRAMS["bilinear-form"](2)()


IN_JAX = """
import json
from bench.loops_worker import numbers
from bench.peers import jax_programs
names = [fn.__name__ for fn in jax_programs.WRITTEN]
print(json.dumps([names, *(numbers(jax_programs.PROGRAMS[case](12)()) for case in ("heat", "option-prices"))]))
"""


def test_jax_agrees():
    """In a process of its own: once it is loaded, JAX warns of every fork."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed")
    done = subprocess.run([sys.executable, "-c", IN_JAX], check=True, capture_output=True, text=True)
    names, *found = json.loads(done.stdout)
    assert set(names) < {written.fn.__name__ for written in CASES.values()}
    for case, peer in zip(("heat", "option-prices"), found, strict=True):
        np.testing.assert_allclose(peer, numbers(PROGRAMS[case](12)()), rtol=1e-9)


def test_a_rewritten_program_and_what_it_calls_see_the_new_names():
    class Halved:
        def __getattr__(self, name):
            return (lambda *a: 0.5 * np.sum(*a)) if name == "sum" else getattr(np, name)

    fn, data = CASES["option-prices-gradient"].fn, arguments("option-prices-gradient", 5)
    assert rewritten(fn, {"np": Halved()})(*data) == pytest.approx(0.5 * fn(*data))
    called = []
    wrapped = rewritten(fn, {}, lambda fn: called.append(fn.__name__) or fn)
    assert "normal_cdf" in called and as_tuple(wrapped(*data)) == as_tuple(fn(*data))


def test_one_case_in_processes_of_its_own():
    pythons = dict.fromkeys(("tracegrad", "numpy"), sys.executable)
    rows = measure("power-iteration", pythons, 2, 0.01, 10, Suite(CASES, "bench.programs_worker", 1))
    assert [row.error for row in rows] == ["", ""] and all(len(row.rounds) == 2 for row in rows)


def test_command_line(tmp_path, monkeypatch, capsys):
    def measured(case, pythons, rounds, seconds, full, suite):
        ours = Row(case, "tracegrad", full, 1, rounds=[0.002])
        return [ours, Row(case, "numpy", full, 1, rounds=[0.006]), Row(case, "numba", full, 1, error="refused: no")]

    monkeypatch.setattr(programs_report, "measure", measured)
    monkeypatch.setattr(programs_report, "ROOT", tmp_path)
    monkeypatch.setattr(loops_results, "RESULTS", tmp_path / "results")
    assert main(["programs", "heat", "life", "--peers", "numpy,numba"]) == 0
    printed = capsys.readouterr().out
    assert "numpy              2   3.00x   3.00x  heat" in printed and "refused: no" in printed
    (written,) = (tmp_path / "results").glob("*.json")
    assert {row["case"] for row in json.loads(written.read_text())["rows"]} == {"heat", "life"}
