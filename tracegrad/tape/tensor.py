"""Tensors: arrays that remember where they came from. Every operation runs at once, and is recorded if a gradient can
flow through it.

A tensor is a traced value whose trace is the tape: `tracegrad.numpy`, `nn.functional` and all primitives work on it
without knowing. Memory is a NumPy array; views share it, and share the counter of its in-place changes.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegrad.errors import TapeError, TracerError, Where, user_place
from tracegrad.ir import Aval, Primitive
from tracegrad.ir.aval import is_float
from tracegrad.ops.control import item as pick
from tracegrad.ops.elementwise import convert, stop_gradient
from tracegrad.tape.compute import FRESH, compute
from tracegrad.tape.node import AccumulateGrad, Node, Version, aval_of, reads_of
from tracegrad.tape.views import View, replay
from tracegrad.trace import STATE, Tracer


class Tape:
    """The outermost trace: its values are known, and what it records ends when nobody holds the results any more."""

    level = 0
    computes = True
    live = True
    line: Where | None = None
    """Set by those who add nodes to a trace in someone's name; the tape looks for the line itself."""

    def bind(self, prim: Primitive, operands: Sequence[Any], params: dict[str, Any], where: Where | None = None) -> Any:
        """Compute `prim(*operands)`; inside a traced function, add it to that function's graph instead."""
        state = STATE.get()
        if state.traces and not state.traces[-1].computes:
            return state.traces[-1].bind(prim, operands, params, where)
        values = [o._data if isinstance(o, Held) else o for o in operands]
        result = compute(prim, values, params)
        if type(result) is np.ndarray and prim.kind in FRESH and prim is not stop_gradient:
            found: Any = wrap(result)
        elif isinstance(result, (tuple, list)):
            found = hold_parts(prim, operands, params, result)
        else:
            found = hold_array(prim, operands, params, np.asarray(result))
        if state.grad_off < 0 and prim is not stop_gradient and found.differentiable:
            edges = tuple([edge(o) if isinstance(o, Held) else None for o in operands])
            needed = tuple([e is not None for e in edges])
            if True in needed:
                found._node = record(prim, operands, edges, needed, values, params, found)
        return found

    def value(self, operand: Any) -> Any:
        raise TapeError(f"the tape has no value for {operand!r}")


TAPE = Tape()


class Held(Tracer):
    """A value of the tape."""

    __slots__ = ("__dict__", "_counter", "_data")
    _trace: Any = TAPE
    weak: bool = False
    _data: Any
    _node: Any
    _counter: Version
    _view: View | None = None
    _leaf: bool = False

    differentiable: bool


class Parts(Held):
    """The results of a control-flow primitive before `item` picks one, or a loop's record of its rounds."""

    __slots__ = ("_aval",)
    _aval: Aval
    differentiable = True

    @property
    def aval(self) -> Aval:
        return self._aval


class Tensor(Held):
    """An n-dimensional array with gradients, as `torch.Tensor`; make one with `tg.tensor`.

    Operators, NumPy's functions and methods, and PyTorch's everyday methods work on it; shapes, dtypes and promotion
    are NumPy's. `requires_grad`, `grad`, `grad_fn`, `is_leaf`, `backward()` and in-place operations are PyTorch's.

    Where a name means two things, NumPy's meaning holds, unless PyTorch's keywords are used: `x.max(0)` gives values,
    `x.max(dim=0)` values and indices; `x.std()` divides by n, `x.std(dim=0)` by n - 1. A 0-d tensor promotes like any
    array. A NumPy array in an operation with tensors is kept by reference until backward, and changes to it are not
    noticed, as with `torch.from_numpy`.

    >>> import tracegrad as tg
    >>> x = tg.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> (3 * (x - 2) ** 2).mean().backward()
    >>> x.grad
    tensor([[-1.5000,  0.0000],
            [ 1.5000,  3.0000]])
    """

    __slots__ = ("dtype", "shape")
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    _grad: Tensor | None = None
    _accumulator: weakref.ref[AccumulateGrad] | None = None
    _hooks: dict[int, Any] | None = None
    _post_hooks: dict[int, Any] | None = None

    def __init__(self, data: Any, requires_grad: bool = False):
        fill(self, np.array(data), None, Version())
        self.requires_grad = requires_grad

    @property
    def aval(self) -> Aval:
        return Aval(self.shape, self.dtype)

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        return is_float(self.dtype)

    @property
    def origin(self) -> Where | None:
        return self._node.where if self._node is not None else None

    # --- the graph ----------------------------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to or through this tensor; can be set on leaves."""
        return self._leaf or current_node(self) is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and not self.differentiable:
            raise TapeError(
                f"requires_grad: {self.aval} cannot have a gradient, only floating-point tensors can",
                fix="convert it first, for instance x.astype(np.float64)",
            )
        if current_node(self) is not None:
            raise TapeError(
                f"requires_grad: {self.aval} is the result of {self._node.prim.name}, and only leaves can be changed",
                fix="use x.detach() to get a tensor without gradient",
            )
        self._leaf = bool(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set `requires_grad` and return the tensor; a result that has a gradient keeps it."""
        if not (requires_grad and current_node(self) is not None):
            self.requires_grad = requires_grad
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether this tensor was made by the user, or needs no gradient."""
        return current_node(self) is None

    @property
    def grad_fn(self) -> Node | None:
        """The node that made this tensor; None for leaves."""
        found: Node | None = current_node(self)
        return found

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward()` has accumulated, or None."""
        node = self._node
        if self._grad is None and node is not None and node.retained is None:
            warnings.warn(
                "the .grad of a tensor that is not a leaf is read, and it is not kept. fix: call x.retain_grad() first",
                UserWarning,
                stacklevel=2,
            )
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None and not isinstance(value, Tensor):
            raise TapeError(f"grad: a {type(value).__name__} is not a tensor", fix="assign a tensor or None")
        if value is not None and (value.shape != self.shape or value.dtype != self.dtype):
            raise TapeError(f"grad: {value.aval} does not fit {self.aval}", fix="use the same shape and dtype")
        if value is self:
            raise TapeError("grad: a tensor cannot be its own gradient", fix="assign a copy: x.detach().clone()")
        self._grad = value

    @property
    def _base(self) -> Tensor | None:
        return None if self._view is None else self._view.base

    @property
    def _version(self) -> int:
        """How often this memory has been changed in place."""
        return self._counter.count

    def detach(self) -> Tensor:
        """Return a tensor on the same memory that is no part of the graph."""
        return wrap(self._data, None, self._counter)

    @property
    def data(self) -> Tensor:
        """The same memory without graph, whose changes are not counted; assign to replace the memory."""
        return wrap(self._data)

    @data.setter
    def data(self, value: Tensor) -> None:
        found = value._data if isinstance(value, Tensor) else np.asarray(value, self.dtype)
        if found is not self._data:
            self._data, self.shape, self.dtype = found, found.shape, found.dtype
            self._accumulator = None

    def clone(self) -> Tensor:
        """Return a copy through which gradients flow."""
        found: Tensor = convert(self, dtype=self.dtype)
        return found

    def owned(self) -> Tensor:
        """Return a copy: tensors can be changed in place."""
        return self.clone()

    def apart(self, operands: Any) -> Tensor:
        """Return a result with memory of its own: a copy of an operand, or of a part of it, is made where it is none.

        What is a view of memory that was made on the way is that memory's only owner, and no view any more.
        """
        if shares(self._counter, operands):
            return self.clone()
        self._view = None
        return self.in_order()

    def in_order(self) -> Tensor:
        """Put the elements of a tensor that nobody else has seen into row-major order."""
        if not self._data.flags.c_contiguous:
            self._data = np.ascontiguousarray(self._data)
        return self

    # --- values -------------------------------------------------------------------------------------------------------

    def concrete(self, what: str, fix: str, error: type[TracerError] = TracerError) -> Any:
        """Return the array; inside a traced function a tensor is a hidden input, whose value is not known."""
        state = STATE.get()
        if state.traces and not state.traces[-1].computes:
            raise error(f"{what} of the tensor {self.aval} is not known while tracing", fix=fix)
        return self._data

    def numpy(self) -> np.ndarray[Any, Any]:
        """Return the memory as a NumPy array, shared. Raises TapeError if the tensor requires a gradient."""
        if self.requires_grad:
            raise TapeError(
                f"numpy: {self.aval} requires a gradient, which NumPy would lose", fix="use x.detach().numpy()"
            )
        found: np.ndarray[Any, Any] = self.concrete("numpy()", "return the value from the function")
        return found

    def __hash__(self) -> int:
        return id(self)


def shares(version: Version, values: Any) -> bool:
    """Tell whether one of some values, nested in lists, is a tensor on the memory of this counter."""
    for value in values:
        kind = type(value)
        if kind is Tensor:
            if value._counter is version:
                return True
        elif (kind is list or kind is tuple) and shares(version, value):
            return True
    return False


def fill(tensor: Held, data: Any, node: Node | None, version: Version) -> None:
    tensor._data = data
    tensor._node = node
    tensor._counter = version
    if isinstance(tensor, Tensor):
        tensor.shape, tensor.dtype = data.shape, data.dtype


def wrap(data: np.ndarray[Any, Any], node: Node | None = None, version: Version | None = None) -> Tensor:
    """Return a tensor on this memory."""
    tensor = Tensor.__new__(Tensor)
    tensor._data = data
    tensor.shape = data.shape
    tensor.dtype = data.dtype
    tensor._node = node
    tensor._counter = Version() if version is None else version
    return tensor


def hold(data: Any, aval: Aval, node: Node | None = None) -> Parts:
    """Return several results as one value of the tape."""
    parts = Parts.__new__(Parts)
    parts._data, parts._node, parts._counter, parts._aval = data, node, Version(), aval
    return parts


def current_node(tensor: Any) -> Any:
    """Return the node that made a value, None for leaves. A view of what was changed in place is recorded anew."""
    view = tensor._view
    if view is not None and view.seen != tensor._counter.count and not tensor._leaf:
        old, tensor._node = tensor._node, replay(edge(view.base), view, user_place())
        if tensor._node is not None:
            tensor._node.succeed(old)
        view.seen = tensor._counter.count
    return tensor._node


def edge(tensor: Any) -> Node | None:
    """Return the node that the cotangent of a value goes to: at a leaf, what accumulates its gradient."""
    node: Node | None = tensor._node if tensor._view is None else current_node(tensor)
    if node is not None or not tensor._leaf:
        return node
    held = tensor._accumulator
    found: AccumulateGrad | None = None if held is None else held()
    if found is None:
        found = AccumulateGrad(tensor)
        tensor._accumulator = weakref.ref(found)
    return found


def hold_array(prim: Primitive, operands: Sequence[Any], params: dict[str, Any], result: Any) -> Tensor:
    """Return a result as a tensor: a view if it shares memory with an operand."""
    if prim.kind in FRESH and prim is not stop_gradient:
        return wrap(result)
    if result.base is None and prim.kind == "shape":
        return wrap(result)
    if prim is pick:
        return wrap(result if result.flags.writeable else result.copy(), None, operands[0]._counter)
    source = source_of(operands, result)
    if source is None:
        return wrap(result if result.flags.writeable else result.copy())
    if prim is stop_gradient:
        return wrap(result, None, source._counter)
    if prim.kind != "shape":
        return wrap(result.copy())
    found = wrap(result, None, source._counter)
    found._view = View.of(source, prim, params, STATE.get().grad_off < 0)
    return found


def source_of(operands: Sequence[Any], result: Any) -> Tensor | None:
    """Return the operand that a result shares memory with."""
    for operand in operands:
        if isinstance(operand, Tensor):
            data, base = operand._data, result.base
            if base is data or np.may_share_memory(data, result) or (base is data.base and not result.size):
                return operand
    return None


def hold_parts(prim: Primitive, operands: Sequence[Any], params: dict[str, Any], result: Any) -> Parts:
    """Return several results; their memory is theirs."""
    avals = [o.aval if isinstance(o, Held) else aval_of(o) for o in operands]
    return hold(result, prim.aval(*avals, **params))


def record(
    prim: Primitive,
    operands: Sequence[Any],
    edges: tuple[Node | None, ...],
    needed: tuple[bool, ...],
    values: list[Any],
    params: dict[str, Any],
    result: Any,
) -> Node:
    """Return a node that keeps what the rule of `prim` reads."""
    node = Node(prim, edges, params, user_place())
    reads = reads_of(prim, needed, values, result._data, params)
    saved: list[Any] = [None]
    versions = node.versions
    for number, value in enumerate(values, 1):
        if reads[number] or not isinstance(value, (np.ndarray, tuple)):
            saved.append(value)
            operand = operands[number - 1]
            if isinstance(operand, Held):
                version = operand._counter
                versions.append((number, version, version.count))
        else:
            target = edges[number - 1]
            saved.append(aval_of(value) if target is None else target)
    if reads[0]:
        saved[0] = result._data
        if not prim.private:
            versions.append((0, result._counter, result._counter.count))
    node.saved = saved
    node.keeps = reads[0] or any(isinstance(value, (np.ndarray, tuple)) for value in saved)
    node.aval = None
    if isinstance(result, Tensor):
        node.shape, node.dtype = result.shape, result.dtype
    else:
        node.aval = result.aval
        node.shape, node.dtype = node.aval.shape, node.aval.dtype
    return node
