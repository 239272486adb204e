"""What a transform does, in each of the two ways it can run: as a pass on graphs, and eagerly on recorded values."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import numpy as np

from tracegrad import tree
from tracegrad.api.environment import Environment
from tracegrad.api.lifting import Lifter, liftable
from tracegrad.api.python_control import asking, converted_at_need, retry
from tracegrad.api.signature import Parameters, leaf_aval
from tracegrad.errors import ArgumentError, GradientError, LongLoop, ShapeError, TracerBoolError
from tracegrad.grad.adjoint import joint, pullback
from tracegrad.ir import Graph
from tracegrad.ir.aval import is_float
from tracegrad.ir.build import live
from tracegrad.ir.graph import Literal, Node
from tracegrad.record import record, replace
from tracegrad.trace import STATE, Traced, Tracer, current_trace, new_trace, trace

ADJOINT: ContextVar[list[float] | None] = ContextVar("tracegrad_adjoint", default=None)
"""Where the seconds of writing adjoint graphs are noted, while a function is traced for a program."""
LIFTED: ContextVar[set[int] | None] = ContextVar("tracegrad_lifted", default=None)
"""Where the arrays from outside that were traced are noted (by identity), while a function is traced for a program."""
Arrays = Sequence[np.ndarray[Any, Any]]
Act = Callable[["Call", Arrays], Any]
"""What is done with a function and the arrays from outside that are traced."""
Argnums = int | str | tuple[int | str, ...]


@record
class Call:
    """A function at one signature: leaves as avals, with their names and how to put them back."""

    fn: Callable[..., Any]
    parameters: Parameters
    treedef: tree.TreeDef
    static: tuple[tuple[str, Any], ...]
    outside: Callable[[], Environment] | None = None

    def run(self, leaves: Sequence[Any]) -> Any:
        """Call the function; if Python must decide on a traced value, convert its control flow and call it again."""
        return self.in_turn(lambda call, chosen: call.run_lifted(leaves, chosen))

    def run_once(self, leaves: Sequence[Any]) -> Any:
        args, kwargs = self.parameters.join(self.treedef, leaves, self.static)
        self.parameters.check_call(args, kwargs)
        with asking():
            return self.fn(*args, **kwargs)

    def converted(self, error: TracerBoolError) -> Call:
        """Return the call of the converted function, or raise `error`."""
        return replace(self, fn=retry(self.fn, error))

    @property
    def label(self) -> str:
        """The function's name in errors."""
        return str(getattr(self.fn, "__name__", type(self.fn).__name__))

    @property
    def name(self) -> str:
        """The function's name in graphs, whose text is Python's."""
        return self.label if self.label.isidentifier() else "main"

    def trace(self, leaves: Sequence[Any]) -> Traced:
        """Trace the function for leaves of these avals; convert its control flow if that is needed."""
        traced: Traced = self.in_turn(lambda call, chosen: call.trace_once(leaves, chosen))
        return traced

    def in_turn(self, act: Act) -> Any:
        """Try with all arrays from outside traced; if that fails, all but integers; if that fails, none."""
        trace = current_trace()
        arrays = []
        if self.outside is not None and (trace is None or not trace.computes) and not STATE.get().eager:
            outside = self.outside()
            # code that asks for np.ndarray may do something else with a tracer, which is none
            arrays = [a for _, a in outside.arrays() if liftable(a) and "ndarray" not in outside.names]
        floats = [a for a in arrays if is_float(a.dtype)]
        choices = [arrays] if not arrays else [arrays, []] if len(floats) in (0, len(arrays)) else [arrays, floats, []]
        return converted_at_need(self, lambda call: call.first_of(choices, act), Call.converted)

    def first_of(self, choices: Sequence[Arrays], act: Act) -> Any:
        for chosen in choices[:-1]:
            try:
                return act(self, chosen)
            except (ShapeError, LongLoop):
                raise
            except Exception:  # the last choice raises what the function itself raises
                continue
        return act(self, choices[-1])

    def trace_once(self, leaves: Sequence[Any], chosen: Arrays) -> Traced:
        names = self.parameters.leaf_names(self.treedef)
        found = [leaf_aval(leaf, name) for leaf, name in zip(leaves, names, strict=True)]
        return trace(
            lambda *tracers: self.run_lifted(tracers, chosen),
            [aval for aval, _ in found],
            name=self.name,
            names=names,
            weak=[weak for _, weak in found],
        )

    def run_lifted(self, leaves: Sequence[Any], chosen: Arrays) -> Any:
        """Call the function with tracers in the place of the chosen arrays from outside."""
        here = current_trace()
        if not chosen or self.outside is None or here is None:
            return self.run_once(leaves)
        lifter = Lifter(here, set(map(id, chosen)), self.outside().names)
        try:
            found = replace(self, fn=lifter.lift(self.fn)).run_once(leaves)
        finally:
            lifter.give_back()
        if (noted := LIFTED.get()) is not None:
            noted |= lifter.lifted
        return found


@record
class Lowered:
    """A graph ready to compile, with the structure of what the user gets back."""

    graph: Graph
    captures: tuple[Any, ...]
    out_tree: tree.TreeDef


class Jit:
    """The function itself."""

    def lower(self, call: Call, leaves: Sequence[Any]) -> Lowered:
        traced = call.trace(leaves)
        return Lowered(traced.graph, traced.captures, traced.out_tree)

    def eager(self, call: Call, leaves: Sequence[Any]) -> Any:
        return call.run([np.asarray(x) if isinstance(x, np.ndarray) else x for x in leaves])


@record
class Grad:
    """The gradient of a scalar function in its arguments `argnums`; with its value, and auxiliary results, when asked
    for."""

    argnums: Argnums
    has_aux: bool
    with_value: bool

    def lower(self, call: Call, leaves: Sequence[Any]) -> Lowered:
        wrt = self.positions(call, leaves)
        traced = call.trace(leaves)
        self.check_loss(call, traced.graph.outputs[0].aval.shape if traced.graph.outputs else None, traced)
        began = time.perf_counter()
        graph = joint(traced.graph, wrt)
        if (noted := ADJOINT.get()) is not None:
            noted.append(time.perf_counter() - began)
        n = len(traced.graph.outputs)
        outputs, gradients = graph.outputs[:n], graph.outputs[n:]
        shaped = self.arrange(call, traced.out_tree, outputs, gradients, wrt)
        flat, out_tree = tree.flatten(shaped)
        picked = Graph(graph.name, graph.inputs, live(graph.nodes, flat), tuple(flat), graph.names)
        return Lowered(picked, traced.captures, out_tree)

    def check_loss(self, call: Call, shape: tuple[int, ...] | None, traced: Traced) -> None:
        """Refuse a function whose (first) result is not one floating-point scalar."""
        if self.has_aux:
            probe = tree.unflatten(traced.out_tree, list(range(traced.out_tree.num_leaves)))
            if not isinstance(probe, tuple) or len(probe) != 2:
                raise GradientError(
                    f"grad: {call.label} must return (loss, aux) when has_aux=True", fix="return loss, aux"
                )
            single = isinstance(probe[0], int)
        else:
            single = traced.out_tree.num_leaves == 1 and traced.out_tree.is_leaf()
        if not single:
            found = "a structure" if traced.out_tree.num_leaves else "nothing"
            raise GradientError(
                f"grad: {call.label} returns {found}, not one scalar",
                fix="return one number, or use has_aux=True and return (loss, aux)",
            )
        first = traced.graph.outputs[0]
        where = first.where if isinstance(first, Node) else None
        if shape != ():
            raise GradientError(
                f"grad: {call.label} returns {first.aval}, not a scalar",
                fix="reduce it, for instance with .sum() or .mean(), or use tg.vjp",
                where=where,
            )
        if not is_float(first.dtype):
            raise GradientError(
                f"grad: {call.label} returns {first.aval}, which has no gradient",
                fix="return a floating-point loss",
                where=where,
            )

    def positions(self, call: Call, leaves: Sequence[Any]) -> list[int]:
        """Return the leaves to differentiate by, all of which must be floating point."""
        chosen = self.chosen(call)
        names = call.parameters.leaf_names(call.treedef)
        found = []
        for index, path in enumerate(call.treedef.paths()):
            side, first = path[0], path[1]
            key = call.parameters.name(first) if side == 0 else first
            if key not in chosen:
                continue
            aval, _ = leaf_aval(leaves[index], names[index])
            if not is_float(aval.dtype):
                raise GradientError(
                    f"grad: the argument {names[index]} is {aval}, and only floating-point values have gradients",
                    fix="convert it with x.astype(np.float32), pass a float, or leave it out of argnums "
                    "(of a model with running statistics: params, buffers = nn.split(model))",
                )
            found.append(index)
        return found

    def chosen(self, call: Call) -> list[str]:
        """Return the parameter names behind `argnums`, checked against the call."""
        given = (self.argnums,) if isinstance(self.argnums, (int, str)) else self.argnums
        args, kwargs = tree.unflatten(call.treedef, range(call.treedef.num_leaves))
        passed = {call.parameters.name(i) for i in range(len(args))} | set(kwargs)
        names = [call.parameters.name(a) if isinstance(a, int) else a for a in given]
        for asked, name in zip(given, names, strict=True):
            if name not in passed:
                raise ArgumentError(
                    f"grad: argnums={asked!r} names no argument of this call of {call.label}", fix="check argnums"
                )
        return names

    def arrange(
        self, call: Call, out_tree: Any, outputs: Sequence[Any], gradients: Sequence[Any], wrt: list[int]
    ) -> Any:
        """Put values and gradients into the structure the user gets."""
        holes: list[Any] = [None] * call.treedef.num_leaves
        for index, gradient in zip(wrt, gradients, strict=True):
            holes[index] = Leaf(gradient)
        args, kwargs = tree.unflatten(call.treedef, holes)
        by_name = {call.parameters.name(i): a for i, a in enumerate(args)} | kwargs
        parts = [tree.map(lambda leaf: leaf.value, by_name[name]) for name in self.chosen(call)]
        grads = parts[0] if isinstance(self.argnums, (int, str)) else tuple(parts)
        result = tree.unflatten(out_tree, outputs)
        match self.with_value, self.has_aux:
            case False, False:
                return grads
            case False, True:
                return grads, result[1]
        return result, grads

    def eager(self, call: Call, leaves: Sequence[Any]) -> Any:
        """Run the function op by op, then its pullback op by op."""
        wrt = self.positions(call, leaves)
        names = call.parameters.leaf_names(call.treedef)
        with new_trace(call.name, computes=True) as this:
            tracers = []
            for leaf, name in zip(leaves, names, strict=True):
                aval, weak = leaf_aval(leaf, name)
                value = leaf if isinstance(leaf, Tracer) else np.asarray(leaf, aval.dtype)
                tracers.append(this.input(aval, name, weak=weak, value=value, given=f"the argument {name}"))
            inputs = list(this.builder.inputs)
            flat, out_tree = tree.flatten(call.run(tracers))
            outputs = [this.lift(leaf) for leaf in flat]
            graph = Graph(call.name, tuple(this.builder.inputs), tuple(this.builder.nodes), tuple(outputs))
            self.check_loss(call, outputs[0].aval.shape if outputs else None, Traced(graph, (), out_tree, ()))
            results = [o.dtype.type(o.value) if isinstance(o, Literal) else this.values[o] for o in outputs]
        seed = [outputs[0].dtype.type(1), *[None] * (len(outputs) - 1)]
        with np.errstate(all="ignore"):
            gradients = pullback(graph.nodes, [inputs[i] for i in wrt], outputs, seed, this.values)
        return self.arrange(call, out_tree, results, gradients, wrt)


@record
class Leaf:
    """Keeps a gradient from being taken apart as a pytree."""

    value: Any


Transform = Jit | Grad
