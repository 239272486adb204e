"""Library kernels in this process: loaded from the cache, or compiled once per host and kept there."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tracegrad import lazy
from tracegrad.runtime import cache, identity
from tracegrad.runtime.objects import ObjectError, define_symbols, load_object
from tracegrad.runtime.pool import Pool

if TYPE_CHECKING:
    from tracegrad.runtime import building
else:
    building = lazy.module("tracegrad.runtime.building")  # only on a cache miss

_LOCK = threading.RLock()
_LOADED: dict[str, dict[str, int]] = {}
_POOLS: dict[int, Pool] = {}


def _renew_lock() -> None:
    """In a forked child nobody gives back what another thread of the parent held."""
    global _LOCK
    _LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def ensure(families: Iterable[str]) -> float:
    """Make the symbols of these families known to the loader; return the seconds spent on compiling any."""
    with _LOCK:
        missing = [f for f in dict.fromkeys(families) if f not in _LOADED]
        missing.sort(key=lambda f: f != "pool")  # all others call into the pool's
        return sum([load_family(family) for family in missing])


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
    adopt(family, *building.finish(family))
    return time.perf_counter() - began


def object_of(family: str) -> tuple[list[str], bytes]:
    """Return symbols and object code of a family, for a file that brings its own."""
    found = cache.load(identity.entry_key(["library", family]))
    return (list(found[0]["symbols"]), found[1]) if found else building.finish(family)


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
