"""Every exception a user can meet, in one hierarchy.

    TracegradError
    |- ShapeError (ValueError)        shapes, ranks, axes that do not fit
    |  '- Mismatch                    what a branch or a round of a loop gives does not fit the others
    |- DTypeError (TypeError)         dtypes that are unsupported or do not fit
    |- ArgumentError (TypeError)      values that are not arrays, scalars or pytrees of them
    |- IndexOutOfBounds (IndexError)  an index outside its axis, found while tracing or while running
    |- GradientError (TypeError)      what cannot be differentiated, and wrong uses of grad
    |- TapeError (RuntimeError)       wrong uses of the tape: a second backward, a saved value changed in place, ...
    |- TracerError (TypeError)        a traced value used where a concrete one is needed
    |  |- TracerBoolError             Python itself must decide on a traced value: its function is converted
    |  |  '- TracerValueError         NumPy or Python needs the elements of a traced value: likewise
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
from types import CodeType, FrameType

from tracegrad.record import record

PACKAGE = os.path.dirname(__file__) + os.sep
LIBRARIES = tuple(f"-packages{os.sep}{name}{os.sep}" for name in ("numpy", "optree", "numba", "llvmlite"))
STANDARD = (*(os.path.join(os.path.dirname(os.__file__), f) for f in ("contextlib.py", "functools.py")), "<frozen")


@record
class Where:
    """A line of the user's code."""

    file: str
    line: int
    function: str = ""

    def __str__(self) -> str:
        return f"{os.path.basename(self.file)}:{self.line}"


INSIDE: dict[str, bool] = {}
"""Files met on the way to the user's line, and whether they belong to tracegrad or what is under it."""


def is_inside(name: str) -> bool:
    found = INSIDE[name] = name.startswith((PACKAGE, *STANDARD)) or any(part in name for part in LIBRARIES)
    return found


Place = tuple[CodeType, int]
"""A code object and a line: what `Where` is made of, for places that are noted often and seldom shown."""


def user_place() -> Place | None:
    """Find the innermost frame that belongs to neither tracegrad nor the libraries under it."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        name = code.co_filename
        inside = INSIDE.get(name)
        if not (is_inside(name) if inside is None else inside):
            return code, frame.f_lineno
        frame = frame.f_back
    return None


def where_of(place: Place | None) -> Where | None:
    return None if place is None else Where(place[0].co_filename, place[1], place[0].co_name)


def user_line() -> Where | None:
    """Return the user's line that is being executed."""
    return where_of(user_place())


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


class Mismatch(ShapeError):
    """A variable's structure, shape or dtype depends on a traced decision, or something else than a variable does."""


class DTypeError(TracegradError, TypeError):
    """A dtype is not supported, or dtypes do not fit together."""


class ArgumentError(TracegradError, TypeError):
    """A value is not an array, a scalar or a pytree of them."""


class IndexOutOfBounds(TracegradError, IndexError):
    """An index lies outside its axis."""


class GradientError(TracegradError, TypeError):
    """A function or value cannot be differentiated as asked."""


class TapeError(TracegradError, RuntimeError):
    """The tape cannot do what it was asked: backward without a graph, a saved value changed in place, and the like."""


class TracerError(TracegradError, TypeError):
    """A traced value was used where a concrete value is needed."""


class TracerBoolError(TracerError):
    """Python asked for the truth of a traced value, or for an integer: converting the function may help."""


class TracerValueError(TracerBoolError):
    """NumPy or Python asked for the elements of a traced value: converting the function may help."""


class LongLoop(TracerBoolError):
    """Tracing makes a long program of a loop: converting the function may compile it instead."""


class MissingAttribute(TracerError, AttributeError):
    """An attribute of NumPy's arrays that traced values do not have."""


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
