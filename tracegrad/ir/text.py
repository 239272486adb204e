"""Graphs as text, a subset of Python, and back.

    def model_adjoint(w: f32[8], x: f32[8]) -> (f32, f32[8]):
        a: f32[8] = mul(w, x)
        b: f32[8] = tanh(a)
        return reduce_sum(b, axes=(0,)), b

A literal is written bare when it has the dtype of the last array operand beside it, else with its dtype: `f32(1.0)`.
"""

from __future__ import annotations

import ast
import keyword
import math
import re
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import numpy as np

from tracegrad.errors import GraphError
from tracegrad.ir.aval import DTYPES, NAMES, Aval, Avals, TapeAval
from tracegrad.ir.build import Builder
from tracegrad.ir.graph import Graph, Literal, Node, Operand
from tracegrad.ir.primitive import PRIMITIVES

RESERVED = frozenset((*keyword.kwlist, "bf16", "inf", "nan", "float"))


def letters() -> Iterator[str]:
    """Yield a, b, ..., z, aa, ab, ... without the reserved words."""
    for n in count():
        name = ""
        while True:
            n, digit = divmod(n, 26)
            name = chr(97 + digit) + name
            if n == 0:
                break
            n -= 1
        if name not in RESERVED:
            yield name


def show_param(value: Any, graphs: Mapping[Graph, str]) -> str:
    """Write a static parameter; a graph is written as the name of its own definition."""
    match value:
        case np.dtype():
            return NAMES[value]
        case tuple():
            inner = ", ".join(show_param(v, graphs) for v in value)
            return f"({inner},)" if len(value) == 1 else f"({inner})"
        case float() if not math.isfinite(value):
            return f"float('{value}')"
        case Graph():
            return graphs[value]
    return repr(value)


def show_number(value: bool | int | float, dtype: np.dtype[Any]) -> str:
    """Write a number with the digits that its dtype needs."""
    if dtype != np.float32 or math.isnan(value):
        return repr(value)
    short = str(np.float32(value))
    return short if np.float32(float(short)) == value else repr(value)


def show_literal(literal: Literal, beside: np.dtype[Any] | None) -> str:
    text = show_number(literal.value, literal.dtype)
    return text if beside is not None and literal.dtype == beside else f"{NAMES[literal.dtype]}({text})"


def last_dtype(operands: tuple[Operand, ...]) -> np.dtype[Any] | None:
    dtypes = [o.dtype for o in operands if isinstance(o, Node)]
    return dtypes[-1] if dtypes else None


def assign_names(graph: Graph) -> dict[Node, str]:
    """Give every node a short name; inputs keep their own."""
    names: dict[Node, str] = {}
    taken: set[str] = {*PRIMITIVES, *DTYPES, *RESERVED}
    fresh = letters()
    for node in graph.inputs:
        base = re.sub(r"\W+", "_", graph.names.get(node, "")).strip("_")
        if not base or base[0].isdigit():
            base = f"x{base}" if base else next(n for n in fresh if n not in taken)
        name = base if base not in taken else next(f"{base}_{n}" for n in count(1) if f"{base}_{n}" not in taken)
        names[node] = name
        taken.add(name)
    for node in graph.nodes:
        names[node] = next(n for n in fresh if n not in taken)
    return names


def nested_graphs(graph: Graph) -> dict[Graph, str]:
    """Give a name to every graph that a parameter of a node holds."""
    found: dict[Graph, str] = {}
    for node in graph.nodes:
        for _, value in sorted(node.params.items()):
            for inner in value if isinstance(value, tuple) else (value,):
                if isinstance(inner, Graph) and inner not in found:
                    base = inner.name if inner.name.isidentifier() else "body"
                    taken = set(found.values())
                    found[inner] = base if base not in taken else next(
                        f"{base}_{n}" for n in count(1) if f"{base}_{n}" not in taken
                    )  # fmt: skip
    return found


def show_node(node: Node, names: Mapping[Node, str], graphs: Mapping[Graph, str]) -> str:
    """Write one application, for instance `mul(2.0, a)`."""
    beside = last_dtype(node.operands)
    parts = [names[o] if isinstance(o, Node) else show_literal(o, beside) for o in node.operands]
    parts += [f"{key}={show_param(value, graphs)}" for key, value in sorted(node.params.items())]
    return f"{node.prim.name}({', '.join(parts)})"


def show(graph: Graph, *, lines: bool = False, name: str = "") -> str:
    """Write `graph`; with `lines`, each node carries the user's file and line as a comment.

    Graphs that control flow runs are functions inside this one.
    """
    graphs = nested_graphs(graph)
    names = assign_names(graph)
    args = ", ".join(f"{names[n]}: {n.aval}" for n in graph.inputs)
    kinds = ", ".join(str(o.aval) for o in graph.outputs)
    result = kinds if len(graph.outputs) == 1 else f"({kinds})"
    text = [f"def {name or graph.name}({args}) -> {result}:"]
    for inner, inner_name in graphs.items():
        text += [f"    {line}" for line in show(inner, lines=lines, name=inner_name).split("\n")]
    for node in graph.nodes:
        line = f"    {names[node]}: {node.aval} = {show_node(node, names, graphs)}"
        text.append(f"{line}  # {node.where}" if lines and node.where else line)
    outs = [names[o] if isinstance(o, Node) else show_literal(o, None) for o in graph.outputs]
    text.append(f"    return {', '.join(outs)}" if outs else "    return ()")
    return "\n".join(text)


Graph.__str__ = show  # type: ignore[assignment]


def parse(text: str) -> Graph:
    """Read the text of a graph; every annotation is checked against the shape rules.

    >>> print(parse("def f(x: f32[3]) -> f32[3]:\\n    return tanh(x)"))
    def f(x: f32[3]) -> f32[3]:
        a: f32[3] = tanh(x)
        return a
    """
    try:
        module = ast.parse(text)
    except SyntaxError as error:
        raise GraphError(f"line {error.lineno}: {error.msg}") from None
    if len(module.body) != 1 or not isinstance(module.body[0], ast.FunctionDef):
        raise GraphError("line 1: the text of a graph is one function definition")
    return _Reader(module.body[0]).graph()


class _Reader:
    """Turns the AST of one function into a graph."""

    def __init__(self, function: ast.FunctionDef):
        self.function = function
        self.builder = Builder(function.name)
        self.values: dict[str, Operand] = {}
        self.graphs: dict[str, Graph] = {}

    def graph(self) -> Graph:
        for arg in self.function.args.args:
            if arg.annotation is None:
                raise GraphError(f"line {arg.lineno}: {arg.arg} has no type")
            self.values[arg.arg] = self.builder.input(self.aval(arg.annotation), arg.arg)
        for statement in self.function.body[:-1]:
            self.statement(statement)
        last = self.function.body[-1]
        if not isinstance(last, ast.Return) or last.value is None:
            raise GraphError(f"line {last.lineno}: the last statement must return")
        parts = last.value.elts if isinstance(last.value, ast.Tuple) else [last.value]
        outputs = [self.operand(part, None) for part in parts]
        if self.function.returns is not None:
            self.check_outputs(outputs)
        return self.builder.finish(outputs)

    def check_outputs(self, outputs: list[Operand]) -> None:
        node = self.function.returns
        assert node is not None
        declared = [self.aval(e) for e in (node.elts if isinstance(node, ast.Tuple) else [node])]
        found = [o.aval for o in outputs]
        if declared != found:
            shown = [", ".join(map(str, avals)) for avals in (declared, found)]
            raise GraphError(f"line {node.lineno}: declared to return {shown[0]} but returns {shown[1]}")

    def statement(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.FunctionDef):
            self.graphs[statement.name] = _Reader(statement).graph()
            return
        if (
            not isinstance(statement, ast.AnnAssign)
            or not isinstance(statement.target, ast.Name)
            or not statement.value
        ):
            raise GraphError(f"line {statement.lineno}: expected `name: type = primitive(...)`")
        value = self.operand(statement.value, None)
        declared = self.aval(statement.annotation)
        if value.aval != declared:
            call = statement.value.func if isinstance(statement.value, ast.Call) else statement.value
            source = ast.unparse(call)
            name = statement.target.id
            raise GraphError(f"line {statement.lineno}: {name} is declared {declared} but {source} gives {value.aval}")
        self.values[statement.target.id] = value

    def aval(self, node: ast.expr) -> Aval:
        if isinstance(node, ast.Tuple):
            return Avals.of(self.aval(e) for e in node.elts)
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "tape":
            return TapeAval.of(self.aval(node.slice))
        text = ast.unparse(node).strip("()")
        match = re.fullmatch(r"(\w+)(?:\[\(?([\d, ]*)\)?\])?", text)
        if match is None or match[1] not in DTYPES:
            raise GraphError(f"line {node.lineno}: {text} is not a type")
        sizes = [int(part) for part in (match[2] or "").split(",") if part.strip()]
        return Aval(tuple(sizes), DTYPES[match[1]])

    def operand(self, node: ast.expr, beside: np.dtype[Any] | None) -> Operand:
        match node:
            case ast.Name(id=name) if name in self.values:
                return self.values[name]
            case ast.Name(id="inf" | "nan" as name):
                return self.literal(node, float(name), beside)
            case ast.Constant(value=bool() | int() | float() as value):
                return self.literal(node, value, beside)
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                positive = self.operand(inner, beside)
                if isinstance(positive, Literal):
                    return Literal(-positive.value, positive.dtype)
            case ast.Call(func=ast.Name(id=name), args=[only]) if name in DTYPES:
                return self.operand(only, DTYPES[name])
            case ast.Call(func=ast.Name(id=name)) if name in PRIMITIVES:
                return self.application(node, name)
        raise GraphError(f"line {node.lineno}: {ast.unparse(node)} is not a value, a literal or a primitive")

    def literal(self, node: ast.expr, value: bool | int | float, beside: np.dtype[Any] | None) -> Literal:
        if beside is None:
            raise GraphError(f"line {node.lineno}: the literal {value} needs a dtype, for instance f32({value})")
        return Literal(beside.type(value).item(), beside)

    def application(self, call: ast.Call, name: str) -> Node:
        arrays = [self.values[a.id] for a in call.args if isinstance(a, ast.Name) and a.id in self.values]
        beside = last_dtype(tuple(arrays))
        operands = [self.operand(a, beside) for a in call.args]
        params = {k.arg: self.param(k.value) for k in call.keywords if k.arg is not None}
        return self.builder.add(PRIMITIVES[name], operands, params)

    def param(self, node: ast.expr) -> Any:
        match node:
            case ast.Name(id=name) if name in DTYPES:
                return DTYPES[name]
            case ast.Name(id=name) if name in self.graphs:
                return self.graphs[name]
            case ast.Tuple(elts=elements):
                return tuple(self.param(e) for e in elements)
            case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str() as text)]):
                return float(text)
        try:
            return ast.literal_eval(node)
        except ValueError:
            raise GraphError(f"line {node.lineno}: {ast.unparse(node)} is not a parameter") from None
