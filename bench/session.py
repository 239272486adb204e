"""What a library's side of a training step looks like to the measurement."""

from __future__ import annotations

from typing import Protocol


class Session(Protocol):
    """One training step of one library, with its state."""

    def run(self, n: int) -> float:
        """Do `n` steps, wait until they are done, and return the last loss."""
        ...
