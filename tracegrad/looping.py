"""Whether a line of the user's is executed again and again."""

from __future__ import annotations

import dis
import functools
import os
import sys
from types import CodeType, FrameType

from tracegrad.errors import is_inside

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
