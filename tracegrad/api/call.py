"""Compiled programs on the tape: one primitive that runs a compiled graph, and whose pullback runs another.

    call(*operands; body)       the results of the compiled `body`; with gradients to come, its residuals as well

The rule is the compiled backward half, applied to residuals and cotangents: a `call` again, so gradients of gradients
follow. Where cotangents of residuals come back as well (from the second order on), the joint graph of the body is
compiled instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracegrad.errors import ArgumentError
from tracegrad.grad import control as _control  # noqa: F401  (registers vjp rules: a loaded graph may need them)
from tracegrad.grad import custom as _custom  # noqa: F401  (likewise)
from tracegrad.grad import rewind as _rewind  # noqa: F401  (likewise)
from tracegrad.grad.adjoint import joint
from tracegrad.grad.partition import partition
from tracegrad.ir import Aval, Graph
from tracegrad.ir.aval import Avals, has_gradient
from tracegrad.ir.build import live
from tracegrad.ir.primitive import Primitive
from tracegrad.ops.control import item
from tracegrad.ops.shape import broadcast
from tracegrad.runtime.program import Program, build
from tracegrad.trace import STATE

Places = tuple[int, ...]


class Body:
    """A graph with its program; `backward` takes residuals and cotangents of the floating-point results to gradients
    of the inputs `wrt`, where it was split off."""

    def __init__(self, graph: Graph, n_results: int, wrt: Places = (), backward: Body | None = None):
        self.graph = graph
        self.n_results = n_results
        self.wrt = wrt
        self.backward = backward
        self._program: Program | None = None
        self._tracked: dict[Places, Body] = {}
        self._adjoints: dict[tuple[Places, Places], Body] = {}

    @property
    def program(self) -> Program:
        if self._program is None:
            self._program = build(self.graph)
        return self._program

    def tracked(self, wrt: Places) -> Body:
        """Return the body that also gives residuals for the gradient in the inputs `wrt`."""
        if wrt not in self._tracked:
            n_inputs, n_results = len(self.graph.inputs), len(self.graph.outputs)
            halves = partition(joint(self.graph, wrt, seeds=self.floating(n_results)), n_inputs, n_results)
            backward = Body(halves.backward, len(wrt))
            self._tracked[wrt] = Body(halves.forward, n_results, wrt, backward)
        return self._tracked[wrt]

    def floating(self, count: int) -> Places:
        """Return which of the first results can have a cotangent."""
        return tuple(i for i, o in enumerate(self.graph.outputs[:count]) if has_gradient(o.aval))

    def adjoint(self, wrt: Places, seeds: Places) -> Body:
        """Return the body from the inputs and the cotangents of `seeds` to the gradients of `wrt`."""
        if (wrt, seeds) not in self._adjoints:
            both = joint(self.graph, wrt, seeds=seeds)
            outputs = both.outputs[len(self.graph.outputs) :]
            only = Graph(both.name, both.inputs, live(both.nodes, outputs), outputs, both.names)
            self._adjoints[wrt, seeds] = Body(only, len(wrt))
        return self._adjoints[wrt, seeds]


class CompiledCall(Primitive):
    name = "call"
    kind = "control"
    private = True
    moves = True

    def aval(self, *operands: Aval, body: Body) -> Aval:  # type: ignore[override]
        return Avals.of(o.aval for o in body.graph.outputs)

    def eager(self, *operands: Any, body: Body) -> Any:
        return tuple(body.program(operands))

    def vjp(self, ct: Any, y: Any, *operands: Any, body: Body) -> Any:
        wanted = tuple(has_gradient(n.aval) for n in body.graph.inputs)
        return self.vjp_of(wanted, ct, y, *operands, body=body)

    def vjp_of(self, needed: Sequence[bool], ct: Any, y: Any, *operands: Any, body: Body) -> Any:
        wrt = tuple(i for i, n in enumerate(needed) if n)
        seeds = tuple(i for i, c in enumerate(ct) if c is not None)
        if body.backward is not None and set(wrt) <= set(body.wrt) and all(s < body.n_results for s in seeds):
            like = ct[seeds[0]]
            cts = [zeros(body, i, like) if ct[i] is None else ct[i] for i in body.floating(body.n_results)]
            residuals = [item(y, index=i) for i in range(body.n_results, len(body.graph.outputs))]
            found = dict(zip(body.wrt, results(call(*residuals, *cts, body=body.backward), len(body.wrt)), strict=True))
        else:
            adjoint = body.adjoint(wrt, seeds)
            whole = call(*operands, *(ct[s] for s in seeds), body=adjoint)
            found = dict(zip(wrt, results(whole, len(wrt)), strict=True))
        return tuple(found.get(i) if n else None for i, n in enumerate(needed))


call = CompiledCall()


def results(whole: Any, count: int) -> list[Any]:
    return [item(whole, index=i) for i in range(count)]


def zeros(body: Body, place: int, like: Any) -> Any:
    aval = body.graph.outputs[place].aval
    return broadcast.beside(like, aval.dtype.type(0), shape=aval.shape, axes=())


def on_tape(body: Body, donate: Sequence[int], inputs: Sequence[Any]) -> list[Any]:
    """Run a compiled graph on tensors: one node on the tape, if a gradient is wanted of any of them."""
    wrt: Places = ()
    if STATE.get().grad_off < 0:
        wrt = tuple(i for i, x in enumerate(inputs) if getattr(x, "requires_grad", False))
    if donate:
        raise ArgumentError(
            "donate: tensors cannot be donated, their memory belongs to the tape",
            fix="pass arrays (x.detach().numpy()), or compile without donate=",
        )
    chosen = body.tracked(wrt) if wrt and body.floating(body.n_results) else body
    return results(call(*inputs, body=chosen), body.n_results)
