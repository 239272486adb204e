"""The programs compiled by Numba as they stand; what it does not take is refused with its own words."""

from __future__ import annotations

from functools import partial

import numba

from bench.loops_cases import Maker, Program, Refused, Values
from bench.programs_cases import CASES, arguments, as_tuple, rewritten


def version() -> str:
    """Return the library's version."""
    return str(numba.__version__)


def reason(error: Exception) -> str:
    """Return the line of Numba's message that says what is missing."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line.startswith((">>>", "Use of", "Cannot", "Unknown", "Invalid use"))]
    return told[0] if told else f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


def program(case: str, size: int) -> Program:
    """Return a case as a program to run."""
    fn, data = rewritten(CASES[case].fn, {}, numba.njit), arguments(case, size)

    def run() -> Values:
        try:
            return as_tuple(fn(*data))
        except (numba.core.errors.NumbaError, AssertionError) as error:
            raise Refused(reason(error)) from None

    return run


PROGRAMS: dict[str, Maker] = {case: partial(program, case) for case in CASES if not CASES[case].wrt}
