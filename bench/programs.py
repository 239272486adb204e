"""The programs in tracegrad: compiled as they stand."""

from __future__ import annotations

from functools import partial

import tracegrad as tg
from bench.loops_cases import Maker, Program
from bench.ours import version
from bench.programs_cases import CASES, arguments, as_tuple


def program(case: str, size: int) -> Program:
    """Return a case as a program to run."""
    written, data = CASES[case], arguments(case, size)
    run = tg.value_and_grad(written.fn, argnums=written.wrt) if written.wrt else tg.jit(written.fn)
    return lambda: as_tuple(run(*data))


PROGRAMS: dict[str, Maker] = {case: partial(program, case) for case in CASES}
__all__ = ["PROGRAMS", "version"]
