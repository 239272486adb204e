"""The functions that scalar code may call, on f32 and f64."""

from __future__ import annotations

from tracegrad.codegen.maths_builtin import Scalar


def sign(x: Scalar) -> Scalar:
    return 1 if x > 0 else -1 if x < 0 else 0 if x == 0 else x
