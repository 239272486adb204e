"""Functions on machine words, written as Python and translated to LLVM: what talks to Python's own objects.

The subset: every value is an int64 (truth values are 0 and 1); names, `for ... in range(n)`, `if`, `return`,
arithmetic, comparisons, `and`, `or`, `not`; calls of functions of the same module, of `load_word`, `store_word`, and of
C functions by address (`call1` to `call4`). Numba is not needed, and 25 functions take some hundredths of a second.
"""

from __future__ import annotations

import ast
import ctypes
from collections.abc import Mapping
from typing import Any

import llvmlite.binding as llvm

from tracegrad.codegen.cpu import target

BINARY: dict[type, str] = {ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.BitAnd: "and", ast.BitOr: "or"}
COMPARE: dict[type, str] = {
    ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "slt", ast.LtE: "sle", ast.Gt: "sgt", ast.GtE: "sge",
}  # fmt: skip


def load_word(address: int, index: int) -> int:
    """Read word `index` of the words that start at an address."""
    return int(ctypes.c_int64.from_address(address + 8 * index).value)


def store_word(address: int, index: int, value: int) -> None:
    """Write word `index` of the words that start at an address."""
    ctypes.c_int64.from_address(address + 8 * index).value = value


def call(function: int, *arguments: int) -> int:
    """Call a C function of words by its address, holding the GIL."""
    kind: Any = ctypes.PYFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(arguments))
    return int(kind(function)(*arguments))


call1 = call2 = call3 = call4 = call


class Translator:
    """Writes one function as LLVM assembly; locals are stack slots, which LLVM's optimiser turns into registers."""

    def __init__(self, function: ast.FunctionDef, constants: Mapping[str, Any], known: Mapping[str, int], export: bool):
        self.function = function
        self.constants = constants
        self.known = known
        self.export = export
        self.lines: list[str] = []
        self.slots: dict[str, str] = {}
        self.count = 0
        self.open = True

    def text(self) -> str:
        arguments = [a.arg for a in self.function.args.args]
        for name in arguments:
            self.line(f"store i64 %{name}, ptr {self.slot(name)}")
        self.block(self.function.body)
        if self.open:
            self.line("ret i64 0")
        params = ", ".join(f"i64 %{name}" for name in arguments)
        slots = [f"  {slot} = alloca i64" for slot in self.slots.values()]
        head = f"define {'' if self.export else 'internal '}i64 @{self.function.name}({params}) {{\nentry:"
        return "\n".join([head, *slots, *self.lines, "}"])

    def slot(self, name: str) -> str:
        return self.slots.setdefault(name, f"%{name}.slot")

    def line(self, text: str) -> None:
        self.lines.append(f"  {text}")

    def value(self, text: str) -> str:
        self.count += 1
        self.line(f"%v{self.count} = {text}")
        return f"%v{self.count}"

    def label(self, *names: str) -> list[str]:
        self.count += 1
        return [f"{name}{self.count}" for name in names]

    def start(self, label: str) -> None:
        """Begin a basic block, jumping to it when the one before has not ended."""
        if self.open:
            self.line(f"br label %{label}")
        self.lines.append(f"{label}:")
        self.open = True

    def jump(self, label: str) -> None:
        self.line(f"br label %{label}")
        self.open = False

    # --- statements ---------------------------------------------------------------------------------------------------

    def block(self, statements: list[ast.stmt], after: str = "") -> None:
        """Write statements; `after` is where `continue` goes."""
        for statement in statements:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self.line(f"store i64 {self.expression(value)}, ptr {self.slot(name)}")
                case ast.AugAssign(target=ast.Name(id=name), op=op, value=value):
                    old = self.value(f"load i64, ptr {self.slot(name)}")
                    new = self.value(f"{BINARY[type(op)]} i64 {old}, {self.expression(value)}")
                    self.line(f"store i64 {new}, ptr {self.slot(name)}")
                case ast.Expr(value=ast.Constant()):
                    pass
                case ast.Expr(value=value):
                    self.expression(value)
                case ast.Return(value=value):
                    self.line(f"ret i64 {self.expression(value) if value else 0}")
                    self.open = False
                case ast.Continue():
                    self.jump(after)
                case ast.If():
                    self.choice(statement, after)
                case ast.For(target=ast.Name(id=name), iter=ast.Call(args=[count])):
                    self.loop(name, count, statement.body)
                case _:
                    raise NotImplementedError(ast.unparse(statement))

    def choice(self, statement: ast.If, after: str) -> None:
        then, other, end = self.label("then", "other", "end")
        self.branch(statement.test, then, other)
        self.start(then)
        self.block(statement.body, after)
        if self.open:
            self.jump(end)
        self.start(other)
        self.block(statement.orelse, after)
        self.start(end)

    def loop(self, name: str, count: ast.expr, body: list[ast.stmt]) -> None:
        head, inner, step, end = self.label("head", "inner", "step", "end")
        limit = self.expression(count)
        slot = self.slot(name)
        self.line(f"store i64 0, ptr {slot}")
        self.start(head)
        at = self.value(f"load i64, ptr {slot}")
        inside = self.value(f"icmp slt i64 {at}, {limit}")
        self.line(f"br i1 {inside}, label %{inner}, label %{end}")
        self.open = False
        self.start(inner)
        self.block(body, step)
        self.start(step)
        old = self.value(f"load i64, ptr {slot}")
        self.line(f"store i64 {self.value(f'add i64 {old}, 1')}, ptr {slot}")
        self.jump(head)
        self.start(end)

    def branch(self, test: ast.expr, yes: str, no: str) -> None:
        """Jump to `yes` or `no`; what a condition does not need is not computed."""
        match test:
            case ast.UnaryOp(op=ast.Not(), operand=inner):
                self.branch(inner, no, yes)
            case ast.BoolOp(op=op, values=[*first, last]):
                for part in first:
                    (more,) = self.label("more")
                    self.branch(part, *((more, no) if isinstance(op, ast.And) else (yes, more)))
                    self.start(more)
                self.branch(last, yes, no)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                pair = f"{self.expression(left)}, {self.expression(right)}"
                found = self.value(f"icmp {COMPARE[type(op)]} i64 {pair}")
                self.line(f"br i1 {found}, label %{yes}, label %{no}")
            case _:
                found = self.value(f"icmp ne i64 {self.expression(test)}, 0")
                self.line(f"br i1 {found}, label %{yes}, label %{no}")
        self.open = False

    # --- expressions --------------------------------------------------------------------------------------------------

    def expression(self, node: ast.expr) -> str:
        match node:
            case ast.Constant(value=int() as number):
                return str(int(number))
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as number)):
                return str(-number)
            case ast.Name(id=name) if name in self.slots:
                return self.value(f"load i64, ptr {self.slots[name]}")
            case ast.Name(id=name) if isinstance(self.constants.get(name), int):
                return str(self.constants[name])
            case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
                a, b = self.expression(left), self.expression(right)
                return self.value(f"{BINARY[type(op)]} i64 {a}, {b}")
            case ast.IfExp(test=test, body=body, orelse=orelse):
                return self.pick(test, body, orelse)
            case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
                return self.pick(node, ast.Constant(1), ast.Constant(0))
            case ast.Call(func=ast.Name(id=name), args=args):
                return self.call(name, [self.expression(a) for a in args])
        raise NotImplementedError(ast.unparse(node))

    def pick(self, test: ast.expr, body: ast.expr, orelse: ast.expr) -> str:
        then, other, end = self.label("then", "other", "end")
        slot = self.slot(f"picked{self.count}")
        self.branch(test, then, other)
        for label, value in ((then, body), (other, orelse)):
            self.start(label)
            self.line(f"store i64 {self.expression(value)}, ptr {slot}")
            self.jump(end)
        self.start(end)
        return self.value(f"load i64, ptr {slot}")

    def call(self, name: str, args: list[str]) -> str:
        match name, args:
            case "load_word", [address, index]:
                return self.value(f"load i64, ptr {self.place(address, index)}")
            case "store_word", [address, index, value]:
                self.line(f"store i64 {value}, ptr {self.place(address, index)}")
                return "0"
            case ("call1" | "call2" | "call3" | "call4"), [function, *rest]:
                return self.applied(self.value(f"inttoptr i64 {function} to ptr"), rest)
        if self.known.get(name) != len(args):
            raise NotImplementedError(f"{name} of {len(args)} arguments")
        return self.applied(f"@{name}", args)

    def applied(self, function: str, args: list[str]) -> str:
        return self.value(f"call i64 {function}({', '.join(f'i64 {a}' for a in args)})")

    def place(self, address: str, index: str) -> str:
        pointer = self.value(f"inttoptr i64 {address} to ptr")
        return self.value(f"getelementptr i64, ptr {pointer}, i64 {index}")


def translate(source: str, constants: Mapping[str, Any], exports: tuple[str, ...]) -> str:
    """Write all functions of a module's source as LLVM assembly; `constants` are its global names."""
    functions = [s for s in ast.parse(source).body if isinstance(s, ast.FunctionDef)]
    known = {f.name: len(f.args.args) for f in functions}
    return "\n".join(Translator(f, constants, known, f.name in exports).text() for f in functions)


def compile_words(text: str) -> bytes:
    """Compile assembly to object code that runs on the target CPU, with llvmlite alone."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = llvm.get_process_triple()
    machine = llvm.Target.from_triple(triple).create_target_machine(
        cpu=target().name, features=target().flags, opt=2, codemodel="jitdefault", jit=True
    )
    module = llvm.parse_assembly(text)
    module.triple = triple
    module.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=1)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    module.verify()
    return bytes(machine.emit_object(module))
