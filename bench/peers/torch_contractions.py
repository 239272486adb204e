"""Matrix products and convolutions in PyTorch: MKL and oneDNN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from bench.contractions_cases import CASES, Conv, checksum, operands


def version() -> str:
    """Return the library's version."""
    return str(torch.__version__)


def function(case: Any) -> Callable[[Any, Any], Any]:
    if not isinstance(case, Conv):
        return torch.matmul
    n = case.axes
    each = [[v] * n for v in (case.stride, case.padding, case.dilation)]
    settings = (*each, case.transposed, [0] * n, case.groups)
    if case.direction == "forward":
        return lambda x, w: torch.convolution(x, w, None, *settings)
    backward = torch.ops.aten.convolution_backward
    if case.direction == "data":
        like = torch.zeros(case.x)
        return lambda ct, w: backward(ct, like, w, None, *settings, [True, False, False])[0]
    like = torch.zeros(case.w)
    return lambda x, ct: backward(ct, x, like, None, *settings, [False, True, False])[1]


class Session:
    """One case."""

    def __init__(self, name: str):
        self.operands = [torch.from_numpy(o) for o in operands(CASES[name])]
        self.function = function(CASES[name])
        self.value = checksum(self.function(*self.operands).numpy())

    @torch.no_grad()
    def run(self, n: int) -> float:
        """Run it n times; return the checksum of the first result."""
        for _ in range(n):
            self.function(*self.operands)
        return self.value


SESSIONS = {"torch": Session}
