"""Control flow: primitives whose parameters hold graphs, and whose result has several parts.

    cond(index, *operands; branches)                one of the branches, all of which take the same operands
    while_loop(*carry, *consts; condition, body)    carry = body(carry, consts) while condition(carry, consts);
    also leaves
                                                    tapes (rows of unknown number) for its pullback, and reads them
    scan(*carry, *xs, *consts; body, length)        carry, y[i] = body(carry, x[i], consts)
    item(results; index)                            one part of a result

The vjp rules are written in `grad.control`, because they differentiate the graphs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.errors import ShapeError
from tracegrad.ir import Graph, interpret
from tracegrad.ir.aval import Aval, Avals, TapeAval
from tracegrad.ir.primitive import Primitive

RULES: dict[str, Callable[..., Any]] = {}
"""vjp rules by primitive name; `grad.control` fills it."""


class Item(Primitive):
    """One part of the result of a control-flow primitive."""

    name = "item"
    kind = "item"
    moves = True
    linear = True

    def aval(self, whole: Aval, *, index: int) -> Aval:  # type: ignore[override]
        assert isinstance(whole, Avals), "item of a value with one part"
        return whole.parts[index]

    def eager(self, whole: Any, *, index: int) -> Any:
        return whole[index]


class Control(Primitive):
    """Base: the vjp is looked up in RULES."""

    kind = "control"
    moves = True

    def vjp(self, ct: Any, y: Any, *operands: Any, **params: Any) -> Any:
        if self.name not in RULES:
            raise NotImplementedError
        return RULES[self.name](ct, y, *operands, **params)


def results_of(graph: Graph) -> tuple[Aval, ...]:
    return tuple(o.aval for o in graph.outputs)


def check_inputs(name: str, graph: Graph, avals: tuple[Aval, ...]) -> None:
    wanted = tuple(n.aval for n in graph.inputs)
    if wanted != avals:
        shown = [", ".join(map(str, a)) for a in (wanted, avals)]
        raise ShapeError(f"{name}: {graph.name} takes ({shown[0]}) but is given ({shown[1]})")


class Cond(Control):
    name = "cond"

    def aval(self, index: Aval, *operands: Aval, branches: tuple[Graph, ...]) -> Aval:  # type: ignore[override]
        first = results_of(branches[0])
        for branch in branches:
            check_inputs("cond", branch, operands)
            if results_of(branch) != first:
                raise ShapeError(f"cond: the branches give {Avals.of(first)} and {Avals.of(results_of(branch))}")
        return Avals.of(first)

    def eager(self, index: Any, *operands: Any, branches: tuple[Graph, ...]) -> Any:
        chosen = min(max(int(index), 0), len(branches) - 1)
        return interpret(branches[chosen], *operands)


class WhileLoop(Control):
    """A loop of unknown length; the general form that its pullbacks take, too.

    With a `condition` it runs while that holds; without one, the first operand is the number of rounds. Then come
    `n_carry`
    carries, `n_xs` tapes (one row per round, the last row first with `reverse`), and constants. Results: the
    carries, the
    number of rounds, and a tape of every further output of the body. With `slots`, its pullback keeps so many carries.
    """

    name = "while_loop"

    def parts(self, operands: tuple[Any, ...], condition: Graph | None, n_carry: int, n_xs: int) -> tuple[Any, ...]:
        """Return (rounds or None, carry, xs, consts)."""
        rounds, rest = (None, operands) if condition is not None else (operands[0], operands[1:])
        return rounds, rest[:n_carry], rest[n_carry : n_carry + n_xs], rest[n_carry + n_xs :]

    def aval(  # type: ignore[override]
        self, *operands: Aval, condition: Graph | None, body: Graph, n_carry: int, n_xs: int, reverse: bool,
        slots: int = 0,
    ) -> Aval:  # fmt: skip
        _, carry, xs, consts = self.parts(operands, condition, n_carry, n_xs)
        rows = []
        for x in xs:
            assert isinstance(x, TapeAval), f"while_loop: {x} is not a tape"
            rows.append(x.row)
        check_inputs("while_loop", body, (*carry, *rows, *consts))
        found = results_of(body)
        if found[:n_carry] != carry:
            raise ShapeError(f"while_loop: the body takes {Avals.of(carry)} but gives {Avals.of(found[:n_carry])}")
        if condition is not None:
            check_inputs("while_loop", condition, (*carry, *consts))
            if results_of(condition) != (Aval((), np.dtype(np.bool_)),):
                raise ShapeError(f"while_loop: the condition gives {Avals.of(results_of(condition))}, not one bool")
        return Avals.of((*carry, Aval((), np.dtype(np.int64)), *(TapeAval.of(y) for y in found[n_carry:])))

    def eager(
        self, *operands: Any, condition: Graph | None, body: Graph, n_carry: int, n_xs: int, reverse: bool,
        slots: int = 0,
    ) -> Any:  # fmt: skip
        rounds, carry, xs, consts = self.parts(operands, condition, n_carry, n_xs)
        tapes: list[list[Any]] = [[] for _ in body.outputs[n_carry:]]
        count = 0
        while bool(interpret(condition, *carry, *consts)[0]) if condition is not None else count < int(rounds):
            row = int(rounds) - 1 - count if reverse else count
            found = interpret(body, *carry, *(x[row] for x in xs), *consts)
            carry = found[:n_carry]
            for tape, value in zip(tapes, found[n_carry:], strict=True):
                tape.append(value)
            count += 1
        return (*carry, np.int64(count), *(tape[::-1] if reverse else tape for tape in tapes))


class Scan(Control):
    """`n_carry` operands are carried, the next `n_xs` are cut along their first axis; what the body gives beyond
    the carry is
    stacked. With `reverse`, the last slice comes first, and the stacked results keep their slices' places."""

    name = "scan"

    def aval(  # type: ignore[override]
        self, *operands: Aval, body: Graph, n_carry: int, n_xs: int, length: int, reverse: bool
    ) -> Aval:
        carry, xs, consts = operands[:n_carry], operands[n_carry : n_carry + n_xs], operands[n_carry + n_xs :]
        for x in xs:
            if not x.shape or x.shape[0] != length:
                raise ShapeError(f"scan: {x} is not {length} long", fix="give all xs the same first axis")
        check_inputs("scan", body, (*carry, *(x.with_shape(x.shape[1:]) for x in xs), *consts))
        found = results_of(body)
        if found[:n_carry] != carry:
            raise ShapeError(f"scan: the body takes the carry {Avals.of(carry)} but gives {Avals.of(found[:n_carry])}")
        return Avals.of((*carry, *(y.with_shape((length, *y.shape)) for y in found[n_carry:])))

    def eager(
        self, *operands: Any, body: Graph, n_carry: int, n_xs: int, length: int, reverse: bool
    ) -> Any:
        carry, xs, consts = operands[:n_carry], operands[n_carry : n_carry + n_xs], operands[n_carry + n_xs :]
        stacked = [np.zeros((length, *o.aval.shape), o.dtype) for o in body.outputs[n_carry:]]
        rows = range(length - 1, -1, -1) if reverse else range(length)
        for i in rows:
            found = interpret(body, *carry, *(x[i] for x in xs), *consts)
            carry = found[:n_carry]
            for out, value in zip(stacked, found[n_carry:], strict=True):
                out[i] = value
        return (*carry, *stacked)


item, cond, while_loop, scan = Item(), Cond(), WhileLoop(), Scan()
