"""Python's own control flow on traced values: small programs against plain Python, one compilation each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg

pytest.importorskip("malt")

X = np.array([0.5, -1.5, 2.0])
PROGRAMS: list[tuple[Callable[..., Any], list[tuple[Any, ...]], bool]] = []
SCALE = 3.0


def program(*inputs: Any, smooth: bool = True) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a program with the arguments to run it on; `smooth` says that its first argument has a gradient."""

    def register(fn: Callable[..., Any]) -> Callable[..., Any]:
        PROGRAMS.append((fn, [i if isinstance(i, tuple) else (i,) for i in inputs], smooth))
        return fn

    return register


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


# --- while ------------------------------------------------------------------------------------------------------------


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


# --- for --------------------------------------------------------------------------------------------------------------


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


# --- functions --------------------------------------------------------------------------------------------------------


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


@program(1.5, -0.5)
def jitted_inside(x: Any) -> Any:
    return tg.jit(if_else)(x) * (1.0 if x > 0 else 2.0)


def test_functions_given_to_scan_are_converted() -> None:
    def fn(x: Any) -> Any:
        return tg.scan(lambda c, v: (c + v if v > 0 else c * v, None), x, np.array([1.0, -2.0, 3.0]))[0]

    assert tg.jit(fn)(1.5) == -2.0


def flatten(value: Any) -> list[Any]:
    return [np.asarray(v) for v in (value if isinstance(value, tuple) else (value,))]


@pytest.mark.parametrize(("fn", "inputs", "smooth"), PROGRAMS, ids=[p[0].__name__ for p in PROGRAMS])
def test_same_as_plain_python(fn: Callable[..., Any], inputs: list[tuple[Any, ...]], smooth: bool) -> None:
    compiled = tg.jit(fn)
    for args in inputs:
        expected, found = fn(*args), compiled(*args)
        for a, b in zip(flatten(expected), flatten(found), strict=True):
            np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-12)
            assert np.asarray(b).dtype.kind in (np.asarray(a).dtype.kind, "f")
    assert compiled.traces == 1


@pytest.mark.parametrize(
    ("fn", "inputs"), [p[:2] for p in PROGRAMS if p[2]], ids=[p[0].__name__ for p in PROGRAMS if p[2]]
)
def test_gradient_is_that_of_plain_python(fn: Callable[..., Any], inputs: list[tuple[Any, ...]]) -> None:
    gradient = tg.grad(fn)
    rng = np.random.default_rng(0)
    for x, *rest in inputs:
        direction = rng.normal(size=np.shape(x))
        h = 1e-6 * max(1.0, float(np.max(np.abs(x))))
        numeric = (fn(x + h * direction, *rest) - fn(x - h * direction, *rest)) / (2 * h)
        np.testing.assert_allclose(np.sum(gradient(x, *rest) * direction), numeric, rtol=2e-5, atol=1e-6)
    assert gradient.traces == 1
