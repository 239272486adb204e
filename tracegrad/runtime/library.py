"""Library kernels in this process: loaded from the cache, or compiled once per host and kept there."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping

from tracegrad.config import config
from tracegrad.runtime import cache, identity
from tracegrad.runtime.objects import ObjectError, define_symbols, load_object
from tracegrad.runtime.pool import Pool

_LOCK = threading.RLock()
_LOADED: dict[str, dict[str, int]] = {}
_POOLS: dict[int, Pool] = {}
_ANNOUNCED: set[str] = set()


def ensure(families: Iterable[str], theirs: Collection[str] = (), wait: Callable[[], None] | None = None) -> float:
    """Make the symbols of these families known to the loader; return the seconds spent on compiling any.

    A second process may be compiling `theirs`: these come last, after `wait()`.
    """
    spent = 0.0
    with _LOCK:
        missing = [f for f in families if f not in _LOADED]
        for family in sorted(missing, key=lambda f: (f != "pool", f in theirs)):  # all others call into the pool's
            if family in theirs and wait is not None:
                wait()
            spent += load_family(family)
    return spent


def is_at_hand(family: str) -> bool:
    """Say whether a family is loaded or in the cache."""
    return family in _LOADED or is_kept(family)


def is_kept(family: str) -> bool:
    """Say whether the cache has a sound copy of a family."""
    return cache.load(identity.entry_key(["library", family])) is not None


def load_family(family: str) -> float:
    """Load one family; compile it when the cache has no sound copy."""
    key = identity.entry_key(["library", family])
    found = cache.load(key)
    if found is not None:
        try:
            adopt(family, found[0]["symbols"], found[1])
            return 0.0
        except (ObjectError, KeyError):
            pass
    began = time.perf_counter()
    symbols, data = build_family(family)
    adopt(family, symbols, data)
    return time.perf_counter() - began


def build_family(family: str) -> tuple[list[str], bytes]:
    """Compile one family and keep it in the cache; nothing is loaded."""
    announce(family)
    library = importlib.import_module("tracegrad.codegen.library")  # imports Numba: only on a cache miss
    data = library.build(family)
    symbols = list(library.FAMILIES[family])
    cache.store(identity.entry_key(["library", family]), {"symbols": symbols}, data, f"library kernels {family}")
    return symbols, data


def announce(family: str) -> None:
    """Say why the first program on a machine takes some seconds: once to a terminal, for every family if verbose."""
    if config.verbose:
        print(f"tracegrad: compiling library kernels ({family}), once for this machine", file=sys.stderr)
    elif not _ANNOUNCED and sys.stderr is not None and sys.stderr.isatty():
        print("tracegrad: compiling library kernels, once for this machine: a few seconds", file=sys.stderr)
    _ANNOUNCED.add(family)


def families() -> list[str]:
    """Name all families of library kernels."""
    return list(importlib.import_module("tracegrad.codegen.library").FAMILIES)  # imports Numba


def object_of(family: str) -> tuple[list[str], bytes]:
    """Return symbols and object code of a family, for a file that brings its own."""
    found = cache.load(identity.entry_key(["library", family]))
    return (list(found[0]["symbols"]), found[1]) if found else build_family(family)


def load_apart(families: Mapping[str, tuple[list[str], bytes]]) -> dict[str, int]:
    """Load families that a file brought, and return the addresses of their symbols without making them known.

    They may differ from the kernels of this process, or be for another CPU: only the file's own program calls them.
    The pool is the exception. There is one in a process, and a file's is used when there is none yet.
    """
    with _LOCK:
        if "pool" not in _LOADED:
            adopt("pool", *families["pool"])
        addresses: dict[str, int] = {}
        for family, (symbols, data) in families.items():
            if family not in ("pool", "caller"):
                addresses |= load_object(data, symbols)
        return addresses


def adopt(family: str, symbols: list[str], data: bytes) -> None:
    addresses = load_object(data, symbols)
    define_symbols(addresses)
    _LOADED[family] = addresses


def loaded(family: str) -> dict[str, int]:
    """Return the addresses of a loaded family's symbols."""
    return _LOADED[family]


def pool(threads: int) -> Pool:
    """Return the process's pool of this many threads."""
    found = _POOLS.get(threads)
    if found is None:
        with _LOCK:
            ensure(["pool"])
            found = _POOLS.get(threads) or _POOLS.setdefault(threads, Pool(threads, _LOADED["pool"]["tg_worker"]))
    return found
