"""The cache on disk: used by other processes, harmless when damaged, missing or read-only; threads and forks run
one program."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import graph_of
from damage import ROUNDS, damages

import tracegrad as tg
import tracegrad.numpy
from tracegrad.config import config
from tracegrad.runtime import cache
from tracegrad.runtime.program import build

ROOT = str(Path(tg.__file__).parent.parent)
SCRIPT = """
import sys
import numpy as np
import tracegrad as tg
import tracegrad.numpy

@tg.jit
def f(x, w):
    return np.tanh(x * w).sum(axis=1) + 1.5

x = np.arange(12.0).reshape(3, 4)
np.testing.assert_allclose(f(x, x), np.tanh(x * x).sum(axis=1) + 1.5, rtol=1e-12)
print("numba" if "numba" in sys.modules else "cached")
"""


def start(script: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    env = {
        **os.environ,
        "TRACEGRAD_CACHE_DIR": str(folder),
        "PYTHONPATH": ROOT,
        "TRACEGRAD_THREADS": "2",
        **environment,
    }
    return subprocess.Popen(
        [sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def output_of(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out.strip()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that two processes filled at once."""
    folder = tmp_path_factory.mktemp("cache")
    both = [start(SCRIPT, folder), start(SCRIPT, folder)]
    assert [output_of(p) for p in both] == ["numba", "numba"]
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for this process, whose library kernels are loaded before."""
    build(graph_of(lambda x: x, np.ones(1)))
    monkeypatch.setattr(config, "cache", True)
    monkeypatch.setattr(config, "cache_dir", tmp_path / "cache")
    return config.cache_dir


# --- processes --------------------------------------------------------------------------------------------------------
def test_two_processes_leave_whole_entries_only(filled: Path) -> None:
    names = sorted(p.suffix for p in filled.iterdir())
    assert names == [".tgc"] * 3 + [".tgm"]  # the program, the pool, calls, the machine: no temporary file is left


def test_another_process_takes_the_program_from_the_cache(filled: Path) -> None:
    assert output_of(start(SCRIPT, filled)) == "cached"


def test_the_cache_can_be_switched_off(tmp_path: Path) -> None:
    assert output_of(start(SCRIPT, tmp_path / "off", TRACEGRAD_CACHE="0")) == "numba"
    assert not (tmp_path / "off").exists()


@pytest.mark.parametrize("place", ["file", "below a file", "read-only"])
def test_a_folder_that_cannot_be_written_costs_only_the_cache(tmp_path: Path, place: str) -> None:
    target = tmp_path / "cache"
    if place == "read-only":
        target.mkdir()
        target.chmod(0o500)
    else:
        target.write_bytes(b"not a folder")
    assert output_of(start(SCRIPT, target / "deeper" if place == "below a file" else target)) == "numba"


# --- damage -----------------------------------------------------------------------------------------------------------
FOREIGN = (b"\n", b"{}\n", b"[]\n", b"null", b'{"facts": -1}\n', b"[" * 100_000, b"\xff\n", b'{"facts": 1e400}')


def test_damaged_entries_are_ignored_and_made_again(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "cache"
    copy.mkdir()
    monkeypatch.setattr(config, "cache_dir", copy)
    sound = {path.name: path.read_bytes() for path in filled.iterdir()}
    read = {cache.SUFFIX: cache.load, cache.MEMORY_SUFFIX: cache.recall}
    for name, data in sound.items():
        path = copy / name
        others = [other for place, other in sound.items() if place != name]
        for changed in (*damages(data, others, -(-ROUNDS // len(sound))), *FOREIGN):
            path.write_bytes(changed)
            assert read[path.suffix](path.stem) is None, changed[:300]
        path.write_bytes(data)
        assert read[path.suffix](path.stem) is not None
    for name, data in sound.items():
        (copy / name).write_bytes(list(damages(data, [b""], 7))[-1])
    assert output_of(start(SCRIPT, copy)) == "numba"
    assert output_of(start(SCRIPT, copy)) == "cached"


def test_an_entry_under_another_name_is_ignored(filled: Path, tmp_path: Path) -> None:
    """Names are changed: every entry is sound, none is what it is taken for."""
    found = sorted(filled.glob("*.tgc"))
    copy = tmp_path / "cache"
    copy.mkdir()
    for name, content in zip(found, [*found[1:], found[0]], strict=True):
        (copy / name.name).write_bytes(content.read_bytes())
    assert output_of(start(SCRIPT, copy)) == "numba"


def test_sound_entries_that_do_not_fit_are_made_again(folder: Path) -> None:
    """Digests hold, but the facts or the object code are not what a program needs."""
    graph = graph_of(lambda x: x + 2.5, np.ones(3))
    build(graph)
    (path,) = folder.glob("*.tgc")
    facts, data = cache.load(path.stem) or ({}, b"")
    wrong: list[tuple[Any, bytes]] = [
        ({}, data),
        ({**facts, "more": 1}, data),
        ({**facts, "inputs": 3}, data),
        ({**facts, "inputs": [["f99", [3]]]}, data),
        ({**facts, "families": ["nothing"]}, data),
        (facts, b""),
        (facts, b"\x7fELF" + bytes(60)),
        (facts, data[: len(data) // 2]),
    ]
    for other, code in wrong:
        assert cache.store(path.stem, other, code)
        np.testing.assert_array_equal(build(graph)([np.zeros(3)])[0], np.full(3, 2.5))
        assert cache.load(path.stem) == (facts, data)


def test_keys_tell_programs_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(lambda x, y: x + y, np.ones(3), np.ones(3))
    build(graph)
    build(graph)
    assert len(list(folder.glob("*.tgc"))) == 1
    build(graph, donate=(0,))
    build(graph_of(lambda x, y: x + y, np.ones(4), np.ones(4)))
    build(graph_of(lambda x, y: x + y, np.ones(3, np.float32), np.ones(3, np.float32)))
    monkeypatch.setattr(config, "threads", 7)
    build(graph)
    monkeypatch.setattr(config, "fast_math", True)
    build(graph)
    assert len([p for p in folder.glob("*.tgc") if b'"inputs"' in p.read_bytes()]) == 6


def test_a_full_disk_costs_only_the_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: str, target: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.os, "replace", full)
    (found,) = build(graph_of(lambda x: x * 3.5, np.ones(3)))([np.ones(3)])
    np.testing.assert_array_equal(found, np.full(3, 3.5))
    assert list(folder.iterdir()) == []


# --- threads and forks ------------------------------------------------------------------------------------------------
def test_threads_call_one_program_at_once() -> None:
    rng = np.random.default_rng(3)
    program = build(graph_of(lambda x, w: np.tanh(x @ w).sum(axis=0), np.ones((300, 200)), np.ones((200, 100))))
    cases = [(rng.standard_normal((300, 200)), rng.standard_normal((200, 100))) for _ in range(4)]
    failures: list[str] = []

    def work(x: Any, w: Any) -> None:
        expected = np.tanh(x @ w).sum(axis=0)
        for _ in range(60):
            if not np.allclose(program([x, w])[0], expected, rtol=1e-9, atol=1e-9):
                failures.append("a wrong result")

    threads = [threading.Thread(target=work, args=case) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_threads_compile_one_function_at_once() -> None:
    @tg.jit
    def f(x: Any) -> Any:
        return np.exp(x) * 2.0 + x[::-1]

    x = np.linspace(0.0, 1.0, 50)
    found: list[Any] = [None] * 4

    def work(slot: int) -> None:
        found[slot] = f(x)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for y in found:
        np.testing.assert_allclose(y, np.exp(x) * 2.0 + x[::-1], rtol=1e-12)


FORK = """
import os
import warnings
import numpy as np
import tracegrad as tg
import tracegrad.numpy

warnings.simplefilter("ignore")
f = tg.jit(lambda x: np.tanh(x).sum(axis=1))
g = tg.jit(lambda x: (x * 2.0 + 1.0).sum())
x = np.random.default_rng(0).standard_normal((2000, 300))
expected = np.tanh(x).sum(axis=1)
for _ in range(3):
    assert np.allclose(f(x), expected)
children = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        good = all(np.allclose(f(x), expected) for _ in range(5)) and np.allclose(g(x), (x * 2.0 + 1.0).sum())
        os._exit(0 if good else 1)
    children.append(pid)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in children)
assert np.allclose(f(x), expected) and np.allclose(g(x), (x * 2.0 + 1.0).sum())
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forked_children_run_and_compile(filled: Path) -> None:
    assert output_of(start(FORK, filled)) == "done"


HELD = """
import os, signal, threading, time, warnings
import numpy as np
import tracegrad as tg
from concurrent.futures import Future
from tracegrad.runtime import building, library, objects

warnings.simplefilter("ignore")
f = tg.jit(lambda x: np.tanh(x).sum(axis=1))
g = tg.jit(lambda x: (x @ x.T).cumsum())
x = np.linspace(-1.0, 1.0, 600).reshape(20, 30)
expected = f(x)
held = threading.Event()

def hold():
    with library._LOCK, objects._LOCK, building._LOCK:
        unfinished = Future()
        unfinished.set_running_or_notify_cancel()
        building._UNDER_WAY["scan_f64"] = None, building.Job(unfinished, None, ())
        held.set()
        time.sleep(1000)

threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    signal.alarm(100)
    good = np.array_equal(f(x), expected) and np.allclose(f(x[:5]), expected[:5])
    os._exit(0 if good and np.allclose(g(x), (x @ x.T).cumsum()) else 1)
print(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_runs_and_compiles_though_another_thread_was_compiling(tmp_path: Path) -> None:
    """What that thread holds, and what it would have finished, nobody gives to the child."""
    assert output_of(start(HELD, tmp_path)) == "0"
