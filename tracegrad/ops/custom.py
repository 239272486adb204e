"""Functions with a gradient of their own: a primitive that computes one graph and is differentiated by others.

    custom(*operands, *outside; body, rule)    the results of `body`; `item` picks one

The node lives as long as gradients may be asked for; after that `passes.custom` puts its body in its place. The vjp
rule is written in `grad.custom`. A `Written` primitive has rules like any other, and a graph in place of code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tracegrad.ir import Graph, interpret
from tracegrad.ir.aval import Aval, Avals
from tracegrad.ir.primitive import Primitive
from tracegrad.ops.control import Control, check_inputs, results_of
from tracegrad.trace import trace


class Rule:
    """What the user wrote in place of the derivative of a graph. In the text of a graph it is its name.

    Its graphs are set when they have been traced, once: a function may call itself in its own rule. All take what is
    read from outside as their last inputs, in one order.
    """

    def __init__(self, name: str, *, n_outside: int = 0, traced: tuple[int, ...] = (), wanted: tuple[int, ...] = ()):
        self.name = name
        self.forward: Graph | None = None
        """operands -> results, residuals"""
        self.primal: Graph | None = None
        """operands -> results, as `forward` computes them"""
        self.backward: Graph | None = None
        """residuals, cotangents of all results -> cotangents of the operands `wanted`"""
        self.wanted = wanted
        self.n_outside = n_outside
        """how many operands, the last ones, are read from outside"""
        self.traced = traced
        """which operands are traced values that are read from outside: their gradient is not known"""

    def graphs(self) -> Iterator[Graph]:
        return (g for g in (self.forward, self.backward) if g is not None)

    def __repr__(self) -> str:
        return repr(self.name)


class Written(Primitive):
    """A primitive without code of its own: its `program`, written in others, takes its place in compiled code."""

    kind = "opaque"

    def program(self, *operands: Any, **params: Any) -> Any:
        """Compute the result on traced values."""
        raise NotImplementedError(f"{self.name} has no program")

    def body(self, *operands: Aval, **params: Any) -> Graph:
        """Return the program as a graph."""
        traced = trace(lambda *xs: self.program(*xs, **params), operands, name=self.name)
        assert not traced.captures, f"the program of {self.name} reads arrays"
        assert traced.graph.outputs[0].aval == self.aval(*operands, **params), f"{self.name}: its program gives another"
        return traced.graph


class Custom(Control):
    name = "custom"

    def aval(self, *operands: Aval, body: Graph, rule: Rule | str) -> Aval:  # type: ignore[override]
        check_inputs("custom", body, operands)
        return Avals.of(results_of(body))

    def eager(self, *operands: Any, body: Graph, rule: Rule | str) -> Any:
        return interpret(body, *operands)


custom = Custom()
