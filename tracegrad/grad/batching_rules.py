"""How each kind of primitive is applied to many examples at once: rules of `grad.batching`.

Convolutions fold the batch axis into the axis of images where the kernel is the same for all examples, else into the
channels, as groups: example e's channels meet example e's kernel only.
"""

from __future__ import annotations

from typing import Any

from tracegrad.grad.batching import CONTROL, INDEX, KINDS, RULES, Batch, Flags, batched, row_by_row
from tracegrad.ir import Builder, Graph, Node
from tracegrad.ops import control
from tracegrad.ops.custom import Rule, custom
from tracegrad.ops.reduce import reduce_sum
from tracegrad.ops.shape import broadcast, iota, reshape

Ints = tuple[int, ...]
Parts = list[tuple[Any, bool]]


def shifted(axes: Ints) -> Ints:
    return tuple(a + 1 for a in axes)


# --- one value after the other ----------------------------------------------------------------------------------------
def elementwise(this: Batch, node: Node) -> Any:
    """All operands get the result's shape, literals apart."""
    shape = (this.n, *node.shape)
    operands = []
    for operand in node.operands:
        value, differs = this.value(operand), this.flag(operand)
        if isinstance(operand, Node) and not (differs and operand.shape == node.shape):
            axes = tuple(range(1, 1 + operand.aval.ndim))
            value = this.add(broadcast, value, shape=shape, axes=(0, *axes) if differs else axes)
        operands.append(value)
    return this.add(node.prim, *operands, **node.params)


def reduce(this: Batch, node: Node) -> Any:
    return this.add(node.prim, *map(this.value, node.operands), axes=shifted(node.params["axes"]))


def leading(this: Batch, node: Node) -> Any:
    """Primitives that work on the last axes, whatever stands before them."""
    return this.add(node.prim, *this.all_repeated(node), **node.params)


def changed(**change: Any) -> Any:
    """Make a rule that gives all operands the batch axis and changes parameters: each a function of (parameter, n)."""

    def rule(this: Batch, node: Node) -> Any:
        params = {**node.params, **{key: fn(node.params[key], this.n) for key, fn in change.items()}}
        return this.add(node.prim, *this.all_repeated(node), **params)

    return rule


def prefixed(first: int | None = None) -> Any:
    """Put a number in front of a tuple with one entry per axis: `first`, or the number of examples."""
    return lambda value, n: ((n if first is None else first), *value)


def next_axis(axis: int, n: int) -> int:
    return axis + 1


KINDS.update(elementwise=elementwise, opaque=leading, reduce=reduce, window=leading)
RULES.update(
    broadcast=changed(shape=prefixed(), axes=lambda axes, n: (0, *shifted(axes))),
    reshape=changed(shape=prefixed()),
    transpose=changed(perm=lambda perm, n: (0, *shifted(perm))),
    slice=changed(start=prefixed(0), size=prefixed(), step=prefixed(1)),
    pad=changed(low=prefixed(0), high=prefixed(0), gap=prefixed(0)),
    concat=changed(axis=next_axis),
    cumsum=changed(axis=next_axis),
    set_slice=changed(start=prefixed(0), step=prefixed(1)),
)


# --- contractions -----------------------------------------------------------------------------------------------------
def dot(this: Batch, node: Node) -> Any:
    """The batch axis of both operands is a batch axis of the product; that of one alone is a free axis."""
    a, b = map(this.value, node.operands)
    contract, batch = node.params["contract"], node.params["batch"]
    flags = this.flags(node)
    contract = tuple(shifted(c) if f else c for c, f in zip(contract, flags, strict=True))
    batch = tuple(shifted(c) if f else c for c, f in zip(batch, flags, strict=True))
    if flags == (True, True):
        return this.add(node.prim, a, b, contract=contract, batch=((0, *batch[0]), (0, *batch[1])))
    found = this.add(node.prim, a, b, contract=contract, batch=batch)
    rows = node.operands[0].aval.ndim - len(contract[0]) - len(batch[0])
    return this.to_front(found, len(batch[0]) + (0 if flags[0] else rows))


def folded(this: Batch, value: Any) -> Any:
    """[n, N, ...] -> [n N, ...]"""
    return this.add(reshape, value, shape=(value.shape[0] * value.shape[1], *value.shape[2:]))


def unfolded(this: Batch, value: Any) -> Any:
    """[n N, ...] -> [n, N, ...]"""
    return this.add(reshape, value, shape=(this.n, value.shape[0] // max(this.n, 1), *value.shape[1:]))


def into_channels(this: Batch, value: Any) -> Any:
    """[n, N, C, ...] -> [N, n C, ...]"""
    moved = this.from_front(value, 1)
    return this.add(reshape, moved, shape=(moved.shape[0], moved.shape[1] * moved.shape[2], *moved.shape[3:]))


def out_of_channels(this: Batch, value: Any) -> Any:
    """[N, n C, ...] -> [n, N, C, ...]"""
    channels = value.shape[1] // max(this.n, 1)
    return this.to_front(this.add(reshape, value, shape=(value.shape[0], this.n, channels, *value.shape[2:])), 1)


def convolution(this: Batch, node: Node) -> Any:
    """conv(x, w) and conv_dx(ct, w): images and kernels in, images out."""
    images, kernels = map(this.value, node.operands)
    if not this.flag(node.operands[1]):
        return unfolded(this, this.add(node.prim, folded(this, images), kernels, **node.params))
    images, kernels = this.all_repeated(node)
    params = {**node.params, "groups": node.params["groups"] * this.n}
    return out_of_channels(this, this.add(node.prim, into_channels(this, images), folded(this, kernels), **params))


def kernel_gradient(this: Batch, node: Node) -> Any:
    """conv_dw(x, ct): the examples' images stay apart, because each has a kernel's gradient of its own."""
    x, ct = (into_channels(this, v) for v in this.all_repeated(node))
    return unfolded(this, this.add(node.prim, x, ct, **{**node.params, "groups": node.params["groups"] * this.n}))


RULES.update(dot=dot, conv=convolution, conv_dx=convolution, conv_dw=kernel_gradient)


# --- indexing ---------------------------------------------------------------------------------------------------------
def example_numbers(this: Batch, shape: Ints) -> Any:
    """Return the number of the example for every index [n, *shape]."""
    return this.add(iota, shape=(this.n, *shape), axis=0, dtype=INDEX)


def batched_indices(this: Batch, operands: Any) -> list[Any]:
    return [this.repeated(this.value(o), o.aval, this.flag(o)) for o in operands]


def gather(this: Batch, node: Node) -> Any:
    x, *indices = node.operands
    axes = node.params["axes"]
    if not any(map(this.flag, indices)):
        found = this.add(node.prim, this.value(x), *map(this.value, indices), axes=shifted(axes))
        return this.to_front(found, indices[0].aval.ndim)
    each = batched_indices(this, indices)
    if not this.flag(x):
        return this.add(node.prim, this.value(x), *each, axes=axes)
    numbers = example_numbers(this, indices[0].aval.shape)
    return this.add(node.prim, this.value(x), numbers, *each, axes=(0, *shifted(axes)))


def scatter(this: Batch, node: Node) -> Any:
    """Examples write to places of their own, so the order of writes to one place stays."""
    x, updates, *indices = node.operands
    axes = node.params["axes"]
    target, rows = (this.repeated(this.value(o), o.aval, this.flag(o)) for o in (x, updates))
    if not any(map(this.flag, indices)):
        rows = this.from_front(rows, indices[0].aval.ndim)
        return this.add(node.prim, target, rows, *map(this.value, indices), axes=shifted(axes))
    numbers = example_numbers(this, indices[0].aval.shape)
    return this.add(node.prim, target, rows, numbers, *batched_indices(this, indices), axes=(0, *shifted(axes)))


RULES.update(gather=gather, scatter_add=scatter, scatter_set=scatter)


# --- control flow -----------------------------------------------------------------------------------------------------
def parts_of(this: Batch, whole: Any, flags: Flags) -> Parts:
    return [(this.add(control.item, whole, index=i), flag) for i, flag in enumerate(flags)]


def cond(this: Batch, node: Node) -> Parts:
    """One branch for all examples: the branch is batched. Else every example takes its own."""
    index, *operands = node.operands
    if this.flag(index):
        return row_by_row(this, node)
    flags = [this.flag(o) for o in operands]
    branches = node.params["branches"]
    found = [batched(b, flags, this.n, outer=this)[1] for b in branches]
    keep = tuple(any(column) for column in zip(*found, strict=True))
    graphs = tuple(batched(b, flags, this.n, keep, this)[0] for b in branches)
    whole = this.add(control.cond, *map(this.value, node.operands), branches=graphs)
    return parts_of(this, whole, keep)


def carries_that_differ(this: Batch, body: Graph, flags: Flags, n_carry: int) -> Flags:
    """Return the flags of a loop's operands: a carry differs when a round makes it so."""
    while True:
        found = batched(body, flags, this.n, outer=this)[1]
        again = (*(a or b for a, b in zip(flags[:n_carry], found[:n_carry], strict=True)), *flags[n_carry:])
        if again == flags:
            return flags
        flags = again


def first_carries(this: Batch, node: Node, flags: Flags, n_carry: int) -> list[Any]:
    """Return the first values of the carries, with the batch axis where a round gives it to them."""
    carry = zip(node.operands[:n_carry], flags, strict=False)
    return [this.repeated(this.value(o), o.aval, this.flag(o)) if flag else this.value(o) for o, flag in carry]


def scan(this: Batch, node: Node) -> Parts:
    """The slices' axis comes first, then that of the examples."""
    body, n_carry, n_xs = (node.params[key] for key in ("body", "n_carry", "n_xs"))
    flags = carries_that_differ(this, body, this.flags(node), n_carry)
    keep = (*flags[:n_carry], *(False,) * (len(body.outputs) - n_carry))
    graph, found = batched(body, flags, this.n, keep, this)
    carry = first_carries(this, node, flags, n_carry)
    xs = [
        this.from_front(this.value(o), 1) if this.flag(o) else this.value(o)
        for o in node.operands[n_carry : n_carry + n_xs]
    ]
    consts = map(this.value, node.operands[n_carry + n_xs :])
    parts = parts_of(this, this.add(control.scan, *carry, *xs, *consts, **{**node.params, "body": graph}), found)
    return [(this.to_front(v, 1) if flag and i >= n_carry else v, flag) for i, (v, flag) in enumerate(parts)]


def while_loop(this: Batch, node: Node) -> Parts:
    """If all examples need the same number of rounds, the body is batched; else each has a loop of its own."""
    condition, body, n_carry = (node.params[key] for key in ("condition", "body", "n_carry"))
    if condition is None or node.params["n_xs"] or len(body.outputs) > n_carry:
        return row_by_row(this, node)
    flags = carries_that_differ(this, body, this.flags(node), n_carry)
    test, (differs,) = batched(condition, flags, this.n, outer=this)
    if differs:
        return row_by_row(this, node)
    keep = flags[:n_carry]
    graph, _ = batched(body, flags, this.n, keep, this)
    carry = first_carries(this, node, flags, n_carry)
    params = {**node.params, "condition": test, "body": graph}
    whole = this.add(control.while_loop, *carry, *map(this.value, node.operands[n_carry:]), **params)
    return parts_of(this, whole, (*keep, False))


def own_gradient(this: Batch, node: Node) -> Parts:
    """A function with a gradient of its own: its body is batched, and so is its rule."""
    body, rule = node.params["body"], node.params["rule"]
    if isinstance(rule, Rule) and rule.forward is None:  # it is being traced, and calls itself here
        return row_by_row(this, node)
    flags = this.flags(node)
    graph, found = batched(body, flags, this.n, (True,) * len(body.outputs), this)
    of_many = batched_rule(this, rule, flags) if isinstance(rule, Rule) else rule
    whole = this.add(custom, *map(this.value, node.operands), body=graph, rule=of_many)
    return parts_of(this, whole, found)


def batched_rule(this: Batch, rule: Rule, flags: Flags) -> Rule:
    """Return the rule for many examples; the gradient of what they share is the sum over them."""
    known = this.rules.get((rule, flags))
    if known is not None:
        return known
    many = this.rules[rule, flags] = Rule(rule.name, n_outside=rule.n_outside, traced=rule.traced, wanted=rule.wanted)
    assert rule.forward is not None and rule.primal is not None
    n = this.n
    many.forward = batched(rule.forward, flags, n, (True,) * len(rule.forward.outputs), this)[0]
    many.primal = batched(rule.primal, flags, n, (True,) * len(rule.primal.outputs), this)[0]
    if rule.backward is not None:
        count = len(rule.backward.inputs) - rule.n_outside
        shared = flags[len(flags) - rule.n_outside :] if rule.n_outside else ()
        each, _ = batched(rule.backward, (*(True,) * count, *shared), n, (True,) * len(rule.backward.outputs), this)
        many.backward = summed(each, [not flags[i] for i in rule.wanted])
    return many


def summed(graph: Graph, which: list[bool]) -> Graph:
    """Return a graph whose outputs `which` are summed over the examples."""
    builder = Builder(graph.name)
    inputs = [builder.input(n.aval, graph.names.get(n, ""), n.where) for n in graph.inputs]
    outputs = builder.inline(graph, inputs)
    return builder.finish(
        [builder.add(reduce_sum, [o], {"axes": (0,)}) if w else o for o, w in zip(outputs, which, strict=True)]
    )


CONTROL.update(cond=cond, scan=scan, while_loop=while_loop, custom=own_gradient)
