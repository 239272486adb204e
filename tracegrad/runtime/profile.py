"""Where a program's time goes: the same schedule compiled once more with the cycle counter read after every step."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracegrad.runtime.compiling import compile_graph
from tracegrad.runtime.executable import Executable
from tracegrad.runtime.layout import laid_out
from tracegrad.runtime.program import Program

WARM_UP = 3


def first_line(step: str) -> str:
    """Return a step without the steps of its loop bodies and branches."""
    return step.partition("\n")[0]


@dataclass(frozen=True)
class Profile:
    """Median microseconds of every step."""

    steps: tuple[str, ...]
    microseconds: tuple[float, ...]

    def __str__(self) -> str:
        total = sum(self.microseconds)
        order = sorted(range(len(self.steps)), key=lambda i: -self.microseconds[i])
        lines = [f"{total:10.1f} us in {len(self.steps)} steps"]
        lines += [
            f"{self.microseconds[i]:10.1f} us {self.microseconds[i] / total:5.1%}  {i}: {first_line(self.steps[i])}"
            for i in order
        ]
        return "\n".join(lines)


def profile(program: Program, inputs: Sequence[Any], rounds: int = 50) -> Profile:
    """Run a program on copies of `inputs` and time its steps."""
    facts, data, _, _ = compile_graph(program.graph, program.donate, program.layouts, {}, profile=True)
    executable = Executable(facts, data, program.executable.names)
    own = [
        laid_out(np.array(x), layout) if isinstance(x, np.ndarray) else x
        for x, layout in zip(inputs, program.layouts, strict=True)
    ]
    medians = medians_of(lambda: executable(own), executable.stamps, rounds)
    return Profile(tuple(facts.steps), tuple(float(m) for m in medians))


def medians_of(run: Callable[[], object], stamps: Any, rounds: int) -> Any:
    """Return the median microseconds between the cycle counts that every run writes, after some runs that warm up."""
    for _ in range(WARM_UP):
        run()
    cycles, first = [], 0
    began = time.perf_counter()
    for _ in range(rounds):
        run()
        cycles.append(np.diff(stamps))
        first = first or int(stamps[0])
    rate = (int(stamps[-1]) - first) / (time.perf_counter() - began) / 1e6
    return np.median(np.array(cycles), axis=0) / rate
