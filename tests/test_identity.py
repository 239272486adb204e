"""What entries of the cache depend on, and what of it is remembered from process to process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numba
import pytest

from tracegrad.codegen import cpu
from tracegrad.config import config
from tracegrad.ir import PRIMITIVES
from tracegrad.ops.custom import Written
from tracegrad.runtime import cache, identity


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give an empty cache, and a process that has asked nothing yet."""
    monkeypatch.setattr(config, "cache", True)
    monkeypatch.setattr(config, "cache_dir", tmp_path)
    monkeypatch.setattr(cpu, "_REMEMBERED", [])
    forget()
    yield tmp_path
    monkeypatch.undo()
    forget()


def forget() -> None:
    for cached in (identity.fingerprint, identity.numba_version, cpu.host):
        cached.cache_clear()


def memories(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{cache.MEMORY_SUFFIX}"))


linux = pytest.mark.skipif(not Path(identity.CPU_TEXT).exists(), reason="the system describes no CPU")


@linux
def test_a_second_process_asks_nothing(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, host = identity.fingerprint(), cpu.host()
    assert len(memories(fresh)) == 1
    forget()
    monkeypatch.setattr(identity, "source_digest", lambda: pytest.fail("the sources were read again"))
    monkeypatch.setattr(cpu, "llvm", None)
    assert identity.fingerprint() == asked
    assert cpu.host() == host


@linux
@pytest.mark.parametrize("damage", [lambda raw: b"", lambda raw: raw[:-1], lambda raw: raw[:200] + b"x" + raw[201:]])
def test_damaged_memory_is_worked_out_again(fresh: Path, damage: object) -> None:
    asked, host = identity.fingerprint(), cpu.host()
    (path,) = memories(fresh)
    sound = path.read_bytes()
    path.write_bytes(damage(sound))  # type: ignore[operator]
    forget()
    assert (identity.fingerprint(), cpu.host()) == (asked, host)
    assert path.read_bytes() == sound


@linux
def test_another_cpu_and_other_sources_have_other_memories(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {identity.memory_name()}
    text = tmp_path / "cpuinfo"
    text.write_text("processor: 0\nflags\t\t: fpu sse\ncpu MHz : 100\n\nprocessor: 1\n")
    monkeypatch.setattr(identity, "CPU_TEXT", str(text))
    names.add(identity.memory_name())
    text.write_text("processor: 0\nflags\t\t: fpu sse avx\ncpu MHz : 100\n\n")
    names.add(identity.memory_name())
    assert len(names) == 3
    text.write_text("processor: 0\nflags\t\t: fpu sse avx\ncpu MHz : 200\n\n")
    assert identity.memory_name() in names
    package = tmp_path / "package"
    for folder in identity.COMPILER:
        (package / folder).mkdir(parents=True)
    (package / "ir" / "a.py").write_text("x = 1\n")
    monkeypatch.setattr(cache, "PACKAGE", package)
    names.add(identity.memory_name())
    (package / "ir" / "a.py").write_text("x = 22\n")
    names.add(identity.memory_name())
    assert len(names) == 5


def test_without_a_description_everything_is_asked(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = identity.fingerprint()
    for path in memories(fresh):
        path.unlink()
    monkeypatch.setattr(identity, "CPU_TEXT", str(fresh / "none"))
    forget()
    assert identity.fingerprint() == asked
    assert not memories(fresh)


def test_the_key_has_what_code_depends_on(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = {identity.entry_key(["a"]), identity.entry_key(["b"])}
    for name in ("source_digest", "versions"):
        with monkeypatch.context() as patch:
            patch.setattr(identity, "memory_name", lambda: "")
            patch.setattr(identity, name, {"source_digest": lambda: "x", "versions": lambda: ["x"]}[name])
            forget()
            keys.add(identity.entry_key(["a"]))
    forget()
    monkeypatch.setattr(config, "cpu", "x86-64-v2")
    keys.add(identity.entry_key(["a"]))
    assert len(keys) == 5


def test_the_version_of_numba_needs_no_import() -> None:
    folder = Path(numba.__file__).parent
    assert numba.__version__ in (folder / "_version.py").read_text()
    assert identity.numba_version()


def test_the_source_of_every_written_primitive_is_part_of_the_key() -> None:
    folders = {type(p).__module__.split(".")[1] for p in PRIMITIVES.values() if isinstance(p, Written)}
    assert folders <= set(identity.COMPILER)
