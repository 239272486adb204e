"""The CPU that code is compiled for: this machine's, or a level of x86-64 that many machines share.

Numba is not imported here: the run time asks for the CPU, too.
"""

from __future__ import annotations

import functools
import platform
from typing import TYPE_CHECKING

from tracegrad import lazy
from tracegrad.config import config
from tracegrad.errors import ArgumentError
from tracegrad.record import record

if TYPE_CHECKING:
    import llvmlite.binding as llvm
else:
    llvm = lazy.module("llvmlite.binding")  # only where the CPU is not remembered

V2 = "cx16 cx8 fxsr mmx popcnt sahf sse sse2 sse3 sse4.1 sse4.2 ssse3"
V3 = f"{V2} avx avx2 bmi bmi2 f16c fma lzcnt movbe xsave"
V4 = f"{V3} avx512f avx512bw avx512cd avx512dq avx512vl"
LEVELS = {"x86-64-v2": V2.split(), "x86-64-v3": V3.split(), "x86-64-v4": V4.split()}
"""The levels of the x86-64 psABI, with the features that code of that level may use."""


@record
class Cpu:
    """LLVM's name of a CPU and the features that code for it may use, all others listed as missing."""

    name: str
    features: frozenset[str]
    flags: str

    def runs_on(self, other: Cpu) -> bool:
        """Say whether code for this CPU runs on the other one."""
        return self.features <= other.features


_REMEMBERED: list[Cpu] = []


def remember(cpu: Cpu) -> None:
    """Take this for the machine's CPU: an earlier process has asked LLVM."""
    _REMEMBERED.append(cpu)


@functools.cache
def host() -> Cpu:
    """Return this machine's CPU."""
    if _REMEMBERED:
        return _REMEMBERED[0]
    features = llvm.get_host_cpu_features()
    return Cpu(llvm.get_host_cpu_name(), frozenset(f for f, on in features.items() if on), features.flatten())


@functools.cache
def level(name: str) -> Cpu:
    """Return a level of x86-64, such as x86-64-v3."""
    if name not in LEVELS:
        raise ArgumentError(f"cpu: {name!r} is no level", fix=f"choose from {', '.join(LEVELS)}")
    features = frozenset(LEVELS[name])
    return Cpu(name, features, ",".join(f"+{f}" for f in sorted(features)))


def converts_half(cpu: Cpu) -> bool:
    """Say whether a CPU has instructions that convert between f16 and f32."""
    return "f16c" in cpu.features or platform.machine().lower() in ("aarch64", "arm64")


def target() -> Cpu:
    """Return the CPU that this process compiles for."""
    return host() if config.cpu == "host" else level(config.cpu)
