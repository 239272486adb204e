"""Control flow on traced values: `cond`, `switch`, `while_loop`, `fori_loop`, `scan`, `map`.

The functions are traced once, on abstract values, whether the call itself is traced or not; what they read from outside
becomes an operand. Branches and carries that differ in structure, shape or dtype are refused with both shown.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracegrad import numpy as tnp
from tracegrad import tree
from tracegrad.api.python_control import converted_at_need, retry
from tracegrad.api.signature import leaf_aval
from tracegrad.errors import ArgumentError, DTypeError, ShapeError
from tracegrad.grad import control as _rules  # noqa: F401  (registers the vjp rules)
from tracegrad.grad import rewind as _rewind  # noqa: F401  (likewise)
from tracegrad.ir import Aval, Builder, Graph, Node
from tracegrad.ops.control import cond as cond_primitive
from tracegrad.ops.control import item
from tracegrad.ops.control import scan as scan_primitive
from tracegrad.ops.control import while_loop as while_primitive
from tracegrad.trace import Traced, Tracer, identity, trace


def operand_leaves(values: Any, what: str) -> tuple[list[Any], tree.TreeDef, list[Aval]]:
    """Return leaves as arrays or tracers with their avals; Python numbers take the dtypes they have alone."""
    leaves, treedef = tree.flatten(values)
    avals = [leaf_aval(leaf, f"{what}[{i}]")[0] for i, leaf in enumerate(leaves)]
    typed = [
        leaf if isinstance(leaf, (np.ndarray, Tracer)) else a.dtype.type(leaf)
        for leaf, a in zip(leaves, avals, strict=True)
    ]
    return typed, treedef, avals


def trace_body(
    fn: Callable[..., Any],
    treedef: tree.TreeDef,
    avals: Sequence[Aval],
    name: str,
    check: Callable[[Any], Any] = lambda result: result,
) -> Traced:
    """Trace `check(fn(*trees))` on leaves of these avals; convert the function's own control flow if that is needed."""
    label = getattr(fn, "__name__", name)

    def traced(fn: Callable[..., Any]) -> Traced:
        run = lambda *leaves: check(fn(*tree.unflatten(treedef, leaves)))
        return trace(run, avals, name=label if label.isidentifier() else name)

    return converted_at_need(fn, traced, retry)


def with_consts(traced: Sequence[Traced]) -> tuple[list[Graph], list[Any]]:
    """Give graphs that capture different values the same further inputs; return them with the captured values."""
    consts: list[Any] = []
    place: dict[int, int] = {}
    for t in traced:
        for value in t.captures:
            if identity(value) not in place:
                place[identity(value)] = len(consts)
                consts.append(value)
    avals = [c.aval if isinstance(c, Tracer) else Aval(c.shape, c.dtype) for c in consts]
    graphs = []
    for t in traced:
        builder = Builder(t.graph.name)
        own = [builder.input(n.aval, t.graph.names.get(n, ""), n.where) for n in own_inputs(t)]
        shared = [builder.input(a, f"captured{i}") for i, a in enumerate(avals)]
        inputs = [*own, *(shared[place[identity(v)]] for v in t.captures)]
        graphs.append(builder.finish(builder.inline(t.graph, inputs)))
    return graphs, consts


def own_inputs(traced: Traced) -> tuple[Node, ...]:
    return traced.graph.inputs[: len(traced.graph.inputs) - len(traced.captures)]


def items(whole: Any, count: int) -> list[Any]:
    """Return the parts of a result; scalars that are known already are NumPy scalars, as everywhere."""
    parts = [item(whole, index=i) for i in range(count)]
    return [p[()] if isinstance(p, np.ndarray) and not p.shape else p for p in parts]


def show_results(traced: Traced) -> str:
    avals = ", ".join(str(o.aval) for o in traced.graph.outputs)
    return f"({avals})"


def cond(pred: Any, true_fn: Callable[..., Any], false_fn: Callable[..., Any], *operands: Any) -> Any:
    """Return `true_fn(*operands)` where the scalar `pred` is true, else `false_fn(*operands)`; only that one runs.

    Both must return the same structure, shapes and dtypes (ShapeError otherwise).

    >>> import tracegrad as tg
    >>> tg.cond(True, lambda x: x + 1.0, lambda x: x * 2.0, 3.0)
    np.float64(4.0)
    """
    if not isinstance(pred, Tracer):
        pred = np.asarray(pred)
    if tuple(pred.shape) != ():
        raise ShapeError(
            f"cond: the predicate has shape {tuple(pred.shape)}, not one value", fix="reduce it with .all() or .any()"
        )
    index = tnp.astype(tnp.astype(pred, np.bool_), np.int64)
    return switch(index, [false_fn, true_fn], *operands, name="cond")


def switch(index: Any, branches: Sequence[Callable[..., Any]], *operands: Any, name: str = "switch") -> Any:
    """Return `branches[index](*operands)`; an index beyond either end takes the branch at that end.

    >>> import tracegrad as tg
    >>> tg.switch(1, [lambda x: x, lambda x: -x], 3.0)
    np.float64(-3.0)
    """
    if not branches:
        raise ArgumentError(f"{name}: there are no branches", fix="pass at least one function")
    index = index if isinstance(index, Tracer) else np.asarray(index)
    if index.dtype.kind not in "iub" or tuple(index.shape) != ():
        raise DTypeError(
            f"{name}: the index is {index.dtype}{list(index.shape)}, not one integer", fix="use index.astype(np.int64)"
        )
    leaves, treedef, avals = operand_leaves(operands, "operands")
    traced = [trace_body(fn, treedef, avals, f"branch{i}") for i, fn in enumerate(branches)]
    first = traced[0]
    for other in traced[1:]:
        same = [o.aval for o in other.graph.outputs] == [o.aval for o in first.graph.outputs]
        if other.out_tree != first.out_tree or not same:
            pair = f"{other.graph.name} returns {show_results(other)}"
            pair += f" but {first.graph.name} returns {show_results(first)}"
            raise ShapeError(
                f"{name}: {pair}",
                fix="return the same structure, shapes and dtypes from every branch",
            )
    graphs, consts = with_consts(traced)
    if index.dtype == np.uint64:
        index = tnp.minimum(index, np.uint64(len(branches) - 1))
    whole = cond_primitive(tnp.astype(index, np.int64), *leaves, *consts, branches=tuple(graphs))
    return tree.unflatten(first.out_tree, items(whole, len(first.graph.outputs)))


def check_carry(name: str, traced: Traced, treedef: tree.TreeDef, avals: Sequence[Aval]) -> None:
    """Refuse a body whose carry comes back in another structure, shape or dtype."""
    found = [o.aval for o in traced.graph.outputs[: len(avals)]]
    if found != list(avals):
        pairs = "; ".join(f"{a} became {b}" for a, b in zip(avals, found, strict=False) if a != b)
        raise ShapeError(
            f"{name}: the carry changes: {pairs or 'its structure differs'}",
            fix="start from values of the final shape and dtype, for instance np.float32(0), or convert with .astype",
        )


def while_loop(
    cond_fn: Callable[[Any], Any],
    body_fn: Callable[[Any], Any],
    init: Any,
    checkpoint: int | bool = False,
    slots: int = 0,
) -> Any:
    """Return the first carry for which `cond_fn(carry)` is false, starting from `init`: carry = body_fn(carry).

    Reverse mode keeps the carry of every round (and its matrix products), in memory that grows with the loop and is
    freed when the gradient is done. What keeps less computes rounds once more: `checkpoint=k` keeps the carry of every
    k-th round, and those of k rounds at a time on the way back (n / k + k of n); `checkpoint=True` keeps about
    3 sqrt(n) carries, whatever n turns out to be. `slots=k` keeps k carries at any n, in memory that the program
    reserves beforehand (gradients of gradients keep all), and computes the rounds at most r more times, where r is the
    smallest number with (k + r)! / (k! r!) >= n: k = 20 allows 231 rounds with r = 2, 1771 with 3, 10626 with 4, 53130
    with 5.

    >>> import tracegrad as tg
    >>> tg.while_loop(lambda x: x < 100.0, lambda x: 2.0 * x, 3.0)
    np.float64(192.0)
    """
    check_checkpoint("while_loop", checkpoint, slots)
    if checkpoint is True or checkpoint > 1:
        return while_in_segments(cond_fn, body_fn, init, checkpoint)
    leaves, treedef, avals = operand_leaves((init,), "init")
    condition = trace_body(cond_fn, treedef, avals, "condition")
    body = trace_body(body_fn, treedef, avals, "body", lambda carry: (carry,))
    outputs = [o.aval for o in condition.graph.outputs]
    if outputs != [Aval((), np.dtype(np.bool_))]:
        raise ShapeError(
            f"while_loop: the condition returns {show_results(condition)}, not one bool",
            fix="compare, for instance x < 10",
        )
    if body.out_tree != treedef:
        raise ShapeError(
            "while_loop: the body returns another structure than the initial carry", fix="return the same structure"
        )
    check_carry("while_loop", body, treedef, avals)
    (condition_graph, body_graph), consts = with_consts([condition, body])
    whole = while_primitive(
        *leaves, *consts, condition=condition_graph, body=body_graph, n_carry=len(leaves), n_xs=0, reverse=False,
        **({"slots": slots} if slots else {}),
    )  # fmt: skip
    return tree.unflatten(treedef, items(whole, len(leaves)))[0]


def check_checkpoint(name: str, checkpoint: Any, slots: Any = 0) -> None:
    if not isinstance(slots, int) or slots < 0 or (slots and checkpoint):
        raise ArgumentError(
            f"{name}: slots is {slots!r} and checkpoint is {checkpoint!r}",
            fix="pass one of them: a number of carries as slots=, or checkpoint=",
        )
    if not isinstance(checkpoint, int) or checkpoint < 0:
        raise ArgumentError(
            f"{name}: checkpoint is {checkpoint!r}", fix="pass a number of rounds, or True for about the root of all"
        )


def while_in_segments(
    cond_fn: Callable[[Any], Any], body_fn: Callable[[Any], Any], init: Any, checkpoint: int | bool
) -> Any:
    """A loop of loops: an inner one runs for up to `checkpoint` rounds and leaves nothing behind for the pullback.

    With True, the first one runs for one round, the next one for two, and so on: after n rounds there are as many
    segments as the longest of them has rounds, about sqrt(2 n), so the memory is within a factor of sqrt(2) of what
    equal segments take when n is known before. An online scheme in the sense of Stumm & Walther ("New algorithms for
    optimal online checkpointing", 2010) that never moves a checkpoint, because every round is computed twice, as by
    two-level checkpointing.
    """
    grows = checkpoint is True

    def segment(state: Any) -> Any:
        rounds, carry = state
        more = lambda inner: (inner[0] < rounds) & cond_fn(inner[1])
        _, carry = while_loop(more, lambda inner: (inner[0] + 1, body_fn(inner[1])), (0, carry))
        return rounds + 1 if grows else rounds, carry

    return while_loop(lambda state: cond_fn(state[1]), segment, (int(checkpoint), init))[1]


def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
    unroll: int = 1,
    checkpoint: int | bool = False,
) -> tuple[Any, Any]:
    """Return the last carry and the stacked results of `carry, y = f(carry, x)` over the first axes of `xs`.

    `xs` is a pytree of arrays of one length (or None, with `length` given). With `reverse`, the last slice comes first.
    `unroll` rounds are written out in the body of the compiled loop. Reverse mode keeps the carry of every round; with
    `checkpoint=k` only of every k-th one, and computes the rounds in between once more (True: k is the root of the
    length).

    >>> import numpy as np, tracegrad as tg
    >>> tg.scan(lambda c, x: (c + x, c * x), 0.0, np.arange(4.0))
    (np.float64(6.0), array([0., 0., 2., 9.]))
    """
    carry, carry_tree, carry_avals = operand_leaves(init, "init")
    slices, xs_tree, xs_avals = operand_leaves(xs, "xs")
    n = scan_length(xs_avals, length)
    check_checkpoint("scan", checkpoint)
    if n > 1 and (unroll > 1 or checkpoint):
        segment = unroll if unroll > 1 else math.isqrt(n) if checkpoint is True else int(checkpoint)
        return scan_in_segments(f, init, xs, n, reverse, min(segment, n), written_out=unroll > 1)
    row_avals = [a.with_shape(a.shape[1:]) for a in xs_avals]

    def pair(result: Any) -> Any:
        if not isinstance(result, tuple) or len(result) != 2:
            raise ArgumentError(
                "scan: the function must return (carry, y)", fix="return carry, None when there is no y"
            )
        return result

    both_tree = tree.flatten((tree.unflatten(carry_tree, carry), tree.unflatten(xs_tree, slices)))[1]
    traced = trace_body(f, both_tree, [*carry_avals, *row_avals], "body", pair)
    probe = tree.unflatten(traced.out_tree, range(traced.out_tree.num_leaves))
    if tree.flatten(probe[0])[1] != carry_tree:
        raise ShapeError(
            "scan: the function returns another structure than the initial carry", fix="return the same structure"
        )
    check_carry("scan", traced, carry_tree, carry_avals)
    (graph,), consts = with_consts([traced])
    whole = scan_primitive(
        *carry, *slices, *consts, body=graph, n_carry=len(carry), n_xs=len(slices), length=n, reverse=reverse
    )
    return tuple(tree.unflatten(traced.out_tree, items(whole, len(graph.outputs))))


def scan_in_segments(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any,
    length: int,
    reverse: bool,
    k: int,
    *,
    written_out: bool,
) -> tuple[Any, Any]:
    """A scan over segments of `k` slices; a segment is a scan of its own, or `k` calls of `f`. The rest comes last."""

    def rows(first: int, last: int, tree_: Any) -> Any:
        return tree.map(lambda x: x[first:last], tree_)

    def cut(x: Any) -> Any:
        return tnp.reshape(x, (length // k, k, *x.shape[1:]))

    def steps(carry: Any, part: Any) -> tuple[Any, Any]:
        found = []
        for i in range(k):
            carry, y = f(carry, tree.map(lambda x, i=i: x[i], part))
            found.append(y)
        return carry, tree.map(lambda *ys: tnp.stack(ys), *found)

    if reverse:
        xs = tree.map(lambda x: tnp.flip(x, 0), xs)
    whole = length // k * k
    run = steps if written_out else lambda carry, part: scan(f, carry, part, length=k)
    carry, ys = scan(run, init, tree.map(cut, rows(0, whole, xs)), length=length // k)
    ys = tree.map(lambda y: tnp.reshape(y, (whole, *y.shape[2:])), ys)
    if whole < length:
        carry, rest = scan(f, carry, rows(whole, length, xs), length=length - whole)
        ys = tree.map(lambda a, b: tnp.concatenate([a, b]), ys, rest)
    return carry, tree.map(lambda y: tnp.flip(y, 0), ys) if reverse else ys


def scan_length(avals: Sequence[Aval], length: int | None) -> int:
    found = {a.shape[0] for a in avals if a.shape}
    if any(not a.shape for a in avals):
        raise ShapeError(
            "scan: xs holds a scalar, which has no first axis", fix="pass arrays, or close over the scalar"
        )
    if length is not None:
        found.add(length)
    if len(found) != 1:
        raise ShapeError(
            f"scan: xs and length give the lengths {sorted(found)}",
            fix="give all xs the same first axis, or pass length=",
        )
    return int(found.pop())


def fori_loop(
    lower: Any,
    upper: Any,
    body_fn: Callable[[Any, Any], Any],
    init: Any,
    unroll: int = 1,
    checkpoint: int | bool = False,
    slots: int = 0,
) -> Any:
    """Return the carry after `carry = body_fn(i, carry)` for i = lower, ..., upper - 1.

    With Python integers as limits this is a `scan` (see there for `unroll` and `checkpoint`), else, or with `slots`, a
    `while_loop`.

    >>> import tracegrad as tg
    >>> tg.fori_loop(0, 5, lambda i, x: x + i, 0)
    np.int64(10)
    """
    check_checkpoint("fori_loop", checkpoint, slots)
    if isinstance(lower, int) and isinstance(upper, int) and not slots:
        numbers = np.arange(lower, upper, dtype=np.int64)
        step = lambda carry, i: (body_fn(i, carry), None)
        return scan(step, init, numbers, length=len(numbers), unroll=unroll, checkpoint=checkpoint)[0]

    def advance(state: Any) -> Any:
        i, carry = state
        return i + 1, body_fn(i, carry)

    start = tnp.astype(lower, np.int64) if isinstance(lower, Tracer) else np.int64(lower)
    return while_loop(lambda state: state[0] < upper, advance, (start, init), checkpoint, slots)[1]


def checkpoint(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return `fn` such that reverse mode keeps its arguments only, and computes everything inside once more.

    >>> import numpy as np, tracegrad as tg
    >>> tg.grad(tg.checkpoint(lambda x: np.sin(np.sin(x))))(0.0)
    np.float64(1.0)
    """

    @functools.wraps(fn)
    def run(*args: Any, **kwargs: Any) -> Any:
        return switch(np.int64(0), [lambda a, k: fn(*a, **k)], args, kwargs, name="checkpoint")

    return run


def map(f: Callable[[Any], Any], xs: Any) -> Any:  # noqa: A001 (the name users know)
    """Return the stacked results of `f(x)` over the first axes of `xs`.

    >>> import numpy as np, tracegrad as tg
    >>> tg.map(lambda x: x * x, np.arange(3.0))
    array([0., 1., 4.])
    """
    return scan(lambda carry, x: (carry, f(x)), (), xs)[1]
