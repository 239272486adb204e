"""`tg.Function` on the tape: `forward` runs once on tensors, `backward` is called when the gradient comes by.

As in PyTorch, nothing is recorded in `forward`; with `create_graph`, `backward` is recorded, and what was saved stands
in the graph if it is an argument or a result.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegrad.api.custom import Operand, checked_gradient, line_of
from tracegrad.api.custom_function import APPLY, Context, Function, gradient_tuple, result_tuple, run_forward
from tracegrad.errors import GradientError, TapeError, user_place
from tracegrad.ir.aval import Aval, Avals, has_gradient
from tracegrad.ir.primitive import Primitive
from tracegrad.ops.control import item
from tracegrad.tape.modes import no_grad
from tracegrad.tape.node import Node
from tracegrad.tape.tensor import Tensor, edge, hold, wrap
from tracegrad.trace import STATE


class TapeContext(Context):
    """The context of one call; `saved_tensors` are checked, and stand in the graph."""

    def __init__(self, needs_input_grad: Sequence[bool]):
        super().__init__(needs_input_grad)
        self.node: weakref.ref[Node] | None = None
        self.outputs: tuple[Any, ...] = ()
        self.counts: list[tuple[Any, int]] = []

    def save_for_backward(self, *values: Any) -> None:
        super().save_for_backward(*values)
        self.counts = [(v._counter, v._counter.count) for v in values if isinstance(v, Tensor)]

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        return tuple(self.in_graph(v) for v in self._saved)

    def in_graph(self, value: Any) -> Any:
        """Return a saved value; a result of `forward` as the result it has become."""
        for place, output in enumerate(self.outputs):
            node = None if self.node is None else self.node()
            if value is output and node is not None:
                return item(hold(tuple(o._data for o in self.outputs), node.aval, node), index=place)
        return value


class FunctionNode(Node):
    """A call of a `tg.Function`."""

    __slots__ = ()

    @property
    def label(self) -> str:
        return str(self.params["call"].cls.__name__)

    def name(self) -> str:
        return f"{self.label}Backward"

    def free(self) -> None:
        if self.keeps:
            self.saved = None
            self.params["call"].ctx._saved = ()


class Call:
    """One call of `apply` on tensors."""

    def __init__(self, cls: type[Function], args: tuple[Any, ...]):
        self.cls = cls
        self.args = args
        tracked = STATE.get().grad_off < 0
        self.ctx = TapeContext([tracked and isinstance(a, Tensor) and a.requires_grad for a in args])
        self.shapes = [a.aval if isinstance(a, Tensor) else None for a in args]

    def run(self) -> Any:
        edges = tuple(edge(a) if isinstance(a, Tensor) else None for a in self.args)
        with no_grad():
            found, single = result_tuple(self.cls, run_forward(self.cls, self.ctx, self.args))
        self.ctx.outputs = outputs = tuple(as_tensor(o) for o in found)
        arrays = tuple(o._data for o in outputs if isinstance(o, Tensor))
        whole = hold(arrays, Avals.of(Aval(a.shape, a.dtype) for a in arrays))
        if any(self.ctx.needs_input_grad):
            whole._node = self.record(edges, whole.aval)
        places = iter(range(len(arrays)))
        given = [self.result(whole, o, f, places) for o, f in zip(outputs, found, strict=True)]
        self.args = ()
        return given[0] if single else tuple(given)

    def result(self, whole: Any, output: Any, found: Any, places: Any) -> Any:
        if not isinstance(output, Tensor):
            return output
        tensor = wrap(output._data, item(whole, index=next(places))._node, output._counter)
        return tensor.detach() if self.ctx.is_non_differentiable(found) else tensor

    def record(self, edges: tuple[Node | None, ...], aval: Any) -> Node:
        node = FunctionNode(APPLIED, edges, {"call": self}, user_place())
        node.aval, node.shape, node.dtype = aval, (), aval.dtype
        node.saved = [None, *self.shapes]
        node.keeps = bool(self.ctx._saved)
        node.versions = [(-1 - i, version, count) for i, (version, count) in enumerate(self.ctx.counts)]
        self.ctx.node = weakref.ref(node)
        return node

    def pull(self, cts: Sequence[Any], create_graph: bool) -> list[Any]:
        """Call `backward`; return one gradient per argument."""
        if self.cls.backward is Function.backward:
            raise GradientError(f"{self.cls.__name__}: it has no backward", fix="define backward(ctx, *grads)")
        parts = iter(cts)
        given = [self.cotangent(o, next(parts)) if isinstance(o, Tensor) else None for o in self.ctx.outputs]
        found = gradient_tuple(self.cls, self.cls.backward(self.ctx, *given), len(self.shapes))
        where = line_of(self.cls.backward)
        checked: list[Any] = []
        for place, (gradient, aval) in enumerate(zip(found, self.shapes, strict=True)):
            if aval is None or not has_gradient(aval):
                checked.append(None)
                continue
            of = Operand(None, aval, False, f"argument {place}")
            value = checked_gradient(f"{self.cls.__name__}: backward", gradient, of, where)
            checked.append(value._data if isinstance(value, Tensor) and not create_graph else value)
        return checked

    def cotangent(self, output: Tensor, ct: Any) -> Any:
        if ct is None:
            return wrap(np.zeros(output.shape, output.dtype)) if self.ctx.materialize_grads else None
        return ct if isinstance(ct, Tensor) else wrap(np.asarray(ct))


def as_tensor(value: Any) -> Any:
    return wrap(np.asarray(value)) if isinstance(value, (np.ndarray, np.generic)) else value


class Applied(Primitive):
    """The node of a call; it is never applied to anything else."""

    name = "apply"
    kind = "control"

    def vjp_of(self, needed: Sequence[bool], ct: Any, y: Any, *operands: Any, call: Call) -> Any:
        found = call.pull(ct, STATE.get().grad_off < 0)
        return tuple(g if n else None for g, n in zip(found, needed, strict=True))


APPLIED = Applied()


def apply(cls: type[Function], args: tuple[Any, ...]) -> Any:
    """Apply a Function to tensors outside traces."""
    if STATE.get().traces or not any(isinstance(a, Tensor) for a in args):
        return NotImplemented
    for a in args:
        if isinstance(a, (list, dict)) and any(isinstance(x, Tensor) for x in a):
            raise TapeError(f"{cls.__name__}: a tensor in a {type(a).__name__}", fix="pass tensors one by one")
    return Call(cls, args).run()


APPLY.append(apply)
