"""Library kernels compiled, beside each other and beside the program that needs them. Imported on a cache miss only.

LLVM runs without Python's lock (`codegen.native`), so threads are enough.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from tracegrad import lazy
from tracegrad.config import config
from tracegrad.runtime import cache, identity, library

if TYPE_CHECKING:
    from tracegrad.codegen import library as source
else:
    source = lazy.module("tracegrad.codegen.library")  # imports Numba

SECONDS = {
    "gemm": 0.3, "conv": 0.5, "convw": 0.5, "winograd2": 0.5, "winograd4": 0.5, "winogradw2": 0.6, "winogradw4": 0.6,
    "planes": 0.4, "convg": 0.4, "convp": 0.2, "gemv": 0.2,
}  # fmt: skip
"""About how long a family takes to compile, by the first part of its name; 0.1 for the others."""

T = TypeVar("T")
Built = tuple[list[str], bytes]

_LOCK = Lock()
_UNDER_WAY: dict[str, tuple[Workers, Job[Built]]] = {}
_ANNOUNCED: set[str] = set()


def _renew_lock() -> None:
    """In a forked child no other thread goes on compiling, or gives back a lock."""
    global _LOCK
    _LOCK = Lock()
    _UNDER_WAY.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def families() -> list[str]:
    """Name all families of library kernels."""
    return list(source.FAMILIES)


class Job(Generic[T]):
    """A call that a worker may have begun."""

    def __init__(self, begun: Future[T] | None, function: Callable[..., T], arguments: Sequence[Any]) -> None:
        self.begun = begun
        self.function = function
        self.arguments = arguments

    def result(self) -> T:
        """Return what the call returns; where no worker has begun it, the caller does it."""
        if self.begun is None or self.begun.cancel():
            return self.function(*self.arguments)
        return self.begun.result()


class Workers:
    """Threads that compile beside their caller, so there is one less than `config.threads`.

    What has not begun when they are left is not done. Where no thread can start, because there are too many or the
    interpreter ends, the caller does all.
    """

    def __init__(self) -> None:
        self.pool: futures.ThreadPoolExecutor | None = None
        if config.threads > 1:
            with suppress(RuntimeError):
                self.pool = futures.ThreadPoolExecutor(config.threads - 1, thread_name_prefix="tracegrad-compile")

    def submit(self, function: Callable[..., T], *arguments: Any) -> Job[T]:
        """Let a worker begin a call."""
        begun = None
        if self.pool is not None:
            with suppress(RuntimeError):
                begun = self.pool.submit(function, *arguments)
        return Job(begun, function, arguments)

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)
        with _LOCK:
            for family in [f for f, (owner, _) in _UNDER_WAY.items() if owner is self]:
                del _UNDER_WAY[family]


def start(workers: Workers, families: Sequence[str]) -> None:
    """Begin to compile what is neither loaded nor in the cache, the longest first."""
    for family in sorted(families, key=lambda f: -SECONDS.get(f.split("_")[0], 0.1)):
        if not library.is_at_hand(family):
            with _LOCK:
                if family not in _UNDER_WAY:
                    announce(family)
                    _UNDER_WAY[family] = workers, workers.submit(build, family)


def finish(family: str) -> Built:
    """Return symbols and object code of a family: once it is compiled, where that is under way."""
    with _LOCK:
        _, job = _UNDER_WAY.get(family, (None, None))
    if job is not None:
        return job.result()
    announce(family)
    return build(family)


def build(family: str) -> Built:
    """Compile one family and keep it in the cache; nothing is loaded."""
    data = source.build(family)
    symbols = list(source.FAMILIES[family])
    cache.store(identity.entry_key(["library", family]), {"symbols": symbols}, data, f"library kernels {family}")
    return symbols, data


def announce(family: str) -> None:
    """Say why the first program on a machine takes some seconds: once to a terminal, for every family if verbose."""
    if config.verbose:
        print(f"tracegrad: compiling library kernels ({family}), once for this machine", file=sys.stderr)
    elif not _ANNOUNCED and sys.stderr is not None and sys.stderr.isatty():
        print("tracegrad: compiling library kernels, once for this machine: a few seconds", file=sys.stderr)
    _ANNOUNCED.add(family)
