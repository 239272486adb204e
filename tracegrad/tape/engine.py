"""The backward walk over the tape. The mathematics is `grad.adjoint.walk`, on arrays, or on tensors when the gradients
shall be differentiable themselves; here is what PyTorch adds: hooks, accumulation, freeing, errors."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from operator import attrgetter, methodcaller
from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError, GradientError, ShapeError, TapeError
from tracegrad.grad.adjoint import Values, walk
from tracegrad.tape.modes import switched
from tracegrad.tape.node import AccumulateGrad, Node, aval_of
from tracegrad.tape.tensor import Tensor, edge, hold, wrap
from tracegrad.trace import STATE, Tracer


class SavedArrays(Values):
    """What nodes have kept, as arrays: the rules compute at once, and nothing is recorded."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__({})

    def operands(self, node: Any) -> list[Any]:
        return node.saved[1:]  # type: ignore[no-any-return]

    def result(self, node: Any) -> Any:
        return node if node.saved[0] is None else node.saved[0]

    def ready(self, node: Any) -> None:
        node.check()

    def rule(self, node: Any, needed: Sequence[bool], ct: Any) -> Any:
        """Apply a rule; those made of costly primitives see tensors, so that the compiled ones are used."""
        prim = node.prim
        if prim.constant:
            return zeros_of(node, np.zeros)
        if not prim.costly or prim.kind == "elementwise":
            y, *operands = node.saved
            return prim.vjp_of(needed, ct, node if y is None else y, *operands, **node.params)
        held = [wrap(v) if isinstance(v, np.ndarray) else v for v in (self.result(node), *self.operands(node))]
        found = prim.vjp_of(needed, wrap(np.asarray(ct)), *held, **node.params)
        each = found if isinstance(found, tuple) else (found,)
        return tuple([g._data if isinstance(g, Tensor) else g for g in each])


class SavedTensors(Values):
    """What nodes have kept, as tensors in the graph: what the rules compute is recorded, for higher derivatives."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__({})

    def operands(self, node: Any) -> list[Any]:
        rows = enumerate(zip(node.saved[1:], node.operands, strict=True), 1)
        return [s if n is None or s is n else as_held(node, place, s, n) for place, (s, n) in rows]

    def ready(self, node: Any) -> None:
        node.check()

    def rule(self, node: Any, needed: Sequence[bool], ct: Any) -> Any:
        if node.prim.constant:
            return zeros_of(node, lambda shape, dtype: wrap(np.zeros(shape, dtype)))
        return super().rule(node, needed, ct)

    def result(self, node: Any) -> Any:
        return node if node.saved[0] is None else as_held(node, 0, node.saved[0], node)


def zeros_of(node: Node, make: Callable[[Any, Any], Any]) -> tuple[Any, ...]:
    """Return the cotangents of the operands of a primitive whose gradient is zero: hooks are to see them."""
    return tuple([None if n is None else make(n.shape, n.dtype) for n in node.operands])


def as_held(node: Node, place: int, value: Any, source: Node) -> Any:
    """Return a kept value as the tensor that `source` made."""
    if isinstance(value, np.ndarray):
        return wrap(value, source, next((v for p, v, _ in node.versions if p == place), None))
    return hold(value, source.aval if source.aval is not None else aval_of(value), source)


ARRAYS, TENSORS = SavedArrays(), SavedTensors()


class Pass:
    """One backward pass. The cotangents of the nodes `wanted` are captured on the way."""

    __slots__ = ("captured", "create_graph", "retain_graph", "wanted")

    def __init__(self, create_graph: bool, retain_graph: bool | None, wanted: Iterable[Node] = ()):
        self.create_graph = create_graph
        self.retain_graph = create_graph if retain_graph is None else retain_graph
        self.wanted = set(wanted)
        self.captured: dict[Node, Any] = {}

    def tensor(self, ct: Any) -> Tensor:
        return ct if isinstance(ct, Tensor) else wrap(np.asarray(ct))

    def enter(self, node: Node, ct: Any) -> Any:
        """Run the hooks of the result of a node, and keep the cotangent where it is asked for."""
        if node.hooks:
            ct = self.hooked(node.hooks, ct)
        if node.retained is not None:
            variable = node.retained()
            if variable is not None:
                self.add_to(variable, ct)
        if self.wanted and node in self.wanted:
            self.captured[node] = ct
        return ct

    def hooked(self, hooks: dict[int, Callable[[Any], Any]], ct: Any) -> Any:
        for hook in list(hooks.values()):
            given = self.tensor(ct)
            found = hook(given)
            if found is None:
                continue
            if not isinstance(found, Tracer) or found.shape != given.shape:
                shown = found.aval if isinstance(found, Tensor) else type(found).__name__
                raise TapeError(f"hook: the hook returned {shown} for a gradient {given.aval}", fix="return a tensor")
            ct = found if self.create_graph else found._data  # type: ignore[attr-defined]
        return ct

    def run(self, seeds: list[tuple[Node, Any]], nodes: list[Node], active: Any) -> dict[Any, Any]:
        """Walk over the nodes; return the cotangents that are left over."""
        leave = None if self.retain_graph else methodcaller("free")
        return walk(nodes, active, seeds, TENSORS if self.create_graph else ARRAYS, self.enter, leave)

    def accumulate(self, leaf: AccumulateGrad, ct: Any) -> None:
        """Add a cotangent to the gradient of a leaf, with its hooks before and after."""
        variable = leaf.variable
        if not variable._leaf:  # requires_grad has been switched off since
            return
        if variable._hooks:
            ct = self.hooked(variable._hooks, ct)
        self.add_to(variable, ct)
        if variable._post_hooks:
            for hook in list(variable._post_hooks.values()):
                hook(variable)

    def add_to(self, variable: Tensor, ct: Any) -> None:
        held = variable._grad
        if self.create_graph:
            variable._grad = self.tensor(ct).clone() if held is None else held + ct
        elif held is None:
            variable._grad = wrap(np.array(ct, variable.dtype))
        elif held.requires_grad or not held._data.flags.writeable:
            variable._grad = wrap(held._data + ct)
        else:
            np.add(held._data, ct, out=held._data)
            held._counter.count += 1


@contextmanager
def mode(create_graph: bool) -> Iterator[None]:
    """Record what rules and hooks compute, or not; NumPy does not warn of overflow."""
    token = STATE.set(switched(create_graph))
    try:
        with np.errstate(all="ignore"):
            yield
    finally:
        STATE.reset(token)


def reachable(roots: Iterable[Node]) -> tuple[list[Node], list[AccumulateGrad], set[Node]]:
    """Return the nodes that the roots depend on, operands first, the leaves among them apart, and both together."""
    seen: set[Node] = set()
    pending = list(roots)
    nodes: list[Node] = []
    leaves: list[AccumulateGrad] = []
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, AccumulateGrad):
            leaves.append(node)
            continue
        nodes.append(node)
        for operand in node.operands:
            if operand is not None and operand not in seen:
                pending.append(operand)
    nodes.sort(key=NUMBER)
    leaves.sort(key=NUMBER)
    return nodes, leaves, seen


NUMBER = attrgetter("number")


def leading_to(wanted: set[Node], nodes: Iterable[Node]) -> set[Node]:
    """Return the nodes through which cotangents flow to those wanted."""
    found = set(wanted)
    for node in nodes:
        if any(o in found for o in node.operands):
            found.add(node)
    return found


def listed(given: Any) -> list[Any]:
    return list(given) if isinstance(given, (list, tuple)) else [given]


def seeds_of(outputs: Sequence[Any], gradients: Any, create_graph: bool) -> list[tuple[Node, Any]]:
    """Return the node of each output with its cotangent: 1 for scalars if none is given."""
    given = [None] * len(outputs) if gradients is None else listed(gradients)
    if len(given) != len(outputs):
        raise ArgumentError(f"backward: {len(outputs)} outputs but {len(given)} gradients", fix="pass one for each")
    found = []
    for output, ct in zip(outputs, given, strict=True):
        if not isinstance(output, Tensor):
            raise ArgumentError(f"backward: a {type(output).__name__} is not a tensor", fix="pass tensors")
        if STATE.get().traces:
            raise TapeError(
                "backward: a traced function cannot run the tape", fix="use tg.grad of the function, or call it outside"
            )
        node = edge(output)
        if node is None:
            raise not_tracked(output)
        found.append((node, seed_of(output, ct, create_graph)))
    return found


def not_tracked(output: Tensor) -> TapeError:
    return TapeError(
        f"backward: {output.aval} does not depend on a tensor that requires a gradient, or was computed under"
        " tg.no_grad()",
        fix="set requires_grad=True on the inputs before computing it: tg.tensor(x, requires_grad=True)",
    )


def seed_of(output: Tensor, ct: Any, create_graph: bool) -> Any:
    if ct is None:
        if output._data.size != 1:
            raise TapeError(
                f"backward: {output.aval} is not a scalar, so its gradient must be given",
                fix="reduce it with .sum() or .mean(), or pass gradient=, a tensor of the same shape",
            )
        ones = np.ones(output.shape, output.dtype)
        return wrap(ones) if create_graph else ones
    shape = tuple(ct.shape) if isinstance(ct, Tensor) else np.shape(ct)
    if shape != output.shape:
        raise ShapeError(
            f"backward: the gradient has shape {shape}, the output is {output.aval}", fix="pass one of the same shape"
        )
    if isinstance(ct, Tensor):
        ct = ct if ct.dtype == output.dtype else ct.astype(output.dtype)  # type: ignore[attr-defined]
        return ct if create_graph else ct._data
    array = np.asarray(ct, output.dtype)
    return wrap(array) if create_graph else array


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Pull gradients of `tensors` back to the leaves they depend on, and add them to the leaves' `.grad`.

    `grad_tensors` are the cotangents, optional for scalars. What was kept for the gradient is freed afterwards, unless
    `retain_graph` (or `create_graph`, which makes the gradients differentiable). With `inputs`, only these tensors get
    gradients. Raises TapeError for outputs without graph, freed graphs, and saved values that were changed in place.

    >>> import tracegrad as tg
    >>> x = tg.tensor([1.0, 2.0], requires_grad=True)
    >>> tg.autograd.backward([x * x], [tg.tensor([1.0, 10.0])])
    >>> x.grad
    tensor([ 2., 40.])
    """
    seeds = seeds_of(listed(tensors), grad_tensors, create_graph)
    nodes, leaves, active = reachable([node for node, _ in seeds])
    this = Pass(create_graph, retain_graph)
    if inputs is not None:
        wanted = kept_gradients(listed(inputs))
        leaves = [leaf for leaf in leaves if leaf in wanted]
        active = leading_to(wanted, nodes)
    with mode(create_graph):
        found = this.run(seeds, nodes, active)
        for leaf in leaves:
            if leaf in found:
                this.accumulate(leaf, found[leaf])


def kept_gradients(inputs: Sequence[Any]) -> set[Node]:
    """Return the nodes of the inputs of `backward`; from now on, results among them keep their gradients."""
    found = set()
    for tensor in inputs:
        node = required(tensor, "backward")
        if not isinstance(node, AccumulateGrad):
            node.retained = weakref.ref(tensor)
        found.add(node)
    return found


def required(tensor: Any, what: str) -> Node:
    """Return the node of an input, which must require a gradient."""
    if not isinstance(tensor, Tensor):
        raise ArgumentError(f"{what}: a {type(tensor).__name__} is not a tensor", fix="pass tensors as inputs")
    node = edge(tensor)
    if node is None:
        raise TapeError(
            f"{what}: the input {tensor.aval} does not require a gradient",
            fix="set x.requires_grad_() before computing the outputs",
        )
    return node


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
    materialize_grads: bool = False,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of `outputs` with respect to `inputs` (leaves or results), as `torch.autograd.grad`.

    Nothing is accumulated. `grad_outputs` are the cotangents, optional for scalars. With `create_graph` the gradients
    can be differentiated again. An input that the outputs do not depend on raises GradientError, or gives None with
    `allow_unused`, zeros with `materialize_grads`.

    >>> import tracegrad as tg
    >>> x = tg.tensor(3.0, requires_grad=True)
    >>> (dx,) = tg.autograd.grad(x**3, x, create_graph=True)
    >>> tg.autograd.grad(dx, x)[0]
    tensor(18.)
    """
    wrt = [required(x, "grad") for x in listed(inputs)]
    seeds = seeds_of(listed(outputs), grad_outputs, create_graph)
    this = Pass(create_graph, retain_graph, wrt)
    nodes, leaves, reached = reachable([node for node, _ in seeds])
    with mode(create_graph):
        found = this.run(seeds, nodes, leading_to(this.wanted, nodes))
        for leaf in leaves:
            if leaf in found and leaf.variable._hooks:
                found[leaf] = this.hooked(leaf.variable._hooks, found[leaf])
    results: list[Tensor | None] = []
    for tensor, node in zip(listed(inputs), wrt, strict=True):
        ct = this.captured.get(node, found.get(node))
        if ct is None and (node in reached or materialize_grads):
            ct = np.zeros(tensor.shape, tensor.dtype)
        if ct is None and not allow_unused:
            raise GradientError(
                f"grad: the outputs do not depend on the input {tensor.aval}",
                fix="pass allow_unused=True to get None for it, or materialize_grads=True for zeros",
            )
        results.append(None if ct is None else this.tensor(ct if isinstance(ct, Tensor) else np.array(ct)))
    return tuple(results)
