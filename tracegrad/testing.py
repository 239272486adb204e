"""Checks for the tests of programs that use tracegrad: gradients against finite differences, and traces counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial, reduce
from typing import Any

import numpy as np

from tracegrad import tree
from tracegrad.api.retrace import OBSERVERS
from tracegrad.errors import ArgumentError
from tracegrad.grad.adjoint import joint
from tracegrad.inlining import inline
from tracegrad.ir import Aval, Graph, interpret
from tracegrad.ops.elementwise import add, mul
from tracegrad.ops.reduce import reduce_sum
from tracegrad.trace import Traced, Tracer, trace

Run = Callable[..., Sequence[Any]]


def check_grads(
    fn: Callable[..., Any],
    args: Sequence[Any],
    order: int = 2,
    *,
    eps: float = 1e-5,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    seed: int = 0,
    run: Run = interpret,
) -> None:
    """Raise AssertionError when a gradient of `fn` at `args` differs from finite differences.

    `fn` maps arrays to an array or a pytree of them. Its float64 arguments are differentiated, other arguments are
    constants. The results are contracted with random weights w to one number L(x) = <w, fn(x)>, and along one random
    direction v

        <grad L(x), v>  is compared with  (L(x + eps v) - L(x - eps v)) / (2 eps)

    up to rtol and atol. For order 2, L is replaced by <grad L(x), u> with a random u, and so on. `run(graph, *arrays)`
    computes a graph. Points near a kink (of abs, maximum, sort) must be avoided: differences are wrong there.

    Raises ArgumentError when no argument is a float64 array.

    >>> check_grads(lambda x: x * x * x, [np.array([1.0, -2.0])], order=2)
    """
    arrays = [np.asarray(a) for a in args]
    wrt = [i for i, a in enumerate(arrays) if a.dtype == np.float64]
    if not wrt:
        raise ArgumentError("check_grads: no argument is a float64 array", fix="pass np.asarray(x, dtype=np.float64)")
    rng = np.random.default_rng(seed)
    values: list[Any] = arrays
    traced = contracted(fn, values, rng)
    for level in range(1, order + 1):
        values = [*values, *traced.captures]
        gradient = joint(traced.graph, wrt)
        directions = {i: rng.standard_normal(values[i].shape) for i in wrt}
        found = run(gradient, *values)[1:]
        analytic = sum(float(np.sum(g * directions[i])) for i, g in zip(wrt, found, strict=True))
        high, low = (float(run(traced.graph, *moved(values, directions, s * eps))[0]) for s in (1.0, -1.0))
        numeric = (high - low) / (2.0 * eps)
        if not np.isclose(analytic, numeric, rtol=rtol, atol=atol):
            raise AssertionError(
                f"order {level}: the gradient gives {analytic:.10g} along a random direction, "
                f"finite differences give {numeric:.10g}\n{gradient}"
            )
        if level < order:
            traced = contracted(partial(gradients_of, gradient), values, rng)


def moved(values: Sequence[Any], directions: Mapping[int, Any], step: float) -> list[Any]:
    """Return the values, moved along their directions."""
    return [v + step * directions[i] if i in directions else v for i, v in enumerate(values)]


def gradients_of(gradient: Graph, *xs: Any) -> list[Any]:
    """Apply a joint graph and keep the gradients."""
    return inline(gradient, xs)[1:]


def contracted(fn: Callable[..., Any], values: Sequence[Any], rng: np.random.Generator) -> Traced:
    """Trace <w, fn(x)> with random weights, which become hidden inputs."""

    def weighted(*xs: Any) -> Any:
        found = [x for x in tree.leaves(fn(*xs)) if isinstance(x, Tracer) and x.dtype == np.float64]
        parts = [mul(x, rng.uniform(0.5, 1.5, x.shape) if x.shape else rng.uniform(0.5, 1.5)) for x in found]
        sums = [reduce_sum(p, axes=tuple(range(p.ndim))) if p.ndim else p for p in parts]
        return reduce(add, sums) if sums else np.float64(0.0)

    return trace(weighted, [Aval(v.shape, v.dtype) for v in values], name="weighted")


@contextmanager
def assert_max_traces(n: int) -> Iterator[None]:
    """Raise AssertionError when a transformed function is traced more than `n` times inside the block.

    Every function is counted on its own, by name; the message says what in its signatures changed. It works as a
    decorator, too. Only this thread is watched.

    >>> import tracegrad as tg
    >>> double = tg.jit(lambda x: 2.0 * x)
    >>> with assert_max_traces(1):
    ...     [float(double(x)) for x in (1.0, 2.0, 3.0)]
    [2.0, 4.0, 6.0]
    """
    seen: dict[str, list[str]] = {}

    def observe(name: str, reason: str) -> None:
        reasons = seen.setdefault(name, [])
        reasons.append(reason or "its first call")
        if len(reasons) > n:
            lines = "\n".join(f"  {i + 1}: {text}" for i, text in enumerate(reasons))
            raise AssertionError(f"{name} is traced {len(reasons)} times, more than {n}:\n{lines}")

    token = OBSERVERS.set((*OBSERVERS.get(), observe))
    try:
        yield
    finally:
        OBSERVERS.reset(token)
