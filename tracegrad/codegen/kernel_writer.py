"""Kernels (`kernel`) -> LLVM assembly: their statements, conditions and calls."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
from llvmlite import ir

from tracegrad.codegen import types
from tracegrad.codegen.addresses import I64, VOID, declare
from tracegrad.codegen.kernel import Kernel, kernel
from tracegrad.codegen.kernel_values import I1, Values
from tracegrad.codegen.types import Signature

RESULT_TYPES = {"int": I64, "bool": I1, "None": VOID}
"""What annotations say; a result that is annotated otherwise has the type of what is returned."""

kernel_of = cache(kernel)  # a plain function that a kernel calls is a kernel, too


def write(entries: dict[str, tuple[Kernel, Signature]], name: str) -> str:
    """Return the assembly of a module that exports each entry under its symbol."""
    module = KernelModule(name)
    for symbol, (entry, signature) in entries.items():
        arguments = [t.llvm for t in signature.arguments]
        result = signature.result.llvm
        function = declare(module.module, symbol, result, arguments)  # a kernel may have asked for its address
        builder = ir.IRBuilder(function.append_basic_block())
        value = builder.call(module.function(entry, arguments), function.args)
        if result == VOID:
            builder.ret_void()
        else:
            builder.ret(value)
    return str(module.module)


class KernelModule:
    """A module under construction, with the kernels that are in it by their argument types."""

    def __init__(self, name: str) -> None:
        self.module = ir.Module(name)
        self.written: dict[tuple[Kernel, tuple[ir.Type, ...]], ir.Function] = {}

    def function(self, target: Kernel, given: Sequence[ir.Type]) -> ir.Function:
        """Return the function of a kernel for arguments of these types, written now if it is new."""
        arguments = tuple(I64 if whole else t for whole, t in zip(target.integers, given, strict=True))
        key = target, arguments
        if key not in self.written:
            result = self.result_type(target, arguments)
            name = f"{target.function.__name__}.{len(self.written)}"
            function = ir.Function(self.module, ir.FunctionType(result, arguments), name)
            function.linkage = "internal"
            function.attributes.add("nounwind")
            self.written[key] = function
            Writer(self, target, function).run()
        return self.written[key]

    def result_type(self, target: Kernel, arguments: tuple[ir.Type, ...]) -> ir.Type:
        annotation = str(target.function.__annotations__.get("return", ""))
        if annotation in RESULT_TYPES:
            return RESULT_TYPES[annotation]
        trial = KernelModule("trial")  # the type of what it returns is not written down: see what that is
        function = ir.Function(trial.module, ir.FunctionType(VOID, arguments), "trial")
        writer = Writer(trial, target, function)
        writer.run()
        return writer.returned


class Writer(Values):
    """Writes one kernel; variables are stack slots, which LLVM's optimiser turns into registers."""

    def __init__(self, module: KernelModule, target: Kernel, function: ir.Function) -> None:
        self.entry = function.append_basic_block("entry")
        super().__init__(ir.IRBuilder(function.append_basic_block("start")), target.function.__code__.co_filename)
        self.module = module
        self.target = target
        self.outside = target.outside()
        self.slots: dict[str, ir.AllocaInstr] = {}
        self.loops: list[tuple[ir.Block, ir.Block]] = []  # where `continue` and `break` go
        self.result = function.ftype.return_type
        self.returned: ir.Type = VOID

    def run(self) -> None:
        first = self.builder.block
        for name, argument in zip(self.target.parameters, first.function.args, strict=True):
            self.assign(name, argument)
        self.block(self.target.syntax().body)
        if not self.builder.block.is_terminated:
            if self.result == VOID:
                self.builder.ret_void()
            else:
                self.builder.unreachable()
        ir.IRBuilder(self.entry).branch(first)

    # --- statements ---------------------------------------------------------------------------------------------------

    def block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            if self.builder.block.is_terminated:
                return
            self.line = statement.lineno
            self.statement(statement)

    def statement(self, statement: ast.stmt) -> None:
        match statement:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    self.assign_to(target, value)
            case ast.AugAssign(target=ast.Name(id=name) as target, op=op, value=value):
                old = self.expression(ast.Name(id=name, ctx=ast.Load()))
                self.assign(name, self.binary(target, op, old, self.expression(value)))
            case ast.Expr(value=ast.Constant()):
                pass
            case ast.Expr(value=ast.Call() as value):
                self.call(value)
            case ast.Return(value=value):
                self.give(value)
            case ast.Continue():
                self.builder.branch(self.loops[-1][0])
            case ast.Break():
                self.builder.branch(self.loops[-1][1])
            case ast.If():
                self.choice(statement)
            case ast.While(test=test, body=body):
                self.repeat(test, body)
            case ast.For(target=ast.Name(id=name), iter=ast.Call(func=ast.Name(id="range"), args=args), body=body):
                self.count(name, args, body)
            case _:
                raise self.refuse(statement)

    def assign_to(self, target: ast.expr, value: ast.expr) -> None:
        match target, value:
            case ast.Name(id=name), _:
                self.assign(name, self.expression(value))
            case ast.Tuple(elts=targets), ast.Tuple(elts=values) if len(targets) == len(values):
                results = [self.value(self.expression(v)) for v in values]
                for place, result in zip(targets, results, strict=True):
                    if not isinstance(place, ast.Name):
                        raise self.refuse(place)
                    self.assign(place.id, result)
            case _:
                raise self.refuse(target)

    def assign(self, name: str, value: Any) -> None:
        value = self.value(value)
        if name not in self.slots:
            self.slots[name] = self.slot(value.type, name)
        self.builder.store(self.converted(value, self.slots[name].allocated_type), self.slots[name])

    def slot(self, kind: ir.Type, name: str = "") -> ir.AllocaInstr:
        return ir.IRBuilder(self.entry).alloca(kind, name=name)

    def give(self, value: ast.expr | None) -> None:
        if value is None:
            self.builder.ret_void()
            return
        result = self.value(self.expression(value))
        self.returned = result.type
        if self.result == VOID:
            self.builder.ret_void()
        else:
            self.builder.ret(self.converted(result, self.result))

    def choice(self, statement: ast.If) -> None:
        known = self.known(statement.test)
        if known is not None:
            self.block(statement.body if known else statement.orelse)
            return
        then, other, end = (self.builder.append_basic_block(name) for name in ("then", "else", "end"))
        self.branch(statement.test, then, other)
        for start, statements in ((then, statement.body), (other, statement.orelse)):
            self.builder.position_at_end(start)
            self.block(statements)
            if not self.builder.block.is_terminated:
                self.builder.branch(end)
        self.builder.position_at_end(end)

    def repeat(self, test: ast.expr, body: list[ast.stmt]) -> None:
        head, inner, end = (self.builder.append_basic_block(name) for name in ("while", "body", "end"))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        self.branch(test, inner, end)
        self.round(inner, body, head, end)
        self.builder.position_at_end(end)

    def round(self, start: ir.Block, body: list[ast.stmt], again: ir.Block, end: ir.Block) -> None:
        self.builder.position_at_end(start)
        self.loops.append((again, end))
        self.block(body)
        self.loops.pop()
        if not self.builder.block.is_terminated:
            self.builder.branch(again)

    def count(self, name: str, args: list[ast.expr], body: list[ast.stmt]) -> None:
        """Write a `for` over a range; a step that is not known is positive."""
        values = [self.expression(a) for a in args]
        start, stop, step = [0, *values, 1] if len(values) == 1 else [*values, 1][:3]
        falls = isinstance(step, int) and step < 0
        step = self.converted(self.value(step), I64)
        counter = self.slot(I64, f"{name}.count")
        stop = self.converted(self.value(stop), I64)
        self.builder.store(self.converted(self.value(start), I64), counter)
        head, inner, more, end = (self.builder.append_basic_block(n) for n in ("for", "body", "next", "end"))
        self.builder.branch(head)
        self.builder.position_at_end(head)
        at = self.builder.load(counter)
        self.builder.cbranch(self.builder.icmp_signed(">" if falls else "<", at, stop), inner, end)
        self.builder.position_at_end(inner)
        self.assign(name, at)
        self.round(inner, body, more, end)
        self.builder.position_at_end(more)
        self.builder.store(self.builder.add(at, step, flags=("nsw",)), counter)
        self.builder.branch(head)
        self.builder.position_at_end(end)

    # --- conditions ---------------------------------------------------------------------------------------------------

    def known(self, test: ast.expr) -> bool | None:
        """Return what a condition is if only constants decide it, else None."""
        match test:
            case ast.UnaryOp(op=ast.Not(), operand=inner):
                found = self.known(inner)
                return None if found is None else not found
            case ast.BoolOp(op=op, values=values):
                parts = [self.known(v) for v in values]
                return None if None in parts else (all if isinstance(op, ast.And) else any)(parts)
        names = {n.id for n in ast.walk(test) if isinstance(n, ast.Name)}
        if names & self.slots.keys() or any(isinstance(n, ast.Call) for n in ast.walk(test)):
            return None
        found = self.expression(test)
        return None if isinstance(found, ir.Value) else bool(found)

    def branch(self, test: ast.expr, yes: ir.Block, no: ir.Block) -> None:
        """Jump to `yes` or `no`; what a condition does not need is not computed."""
        match test:
            case ast.UnaryOp(op=ast.Not(), operand=inner):
                self.branch(inner, no, yes)
            case ast.BoolOp(op=op, values=[*first, last]):
                for part in first:
                    more = self.builder.append_basic_block("more")
                    self.branch(part, *((more, no) if isinstance(op, ast.And) else (yes, more)))
                    self.builder.position_at_end(more)
                self.branch(last, yes, no)
            case _:
                self.builder.cbranch(self.truth(self.expression(test)), yes, no)

    def truth(self, found: Any) -> ir.Value:
        value = self.value(found)
        return value if value.type == I1 else self.builder.icmp_signed("!=", value, ir.Constant(value.type, 0))

    # --- expressions --------------------------------------------------------------------------------------------------

    def expression(self, node: ast.expr) -> Any:
        """Return a value, or a number of Python's or NumPy's where it is known now."""
        match node:
            case ast.Constant(value=bool() | int() as number):
                return number
            case ast.Name(id=name) if name in self.slots:
                return self.builder.load(self.slots[name])
            case ast.Name() | ast.Attribute():
                return self.constant(node)
            case ast.BinOp(left=left, op=op, right=right):
                return self.binary(node, op, self.expression(left), self.expression(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self.negative(node, self.expression(operand))
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return self.compare(node, op, self.expression(left), self.expression(right))
            case ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
                return self.pick(node, ast.Constant(True), ast.Constant(False))
            case ast.IfExp(test=test, body=body, orelse=orelse):
                known = self.known(test)
                return self.pick(test, body, orelse) if known is None else self.expression(body if known else orelse)
            case ast.Call():
                return self.call(node)
        raise self.refuse(node)

    def outer(self, node: ast.expr) -> Any:
        """Return what a free name, or an attribute of a module, is."""
        match node:
            case ast.Name(id=name) if name in self.outside:
                found = self.outside[name]
                return kernel_of(found) if isinstance(found, FunctionType) else found
            case ast.Attribute(value=ast.Name(id=name), attr=attribute):
                if isinstance(self.outside.get(name), ModuleType):
                    return getattr(self.outside[name], attribute)
        raise self.refuse(node, "unknown")

    def constant(self, node: ast.expr) -> Any:
        found = self.outer(node)
        if isinstance(found, (int, np.number)):
            return found
        raise self.refuse(node, "no number")

    def pick(self, test: ast.expr, body: ast.expr, orelse: ast.expr) -> ir.Value:
        """Return one of two values, and compute that one only."""
        then, other, end = (self.builder.append_basic_block(name) for name in ("then", "else", "end"))
        self.branch(test, then, other)
        found = []
        for start, part in ((then, body), (other, orelse)):
            self.builder.position_at_end(start)
            found.append((self.value(self.expression(part)), self.builder.block))
        kind = found[0][0].type if found[0][0].type == found[1][0].type else I64
        incoming = []
        for value, block in found:
            self.builder.position_at_end(block)
            incoming.append((self.converted(value, kind), block))
            self.builder.branch(end)
        self.builder.position_at_end(end)
        result = self.builder.phi(kind)
        for value, block in incoming:
            result.add_incoming(value, block)
        return result

    # --- calls --------------------------------------------------------------------------------------------------------

    def call(self, node: ast.Call) -> Any:
        target = self.outer(node.func)
        arguments = [self.value(self.expression(a)) for a in node.args]
        if isinstance(target, Kernel):
            function = self.module.function(target, [a.type for a in arguments])
            wanted = function.ftype.args
            return self.builder.call(function, [self.converted(a, t) for a, t in zip(arguments, wanted, strict=True)])
        if isinstance(target, types.Type):
            return self.cast(node, arguments[0], target.llvm)
        wanted = [t.llvm for t in target.signature_of(len(arguments)).arguments]
        return target.write(self.builder, *[self.converted(a, t) for a, t in zip(arguments, wanted, strict=True)])
