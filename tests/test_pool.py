"""The thread pool: every task runs once, whoever enters, and a fork or the end of the process does no harm."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.codegen import pool_kernels, pool_layout, types
from tracegrad.codegen.addresses import add_atomic, load_word, par_for, task_address
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.kernel_writer import write
from tracegrad.codegen.native import compile_library
from tracegrad.config import config
from tracegrad.runtime.objects import define_symbols, load_object
from tracegrad.runtime.pool import Pool

WORD = types.int64
count_task_address = task_address("count_task")


@kernel
def count_task(arguments, index, thread):
    """arguments[index] += 1."""
    add_atomic(arguments + 8 * index, 1)


@kernel
def count_region(control, arguments, count):
    par_for(control, count_task_address(), arguments, count)


@kernel
def nest_task(arguments, index, thread):
    """Enter the pool from inside a task."""
    par_for(load_word(arguments, 0), count_task_address(), load_word(arguments, 1), load_word(arguments, 2))


def build_objects() -> tuple[bytes, bytes]:
    tasks = {
        "count_task": (count_task, types.void(WORD, WORD, WORD)),
        "nest_task": (nest_task, types.void(WORD, WORD, WORD)),
        "count_region": (count_region, types.void(WORD, WORD, WORD)),
    }
    pool = write(pool_kernels.entries(), "pool")
    return compile_library(pool, "pool"), compile_library(write(tasks, "tasks"), "tasks")


class Machine:
    """Loaded code and a pool of some threads."""

    def __init__(self, objects: tuple[bytes, bytes], threads: int) -> None:
        native = load_object(objects[0], ["tg_worker", "tg_par_for"])
        define_symbols({"tg_par_for": native["tg_par_for"]})
        tasks = load_object(objects[1], ["count_region", "nest_task"])
        self.nest = tasks["nest_task"]
        self.region = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(tasks["count_region"])
        self.par_for = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 4)(native["tg_par_for"])
        self.pool = Pool(threads, native["tg_worker"])

    def count(self, tasks: int, regions: int = 1) -> np.ndarray:
        counts = np.zeros(tasks, np.int64)
        for _ in range(regions):
            self.pool.wake()
            self.region(self.pool.ctl, counts.ctypes.data, tasks)
        return counts


@pytest.fixture(scope="module")
def objects() -> tuple[bytes, bytes]:
    return build_objects()


@pytest.fixture
def machine(objects):
    machine = Machine(objects, 2)
    yield machine
    machine.pool.close()


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("tasks", [0, 1, 2, 37, 1000])
def test_every_task_runs_once(objects, threads, tasks):
    machine = Machine(objects, threads)
    assert (machine.count(tasks, regions=50) == 50).all()
    machine.pool.close()


def test_more_tasks_than_a_claim_word_holds(machine):
    assert (machine.count((1 << 20) + 17) == 1).all()


def test_regions_after_the_workers_parked(machine):
    for _ in range(3):
        assert (machine.count(100, regions=3) == 3).all()
        time.sleep(0.02)


def looks_until_parked(monkeypatch: pytest.MonkeyPatch, limit: int, entered: int, leaves_after: int) -> int:
    """Run the worker's text in Python on an empty pool; return how often it looked for work before it parked."""
    words = [0] * pool_layout.words(2)
    words[pool_layout.ENTERED] = entered
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == leaves_after:
            words[pool_layout.ENTERED] = 0

    def store(address: int, value: int) -> None:
        words[address // pool_layout.WORD_BYTES] = value

    def add(address: int, value: int) -> None:
        words[address // pool_layout.WORD_BYTES] += value

    monkeypatch.setattr(pool_kernels, "load_acquire", lambda address: words[address // pool_layout.WORD_BYTES])
    monkeypatch.setattr(pool_kernels, "store_release", store)
    monkeypatch.setattr(pool_kernels, "add_atomic", add)
    monkeypatch.setattr(pool_kernels, "relax", look)
    words[pool_layout.STATES + 1] = 1
    pool_kernels.tg_worker(0, limit, 1)
    assert (words[pool_layout.PARKS], words[pool_layout.STATES + 1]) == (1, 0)
    return looks


def test_a_worker_stays_awake_while_a_program_is_under_way(monkeypatch):
    limit, most = 7, 7 * (1 + pool_kernels.PATIENCE)
    assert looks_until_parked(monkeypatch, limit, entered=0, leaves_after=0) == limit
    assert looks_until_parked(monkeypatch, limit, entered=1, leaves_after=0) == most
    assert looks_until_parked(monkeypatch, limit, entered=1, leaves_after=2 * limit) == 2 * limit
    assert looks_until_parked(monkeypatch, limit, entered=1, leaves_after=2 * limit + 1) == 3 * limit


def test_a_worker_parks_though_a_program_is_under_way(objects):
    worker = load_object(objects[0], ["tg_worker"])["tg_worker"]
    pool = Pool(2, worker)
    pool._words[pool_layout.ENTERED] = 1
    ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * 3)(worker)(pool.ctl, 1000, 1)
    pool.leave()
    assert pool._words[pool_layout.PARKS] == 2


def test_calls_are_counted_while_they_run(machine, monkeypatch):
    monkeypatch.setattr(config, "threads", 2)
    machine.pool.enter()
    machine.pool.enter()
    assert machine.pool._words[pool_layout.ENTERED] == 2
    machine.pool.leave()
    machine.pool.leave()
    step = tg.jit(lambda x: (x @ x) @ x)
    x = np.ones((300, 300))
    for _ in range(3):
        step(x)
    pool = step.recent[0].program.executable.pool
    assert (pool._words[pool_layout.RUNNING], pool._words[pool_layout.ENTERED]) == (0, 0)


def test_no_pool_means_serial(machine):
    counts = np.zeros(9, np.int64)
    machine.region(0, counts.ctypes.data, 9)
    assert (counts == 1).all()


def test_a_nested_region_runs(machine):
    counts = np.zeros(10, np.int64)
    arguments = np.array([machine.pool.ctl, counts.ctypes.data, 10], np.int64)
    machine.pool.wake()
    machine.par_for(machine.pool.ctl, machine.nest, arguments.ctypes.data, 20)
    assert (counts == 20).all()


def test_two_python_threads_at_once(machine):
    results: list[np.ndarray] = []
    callers = [threading.Thread(target=lambda: results.append(machine.count(50, regions=500))) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert len(results) == 2
    assert all((counts == 500).all() for counts in results)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_has_its_own_workers(machine):
    machine.count(10)
    child = os.fork()
    if child == 0:
        os._exit(0 if (machine.count(100, regions=20) == 20).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert (machine.count(100) == 1).all()


@pytest.mark.parametrize("most", [0, 1])
def test_where_threads_cannot_start(machine, monkeypatch, most):
    """The caller does the work of those that lack; once they can start, they do."""
    start = threading.Thread.start
    started: list[threading.Thread] = []

    def refuse(thread: threading.Thread) -> None:
        if len(started) == most:
            raise RuntimeError("can't start new thread")
        start(thread)
        started.append(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for _ in range(2):
        machine.pool.enter()
        assert (machine.count(100, regions=20) == 20).all()
        machine.pool.leave()
    assert machine.pool._words[pool_layout.ENTERED] == 0
    monkeypatch.undo()
    machine.count(10)
    assert len(machine.pool._running) == machine.pool.threads - 1


@pytest.mark.parametrize("delay", [0.0, 0.01])
def test_the_process_ends_in_peace(delay):
    script = f"""
        import time
        from tests.test_pool import Machine, build_objects
        machine = Machine(build_objects(), 3)
        machine.count(10, regions=10)
        time.sleep({delay})
    """
    root = Path(__file__).parent.parent
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120, cwd=root)


def test_the_number_of_threads_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEGRAD_THREADS", "100000")
    assert type(config)().threads == 1024
