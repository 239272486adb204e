"""Writes the scalar code of nodes at given indices: follows views, inlines what is cheap, loads the rest.

Values that an earlier pass left on the stack are in `recalls`. Every read of a node that lives elsewhere is
recorded in `needs`: that is how the lowering learns what must be in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from tracegrad.errors import Where
from tracegrad.ir import Literal, Node, Operand
from tracegrad.ir.aval import NAMES, is_float
from tracegrad.ops.contract import dot as dot_primitive
from tracegrad.ops.elementwise import Elementwise
from tracegrad.ops.index import gather
from tracegrad.ops.pool import max_pool, max_pool_pick, sum_pool
from tracegrad.ops.random import random_bits
from tracegrad.ops.shape import broadcast, iota, pad, reshape, slice_, transpose
from tracegrad.schedule.index import ZERO, Affine, Index, dot, strides, through_reshape
from tracegrad.schedule.kernel import Checked, Compute, Const, Guard, IndexValue, Load, Stmt, Test, Value
from tracegrad.schedule.kinds import lowering
from tracegrad.schedule.small_dot import point_dot

if TYPE_CHECKING:
    from collections.abc import Iterator

Checks = dict[int, tuple[Node, int]]
"""Error codes of index checks: the node that reads or writes, and the size of the axis."""
Memo = dict[tuple[Node, Index, Guard | None], Value]


class Names:
    """Fresh names within one kernel."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, prefix: str = "v") -> str:
        self.count += 1
        return f"{prefix}{self.count}"


class Body:
    """A list of statements under construction."""

    def __init__(self, inlines: Callable[[Node], bool], checks: Checks):
        self.inlines = inlines
        self.checks = checks
        self.names = Names()
        self.needs: list[Node] = []
        self.statements: list[Stmt] = []
        self.memo: Memo = {}
        self.guard: Guard | None = None
        self.work = 0
        self.here: set[Node] = set()
        self.recalls: dict[tuple[Node, Index], tuple[str, Affine]] = {}

    # --- statements ---------------------------------------------------------------------------------------------------

    def emit(self, statement: Stmt) -> None:
        self.statements.append(statement)

    def compute(self, text: str, args: Sequence[tuple[Value, str]], dtype: str, where: Where | None = None) -> str:
        name = self.names()
        self.emit(Compute(name, dtype, text, tuple(args), where))
        self.work += 1
        return name

    def load(self, buffer: str, dtype: str, index: Affine) -> str:
        name = self.names()
        self.emit(Load(name, dtype, buffer, index, self.guard))
        self.work += 1
        return name

    def index_value(self, index: Affine, dtype: str) -> str:
        name = self.names("n")
        self.emit(IndexValue(name, dtype, index))
        return name

    def checked(self, value: Value, dtype: str, size: int, node: Node) -> Affine:
        """Return the index behind an integer value, checked against an axis of `size`."""
        name = self.names("n")
        code = next((c for c, check in self.checks.items() if check == (node, size)), len(self.checks) + 1)
        self.checks[code] = (node, size)
        self.emit(Checked(name, value, dtype, size, code))
        return Affine.var(name)

    @contextmanager
    def scope(self, memo: Memo | None = None) -> Iterator[list[Stmt]]:
        """Collect statements into a list of their own; what is computed inside is forgotten afterwards."""
        outer, kept = self.statements, self.memo
        self.statements, self.memo = [], dict(kept) if memo is None else memo
        try:
            yield self.statements
        finally:
            self.statements, self.memo = outer, kept

    # --- values -------------------------------------------------------------------------------------------------------

    def value(self, operand: Operand, index: Index) -> Value:
        """Return the element of `operand` at `index`."""
        if isinstance(operand, Literal):
            return Const(operand.value, NAMES[operand.dtype])
        key = (operand, index, self.guard)
        found = self.memo.get(key)
        if found is None and self.guard is not None:
            found = self.memo.get((operand, index, None))
        if found is None:
            found = self.memo[key] = self.make(operand, index)
        return found

    def make(self, node: Node, index: Index) -> Value:
        if lowering(node) == "view":
            return self.through_view(node, index)
        if (node, index) in self.recalls:
            buffer, place = self.recalls[node, index]
            return self.load(buffer, NAMES[node.dtype], place)
        if node in self.here or self.inlines(node):
            return self.point(node, index)
        return self.read(node, index)

    def read(self, node: Node, index: Index) -> Value:
        """Load an element of a node that is in memory."""
        self.needs.append(node)
        return self.load(buffer_name(node), NAMES[node.dtype], dot(index, strides(node.shape)))

    def point(self, node: Node, index: Index) -> Value:
        """Compute one element."""
        rule = POINTS.get(node.prim)
        if rule is not None:
            return rule(self, node, index)
        dtype = NAMES[node.dtype]
        if node.prim.kind != "elementwise":
            return self.read(node, index)
        args = []
        for operand in node.operands:
            at = index if operand.aval.shape == node.shape else ()
            args.append((self.value(operand, at), NAMES[operand.dtype]))
        prim = node.prim
        text = prim.code(*node.operands) if isinstance(prim, Elementwise) else getattr(prim, "scalar", "")
        return self.compute(text, args, dtype, node.where)

    def through_view(self, node: Node, index: Index) -> Value:
        """Follow a view to its operand."""
        if node.prim is iota:
            return self.index_value(index[node.params["axis"]], NAMES[node.dtype])
        source = node.operands[0]
        if node.prim is pad:
            return self.padded(node, index)
        inner = view_index(node, index)
        if inner is not None:
            return self.value(source, inner)
        under = source
        while isinstance(under, Node) and under.prim is reshape:
            under = under.operands[0]
        assert isinstance(under, Node)
        self.needs.append(under)
        return self.load(buffer_name(under), NAMES[under.dtype], dot(index, strides(node.shape)))

    def padded(self, node: Node, index: Index) -> Value:
        source = node.operands[0]
        sizes = source.aval.shape
        low = node.params["low"]
        inner = tuple(i + -a for i, a in zip(index, low, strict=True))
        limits = [
            (i, 0, n)
            for i, n, a, b in zip(inner, sizes, low, node.params["high"], strict=True)
            if a or b
        ]
        return self.guarded(source, inner, limits, 0.0)

    def guarded(self, operand: Operand, index: Index, limits: Iterable[tuple[Affine, int, int]], fill: float) -> Value:
        """Return the element at `index` where every limit holds, `fill` elsewhere; nothing outside is read."""
        conditions = tuple(limits)
        if not conditions:
            return self.value(operand, index)
        outer = self.guard
        self.guard = Guard((*(outer.conditions if outer else ()), *conditions))
        inside = self.value(operand, index)
        holds = self.names("c")
        self.emit(Test(holds, Guard(conditions)))
        self.guard = outer
        dtype = NAMES[operand.dtype]
        default = Const(fill if is_float(operand.dtype) else int(fill), dtype)
        return self.compute("{1} if {0} else {2}", [(holds, "bool"), (inside, dtype), (default, dtype)], dtype)


def buffer_name(node: Node) -> str:
    """Name the buffer of a node until the schedule gives it a place."""
    return f"@{id(node)}"


def view_index(node: Node, index: Index) -> Index | None:
    """Return the index into a view's operand, or None when it is not affine."""
    source = node.operands[0]
    params = node.params
    if node.prim is broadcast:
        return tuple(index[a] for a in params["axes"])
    if node.prim is transpose:
        found: list[Affine] = [ZERO] * len(index)
        for result, operand in enumerate(params["perm"]):
            found[operand] = index[result]
        return tuple(found)
    if node.prim is slice_:
        return tuple(i * d + a for i, a, d in zip(index, params["start"], params["step"], strict=True))
    if node.prim is reshape:
        return through_reshape(index, node.shape, source.aval.shape)
    raise AssertionError(f"{node.prim} is not a view")


# --- points: one element of the structural primitives -----------------------------------------------------------------


def point_random(body: Body, node: Node, index: Index) -> Value:
    key = node.operands[0]
    words = [(body.value(key, (Affine(i),)), "u32") for i in range(2)]
    linear = body.index_value(dot(index, strides(node.shape)), "i64")
    high = body.compute("u32({0} >> 32)", [(linear, "i64")], "u32")
    stream = Const(int(node.params["stream"]), "u32")
    high = body.compute("{0} ^ {1}", [(high, "u32"), (stream, "u32")], "u32")
    low = body.compute("u32({0})", [(linear, "i64")], "u32")
    text = f"math.threefry2x32_{node.params['word']}({{0}}, {{1}}, {{2}}, {{3}})"
    return body.compute(text, [*words, (high, "u32"), (low, "u32")], "u32", node.where)


def point_gather(body: Body, node: Node, index: Index) -> Value:
    source, *indices = node.operands
    assert isinstance(source, Node)
    axes = node.params["axes"]
    at = index[: indices[0].aval.ndim]
    rest = iter(index[len(at) :])
    places: dict[int, Affine] = {}
    for axis, operand in zip(axes, indices, strict=True):
        value = body.value(operand, at if operand.aval.shape else ())
        places[axis] = body.checked(value, NAMES[operand.dtype], source.shape[axis], node)
    full = tuple(places[a] if a in places else next(rest) for a in range(len(source.shape)))
    return body.value(source, full)


def taps(node: Node, index: Index, size: Sequence[int]) -> Iterable[tuple[Index, list[tuple[Affine, int, int]]]]:
    """Yield, for each position in the window, the index into the operand and the limits it must keep."""
    window, stride, padding = (node.params[k] for k in ("window", "stride", "padding"))
    lead = index[: len(index) - len(window)]
    for tap in product(*map(range, window)):
        inner, limits = [], []
        for axis, t in enumerate(tap):
            low, _ = padding[axis]
            i = index[len(lead) + axis] * stride[axis] + (t - low)
            inner.append(i)
            last = (node.shape[len(lead) + axis] - 1) * stride[axis] + t - low
            if t < low or last >= size[axis]:
                limits.append((i, 0, int(size[axis])))
        yield (*lead, *inner), limits


def point_max_pool(body: Body, node: Node, index: Index) -> Value:
    source = node.operands[0]
    dtype = NAMES[node.dtype]
    best: Value | None = None
    for inner, limits in taps(node, index, source.aval.shape[-len(node.params["window"]) :]):
        value = body.guarded(source, inner, limits, -np.inf)
        best = (
            value
            if best is None
            else body.compute("maximum({0}, {1})", [(best, dtype), (value, dtype)], dtype, node.where)
        )
    assert best is not None
    return best


def point_sum_pool(body: Body, node: Node, index: Index) -> Value:
    source = node.operands[0]
    dtype = NAMES[node.dtype]
    total: Value | None = None
    for inner, limits in taps(node, index, source.aval.shape[-len(node.params["window"]) :]):
        value = body.guarded(source, inner, limits, 0.0)
        total = (
            value if total is None else body.compute("{0} + {1}", [(total, dtype), (value, dtype)], dtype, node.where)
        )
    assert total is not None
    return total


def point_max_pool_pick(body: Body, node: Node, index: Index) -> Value:
    """t at the first tap whose x equals the window's maximum: the taps are folded from the last to the first."""
    t, x, y = node.operands
    dtype = NAMES[node.dtype]
    top = body.value(y, index)
    found: Value = Const(0.0, dtype)
    for inner, limits in reversed(list(taps(node, index, x.aval.shape[-len(node.params["window"]) :]))):
        value = body.guarded(x, inner, limits, -np.inf)
        picked = body.guarded(t, inner, limits, 0.0)
        text = "{2} if ({0} == {1}) | ({0} != {0}) else {3}"
        args = [(value, dtype), (top, dtype), (picked, dtype), (found, dtype)]
        found = body.compute(text, args, dtype, node.where)
    return found


Rule = Callable[[Body, Node, Index], Value]


POINTS: dict[Any, Rule] = {
    random_bits: point_random,
    gather: point_gather,
    max_pool: point_max_pool,
    sum_pool: point_sum_pool,
    max_pool_pick: point_max_pool_pick,
    dot_primitive: point_dot,
}
"""Structural primitives that are computed one element at a time."""
