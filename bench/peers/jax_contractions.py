"""Matrix products and convolutions in JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.contractions_cases import CASES, Conv, checksum, operands

jax.config.update("jax_enable_x64", True)
LAYOUTS = {1: ("NCH", "OIH", "NCH"), 2: ("NCHW", "OIHW", "NCHW")}


def version() -> str:
    """Return the library's version."""
    return str(jax.__version__)


def convolution(case: Conv) -> Callable[[Any, Any], Any]:
    def plain(x: Any, w: Any) -> Any:
        return jax.lax.conv_general_dilated(
            x, w, (case.stride,) * case.axes, [(case.padding, case.padding)] * case.axes,
            rhs_dilation=(case.dilation,) * case.axes, feature_group_count=case.groups,
            dimension_numbers=LAYOUTS[case.axes],
        )  # fmt: skip

    if not case.transposed:
        return plain
    like = np.zeros(case.y, case.dtype)
    return lambda x, w: jax.vjp(lambda y: plain(y, w), like)[1](x)[0]


def function(case: Any) -> Callable[[Any, Any], Any]:
    if not isinstance(case, Conv):
        return jnp.matmul
    conv = convolution(case)
    if case.direction == "forward":
        return conv
    if case.direction == "data":
        return lambda ct, w: jax.vjp(lambda x: conv(x, w), jnp.zeros(case.x, case.dtype))[1](ct)[0]
    return lambda x, ct: jax.vjp(lambda w: conv(x, w), jnp.zeros(case.w, case.dtype))[1](ct)[0]


class Session:
    """One case."""

    def __init__(self, name: str):
        self.operands = [jnp.asarray(o) for o in operands(CASES[name])]
        self.function = jax.jit(function(CASES[name]))
        self.value = checksum(self.function(*self.operands))

    def run(self, n: int) -> float:
        """Run it n times, each to its end; return the checksum of the first result."""
        for _ in range(n):
            self.function(*self.operands).block_until_ready()
        return self.value


SESSIONS = {"jax": Session}
