"""The programs in NumPy itself."""

from __future__ import annotations

from functools import partial

import numpy as np

from bench.loops_cases import Maker, Program
from bench.programs_cases import CASES, arguments, as_tuple


def version() -> str:
    """Return the library's version."""
    return np.__version__


def program(case: str, size: int) -> Program:
    """Return a case as a program to run."""
    fn, data = CASES[case].fn, arguments(case, size)
    return lambda: as_tuple(fn(*data))


PROGRAMS: dict[str, Maker] = {case: partial(program, case) for case in CASES if not CASES[case].wrt}
