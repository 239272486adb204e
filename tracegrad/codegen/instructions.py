"""Typed values of scalar code, and the LLVM instructions of each operator and built-in function on them.

Numeric literals are weak: they take the dtype of the other operand. Where there is none (`1.0 if {0} > 0.0 else 0.0`)
they take the dtype of the result. Float arithmetic carries `FLAGS` only; sums and products of reductions may be
reassociated, too (`loops.REDUCE_FLAGS`).
"""

from __future__ import annotations

import math
import operator
import struct
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from tracegrad.codegen.maths_half import bf16_of_f32

FLAGS = "contract"
LITERAL = "literal"
HALVES = ("f16", "bf16")
"""Dtypes of stored numbers: their bits are moved as integers, and converted where something is computed."""
LLVM_TYPE = {
    "f16": "i16",
    "bf16": "i16",
    "f32": "float",
    "f64": "double",
    "bool": "i1",
    **{f"{sign}{bits}": f"i{bits}" for sign in "iu" for bits in (8, 16, 32, 64)},
}
BITS = {
    "f16": 16, "bf16": 16, "f32": 32, "f64": 64, "bool": 1,
    **{f"{sign}{bits}": bits for sign in "iu" for bits in (8, 16, 32, 64)},
}  # fmt: skip
NUMPY_NAME = {
    name: np.dtype(name if name == "bool" else f"{name[0]}{bits // 8}") for name, bits in BITS.items()
    if name not in HALVES
}  # fmt: skip
NAME_OF = {dtype: name for name, dtype in NUMPY_NAME.items()}

FLOAT_COMPARE = {"Eq": "oeq", "NotEq": "une", "Lt": "olt", "LtE": "ole", "Gt": "ogt", "GtE": "oge"}
INT_COMPARE = {"Eq": "eq", "NotEq": "ne", "Lt": "lt", "LtE": "le", "Gt": "gt", "GtE": "ge"}
FLOAT_BINARY = {"Add": "fadd", "Sub": "fsub", "Mult": "fmul", "Div": "fdiv"}
INT_BINARY = {"Add": "add", "Sub": "sub", "Mult": "mul", "BitAnd": "and", "BitOr": "or", "BitXor": "xor"}
BOOL_BINARY = {"Add": "or", "Mult": "and", "BitAnd": "and", "BitOr": "or", "BitXor": "xor"}
FOLD: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mult": operator.mul,
    "Div": operator.truediv,
    "FloorDiv": operator.floordiv,
    "Mod": operator.mod,
    "Pow": operator.pow,
    "LShift": operator.lshift,
    "RShift": operator.rshift,
    "BitAnd": operator.and_,
    "BitOr": operator.or_,
    "BitXor": operator.xor,
    "Eq": operator.eq,
    "NotEq": operator.ne,
    "Lt": operator.lt,
    "LtE": operator.le,
    "Gt": operator.gt,
    "GtE": operator.ge,
}
ROUNDINGS = {"rint": "rint", "round": "rint", "floor": "floor", "ceil": "ceil", "trunc": "trunc"}
BIT_CASTS = {"bits32": "i32", "bits64": "i64", "from_bits32": "f32", "from_bits64": "f64"}
EXTREMES = {"maximum": ("maximum", "max"), "minimum": ("minimum", "min")}


class Value(NamedTuple):
    """An LLVM value with its dtype, or a weak literal (`dtype` LITERAL, `number` set)."""

    text: str
    dtype: str
    number: Any = None


def is_float(dtype: str) -> bool:
    """Whether instructions on floating-point numbers apply."""
    return dtype in ("f32", "f64")


def half_bits(value: Any, dtype: str) -> int:
    """The bits of a number in half precision."""
    with np.errstate(over="ignore"):
        if dtype == "f16":
            return int(np.float16(value).view(np.uint16))
        return int(bf16_of_f32(np.float32(value)))


def constant(value: Any, dtype: str) -> str:
    """The text of an LLVM constant: floats as the hexadecimal bits of a double, integers wrapped to the dtype."""
    if dtype == "bool":
        return "true" if value else "false"
    if dtype in HALVES:
        return constant(half_bits(value, dtype), "u16")
    if not is_float(dtype):
        bits = BITS[dtype]
        return str((int(value) + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1))
    number = float(np.float32(value)) if dtype == "f32" else float(value)
    if math.isnan(number):
        return "0x7FF8000000000000"
    return f"0x{struct.unpack('>Q', struct.pack('>d', number))[0]:016X}"


@cache
def promote(left: str, right: str) -> str:
    """NumPy's result dtype of two dtypes."""
    return NAME_OF[np.promote_types(NUMPY_NAME[left], NUMPY_NAME[right])]


class Instructions:
    """Appends instructions to `lines`."""

    def __init__(self, prefix: str, hint: str) -> None:
        self.prefix = prefix
        self.hint = hint
        self.lines: list[str] = []

    def emit(self, dtype: str, code: str) -> Value:
        name = f"%{self.prefix}.{len(self.lines)}"
        self.lines.append(f"  {name} = {code}")
        return Value(name, dtype)

    def strong(self, value: Value, dtype: str | None = None) -> Value:
        """The value with a dtype of its own: a literal takes `dtype`, or the hint."""
        if value.dtype != LITERAL:
            return value
        dtype = dtype or self.hint
        if isinstance(value.number, float) and not is_float(dtype):
            dtype = "f64"
        return Value(constant(value.number, dtype), dtype, value.number)

    def unify(self, values: Sequence[Value]) -> list[Value]:
        """All the values at one dtype: NumPy's promotion; literals follow the others."""
        dtypes = {value.dtype for value in values if value.dtype != LITERAL}
        dtype = dtypes.pop() if dtypes else self.hint
        for other in dtypes:
            dtype = promote(dtype, other)
        numbers = [value.number for value in values if value.dtype == LITERAL]
        if not is_float(dtype) and any(isinstance(number, float) for number in numbers):
            dtype = "f64"
        elif dtype == "bool" and any(not isinstance(number, bool) for number in numbers):
            dtype = "i64"
        return [self.convert(value, dtype) for value in values]

    def select(self, test: Value, yes: Value, no: Value) -> Value:
        yes, no = self.unify([yes, no])
        kind = LLVM_TYPE[yes.dtype]
        return self.emit(yes.dtype, f"select i1 {self.convert(test, 'bool').text}, {kind} {yes.text}, {kind} {no.text}")

    def compare(self, op: str, left: Value, right: Value) -> Value:
        if left.dtype == right.dtype == LITERAL:
            return Value(constant(FOLD[op](left.number, right.number), "bool"), "bool")
        left, right = self.unify([left, right])
        if is_float(left.dtype):
            return self.emit("bool", f"fcmp {FLOAT_COMPARE[op]} {LLVM_TYPE[left.dtype]} {left.text}, {right.text}")
        sign = "" if op in ("Eq", "NotEq") else "s" if left.dtype[0] == "i" else "u"
        return self.emit("bool", f"icmp {sign}{INT_COMPARE[op]} {LLVM_TYPE[left.dtype]} {left.text}, {right.text}")

    def binary(self, op: str, left: Value, right: Value) -> Value:
        """One of `+ - * / & | ^ << >>`, by the name of its syntax node."""
        if op in ("LShift", "RShift"):
            return self.shift(op, left, right)
        left, right = self.unify([left, right])
        if op == "Div" and not is_float(left.dtype):
            left, right = self.convert(left, "f64"), self.convert(right, "f64")
        table = FLOAT_BINARY if is_float(left.dtype) else BOOL_BINARY if left.dtype == "bool" else INT_BINARY
        code = f"{table[op]} {FLAGS}" if is_float(left.dtype) else table[op]
        return self.emit(left.dtype, f"{code} {LLVM_TYPE[left.dtype]} {left.text}, {right.text}")

    def negate(self, value: Value) -> Value:
        kind = LLVM_TYPE[value.dtype]
        return self.emit(
            value.dtype, f"fneg {FLAGS} {kind} {value.text}" if is_float(value.dtype) else f"sub {kind} 0, {value.text}"
        )

    def shift(self, op: str, left: Value, right: Value) -> Value:
        """NumPy's shifts: a count of the width or more gives 0 (or -1), where LLVM's result is undefined."""
        known = right.dtype == LITERAL and left.dtype != LITERAL and 0 <= right.number < BITS[left.dtype]
        left, right = [self.strong(left), self.strong(right, left.dtype)] if known else self.unify([left, right])
        code = "shl" if op == "LShift" else "ashr" if left.dtype[0] == "i" else "lshr"
        kind, top = LLVM_TYPE[left.dtype], BITS[left.dtype] - 1
        if known:
            return self.emit(left.dtype, f"{code} {kind} {left.text}, {right.text}")
        inside = self.emit("bool", f"icmp ule {kind} {right.text}, {top}")
        count = self.emit(left.dtype, f"select i1 {inside.text}, {kind} {right.text}, {kind} {top}")
        shifted = self.emit(left.dtype, f"{code} {kind} {left.text}, {count.text}")
        if code == "ashr":
            return shifted
        return self.emit(left.dtype, f"select i1 {inside.text}, {kind} {shifted.text}, {kind} 0")

    def integer_division(self, op: str, x: Value, y: Value, by_constant: bool) -> Value:
        """NumPy's floor division and remainder: rounds down, x // 0 == 0, INT_MIN // -1 == INT_MIN; never traps.

        Vector units have no integer division, so the quotient of up to 32 bits goes through double: it is exact,
        since x / y is either an integer or at least 2**-31 (relatively) away from one.
        """
        x, y = [self.convert(v, "u8") for v in (x, y)] if x.dtype == "bool" else [x, y]
        kind, signed = LLVM_TYPE[x.dtype], x.dtype[0] == "i"
        zero = self.emit("bool", f"icmp eq {kind} {y.text}, 0")
        minus = self.emit("bool", f"icmp eq {kind} {y.text}, -1") if signed else zero
        unsafe = self.emit("bool", f"or i1 {zero.text}, {minus.text}")
        d = self.emit(x.dtype, f"select i1 {unsafe.text}, {kind} 1, {kind} {y.text}")
        if by_constant or BITS[x.dtype] == 64:
            q = self.emit(x.dtype, f"{'s' if signed else 'u'}div {kind} {x.text}, {d.text}")
        else:
            wide = self.emit("f64", f"fdiv double {self.convert(x, 'f64').text}, {self.convert(d, 'f64').text}")
            q = self.emit(x.dtype, f"fpto{'s' if signed else 'u'}i double {wide.text} to {kind}")
        r = self.binary("Sub", x, self.binary("Mult", q, d))
        if signed:
            differ = self.emit("bool", f"icmp slt {kind} {self.binary('BitXor', r, d).text}, 0")
            inexact = self.emit("bool", f"icmp ne {kind} {r.text}, 0")
            down = self.emit("bool", f"and i1 {differ.text}, {inexact.text}")
            r = self.binary("Add", r, self.select(down, d, Value("", LITERAL, 0)))
            q = self.binary("Sub", q, self.convert(down, x.dtype))
            q = self.select(minus, self.binary("Sub", Value("", LITERAL, 0), x), q)
        return r if op == "mod" else self.select(zero, Value("", LITERAL, 0), q)

    def convert(self, value: Value, dtype: str) -> Value:
        """NumPy's `astype`; float to integer saturates and takes NaN to 0."""
        if value.dtype == LITERAL:
            return Value(constant(value.number, dtype), dtype, value.number)
        source = value.dtype
        if source == dtype:
            return value
        old, new = LLVM_TYPE[source], LLVM_TYPE[dtype]
        if dtype == "bool":
            test = "fcmp une" if is_float(source) else "icmp ne"
            return self.emit(dtype, f"{test} {old} {value.text}, {constant(0, source)}")
        if is_float(source) and is_float(dtype):
            return self.emit(dtype, f"{'fpext' if dtype == 'f64' else 'fptrunc'} {old} {value.text} to {new}")
        if is_float(source):
            sign = "s" if dtype[0] == "i" else "u"
            return self.emit(dtype, f"call {new} @llvm.fpto{sign}i.sat.{new}.{source}({old} {value.text})")
        if is_float(dtype):
            return self.emit(dtype, f"{'s' if source[0] == 'i' else 'u'}itofp {old} {value.text} to {new}")
        if BITS[source] == BITS[dtype]:
            return Value(value.text, dtype)
        code = "trunc" if BITS[source] > BITS[dtype] else "sext" if source[0] == "i" else "zext"
        return self.emit(dtype, f"{code} {old} {value.text} to {new}")

    def intrinsic(self, name: str, dtype: str, args: Sequence[Value], flags: str = "") -> Value:
        kind = LLVM_TYPE[dtype]
        suffix = dtype if is_float(dtype) else kind
        operands = ", ".join(f"{kind} {arg.text}" for arg in args)
        return self.emit(dtype, f"call {flags}{kind} @llvm.{name}.{suffix}({operands})")

    def cast(self, name: str, value: Value) -> Value:
        if name in BIT_CASTS:
            dtype = BIT_CASTS[name]
            return self.emit(dtype, f"bitcast {LLVM_TYPE[value.dtype]} {value.text} to {LLVM_TYPE[dtype]}")
        if value.dtype == LITERAL:
            return Value(constant(value.number, name), name, value.number)
        if not is_float(value.dtype) or is_float(name) or name == "bool":
            return self.convert(value, name)
        code = f"fpto{'s' if name[0] == 'i' else 'u'}i {LLVM_TYPE[value.dtype]} {value.text} to {LLVM_TYPE[name]}"
        return self.emit(name, f"freeze {LLVM_TYPE[name]} {self.emit(name, code).text}")

    def unary(self, name: str, value: Value) -> Value:
        if is_float(value.dtype):
            return self.intrinsic({**ROUNDINGS, "abs": "fabs"}.get(name, name), value.dtype, [value])
        if name == "sqrt":
            return self.intrinsic("sqrt", "f64", [self.convert(value, "f64")])
        if name in ("abs", "fabs") and value.dtype[0] == "i":
            kind = LLVM_TYPE[value.dtype]
            return self.emit(value.dtype, f"call {kind} @llvm.abs.{kind}({kind} {value.text}, i1 false)")
        return value

    def extreme(self, name: str, left: Value, right: Value) -> Value:
        on_float, on_int = EXTREMES[name]
        if is_float(left.dtype):
            return self.intrinsic(on_float, left.dtype, [left, right])
        return self.intrinsic(("s" if left.dtype[0] == "i" else "u") + on_int, left.dtype, [left, right])

    def classify(self, name: str, value: Value) -> Value:
        if not is_float(value.dtype):
            return Value(constant(name == "isfinite", "bool"), "bool")
        kind = LLVM_TYPE[value.dtype]
        if name == "isnan":
            return self.emit("bool", f"fcmp uno {kind} {value.text}, {constant(0.0, value.dtype)}")
        size, infinity = self.unary("fabs", value), constant(math.inf, value.dtype)
        return self.emit("bool", f"fcmp {'oeq' if name == 'isinf' else 'one'} {kind} {size.text}, {infinity}")

    def clamp(self, x: Value, low: Value, high: Value) -> Value:
        raised = self.select(self.compare("Lt", x, low), low, x)
        return self.select(self.compare("Gt", raised, high), high, raised)

    def horner(self, x: Value, coefficients: Sequence[Value]) -> Value:
        """The polynomial with these coefficients (highest power first), by fused multiply-adds."""
        total, *others = [self.convert(c, x.dtype) for c in coefficients]
        for coefficient in others:
            total = self.intrinsic("fmuladd", x.dtype, [total, x, coefficient], flags=f"{FLAGS} ")
        return total
