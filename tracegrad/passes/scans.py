"""Rewrites of scans: what nobody reads is dropped, and matrix products move out of the rounds.

    y[i] = f(x[i] @ w, ...)      the products of all slices are one product before the scan
    y[i] = a(...) @ w            a is stacked instead, and one product follows the scan
    s = s + a(...).T @ b(...)    a and b are stacked, and one product over all rounds follows the scan

One product of many rows runs at the machine's speed where one of few rows per round reads its weights again and again.
A moved product sums the same terms; in which order is up to its kernel, as for any product.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from tracegrad.ir import Builder, Graph, Literal, Node, Operand
from tracegrad.ir.build import mapped, operand_key
from tracegrad.ops.contract import dot, free
from tracegrad.ops.control import item, scan
from tracegrad.ops.elementwise import add
from tracegrad.ops.shape import broadcast, reshape, transpose

Ints = tuple[int, ...]
STACK_BYTES = 1 << 26
"""A product stays in its loop if moving it would stack more than this."""
STACK_FACTOR = 4
"""Operands of a sum are stacked if they are at most so many times as large as one term."""


@dataclass(frozen=True)
class Carried:
    """A result that is the last value of the carry with this input of the body."""

    inner: Node


@dataclass(frozen=True)
class Stacked:
    """A result that is made of a value of the body in every round."""

    value: Operand


@dataclass(frozen=True)
class Product:
    """A result that is a product after the scan. `stacked`: which operands are; the others are the same in every round.

    `start`: what the sum over all rounds is added to; without it, the products of the rounds are stacked.
    """

    node: Node
    stacked: tuple[bool, bool]
    start: Operand | None = None


Result = Carried | Stacked | Product | None
"""None: nothing reads it."""


class Loop:
    """A scan that is being rewritten: values outside, each beside the input of the body that it is for."""

    def __init__(self, builder: Builder, node: Node, operands: Sequence[Operand], read: set[int]):
        n_carry, n_xs = node.params["n_carry"], node.params["n_xs"]
        body: Graph = node.params["body"]
        pairs = list(zip(operands, body.inputs, strict=True))
        self.builder = builder
        self.node = node
        self.body = body
        self.length = int(node.params["length"])
        self.carry = [(a, b, body.outputs[i]) for i, (a, b) in enumerate(pairs[:n_carry])]
        self.xs = pairs[n_carry : n_carry + n_xs]
        self.consts = pairs[n_carry + n_xs :]
        self.results: list[Result] = [Carried(b) for _, b, _ in self.carry]
        self.results += [Stacked(y) for y in body.outputs[n_carry:]]
        self.results = [r if i in read else None for i, r in enumerate(self.results)]

    # --- what there is ------------------------------------------------------------------------------------------------

    def slices(self) -> dict[Node, Operand]:
        """Return the arrays whose slices the body is given."""
        return {b: a for a, b in self.xs}

    def stacked(self) -> list[Operand]:
        """Return the values of the body that the scan has to stack."""
        slices = self.slices()
        values = [v for r in self.results for v in stacked_in(r)]
        return list({operand_key(v): v for v in values if not (isinstance(v, Node) and v in slices)}.values())

    def outputs(self) -> list[Operand]:
        return [*(new for _, _, new in self.carry), *self.stacked()]

    def nodes(self, outputs: Sequence[Operand] | None = None) -> list[Node]:
        """Return, in order, the nodes of the body that outputs (all of the scan's) are computed by."""
        given = {entry[1] for entry in (*self.carry, *self.xs, *self.consts)}
        needed = {o for o in (self.outputs() if outputs is None else outputs) if isinstance(o, Node)}
        found = []
        for node in reversed(self.body.nodes):
            if node in needed and node not in given:
                found.append(node)
                needed.update(node.nodes())
        return found[::-1]

    def uses(self) -> dict[Node, int]:
        """Return how often each value of the body is read, leaving the loop included."""
        count: dict[Node, int] = {}
        for operand in (*self.outputs(), *(o for n in self.nodes() for o in n.operands)):
            if isinstance(operand, Node):
                count[operand] = count.get(operand, 0) + 1
        return count

    def outside(self, operand: Operand) -> Operand | None:
        """Return the value outside of what is the same in every round."""
        return next((a for a, b in self.consts if b is operand), None)

    def has_room(self, value: Operand) -> bool:
        return self.length * value.aval.nbytes <= STACK_BYTES

    # --- what nobody reads --------------------------------------------------------------------------------------------

    def drop_unread(self) -> None:
        """Drop carries that no result depends on; inputs that nothing reads go when the scan is added."""
        held = {r.inner for r in self.results if isinstance(r, Carried)}
        dropped = True
        while dropped:
            dropped = False
            for entry in self.carry:
                if entry[1] not in held and not self.is_read_by_others(entry):
                    self.carry.remove(entry)
                    dropped = True
                    break

    def is_read_by_others(self, entry: tuple[Operand, Node, Operand]) -> bool:
        outputs = [*(c[2] for c in self.carry if c is not entry), *self.stacked()]
        return entry[1] in outputs or any(entry[1] in n.operands for n in self.nodes(outputs))

    # --- products -----------------------------------------------------------------------------------------------------

    def move_before(self) -> None:
        """Multiply all slices by what is the same in every round before the scan."""
        slices = self.slices()
        for node in self.nodes():
            if node.prim is not dot or not self.has_room(node):
                continue
            for side in (0, 1):
                x = self.whole(node.operands[side], slices)
                w = self.outside(node.operands[1 - side])
                if x is not None and w is not None:
                    operands = (x, w) if side == 0 else (w, x)
                    self.xs.append((product_of_slices(self.builder, node, operands, side), node))
                    break

    def whole(self, operand: Operand, slices: Mapping[Node, Operand]) -> Operand | None:
        """Return the array whose slices an operand of the body is, reshaped or not."""
        if isinstance(operand, Node) and operand.prim is reshape:
            source = self.whole(operand.operands[0], slices)
            shape = (self.length, *operand.shape)
            return None if source is None else self.builder.add(reshape, [source], {"shape": shape}, operand.where)
        return slices.get(operand) if isinstance(operand, Node) else None

    def move_after(self) -> None:
        """Stack the operand of a product that only leaves the loop."""
        uses = self.uses()
        for y in self.stacked():
            if not isinstance(y, Node) or y.prim is not dot or uses[y] > 1:
                continue
            for side in (0, 1):
                if self.can_stack(y.operands[side], y) and self.outside(y.operands[1 - side]) is not None:
                    product = Product(y, (side == 0, side == 1))
                    self.results = [product if r == Stacked(y) else r for r in self.results]
                    break

    def move_sums(self) -> None:
        """Make one product over all rounds of a carry to which every round adds one."""
        uses = self.uses()
        for start, inner, new in self.carry:
            product = added_product(inner, new)
            if product is None or isinstance(new, Literal) or any(uses[n] > 1 for n in (inner, new, product)):
                continue
            if Carried(inner) in self.results and all(
                self.can_stack(o, product) and self.outside(o) is None for o in product.operands
            ):
                moved = Product(product, (True, True), start)
                self.results = [moved if r == Carried(inner) else r for r in self.results]

    def can_stack(self, value: Operand, term: Node) -> bool:
        """Say whether stacking an operand of a product costs little: it is stacked anyway, or not large."""
        if not isinstance(value, Node):
            return False
        if value in self.slices() or value in self.stacked():
            return True
        return self.has_room(value) and value.aval.nbytes <= STACK_FACTOR * term.aval.nbytes

    # --- what is left -------------------------------------------------------------------------------------------------

    def finish(self) -> list[Operand | None]:
        """Add the scan that is left, and the products after it; return the results that are read."""
        last: dict[Node, Operand] = {}
        found: dict[Hashable, Operand] = {operand_key(b): a for a, b in (*self.xs, *self.consts)}
        values = self.stacked()
        if self.carry or values:
            uses = self.uses()
            xs, consts = ([entry for entry in part if entry[1] in uses] for part in (self.xs, self.consts))
            given = [*((a, b) for a, b, _ in self.carry), *xs, *consts]
            counts = {"n_carry": len(self.carry), "n_xs": len(xs)}
            params = {**self.node.params, **counts, "body": self.new_body([b for _, b in given])}
            whole = self.builder.add(scan, [a for a, _ in given], params, self.node.where)
            count = len(self.carry) + len(values)
            parts = [self.builder.add(item, [whole], {"index": i}, self.node.where) for i in range(count)]
            last = dict(zip([inner for _, inner, _ in self.carry], parts, strict=False))
            found |= dict(zip(map(operand_key, values), parts[len(self.carry) :], strict=True))
        return [last[r.inner] if isinstance(r, Carried) else self.value(r, found) for r in self.results]

    def value(self, result: Result, found: Mapping[Hashable, Operand]) -> Operand | None:
        """Return what a result is outside; `found`: what slices, stacked values and constants are."""
        if isinstance(result, Stacked):
            return found[operand_key(result.value)]
        if not isinstance(result, Product):
            return None
        a, b = (found[operand_key(o)] for o in result.node.operands)
        if result.start is None:
            return product_of_slices(self.builder, result.node, (a, b), 0 if result.stacked[0] else 1)
        total = product_of_rounds(self.builder, result.node, (a, b))
        if is_zero(result.start):
            return total
        return self.builder.add(add, [result.start, total], {}, self.node.where)

    def new_body(self, inputs: Sequence[Node]) -> Graph:
        builder = Builder(self.body.name)
        here: dict[Node, Operand] = {}
        for inner in inputs:
            here[inner] = builder.input(inner.aval, self.body.names.get(inner, ""), inner.where)
        for node in self.nodes():
            here[node] = builder.add(node.prim, [mapped(here, o) for o in node.operands], node.params, node.where)
        return builder.finish([mapped(here, o) for o in self.outputs()])


def stacked_in(result: Result) -> list[Operand]:
    """Return the values of the body that a result needs from all rounds."""
    if isinstance(result, Stacked):
        return [result.value]
    if isinstance(result, Product):
        return [o for o, s in zip(result.node.operands, result.stacked, strict=True) if s]
    return []


def is_zero(operand: Operand) -> bool:
    """Say whether an operand is zeros of any shape."""
    if isinstance(operand, Literal):
        return bool(operand.value == 0)
    return operand.prim is broadcast and is_zero(operand.operands[0])


def added_product(inner: Node, new: Operand) -> Node | None:
    """Return the product that a round adds to a carry, if that is what it does."""
    if not isinstance(new, Node) or new.prim is not add or inner not in new.operands:
        return None
    other = new.operands[1] if new.operands[0] is inner else new.operands[0]
    return other if isinstance(other, Node) and other.prim is dot else None


def product_of_slices(builder: Builder, node: Node, operands: tuple[Operand, Operand], side: int) -> Operand:
    """Return the products of all slices of operand `side`, along a new first axis."""
    contract, batch = node.params["contract"], node.params["batch"]

    def shifted(pair: tuple[Ints, Ints]) -> tuple[Ints, ...]:
        return tuple(tuple(a + 1 for a in axes) if s == side else axes for s, axes in enumerate(pair))

    params = {"contract": shifted(contract), "batch": shifted(batch)}
    whole = builder.add(dot, operands, params, node.where)
    new = len(batch[0])
    if side == 1:
        new += len(free(operands[0].aval.ndim, contract[0], batch[0]))
    if new == 0:
        return whole
    perm = (new, *(a for a in range(whole.aval.ndim) if a != new))
    return builder.add(transpose, [whole], {"perm": perm}, node.where)


def product_of_rounds(builder: Builder, node: Node, operands: tuple[Operand, Operand]) -> Operand:
    """Return the sum over all rounds of products of slices of both operands."""
    contract = tuple((0, *(a + 1 for a in axes)) for axes in node.params["contract"])
    batch = tuple(tuple(a + 1 for a in axes) for axes in node.params["batch"])
    return builder.add(dot, operands, {"contract": contract, "batch": batch}, node.where)


def improve_scans(graph: Graph) -> Graph:
    """Rewrite the scans of a graph; their bodies have been rewritten before."""
    if not any(n.prim is scan for n in graph.nodes):
        return graph
    read: dict[Node, set[int]] = {}
    for node in graph.nodes:
        if node.prim is item:
            read.setdefault(next(node.nodes()), set()).add(node.params["index"])
    builder = Builder(graph.name)
    here: dict[Node, Operand] = {}
    parts: dict[Node, list[Operand | None]] = {}
    for node in graph.inputs:
        here[node] = builder.input(node.aval, graph.names.get(node, ""), node.where)
    for node in graph.nodes:
        if node.prim is scan:
            loop = Loop(builder, node, [mapped(here, o) for o in node.operands], read.get(node, set()))
            loop.drop_unread()
            loop.move_before()
            loop.move_sums()
            loop.move_after()
            loop.drop_unread()
            parts[node] = loop.finish()
        elif node.prim is item and next(node.nodes()) in parts:
            found = parts[next(node.nodes())][node.params["index"]]
            assert found is not None, "a result of a scan is read that was thought unread"
            here[node] = found
        else:
            here[node] = builder.add(node.prim, [mapped(here, o) for o in node.operands], node.params, node.where)
    return builder.finish([mapped(here, o) for o in graph.outputs])
