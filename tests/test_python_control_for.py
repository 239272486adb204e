"""Python's own `for` on traced values: small programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from python_programs import Function, Programs, X, check_gradient, check_values

import tracegrad as tg

pytest.importorskip("malt")

programs = Programs()
program = programs.add


@program((1.5, 4), (1.5, 0))
def for_traced_range(x: Any, n: Any) -> Any:
    s = 0
    for i in range(n):
        s = s + x * i
    return s


@program((1.5, 2, 9, 3), (1.5, 9, 2, 1))
def for_range_of_three(x: Any, a: Any, b: Any, c: Any) -> Any:
    s = 0.0
    for i in range(a, b, c):
        s = s + x * i * i
    return s


@program((0.5, 9), (2.0, 9), (9.0, 9))
def for_traced_range_with_break(x: Any, n: Any) -> Any:
    s = 0.0
    for i in range(n):
        s = s + x * i
        if s > 10.0:
            break
    return s


@program(0.5, 2.1, 21.0)
def static_for_with_break(x: Any) -> Any:
    for i in range(10):
        x = x * 1.5 + i
        if x > 30.0:
            break
    return x


@program(0.5, 2.0, 20.0)
def for_else(x: Any) -> Any:
    s = 0.0
    for _ in range(4):
        s = s + x
        if s > 10.0:
            break
    else:
        s = s * 2.0
    return s


@program(0.5, 2.0, 20.0)
def static_for_with_return(x: Any) -> Any:
    for i in range(1, 6):
        x = x * 2.0
        if x > 30.0:
            return x * i
    return -x


@program(0.5, 2.0)
def for_continue(x: Any) -> Any:
    s = 0.0
    for i in range(5):
        if s > x:
            continue
        s = s + x * (i + 1)
    return s


@program(X, -X)
def for_over_an_array(xs: Any) -> Any:
    s = 0.0
    for x in xs:
        if x > 0:
            s = s + x * x
    return s


@program(np.outer(X, X), -np.outer(X, X))
def for_over_rows(m: Any) -> Any:
    best = m[0]
    for row in m:
        if row.sum() > best.sum():
            best = row
    return (best * best).sum()


@program(np.arange(6.0), np.arange(6.0)[::-1].copy())
def for_over_an_array_with_break(xs: Any) -> Any:
    s = 0.0
    for x in xs:
        s = s + 2.0 * x
        if s > 5.0:
            break
    return s


@program(X)
def for_over_a_concrete_array(x: Any) -> Any:
    s = 0.0
    for w in np.array([1.0, 2.0, 3.0]):
        if (x * w).sum() > 1.5:
            s = s + w * x[0]
    return s


@program((X, 2.0 * X), (-X, X))
def enumerate_and_zip(a: Any, b: Any) -> Any:
    s = 0.0
    for i, (x, y) in enumerate(list(zip(a, b, strict=True))):
        if x > y:
            s = s + x * i
        else:
            s = s + y
    for i, x in enumerate(a):
        if x > 0:
            s = s + i * x
    for x, y in zip(a, b, strict=True):
        if x < y:
            s = s + x * y
    for x in reversed(a):
        s = s * 0.5 + x
    return s


@program(0.5, 4.0)
def list_of_layers_with_break(x: Any) -> Any:
    layers = [lambda v: v * 2.0, lambda v: v + 3.0, lambda v: v * v]
    for layer in layers:
        x = layer(x)
        if x > 6.0:
            break
    return x


@program(0.5, 4.0)
def static_index_with_break(x: Any) -> Any:
    table = [1.0, 2.0, 3.0]
    for i in range(3):
        x = x * table[i]
        if x > 5.0:
            break
    return x


@program(0.5, 3.0)
def shape_grows_in_an_unrolled_loop(x: Any) -> Any:
    s = 0.0
    for row in np.ones((2, 3)) * x:
        s = s + row
        if x > 1.0:
            s = s * 2.0
    return s.sum() if x > 0 else 0.0


@program(0.3, 0.7)
def nested_for(x: Any) -> Any:
    s = 0.0
    for i in range(3):
        for j in range(4):
            if s > 2.0:
                break
            s = s + x * (i + j)
    return s


@program(0.3, 5.0)
def return_from_nested_loops(x: Any) -> Any:
    for i in range(3):
        for j in range(3):
            x = x + i * j
            if x > 3.0:
                return x * 2.0
    return x


@program(X, -X)
def values_collected_in_a_list(xs: Any) -> Any:
    out = []
    for x in xs:
        if x > 0:
            x = x * x
        out.append(x)
    return np.stack(out).sum()


@program(0.5, -0.5)
def a_loop_over_known_values_only(x: Any) -> Any:
    s = 0.0
    k = 0
    for w in np.array([1.0, 2.0, 3.0]):
        if w > 1.5:
            s = s + w
            k += 1
    return s * x if x > 0 else x * k


@programs.all
def test_same_as_plain_python(fn: Function, inputs: list[tuple[Any, ...]]) -> None:
    check_values(fn, inputs)


@programs.smooth
def test_gradient_is_that_of_plain_python(fn: Function, inputs: list[tuple[Any, ...]]) -> None:
    check_gradient(fn, inputs)


def test_after_a_loop_its_variable_is_what_the_body_has_left() -> None:
    def fn(x: Any, n: Any) -> Any:
        k = 7
        for k in range(n):
            k = 0
            for k in range(n + 1):
                x = x + k
        return x, k

    compiled = tg.jit(fn)
    for n in (0, 1, 3):
        assert [float(v) for v in compiled(0.0, n)] == [float(v) for v in fn(0.0, n)]


def test_the_number_that_enumerate_gives_is_one_of_python_s() -> None:
    def fn(x: Any) -> Any:
        s = np.float32(0)
        for i, v in enumerate(x):
            if v > 0:
                s = s + v * i
        return s

    x = np.arange(4, dtype=np.float32)
    assert tg.jit(fn)(x) == 14.0 and tg.jit(fn)(x).dtype == np.float32
