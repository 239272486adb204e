"""Every script in examples/ is short and runs with --smoke; what it prints is checked by its own asserts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NEEDS = {"digits_cnn": "sklearn", "newton_root": "malt"}
PRINTS = {
    "digits_cnn": "held-out accuracy",
    "newton_root": "one compile: True",
    "rk4_fit": "the noise's is 0.0100",
    "rnn_lengths": "% solved",
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path):
    assert len(path.read_text().splitlines()) < 120
    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem])
    command = [sys.executable, str(path), "--smoke"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    assert PRINTS.get(path.stem, "") in done.stdout
