"""The functions of `maths` as syntax trees, for `translate`."""

from __future__ import annotations

import ast
import inspect
from functools import cache

from tracegrad.codegen import maths, maths_f32, maths_f64, maths_half, maths_random, maths_special

MODULES = (maths_f32, maths_f64, maths_special, maths_random, maths_half, maths)


@cache
def functions() -> dict[str, ast.FunctionDef]:
    """Every function of the maths modules, by name."""
    nodes = [node for module in MODULES for node in ast.parse(inspect.getsource(module)).body]
    return {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}


@cache
def number(name: str) -> float | int:
    """A constant of the maths modules."""
    for module in MODULES:
        value = getattr(module, name, None)
        if isinstance(value, float | int):
            return value
    raise NameError(f"scalar code: no name {name!r}")


def has(name: str, dtype: str) -> bool:
    """Whether the function has a version of its own for an integer dtype."""
    return name in functions() or f"{name}_{dtype}" in functions() or f"{name}_int" in functions()


@cache
def find(name: str, dtype: str) -> ast.FunctionDef:
    """The function that `name` means on operands of this dtype: `exp` on f32 is `exp_f32`."""
    for candidate in (f"{name}_{dtype}", f"{name}_int" if dtype[0] in "iu" else name, name):
        if candidate in functions():
            return functions()[candidate]
    raise NameError(f"scalar code: no function {name!r} on {dtype}")


@cache
def returns_tuple(definition: ast.FunctionDef) -> bool:
    last = definition.body[-1]
    return isinstance(last, ast.Return) and isinstance(last.value, ast.Tuple)
