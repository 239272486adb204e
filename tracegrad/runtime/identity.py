"""What compiled code depends on besides its graph: this compiler's source, the versions under it, the CPU.

Reading the sources and asking LLVM for the CPU takes longer than finding a program, so the answers are remembered in
the cache, in a sealed file like the others. Its name is a hash of what says whether they still hold: size and times of
every source file, the kernel's description of the CPU, the versions. Where the system has no such description, or the
file is not as it was written, everything is worked out again.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
from collections.abc import Iterable
from functools import cache

import llvmlite
import numpy as np

from tracegrad.codegen import cpu
from tracegrad.runtime import cache as disk

COMPILER = ("ir", "ops", "passes", "schedule", "codegen", "runtime", "numpy")
"""`numpy` holds the loops that factorisations are lowered to (`ops.custom.Written`), which no graph in a key shows."""
CPU_TEXT = "/proc/cpuinfo"
CPU_LINES = (
    "vendor_id", "cpu family", "model", "model name", "stepping", "microcode", "flags",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision", "Features", "isa",
)  # fmt: skip
"""What of the kernel's description stands for the CPU: clock rates change from moment to moment."""
FIRST_PROCESSOR = 16384
"""Bytes that hold the description of one processor; a machine may have hundreds."""


def entry_key(parts: Iterable[str]) -> str:
    """Return the name under which a program with these parts is kept."""
    digest = hashlib.sha256(fingerprint().encode())
    for part in parts:
        digest.update(b"\0")
        digest.update(part.encode())
    return digest.hexdigest()[:40]


@cache
def fingerprint() -> str:
    """Hash what every entry depends on."""
    name = memory_name()
    found = disk.recall(name) if name else None
    try:
        source = str(found["source"]) if found else ""
        if found:
            cpu.remember(cpu.Cpu(found["cpu"], frozenset(found["features"]), found["flags"]))
    except (KeyError, TypeError):
        source = ""
    if not source:
        source = source_digest()
        if name:
            host = cpu.host()
            facts = {"source": source, "cpu": host.name, "features": sorted(host.features), "flags": host.flags}
            disk.remember(name, facts)
    target = cpu.target()
    parts = [disk.MAGIC, source, *versions(), target.name, target.flags]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def sources() -> list[str]:
    folders = [os.path.join(disk.PACKAGE, folder) for folder in COMPILER]
    return [os.path.join(folder, name) for folder in folders for name in sorted(os.listdir(folder)) if is_source(name)]


def is_source(name: str) -> bool:
    return name.endswith(".py")


def source_digest() -> str:
    """Hash the sources of the compiler."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(os.path.basename(path).encode())
        digest.update(disk.content_of(path))
    return digest.hexdigest()


def versions() -> list[str]:
    return [numba_version(), llvmlite.__version__, np.__version__]


@cache
def numba_version() -> str:
    """Return what Numba's own file says about its version, without importing Numba; "" where there is none."""
    found = importlib.util.find_spec("numba")
    folder = os.path.dirname(found.origin) if found and found.origin else ""
    try:
        with open(os.path.join(folder, "_version.py"), "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return ""


def memory_name() -> str:
    """Return the name under which the answers are remembered, or "" where nothing says whether they still hold."""
    described = cpu_text()
    if not described:
        return ""
    parts = [disk.MAGIC, described, platform.release(), *versions()]
    try:
        for folder in COMPILER:
            with os.scandir(os.path.join(disk.PACKAGE, folder)) as found:
                parts += sorted(described_file(entry) for entry in found if is_source(entry.name))
    except OSError:
        return ""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:40]


def described_file(entry: os.DirEntry[str]) -> str:
    """Write what changes when a file's content does: the time of its last change cannot be set by anyone."""
    stat = entry.stat()
    return f"{entry.path} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def cpu_text() -> str:
    """Return the kernel's description of the first processor, without what changes from moment to moment."""
    try:
        with open(CPU_TEXT, encoding="utf-8", errors="replace") as file:
            first = file.read(FIRST_PROCESSOR).partition("\n\n")[0]
    except OSError:
        return ""
    lines = [line for line in first.split("\n") if line.partition(":")[0].strip() in CPU_LINES]
    known = any(line.startswith(("flags", "Features")) for line in lines)
    return "\n".join(lines) if known else ""
