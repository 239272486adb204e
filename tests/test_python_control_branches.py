"""Python's own `if`, conditional expressions, `and`, `or`, `not` on traced values: small programs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from python_programs import Function, Programs, X, check_gradient, check_values

pytest.importorskip("malt")

programs = Programs()
program = programs.add


# --- if ---------------------------------------------------------------------------------------------------------------


@program(1.5, -2.0, 0.25)
def if_else(x: Any) -> Any:
    if x > 0:
        y = x * x
    else:
        y = -3.0 * x
    return y


@program(1.5, -2.0)
def if_without_else(x: Any) -> Any:
    y = np.sin(x)
    if x > 0:
        y = y * x
    return y


@program(-3.0, -0.5, 0.5, 3.0)
def elif_chain(x: Any) -> Any:
    if x < -1:
        y = x * 2.0
    elif x < 0:
        y = x * 3.0
    elif x < 1:
        y = x * x
    else:
        y = np.sqrt(x)
    return y


@program(X, -X, 0.1 * X)
def array_condition(x: Any) -> Any:
    if x.sum() > 0.5:
        x = x * 2.0
    elif np.all(x < 1.0):
        x = np.exp(x)
    return (x * x).sum()


@program((1.0, 2.0), (2.0, 1.0), (-1.0, -2.0))
def nested_if(x: Any, y: Any) -> Any:
    r = 0.0
    if x > 0:
        if x > y:
            r = x * y
        else:
            r = x + y
    else:
        r = x - y
    return r


@program(1.0, -1.0)
def early_return(x: Any) -> Any:
    if x > 0:
        return x * x
    return -x


@program(-3.0, -0.5, 0.5, 3.0)
def many_returns(x: Any) -> Any:
    if x < -1:
        return x * 2.0
    if x < 0:
        return x * 3.0
    y = x * x
    if x < 1:
        return y
    return np.sqrt(y) + 1.0


@program(1.0, -1.0)
def returns_a_pair(x: Any) -> Any:
    def pair(v: Any) -> Any:
        if v > 0:
            return v, {"k": v * 2.0}
        return -v, {"k": v}

    a, b = pair(x)
    return a * b["k"]


@program(1.0, -1.0)
def changes_two_variables(x: Any) -> Any:
    a, b = 1.0, 2.0
    if x > 0:
        a, b = b, a
    return a * x + b


@program(1.0, -1.0)
def int_and_float_meet(x: Any) -> Any:
    y = 0
    if x > 0:
        y = 1.5
    return y * x


@program(np.float32(2.0), np.float32(-2.0), smooth=False)
def number_takes_the_dtype(x: Any) -> Any:
    y = 0.0
    if x > 0:
        y = x * 2
    return y


@program(2.0, -2.0)
def temporary_in_one_branch(x: Any) -> Any:
    y = x
    if x > 0:
        t = x * 2.0
        y = t * t
    return y


@program((2.0, 3), (-2.0, 3), smooth=False)
def static_condition_stays_python(x: Any, n: Any) -> Any:
    kind = "double"
    if kind == "double":
        x = x * 2
    if x > 0:
        x = x + n
    return x


@program(X, -X)
def statement_only(x: Any) -> Any:
    total = 0.0
    if x[0] > 0:
        pass
    else:
        total = x.sum()
    return total + x[1]


@program((1.0, 1.0), (1.0, -1.0), (-1.0, 1.0))
def set_unless_returned(x: Any, y: Any) -> Any:
    if x > 0:
        if y < 0:
            return x * 3.0
        t = x * y
    else:
        t = -y
    x = x + t
    return x * t


@program((1.0, 2.0), (1.0, -2.0), (-1.0, 2.0), (-1.0, -2.0))
def set_where_a_flag_says_so(x: Any, y: Any) -> Any:
    known = x > 0
    if known:
        if y > 0:
            t = x * y
        else:
            t = x
    if known:
        return t * t
    return y


@program((1.0, 2.0, 3), (-1.0, 2.0, 3), (-1.0, 5.0, 2))
def added_unless_returned(x: Any, y: Any, n: Any) -> Any:
    if n > 1:
        if x > 0:
            return x * 3.0
        t = y
    else:
        t = x
    y += t + 1.5
    return y * x


@program((1.0, 3), (1.0, 2), (-1.0, 3), (-1.0, 2))
def and_of_numbers_as_a_condition(x: Any, n: Any) -> Any:
    if n % 2 and x > 0:
        return x * 2.0
    if not (x > 0 or n % 2):
        return x * 5.0
    while n and x < 9.0:
        x = x * x + 1.0
        n -= 1
    return x


@program((1.0, 3), (1.0, 2), (-1.0, 0), (1.0, 7))
def matched(x: Any, n: Any) -> Any:
    match n:
        case 0:
            x = x * 2.0
        case 2 | 3 if x > 0:
            x = x * 3.0
        case k if k > 5:
            x = x * k
        case _:
            x = x * 7.0
    match "static":
        case "static":
            return x
        case other:
            return len(other)


# --- expressions ------------------------------------------------------------------------------------------------------


@program(1.0, -1.0)
def conditional_expression(x: Any) -> Any:
    return x * x if x > 0 else -2.0 * x


@program(-2.0, 0.5, 3.0)
def nested_conditional_expression(x: Any) -> Any:
    return x if x < 0 else (x * x if x < 1 else x * x * x)


@program((1.0, 1.0), (1.0, -1.0), (-1.0, 1.0), (-1.0, -1.0))
def and_or_not(x: Any, y: Any) -> Any:
    r = x
    if x > 0 and y > 0:
        r = r * 2.0
    if x > 0 or y > 0:
        r = r * 3.0
    if not x > 0:
        r = r * 5.0
    if not (x > 0 and not y > 0):
        r = r + y
    return r


@program(-1.0, 0.5, 2.0)
def chained_comparison(x: Any) -> Any:
    if 0 < x < 1:
        return x * 10.0
    return x


@program((np.arange(4.0), 1), (np.arange(4.0), 3), (np.arange(4.0), 9), smooth=False)
def and_protects_its_right_side(xs: Any, i: Any) -> Any:
    if i < 4 and xs[i] > 2:
        return xs[0] + 10.0
    return xs[0]


@program(-1.0, 2.0)
def or_gives_a_value(x: Any) -> Any:
    y = (x > 0) * x
    return (y or 7.0) * x


@program(-1.0, 0.5, 2.0)
def builtin_min_max(x: Any) -> Any:
    return max(x, 0.0) * min(x * x, 1.0) + (1.0 if bool(x > 0) else 2.0)


@program(-1.0, 2.0, smooth=False)
def truth_of_a_number(x: Any) -> Any:
    n = x + 1.0
    if n:
        return x * 2.0
    return x


@program(X, 0.1 * X, X + 9.0)
def any_and_all(xs: Any) -> Any:
    if any(x > 1.0 for x in xs):
        xs = xs * 2.0
    if all(x > 1.0 for x in xs) or all([True, False]):
        xs = xs * 3.0
    return xs.sum()


@programs.all
def test_same_as_plain_python(fn: Function, inputs: list[tuple[Any, ...]]) -> None:
    check_values(fn, inputs)


@programs.smooth
def test_gradient_is_that_of_plain_python(fn: Function, inputs: list[tuple[Any, ...]]) -> None:
    check_gradient(fn, inputs)
