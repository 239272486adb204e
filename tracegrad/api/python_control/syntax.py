"""The user's syntax tree, before and after malt's passes: what those do not know is written in what they do know."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from tracegrad.api.python_control import CannotConvert

REFUSED = {
    ast.Yield: "generators",
    ast.YieldFrom: "generators",
    ast.Await: "coroutines",
    ast.AsyncFor: "coroutines",
    ast.AsyncWith: "coroutines",
    ast.NamedExpr: "assignments inside expressions (:=)",
}


def prepared(node: ast.AST, owner: str, first: str) -> ast.AST:
    """Return a function's tree with what malt does not know written in other words, or raise CannotConvert."""
    for part in ast.walk(node):
        if type(part) in REFUSED:
            name = getattr(node, "name", "the lambda")
            raise CannotConvert(f"{name} holds {REFUSED[type(part)]}, which are not converted")
    for rewrite in (Names(owner, first), Targets(), Matches(), Truths(), Questions()):
        node = rewrite.visit(node)
    return node


class Names(ast.NodeTransformer):
    """Writes out what depends on the place in a class: `super()`, and names with two underscores in front."""

    def __init__(self, owner: str, first: str):
        self.owner = owner
        self.first = first

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "super" and not node.args and self.first:
            node.args = [ast.copy_location(ast.Name(n, ast.Load()), node) for n in ("__class__", self.first)]
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if self.owner and node.attr.startswith("__") and not node.attr.endswith("__"):
            node.attr = f"_{self.owner.lstrip('_')}{node.attr}"
        return node


class Targets(ast.NodeTransformer):
    """Writes `for k in numbers` as `for item in numbers: k = item`: after the last round, k is what the body has left.

    malt takes a loop to set its own variable once more at its end, and forgets what the body has set.
    """

    def visit_For(self, node: ast.For) -> ast.For:
        self.generic_visit(node)
        name = f"item_{node.lineno}_{node.col_offset}"
        first = ast.Assign([node.target], ast.Name(name, ast.Load()))
        node.body.insert(0, ast.copy_location(first, node.target))
        ast.copy_location(first.value, node.target)
        node.target = ast.copy_location(ast.Name(name, ast.Store()), node.target)
        return node


class Matches(ast.NodeTransformer):
    """Writes `match` as a chain of `if`s: values, `|`, names, `_` and `None`, with guards."""

    def visit_Match(self, node: ast.Match) -> list[ast.stmt]:
        self.generic_visit(node)
        subject = f"match_{node.lineno}_{node.col_offset}"
        chain: list[ast.stmt] = []
        for case in reversed(node.cases):
            test, name = self.test(case.pattern, subject)
            inner: list[ast.stmt] = [ast.If(case.guard, case.body, chain)] if case.guard else case.body
            body = [self.assign(name, self.load(subject)), *inner] if name else inner
            if case.guard and test:
                test, body = ast.BoolOp(ast.And(), [test, case.guard]), case.body
            chain = [ast.If(test, body, chain)] if test else body
        whole = [self.assign(subject, node.subject), *chain]
        for part in (p for statement in whole for p in ast.walk(statement) if "lineno" in p._attributes):
            if not hasattr(part, "lineno"):
                ast.copy_location(part, node)
        return whole

    def test(self, pattern: ast.pattern, subject: str) -> tuple[ast.expr | None, str]:
        """Return the condition of a pattern (None: always true) and the name it binds."""
        match pattern:
            case ast.MatchValue(value=value):
                return ast.Compare(self.load(subject), [ast.Eq()], [value]), ""
            case ast.MatchSingleton(value=None):
                return ast.Compare(self.load(subject), [ast.Is()], [ast.Constant(None)]), ""
            case ast.MatchAs(pattern=None, name=name):
                return None, name or ""
            case ast.MatchOr(patterns=patterns):
                found = [self.test(p, subject) for p in patterns]
                tests = [test for test, name in found if test and not name]
                if len(tests) == len(found):
                    return ast.BoolOp(ast.Or(), tests), ""
        raise CannotConvert("a match statement with patterns other than values, names and _ is not converted")

    def assign(self, name: str, value: ast.expr) -> ast.stmt:
        return ast.Assign([ast.Name(name, ast.Store())], value)

    def load(self, name: str) -> ast.expr:
        return ast.Name(name, ast.Load())


class Truths(ast.NodeTransformer):
    """Writes `n` as `not not n` in `if n and x > 0`: where only the truth counts, `and` need not give n itself."""

    def visit(self, node: ast.AST) -> Any:
        self.generic_visit(node)
        if isinstance(node, (ast.If, ast.While, ast.IfExp, ast.Assert)):
            node.test = self.decided(node.test)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            node.operand = self.decided(node.operand)
        return node

    def decided(self, test: ast.expr) -> ast.expr:
        if isinstance(test, ast.BoolOp):
            test.values = [self.as_bool(self.decided(v)) for v in test.values]
        return test

    def as_bool(self, value: ast.expr) -> ast.expr:
        if isinstance(value, (ast.BoolOp, ast.Compare)) or (
            isinstance(value, ast.UnaryOp) and isinstance(value.op, ast.Not)
        ):
            return value
        once = ast.copy_location(ast.UnaryOp(ast.Not(), value), value)
        return ast.copy_location(ast.UnaryOp(ast.Not(), once), value)


class Questions(ast.NodeTransformer):
    """Asks an operator where Python alone would decide on a traced value: `assert`, `raise`, filters."""

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        self.generic_visit(node)
        node.test = self.asked("asserted", node.test)
        return node

    def visit_Raise(self, node: ast.Raise) -> list[ast.stmt]:
        return [ast.copy_location(ast.Expr(self.asked("raising", node)), node), node]

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        self.generic_visit(node)
        node.ifs = [self.asked("filtered", test) for test in node.ifs]
        return node

    def asked(self, operator: str, node: ast.expr | ast.Raise) -> ast.expr:
        arguments = [node] if isinstance(node, ast.expr) else []
        call = ast.Call(ast.Attribute(ast.Name("ag__", ast.Load()), operator, ast.Load()), arguments, [])
        for part in (call, call.func, call.func.value):  # type: ignore[attr-defined]
            ast.copy_location(part, node)
        return call


SCOPES = (ast.FunctionDef, ast.Lambda, ast.ClassDef, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def own_parts(node: ast.AST) -> Iterator[ast.AST]:
    """Yield what stands in the scope of a function itself."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, SCOPES):
            yield from own_parts(child)


def start_undefined(tree: ast.AST) -> None:
    """Begin every function with its own variables that a statement inside it reads as state before they are set.

    malt leaves that out for what a loop's body sets anew in each round.
    """
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        parts = list(own_parts(function))
        free = {name for p in parts if isinstance(p, (ast.Nonlocal, ast.Global)) for name in p.names}
        free |= {a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg)}
        stored = {p.id for p in parts if isinstance(p, ast.Name) and isinstance(p.ctx, ast.Store)} - free
        states = [p for p in parts if isinstance(p, ast.FunctionDef) and p.name.startswith("get_state")]
        read = {n.id for p in states for n in ast.walk(p) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        unset = "".join(f"{name} = ag__.Undefined({name!r})\n" for name in sorted(stored & read))
        function.body[:0] = ast.parse(unset).body


def leave_out_undefined(tree: ast.AST) -> None:
    """Let what sets the state of variables take `d["k"]` and `s.x` away again where these hold no value yet.

    `"k" in d`, `len(d)` and `hasattr(s, "x")` are then what they are in Python.
    """
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef) or not function.name.startswith("set_state"):
            continue
        for statement in function.body:
            if isinstance(statement, ast.Assign):
                statement.targets = [placed(target) for target in statement.targets]


def placed(target: ast.expr) -> ast.expr:
    """Return a target of an assignment as one that knows of values that are not there."""
    match target:
        case ast.Tuple(elts=parts):
            return ast.Tuple([placed(part) for part in parts], ast.Store())
        case ast.Subscript(value=owner, slice=key):
            return place("Element", owner, key)
        case ast.Attribute(value=owner, attr=name):
            return place("Attribute", owner, ast.Constant(name))
    return target


def place(kind: str, owner: ast.expr, key: ast.expr) -> ast.Attribute:
    """Write `ag__.kind(owner, key).value`, to be assigned."""
    made = ast.Call(ast.Attribute(ast.Name("ag__", ast.Load()), kind, ast.Load()), [owner, key], [])
    return ast.Attribute(made, "value", ast.Store())
