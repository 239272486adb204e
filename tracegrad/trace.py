"""Tracing: run a function once on abstract values and keep what it does as a graph.

A `Tracer` stands for an array inside a `Trace`. Two kinds of trace share all code: a graph trace knows only avals; an
eager trace also computes every value at once with NumPy, which is what `tg.eager()` differentiates through. Arrays met
on the way are captured: they become hidden inputs that are read again at each call, never frozen constants.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, NoReturn

import numpy as np

from tracegrad import memory, tree
from tracegrad.captured import Capture, picture, without_unused
from tracegrad.errors import (
    ArgumentError,
    TracerBoolError,
    TracerError,
    TracerLeakError,
    TracerValueError,
    Where,
    user_line,
)
from tracegrad.ir import PRIMITIVES, Aval, Builder, Graph, Literal, Node, Operand, Primitive
from tracegrad.ir.aval import Avals, check_dtype
from tracegrad.looping import Lines
from tracegrad.memory import BUFFER_FIX, VIEWS, Memory, Step
from tracegrad.record import record, replace

FUNCTIONS: dict[str, Callable[..., Any]] = {}
"""NumPy names and their traced versions; `tracegrad.numpy` fills it."""
UFUNCS: dict[np.ufunc, Callable[..., Any]] = {}
"""NumPy's ufuncs and their traced versions, for calls without keywords."""


@record
class State:
    """What is going on in this context: the live traces, outermost first, and whether `tg.eager()` is on.

    `grad_off` counts the traces that were live when `tg.no_grad()` was entered (-1: it was not). What lies at or below
    that level (the tape is level 0) passes no gradients on; a trace opened inside starts afresh.
    """

    traces: tuple[Trace, ...] = ()
    eager: bool = False
    rules: tuple[tuple[Hashable, Any], ...] = ()
    """Calls of functions with their own gradients whose rules are being traced, by what they are called with."""
    grad_off: int = -1
    patience: int = 0
    """How many nodes one line of the user's may make before LongLoop is raised; 0: any number."""


STATE: ContextVar[State] = ContextVar("tracegrad", default=State())  # noqa: B039 (frozen)


@contextmanager
def within_state(**changes: Any) -> Iterator[None]:
    """Change the state inside this block."""
    token = STATE.set(replace(STATE.get(), **changes))
    try:
        yield
    finally:
        STATE.reset(token)


def eager() -> AbstractContextManager[None]:
    """Run decorated functions op by op in NumPy inside this block: for debugging, and to compare with compiled code.

    >>> import tracegrad as tg
    >>> with tg.eager():
    ...     tg.grad(lambda x: x * x)(3.0)
    np.float64(6.0)
    """
    return within_state(eager=True)


def patience(nodes: int) -> AbstractContextManager[None]:
    """Raise LongLoop where one line of the user's makes so many nodes inside this block."""
    return within_state(patience=nodes)


def current_trace() -> Trace | None:
    """Return the innermost live trace that builds a graph, or None."""
    traces = STATE.get().traces
    return traces[-1] if traces else None


def scalar_dtype(value: bool | int | float) -> np.dtype[Any]:
    """Return the dtype a Python scalar has when nothing beside it says otherwise."""
    return np.dtype(np.bool_ if isinstance(value, bool) else np.int64 if isinstance(value, int) else np.float64)


def is_scalar(value: Any) -> bool:
    return isinstance(value, (bool, int, float)) and not isinstance(value, np.generic)


class Trace:
    """One run of a function on tracers; while `line` is set, new nodes carry it instead of the caller's line.

    `known` holds the conditions that are decided where this trace is that of a branch, `bounds` those of counters.
    """

    def __init__(self, builder: Builder, level: int, computes: bool = False):
        self.builder = builder
        self.level = level
        self.computes = computes
        self.live = True
        self.carries = False
        self.line: Where | None = None
        self.captures: list[Capture] = []
        self.captured: dict[int, Capture] = {}
        self.values: dict[Node, Any] = {}
        self.known: dict[Operand, bool] = {}
        self.bounds: dict[Operand, tuple[float, float]] = {}
        self.lines = Lines()

    def input(
        self, aval: Aval, name: str = "", *, weak: bool = False, value: Any = None, where: Where | None = None,
        given: str = "",
    ) -> Tracer:  # fmt: skip
        """Add an input; `given` says what it is to the user, if it must not be changed in place."""
        node = self.builder.input(aval, name, where or user_line())
        if self.computes:
            self.values[node] = value
        found = Tracer(self, node, weak)
        if given:
            Memory(found, given)
        return found

    def bind(
        self, prim: Primitive, operands: Sequence[Any], params: dict[str, Any], where: Where | None = None
    ) -> Tracer:
        """Add `prim(*operands)`; an eager trace computes its value, too.

        Inside a branch or a loop's body everything belongs to that body, even what reads only values from outside it:
        a branch that is not taken computes nothing.
        """
        state = STATE.get()
        here = state.traces[-1:]
        if here and here[0].level > self.level and not here[0].computes:
            return here[0].bind(prim, operands, params, where or self.line)
        found = self.apply(prim, operands, params, where)
        if state.grad_off >= self.level and not isinstance(found.aval, Avals) and prim.name != "stop_gradient":
            return self.apply(PRIMITIVES["stop_gradient"], [found], {}, where)
        return found

    def apply(self, prim: Primitive, operands: Sequence[Any], params: dict[str, Any], where: Where | None) -> Tracer:
        """Add one node."""
        nodes = [self.lift(o) for o in operands]
        where = where or self.line or self.lines.now(0 if self.computes else STATE.get().patience)
        if not self.computes:
            found = Tracer(self, self.builder.add(prim, nodes, params, where))
        else:
            aval = prim.aval(*(n.aval for n in nodes), **params)
            node = Node(prim, tuple(nodes), params, aval, where)
            self.values[node] = prim(*(self.value(n) for n in nodes), **params)
            self.builder.nodes.append(node)
            found = Tracer(self, node)
        if prim.name in VIEWS and type(operands[0]) is Tracer:
            memory.note_view(operands[0], found, prim, params)
        return found

    def takes_copies(self) -> bool:
        """Say whether nodes of another graph need only be copied: nothing is computed, and gradients pass."""
        state = STATE.get()
        return not self.computes and self.live and state.traces[-1:] == (self,) and state.grad_off < self.level

    def value(self, operand: Operand) -> Any:
        """Return the concrete value (or outer tracer) behind an operand of an eager trace."""
        return operand.dtype.type(operand.value) if isinstance(operand, Literal) else self.values[operand]

    def lift(self, value: Any, what: str = "") -> Operand:
        """Return the operand that stands for `value` here, capturing arrays and outer tracers."""
        if isinstance(value, Tracer):
            if type(value) is Tracer and value._memory is not None and value._memory.stale:
                value._memory.refuse()
            if value._trace is self and self.live:
                return value._node
            value.check_live()
            return self.capture(value, value.aval)
        if isinstance(value, Literal):
            return value
        if is_scalar(value):
            return Literal(value, scalar_dtype(value))
        if isinstance(value, np.generic):
            return Literal(value.item(), check_dtype(value.dtype))
        if isinstance(value, np.ndarray):
            return self.capture(value, Aval(value.shape, check_dtype(value.dtype, "a captured array")))
        if getattr(type(value), "unsized", False):
            value.refuse("a result")
        raise ArgumentError(
            f"{what}a value of type {type(value).__name__} is not an array, a number or a traced value",
            fix="pass np.asarray(x, dtype=np.float32) or a number",
        )

    def capture(self, value: Any, aval: Aval, *, watched: bool = True) -> Node:
        """Return the input that stands for an array or an outer trace's value, as it is now.

        An array may be changed in place later on: what has been traced before then reads what it was.
        """
        key = identity(value)
        found = self.captured.get(key)
        if found is None or not found.unchanged():
            node = self.builder.input(aval, f"captured{len(self.captures)}", user_line())
            value = value.owned() if type(value) is Tracer else value
            before = picture(value, self.computes) if watched else None
            found = self.captured[key] = Capture(node, value, before)
            self.captures.append(found)
            if self.computes:
                self.values[node] = value if before is None else before
        return found.node


class Tracer:
    """Stands for an array while a function is traced. Operators and NumPy functions on it add nodes to the graph."""

    __slots__ = ("__weakref__", "_memory", "_node", "_steps", "_trace", "weak")
    __array_priority__ = 1000.0

    def __init__(self, trace: Trace, node: Operand, weak: bool = False):
        self._trace = trace
        self._node = node
        self.weak = weak
        self._memory: Memory | None = None
        self._steps: tuple[Step, ...] = ()

    @property
    def aval(self) -> Aval:
        return self._node.aval

    @property
    def shape(self) -> tuple[int, ...]:
        return self._node.aval.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._node.aval.dtype

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return self.aval.size

    @property
    def origin(self) -> Where | None:
        return self._node.where if isinstance(self._node, Node) else None

    def check_live(self) -> None:
        """Raise TracerLeakError when the trace this value belongs to has ended."""
        if not self._trace.live:
            made = f" (it was made at {self.origin})" if self.origin else ""
            raise TracerLeakError(
                f"a traced value {self.aval} was used after its function had been traced{made}",
                fix="return it from the function instead of storing it in a global, a list or an attribute",
            )

    def owned(self) -> Tracer:
        """Return the same value with memory of its own."""
        return Tracer(self._trace, self._node, self.weak)

    def apart(self, operands: Any) -> Tracer:
        """Return a result as one that shares no memory with the operands it was computed from."""
        return self if self._memory is None and not memory.shares(self, operands) else self.owned()

    def can_change(self) -> bool:
        """Say whether operators like `+=` work in place; in a branch or loop, arguments get a new value."""
        here = current_trace()
        return here is not None and memory.can_change(self, here)

    def changed(self, value: Tracer, what: str) -> None:
        """Take the value of another tracer, of this shape and dtype, in place."""
        self.check_live()
        here = current_trace()
        if here is not None and value._trace is not here:
            value = Tracer(here, here.lift(value))
        memory.change(self, value, what)

    def contiguous(self) -> Tracer:
        """Return the array, or a copy where NumPy's would not lie in order in memory."""
        return self if memory.lies_in_order(self) else self.owned()

    def concrete(self, what: str, fix: str, error: type[TracerError] = TracerError) -> Any:
        """Return the value behind an eager tracer; a graph tracer has none."""
        self.check_live()
        if not self._trace.computes:
            raise error(f"{what} of a traced value {self.aval} is not known while tracing", fix=fix)
        value = self._trace.value(self._node)
        return value.concrete(what, fix, error) if isinstance(value, Tracer) else value

    def __bool__(self) -> bool:
        fix = "use np.where(condition, a, b), or make the argument static"
        return bool(self.concrete("the truth value", fix, TracerBoolError))

    def __int__(self) -> int:
        memory.refuse_storing(self)
        return int(self.concrete("int()", "use x.astype(np.int64), or make the argument static", TracerValueError))

    def __float__(self) -> float:
        fix = "use x.astype(np.float64), or return the value from the function"
        memory.refuse_storing(self)
        return float(self.concrete("float()", fix, TracerValueError))

    def __index__(self) -> int:
        fix = "index a traced array (tnp.asarray(table)[i]), or make the argument static"
        return int(self.concrete("an integer", fix, TracerBoolError))

    def __format__(self, spec: str) -> str:
        fix = "format the value outside the traced function, or run in tg.eager()"
        return format(self.concrete("formatting", fix), spec) if spec else repr(self)

    def item(self) -> Any:
        return np.asarray(self.concrete("item()", "return the value from the function and call item() outside")).item()

    def __len__(self) -> int:
        if not self.shape:
            raise TracerError("len() of a scalar: a traced scalar has no length", fix="check the shape of the argument")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))  # type: ignore[index]

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise TracerValueError(
            f"a traced value {self.aval} cannot be turned into a NumPy array while tracing",
            fix=f"use a function of tracegrad.numpy, or {BUFFER_FIX}",
        )

    def __hash__(self) -> int:
        fix = "index an array instead of a dictionary, or make the argument static"
        raise TracerError(f"the hash of a traced value {self.aval} is not known while tracing", fix=fix)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
        return self.dispatch(name, f"numpy.{name}", inputs, kwargs)

    def __array_function__(self, func: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        module = (func.__module__ or "numpy").removeprefix("numpy").strip(".")
        name = f"{module}.{func.__name__}" if module else func.__name__
        return self.dispatch(name, f"numpy.{name}", args, kwargs)

    def dispatch(self, name: str, shown: str, args: Any, kwargs: Any) -> Any:
        if any(getattr(type(x), "unsized", False) for x in args):
            return NotImplemented  # what a traced mask selects knows what to do
        function = FUNCTIONS.get(name)
        if function is None:
            raise TracerError(
                f"{shown} has no traced version", fix="write it with the functions of tracegrad.numpy, or open an issue"
            )
        found = function(*args, **{k: v for k, v in kwargs.items() if k != "out"})
        out = kwargs.get("out")
        return found if out is None else memory.write_out(found, out[0] if isinstance(out, tuple) else out, shown)

    def __repr__(self) -> str:
        return f"Tracer<{self.aval}>"


def identity(value: Any) -> int:
    """Return what tells captured values apart: arrays by themselves, traced values by what they are now."""
    return id(value._node) if type(value) is Tracer else id(value)


@contextmanager
def new_trace(name: str, *, computes: bool = False) -> Iterator[Trace]:
    """Open a trace inside the ones that are live; it is dead afterwards."""
    traces = STATE.get().traces
    trace = Trace(Builder(name), len(traces) + 1, computes)
    with within_state(traces=(*traces, trace)):
        try:
            yield trace
        finally:
            trace.live = False


@record
class Traced:
    """A function as a graph: its own inputs come first, then the captured ones."""

    graph: Graph
    captures: tuple[Any, ...]
    out_tree: tree.TreeDef
    weak: tuple[bool, ...]


def trace(
    fn: Callable[..., Any],
    avals: Sequence[Aval],
    *,
    name: str = "main",
    names: Sequence[str] = (),
    weak: Sequence[bool] = (),
    given: str = "",
    carries: bool = False,
) -> Traced:
    """Trace `fn(*tracers)`, which returns a pytree, once; with `names` or `given`, it cannot change its arguments.

    `carries`: where it changes an array from outside in place, Written is raised, to be traced anew with that carried.
    """
    with new_trace(name) as this:
        this.carries = carries
        arguments = [
            this.input(
                aval,
                names[i] if names else "",
                weak=bool(weak) and weak[i],
                given=f"the argument {names[i]}" if names else given,
            )
            for i, aval in enumerate(avals)
        ]
        leaves, out_tree = tree.flatten(fn(*arguments))
        outputs = [this.lift(leaf, f"the result of {name}: ") for leaf in leaves]
        graph, captures = without_unused(this.builder.finish(outputs), this.captures)
    return Traced(graph, captures, out_tree, tuple(isinstance(x, Tracer) and x.weak for x in leaves))
