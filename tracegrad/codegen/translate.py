"""From the Python subset of scalar code (an `ast`) to straight-line LLVM IR text.

The subset: assignments to local names, `for _ in range(constant)` (unrolled), `return` of a value or a tuple,
arithmetic, comparisons, `&` `|` `^` `~` `<<` `>>`, `and`/`or`/`not`, conditional expressions (a select: both sides are
evaluated), calls of the built-in names of `instructions` and of the functions of `maths`. There are no branches and no
calls of libraries, so a loop around the result vectorises. A function that returns a tuple is expanded in place; any
other becomes an LLVM function, which LLVM inlines.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

from tracegrad.codegen import maths_source
from tracegrad.codegen.instructions import (
    BIT_CASTS,
    BITS,
    EXTREMES,
    FOLD,
    HALVES,
    LITERAL,
    LLVM_TYPE,
    ROUNDINGS,
    Instructions,
    Value,
    is_float,
)

FUNCTION_OF = {"FloorDiv": "floor_divide", "Mod": "mod"}
MATH_CONSTANTS = {name: getattr(math, name) for name in ("pi", "e", "tau", "inf", "nan")}


class Function(NamedTuple):
    """A helper function of `maths` for given operand dtypes, as LLVM text."""

    symbol: str
    dtype: str
    text: str
    needs: tuple[tuple[str, tuple[str, ...]], ...]


class Translator(Instructions):
    """Walks the syntax of one expression or one function. `prefix` starts the names of temporaries; `names` are
    the operands."""

    def __init__(self, prefix: str, names: dict[str, Value], hint: str) -> None:
        super().__init__(prefix, hint)
        self.names = names
        self.needs: dict[tuple[str, tuple[str, ...]], None] = {}
        self.handlers: dict[type[ast.AST], Callable[[Any], Any]] = {
            ast.BinOp: self.on_binop,
            ast.Name: self.on_name,
            ast.Constant: self.on_constant,
            ast.Call: self.on_call,
            ast.IfExp: self.on_ifexp,
            ast.Compare: self.on_compare,
            ast.UnaryOp: self.on_unaryop,
            ast.BoolOp: self.on_boolop,
            ast.Attribute: self.on_attribute,
            ast.Subscript: self.on_subscript,
        }

    # -- statements ------------------------------------------------------------------------------------------------

    def body(self, statements: Sequence[ast.stmt]) -> Any:
        """Translate statements; the value (or tuple of values) of the `return` among them, else None."""
        for statement in statements:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self.names[name] = self.visit(value)
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                    self.names[name] = self.visit(value)
                case ast.Assign(targets=[ast.Tuple(elts=targets)], value=value):
                    values = [self.visit(v) for v in value.elts] if isinstance(value, ast.Tuple) else self.visit(value)
                    self.names.update(zip([t.id for t in targets if isinstance(t, ast.Name)], values, strict=True))
                case ast.For(target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=[stop])):
                    for i in range(self.visit(stop).number):
                        self.names[name] = Value("", LITERAL, i)
                        self.body(statement.body)
                case ast.Return(value=ast.Tuple(elts=elements)):
                    return tuple(self.visit(element) for element in elements)
                case ast.Return(value=ast.expr() as value):
                    return self.visit(value)
                case ast.Expr(value=ast.Constant()):
                    continue
                case _:
                    raise TypeError(f"scalar code: unsupported statement {ast.unparse(statement)!r}")
        return None

    # -- expressions -----------------------------------------------------------------------------------------------

    def visit(self, node: ast.AST) -> Any:
        handler = self.handlers.get(type(node))
        if handler is None:
            raise TypeError(f"scalar code: unsupported expression {ast.unparse(node)!r}")
        return handler(node)

    def on_name(self, node: ast.Name) -> Value:
        value = self.names.get(node.id)
        return Value("", LITERAL, maths_source.number(node.id)) if value is None else value

    def on_constant(self, node: ast.Constant) -> Value:
        return Value("", LITERAL, node.value)

    def on_attribute(self, node: ast.Attribute) -> Value:
        return Value("", LITERAL, MATH_CONSTANTS[node.attr])

    def on_subscript(self, node: ast.Subscript) -> Value:
        value: Value = self.visit(node.value)[self.visit(node.slice).number]
        return value

    def on_binop(self, node: ast.BinOp) -> Value:
        op, left, right = type(node.op).__name__, self.visit(node.left), self.visit(node.right)
        if left.dtype == right.dtype == LITERAL:
            return Value("", LITERAL, FOLD[op](left.number, right.number))
        if op == "Pow":
            return self.power(left, right)
        if op in FUNCTION_OF:
            return Value(*self.call(FUNCTION_OF[op], [left, right]))
        return self.binary(op, left, right)

    def on_unaryop(self, node: ast.UnaryOp) -> Value:
        value = self.visit(node.operand)
        match node.op:
            case ast.Not():
                return self.emit("bool", f"xor i1 {self.convert(value, 'bool').text}, true")
            case ast.USub() if value.dtype == LITERAL:
                return Value("", LITERAL, -value.number)
            case ast.USub():
                return self.negate(value)
            case ast.Invert():
                return self.binary("BitXor", value, Value("", LITERAL, value.dtype == "bool" or -1))
        return Value(*value)

    def on_boolop(self, node: ast.BoolOp) -> Value:
        code = "and" if isinstance(node.op, ast.And) else "or"
        first, *others = [self.convert(self.visit(value), "bool") for value in node.values]
        for other in others:
            first = self.emit("bool", f"{code} i1 {first.text}, {other.text}")
        return first

    def on_compare(self, node: ast.Compare) -> Value:
        left = self.visit(node.left)
        result: Value | None = None
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            right = self.visit(comparator)
            test = self.compare(type(op).__name__, left, right)
            result = test if result is None else self.emit("bool", f"and i1 {result.text}, {test.text}")
            left = right
        assert result is not None
        return result

    def on_ifexp(self, node: ast.IfExp) -> Value:
        test = self.visit(node.test)
        if test.dtype == LITERAL:
            return Value(*self.visit(node.body if test.number else node.orelse))
        return self.select(test, self.visit(node.body), self.visit(node.orelse))

    def on_call(self, node: ast.Call) -> Any:
        match node.func:
            case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="math"), attr=name):
                return self.call(name, [self.visit(arg) for arg in node.args])
        raise TypeError(f"scalar code: unsupported call {ast.unparse(node)!r}")

    def power(self, left: Value, right: Value) -> Value:
        """`x ** y`: small constant exponents by multiplication."""
        exponent = right.number if right.dtype == LITERAL else None
        if exponent in (1, 2, 3, 4):
            square = self.binary("Mult", left, left) if exponent > 1 else left
            return square if exponent < 3 else self.binary("Mult", square, left if exponent == 3 else square)
        if exponent == -1 and is_float(left.dtype):
            return self.binary("Div", Value("", LITERAL, 1.0), left)
        return Value(*self.call("pow", [left, right]))

    # -- conversions -----------------------------------------------------------------------------------------------

    def convert(self, value: Value, dtype: str) -> Value:
        """NumPy's `astype`; what is stored in half precision goes through f32."""
        source = value.dtype
        if source in (LITERAL, dtype) or not (source in HALVES or dtype in HALVES):
            return super().convert(value, dtype)
        if source in HALVES:
            return self.convert(self.call_function(f"f32_of_{source}", [Value(value.text, "u16")]), dtype)
        wide = "f64" if source == "f64" and dtype == "f16" else "f32"
        found = self.call_function(f"{dtype}_of_{wide}", [self.convert(value, wide)])
        return Value(found.text, dtype)

    # -- calls -----------------------------------------------------------------------------------------------------

    def call(self, name: str, args: list[Any]) -> Any:
        if name in LLVM_TYPE or name in BIT_CASTS:
            return self.cast(name, args[0])
        if name in ROUNDINGS or name in ("sqrt", "fabs", "abs"):
            return self.unary(name, self.strong(args[0]))
        if name in EXTREMES:
            return self.extreme(name, *self.unify(args))
        match name:
            case "where":
                return self.select(*args)
            case "isnan" | "isinf" | "isfinite":
                return self.classify(name, self.strong(args[0]))
            case "copysign" | "fma":
                args = self.unify(args)
                return self.intrinsic(name, args[0].dtype, args)
            case "clamp":
                return self.clamp(*self.unify(args))
            case "horner":
                return self.horner(args[0], args[1:])
            case "bit_width":
                return Value("", LITERAL, BITS[args[0].dtype])
            case "floor_divide" | "mod":
                left, right = self.unify(args)
                if not is_float(left.dtype):
                    return self.integer_division(name, left, right, by_constant=right.number not in (None, 0, -1))
        return self.call_function(name, args)

    def call_function(self, name: str, args: list[Any]) -> Any:
        if name in maths_source.functions():
            operands = [self.strong(arg, args[0].dtype if args[0].dtype != LITERAL else None) for arg in args]
        else:
            operands = self.unify(args)
            if not is_float(operands[0].dtype) and not maths_source.has(name, operands[0].dtype):
                operands = [self.convert(operand, "f64") for operand in operands]
        definition = maths_source.find(name, operands[0].dtype)
        if maths_source.returns_tuple(definition):
            return self.inline(definition, operands)
        dtypes = tuple(operand.dtype for operand in operands)
        callee = function(definition.name, dtypes)
        self.needs[definition.name, dtypes] = None
        arguments = ", ".join(f"{LLVM_TYPE[operand.dtype]} {operand.text}" for operand in operands)
        return self.emit(callee.dtype, f"call {LLVM_TYPE[callee.dtype]} @{callee.symbol}({arguments})")

    def inline(self, definition: ast.FunctionDef, operands: Sequence[Value]) -> Any:
        outer = self.names
        self.names = dict(zip([arg.arg for arg in definition.args.args], operands, strict=True))
        result = self.body(definition.body)
        self.names = outer
        return result


@cache
def function(name: str, dtypes: tuple[str, ...]) -> Function:
    """The function `name` of `maths` as an internal LLVM function on these operand dtypes."""
    definition = maths_source.functions()[name]
    params = [arg.arg for arg in definition.args.args]
    names = {param: Value(f"%{param}", dtype) for param, dtype in zip(params, dtypes, strict=True)}
    translator = Translator("t", names, dtypes[0])
    result = translator.strong(translator.body(definition.body))
    symbol = ".".join(("tg", name, *dtypes))
    signature = ", ".join(f"{LLVM_TYPE[dtype]} %{param}" for param, dtype in zip(params, dtypes, strict=True))
    kind = LLVM_TYPE[result.dtype]
    lines = [
        f"define internal {kind} @{symbol}({signature}) alwaysinline nounwind willreturn memory(none) {{",
        *translator.lines,
        f"  ret {kind} {result.text}",
        "}",
    ]
    return Function(symbol, result.dtype, "\n".join(lines) + "\n", tuple(translator.needs))
