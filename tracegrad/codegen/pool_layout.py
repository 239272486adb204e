"""The control block of the thread pool: places of int64 words, shared by its compiled half and its Python half.

Words that different threads write stand on different cache lines (8 words each).
"""

from __future__ import annotations

CLAIM = 0  # region number << 40 | tasks << 20 | next task
FUNCTION = 8
ARGUMENTS = 9
BASE = 10  # number of the region's first task
DONE = 16  # tasks finished
BUSY = 24  # 1 while a caller owns the pool
PARKS = 32  # how often a worker has parked
THREADS = 40  # workers + the caller
STOP = 41  # 1: workers return at once
WAKES = 42  # how often a worker has been woken
RUNNING = 43  # programs under way that use the pool, counted by native calls: workers stay awake between regions
ENTERED = 44  # the same, counted by Python
STATES = 48  # one word per thread: 1 awake, 0 parked

WORD_BYTES = 8


def words(threads: int) -> int:
    """Return the length of the control block for so many threads."""
    return STATES + threads
