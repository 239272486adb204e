"""`tg.vjp`: the value now, and a function that pulls cotangents back later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import is_
from typing import Any

import numpy as np

from tracegrad import tree
from tracegrad.api.captures import Source
from tracegrad.api.function import Function, typed
from tracegrad.api.signature import Arguments, leaf_aval
from tracegrad.api.transform import Call, Jit
from tracegrad.errors import ArgumentError, GradientError, ShapeError
from tracegrad.grad.adjoint import joint, pullback, replay
from tracegrad.grad.partition import Halves, partition
from tracegrad.ir import Graph, Literal, Node
from tracegrad.ir.aval import is_float
from tracegrad.ops.elementwise import stop_gradient as stop
from tracegrad.passes.custom import inline_custom
from tracegrad.runtime.layout import layout_of
from tracegrad.runtime.program import Program, build
from tracegrad.trace import STATE, Traced, Tracer, new_trace

Programs = dict[Any, tuple[Traced, tuple[Source, ...], Halves, Program, Program]]
KEPT = 256
"""Functions whose programs `tg.vjp` and `tg.jvp` keep: those used last."""


class Same:
    """A function as a key: the same object, or the same method of the same object."""

    __slots__ = ("fn", "parts")

    def __init__(self, fn: Callable[..., Any]):
        self.fn = fn
        self.parts = getattr(fn, "__self__", None), getattr(fn, "__func__", fn)

    def __hash__(self) -> int:
        return hash(tuple(map(id, self.parts)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and all(map(is_, self.parts, other.parts))


@lru_cache(maxsize=KEPT)
def kept(same: Same) -> tuple[Function, Programs]:
    """Return a function as `Function`, with the programs of its pullbacks."""
    return as_function(same.fn), {}


def vjp(fn: Callable[..., Any], *primals: Any) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """Return `fn(*primals)` and its pullback: cotangents of the result in, one cotangent per primal out.

    Forward and backward are compiled apart; what lies between is kept, or computed again where that is cheaper. Every
    leaf of the primals and of the result must be floating point.

    >>> import numpy as np, tracegrad as tg
    >>> y, pullback = tg.vjp(lambda x: np.sin(x), np.zeros(2))
    >>> pullback(np.ones(2))
    (array([1., 1.]),)
    """
    state = STATE.get()
    abstract = state.traces or state.eager or any(isinstance(x, Tracer) for x in tree.leaves(primals))
    function, compiled = (as_function(fn), {}) if abstract else kept(Same(fn))
    arguments = function.parameters.split(primals, {})
    check_floating(function, arguments.treedef, arguments.leaves)
    if abstract:
        return traced_vjp(function.call_of(arguments), arguments.leaves)
    key = function.signature(arguments)
    if key not in compiled:
        key = build_halves(function, arguments, compiled)
    traced, captures, halves, forward, backward = compiled[key]
    results = forward([*arguments.leaves, *(source.read() for source in captures)])
    outputs, residuals = results[: halves.n_outputs], results[halves.n_outputs :]
    avals = [o.aval for o in traced.graph.outputs]

    def pull(cotangent: Any) -> tuple[Any, ...]:
        cts = check_cotangents(cotangent, traced.out_tree, avals)
        gradients = backward([*residuals, *cts])
        args, _ = tree.unflatten(arguments.treedef, gradients)
        return tuple(args)

    return tree.unflatten(traced.out_tree, outputs), pull


def build_halves(function: Function, arguments: Arguments, compiled: Programs) -> Any:
    """Compile forward and backward for a new signature; return its key among the programs."""
    key = function.signature(arguments, anew=True)
    if key in compiled:
        return key
    call = function.call_of(arguments)
    with function.watching():
        traced = call.trace(arguments.leaves)
    check_results(call, traced.graph)
    n_inputs, n_outputs = len(traced.graph.inputs), len(traced.graph.outputs)
    both = inline_custom(joint(traced.graph, range(len(arguments.leaves)), seeds=range(n_outputs)))
    halves = partition(both, n_inputs, n_outputs)
    captures = function.environment.locate(traced.captures)
    key = function.signature(arguments)
    layouts = [layout_of(value) for value in (*arguments.leaves, *traced.captures)]
    compiled[key] = traced, captures, halves, build(halves.forward, layouts=layouts), build(halves.backward)
    return key


def as_function(fn: Callable[..., Any]) -> Function:
    """Return a Function that traces what calling `fn` does; a transformed function is inlined with its transform."""
    if not isinstance(fn, Function):
        return Function(fn, Jit())
    return fn if isinstance(fn.transform, Jit) else Function(fn, Jit(), static=tuple(fn.parameters.static))


def check_floating(function: Function, treedef: Any, leaves: Sequence[Any]) -> None:
    for leaf, name in zip(leaves, function.parameters.leaf_names(treedef), strict=True):
        aval, _ = leaf_aval(leaf, name)
        if not is_float(aval.dtype):
            raise GradientError(
                f"vjp: the primal {name} is {aval}, and only floating-point values have gradients",
                fix="convert it with x.astype(np.float32), or close over it",
            )


def check_results(call: Call, graph: Graph) -> None:
    """Refuse results that have no cotangent."""
    for output in graph.outputs:
        if not is_float(output.dtype):
            raise GradientError(
                f"vjp: {call.label} returns {output.aval}, and only floating-point results have cotangents",
                fix="return floating-point values only, or use tg.value_and_grad with has_aux=True",
                where=output.where if isinstance(output, Node) else None,
            )


def check_cotangents(cotangent: Any, out_tree: Any, avals: Sequence[Any]) -> list[Any]:
    """Return the leaves of a cotangent as arrays of the results' shapes and dtypes."""
    leaves, treedef = tree.flatten(cotangent)
    if treedef != out_tree:
        raise ArgumentError(
            f"pullback: the cotangent has the structure {treedef}, the result has {out_tree}",
            fix="pass the result's structure",
        )
    found = []
    for leaf, aval in zip(leaves, avals, strict=True):
        if np.shape(leaf) != aval.shape:
            raise ShapeError(
                f"pullback: the cotangent has shape {np.shape(leaf)}, the result is {aval}",
                fix="pass a cotangent of the result's shape, for instance np.ones_like(y)",
            )
        found.append(leaf if hasattr(leaf, "_trace") else np.asarray(leaf, aval.dtype))
    return found


def traced_vjp(call: Call, leaves: Sequence[Any]) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """Inside a trace (or eagerly): record the values of every node, and pull back through them when asked."""
    leaves = [leaf.owned() if type(leaf) is Tracer else leaf for leaf in leaves]  # they may be changed before `pull`
    graph, out_tree, inputs, values = record(call, leaves)
    check_results(call, graph)
    outputs = [o.dtype.type(o.value) if isinstance(o, Literal) else values[o] for o in graph.outputs]

    def pull(cotangent: Any) -> tuple[Any, ...]:
        cts = check_cotangents(cotangent, out_tree, [o.aval for o in graph.outputs])
        gradients = pullback(graph.nodes, list(inputs[: len(leaves)]), graph.outputs, cts, values)
        args, _ = tree.unflatten(call.treedef, gradients)
        return tuple(args)

    return tree.unflatten(out_tree, outputs), pull


def record(call: Call, leaves: Sequence[Any]) -> tuple[Graph, Any, tuple[Node, ...], dict[Node, Any]]:
    """Return the graph of a call with its structure, its inputs, and the value of every node in the innermost trace."""
    traces = STATE.get().traces
    if not traces or traces[-1].computes:
        return run_recorded(call, leaves)
    traced = call.trace(leaves)
    values = replay(traced.graph, traces[-1], [*map(typed, leaves), *traced.captures])
    return traced.graph, traced.out_tree, traced.graph.inputs, values


def run_recorded(call: Call, leaves: Sequence[Any]) -> tuple[Graph, Any, tuple[Node, ...], dict[Node, Any]]:
    """Run op by op, keeping every node and its value."""
    names = call.parameters.leaf_names(call.treedef)
    with new_trace(call.name, computes=True) as this:
        tracers = []
        for leaf, name in zip(leaves, names, strict=True):
            aval, weak = leaf_aval(leaf, name)
            value = leaf if hasattr(leaf, "_trace") else np.asarray(leaf, aval.dtype)
            tracers.append(this.input(aval, name, weak=weak, value=value, given=f"the argument {name}"))
        inputs = tuple(this.builder.inputs)
        flat, out_tree = tree.flatten(call.run(tracers))
        outputs = tuple(this.lift(leaf) for leaf in flat)
        graph = Graph(call.name, tuple(this.builder.inputs), tuple(this.builder.nodes), outputs)
        return graph, out_tree, inputs, this.values


def stop_gradient(value: Any) -> Any:
    """Return `value` (a pytree) unchanged, as a constant for differentiation.

    >>> import tracegrad as tg
    >>> tg.grad(lambda x: x * tg.stop_gradient(x))(3.0)
    np.float64(3.0)
    """
    return tree.map(lambda leaf: stop(leaf) if hasattr(leaf, "_trace") else leaf, value)
