"""A saved program: object code for one or more CPUs with the library kernels it calls, and the graph's text.

The file is sealed (`runtime.sealed`). Its facts hold the signature as plain data, the graph's text, the versions, and,
for every CPU, what `Executable` must know and where its object code stands. On a CPU that none was made for, the graph
is compiled again.
"""

from __future__ import annotations

import errno
import hashlib
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tracegrad.bfloat16 import as_dtype, text_of
from tracegrad.codegen.cpu import Cpu, level, target
from tracegrad.config import child_environment
from tracegrad.errors import ArtefactError
from tracegrad.ir import Graph
from tracegrad.ir.layout import Layout
from tracegrad.ir.text import parse, show
from tracegrad.runtime import caller, library
from tracegrad.runtime.cache import PACKAGE
from tracegrad.runtime.executable import Executable, Facts, Libraries
from tracegrad.runtime.program import Program
from tracegrad.runtime.sealed import LONGEST_HEADER, SealError, read_header, seal, unseal, write

MAGIC = "tracegrad-artefact"
FORMAT = 1
LAYOUTS = ("table_layout.py", "pool_layout.py", "pool_kernels.py", "caller_layout.py", "caller_kernels.py")


@cache
def interface() -> str:
    """Hash what compiled code and the run time must agree on: the tables they share, and the pool."""
    digest = hashlib.sha256()
    for name in LAYOUTS:
        digest.update(Path(PACKAGE, "codegen", name).read_bytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class Build:
    """A program compiled for one CPU. `libraries` holds, by family, symbols and object code."""

    cpu: Cpu
    facts: dict[str, Any]
    program: bytes
    libraries: Libraries

    def fits(self) -> bool:
        return self.cpu.runs_on(target())


@dataclass
class Artefact:
    """All that a file holds. `signature` and `versions` are plain data; `arrays` are the captured ones."""

    name: str
    text: str
    donate: tuple[int, ...]
    signature: dict[str, Any]
    builds: list[Build]
    arrays: list[np.ndarray[Any, Any]] = field(default_factory=list)
    layouts: tuple[Layout, ...] = ()
    versions: dict[str, str] = field(default_factory=lambda: versions())
    interface: str = field(default_factory=interface)

    def graph(self) -> Graph:
        """Read the graph; raises ArtefactError when this version does not know its operations."""
        try:
            return parse(self.text)
        except Exception as error:
            raise ArtefactError(
                f"load: the graph of {self.name} cannot be read: {error}",
                fix=f"load it with tracegrad {self.versions.get('tracegrad')}, or save the program again",
            ) from None


def versions() -> dict[str, str]:
    names = ("tracegrad", "numpy", "numba", "llvmlite")
    return {name: version(name) for name in names} | {"machine": platform.machine().lower()}


def build_of(program: Program) -> Build:
    """Return a program's object code, with that of the library kernels it calls."""
    executable = program.executable
    if not isinstance(executable, Executable):
        raise ArtefactError("save: this back end has no object code", fix='compile with backend="cpu"')
    if executable.libraries:  # it was loaded from a file, and may differ from what this version would compile
        libraries: Libraries = executable.libraries
    else:
        libraries = libraries_of(executable.facts.families)
    return Build(executable.cpu, executable.facts.as_json(), executable.data, libraries)


def libraries_of(families: Sequence[str]) -> Libraries:
    """Return what a program of these families is linked to, with the pool and the native half of calls."""
    found = {f: library.object_of(f) for f in ("pool", *families)}
    return found | {"caller": ([caller.SYMBOL], caller.native_code())}


def build_for(name: str, graph: Graph, donate: Sequence[int], layouts: Sequence[Layout]) -> Build:
    """Compile for another level of x86-64, in a process that takes it for its own CPU."""
    level(name)
    with tempfile.TemporaryDirectory(prefix="tracegrad-") as folder:
        asked, made = Path(folder) / "asked", Path(folder) / "made"
        artefact = Artefact(graph.name, show(graph, lines=True), tuple(donate), {}, [], layouts=tuple(layouts))
        asked.write_bytes(to_bytes(artefact))
        environment = child_environment(PACKAGE, TRACEGRAD_CPU=name, TRACEGRAD_CACHE_DIR=str(Path(folder) / "cache"))
        command = [sys.executable, "-m", "tracegrad.runtime.for_cpu", str(asked), str(made)]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode or not made.exists():
            last = done.stderr.strip().splitlines()[-1:]
            raise ArtefactError(
                f"save: compiling for {name} failed: {''.join(last)}", fix="leave this level out, and report it"
            )
        return read(made).builds[0]


# --- files ------------------------------------------------------------------------------------------------------------


def to_bytes(artefact: Artefact) -> bytes:
    """Return the file's bytes; object code that two CPUs share is there once."""
    blobs = Blobs()
    builds = [
        {
            "cpu": {"name": b.cpu.name, "features": sorted(b.cpu.features)},
            "facts": b.facts,
            "program": blobs.add(b.program),
            "libraries": {f: {"symbols": s, "object": blobs.add(d)} for f, (s, d) in b.libraries.items()},
        }
        for b in artefact.builds
    ]
    arrays = [
        {"dtype": text_of(a.dtype), "shape": list(a.shape), "data": blobs.add(a.tobytes())} for a in artefact.arrays
    ]
    manifest = {
        "format": FORMAT,
        "name": artefact.name,
        "text": artefact.text,
        "donate": list(artefact.donate),
        "signature": artefact.signature,
        "builds": builds,
        "arrays": arrays,
        "layouts": [None if layout is None else list(layout) for layout in artefact.layouts],
        "versions": artefact.versions,
        "interface": artefact.interface,
    }
    return seal(MAGIC, str(FORMAT), manifest, bytes(blobs.data))


class Blobs:
    """Pieces of bytes, one after the other, each once."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.known: dict[bytes, list[int]] = {}

    def add(self, piece: bytes) -> list[int]:
        """Return offset and length of a piece."""
        found = self.known.get(piece)
        if found is None:
            found = self.known[piece] = [len(self.data), len(piece)]
            self.data += piece
        return found


def save(artefact: Artefact, path: Path) -> None:
    """Write the file, durably, in one move: an interrupted save leaves what was there before."""
    try:
        write(path, to_bytes(artefact), durable=True)
    except OSError as error:
        fix = "free some space" if error.errno == errno.ENOSPC else "choose a folder that exists and can be written to"
        raise ArtefactError(f"save: {path} cannot be written: {error.strerror or error}", fix=fix) from None


def read(path: Path) -> Artefact:
    """Read a file; raises ArtefactError when it is not what `save` wrote, byte by byte."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ArtefactError(
            f"load: {path} cannot be read: {error.strerror or error}", fix="check the path"
        ) from None
    fix = "save the program again"
    if (number := header_name(raw)) is not None and number != str(FORMAT):
        raise ArtefactError(f"load: {path} has format {number}, and this version reads {FORMAT}", fix=fix)
    try:
        manifest, data = unseal(raw, MAGIC, str(FORMAT))
    except SealError as error:
        raise ArtefactError(f"load: {path} is not a sound program file: {error}", fix=fix) from None
    try:
        return from_manifest(manifest, data)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ArtefactError(f"load: {path} does not hold what a program needs: {error!r}", fix=fix) from None


def header_name(raw: bytes) -> str | None:
    """Return the format that a file of this kind says it has."""
    try:
        header = read_header(raw[:LONGEST_HEADER].partition(b"\n")[0])
    except SealError:
        return None
    name = header.get("name")
    return name if header.get("magic") == MAGIC and isinstance(name, str) and name.isdigit() else None


def from_manifest(manifest: dict[str, Any], data: bytes) -> Artefact:
    def piece(place: list[int]) -> bytes:
        start, length = place
        if start < 0 or length < 0 or start + length > len(data):
            raise ValueError(f"no bytes {start} to {start + length}")
        return data[start : start + length]

    builds = [
        Build(
            Cpu(b["cpu"]["name"], frozenset(b["cpu"]["features"]), ""),
            b["facts"],
            piece(b["program"]),
            {f: (found["symbols"], piece(found["object"])) for f, found in b["libraries"].items()},
        )
        for b in manifest["builds"]
    ]
    arrays = [
        np.frombuffer(piece(a["data"]), as_dtype(a["dtype"])).reshape(a["shape"]).copy() for a in manifest["arrays"]
    ]
    return Artefact(
        manifest["name"],
        manifest["text"],
        tuple(manifest["donate"]),
        manifest["signature"],
        builds,
        arrays,
        tuple(None if layout is None else tuple(layout) for layout in manifest.get("layouts", ())),
        manifest["versions"],
        manifest["interface"],
    )


# --- running ----------------------------------------------------------------------------------------------------------


def unfit(artefact: Artefact) -> str:
    """Say why no object code in the file can be used here; empty when some can."""
    if artefact.versions.get("machine") != platform.machine().lower():
        return f"it was compiled on {artefact.versions.get('machine')}, and this machine is {platform.machine()}"
    if artefact.interface != interface():
        return f"it was compiled by tracegrad {artefact.versions.get('tracegrad')} with another run time"
    if not any(b.fits() for b in artefact.builds):
        cpu = target()
        lacking = min((sorted(b.cpu.features - cpu.features) for b in artefact.builds), key=len, default=[])
        names = ", ".join(b.cpu.name for b in artefact.builds)
        return f"it was compiled for {names}, and this CPU ({cpu.name}) lacks {', '.join(lacking[:6])}"
    return ""


def executable_of(artefact: Artefact, names: Sequence[str]) -> Executable:
    """Load the object code for this CPU."""
    found = next(b for b in artefact.builds if b.fits())
    facts = Facts(**found.facts)
    executable = Executable(facts, found.program, names, libraries=found.libraries)
    executable.cpu = found.cpu
    return executable
