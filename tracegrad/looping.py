"""The user's lines that make a graph, and which of them do so again and again."""

from __future__ import annotations

import dis
import functools
import os
import sys
from types import CodeType, FrameType

from tracegrad.errors import LongLoop, Place, Where, is_inside, user_place, where_of

OUTSIDE = os.path.join("tracegrad", "api", "transform.py")
"""What calls a function to trace it; the loops around that are none of the function's."""


@functools.lru_cache(maxsize=256)
def loops_of(code: CodeType) -> tuple[tuple[int, int], ...]:
    """Return where the loops of a function begin and end in its code: its jumps back."""
    jumps = [i for i in dis.get_instructions(code) if "JUMP" in i.opname and isinstance(i.argval, int)]
    return tuple((i.argval, i.offset) for i in jumps if i.argval < i.offset)


def in_a_loop() -> bool:
    """Say whether any of the functions that are being traced is in a loop."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code, at = frame.f_code, frame.f_lasti
        if code.co_filename.endswith(OUTSIDE):
            return False
        if not is_inside(code.co_filename) and any(first <= at <= last for first, last in loops_of(code)):
            return True
        frame = frame.f_back
    return False


class Lines:
    """The user's lines that have made nodes of a trace, and how many nodes each has made."""

    def __init__(self) -> None:
        self.places: dict[tuple[int, int], tuple[Place, Where | None]] = {}
        self.made: dict[tuple[int, int], int] = {}

    def now(self, patience: int) -> Where | None:
        """Return the line that is being executed, for another node; many nodes share one.

        Raises LongLoop where it is the one after `patience` others of its line, in a loop.
        """
        place = user_place()
        if place is None:
            return None
        key = id(place[0]), place[1]
        if key not in self.places:
            self.places[key] = place, where_of(place)  # the place keeps its code, so that no other gets its id
        made = self.made[key] = self.made.get(key, 0) + 1
        if made == patience and in_a_loop():
            raise LongLoop("a loop that makes a long program", fix="use tg.scan")
        return self.places[key][1]
