"""Programs that were once wrong, as random tests printed them: each has one value, however it is run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compiled import assert_close

import tracegrad as tg
import tracegrad.numpy
from tracegrad.codegen.reference import run_source
from tracegrad.ir import interpret, parse
from tracegrad.passes.simplify import simplify
from tracegrad.runtime.program import build
from tracegrad.schedule.memory import assign_memory
from tracegrad.schedule.plan import build_plan

GRID = np.arange(24.0).reshape(4, 6)
FOUND: dict[str, tuple[str, tuple[Any, ...], tuple[int, ...]]] = {
    "a reshape that is no view, of a value in the same loops": (
        """
def f(a: f64[4, 6]) -> f64[4, 6]:
    h: f64[4, 6] = neg(a)
    t: f64[6, 4] = transpose(h, perm=(1, 0))
    r: f64[4, 6] = reshape(t, shape=(4, 6))
    o: f64[4, 6] = add(h, r)
    return o
""",
        (GRID,),
        (),
    ),
    "a cycle through values that are computed again": (
        """
def f(a: f64[6]) -> f64[6]:
    h: f64[6] = neg(a)
    s: f64[4] = slice(h, start=(1,), size=(4,), step=(1,))
    u: f64[4] = neg(s)
    p: f64[6] = pad(u, low=(2,), high=(0,), gap=(0,))
    e: f64[6] = tanh(h)
    o: f64[6] = add(p, e)
    q: f64[6] = add(o, h)
    return q
""",
        (np.arange(6.0),),
        (),
    ),
    "padding ties with zeros in max pooling": (
        """
def f(ct: f32[1, 3], x: f32[1, 3]) -> f32[1, 3]:
    y: f32[1, 3] = max_pool(x, padding=((1, 0),), stride=(1,), window=(2,))
    l: f32[1, 3] = max_pool_route(ct, x, y, padding=((1, 0),), stride=(1,), window=(2,))
    return l
""",
        (np.array([[5.0, 7.0, 9.0]], np.float32), np.zeros((1, 3), np.float32)),
        (),
    ),
    "a donated argument is read after its result is stored": (
        """
def f(a: i64[3]) -> (i64[3], i64[3]):
    b: i64[3] = neg(a)
    c: i64[3] = sub(b, b)
    return c, b
""",
        (np.array([2, 1, 0]),),
        (0,),
    ),
    "contracted axes that are no neighbours": (
        """
def f(a: f32[2, 1, 2], f: f32[2, 2]) -> f32[1]:
    g: f32[1] = dot(a, f, batch=((), ()), contract=((2, 0), (0, 1)))
    return g
""",
        (np.array([[[2.0, 1.0]], [[0.0, -2.0]]], np.float32), np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)),
        (),
    ),
    "free axes around the contracted one": (
        """
def f(a: f64[2, 3, 4], b: f64[3, 5]) -> f64[2, 4, 5]:
    g: f64[2, 4, 5] = dot(a, b, batch=((), ()), contract=((1,), (0,)))
    return g
""",
        (np.arange(24.0).reshape(2, 3, 4), np.arange(15.0).reshape(3, 5)),
        (),
    ),
    "products and running sums of narrow integers": (
        """
def f(a: i8[2, 3], b: bool[3]) -> (i8[2, 2], i8[2, 3], bool, bool[3], i64[2, 3]):
    g: i8[2, 2] = dot(a, a, batch=((), ()), contract=((1,), (1,)))
    h: i8[2, 3] = cumsum(a, axis=1, reverse=False)
    i: bool = dot(b, b, batch=((), ()), contract=((0,), (0,)))
    j: bool[3] = cumsum(b, axis=0, reverse=True)
    k: i64[2, 3] = argsort(a)
    return g, h, i, j, k
""",
        (np.array([[100, 100, -3], [7, 8, 127]], np.int8), np.array([False, True, False])),
        (),
    ),
    "a sum of bools, negated": (
        """
def f(a: bool[3]) -> bool:
    b: bool = reduce_sum(a, axes=(0,))
    c: bool = logical_not(b)
    return c
""",
        (np.array([True, False, True]),),
        (),
    ),
    "a product between two passes of a softmax, of a view that must be copied first": (
        """
def f(a: f64[2, 3], w: f64[2, 5, 4], v: f64[3, 4, 5]) -> f64[2, 3]:
    m: f64[2] = reduce_max(a, axes=(1,))
    b: f64[2, 3] = broadcast(m, axes=(0,), shape=(2, 3))
    c: f64[2, 3] = sub(a, b)
    e: f64[2, 3] = exp(c)
    t: f64[3, 5, 4] = transpose(v, perm=(0, 2, 1))
    x: f64[2, 3] = dot(w, t, batch=((), ()), contract=((1, 2), (1, 2)))
    y: f64[2, 3] = mul(e, x)
    return y
""",
        (GRID[:2, :3], np.arange(40.0).reshape(2, 5, 4), np.arange(60.0).reshape(3, 4, 5)),
        (),
    ),
    "terms of a sum that cancel": (
        """
def f(a: f64[1, 1, 2]) -> f64[1, 1]:
    b: f64[1, 1, 2] = sub(a, a)
    c: f64[1, 1] = reduce_sum(b, axes=(2,))
    return c
""",
        (np.array([[[2.0, np.nan]]]),),
        (),
    ),
    "a branch that is scheduled before the number it reads": (
        """
def f(x: f64, y: f64, v: f64[3]) -> (f64, f64):
    def zero(a: f64, ct: f64) -> f64:
        return f64(0.0)
    def pass_on(a: f64, ct: f64) -> f64:
        return ct
    a: f64 = mul(x, y)
    b: f64 = mul(y, a)
    c: f64 = reduce_sum(v, axes=(0,))
    d: f64 = add(b, c)
    e: bool = convert(x, dtype=bool)
    f: i64 = convert(e, dtype=i64)
    g: f64 = broadcast(f64(1.0), axes=(), shape=())
    h: (f64,) = cond(f, y, g, branches=(zero, pass_on))
    i: f64 = item(h, index=0)
    j: f64 = add(i, a)
    return d, j
""",
        (np.float64(0.5), np.float64(0.4), np.array([0.1, 0.2, 0.3])),
        (),
    ),
    "a cycle through loops that hold earlier and later nodes": (
        """
def f(a: f64, b: f64, c: f64[3], g: i64) -> (f64, f64, f64):
    def half(x: f64[3]) -> f64[3]:
        y: f64[3] = mul(0.5, x)
        return y
    def whole(x: f64[3]) -> f64[3]:
        return x
    def first(x: f64[3], y: f64) -> (f64[3], f64):
        z: f64 = broadcast(f64(0.0), axes=(), shape=())
        return x, z
    def second(x: f64[3], y: f64) -> (f64[3], f64):
        z: f64[3] = broadcast(f64(0.0), axes=(), shape=(3,))
        return z, y
    j: f64[3] = mul(c, c)
    k: (f64[3],) = cond(g, j, branches=(half, whole))
    l: f64[3] = item(k, index=0)
    m: f64 = sin(b)
    n: f64 = mul(m, a)
    o: f64 = reduce_sum(j, axes=(0,))
    p: f64 = add(n, o)
    q: (f64[3], f64) = cond(g, l, b, branches=(first, second))
    r: f64 = item(q, index=1)
    s: f64 = cos(b)
    t: f64 = mul(a, s)
    u: f64 = add(r, t)
    v: f64 = mul(b, s)
    w: f64 = mul(v, a)
    x: f64 = mul(a, m)
    y: f64 = add(w, x)
    return p, u, y
""",
        (np.float64(0.5), np.float64(0.4), np.array([0.1, 0.2, 0.3]), np.int64(1)),
        (),
    ),
    "a product with a number": (
        """
def f(v: f64[3], s: f64) -> (f64[3], f64[3], f64):
    a: f64[3] = dot(2.0, v, batch=((), ()), contract=((), ()))
    b: f64[3] = dot(v, s, batch=((), ()), contract=((), ()))
    c: f64 = dot(s, 2.0, batch=((), ()), contract=((), ()))
    return a, b, c
""",
        (np.array([0.1, 0.2, 0.3]), np.float64(0.4)),
        (),
    ),
}


@pytest.mark.parametrize("name", FOUND)
def test_found_program(name: str) -> None:
    text, arguments, donate = FOUND[name]
    graph = parse(text)
    expected = interpret(graph, *arguments)
    plan = build_plan(simplify(graph), 2)
    ways = {
        "simplified": interpret(simplify(graph), *arguments),
        "source": run_source(plan, assign_memory(plan, donate), [np.array(a) for a in arguments]),
        "compiled": build(graph, donate=donate)([np.array(a) for a in arguments]),
    }
    for way, found in ways.items():
        for a, b in zip(found, expected, strict=True):
            assert_close(a, b, 1e-14, 0.0, f"{way}: {graph}")


def test_gradient_of_an_extremum_with_a_number() -> None:
    """NumPy turns a scalar on the left of a comparison into an array, which became a hidden input."""
    assert tg.grad(lambda x: np.maximum(x, 0.5))(1.0) == 1.0
    assert tg.grad(lambda x: np.minimum(0.5, x))(1.0) == 0.0
