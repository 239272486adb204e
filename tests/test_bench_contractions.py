"""The benchmark of contractions: its cases are right, its processes answer, and table, file and picture are written."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import tracegrad as tg
from bench import contractions, contractions_report, peak, steps_report
from bench.__main__ import main
from bench.contractions_cases import CASES, GROUPS, Conv, Product, operands
from bench.contractions_report import Row, chosen, disagreement, summary


def test_the_networks_and_products_that_are_measured():
    assert GROUPS == (
        "gemm", "skinny", "tiny", "lenet", "vgg11", "resnet18", "resnet50", "resnext", "mobilenet", "convnext",
        "efficientnet", "wavenet", "unet", "sources",
    )  # fmt: skip
    assert CASES["sources-conv1d-forward"].y == (1, 16, 62)
    assert CASES["sources-conv2d-forward"].y == (1, 16, 62, 124)
    assert CASES["unet-up-512x16-forward"].y == (2, 256, 32, 32)
    assert CASES["resnext-1024x14s2-forward"].w == (1024, 32, 3, 3)
    assert CASES["resnet18-3x112-7x7s2-64-weight"].y == (8, 64, 56, 56)


@pytest.mark.parametrize("name", ["gemm-64", "gemm-ab-512", "tiny-f64-4096x8", "skinny-broadcast", "skinny-outer"])
def test_products_and_their_operations(name):
    case = CASES[name]
    a, b = operands(case)
    assert (a.shape, b.shape, a.dtype) == (case.a, case.b, case.dtype)
    result = np.asarray(contractions.function(case)(a, b))
    np.testing.assert_allclose(result, a @ b, rtol=1e-3, atol=1e-3)
    assert case.flops == 2 * result.size * case.a[-1]


@pytest.mark.parametrize(
    "case",
    [
        Conv("plain", (2, 4, 9), (6, 2, 3), stride=2, padding=1, dilation=2, groups=2, dtype="float64"),
    ],
)
def test_the_directions_of_convolutions(case):
    """<ct, conv(x, w)> is bilinear: each direction pulls it back to what the forward result gives."""
    x, w = (np.random.default_rng(i).normal(size=s) for i, s in enumerate((case.x, case.w)))
    ct = np.random.default_rng(2).normal(size=case.y)
    forward = contractions.convolution(case)(x, w)
    assert forward.shape == case.y
    value = np.vdot(ct, forward)
    for direction, given, other in (("data", (ct, w), x), ("weight", (x, ct), w)):
        turned = Conv(**(case.__dict__ | {"direction": direction}))
        found = tg.jit(contractions.function(turned))(*given)
        assert found.shape == other.shape
        np.testing.assert_allclose(np.vdot(found, other), value, rtol=1e-10)
    if not case.transposed:
        assert case.flops == 2 * math.prod(case.y) * case.w[1] * case.w[2]


def test_the_peak_does_the_operations_that_it_counts():
    session = peak.Session("peak-float64")
    session.run(1)
    assert peak.flops("float64") == 2 * peak.CHAINS * peak.ROUNDS * peak.lanes("float64") * peak.cores()
    assert peak.assembly("float32").count("call") == peak.CHAINS


def test_wrong_numbers_are_not_timed():
    ours, peer = (Row("gemm-64", name, 1, 1.0, value=2.0) for name in ("tracegrad", "torch"))
    assert disagreement(peer, ours) == ""
    peer.value = 2.1
    assert "tracegrad 2.0" in disagreement(peer, ours)


def test_names_stand_for_groups_directions_and_cases():
    assert chosen(["tiny-f64-4096x8", "lenet"]) == ["tiny-f64-4096x8", *(c for c in CASES if c.startswith("lenet-"))]
    assert all(isinstance(CASES[c], Conv) for c in chosen(["weight"]))
    assert len(chosen(GROUPS)) == len(CASES)


def test_summary_has_geometric_means():
    rows = [Row("gemm-64", "tracegrad", 1, 1.0, rounds=[1.0]), Row("gemm-64", "torch", 1, 1.0, rounds=[2.0])]
    rows += [Row("gemm-128", "tracegrad", 1, 1.0, rounds=[1.0]), Row("gemm-128", "torch", 1, 1.0, rounds=[8.0])]
    (found,) = summary(rows)
    assert (found["mean"], found["least"], found["largest"], found["cases"]) == (pytest.approx(4.0), 2.0, 8.0, 2)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(steps_report, "RESULTS", tmp_path)
    monkeypatch.setattr(contractions_report, "RESULTS", tmp_path)
    monkeypatch.setattr(contractions_report, "ROOT", tmp_path)
    command = ["contractions", "tiny-16384x2", "sources-conv1d-data", "--peers", "numpy", "--rounds", "1"]
    assert main([*command, "--seconds", "0.01"]) == 0
    shown = capsys.readouterr().out
    assert "GF/s" in shown and "refused" in shown and "tiny float32" in shown
    (path,) = tmp_path.glob("contractions-*.json")
    rows = json.loads(path.read_text())["rows"]
    assert {r["cores"] for r in rows} == {1, 2}
    assert all(isinstance(CASES[r["case"]], (Product, Conv)) for r in rows)
