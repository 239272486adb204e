"""Random Python functions with loops and branches: compiled = plain Python; gradients = eager, forward, differences."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path as File
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from random_control import programs, recorded

import tracegrad as tg
from tracegrad import tree
from tracegrad.config import config
from tracegrad.errors import TracerError
from tracegrad.ir import interpret

pytest.importorskip("malt")

GROUPS = 8
EXAMPLES = int(os.environ.get("RANDOM_CONTROL", "200"))
THOROUGH = "RANDOM_CONTROL" in os.environ
SETTINGS = settings(
    max_examples=EXAMPLES // GROUPS,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.generate, Phase.shrink) if THOROUGH else (Phase.generate,),
)
POINTS = 3 if THOROUGH else 2
NEAR = 1e-7
LARGE = 1e6


def loaded(source: str, folder: File) -> Callable[..., Any]:
    """Write a program to a file, as conversion reads it there, and return its `f`."""
    path = folder / f"program{abs(hash(source))}.py"
    path.write_text(source, encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "program"}
    exec(compile(source, str(path), "exec"), namespace)
    found: Callable[..., Any] = namespace["f"]
    return found


def forward(f: Callable[..., Any], args: Any) -> Callable[..., Any]:
    """Return the function that gives the derivative in a direction: compiled when thorough, else interpreted."""

    def moved(x: Any, y: Any, v: Any, n: Any, direction: Any) -> Any:
        return tg.jvp(lambda *at: f(*at, n), (x, y, v), direction)[1]

    compiled = tg.jit(moved)
    if THOROUGH:
        return compiled
    lowered = compiled.lower(*args)
    return lambda *args: interpret(lowered.graph, *(np.asarray(a) for a in tree.leaves(args)), *lowered.captures)[0]


def along(gradient: Any, direction: Any) -> float:
    return float(sum(np.sum(g * d) for g, d in zip(gradient, direction, strict=True)))


def difference(run: Callable[..., Any], at: Any, n: int, direction: Any, path: Any) -> float | None:
    """Return the derivative by Richardson's extrapolation of central differences, None beside another path."""
    found = []
    for h in (1e-4, 2e-4):
        ends = [run(*(a + s * h * d for a, d in zip(at, direction, strict=True)), n) for s in (1.0, -1.0)]
        if any(other.taken != path.taken for _, other in ends):
            return None
        found.append((ends[0][0] - ends[1][0]) / (2 * h))
    estimate = (4 * found[0] - found[1]) / 3
    return float(estimate) if abs(found[0] - found[1]) < 1e-3 * max(1.0, abs(estimate)) else None


def check(source: str, seed_: int, folder: File) -> tuple[int, int]:
    """Compare one program with plain Python at a few points; say at how many, and at how many by differences."""
    f, run, rng = loaded(source, folder), recorded(source), np.random.default_rng(seed_)
    compiled = tg.value_and_grad(f, argnums=(0, 1, 2))
    push, seen, differences = None, 0, 0
    for _ in range(POINTS):
        at = (*rng.uniform(-2.0, 2.0, 2), rng.uniform(-2.0, 2.0, 3))
        direction, n = (*rng.standard_normal(2), rng.standard_normal(3)), int(rng.integers(0, 5))
        expected, path = run(*at, n)
        value, gradient = compiled(*at, n)
        if path.margin < NEAR or not abs(expected) < LARGE:
            continue
        seen += 1
        np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-9, err_msg="value")
        with tg.eager():
            reference = tg.grad(f, argnums=(0, 1, 2))(*at, n)
        scale = 1.0 + float(max(np.max(np.abs(g)) for g in reference))
        for name, g, r in zip(("x", "y", "v"), gradient, reference, strict=True):
            np.testing.assert_allclose(g, r, rtol=1e-8, atol=1e-8 * scale, err_msg=f"gradient by {name}")
        if THOROUGH or len(source) % 3 == 0:
            push = push or forward(f, (*at, n, direction))
            moved = push(*at, n, direction)
            np.testing.assert_allclose(moved, along(gradient, direction), atol=1e-8 * scale, err_msg="tangent")
        numeric = difference(run, at, n, direction, path)
        if numeric is not None:
            differences += 1
            slope = along(gradient, direction)
            np.testing.assert_allclose(slope, numeric, rtol=1e-4, atol=1e-5 * scale, err_msg="difference")
    assert compiled.traces == 1
    return seen, differences


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_program_is_plain_python(group: int, tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not compiled is refused for one reason only: a variable that has no value on some path."""
    monkeypatch.setattr(config, "cache", False)
    counts = np.zeros(4, int)

    def one(source: str) -> None:
        note(source)
        try:
            counts[:] += (1, *check(source, len(source), tmp_path), 0)
        except TracerError as error:
            if "it is set in only one branch" not in error.message:
                raise
            counts[3] += 1

    seed(group)(SETTINGS(given(programs(10 if THOROUGH else 3))(one)))()
    programs_, points, differences, refused = counts
    assert points > 0.7 * POINTS * programs_ and differences > 0.9 * points and refused <= 0.05 * programs_
