"""Functions with a gradient of their own, traced: what `tg.custom_vjp` and `tg.Function` have in common.

The function and its rule are traced when it is called in a trace, so that they may read what lives there, and are never
called back: all three become graphs of the same program. A function that calls itself in its own rule gets the same
rule again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracegrad import tree
from tracegrad.api.control import items, with_consts
from tracegrad.api.python_control import converted_at_need, retry
from tracegrad.api.signature import leaf_aval
from tracegrad.errors import ArgumentError, DTypeError, GradientError, ShapeError, Where
from tracegrad.grad import custom as _rule  # noqa: F401  (registers the vjp rule)
from tracegrad.ir import Aval, Builder, Graph, Node
from tracegrad.ir.aval import has_gradient, spelled
from tracegrad.ir.build import live
from tracegrad.numpy.promote import mark
from tracegrad.ops.custom import Rule, custom
from tracegrad.ops.elementwise import convert
from tracegrad.trace import STATE, Traced, Tracer, is_scalar, scalar_dtype, trace, within_state

Values = Sequence[Any]


@dataclass(frozen=True)
class Operand:
    """An argument that may have a gradient."""

    value: Any
    aval: Aval
    weak: bool
    name: str

    @classmethod
    def of(cls, value: Any, name: str, fix: str) -> Operand:
        try:
            aval, weak = leaf_aval(value, name)
        except ArgumentError as error:
            raise ArgumentError(error.message, fix=fix, where=error.where) from None
        typed = value if isinstance(value, (np.ndarray, Tracer)) else aval.dtype.type(value)
        return cls(typed, aval, weak, name)


class Recipe:
    """One call: how its three graphs are traced. Every step may be run twice: control flow is converted, if need be."""

    name: str
    key: Hashable
    operands: list[Operand]

    def body(self) -> Traced | None:
        """Trace the function alone; None when its forward half is all there is."""
        return None

    def forward(self) -> tuple[Traced, int]:
        """Trace results and residuals, and say how many results there are."""
        raise NotImplementedError

    def backward(self, residuals: Traced, count: int) -> tuple[Traced, tuple[int, ...]] | None:
        """Trace residuals, cotangents of the results -> cotangents of the operands whose positions are returned."""
        raise NotImplementedError

    def assemble(self, found: list[Any]) -> Any:
        """Put the results into the structure that the user gets."""
        raise NotImplementedError

    def trace(
        self,
        fn: Callable[..., Any],
        run: Callable[[Callable[..., Any], Values], Any],
        inputs: Sequence[Operand],
        half: str = "",
    ) -> Traced:
        """Trace `run(fn, tracers)`; if Python must decide on a traced value, convert `fn` and trace again."""

        def once(fn: Callable[..., Any]) -> Traced:
            return trace(
                lambda *tracers: run(fn, tracers),
                [o.aval for o in inputs],
                name=f"{self.name}{half}",
                names=[o.name for o in inputs],
                weak=[o.weak for o in inputs],
            )

        return converted_at_need(fn, once, retry)


@dataclass
class Unfinished:
    """A rule that is being traced, with the body it will belong to."""

    recipe: Recipe
    rule: Rule
    body: Traced | None = None


@contextmanager
def unfinished(recipe: Recipe, rule: Rule) -> Iterator[Unfinished]:
    entry = Unfinished(recipe, rule)
    with within_state(rules=(*STATE.get().rules, (recipe.key, entry))):
        yield entry


def call(recipe: Recipe) -> Any:
    """Return the result of a call in the innermost trace: the parts of one `custom` node."""
    values = [o.value for o in recipe.operands]
    outer = next((entry for key, entry in STATE.get().rules if key == recipe.key), None)
    if outer is not None:
        if outer.body is None:
            raise ArgumentError(
                f"{recipe.name}: it calls itself with arguments of the same shapes and dtypes",
                fix="let its rule call it, not the function itself",
            )
        found = results(outer.rule, outer.body.graph, [*values, *outer.body.captures], outer.body.weak)
        return outer.recipe.assemble(found)
    rule = Rule(recipe.name)
    body, consts, weak = finish(recipe, rule)
    return recipe.assemble(results(rule, body, [*values, *consts], weak))


def results(rule: Rule, body: Graph, operands: Values, weak: Sequence[bool]) -> list[Any]:
    parts = items(custom(*operands, body=body, rule=rule), len(body.outputs))
    return [mark(part, w) for part, w in zip(parts, weak, strict=True)]


def finish(recipe: Recipe, rule: Rule) -> tuple[Graph, list[Any], Sequence[bool]]:
    """Trace everything, fill in the rule, and return the body with what it all reads from outside."""
    with unfinished(recipe, rule) as entry:
        entry.body = recipe.body()
        forward, count = recipe.forward()
        primal = Traced(leading(forward.graph, count), forward.captures, forward.out_tree, forward.weak[:count])
        if entry.body is None:
            entry.body = primal
        body = entry.body
        check_results(recipe, body, primal)
        backward = recipe.backward(forward, count)
    traced = [body, primal, forward, *(backward[:1] if backward else ())]
    graphs, consts = with_consts(traced)
    graphs = [tied(g, rule, graphs[0], len(consts)) for g in graphs]
    rule.primal, rule.forward, rule.backward = graphs[1], graphs[2], graphs[3] if backward else None
    rule.wanted = backward[1] if backward else ()
    rule.n_outside = len(consts)
    first = len(recipe.operands)
    rule.traced = tuple(
        first + i for i, c in enumerate(consts) if isinstance(c, Tracer) and has_gradient(c.aval)
    )
    check_tied(rule, len(graphs[0].inputs))
    return (graphs[1] if body is primal else graphs[0]), consts, body.weak


def leading(graph: Graph, count: int) -> Graph:
    """Return `graph` with its first outputs only."""
    outputs = graph.outputs[:count]
    return Graph(graph.name, graph.inputs, live(graph.nodes, outputs), outputs, graph.names)


def check_results(recipe: Recipe, body: Traced, primal: Traced) -> None:
    """Refuse a forward half whose results have other shapes or dtypes than the function's."""
    shown = [", ".join(str(o.aval) for o in t.graph.outputs) for t in (primal, body)]
    if shown[0] != shown[1]:
        raise ShapeError(
            f"{recipe.name}: fwd returns ({shown[0]}) but the function ({shown[1]})",
            fix="let fwd return (result of the function, residuals)",
        )


# --- a function that calls itself in its own rule ---------------------------------------------------------------------
def tied(graph: Graph, rule: Rule, body: Graph, n_outside: int) -> Graph:
    """Hand on what is read from outside to the calls of the same function in its own rule."""
    if not any(lacks(node, rule, len(body.inputs)) for node in graph.nodes):
        return graph
    builder = Builder(graph.name)
    here: dict[Node, Any] = {n: builder.input(n.aval, graph.names.get(n, ""), n.where) for n in graph.inputs}
    outside = builder.inputs[len(builder.inputs) - n_outside :]
    for node in graph.nodes:
        operands = [here[o] if isinstance(o, Node) else o for o in node.operands]
        params = dict(node.params)
        if lacks(node, rule, len(body.inputs)):
            own = len(body.inputs) - n_outside
            operands, params["body"] = [*operands[:own], *outside], body
        here[node] = builder.add(node.prim, operands, params, node.where)
    return builder.finish([here[o] if isinstance(o, Node) else o for o in graph.outputs])


def lacks(node: Node, rule: Rule, wanted: int) -> bool:
    return node.prim is custom and node.params["rule"] is rule and len(node.operands) < wanted


def check_tied(rule: Rule, wanted: int) -> None:
    """Refuse calls of the function in its own rule that are out of reach: in loops, or in another function's rule."""
    pending, seen = list(rule.graphs()), set[int]()
    while pending:
        graph = pending.pop()
        if id(graph) in seen:
            continue
        seen.add(id(graph))
        for node in graph.nodes:
            if lacks(node, rule, wanted):
                raise GradientError(
                    f"{rule.name}: its rule calls it again, in a loop or through another function, and reads arrays"
                    " from outside",
                    fix=f"pass those arrays to {rule.name} as arguments",
                    where=node.where,
                )
            for value in node.params.values():
                pending += graphs_in(value)


def graphs_in(value: Any) -> list[Graph]:
    if isinstance(value, Rule):
        return list(value.graphs())
    return [v for v in (value if isinstance(value, tuple) else (value,)) if isinstance(v, Graph)]


# --- residuals and gradients ------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class State:
    """What a forward half keeps: traced values become residuals, all else stays as it is."""

    leaves: list[Any]
    treedef: tree.TreeDef

    @classmethod
    def of(cls, value: Any) -> State:
        return cls(*tree.flatten(value))

    @property
    def places(self) -> list[int]:
        return [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, Tracer)]

    def residuals(self) -> list[Any]:
        return [self.leaves[i] for i in self.places]

    def restored(self, residuals: Values) -> Any:
        leaves = list(self.leaves)
        for i, value in zip(self.places, residuals, strict=True):
            leaves[i] = value
        return tree.unflatten(self.treedef, leaves)


def backward_inputs(forward: Traced, count: int) -> list[Operand]:
    """Return stand-ins for the residuals and for the cotangents of the results."""
    outputs = [(o.aval, weak) for o, weak in zip(forward.graph.outputs, forward.weak, strict=True)]
    residuals = [Operand(None, aval, weak, f"residual{i}") for i, (aval, weak) in enumerate(outputs[count:])]
    return [*residuals, *(Operand(None, aval, False, f"ct{i}") for i, (aval, _) in enumerate(outputs[:count]))]


def line_of(fn: Callable[..., Any]) -> Where | None:
    """Return where a function of the user's begins."""
    code = getattr(fn, "__code__", None) or getattr(getattr(fn, "func", None), "__code__", None)
    return Where(code.co_filename, code.co_firstlineno, code.co_name) if code is not None else None


def checked_gradient(what: str, gradient: Any, of: Operand, where: Where | None) -> Any:
    """Return a gradient that fits its operand, None if there is none, or raise the user's error."""
    if gradient is None:
        return None
    if not has_gradient(of.aval):
        raise GradientError(
            f"{what} returns a gradient for {of.name}, which is {of.aval} and has none",
            fix="return None in its place",
            where=where,
        )
    if not is_scalar(gradient) and not isinstance(gradient, (Tracer, np.ndarray, np.generic)):
        raise ArgumentError(
            f"{what} returns a {type(gradient).__name__} as the gradient for {of.name}",
            fix="return an array, or None where there is no gradient",
            where=where,
        )
    plain = is_scalar(gradient)
    shape, dtype = ((), scalar_dtype(gradient)) if plain else (gradient.shape, gradient.dtype)
    where = (gradient.origin if isinstance(gradient, Tracer) else None) or where
    if shape != of.aval.shape:
        raise ShapeError(
            f"{what} returns a gradient {Aval(tuple(shape), dtype)} for {of.name}, which is {of.aval}",
            fix="return a gradient of the argument's shape: sum over axes that were broadcast",
            where=where,
        )
    if plain:
        return of.aval.dtype.type(gradient)
    if dtype == of.aval.dtype:
        return gradient
    if of.weak or (isinstance(gradient, Tracer) and gradient.weak):
        return convert(gradient, dtype=of.aval.dtype)
    raise DTypeError(
        f"{what} returns a gradient {Aval(tuple(shape), dtype)} for {of.name}, which is {of.aval}",
        fix=f"convert it with .astype({spelled(of.aval.dtype)})",
        where=where,
    )
