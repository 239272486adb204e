"""The cache on disk, shared and bounded: processes that are killed, eviction, unusable homes, the command line.

TRACEGRAD_STRESS=100 starts that many processes at once instead of a few.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import graph_of

import tracegrad as tg
from tracegrad.__main__ import main
from tracegrad.config import config
from tracegrad.runtime import building, cache, sealed
from tracegrad.runtime.program import build

ROOT = str(Path(tg.__file__).parent.parent)
PROCESSES = int(os.environ.get("TRACEGRAD_STRESS", "3"))
MANY = """
import numpy as np
import tracegrad as tg

x = np.arange(12.0).reshape(3, 4)
for k in range(2):
    f = tg.jit(lambda x, w: np.tanh(x * w).sum(axis=1) + k)
    np.testing.assert_allclose(f(x, x), np.tanh(x * x).sum(axis=1) + k, rtol=1e-12)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for this process, whose library kernels are loaded before."""
    build(graph_of(lambda x: x, np.ones(1)))
    monkeypatch.setattr(config, "cache", True)
    monkeypatch.setattr(config, "cache_dir", tmp_path / "cache")
    return config.cache_dir


def start(script: str, **environment: str) -> subprocess.Popen[str]:
    env = {**os.environ, "PYTHONPATH": ROOT, "TRACEGRAD_THREADS": "2", **environment}
    return subprocess.Popen([sys.executable, "-c", script], env=env, stderr=subprocess.PIPE, text=True)


# --- processes --------------------------------------------------------------------------------------------------------


def test_killed_processes_leave_a_sound_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many start at once on an empty folder, some are killed at random: the others see no error, all entries hold."""
    rng = random.Random(1)
    folder = tmp_path / "cache"
    began = time.monotonic()
    running = [start(MANY, TRACEGRAD_CACHE_DIR=str(folder)) for _ in range(PROCESSES)]
    doomed = set(rng.sample(range(PROCESSES), max(1, PROCESSES // 4)))
    while not folder.exists() and time.monotonic() - began < 60:
        time.sleep(0.01)
    for i in sorted(doomed):
        time.sleep(rng.random() * 0.5)
        running[i].send_signal(signal.SIGKILL)
    for i, process in enumerate(running):
        _, err = process.communicate(timeout=600)
        assert process.returncode == (-signal.SIGKILL if i in doomed and process.returncode else 0), err
    monkeypatch.setattr(config, "cache_dir", folder)
    found = cache.entries()
    assert len(found) == 4  # the pool, calls, two programs
    for entry in found:
        entry.read()


def test_threads_store_and_load_one_entry_at_once(folder: Path) -> None:
    failures: list[str] = []

    def work(number: int) -> None:
        for i in range(30):
            data = bytes([number]) * (i + 1)
            if not cache.store("key", {"length": i + 1}, data):
                failures.append("not stored")
            found = cache.load("key")
            if found is None or len(found[1]) != found[0]["length"] or len(set(found[1])) != 1:
                failures.append(f"a mixture: {found}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [p.name for p in folder.iterdir()] == ["key.tgc"]


@pytest.mark.parametrize("home", ["/proc/nothing", "unset"])
def test_a_home_that_cannot_be_written_costs_only_the_cache(home: str) -> None:
    script = (
        "import os\n"
        f"if {home!r} == 'unset':\n"
        "    os.path.expanduser = lambda path: path\n"
        "import tracegrad as tg\n"
        "from tracegrad.runtime import cache\n"
        "assert cache.store('key', {}, b'') in (True, False) and cache.entries() is not None\n"
        "assert tg.config.cache_dir.is_absolute(), tg.config.cache_dir\n"
    )
    environment = {"HOME": home, "XDG_CACHE_HOME": "", "TRACEGRAD_CACHE_DIR": ""}
    process = start(script, **environment)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err


# --- size -------------------------------------------------------------------------------------------------------------


def fill(folder: Path, ages: dict[str, float]) -> None:
    """Store an entry of 10,000 bytes per name, used so many seconds ago."""
    for name, age in ages.items():
        assert cache.store(name, {}, bytes(10_000))
        os.utime(folder / f"{name}.tgc", (time.time() - age,) * 2)


def test_what_was_used_longest_ago_goes_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(folder, {"a": 400.0, "b": 300.0, "c": 200.0, "d": 100.0})
    assert cache.load("a") is not None  # used now
    monkeypatch.setattr(config, "cache_bytes", 42_000)
    assert cache.store("e", {}, bytes(10_000))
    assert sorted(e.path.stem for e in cache.entries()) == ["a", "d", "e"]
    monkeypatch.setattr(config, "cache_bytes", 10)
    assert cache.store("f", {}, bytes(10_000))
    assert [e.path.stem for e in cache.entries()] == ["f"]  # the last one stays: a program was just compiled for it


def test_what_killed_processes_left_behind_goes(folder: Path) -> None:
    fill(folder, {"a": 0.0})
    for name, age in {"old": 7200.0, "new": 10.0}.items():
        (folder / f".{name}.part").write_bytes(b"half")
        os.utime(folder / f".{name}.part", (time.time() - age,) * 2)
    (folder / "someone else's").write_text("kept")
    fill(folder, {"b": 0.0})
    assert sorted(p.name for p in folder.iterdir()) == [".new.part", "a.tgc", "b.tgc", "someone else's"]


@pytest.mark.parametrize("broken", ["write", "utime", "scandir"])
def test_a_disk_that_fails_costs_only_the_cache(folder: Path, monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    def full(*args: Any, **options: Any) -> Any:
        raise OSError(28, "No space left on device")

    fill(folder, {"a": 1000.0})
    if broken == "write":
        monkeypatch.setattr(sealed.os, "fdopen", lambda handle, mode: Full(os.close(handle)))
    else:
        monkeypatch.setattr(cache.os, broken, full)
    (found,) = build(graph_of(lambda x: x * 4.5, np.ones(3)))([np.ones(3)])
    np.testing.assert_array_equal(found, np.full(3, 4.5))
    assert cache.load("a") == ({}, bytes(10_000))
    monkeypatch.undo()
    assert not list(folder.glob(".*"))


class Full:
    """A file on a full disk."""

    def __init__(self, closed: None) -> None: ...
    def __enter__(self) -> Full:
        return self

    def __exit__(self, *_: object) -> None: ...
    def write(self, content: bytes) -> None:
        raise OSError(28, "No space left on device")


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_lists_verifies_and_clears(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cache"]) == 0
    assert "0 entries, 0.0 of 2048 MiB in " in capsys.readouterr().out
    build(graph_of(lambda x: x * 5.5, np.ones(3), name="scaled"))
    assert main(["cache", "--verify"]) == 0
    out = capsys.readouterr().out
    assert "program scaled, for " in out and "1 sound, 0 damaged" in out
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["cache", "--verify"]) == 1
    out = capsys.readouterr().out
    assert "damaged, will be made again: it is cut off" in out and "0 sound, 1 damaged" in out
    assert main(["cache", "--clear"]) == 0
    assert "1 files deleted" in capsys.readouterr().out
    assert list(folder.iterdir()) == []


def test_warmup_compiles_what_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tracegrad.runtime.building.families", lambda: ["pool", "scan_f32"])
    assert main(["warmup"]) == 0
    assert [line.split()[1:] == ["there"] for line in capsys.readouterr().out.splitlines()[:2]] == [False, False]
    assert main(["warmup"]) == 0
    assert [line.split()[1:] == ["there"] for line in capsys.readouterr().out.splitlines()[:2]] == [True, True]
    assert sorted(e.read()["about"] for e in cache.entries()) == ["library kernels pool", "library kernels scan_f32"]
    monkeypatch.setattr(config, "cache", False)
    assert main(["warmup"]) == 1


@pytest.mark.parametrize(("terminal", "verbose", "lines"), [(False, False, 0), (True, False, 1), (True, True, 2)])
def test_a_first_use_is_announced_once(
    terminal: bool, verbose: bool, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(building, "_ANNOUNCED", set())
    monkeypatch.setattr(config, "verbose", verbose)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    building.announce("pool")
    building.announce("scan_f32")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == lines
    assert all(line.startswith("tracegrad: compiling library kernels") for line in said)
