"""Matrix products and convolutions in tracegrad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tracegrad as tg
from bench.contractions_cases import CASES, Conv, checksum, operands
from tracegrad.nn import functional as F


def version() -> str:
    """Return the library's version."""
    return tg.__version__


def convolution(case: Conv) -> Callable[[Any, Any], Any]:
    stride, padding, dilation, groups = case.stride, case.padding, case.dilation, case.groups
    if case.transposed:
        turned = [F.conv_transpose1d, F.conv_transpose2d][case.axes - 1]
        return lambda x, w: turned(x, w, stride=stride, padding=padding, groups=groups)
    plain = [F.conv1d, F.conv2d][case.axes - 1]
    return lambda x, w: plain(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)


def function(case: Any) -> Callable[[Any, Any], Any]:
    """Return the function of two arrays to measure."""
    if not isinstance(case, Conv):
        return lambda a, b: a @ b
    conv = convolution(case)
    if case.direction == "forward":
        return conv
    if case.direction == "data":
        like = np.zeros(case.x, case.dtype)
        return lambda ct, w: tg.vjp(lambda x: conv(x, w), like)[1](ct)[0]
    like = np.zeros(case.w, case.dtype)
    return lambda x, ct: tg.vjp(lambda w: conv(x, w), like)[1](ct)[0]


class Session:
    """One case; results are new arrays in every run, as in the other libraries."""

    def __init__(self, name: str):
        self.operands = operands(CASES[name])
        self.program = tg.compile(function(CASES[name]), *self.operands)
        self.value = checksum(self.program(*self.operands))

    def run(self, n: int) -> float:
        """Run it n times; return the checksum of the first result."""
        for _ in range(n):
            self.program(*self.operands)
        return self.value


SESSIONS = {"tracegrad": Session}
