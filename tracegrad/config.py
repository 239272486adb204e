"""The only reader of the environment. Values are read once, when the module is imported; tests set the fields directly.

| variable               | field        | meaning                                                    |
| TRACEGRAD_THREADS      | threads      | threads of the pool, the default is the number of cores    |
| TRACEGRAD_CACHE        | cache        | 0 switches the cache on disk off                           |
| TRACEGRAD_CACHE_DIR    | cache_dir    | where compiled programs are kept                           |
| TRACEGRAD_CACHE_SIZE   | cache_bytes  | its size, e.g. 500M or 2G; what was used last stays        |
| TRACEGRAD_CPU          | cpu          | the CPU to compile for: host, or x86-64-v2, -v3, -v4       |
| TRACEGRAD_VERBOSE      | verbose      | 1 prints what is traced and compiled, with times           |
| TRACEGRAD_FAST_MATH    | fast_math    | 1 allows rewrites that are not exact for NaN, inf and -0.0 |
| TRACEGRAD_EPILOGUES    | epilogues    | 0 keeps element-wise work out of products and convolutions |
| TRACEGRAD_WINOGRAD     | winograd     | largest tiles of 3 x 3 convolutions: 4 (default), 2 or 0   |
| TRACEGRAD_TAPE_KERNELS | tape_kernels | 0 computes convolutions and the like on tensors in NumPy   |
"""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tracegrad import lazy

tempfile = lazy.module("tempfile")


def _flag(name: str, default: str) -> bool:
    return os.environ.get(name, default) not in ("0", "", "false", "no")


def _threads() -> int:
    text = os.environ.get("TRACEGRAD_THREADS", "")
    if text.isdigit() and int(text) > 0:
        return int(text)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _size(name: str, default: int) -> int:
    found = re.fullmatch(r"(\d+)([KMG]?)B?", os.environ.get(name, "").strip().upper())
    return int(found[1]) * 1024 ** " KMG".index(found[2] or " ") if found else default


def _winograd() -> int:
    text = os.environ.get("TRACEGRAD_WINOGRAD", "")
    return int(text) if text in ("0", "2", "4") else 4


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # no HOME, and no entry in the table of users
        return Path(tempfile.gettempdir()) / f"tracegrad-{os.getuid() if hasattr(os, 'getuid') else ''}"


def _cache_dir() -> Path:
    if given := os.environ.get("TRACEGRAD_CACHE_DIR"):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", _home())) / "tracegrad" / "Cache"
    if sys.platform == "darwin":
        return _home() / "Library" / "Caches" / "tracegrad"
    return Path(os.environ.get("XDG_CACHE_HOME") or _home() / ".cache") / "tracegrad"


def child_environment(package: Path, **settings: str) -> dict[str, str]:
    """Return the environment for a process that compiles for this one: its settings, and this package in its path."""
    ours = {
        "PYTHONPATH": os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")]),
        "TRACEGRAD_CACHE": "1",
        "TRACEGRAD_CACHE_DIR": str(config.cache_dir),
        "TRACEGRAD_THREADS": str(config.threads),
        "TRACEGRAD_FAST_MATH": str(int(config.fast_math)),
        "TRACEGRAD_CPU": config.cpu,
        "TRACEGRAD_WINOGRAD": str(config.winograd),
    }
    return os.environ | ours | settings


@dataclass
class Config:
    """Settings of the process."""

    threads: int = field(default_factory=_threads)
    cache: bool = field(default_factory=lambda: _flag("TRACEGRAD_CACHE", "1"))
    cache_dir: Path = field(default_factory=_cache_dir)
    cache_bytes: int = field(default_factory=lambda: _size("TRACEGRAD_CACHE_SIZE", 2 << 30))
    cpu: str = field(default_factory=lambda: os.environ.get("TRACEGRAD_CPU", "host"))
    verbose: bool = field(default_factory=lambda: _flag("TRACEGRAD_VERBOSE", "0"))
    fast_math: bool = field(default_factory=lambda: _flag("TRACEGRAD_FAST_MATH", "0"))
    epilogues: bool = field(default_factory=lambda: _flag("TRACEGRAD_EPILOGUES", "1"))
    winograd: int = field(default_factory=_winograd)
    tape_kernels: bool = field(default_factory=lambda: _flag("TRACEGRAD_TAPE_KERNELS", "1"))


config = Config()
