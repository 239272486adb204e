"""The thread pool's compiled half: workers that live in native code, and the parallel loop.

Work is claimed by compare-and-swap on one word (region number | tasks | next task), so a worker that the operating
system does not schedule never holds up the caller: the caller does the tasks itself.  A region costs 0.2-0.5 us.

The control block is described in `pool_layout`; `tracegrad.runtime.pool` parks and wakes the threads.
"""

from __future__ import annotations

from typing import Any

from tracegrad.codegen import pool_layout, types
from tracegrad.codegen.addresses import (
    add_atomic,
    call_task,
    compare_and_swap,
    load_acquire,
    minimum,
    relax,
    store_release,
)
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.pool_layout import WORD_BYTES

CLAIM = WORD_BYTES * pool_layout.CLAIM
FUNCTION = WORD_BYTES * pool_layout.FUNCTION
ARGUMENTS = WORD_BYTES * pool_layout.ARGUMENTS
BASE = WORD_BYTES * pool_layout.BASE
DONE = WORD_BYTES * pool_layout.DONE
BUSY = WORD_BYTES * pool_layout.BUSY
PARKS = WORD_BYTES * pool_layout.PARKS
THREADS = WORD_BYTES * pool_layout.THREADS
STOP = WORD_BYTES * pool_layout.STOP
RUNNING = WORD_BYTES * pool_layout.RUNNING
ENTERED = WORD_BYTES * pool_layout.ENTERED
STATES = WORD_BYTES * pool_layout.STATES

COUNT_BITS = 20
MOST_TASKS = (1 << COUNT_BITS) - 1
REGION_MASK = (1 << 23) - 1
PATIENCE = 100
"""How many times its limit a worker looks for work while a program is under way: parked, it would miss the rest."""


@kernel
def tg_worker(control: int, limit: int, thread: int) -> None:
    """Run tasks until `limit` looks in a row found none (or the pool stops), then report this thread as parked.

    While a program is under way it is more patient: one kernel on the caller alone must not cost the kernels after it.
    """
    idle = 0
    waited = 0
    while idle < limit and load_acquire(control + STOP) == 0:
        word = load_acquire(control + CLAIM)
        index = word & MOST_TASKS
        if index < (word >> COUNT_BITS) & MOST_TASKS:
            function = load_acquire(control + FUNCTION)
            arguments = load_acquire(control + ARGUMENTS)
            base = load_acquire(control + BASE)
            # The claim succeeds only if the region is still the one whose function was read.
            if compare_and_swap(control + CLAIM, word, word + 1):
                call_task(function, arguments, base + index, thread)
                add_atomic(control + DONE, 1)
            idle = 0
            waited = 0
        else:
            relax()
            idle += 1
            under_way = load_acquire(control + RUNNING) + load_acquire(control + ENTERED)
            if idle == limit and waited < PATIENCE and under_way > 0:
                idle = 0
                waited += 1
    store_release(control + STATES + WORD_BYTES * thread, 0)
    add_atomic(control + PARKS, 1)


@kernel
def run_serially(function: int, arguments: int, count: int) -> None:
    """Run all tasks on the caller."""
    for index in range(count):
        call_task(function, arguments, index, 0)


@kernel
def run_region(control: int, function: int, arguments: int, base: int, count: int) -> None:
    """Run tasks base..base+count-1 on all threads; the caller takes part and returns when all are done."""
    store_release(control + FUNCTION, function)
    store_release(control + ARGUMENTS, arguments)
    store_release(control + BASE, base)
    store_release(control + DONE, 0)
    region = ((load_acquire(control + CLAIM) >> (2 * COUNT_BITS)) + 1) & REGION_MASK
    store_release(control + CLAIM, region << (2 * COUNT_BITS) | count << COUNT_BITS)
    mine = 0
    while True:
        word = load_acquire(control + CLAIM)
        index = word & MOST_TASKS
        if index >= count:
            break
        if compare_and_swap(control + CLAIM, word, word + 1):
            call_task(function, arguments, base + index, 0)
            mine += 1
    add_atomic(control + DONE, mine)
    while load_acquire(control + DONE) != count:
        relax()


@kernel
def tg_par_for(control: int, function: int, arguments: int, count: int) -> None:
    """Run `function(arguments, 0..count-1, thread)`.

    Serially on the caller, as thread 0, where there is no pool, one thread, one task, or the pool is taken: by another
    Python thread, or by the region that this call is nested in.
    """
    if control == 0 or count <= 1:
        run_serially(function, arguments, count)
        return
    if load_acquire(control + THREADS) <= 1 or not compare_and_swap(control + BUSY, 0, 1):
        run_serially(function, arguments, count)
        return
    for base in range(0, count, MOST_TASKS):
        run_region(control, function, arguments, base, minimum(MOST_TASKS, count - base))
    store_release(control + BUSY, 0)


def entries() -> dict[str, tuple[Any, Any]]:
    """Return the exported symbols with their signatures."""
    word = types.int64
    return {
        "tg_worker": (tg_worker, types.void(word, word, word)),
        "tg_par_for": (tg_par_for, types.void(word, word, word, word)),
    }
