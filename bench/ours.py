"""The steps in tracegrad, compiled ahead of time with donation."""

from __future__ import annotations

from typing import Any

import numpy as np

import tracegrad as tg
from bench.steps import step
from tracegrad import tree


class Tracegrad:
    """The compiled step and its state."""

    def __init__(self, case: str):
        fn, (params, m, v, _, self.x, self.y), donate = step(case)
        self.state: tuple[Any, Any, Any] = tuple(tree.map(np.array, part) for part in (params, m, v))
        self.t = 0.0
        self.step = tg.compile(fn, *self.state, 1.0, self.x, self.y, donate=donate)

    def run(self, n: int) -> float:
        loss = np.float32(0)
        for _ in range(n):
            self.t += 1.0
            *state, loss = self.step(*self.state, self.t, self.x, self.y)
            self.state = (state[0], state[1], state[2])
        return float(loss)


def version() -> str:
    """Return the library's version."""
    return tg.__version__


SESSIONS = {"tracegrad": Tracegrad}
