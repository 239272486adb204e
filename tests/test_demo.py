"""The demonstration and the example run, and the command line reads its arguments."""

from __future__ import annotations

import builtins
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tracegrad import demo, random
from tracegrad.__main__ import main, parser

pytest.importorskip("sklearn")
ROOT = Path(__file__).parent.parent


def test_smoke(tmp_path):
    pytest.importorskip("matplotlib")
    lines: list[str] = []
    report = demo.run(demo.Options(smoke=True, plot=tmp_path / "loss.png"), lines.append)
    assert report.accuracy > 0.8 and report.losses[-1] < report.losses[0] and report.ratio > 1
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (
        "compiled the training step in" in lines[0] and "held-out accuracy" in lines[1] and "times faster" in lines[2]
    )


def test_command_line(capsys):
    given = parser().parse_args(["demo", "--epochs", "3", "--batch", "16", "--no-plot"])
    assert (given.epochs, given.batch, given.plot, given.smoke) == (3, 16, None, False)
    with pytest.raises(SystemExit):
        parser().parse_args(["demo", "--epochs", "0"])
    assert "0 is not 1 or more" in capsys.readouterr().err


def test_a_missing_package_is_named_with_its_fix(monkeypatch, capsys):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "sklearn":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["demo", "--smoke", "--no-plot"]) == 1
    assert 'fix: pip install "tracegrad[examples]"' in capsys.readouterr().err


def test_progress_falls_back_to_lines(monkeypatch, capsys):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] in ("rich", "tqdm"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    assert list(demo.progress(iter(range(20)), 20)) == list(range(20))
    assert capsys.readouterr().out.splitlines()[-1] == "training 100 %"


def test_shifting_moves_whole_images():
    x = np.zeros((40, 1, 8, 8), np.float32)
    x[:, 0, 3, 4] = 1
    moved = demo.shifted(x, random.key(0))
    places = {tuple(np.argwhere(image[0])[0]) for image in moved}
    assert places == {(r, c) for r in (2, 3, 4) for c in (3, 4, 5)} and (moved.sum((1, 2, 3)) == 1).all()


def test_example_runs():
    source = (
        (ROOT / "examples" / "digits_cnn.py").read_text().replace("EPOCHS, BATCH = 20, 32", "EPOCHS, BATCH = 2, 32")
    )
    assert len(source.splitlines()) < 120
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "held-out accuracy" in done.stdout
