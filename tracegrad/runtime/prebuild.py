"""Library kernels compiled in a second process while this one compiles the program.

`python -m tracegrad.runtime.prebuild gemm_f32 ...` is that process. The two meet in the cache on disk. Whatever it does
not deliver, this one compiles itself.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

from tracegrad.config import child_environment, config
from tracegrad.runtime import cache, library

SECONDS = {
    "gemm": 0.3, "conv": 0.5, "convw": 0.5, "winograd2": 0.5, "winograd4": 0.5, "winogradw2": 0.6, "winogradw4": 0.6,
    "planes": 0.4, "convg": 0.4, "convp": 0.2, "gemv": 0.2,
}  # fmt: skip
"""About how long a family takes to compile, by the first part of its name; 0.1 for the others."""
WORTH = 0.8
"""Seconds that must be saved before a process is started: it imports Numba first."""


def seconds(family: str) -> float:
    return SECONDS.get(family.split("_")[0], 0.1)


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


class SecondProcess:
    """The second process: started when the families are known, waited for when one of its own is needed, or last."""

    def __init__(self) -> None:
        self.families: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, families: Sequence[str]) -> None:
        """Start compiling some of the families that are missing, if there is a second core and a cache to meet in."""
        if not config.cache or config.threads < 2 or not sys.executable:
            return
        chosen = share(families)
        if not chosen:
            return
        command = [sys.executable, "-m", "tracegrad.runtime.prebuild", *chosen]
        null = subprocess.DEVNULL
        environment = child_environment(cache.PACKAGE)
        try:
            self.process = subprocess.Popen(command, env=environment, stdin=null, stdout=null, stderr=null)
        except OSError:
            return
        self.families = chosen

    def wait(self) -> None:
        if self.process is not None:
            self.process.wait()

    def __enter__(self) -> SecondProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()


if __name__ == "__main__":
    for name in sys.argv[1:]:
        library.build_family(name)
