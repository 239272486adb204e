"""What a call costs: functions that do next to nothing, called with several small arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

COUNTS = (2, 20, 200)
KINDS = {
    "flat": "a jitted function of that many arrays",
    "dict": "a jitted function of one dict of arrays",
    "grad": "the gradient, by its first argument, of a function of that many arrays",
    "compiled": "a program compiled ahead of time",
    "bound": "a program with fixed buffers",
}
CASES = tuple(f"{kind}-{count}" for kind in KINDS for count in COUNTS)


def arrays(case: str) -> tuple[str, list[Any]]:
    """Return the kind of a case and its arrays."""
    kind, _, count = case.partition("-")
    return kind, [np.full(4, i, np.float32) for i in range(int(count))]
