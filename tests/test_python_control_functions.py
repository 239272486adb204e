"""Functions, methods, closures and containers around Python's control flow on traced values: small programs."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest
from python_programs import Function, Programs, check_gradient, check_values

import tracegrad as tg

pytest.importorskip("malt")

programs = Programs()
program = programs.add
SCALE = 3.0


def relu(x: Any) -> Any:
    if x > 0:
        return x
    return 0.0 * x


def power(x: Any, n: int = 2, *, scale: float = 1.0) -> Any:
    for _ in range(n):
        x = x * relu(x)
    return x * scale


@program(1.5, -1.5)
def calls_are_converted(x: Any) -> Any:
    return relu(x) + power(x, scale=2.0) + functools.partial(power, n=1)(x)


@program(1.5, -1.5)
def lambdas(x: Any) -> Any:
    leaky = lambda v, a=0.1: v if v > 0 else a * v
    return leaky(x) + (lambda v: -v if v < 0 else v * v)(x)


@program(1.6, -1.5)
def closures(x: Any) -> Any:
    k = x * 2.0

    def inner(v: Any) -> Any:
        if v > k:
            return v * k
        return k

    return inner(3.0) + inner(x)


@program(1.5, -1.5)
def reads_a_global(x: Any) -> Any:
    if x > 0:
        return x * SCALE
    return x / SCALE


@program(3.0, 6.0, smooth=False)
def recursion_on_static(x: Any) -> Any:
    def down(v: Any, n: int) -> Any:
        if n == 0:
            return v
        return down(v * 0.5 if v > 1 else v, n - 1)

    return down(x, 3)


class Model(tg.nn.Module if hasattr(tg, "nn") else object):  # type: ignore[misc]
    def __init__(self, gain: float):
        self.gain = gain

    def __call__(self, x: Any) -> Any:
        return self.step(x) if x > 0 else self.__hidden(x)

    def step(self, x: Any) -> Any:
        while x < 10.0:
            x = x * self.gain
        return x

    def __hidden(self, x: Any) -> Any:
        return x * self.gain


class Child(Model):
    def __call__(self, x: Any) -> Any:
        if x < -1.0:
            return x
        return super().__call__(x)


@program(1.5, -0.5, -1.5)
def methods(x: Any) -> Any:
    return Model(1.5)(x) + Child(2.0)(x)


class Counter:
    def __init__(self) -> None:
        self.total = 0.0


@program(1.5, -0.5)
def attributes(x: Any) -> Any:
    c = Counter()
    if x > 0:
        c.total = x * 2.0
    i = 0
    while i < 3 and c.total < 20.0:
        c.total = c.total + x * x
        i += 1
    return c.total


@program(1.5, -0.5)
def dictionaries(x: Any) -> Any:
    d = {"a": 1.0, "b": 2.0}
    if x > 0:
        d["a"] = x
    return d["a"] * x + d["b"]


@program(1.5, -0.5)
def with_and_try(x: Any) -> Any:
    with np.errstate(all="ignore"):
        try:
            if x > 0:
                x = np.sqrt(x)
        finally:
            x = x * 2.0
    return x


def square_or_line(x: Any) -> Any:
    if x > 0:
        y = x * x
    else:
        y = -3.0 * x
    return y


@program(1.5, -0.5)
def jitted_inside(x: Any) -> Any:
    return tg.jit(square_or_line)(x) * (1.0 if x > 0 else 2.0)


@program(1.5, -1.5)
def functions_of_math(x: Any) -> Any:
    near = 1.0 if math.isclose(x, x * (1.0 + 1e-12)) and not math.isclose(x, 1.4) else 0.0
    return (
        near * math.erf(x) + math.erfc(x) * math.lgamma(abs(x) + 1.0) + math.gamma(x * x) + math.hypot(x, 2.0, x)
        + math.dist([x, 1.0], [0.5, x]) + math.prod([x, 2.0, x])
    )  # fmt: skip


@program(1.5, -1.5)
def numpy_s_shorthands_for_joining(x: Any) -> Any:
    v = x * np.array([1.0, 2.0])
    table = np.c_[np.ones(2), v, np.eye(2)]
    line = np.r_[v, x, 3.0]
    turned = np.ascontiguousarray(table.T)
    turned[0] = 0.0
    return (table @ turned).sum() + (line * line).sum()


@program(1.5, -1.5)
def builtins_whose_names_numpy_has_given_up(x: Any) -> Any:
    return x * float(len(str(3.25))) if x > 0 and isinstance(object(), object) else x * len(repr(str))


def test_functions_given_to_scan_are_converted() -> None:
    def fn(x: Any) -> Any:
        return tg.scan(lambda c, v: (c + v if v > 0 else c * v, None), x, np.array([1.0, -2.0, 3.0]))[0]

    assert tg.jit(fn)(1.5) == -2.0


@programs.all
def test_same_as_plain_python(fn: Function, inputs: list[tuple[Any, ...]]) -> None:
    check_values(fn, inputs)


@programs.smooth
def test_gradient_is_that_of_plain_python(fn: Function, inputs: list[tuple[Any, ...]]) -> None:
    check_gradient(fn, inputs)
