"""Python's own `while` on traced values: small programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from python_programs import Function, Programs, X, check_gradient, check_values

pytest.importorskip("malt")

programs = Programs()
program = programs.add


@program(X, 10.0 * X, 3000.0 * X, 0.01 * X)
def seed_case(x: Any) -> Any:
    y = 2 * x
    while np.linalg.norm(y) < 1000:
        y = 2 * y
    return y.sum()


@program(2.0, 10.0, 90.0)
def newton(a: Any) -> Any:
    x = a
    while abs(x * x - a) > 1e-9:
        x = 0.5 * (x + a / x)
    return x


@program((2.0, 5), (2.0, 0), (2.0, 1))
def integer_counter(x: Any, n: Any) -> Any:
    i = 0
    y = 1.0
    while i < n:
        y = y * x
        i += 1
    return y


@program(1.1, 2.0, 50.0)
def while_true_break(x: Any) -> Any:
    n = 0
    while True:
        x = x * 1.5
        n += 1
        if x > 40.0:
            break
    return x * n


@program(1.1, 2.0, 50.0)
def while_true_return(x: Any) -> Any:
    while True:
        x = x * 1.5
        if x > 40.0:
            return x * x


@program(0.3, 2.0, 50.0)
def set_in_the_loop_only(x: Any) -> Any:
    while True:
        y = x * 3.0
        if y > 20.0:
            break
        x = x + 1.0
    return y


@program(0.3, 2.0)
def while_continue(x: Any) -> Any:
    i = 0
    s = 0.0
    while i < 8:
        i += 1
        if s > 3.0 * x:
            continue
        s = s + x * i
    return s


@program(0.5, 3.0, 20.0)
def while_else(x: Any) -> Any:
    n = 0
    while x < 10.0:
        x = x * 2.0
        n += 1
        if n > 3:
            break
    else:
        x = x + 100.0
    return x


@program(1.5, 3.0)
def nested_while(x: Any) -> Any:
    s = 0.0
    i = 0
    while s < 20.0:
        j = 0
        t = x
        while t < 10.0 and j < 5:
            t = t * 1.7
            j += 1
        s = s + t
        i += 1
    return s + i


@program(2.0, 7.0, smooth=False)
def collatz(x: Any) -> Any:
    n = 0
    while x != 1.0:
        if x % 2 == 0:
            x = x / 2
        else:
            x = 3 * x + 1
        n += 1
    return n


@program(0.4, 4.2)
def return_inside_while(x: Any) -> Any:
    n = 0
    while n < 10:
        if x > 5.0:
            return x * 2.0
        x = x + 1.0
        n = n + 1
        if x < 0:
            continue
    return x


@program((48, 36), (7, 5), smooth=False)
def tuple_assignment(a: Any, b: Any) -> Any:
    while b:
        a, b = b, a % b
    return a


@program((0.5, 0.2, 3), (0.1, 0.2, 3), (0.5, 0.2, 0))
def set_anew_in_every_round(x: Any, y: Any, n: Any) -> Any:
    s = 0.0
    k = 0
    while k < n:
        k += 1
        for _ in range(n + 1):
            if x < s:
                t = y
            else:
                t = x
            s, t = t, s
            if not y > s:
                break
        return s * x
    return s


@program((1.0, 0.5, 2), (-1.0, 0.5, 2), (-2.0, -0.5, 2))
def break_beside_a_variable_of_one_path(x: Any, y: Any, n: Any) -> Any:
    s = 0
    for i in range(n, 0, -1):
        if y < 0:
            s = y
            break
        if x > 0:
            t = s
        else:
            s = x * i
            break
        t = t + i
        s = t * x
    return s + x


@programs.all
def test_same_as_plain_python(fn: Function, inputs: list[tuple[Any, ...]]) -> None:
    check_values(fn, inputs)


@programs.smooth
def test_gradient_is_that_of_plain_python(fn: Function, inputs: list[tuple[Any, ...]]) -> None:
    check_gradient(fn, inputs)
