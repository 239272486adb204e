"""Every exception a user can meet, in one hierarchy.

    TracegradError
    |- ShapeError (ValueError)        shapes, ranks, axes that do not fit
    |- DTypeError (TypeError)         dtypes that are unsupported or do not fit
    |- ArgumentError (TypeError)      values that are not arrays, scalars or pytrees of them
    |- IndexOutOfBounds (IndexError)  an index outside its axis, found while tracing or while running
    |- GradientError (TypeError)      what cannot be differentiated, and wrong uses of grad
    |- TracerError (TypeError)        a traced value used where a concrete one is needed
    |  |- TracerBoolError             Python itself must decide on a traced value: its function is converted
    |  '- TracerLeakError             a traced value used after its trace has ended
    |- OutOfMemory (MemoryError)      a program's values, or a loop's record for its pullback, do not fit
    |- GraphError                     text or graph that does not verify
    |- ArtefactError (ValueError)     a file of `save` that cannot be written or read
    '- CompileError                   code generation failed: a defect of tracegrad

A message says what happened with shapes and dtypes, where in the user's own code, and, on a line that starts with
`fix:`, what to type instead.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

PACKAGE = str(Path(__file__).parent) + os.sep
LIBRARIES = tuple(f"-packages{os.sep}{name}{os.sep}" for name in ("numpy", "optree", "numba", "llvmlite"))
STANDARD = (str(Path(os.__file__).parent / "contextlib.py"), str(Path(os.__file__).parent / "functools.py"), "<frozen")


@dataclass(frozen=True, slots=True)
class Where:
    """A line of the user's code."""

    file: str
    line: int
    function: str = ""

    def __str__(self) -> str:
        return f"{Path(self.file).name}:{self.line}"


def user_line() -> Where | None:
    """Find the innermost frame that belongs to neither tracegrad nor the libraries under it."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        name = code.co_filename
        if not name.startswith((PACKAGE, *STANDARD)) and not any(part in name for part in LIBRARIES):
            return Where(name, frame.f_lineno, code.co_name)
        frame = frame.f_back  # type: ignore[assignment]
    return None


class TracegradError(Exception):
    """Base of all errors raised on purpose; `where` is the user's line, `fix` what to type instead."""

    def __init__(self, message: str, *, fix: str = "", where: Where | None = None):
        self.message = message
        self.fix = fix
        self.where = where or user_line()
        super().__init__(message)

    def __str__(self) -> str:
        place = f" at {self.where}" if self.where else ""
        head, colon, tail = self.message.partition(": ")
        operation, second, detail = tail.partition(": ")
        if second:
            text = f"{head}: {operation}{place}: {detail}"
        else:
            text = f"{head}{place}: {tail}" if colon else f"{self.message}{place}"
        return f"{text}\n  fix: {self.fix}" if self.fix else text


class ShapeError(TracegradError, ValueError):
    """Shapes, ranks or axes do not fit."""


class DTypeError(TracegradError, TypeError):
    """A dtype is not supported, or dtypes do not fit together."""


class ArgumentError(TracegradError, TypeError):
    """A value is not an array, a scalar or a pytree of them."""


class IndexOutOfBounds(TracegradError, IndexError):
    """An index lies outside its axis."""


class GradientError(TracegradError, TypeError):
    """A function or value cannot be differentiated as asked."""


class TracerError(TracegradError, TypeError):
    """A traced value was used where a concrete value is needed."""


class TracerBoolError(TracerError):
    """Python asked for the truth of a traced value, or for an integer: converting the function may help."""


class TracerLeakError(TracerError):
    """A traced value was used after its trace had ended."""


class GraphError(TracegradError):
    """A graph, or its text, does not verify."""


class ArtefactError(TracegradError, ValueError):
    """A compiled program cannot be written to a file, or a file is not one."""


class OutOfMemory(TracegradError, MemoryError):
    """A program, or the pullback of a loop of unknown length, needs more memory than there is."""


class CompileError(TracegradError):
    """Code generation failed; this is a defect of tracegrad, not of the user's program."""
