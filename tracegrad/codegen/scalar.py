"""Scalar code: the expression that an element-wise primitive declares -> LLVM IR text.

    emitter = Emitter()                                       # one per LLVM module
    block: list[str] = []
    y = emitter.expression(block, "math.tanh({0}) * {1}", [("%x", "f32"), ("%w", "f32")], "f32")
    module = "define ... {" + "\n".join(block) + "... }" + emitter.definitions()

- Dtype names: `f16 bf16 f32 f64 i8 i16 i32 i64 u8 u16 u32 u64 bool`. A bool is an `i1` in registers (and a byte in
memory: the caller
  converts). f16 and bf16 are moved and converted only (`maths_half`). Operands are LLVM values or constants
  (`emitter.constant`).
- Operators: `+ - * / // % ** & | ^ ~ << >> == != < <= > >=`, `and or not`, `a if test else b`, with NumPy's rules:
`//` and `%`
  round down, integer division by zero gives 0, `/` on integers gives f64, bool `+` is or, shifts by too much give 0.
- Functions (with or without `math.`): see `tracegrad.codegen.maths`; built in are `maximum minimum` (NaN wins)
`abs fabs sqrt
  rint round floor ceil trunc copysign fma where isnan isinf isfinite`, the dtype names as casts, and the bit casts
  `bits32 bits64 from_bits32 from_bits64`. Constants: `math.pi math.e math.tau math.inf math.nan`.
- Mixed dtypes promote as in NumPy, literals adopt the dtype of the other operand (or of the result).

The generated text is straight-line code without branches or library calls. It is made once per (expression, dtypes) in
a process, and from then on only renamed: about 2 microseconds per use.
"""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

from tracegrad.codegen import (
    maths,
    maths_builtin,
    maths_f64,
    maths_half,
    maths_random,
    maths_source,
    maths_special,
    translate,
)
from tracegrad.codegen.cpu import converts_half, target
from tracegrad.codegen.instructions import FLAGS, HALVES, LLVM_TYPE, Value, constant

__all__ = ["FLAGS", "LLVM_TYPE", "Emitter", "numba_namespace", "reference_namespace"]

PLACEHOLDER = re.compile(r"\{(\d+)\}")


MOVES = ("{0}", "{1} if {0} else {2}")
"""Expressions that pick or convert an element: the ones that half-precision operands may meet."""


class Template(NamedTuple):
    """Instructions with `{0}`, `{1}` for the operands and `{t}` for the prefix of the temporaries."""

    lines: str
    value: str
    needs: tuple[tuple[str, tuple[str, ...]], ...]


@cache
def parse(text: str) -> ast.expr:
    return ast.parse(PLACEHOLDER.sub(r"_\1", text), mode="eval").body


@lru_cache(maxsize=16384)
def template(text: str, dtypes: tuple[str, ...], result: str) -> Template:
    """Translate an expression once for these operand dtypes."""
    if text not in MOVES and not {*dtypes, result}.isdisjoint(HALVES):
        raise AssertionError(f"{text} computes with half precision: {dtypes} -> {result}")
    names = {f"_{i}": Value(f"{{{i}}}", dtype) for i, dtype in enumerate(dtypes)}
    hint = result if result != "bool" or not dtypes else dtypes[0]
    translator = translate.Translator("{t}", names, hint)
    value = translator.convert(translator.visit(parse(text)), result)
    return Template("\n".join(translator.lines), value.text, tuple(translator.needs))


class Emitter:
    """Writes scalar code into the basic blocks of one LLVM module, and collects the helper functions it calls."""

    def __init__(self) -> None:
        self._count = 0
        self._functions: dict[tuple[str, tuple[str, ...]], str] = {}

    def restart(self) -> None:
        """Number names from the start again: they are local to a function, and equal code then has equal text."""
        self._count = 0

    def name(self) -> str:
        """Return a fresh `%name`."""
        self._count += 1
        return f"%s{self._count}"

    def constant(self, value: Any, dtype: str) -> str:
        """Return the text of an LLVM constant."""
        return constant(value, dtype)

    def expression(self, block: list[str], text: str, operands: Sequence[tuple[str, str]], result: str) -> str:
        """Append the instructions that evaluate `text` on `operands` ((value, dtype) pairs); return the value of
        dtype `result`."""
        code = template(text, tuple([dtype for _, dtype in operands]), result)
        return self._place(block, code, [value for value, _ in operands])

    def convert(self, block: list[str], value: str, from_dtype: str, to_dtype: str) -> str:
        """Append NumPy's `astype`; float to integer saturates, and NaN becomes 0."""
        return self.expression(block, "{0}", [(value, from_dtype)], to_dtype)

    def definitions(self) -> str:
        """Return the text of every helper function used so far, to append to the module."""
        return "".join(self._functions.values())

    def helpers(self) -> dict[str, str]:
        """Return the same by name."""
        return {text[text.index("@") + 1 : text.index("(")]: text for text in self._functions.values()}

    def _place(self, block: list[str], code: Template, values: list[str]) -> str:
        prefix = self.name()[1:]
        for key in code.needs:
            self._require(key)
        if code.lines:
            block.extend(code.lines.format(*values, t=prefix).split("\n"))
        return code.value.format(*values, t=prefix)

    def _require(self, key: tuple[str, tuple[str, ...]]) -> None:
        if key in self._functions:
            return
        function = translate.function(*key)
        self._functions[key] = self._in_hardware(function, key[0]) or function.text
        for needed in function.needs:
            self._require(needed)


    def _in_hardware(self, function: translate.Function, name: str) -> str:
        """Return a conversion of half precision as instructions of the CPU that is compiled for, where it has them."""
        lines = maths_half.HARDWARE.get(name)
        if lines is None or not converts_half(target()):
            return ""
        return f"{function.text.split(chr(10), 1)[0]}\n{lines}}}\n"


def reference_namespace() -> dict[str, Any]:
    """Return the names that make an expression's text run as plain Python on NumPy scalars (`eval(text,
    namespace)`)."""
    names: dict[str, Any] = {}
    for module in (maths_builtin, *maths_source.MODULES):
        names.update({name: value for name, value in vars(module).items() if callable(value) and name[0] != "_"})
    names["math"] = types.SimpleNamespace(**names, **translate.MATH_CONSTANTS)
    return names


def numba_namespace(njit: Callable[[Callable[..., Any]], Any]) -> dict[str, Any]:
    """Return the same names for an expression that Numba compiles; `njit` is Numba's decorator (not imported here).

    Every function is the f64 version, so that f32 operands are evaluated in f64: the reference is the more accurate.
    """
    names: dict[str, Any] = dict(vars(maths_builtin))
    functions: dict[str, Callable[..., Any]] = {
        "fma": maths_builtin.fma_f64,
        "bit_width": lambda x: 64,
        "clamp": lambda x, low, high: low if x < low else min(x, high),
    }
    for module in (maths_builtin, maths_f64, maths_special, maths_random, maths):
        for name, value in vars(module).items():
            if isinstance(value, float | int) and name[0] != "_":
                names[name] = value
            elif inspect.isfunction(value) and value.__module__ == module.__name__:
                functions.setdefault(name, value)
    for name, function in functions.items():
        source = functions.get(f"{name}_f64", function)
        names[name] = njit(types.FunctionType(source.__code__, names, name, source.__defaults__))
    module = types.ModuleType("math")
    vars(module).update({name: names[name] for name in functions}, **translate.MATH_CONSTANTS)
    names["math"] = module
    return names
