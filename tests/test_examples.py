"""Every script in examples/ is short and runs with --smoke; what it prints is checked by its own asserts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NEEDS = {"digits_augmented": "sklearn", "digits_cnn": "sklearn", "newton_root": "malt", "variable_depth": "malt"}
PRINTS = {
    "custom_gradients": "max   goes to the winner:   [0. 1. 0.]",
    "digits_augmented": "with augmentation",
    "digits_cnn": "held-out accuracy",
    "newton_root": "one compile: True",
    "regression_three_ways": "all 50 rounds in one program: w = 1.999408",
    "rk4_fit": "the noise's is 0.0100",
    "rnn_lengths": "% solved",
    "two_layers": "the compiled step is",
    "variable_depth": "programs compiled for all depths: 1",
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
