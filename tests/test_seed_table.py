"""Every seed case has a test that is named after it, in every mode: E on the tape, C compiled."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

FILES = {"E": "test_seed_cases_tape.py", "C": "test_seed_cases.py"}
ROWS = {
    **dict.fromkeys(["C1", "C2", "C3", "C5", "A1", "A3", "A6", "A7", "A10", "A11", "A12", "A13"], "EC"),
    **dict.fromkeys(["M1", "M2", "M3", "M4", "M5", "M6"], "EC"),
    **dict.fromkeys(["A2", "A4", "A5", "A8", "A9"], "E"),
    "C4": "C",
}


def ids(mode: str) -> set[str]:
    """Return the cases that a file has tests of."""
    text = (Path(__file__).parent / FILES[mode]).read_text()
    return {name.upper() for name in re.findall(r"(?m)^def test_([acm]\d+)_\w+\(", text, re.IGNORECASE)}


@pytest.mark.parametrize("mode", "EC")
def test_every_case_has_its_test(mode: str) -> None:
    assert sorted(ids(mode)) == sorted(row for row, modes in ROWS.items() if mode in modes)
