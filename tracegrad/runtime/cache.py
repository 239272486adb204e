"""The cache on disk: one file per program or library family, named by a hash of all that it depends on.

A file is a line of JSON (sizes and digest), the JSON of what the runtime must know, and plain object code. It is
written beside
its place and renamed, so readers see all of it or nothing; whatever does not match its digest is ignored and made
again. A disk
that is full or read-only costs the cache, never the program.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import llvmlite
import numpy as np

from tracegrad.config import config
from tracegrad.runtime.objects import host

MAGIC = "tracegrad-cache-2"
PACKAGE = Path(__file__).parent.parent
COMPILER = ("ir", "ops", "passes", "schedule", "codegen", "runtime")


@cache
def fingerprint() -> str:
    """Hash what every entry depends on: this compiler's source, the versions under it, the CPU."""
    digest = hashlib.sha256()
    for folder in COMPILER:
        for path in sorted((PACKAGE / folder).glob("*.py")):
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    cpu, features = host()
    digest.update("|".join([MAGIC, version("numba"), llvmlite.__version__, np.__version__, cpu, features]).encode())
    return digest.hexdigest()


def entry_key(parts: Iterable[str]) -> str:
    """Return the name under which a program with these parts is kept."""
    digest = hashlib.sha256(fingerprint().encode())
    for part in parts:
        digest.update(b"\0")
        digest.update(part.encode())
    return digest.hexdigest()[:40]


def path_of(key: str) -> Path:
    return config.cache_dir / f"{key}.tgc"


def load(key: str) -> tuple[dict[str, Any], bytes] | None:
    """Return (facts, object code) of an entry, or None when there is no sound one."""
    if not config.cache:
        return None
    try:
        raw = path_of(key).read_bytes()
        head, _, rest = raw.partition(b"\n")
        header = json.loads(head)
        facts, data = rest[: header["facts"]], rest[header["facts"] :]
        if header["magic"] != MAGIC or header["key"] != key or len(data) != header["data"]:
            return None
        if hashlib.sha256(rest).hexdigest() != header["digest"]:
            return None
        found = json.loads(facts)
        return (found, data) if isinstance(found, dict) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def store(key: str, facts: dict[str, Any], data: bytes) -> bool:
    """Keep an entry; return whether that worked."""
    if not config.cache:
        return False
    text = json.dumps(facts).encode()
    body = text + data
    header = {
        "magic": MAGIC, "key": key, "facts": len(text), "data": len(data), "digest": hashlib.sha256(body).hexdigest()
    }  # fmt: skip
    temporary = ""
    try:
        config.cache_dir.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=config.cache_dir, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            file.write(json.dumps(header).encode() + b"\n" + body)
        os.replace(temporary, path_of(key))
        return True
    except OSError:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        return False
