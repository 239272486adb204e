"""The thread pool's Python half: it starts the threads, parks them when idle, wakes them and survives a fork.

The work itself is handed out in compiled code (`tracegrad.codegen.pool_kernels`); a worker thread calls `tg_worker`
through ctypes, which releases the GIL, and comes back only to park.  A worker that parks just as it is woken for a step
makes that step slower, never wrong: the caller does whatever tasks nobody claims.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import threading
import weakref
from collections.abc import Callable

from tracegrad.codegen import pool_layout

NAME = "tracegrad-"  # how the names of worker threads begin
IDLE_LOOKS = 30_000  # about 1 ms of spinning after the last program, and up to a hundred times that within one
STOP_TIMEOUT = 1.0  # seconds to wait, at exit, for a worker that is still inside a task

_WORKER_TYPE = ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_POOLS: weakref.WeakSet[Pool] = weakref.WeakSet()


class Pool:
    """Threads for compiled code: pass `ctl` to a program, call `enter` before it and `leave` after it.

    threads: the caller included, so 1 starts none.  worker_address: of the compiled `tg_worker`.
    """

    def __init__(self, threads: int, worker_address: int) -> None:
        self.threads = threads
        self._worker: Callable[[int, int, int], None] = _WORKER_TYPE(worker_address)
        self._block, self._words = _allocate(pool_layout.words(threads))
        self.ctl = ctypes.addressof(self._words)
        self._reset()
        _POOLS.add(self)

    def _reset(self) -> None:
        """Start anew with every worker parked and none running yet: at creation, and in a forked child."""
        ctypes.memset(self.ctl, 0, ctypes.sizeof(self._words))
        self._words[pool_layout.THREADS] = self.threads
        self._words[pool_layout.PARKS] = self.threads - 1
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._parking = [threading.Semaphore(0) for _ in range(self.threads)]
        self._running: list[threading.Thread] = []

    def wake(self) -> None:
        """Make all workers spin for work; costs a comparison where they already do."""
        if self._words[pool_layout.PARKS] != self._words[pool_layout.WAKES]:
            self._wake_parked()

    def enter(self) -> None:
        """Wake the workers, and let them stay awake until `leave`."""
        with self._counting:
            self._words[pool_layout.ENTERED] += 1
        self.wake()

    def leave(self) -> None:
        with self._counting:
            self._words[pool_layout.ENTERED] -= 1

    def close(self) -> None:
        """Stop the workers: from now on the pool's regions run on the caller alone."""
        with self._lock:
            self._words[pool_layout.STOP] = 1
            self._words[pool_layout.THREADS] = 1
            for semaphore in self._parking:
                semaphore.release()
        for thread in self._running:
            thread.join(STOP_TIMEOUT)

    def _wake_parked(self) -> None:
        with self._lock:
            if self._words[pool_layout.STOP]:
                return
            with contextlib.suppress(RuntimeError):  # there are too many: the caller does the work of those that lack
                self._start()
            # A worker clears its state before it counts the park; only this method sets the state again.
            for thread in range(1, len(self._running) + 1):
                if not self._words[pool_layout.STATES + thread]:
                    self._words[pool_layout.STATES + thread] = 1
                    self._words[pool_layout.WAKES] += 1
                    self._parking[thread].release()

    def _start(self) -> None:
        """Start the workers that do not run yet."""
        for index in range(len(self._running) + 1, self.threads):
            arguments = (self._worker, self._words, self._parking[index], index)
            thread = threading.Thread(target=_serve, args=arguments, daemon=True, name=f"{NAME}{index}")
            thread.start()
            self._running.append(thread)


def _serve(worker: Callable[[int, int, int], None], words: ctypes.Array[ctypes.c_int64], parking: threading.Semaphore,
           index: int) -> None:  # fmt: skip
    """Body of a worker thread.  It holds no reference to the pool."""
    control = ctypes.addressof(words)
    while True:
        parking.acquire()
        if words[pool_layout.STOP]:
            return
        worker(control, IDLE_LOOKS, index)


def _allocate(count: int) -> tuple[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_int64]]:
    """Return a zeroed block that is never freed, and the int64 words in it that start on a cache line.

    Never freed, because a worker may still be looking at it when the interpreter takes its objects apart.
    """
    block = ctypes.create_string_buffer(count * pool_layout.WORD_BYTES + 64)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(block))
    offset = -ctypes.addressof(block) % 64
    return block, (ctypes.c_int64 * count).from_buffer(block, offset)


def _reset_after_fork() -> None:
    """In a forked child no worker exists: make each pool as new, at the same address."""
    for pool in list(_POOLS):
        pool._reset()


def _close_all() -> None:
    for pool in list(_POOLS):
        pool.close()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
