"""Donation: whose memory results take over, what is refused, what is copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tracegrad as tg
import tracegrad.numpy
from tracegrad.errors import ArgumentError, ShapeError, TracegradError

A = np.arange(3.0)


def update(p: Any, g: Any) -> Any:
    return {k: p[k] - 0.5 * g[k] for k in p}


def params() -> dict[str, Any]:
    return {"b": np.ones(3), "w": np.ones((2, 3))}


def test_a_donated_array_is_returned() -> None:
    step = tg.compile(update, params(), params(), donate="p")
    p, g = params(), params()
    found = step(p, g)
    assert found["w"] is p["w"] and found["b"] is p["b"]
    np.testing.assert_array_equal(p["w"], np.full((2, 3), 0.5))
    np.testing.assert_array_equal(g["w"], np.ones((2, 3)))


def test_donated_arrays_must_be_writeable() -> None:
    step = tg.compile(update, params(), params(), donate="p")
    p = params()
    p["w"].flags.writeable = False
    with pytest.raises(ArgumentError, match="read-only"):
        step(p, params())
    np.testing.assert_array_equal(p["b"], np.ones(3))


@pytest.mark.parametrize("shared", ["argument", "view", "each other"])
def test_donated_arrays_must_not_overlap(shared: str) -> None:
    both = tg.compile(lambda p, g: (p["a"] + g, p["b"] + g), {"a": A, "b": A}, A, donate="p")
    memory = np.arange(5.0)
    cases = {
        "argument": ({"a": memory[:3], "b": A.copy()}, memory[:3]),
        "view": ({"a": memory[:3], "b": A.copy()}, memory[2:]),
        "each other": ({"a": memory[:3], "b": memory[1:4]}, A),
    }
    with pytest.raises(ArgumentError, match="share"):
        both(*cases[shared])
    np.testing.assert_array_equal(memory, np.arange(5.0))


def test_a_strided_donated_array_is_copied() -> None:
    step = tg.compile(lambda p: p + 1.0, np.ones(3), donate="p")
    p = np.ones(6)[::2]
    np.testing.assert_array_equal(step(p), np.full(3, 2.0))
    np.testing.assert_array_equal(p, np.ones(3))


def test_compiled_functions_refuse_other_arguments() -> None:
    step = tg.compile(lambda p, n: p * n, np.ones(3), 2.0)
    with pytest.raises(ShapeError, match="compiled for"):
        step(np.ones(4), 2.0)
    with pytest.raises(TracegradError):
        step(np.ones(3, np.float32), 2.0)
    with pytest.raises(ArgumentError):
        step((np.ones(3),), 2.0)
