"""Calls in JAX: jitted functions of arrays that are on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bench.calls_cases import arrays
from bench.peers.jax_steps import version
from bench.session import Repeated


def call_of(case: str) -> Callable[[], Any]:
    kind, given = arrays(case)
    xs = [jnp.asarray(x) for x in given]
    if kind == "dict":
        named = {f"x{i}": x for i, x in enumerate(xs)}
        last = f"x{len(xs) - 1}"
        of_dict = jax.jit(lambda d: d["x0"] + d[last])
        return lambda: of_dict(named)
    flat: Callable[..., Any] = lambda *a: a[0] + a[-1]
    makers: dict[str, Callable[[], Any]] = {
        "flat": lambda: jax.jit(flat),
        "grad": lambda: jax.jit(jax.grad(lambda *a: (a[0] * a[-1]).sum())),
        "compiled": lambda: jax.jit(flat).lower(*xs).compile(),
    }
    if kind not in makers:
        raise NotImplementedError(f"jax has no {kind} calls")
    function = makers[kind]()
    return lambda: function(*xs)


SESSIONS = {"jax": lambda case: Repeated(call_of(case), jax.block_until_ready)}
__all__ = ["SESSIONS", "version"]
