"""Library kernels compiled in a second process while this one compiles the program.

`python -m tracegrad.runtime.prebuild gemm_f32 ...` is that process. The two meet in the cache on disk. Whatever the second process does not deliver, this one compiles itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from tracegrad.config import config
from tracegrad.runtime import cache, library

SECONDS = {"gemm": 0.7, "conv": 1.0, "convw": 1.1, "gemv": 0.4, "direct": 0.3, "sort": 0.3}
"""About how long a family takes to compile, by the first part of its name; 0.2 for the others."""
WORTH = 0.8
"""Seconds that must be saved before a process is started: it imports Numba first."""


def seconds(family: str) -> float:
    return SECONDS.get(family.split("_")[0], 0.2)


def share(families: Sequence[str]) -> list[str]:
    """Return the families to compile elsewhere: about half of the work, none when that is not worth a process."""
    missing = [f for f in families if f != "pool" and not library.is_at_hand(f)]
    ours = theirs = 0.0
    found = []
    for family in sorted(missing, key=lambda f: -seconds(f)):
        if theirs + WORTH / 2 <= ours:
            theirs += seconds(family)
            found.append(family)
        else:
            ours += seconds(family)
    return found if theirs >= WORTH else []


def start(families: Sequence[str]) -> tuple[list[str], list[subprocess.Popen[bytes]]]:
    """Start compiling some of the families that are missing, if there is a second core and a cache to meet in.

    Return these families and the process.
    """
    if not config.cache or config.threads < 2 or not sys.executable:
        return [], []
    chosen = share(families)
    if not chosen:
        return [], []
    environment = {**os.environ, "TRACEGRAD_CACHE_DIR": str(config.cache_dir), "TRACEGRAD_CACHE": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(cache.PACKAGE.parent), environment.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "tracegrad.runtime.prebuild", *chosen]
    try:
        null = subprocess.DEVNULL
        return chosen, [subprocess.Popen(command, env=environment, stdin=null, stdout=null, stderr=null)]
    except OSError:
        return [], []


if __name__ == "__main__":
    for name in sys.argv[1:]:
        library.build_family(name)
