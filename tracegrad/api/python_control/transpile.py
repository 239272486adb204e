"""Source to source: a user's function with its control flow written as calls of the operators.

This module is loaded by `convert` alone, as it imports the optional diastatic-malt. Converted code keeps the user's
file name and line numbers, so that tracebacks and error messages show the user's own lines.
"""

from __future__ import annotations

import ast
import copy
import functools
import inspect
import linecache
import types
from collections.abc import Callable, Iterator
from typing import Any

from malt.converters import (
    break_statements,
    call_trees,
    conditional_expressions,
    continue_statements,
    control_flow,
    functions,
    logical_expressions,
    return_statements,
    variables,
)
from malt.core import converter
from malt.pyct import anno, cfg, inspect_utils, naming, origin_info, qual_names, transformer, transpiler
from malt.pyct.static_analysis import activity, liveness, reaching_definitions, reaching_fndefs

from tracegrad.api.python_control import MARK, CannotConvert, branches, calls, elements, loops, state, syntax
from tracegrad.errors import TracerError
from tracegrad.memory import ELEMENT
from tracegrad.trace import Tracer

STANDARD = converter.ConversionOptions(recursive=True, optional_features=None)
PLAIN_CALLS = {"super", "globals", "locals", "vars", "eval", "exec", "print", "breakpoint"}


class Scope:
    """What a converted function runs in."""

    def __init__(self, *_: Any):
        pass

    def __enter__(self) -> Scope:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ret(self, value: Any, returned: Any) -> Any:
        """Return the function's result, None if no `return` was reached."""
        if isinstance(value, state.Unreturned):
            return None
        if state.is_traced(returned):
            raise TracerError(
                "return: whether the function returns a value depends on a traced condition",
                fix="end the function with a `return` of the same structure",
            )
        return value


def mark(fn: Any) -> Any:
    """Remember that a function is converted already."""
    if isinstance(fn, types.FunctionType):
        setattr(fn, MARK, True)
    return fn


def load(value: Any) -> Any:
    """Read a variable."""
    return value.read() if isinstance(value, state.Undefined) else value


def load_or_undefined(read: Callable[[], Any], name: str, owner: Callable[[], Any] | None = None) -> Any:
    """Read an attribute or element that a branch may set, such as `self.x`; elements of traced arrays are no variables:
    the array is carried as a whole (`memory.Written`)."""
    try:
        return ELEMENT if owner is not None and isinstance(owner(), Tracer) else read()
    except (KeyError, AttributeError, NameError, IndexError):
        return state.Undefined(name)


OPERATORS = types.SimpleNamespace(
    if_stmt=branches.if_stmt,
    if_exp=branches.if_exp,
    and_=branches.and_,
    or_=branches.or_,
    not_=branches.not_,
    asserted=branches.asserted,
    raising=branches.raising,
    filtered=branches.filtered,
    while_stmt=loops.while_stmt,
    for_stmt=loops.for_stmt,
    converted_call=calls.converted_call,
    item=elements.item,
    slice=slice,
    FunctionScope=Scope,
    with_function_scope=lambda thunk, name, options: thunk(Scope()),
    autograph_artifact=mark,
    Attribute=state.Attribute,
    Element=state.Element,
    Undefined=state.Undefined,
    UndefinedReturnValue=state.Unreturned,
    ld=load,
    ldu=load_or_undefined,
    STD=None,
)


class Calls(call_trees.CallTreeTransformer):  # type: ignore[misc] # malt has no types
    """Leaves the builtins alone that look at the frame they are called from."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id in PLAIN_CALLS:
            found: ast.AST = self.generic_visit(node)
            return found
        found = super().visit_Call(node)
        return found  # noqa: RET504 (malt has no types)


class Expressions(conditional_expressions.ConditionalExpressionTransformer):  # type: ignore[misc] # malt has no types
    """Converts conditional expressions inside conditional expressions, too."""

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        self.generic_visit(node)
        found: ast.AST = super().visit_IfExp(node)
        return found


class Blocks(control_flow.ControlFlowTransformer):  # type: ignore[misc] # malt has no types
    """Leaves out elements whose index changes in the block (`y[i]`, another one in each round): they are no variables.

    Of the others (`y[0]`), the owner tells whether they are when it runs.
    """

    def _get_block_composite_vars(self, modified: Any, live_in: Any) -> frozenset[Any]:
        found = super()._get_block_composite_vars(modified, live_in)
        return frozenset(s for s in found if not (s.support_set - s.owner_set) & modified)

    def _create_state_functions(self, *arguments: Any) -> Any:
        found = super()._create_state_functions(*arguments)
        for part in (p for statement in found for p in ast.walk(statement)):
            if isinstance(part, ast.Call) and isinstance(part.args[0], ast.Lambda):
                read = part.args[0]
                if isinstance(read.body, ast.Subscript):
                    part.args.append(ast.Lambda(copy.deepcopy(read.args), copy.deepcopy(read.body.value)))
        return found

    @classmethod
    def transform(cls, node: Any, context: Any) -> Any:
        """Run the analyses that the conversion reads, and the conversion."""
        graphs = cfg.build(node)
        node = activity.resolve(qual_names.resolve(node), context, None)
        for analysis in (reaching_definitions, reaching_fndefs, liveness):
            node = analysis.resolve(node, context, graphs)
        return cls(context).visit(node)


class Reads(variables.VariableAccessTransformer):  # type: ignore[misc] # malt has no types
    """Reads variables on the right of `+=` through the operator, too."""

    def visit_AugAssign(self, node: ast.AugAssign) -> Any:
        node.value = self.visit(node.value)
        return super().visit_AugAssign(node)


class Elements(ast.NodeTransformer):
    """Reads `table[i]` through an operator: i may be traced where the table is an array of NumPy's."""

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        index = self.index(node.slice)
        if not isinstance(node.ctx, ast.Load) or index is None:
            return node
        return ast.Call(self.operator("item"), [node.value, index], [])

    def index(self, node: ast.expr) -> ast.expr | None:
        """Return what stands in the brackets as an argument, None if it is known."""
        if isinstance(node, ast.Tuple) and any(self.index(part) is not None for part in node.elts):
            return ast.Tuple([self.whole(part) for part in node.elts], ast.Load())
        if isinstance(node, ast.Slice):
            bounds = [part for part in (node.lower, node.upper) if part is not None]
            return self.whole(node) if any(self.index(part) is not None for part in bounds) else None
        if isinstance(node, ast.UnaryOp):
            return node if self.index(node.operand) is not None else None
        return None if isinstance(node, (ast.Constant, ast.Starred, ast.Tuple)) else node

    def whole(self, node: ast.expr) -> ast.expr:
        if not isinstance(node, ast.Slice):
            return node
        parts = [part or ast.Constant(None) for part in (node.lower, node.upper, node.step)]
        return ast.Call(self.operator("slice"), parts, [])

    def operator(self, name: str) -> ast.expr:
        return ast.Attribute(ast.Name("ag__", ast.Load()), name, ast.Load())


@functools.lru_cache(maxsize=256)
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


def definitions(node: ast.AST, owner: str = "") -> Iterator[tuple[ast.AST, str]]:
    """Yield every function and lambda with the class it stands in."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            yield child, owner
        yield from definitions(child, child.name if isinstance(child, ast.ClassDef) else owner)


def named(node: Any) -> str:
    return str(getattr(node, "name", ""))


def first_line(node: Any) -> int:
    lines = [d.lineno for d in getattr(node, "decorator_list", [])]
    return int(min([node.lineno, *lines]))


def spans(node: ast.Lambda, code: types.CodeType) -> bool:
    """Say whether the code of a lambda stands at this place in the file."""
    body = node.body
    found = [
        p
        for p in code.co_positions()
        if p[0] is not None and p[2] is not None and p[1] is not None and p[3] is not None and p[3] > 0
    ]
    inside = [(p[0], p[2]) for p in found if (p[0], p[2]) != (code.co_firstlineno, 0)]
    start, end = (body.lineno, body.col_offset), (body.end_lineno or 0, body.end_col_offset or 0)
    return bool(inside) and all(start <= place < end for place in inside)


def find(fn: types.FunctionType) -> tuple[ast.AST, str, str]:
    """Return the function's node, the class it stands in, and the source of its file."""
    code = fn.__code__
    source = "".join(linecache.getlines(code.co_filename, fn.__globals__))
    if not source:
        raise CannotConvert(f"the source of {fn.__name__} is not at hand: define it in a file")
    wanted = ast.Lambda if fn.__name__ == "<lambda>" or code.co_name == "<lambda>" else ast.FunctionDef
    found = [
        (n, o) for n, o in definitions(parsed(source)) if isinstance(n, wanted) and first_line(n) <= code.co_firstlineno
    ]
    if wanted is ast.Lambda:
        found = [(n, o) for n, o in found if spans(n, code)]  # type: ignore[arg-type]
    else:
        found = [(n, o) for n, o in found if named(n) == code.co_name and first_line(n) == code.co_firstlineno]
    if not found:
        raise CannotConvert(f"the source of {fn.__name__} is not at hand, or has changed since it was loaded")
    node, owner = found[-1]
    return copy.deepcopy(node), owner, source


def prepare(fn: types.FunctionType) -> tuple[ast.AST, str]:
    """Return the function's own syntax tree, annotated with its lines, and its source."""
    node, owner, source = find(fn)
    arguments = node.args  # type: ignore[attr-defined]
    first = [a.arg for a in (*arguments.posonlyargs, *arguments.args)][:1]
    node = syntax.prepared(node, owner, first[0] if first else "")
    lines = source.split("\n")
    for part in ast.walk(node):
        if isinstance(part, (ast.expr, ast.stmt, ast.arg, ast.excepthandler, ast.keyword)):
            place = origin_info.Location(fn.__code__.co_filename, part.lineno, part.col_offset)
            anno.setanno(
                part, anno.Basic.ORIGIN, origin_info.OriginInfo(place, fn.__name__, lines[part.lineno - 1], None)
            )
    return node, source


def transform(fn: types.FunctionType) -> tuple[Any, Any]:
    """Run malt's passes on the function; return the new tree and the context with its name."""
    node, source = prepare(fn)
    namespace = inspect_utils.getnamespace(fn)
    namer = naming.Namer(namespace)
    base = "lambda_" if isinstance(node, ast.Lambda) else node.name  # type: ignore[attr-defined]
    name = namer.new_symbol(f"converted_{base}", ())
    futures = inspect_utils.getfutureimports(fn)
    info = transformer.EntityInfo(name, source, fn.__code__.co_filename, futures, namespace)
    context = transformer.Context(info, namer, converter.ProgramContext(options=STANDARD))
    arguments = node.args  # type: ignore[attr-defined]
    arguments.defaults = [ast.Constant(None) for _ in arguments.defaults]
    arguments.kw_defaults = [d and ast.Constant(None) for d in arguments.kw_defaults]
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg):
        if argument is not None:
            argument.annotation = None
    if isinstance(node, ast.FunctionDef):
        node.returns = None
    graphs = cfg.build(node)
    node = qual_names.resolve(node)
    node = activity.resolve(node, context, None)
    node = reaching_definitions.resolve(node, context, graphs)
    anno.dup(node, {anno.Static.DEFINITIONS: anno.Static.ORIG_DEFINITIONS})
    node = functions.transform(node, context)
    for stage in (break_statements, continue_statements, return_statements):
        node = stage.transform(node, context)
    node = Calls(context).visit(qual_names.resolve(node))
    node = Expressions(context).visit(Blocks.transform(node, context))
    node = Elements().visit(Reads(context).visit(logical_expressions.transform(node, context)))
    syntax.start_undefined(node)
    syntax.leave_out_undefined(node)
    return node, context


def settle_lines(node: Any, inherited: tuple[int, int]) -> tuple[int, int]:
    """Give every node the user's line it comes from, generated ones that of what they hold; return it."""
    origin = anno.getanno(node, anno.Basic.ORIGIN, default=None)
    own = (origin.loc.lineno, origin.loc.col_offset) if origin else first_origin(node) or inherited
    if is_operator(node) or (isinstance(node, ast.Name) and node.id == "ag__"):
        own = inherited
    if "lineno" in node._attributes:
        node.lineno, node.col_offset = own
        node.end_lineno, node.end_col_offset = own
    for child in ast.iter_child_nodes(node):
        settle_lines(child, own)
    return own


def is_operator(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "ag__"


def first_origin(node: ast.AST) -> tuple[int, int] | None:
    for part in ast.walk(node):
        origin = anno.getanno(part, anno.Basic.ORIGIN, default=None)
        if origin:
            return origin.loc.lineno, origin.loc.col_offset
    return None


class Factory(transpiler._PythonFnFactory):  # type: ignore[misc] # malt has no types
    """Compiles converted code under the user's file name, instead of loading it from a file of its own."""

    def create(self, nodes: Any, namer: Any, file: str, line: int, futures: tuple[str, ...]) -> None:
        inner, outer = namer.new_symbol("inner_factory", ()), namer.new_symbol("outer_factory", ())
        body = transpiler._wrap_into_factory(
            nodes, self._name, inner, outer, self._freevars, self._extra_locals, futures
        )
        module = ast.Module(body=list(body), type_ignores=[])
        for statement in module.body:
            settle_lines(statement, (line, 0))
        namespace: dict[str, Any] = {}
        exec(compile(ast.fix_missing_locations(module), file, "exec", dont_inherit=True), namespace)
        self._unbound_factory = namespace[outer]()


@functools.lru_cache(maxsize=1024)
def factory_of(code: types.CodeType, fn: types.FunctionType) -> Factory:
    """Convert the code of a function, once."""
    nodes, context = transform(fn)
    if isinstance(nodes, ast.Lambda):
        nodes = ast.Assign(targets=[ast.Name(context.info.name, ctx=ast.Store())], value=nodes)
    else:
        nodes.name = context.info.name
    factory = Factory(context.info.name, code.co_freevars, {"ag__": OPERATORS})
    factory.create(nodes, context.namer, code.co_filename, code.co_firstlineno, context.info.future_features)
    return factory


def convert(fn: types.FunctionType) -> Callable[..., Any]:
    """Return `fn` converted: the same closure, globals and defaults, other code."""
    if inspect.isgeneratorfunction(fn) or inspect.iscoroutinefunction(fn):
        raise CannotConvert(f"{fn.__name__} is a generator or a coroutine, which is not converted")
    try:
        factory = factory_of(fn.__code__, fn)
    except CannotConvert:
        raise
    except Exception as error:
        raise CannotConvert(f"{fn.__name__} cannot be converted: {type(error).__name__}: {error}") from error
    found = factory.instantiate(fn.__globals__, fn.__closure__ or (), fn.__defaults__, fn.__kwdefaults__)
    found.__name__, found.__qualname__, found.__module__ = fn.__name__, fn.__qualname__, fn.__module__
    result: Callable[..., Any] = mark(found)
    return result
