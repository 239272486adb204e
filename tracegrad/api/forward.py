"""Forward mode and Jacobians: `tg.jvp`, `tg.jacfwd`, `tg.jacrev`, `tg.hessian`.

A Jacobian is a loop over the standard basis: the function's values are computed once, outside of it; a round pushes one
basis vector forward (jacfwd: one per input element) or pulls one back (jacrev: one per output element).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracegrad import numpy as tnp
from tracegrad import tree
from tracegrad.api.control import map as map_rows
from tracegrad.api.function import Function, typed
from tracegrad.api.pullback import KEPT, Same, as_function, record
from tracegrad.api.signature import leaf_aval
from tracegrad.api.transform import Argnums, Call, Grad, Jit
from tracegrad.errors import ArgumentError, DTypeError, GradientError, ShapeError
from tracegrad.grad.adjoint import pullback, zeros
from tracegrad.grad.forward import push, pushforward
from tracegrad.inlining import inline
from tracegrad.ir import Aval, Graph, Literal, Node
from tracegrad.ir.aval import is_float
from tracegrad.ops.elementwise import convert
from tracegrad.trace import STATE, Tracer


def computes() -> bool:
    """Say whether values are at hand here (`tg.eager()`), so that nothing may be traced abstractly."""
    traces = STATE.get().traces
    return not traces or traces[-1].computes


# --- jvp --------------------------------------------------------------------------------------------------------------
def jvp(fn: Callable[..., Any], primals: Sequence[Any], tangents: Sequence[Any]) -> tuple[Any, Any]:
    """Return `fn(*primals)` and its derivative in the direction `tangents`, in one pass, compiled once per signature.

    Tangents have the structure, shapes and dtypes of the primals, whose leaves must be floating point. A result that is
    not floating point has the tangent None.

    Raises GradientError for a primal without derivatives, ArgumentError, ShapeError and DTypeError for tangents that do
    not fit their primals.

    >>> import numpy as np, tracegrad as tg
    >>> tg.jvp(np.sin, (0.0,), (2.0,))
    (np.float64(0.0), np.float64(2.0))
    """
    if not isinstance(primals, (tuple, list)) or not isinstance(tangents, (tuple, list)):
        raise ArgumentError(
            "jvp: primals and tangents must be tuples, one entry per argument",
            fix="pass (x,) and (t,) for one argument",
        )
    primals, tangents = tuple(primals), tuple(tangents)
    state = STATE.get()
    if state.traces or state.eager:
        return pushed_call(fn, primals, tangents)
    found: tuple[Any, Any] = pushed_function(Same(fn))(primals, tangents)
    return found


@functools.lru_cache(maxsize=KEPT)
def pushed_function(same: Same) -> Function:
    """Return the function of primals and tangents that a `jvp` compiles."""
    fn = same.fn

    def pushed(primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> Any:
        return pushed_call(fn, primals, tangents)

    pushed.__name__ = getattr(fn, "__name__", "pushed")
    pushed.__module__ = getattr(fn, "__module__", None) or ""
    return Function(pushed, Jit())


def pushed_call(fn: Callable[..., Any], primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Any, Any]:
    """Inside a trace (or eagerly): values and tangents of one call."""
    function = as_function(fn)
    arguments = function.parameters.split(primals, {})
    call, leaves = function.call_of(arguments), arguments.leaves
    ts = checked_tangents(function, arguments.treedef, leaves, tangents)
    if computes():
        graph, out_tree, inputs, values = record(call, leaves)
        given = dict(zip(inputs, ts, strict=False))
        outputs = [o.dtype.type(o.value) if isinstance(o, Literal) else values[o] for o in graph.outputs]
        moved = push(graph.nodes, given, graph.outputs, values)
    else:
        traced = call.trace(leaves)
        graph, out_tree = traced.graph, traced.out_tree
        floats = [i for i, o in enumerate(graph.outputs) if is_float(o.dtype)]
        both = inline(pushforward(graph, range(len(leaves)), floats), [*map(typed, leaves), *traced.captures, *ts])
        outputs = both[: len(graph.outputs)]
        moved = [None] * len(outputs)
        for i, t in zip(floats, both[len(outputs) :], strict=True):
            moved[i] = t
    ts = [tangent_result(o.aval, t, leaves) for o, t in zip(graph.outputs, moved, strict=True)]
    return tree.unflatten(out_tree, outputs), tree.unflatten(out_tree, ts)


def tangent_result(aval: Aval, t: Any, leaves: Sequence[Any]) -> Any:
    if not is_float(aval.dtype):
        return None
    return t if t is not None else zeros(aval, innermost(leaves))


def innermost(values: Sequence[Any]) -> Any:
    """Return the traced value of the deepest trace, or None."""
    return max((v for v in values if isinstance(v, Tracer)), key=lambda v: v._trace.level, default=None)


def checked_tangents(function: Function, treedef: Any, leaves: Sequence[Any], tangents: tuple[Any, ...]) -> list[Any]:
    """Return the leaves of the tangents, each of its primal's shape and dtype."""
    given, given_tree = tree.flatten((tangents, {}))
    if given_tree != treedef:
        raise ArgumentError(
            "jvp: the tangents have another structure than the primals", fix="pass one tangent per primal"
        )
    found = []
    for leaf, t, name in zip(leaves, given, function.parameters.leaf_names(treedef), strict=True):
        aval, _ = leaf_aval(leaf, name)
        if not is_float(aval.dtype):
            raise GradientError(
                f"jvp: the primal {name} is {aval}, and only floating-point values have tangents",
                fix="convert it with x.astype(np.float32), or close over it",
            )
        of_t, weak = leaf_aval(t, f"the tangent of {name}")
        if of_t.shape != aval.shape:
            raise ShapeError(f"jvp: the tangent of {name} is {of_t}, the primal is {aval}", fix="give both one shape")
        if of_t.dtype != aval.dtype and not weak:
            raise DTypeError(f"jvp: the tangent of {name} is {of_t}, the primal is {aval}", fix="give both one dtype")
        found.append(t if isinstance(t, Tracer) and t.dtype == aval.dtype else converted(t, aval))
    return found


def converted(t: Any, aval: Aval) -> Any:
    return convert(t, dtype=aval.dtype) if isinstance(t, Tracer) else np.asarray(t, aval.dtype)


# --- Jacobians --------------------------------------------------------------------------------------------------------
def jacfwd(fn: Callable[..., Any], argnums: Argnums = 0) -> Function:
    """Return the function that computes the Jacobian of `fn` by forward mode: for few inputs and many outputs.

    The derivative of a result of shape `out` by an argument of shape `in` has the shape `out + in`; pytrees nest, the
    result's structure outside. `argnums` is as in `grad`.

    Raises GradientError when an argument or a result is not floating point.

    >>> import numpy as np, tracegrad as tg
    >>> tg.jacfwd(lambda x: x * x)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """
    return jacobian(fn, argnums, columns)


def jacrev(fn: Callable[..., Any], argnums: Argnums = 0) -> Function:
    """Return the function that computes the Jacobian of `fn` by reverse mode: for many inputs and few outputs.

    Shapes, structure and errors are those of `jacfwd`.

    >>> import numpy as np, tracegrad as tg
    >>> tg.jacrev(np.sum)(np.array([1.0, 2.0]))
    array([1., 1.])
    """
    return jacobian(fn, argnums, rows)


def hessian(fn: Callable[..., Any], argnums: Argnums = 0) -> Function:
    """Return the function that computes the second derivatives of `fn`, forward over reverse.

    For a result of shape `out` and an argument of shape `in` they have the shape `out + in + in`.

    >>> import numpy as np, tracegrad as tg
    >>> tg.hessian(lambda x: np.sum(x * x * x))(np.array([1.0, 2.0]))
    array([[ 6.,  0.],
           [ 0., 12.]])
    """
    return jacfwd(jacrev(fn, argnums), argnums)


Recorded = tuple[Graph, Any, tuple[Node, ...], dict[Node, Any]]
Blocks = list[list[Any]]
"""The derivative of each output by each chosen leaf."""


def jacobian(fn: Callable[..., Any], argnums: Argnums, blocks_of: Callable[[Recorded, list[int]], Blocks]) -> Function:
    """Compile a function with the signature of `fn` that returns its Jacobian."""
    function = as_function(fn)
    chosen = Grad(argnums, has_aux=False, with_value=False)

    @functools.wraps(fn)
    def derivative(*args: Any, **kwargs: Any) -> Any:
        arguments = function.parameters.split(args, kwargs)
        call, leaves = function.call_of(arguments), arguments.leaves
        wrt = chosen.positions(call, leaves)
        recorded = record(call, leaves)
        check_results(call, recorded[0])
        parts = [chosen.arrange(call, LEAF, [None], block, wrt) for block in blocks_of(recorded, wrt)]
        return tree.unflatten(recorded[1], parts)

    return Function(derivative, Jit(), static=tuple(function.parameters.static), backend=function.backend)


LEAF = tree.flatten(0)[1]


def check_results(call: Call, graph: Graph) -> None:
    for output in graph.outputs:
        if not is_float(output.dtype):
            raise GradientError(
                f"jacobian: {call.label} returns {output.aval}, and only floating-point results have derivatives",
                fix="return floating-point values only",
                where=output.where if isinstance(output, Node) else None,
            )


def columns(recorded: Recorded, wrt: list[int]) -> Blocks:
    """Push the basis of every input forward."""
    graph, _, inputs, values = recorded
    like = innermost(list(values.values()))
    blocks: Blocks = [[] for _ in graph.outputs]
    for i in wrt:
        aval = inputs[i].aval

        def pushed(t: Any, node: Node = inputs[i]) -> list[Any]:
            found = push(graph.nodes, {node: t}, graph.outputs, values)
            return [zeros(o.aval, t) if f is None else f for o, f in zip(graph.outputs, found, strict=True)]

        for block, output, rows in zip(blocks, graph.outputs, over_basis(pushed, aval, like), strict=True):
            order = (*range(1, output.aval.ndim + 1), 0)
            block.append(tnp.reshape(tnp.transpose(rows, order), (*output.aval.shape, *aval.shape)))
    return blocks


def rows(recorded: Recorded, wrt: list[int]) -> Blocks:
    """Pull the basis of every output back."""
    graph, _, inputs, values = recorded
    like = innermost(list(values.values()))
    targets = [inputs[i] for i in wrt]
    blocks: Blocks = []
    for position, output in enumerate(graph.outputs):

        def pulled(ct: Any, position: int = position) -> list[Any]:
            cts = [ct if k == position else None for k in range(len(graph.outputs))]
            return pullback(graph.nodes, targets, graph.outputs, cts, values)

        found = over_basis(pulled, output.aval, like)
        blocks.append([tnp.reshape(f, (*output.aval.shape, *t.shape)) for f, t in zip(found, targets, strict=True)])
    return blocks


def over_basis(fn: Callable[[Any], list[Any]], aval: Aval, like: Any) -> list[Any]:
    """Stack the results of `fn` over the standard basis of `aval`; a scalar needs no loop."""
    n = math.prod(aval.shape)
    if aval.shape == ():
        one = tnp.ones((), aval.dtype) if like is None else zeros(aval, like) + aval.dtype.type(1)
        return [tnp.reshape(r, (1, *r.shape)) for r in fn(one)]
    if computes():
        each = [fn(b) for b in np.eye(max(n, 1), n, dtype=aval.dtype).reshape(max(n, 1), *aval.shape)]
        return [tnp.stack(parts)[:n] for parts in zip(*each, strict=True)]

    def one_round(i: Any) -> list[Any]:
        here = tnp.equal(np.arange(n, dtype=np.int64), i)
        return fn(tnp.reshape(here.astype(aval.dtype), aval.shape))

    found: list[Any] = map_rows(one_round, np.arange(n, dtype=np.int64))
    return found
