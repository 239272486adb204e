"""The cache on disk: one sealed file per program or library family, named by a hash of all that it depends on.

Whatever does not match its digest is ignored and made again; what was used longest ago goes when the cache grows over
its size. A disk that is full or read-only costs the cache, never the program.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from typing import TYPE_CHECKING, Any

from tracegrad import lazy
from tracegrad.codegen.cpu import target
from tracegrad.config import config
from tracegrad.record import record
from tracegrad.runtime.sealed import SealError, seal, unseal, write

if TYPE_CHECKING:
    import pathlib
else:
    pathlib = lazy.module("pathlib")

MAGIC = "tracegrad-cache-3"
SUFFIX = ".tgc"
MEMORY_SUFFIX = ".tgm"
"""What is remembered about the machine (`identity`): no entry, and gone when nobody has asked for it in long."""
PACKAGE = os.path.dirname(os.path.dirname(__file__))
TOUCH_AFTER = 60.0
"""Seconds after which a used entry is marked as used again."""
STALE = {".part": 3600.0, MEMORY_SUFFIX: 30 * 86400.0}
"""Seconds after which a temporary file belongs to a process that was killed, or a memory to another machine."""
ROOM = 0.9
"""Share of its size to which a cache that is too large shrinks."""


def path_of(name: str, suffix: str = SUFFIX) -> str:
    return os.path.join(config.cache_folder, f"{name}{suffix}")


def content_of(path: str) -> bytes:
    """Read a file of the cache; raises OSError."""
    with open(path, "rb", buffering=0) as file:
        return file.read()


def load(key: str) -> tuple[dict[str, Any], bytes] | None:
    """Return (facts, object code) of an entry, or None when there is no sound one."""
    if not config.cache:
        return None
    path = path_of(key)
    try:
        content, data = unseal(content_of(path), MAGIC, key)
    except (OSError, SealError):
        return None
    touch(path)
    facts = content.get("facts")
    return (facts, data) if isinstance(facts, dict) else None


def recall(name: str) -> dict[str, Any] | None:
    """Return what was remembered under a name, or None."""
    if not config.cache:
        return None
    path = path_of(name, MEMORY_SUFFIX)
    try:
        facts = unseal(content_of(path), MAGIC, name)[0]
    except (OSError, SealError):
        return None
    touch(path)
    return facts


def remember(name: str, facts: dict[str, Any]) -> None:
    """Keep some facts for other processes, if that is possible."""
    if config.cache:
        with contextlib.suppress(OSError):
            os.makedirs(config.cache_folder, exist_ok=True)
            write(path_of(name, MEMORY_SUFFIX), seal(MAGIC, name, facts, b""))


def touch(path: str) -> None:
    """Mark an entry as used now: what was used longest ago is the first to go."""
    with contextlib.suppress(OSError):
        if time.time() - os.stat(path).st_mtime > TOUCH_AFTER:
            os.utime(path)


def store(key: str, facts: dict[str, Any], data: bytes, about: str = "") -> bool:
    """Keep an entry; return whether that worked. `about` is what `python -m tracegrad cache` lists."""
    if not config.cache:
        return False
    raw = seal(MAGIC, key, {"about": about, "cpu": target().name, "facts": facts}, data)
    try:
        os.makedirs(config.cache_folder, exist_ok=True)
        write(path_of(key), raw)
        shrink(config.cache_bytes)
        return True
    except OSError:
        return False


@record
class Entry:
    """A file of the cache."""

    path: pathlib.Path
    size: int
    used: float

    def read(self) -> dict[str, Any]:
        """Return what is known about a sound entry; raises SealError, or OSError when it is gone."""
        return unseal(self.path.read_bytes(), MAGIC, self.path.stem)[0]


def entries() -> list[Entry]:
    """Return the files of the cache, the one used last first; temporary files are not among them."""
    return sorted((e for e in files() if e.path.suffix == SUFFIX), key=lambda e: -e.used)


def files() -> list[Entry]:
    found = []
    with contextlib.suppress(OSError), os.scandir(config.cache_folder) as folder:
        for item in folder:
            if item.name.endswith((SUFFIX, *STALE)):
                with contextlib.suppress(OSError):  # another process took it away
                    stat = item.stat(follow_symlinks=False)
                    found.append(Entry(pathlib.Path(item.path), stat.st_size, stat.st_mtime))
    return found


def shrink(limit: int) -> None:
    """Remove what was used longest ago when the entries exceed `limit` bytes, and what killed processes left behind."""
    found = sorted(files(), key=lambda e: e.used)
    now = time.time()
    for entry in found:
        if now - entry.used > STALE.get(entry.path.suffix, math.inf):
            remove(entry)
    kept = [e for e in found if e.path.suffix == SUFFIX]
    total = sum(e.size for e in kept)
    if total <= limit:
        return
    for entry in kept[:-1]:  # the last one was just written
        if total <= ROOM * limit:
            break
        total -= entry.size
        remove(entry)


def remove(entry: Entry) -> bool:
    """Delete a file; a reader that has it open is not disturbed."""
    try:
        entry.path.unlink(missing_ok=True)
        return True
    except OSError:
        return False


def clear() -> tuple[int, int]:
    """Delete every entry and temporary file; return how many went, and how many could not be deleted."""
    results = [remove(entry) for entry in files()]
    return sum(results), len(results) - sum(results)
