"""The benchmark of the tape: its cases run, agree with PyTorch where that is installed, and are written."""

from __future__ import annotations

import json

import pytest

from bench import tape, tape_report
from bench.__main__ import main
from bench.tape_cases import CASES


@pytest.mark.parametrize("case", CASES)
def test_the_tape_agrees_with_pytorch(case):
    pytest.importorskip("torch")
    from bench.peers import torch_tape

    ours, peer = tape.Session(case), torch_tape.Session(case)
    assert ours.run(2) == pytest.approx(peer.run(2), rel=1e-5)
    for name, value in ours.values.items():
        if value.requires_grad:
            assert value.grad.numpy() == pytest.approx(peer.values[name].grad.numpy(), rel=1e-3, abs=1e-6)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(tape_report, "RESULTS", tmp_path)
    monkeypatch.setattr(tape_report, "ROOT", tmp_path)
    assert main(["tape", "chain", "mlp", "--rounds", "1", "--seconds", "0.01"]) == 0
    assert "tracegrad" in capsys.readouterr().out
    (path,) = tmp_path.glob("tape-*.json")
    assert [row["case"] for row in json.loads(path.read_text())["rows"]] == ["chain", "mlp"]
