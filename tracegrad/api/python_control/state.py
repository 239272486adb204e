"""The variables that a converted statement may change: what they hold, and what of it can be carried by a graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracegrad import tree
from tracegrad.errors import Mismatch, TracegradError, TracerError
from tracegrad.grad.adjoint import replay
from tracegrad.ir import Aval, Literal
from tracegrad.ir.aval import can_hold, kind_of
from tracegrad.memory import LOCAL
from tracegrad.numpy.creation import zeros
from tracegrad.trace import STATE, Traced, Tracer, scalar_dtype, trace

Getter = Callable[[], tuple[Any, ...]]
Setter = Callable[[tuple[Any, ...]], None]


class Undefined:
    """What a variable holds that has not been set yet, or not on every path."""

    def __init__(self, name: str, reason: str = ""):
        self.name = name
        self.reason = reason

    def read(self) -> Any:
        if self.reason:
            raise TracerError(
                f"the variable {self.name}: {self.reason}", fix=f"give {self.name} a value before that statement"
            )
        raise UnboundLocalError(f"cannot access local variable '{self.name}' where it is not associated with a value")


class Unreturned(Undefined):
    """What the result holds before a `return` has been reached."""

    def __init__(self) -> None:
        super().__init__("the result", "it is returned on one path only")


class Guarded(Undefined):
    """A variable that is set wherever one of `guards` is true; `value` is what it holds there."""

    def __init__(self, name: str, reason: str, value: Any, guards: Sequence[Any]):
        super().__init__(name, reason)
        self.value = value
        self.guards = tuple(guards)

    def read(self) -> Any:
        if any(trace.known.get(node) is holds for trace in STATE.get().traces for node, holds in self.guards):
            return self.value
        return super().read()


class Element:
    """An element of a container that a statement may set, to be set back: it is taken away where it was not there."""

    def __init__(self, owner: Any, key: Any):
        self.owner = owner
        self.key = key

    @property
    def value(self) -> Any:
        return self.owner[self.key]

    @value.setter
    def value(self, value: Any) -> None:
        if not isinstance(value, Undefined):
            self.owner[self.key] = value
        elif hasattr(self.owner, "keys"):
            self.owner.pop(self.key, None)


class Attribute(Element):
    """An attribute of an object, likewise."""

    @property
    def value(self) -> Any:
        return getattr(self.owner, self.key)

    @value.setter
    def value(self, value: Any) -> None:
        if not isinstance(value, Undefined):
            setattr(self.owner, self.key, value)
        else:
            with suppress(AttributeError):
                delattr(self.owner, self.key)


def opened(value: Any) -> Any:
    """Return what a variable holds where it is set."""
    return value.value if isinstance(value, Guarded) else value


def closed(value: Any) -> Any:
    """Forget where a variable is set."""
    return Undefined(value.name, value.reason) if isinstance(value, Guarded) else value


def careful(set_state: Setter, names: Sequence[str]) -> Setter:
    """Return a setter of variables that refuses what an element or an attribute (`x[0]`, `self.x`) cannot hold."""

    def put(values: tuple[Any, ...]) -> None:
        try:
            set_state(values)
        except TracegradError:
            raise
        except (ValueError, TypeError) as error:
            inner = [name for name in names if "[" in name or "." in name]
            raise Mismatch(
                f"assignment: {' or '.join(inner) or 'a variable'} cannot hold a traced value",
                fix="set elements of a traced array, x = x.at[i].set(v), or keep the values in a list",
            ) from error

    return put


def refuse_unset(what: str, names: Sequence[str], values: Sequence[Any]) -> None:
    """Refuse an element or attribute that is set on some paths only: nobody would notice when it is read."""
    for name, value in zip(names, values, strict=False):
        if isinstance(value, Undefined) and value.reason and ("[" in name or "." in name):
            raise Mismatch(f"{what}: {name}: {value.reason}", fix=f"give {name} a value before that statement")


def is_traced(value: Any) -> bool:
    """Say whether a value is known only when the compiled program runs."""
    while isinstance(value, Tracer) and value._trace.computes:
        value = value._trace.value(value._node)
    return isinstance(value, Tracer)


def is_number(leaf: Any) -> bool:
    """Say whether a leaf can be a value of a graph."""
    if isinstance(leaf, (np.ndarray, np.generic)):
        return can_hold(leaf.dtype)
    return isinstance(leaf, (Tracer, bool, int, float))


def is_weak(leaf: Any) -> bool:
    return (
        leaf.weak
        if isinstance(leaf, Tracer)
        else isinstance(leaf, (bool, int, float)) and not isinstance(leaf, np.generic)
    )


def aval_of(leaf: Any) -> Aval:
    if isinstance(leaf, Tracer):
        return leaf.aval
    if isinstance(leaf, (np.ndarray, np.generic)):
        return Aval(leaf.shape, leaf.dtype)
    return Aval((), scalar_dtype(leaf))


def same(a: Any, b: Any) -> bool:
    """Say whether two leaves hold one value, known or not."""
    if a is b:
        return True
    if isinstance(a, Tracer) and isinstance(b, Tracer):
        return a._node is b._node
    if isinstance(a, (Tracer, np.ndarray)) or isinstance(b, (Tracer, np.ndarray)) or type(a) is not type(b):
        return False
    return repr(a) == repr(b) if is_number(a) else bool(a == b)


def show(value: Any) -> str:
    """Write what a variable holds, for a message."""
    leaves, treedef = tree.flatten(value)
    shown = [str(aval_of(x)) if is_number(x) and not is_weak(x) else type(x).__name__ for x in leaves]
    if any(isinstance(x, Tracer) and x.weak for x in leaves):
        shown = [str(aval_of(x)) if isinstance(x, Tracer) else s for x, s in zip(leaves, shown, strict=True)]
    return str(tree.unflatten(treedef, [Shown(s) for s in shown]))


@dataclass(frozen=True)
class Shown:
    """Prints as its text."""

    text: str

    def __repr__(self) -> str:
        return self.text


def joined(a: Any, b: Any) -> tuple[Aval, bool] | None:
    """Return the aval (and whether it is weak) that two leaves can both take, as NumPy promotes scalars, or None."""
    left, right = aval_of(a), aval_of(b)
    if left.shape != right.shape:
        return None
    if left.dtype == right.dtype:
        return left, is_weak(a) and is_weak(b)
    match is_weak(a), is_weak(b):
        case True, True:
            return left.with_dtype(np.promote_types(left.dtype, right.dtype)), True
        case True, False if fits(left.dtype, right.dtype):
            return right, False
        case False, True if fits(right.dtype, left.dtype):
            return left, False
    return None


def fits(weak: np.dtype[Any], strong: np.dtype[Any]) -> bool:
    """Say whether a Python number takes the dtype of an array beside it."""
    order = {"b": 0, "i": 1, "u": 1, "f": 2}
    return order[weak.kind] <= order[kind_of(strong)]


def cast(leaf: Any, dtype: np.dtype[Any]) -> Any:
    """Return a leaf as an array, a NumPy scalar or a tracer of this dtype."""
    if isinstance(leaf, Tracer):
        return leaf if leaf.dtype == dtype else leaf.astype(dtype)  # type: ignore[attr-defined]
    return leaf.astype(dtype, copy=False) if isinstance(leaf, np.ndarray) else dtype.type(leaf)


def as_weak(leaf: Any, weak: bool) -> Any:
    """Return a leaf that `cast` or a loop gave as one that is weak, like a Python number, or is not."""
    if isinstance(leaf, Tracer):
        return Tracer(leaf._trace, leaf._node, weak)
    return leaf.item() if weak else leaf


def zero_like(value: Any) -> Any:
    """Return zeros in the structure of `value`, for variables that a flag keeps from being read."""

    def zero(leaf: Any) -> Any:
        if not is_number(leaf):
            return leaf
        if is_weak(leaf):
            return aval_of(leaf).dtype.type(0).item()
        return zeros(leaf.shape, leaf.dtype) if leaf.shape else leaf.dtype.type(0)

    return tree.map(zero, value)


@dataclass(frozen=True)
class Region:
    """A piece of the user's code, traced: what the variables hold at its end, and the graph of all numbers in it."""

    values: tuple[Any, ...]
    traced: Traced

    def outputs(self, inputs: Sequence[Any] = ()) -> list[Any]:
        """Apply the graph in the innermost trace; return its outputs."""
        graph, here = self.traced.graph, STATE.get().traces[-1]
        found = replay(graph, here, [*inputs, *self.traced.captures])
        return [o.dtype.type(o.value) if isinstance(o, Literal) else found[o] for o in graph.outputs]


def numbers(values: Sequence[Any]) -> list[Any]:
    """Return the leaves of variables that a graph can hold."""
    return [leaf for value in values for leaf in tree.flatten(opened(value))[0] if is_number(leaf)]


def trace_region(
    run: Callable[..., tuple[Any, ...]],
    name: str,
    avals: Sequence[Aval] = (),
    weak: Sequence[bool] = (),
    *,
    carries: bool = False,
    within: Callable[[Sequence[Tracer]], AbstractContextManager[None]] | None = None,
) -> Region:
    """Trace `run(*tracers)`, which returns what the variables hold afterwards; `carries` as in `trace`.

    `within(tracers)` is where it runs, and where its results are read.
    """
    kept: list[tuple[Any, ...]] = []

    def body(*tracers: Tracer) -> list[Any]:
        with within(tracers) if within is not None else nullcontext():
            kept.append(run(*tracers))
            return [x.owned() if type(x) is Tracer else x for x in numbers(kept[-1])]

    traced = trace(body, avals, name=name, weak=weak, given=LOCAL, carries=carries)
    return Region(kept[-1], traced)
