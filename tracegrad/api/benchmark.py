"""`tg.benchmark`: one function, compiled against eager, with the compile time told apart."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tracegrad import tree
from tracegrad.api.compiled import Compiled, compile
from tracegrad.trace import eager


@dataclass(frozen=True)
class Benchmark:
    """Seconds per call (medians), seconds to compile, and the program's size. Prints as a table."""

    name: str
    eager: float
    compiled: float
    compile: float
    kernels: int
    arena_bytes: int
    spread: float = field(default=0.0)

    @property
    def ratio(self) -> float:
        """How many times faster the compiled function is."""
        return self.eager / self.compiled

    def __str__(self) -> str:
        eager, compiled, once = (f"{show_time(t):>10}" for t in (self.eager, self.compiled, self.compile))
        rows = [
            f"{self.name}",
            f"  eager     {eager} per call",
            f"  compiled  {compiled} per call (spread {self.spread:.0%}), {self.ratio:.1f} times faster",
            f"  compile   {once} once; {self.kernels} kernels, arena {self.arena_bytes / 1024:.0f} KiB",
        ]
        return "\n".join(rows)


def show_time(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1.0:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def measure(fn: Callable[[], Any], seconds: float) -> list[float]:
    """Time calls of `fn` for about `seconds`, at least three of them, after one to warm up."""
    fn()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        fn()
        times.append(time.perf_counter() - start)
    return times


def copied(values: Any) -> Any:
    return tree.map(lambda x: np.array(x) if isinstance(x, np.ndarray) else x, values)


def benchmark(
    fn: Callable[..., Any], *args: Any, seconds: float = 1.0, quiet: bool = False, **kwargs: Any
) -> Benchmark:
    """Time `fn(*args)` eagerly (op by op in NumPy) and compiled, in turns; print and return the table.

    `fn` may be a plain function, a transformed one, or the result of `tg.compile`. Arrays are copied first, so donation
    is safe.

    >>> report = benchmark(lambda x: np.tanh(x) * x, np.ones(1000), seconds=0.1, quiet=True)
    >>> report.kernels
    1
    """
    function = fn if isinstance(fn, Compiled) else None
    began = time.perf_counter()
    compiled = function or compile(fn, *args, **kwargs)
    spent = sum(compiled.timings.values()) if function else time.perf_counter() - began
    plain = compiled._function

    def run_eager() -> Any:
        with eager():
            return plain(*args, **kwargs)

    own = copied((args, kwargs))
    fast: list[float] = []
    slow: list[float] = []
    for _ in range(3):
        fast += measure(lambda: compiled(*own[0], **own[1]), seconds / 6)
        slow += measure(run_eager, seconds / 6)
    quartiles = statistics.quantiles(fast, n=4) if len(fast) > 3 else [min(fast), 0, max(fast)]
    middle = statistics.median(fast)
    found = Benchmark(
        compiled.__name__, statistics.median(slow), middle, spent, compiled.kernels, compiled.arena_bytes,
        (quartiles[2] - quartiles[0]) / middle,
    )  # fmt: skip
    if not quiet:
        print(found, file=sys.stdout)
    return found
