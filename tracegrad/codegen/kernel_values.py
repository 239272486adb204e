"""The arithmetic of kernels (`kernel`), as LLVM instructions: on int64, on floats, and on numbers that are known."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir

from tracegrad.codegen.addresses import I32, I64
from tracegrad.codegen.types import LLVM_TYPES

I1 = ir.IntType(1)
FAST = ("contract", "arcp", "nsz", "reassoc")
FOLD: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod, ast.LShift: operator.lshift, ast.RShift: operator.rshift, ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_, ast.BitXor: operator.xor, ast.Eq: operator.eq, ast.NotEq: operator.ne,
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge,
}  # fmt: skip
INTEGER = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.LShift: "shl", ast.RShift: "ashr", ast.BitAnd: "and_",
    ast.BitOr: "or_", ast.BitXor: "xor",
}  # fmt: skip
FLOAT = {ast.Add: "fadd", ast.Sub: "fsub", ast.Mult: "fmul", ast.Div: "fdiv"}
COMPARE = {ast.Eq: "==", ast.NotEq: "!=", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">="}


class Values:
    """Numbers and values, computed where the builder stands; file and line are those of the kernel, for errors."""

    def __init__(self, builder: ir.IRBuilder, filename: str) -> None:
        self.builder = builder
        self.filename = filename
        self.line = 0

    def refuse(self, node: ast.AST | str, why: str = "not in the subset of kernels") -> NotImplementedError:
        text = node if isinstance(node, str) else ast.unparse(node)
        return NotImplementedError(f"{self.filename}:{self.line}: {text}: {why}")

    def value(self, found: Any) -> ir.Value:
        """Return a number as a constant of LLVM."""
        if isinstance(found, ir.Value):
            return found
        if isinstance(found, bool):
            return ir.Constant(I1, found)
        if isinstance(found, np.floating):
            return ir.Constant(LLVM_TYPES[found.dtype.name], float(found))
        return ir.Constant(I64, int(found))

    def converted(self, value: ir.Value, kind: ir.Type) -> ir.Value:
        """Return a value as the type of a slot, a parameter or a result: integers grow, nothing else changes."""
        if value.type == kind:
            return value
        if kind == I64 and value.type in (I1, I32):
            return self.builder.zext(value, I64) if value.type == I1 else self.builder.sext(value, I64)
        raise self.refuse(str(value.type), f"where {kind} is wanted")

    def numbers(self, left: Any, right: Any) -> tuple[ir.Value, ir.Value]:
        """Return two operands as floats of one type, or as int64."""
        left, right = self.value(left), self.value(right)
        if left.type == right.type and not isinstance(left.type, ir.IntType):
            return left, right
        return self.converted(left, I64), self.converted(right, I64)

    def binary(self, node: ast.AST, op: ast.operator, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            return FOLD[type(op)](left, right)
        left, right = self.numbers(left, right)
        if left.type != I64 and type(op) in FLOAT:
            return getattr(self.builder, FLOAT[type(op)])(left, right, flags=FAST)
        if type(op) in INTEGER:
            return getattr(self.builder, INTEGER[type(op)])(left, right)
        if isinstance(op, (ast.FloorDiv, ast.Mod)):
            return self.division(isinstance(op, ast.Mod), left, right)
        raise self.refuse(node)

    def negative(self, node: ast.AST, operand: Any) -> Any:
        if isinstance(operand, ir.Value) and not isinstance(operand.type, ir.IntType):
            return self.builder.fneg(operand, flags=FAST)
        return self.binary(node, ast.Sub(), 0, operand)

    def division(self, is_remainder: bool, left: ir.Value, right: ir.Value) -> ir.Value:
        """Return the quotient rounded down, or its remainder; both are 0 for a divisor of 0."""
        builder, zero = self.builder, ir.Constant(I64, 0)
        divisor = right.constant if isinstance(right, ir.Constant) else 0
        if divisor > 0 and divisor & (divisor - 1) == 0:
            bits = ir.Constant(I64, divisor.bit_length() - 1)
            return builder.and_(left, ir.Constant(I64, divisor - 1)) if is_remainder else builder.ashr(left, bits)
        is_zero = builder.icmp_signed("==", right, zero)
        safe = right if divisor else builder.select(is_zero, ir.Constant(I64, 1), right)
        quotient = builder.sdiv(left, safe)
        rest = builder.sub(left, builder.mul(quotient, safe))
        differs = builder.icmp_signed("<", builder.xor(rest, safe), zero)
        below = builder.and_(differs, builder.icmp_signed("!=", rest, zero))
        if is_remainder:
            return builder.select(below, builder.add(rest, safe), rest)  # of 1, it is 0
        rounded = builder.select(below, builder.sub(quotient, ir.Constant(I64, 1)), quotient)
        return rounded if divisor else builder.select(is_zero, zero, rounded)

    def compare(self, node: ast.AST, op: ast.cmpop, left: Any, right: Any) -> Any:
        if isinstance(left, int) and isinstance(right, int):
            return FOLD[type(op)](left, right)
        left, right = self.numbers(left, right)
        if left.type == I64:
            return self.builder.icmp_signed(COMPARE[type(op)], left, right)
        ordered = self.builder.fcmp_unordered if isinstance(op, ast.NotEq) else self.builder.fcmp_ordered
        return ordered(COMPARE[type(op)], left, right)

    def cast(self, node: ast.Call, value: ir.Value, kind: ir.Type) -> ir.Value:
        if isinstance(value.type, ir.IntType) and isinstance(kind, ir.IntType) and kind.width < value.type.width:
            return self.builder.trunc(value, kind)
        if value.type == I64 and isinstance(value, ir.Constant) and not isinstance(kind, ir.IntType):
            return ir.Constant(kind, float(value.constant))
        return self.converted(value, kind)
