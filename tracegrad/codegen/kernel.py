"""Library kernels: Python functions on words and floats, written as LLVM assembly.

    @kernel
    def row_start(m: int, even: int, taller: int, panel: int) -> int:
        return minimum(m, 2 * (even * panel + minimum(taller, panel)))

The subset: parameters and results that are int64 (annotated `int`) or have the type of what is passed; assignments to
names; `for ... in range`, `while`, `if`, `break`, `continue`, `return`; arithmetic, comparisons, `and`, `or`, `not`;
calls of other kernels and plain functions, of intrinsics (`addresses`), and of types as conversions (`types`).  Other
names from outside are modules of constants, or numbers, which are known while the kernel is written: what they decide
is decided then.  A variable has one type, that of its first value.

Arithmetic is Python's (`//` rounds down) on int64 that wraps; `x // 0` and `x % 0` are 0.  Float operations may be
reassociated and contracted, so that sums vectorise; NaN, inf and the order of comparisons stay exact.

Numba could compile these functions, too, and did: inferring types that are written down took two thirds of the time
from a user's first call to its result (2.0 s of 3.0 for a convolution's family, here 0.15).
"""

from __future__ import annotations

import ast
import inspect
from functools import cache
from types import FunctionType
from typing import Any


class Kernel:
    """A Python function that other kernels may call, and that `kernel_writer` turns into assembly."""

    def __init__(self, function: FunctionType) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        self.parameters = list(inspect.signature(function).parameters)
        self.integers = [function.__annotations__.get(name) in (int, "int") for name in self.parameters]

    def __call__(self, *arguments: Any) -> Any:
        """Run the function in Python, where it calls no intrinsic."""
        return self.function(*arguments)

    def outside(self) -> dict[str, Any]:
        """Return what the function's free names mean."""
        code, cells = self.function.__code__, self.function.__closure__ or ()
        closed = {name: cell.cell_contents for name, cell in zip(code.co_freevars, cells, strict=True)}
        return self.function.__globals__ | closed

    def syntax(self) -> ast.FunctionDef:
        code = self.function.__code__
        return _functions_of(code.co_filename)[code.co_firstlineno]


def kernel(function: Any) -> Kernel:
    """Decorate a function that kernels call, or that is an entry of a library."""
    return Kernel(function)


@cache
def _functions_of(filename: str) -> dict[int, ast.FunctionDef]:
    """Return the syntax of all functions of a file, by their first lines."""
    with open(filename, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    return {min([f.lineno, *(d.lineno for d in f.decorator_list)]): f for f in functions}
