"""The only reader of the environment. Values are read once, when the module is imported; tests set the fields directly.

| variable               | field        | meaning                                                    |
| TRACEGRAD_THREADS      | threads      | threads of the pool, 1024 at most; by default one per core |
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
from typing import TYPE_CHECKING

from tracegrad import lazy

if TYPE_CHECKING:
    import pathlib
    import tempfile
else:
    pathlib = lazy.module("pathlib")
    tempfile = lazy.module("tempfile")


def _flag(name: str, default: str) -> bool:
    return os.environ.get(name, default) not in ("0", "", "false", "no")


MOST_THREADS = 1024


def _threads() -> int:
    text = os.environ.get("TRACEGRAD_THREADS", "")
    if text.isdigit() and int(text) > 0:
        return min(int(text), MOST_THREADS)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _size(name: str, default: int) -> int:
    found = re.fullmatch(r"(\d+)([KMG]?)B?", os.environ.get(name, "").strip().upper())
    return int(found[1]) * 1024 ** " KMG".index(found[2] or " ") if found else default


def _winograd() -> int:
    text = os.environ.get("TRACEGRAD_WINOGRAD", "")
    return int(text) if text in ("0", "2", "4") else 4


def _home() -> str:
    home = os.path.expanduser("~")
    if home == "~":  # no HOME, and no entry in the table of users
        return os.path.join(tempfile.gettempdir(), f"tracegrad-{os.getuid() if hasattr(os, 'getuid') else ''}")
    return home


def _cache_dir() -> str:
    if given := os.environ.get("TRACEGRAD_CACHE_DIR"):
        return given
    if sys.platform == "win32":
        return os.path.join(os.environ.get("LOCALAPPDATA") or _home(), "tracegrad", "Cache")
    if sys.platform == "darwin":
        return os.path.join(_home(), "Library", "Caches", "tracegrad")
    return os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.join(_home(), ".cache"), "tracegrad")


def child_environment(package: str, **settings: str) -> dict[str, str]:
    """Return the environment for a process that compiles for this one: its settings, and this package in its path."""
    ours = {
        "PYTHONPATH": os.pathsep.join([os.path.dirname(package), os.environ.get("PYTHONPATH", "")]),
        "TRACEGRAD_CACHE": "1",
        "TRACEGRAD_CACHE_DIR": config.cache_folder,
        "TRACEGRAD_THREADS": str(config.threads),
        "TRACEGRAD_FAST_MATH": str(int(config.fast_math)),
        "TRACEGRAD_EPILOGUES": str(int(config.epilogues)),
        "TRACEGRAD_CPU": config.cpu,
        "TRACEGRAD_WINOGRAD": str(config.winograd),
    }
    return os.environ | ours | settings


class Config:
    """Settings of the process."""

    def __init__(self) -> None:
        self.threads = _threads()
        self.cache = _flag("TRACEGRAD_CACHE", "1")
        self.cache_folder = _cache_dir()
        """`cache_dir` as text"""
        self.cache_bytes = _size("TRACEGRAD_CACHE_SIZE", 2 << 30)
        self.cpu = os.environ.get("TRACEGRAD_CPU", "host")
        self.verbose = _flag("TRACEGRAD_VERBOSE", "0")
        self.fast_math = _flag("TRACEGRAD_FAST_MATH", "0")
        self.epilogues = _flag("TRACEGRAD_EPILOGUES", "1")
        self.winograd = _winograd()
        self.tape_kernels = _flag("TRACEGRAD_TAPE_KERNELS", "1")

    @property
    def cache_dir(self) -> pathlib.Path:
        return pathlib.Path(self.cache_folder)

    @cache_dir.setter
    def cache_dir(self, folder: str | os.PathLike[str]) -> None:
        self.cache_folder = os.fspath(folder)

    def __repr__(self) -> str:
        return f"Config({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


config = Config()
