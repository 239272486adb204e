"""What a library's side of a training step looks like to the measurement."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol


class Session(Protocol):
    """One training step of one library, with its state."""

    def run(self, n: int) -> float:
        """Do `n` steps, wait until they are done, and return the last loss."""
        ...


class Repeated:
    """One call, repeated; `wait` waits until a result is there."""

    def __init__(self, call: Callable[[], Any], wait: Callable[[Any], object] | None = None):
        self.call = call
        self.wait = wait

    def run(self, n: int) -> float:
        call, found = self.call, None
        for _ in range(n):
            found = call()
        if self.wait is not None:
            self.wait(found)
        return 0.0
