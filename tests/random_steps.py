"""The steps that random graphs are made of: each adds a node or a few to a `Writer`, or nothing where none fits."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st
from random_writer import BOOL, LIMIT, SIZE, Writer

from tracegrad.ir import PRIMITIVES as P
from tracegrad.ir import Aval, Node

UNARY = ("neg", "abs", "relu", "sign", "square", "floor", "stop_gradient")
INT_UNARY = ("neg", "abs", "relu", "sign", "square", "bitwise_not", "stop_gradient")
BINARY = ("add", "sub", "mul", "maximum", "minimum")
INT_BINARY = (*BINARY, "floor_divide", "mod", "bitwise_and", "bitwise_or", "bitwise_xor")
COMPARE = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
SMOOTH = ("tanh", "sigmoid", "arctan", "erf", "sin")


# --- kinds of step ------------------------------------------------------------------------------------------------


def unary(w: Writer) -> None:
    if (x := w.value(w.arithmetic)) is None:
        return
    names = UNARY if x.dtype.kind == "f" else INT_UNARY
    if x in w.smooth:
        names = ("neg", "square", "relu", "stop_gradient")
    if w.differentiable:
        names = ("neg", "square")
    bound = w.bound[x]
    name = w.choice(names)
    w.add(name, x, bound=bound * bound if name == "square" else bound + 1)


def binary(w: Writer) -> None:
    if (x := w.value(w.arithmetic)) is None:
        return
    names = BINARY if x.dtype.kind == "f" else INT_BINARY
    y = w.like(x)
    if x in w.smooth or y in w.smooth or w.differentiable:
        names = ("add", "sub", "mul")
    operands = (x, y) if w.chance() else (y, x)
    w.add(w.choice(names), *operands, bound=w.bound[x] * w.size(y) + w.bound[x] + w.size(y))


def compare(w: Writer) -> None:
    if (x := w.value(w.comparable)) is None:
        return
    y = w.like(x)
    if y not in w.smooth:
        w.add(w.choice(COMPARE), x, y, bound=1.0)


def logic(w: Writer) -> None:
    if (x := w.value(lambda n: n.dtype == BOOL)) is None:
        return
    if w.chance():
        w.add("logical_not", x, bound=1.0)
    else:
        w.add(w.choice(("bitwise_and", "bitwise_or", "bitwise_xor")), x, w.like(x), bound=1.0)


def select(w: Writer) -> None:
    condition = w.value(lambda n: n.dtype == BOOL)
    x = w.value()
    if condition is None or x is None:
        return
    y = w.like(x)
    condition = w.fit(condition, x.shape)
    if condition.dtype == BOOL:
        w.add("where", condition, x, y, bound=max(w.bound[x], w.size(y)))


def smooth_function(w: Writer) -> None:
    if not (w.inexact or w.differentiable):
        return
    x = w.value(lambda n: n.dtype.kind == "f")
    if x is not None:
        w.smooth.add(w.add(w.choice(SMOOTH), x, bound=2.0))


def convert(w: Writer) -> None:
    x = w.value(w.comparable)
    if x is None or w.differentiable or (w.special and x.dtype.kind == "f"):
        return
    targets = [d for d in (*w.dtypes, BOOL) if not (x.dtype.kind == "f" and d.kind == "u")]
    dtype = w.choice(targets)
    w.add("convert", x, dtype=dtype, bound=w.bound[x])


def reduce(w: Writer) -> None:
    if (x := w.value()) is None:
        return
    axes = tuple(a for a in range(x.aval.ndim) if w.chance())
    count = math.prod(x.shape[a] for a in axes)
    names = ["reduce_sum", "reduce_sum"]
    if count and x not in w.smooth and not w.differentiable:
        names += ["reduce_max", "reduce_min"]
    if x.dtype.kind in "iu":
        names.append("reduce_prod")
    name = w.choice(names)
    bound = w.bound[x] * max(count, 1) if name == "reduce_sum" else w.bound[x]
    w.add(name, x, axes=axes, bound=bound if name != "reduce_prod" else LIMIT * 2)


def position(w: Writer) -> None:
    x = w.value(lambda n: w.comparable(n) and any(n.shape))
    if x is None or w.differentiable:
        return
    axis = w.choice([a for a, n in enumerate(x.shape) if n])
    w.add(w.choice(("argmax", "argmin")), x, axes=(axis,), bound=float(x.shape[axis]))


def scan(w: Writer) -> None:
    if (x := w.value(lambda n: n.aval.ndim > 0)) is None:
        return
    if x not in w.smooth and w.integer(0, 3) == 0 and not w.differentiable:
        w.add("argsort", x, bound=float(x.shape[-1]))
    else:
        axis = w.integer(0, x.aval.ndim - 1)
        w.add("cumsum", x, axis=axis, reverse=w.chance(), bound=w.bound[x] * max(x.shape[axis], 1))


def broadcast(w: Writer) -> None:
    if (x := w.value(lambda n: n.aval.ndim < 4)) is None:
        return
    shape, axes = list(x.shape), []
    for _ in range(w.integer(1, 4 - len(shape))):
        n = w.choice((1, 2, 3))
        shape.insert(w.integer(0, len(shape)), -n)
    axes = [a for a, n in enumerate(shape) if n >= 0]
    shape = [abs(n) for n in shape]
    if math.prod(shape) <= SIZE:
        w.add("broadcast", x, shape=tuple(shape), axes=tuple(axes), bound=w.bound[x])


def transpose(w: Writer) -> None:
    if (x := w.value(lambda n: n.aval.ndim > 1)) is None:
        return
    w.add("transpose", x, perm=tuple(w.draw(st.permutations(range(x.aval.ndim)))), bound=w.bound[x])


def reshape(w: Writer) -> None:
    """Merge neighbouring axes, split one, insert or drop an axis of size 1."""
    if (x := w.value()) is None:
        return
    shape = list(x.shape)
    for _ in range(w.integer(1, 2)):
        match w.integer(0, 2):
            case 0 if len(shape) > 1:
                at = w.integer(0, len(shape) - 2)
                shape[at : at + 2] = [shape[at] * shape[at + 1]]
            case 1 if len(shape) < 4:
                shape.insert(w.integer(0, len(shape)), 1)
            case _ if shape and len(shape) < 4:
                at = w.integer(0, len(shape) - 1)
                divisors = [d for d in range(1, shape[at] + 1) if shape[at] % d == 0] or [1]
                d = w.choice(divisors)
                shape[at : at + 1] = [d, shape[at] // d]
    w.add("reshape", x, shape=tuple(shape), bound=w.bound[x])


def slice_(w: Writer) -> None:
    if (x := w.value(lambda n: n.aval.ndim > 0)) is None:
        return
    start, size, step = [], [], []
    for n in x.shape:
        count = w.integer(0 if w.integer(0, 9) == 0 else min(1, n), n)
        d = w.integer(1, max(1, (n - 1) // max(count - 1, 1))) if count > 1 else 1
        low = w.integer(0, n - 1 - (count - 1) * d) if count else 0
        if count and w.chance():
            low, d = low + (count - 1) * d, -d
        start.append(low)
        size.append(count)
        step.append(d)
    w.add("slice", x, start=tuple(start), size=tuple(size), step=tuple(step), bound=w.bound[x])


def pad(w: Writer) -> None:
    if (x := w.value(lambda n: n.aval.ndim > 0)) is None:
        return
    gaps = w.integer(0, 2) == 0
    low, high, gap = ([w.choice((0, 0, 1, 2)) for _ in x.shape] for _ in range(3))
    params = {"low": tuple(low), "high": tuple(high), "gap": tuple(gap) if gaps else (0,) * len(low)}
    if P["pad"].aval(x.aval, **params).size <= 2 * SIZE:
        w.add("pad", x, **params, bound=w.bound[x])


def concat(w: Writer) -> None:
    if (x := w.value(lambda n: n.aval.ndim > 0 and n.aval.size < SIZE)) is None:
        return
    axis = w.integer(0, x.aval.ndim - 1)
    parts = [x]
    for _ in range(w.integer(0, 2)):
        other = w.value(lambda n: n.dtype == x.dtype)
        assert other is not None
        shape = (*x.shape[:axis], w.choice((1, 2, x.shape[axis])), *x.shape[axis + 1 :])
        part = w.fit(other, shape)
        parts.append(part)
    w.add("concat", *parts, axis=axis, bound=max(w.bound[p] for p in parts))


def iota(w: Writer) -> None:
    shape = w.shape(w.integer(1, 3))
    dtype = w.choice(w.dtypes)
    w.add("iota", shape=shape, axis=w.integer(0, len(shape) - 1), dtype=dtype, bound=float(max(shape)))


# --- indexing -----------------------------------------------------------------------------------------------------


def indices(w: Writer, x: Node) -> tuple[list[Node], tuple[int, ...]] | None:
    """Return index arrays for some axes of x: arguments, counted ones, or found positions."""
    axes = tuple(a for a in range(x.aval.ndim) if w.chance()) or (0,)
    axes = tuple(w.draw(st.permutations(axes)))
    if any(x.shape[a] == 0 for a in axes):
        return None
    shape = w.shape(w.integer(0, 2))
    found = []
    for a in axes:
        n = x.shape[a]
        ready = w.value(lambda v, n=n: v.prim.name in ("argmax", "argmin") and w.bound[v] <= n and v.shape == shape)
        if ready is not None:
            found.append(ready)
        elif shape and shape[0] <= n and w.integer(0, 3) == 0:
            found.append(w.add("iota", shape=shape, axis=0, dtype=np.dtype(np.int64), bound=float(n)))
        else:
            dtype = w.choice((np.int64, np.int32, np.uint8, np.int16))
            low = 0 if dtype is np.uint8 else -n
            found.append(w.input(Aval(shape, np.dtype(dtype)), np.asarray(w.rng.integers(low, n, shape)).astype(dtype)))
    return found, axes


def gather(w: Writer) -> None:
    x = w.value(lambda n: n.aval.ndim > 0)
    picked = x and indices(w, x)
    if x is None or not picked:
        return
    aval = P["gather"].aval(x.aval, *(i.aval for i in picked[0]), axes=picked[1])
    if aval.size <= SIZE:
        w.add("gather", x, *picked[0], axes=picked[1], bound=w.bound[x])


def scatter(w: Writer) -> None:
    x = w.value(lambda n: n.aval.ndim > 0 and n.dtype != BOOL)
    picked = x and indices(w, x)
    if x is None or not picked:
        return
    aval = P["gather"].aval(x.aval, *(i.aval for i in picked[0]), axes=picked[1])
    source = w.value(lambda n: n.dtype == x.dtype)
    if aval.size > SIZE or source is None:
        return
    updates = w.fit(source, aval.shape)
    name = w.choice(("scatter_add", "scatter_set"))
    bound = w.bound[x] + w.bound[updates] * max(1, aval.size)
    w.add(name, x, updates, *picked[0], axes=picked[1], bound=bound)


def set_slice(w: Writer) -> None:
    x = w.value(lambda n: n.aval.ndim > 0 and n.aval.size > 0)
    if x is None:
        return
    start, size, step = [], [], []
    for n in x.shape:
        count = w.integer(1, n)
        d = w.integer(1, max(1, (n - 1) // max(count - 1, 1)))
        start.append(w.integer(0, n - 1 - (count - 1) * d))
        size.append(count)
        step.append(d)
    source = w.value(lambda n: n.dtype == x.dtype)
    assert source is not None
    updates = w.fit(source, tuple(size))
    bound = max(w.bound[x], w.bound[updates])
    w.add("set_slice", x, updates, start=tuple(start), step=tuple(step), bound=bound)


# --- contractions -------------------------------------------------------------------------------------------------


def dot(w: Writer) -> None:
    if w.special:  # BLAS takes zero times NaN for zero here and there: no reference
        return
    a = w.value(lambda n: n.aval.ndim > 0)
    if a is None:
        return
    axes = list(w.draw(st.permutations(range(a.aval.ndim))))
    n_batch = w.integer(0, len(axes))
    batch = axes[:n_batch]
    contract = axes[n_batch : n_batch + w.integer(0, len(axes) - n_batch)]
    shape = [a.shape[i] for i in (*batch, *contract)] + [w.dimension() for _ in range(w.integer(0, 2))]
    order = list(w.draw(st.permutations(range(len(shape)))))
    if math.prod(shape) > SIZE:
        return
    other = w.value(lambda n: n.dtype == a.dtype)
    assert other is not None
    b = w.fit(other, tuple(shape[i] for i in order))
    place = [order.index(i) for i in range(len(shape))]
    params = {
        "contract": (tuple(contract), tuple(place[n_batch : n_batch + len(contract)])),
        "batch": (tuple(batch), tuple(place[:n_batch])),
    }
    if P["dot"].aval(a.aval, b.aval, **params).size <= SIZE:
        inner = math.prod(a.shape[i] for i in contract)
        w.add("dot", a, b, **params, bound=w.bound[a] * w.bound[b] * max(inner, 1))


def conv(w: Writer) -> None:
    if w.special:
        return
    x = w.value(lambda n: n.aval.ndim in (3, 4) and n.dtype.kind == "f" and min(n.shape) > 0)
    if x is None:
        return
    spatial = x.aval.ndim - 2
    groups = w.choice([g for g in (1, 2, 3) if x.shape[1] % g == 0])
    kernel = tuple(w.integer(1, min(3, n)) for n in x.shape[2:])
    source = w.value(lambda n: n.dtype == x.dtype)
    assert source is not None
    weights = w.fit(source, (groups * w.integer(1, 2), x.shape[1] // groups, *kernel))
    params = {
        "stride": tuple(w.integer(1, 2) for _ in range(spatial)),
        "padding": tuple((w.integer(0, 1), w.integer(0, 1)) for _ in range(spatial)),
        "dilation": tuple(
            w.integer(1, 2) if k == 1 or (k - 1) * 2 < n else 1 for k, n in zip(kernel, x.shape[2:], strict=True)
        ),
        "groups": groups,
    }
    bound = w.bound[x] * w.bound[weights] * math.prod(weights.shape[1:])
    w.add("conv", x, weights, **params, bound=bound)


def window(w: Writer) -> None:
    x = w.value(lambda n: n.aval.ndim > 0 and n.dtype.kind == "f" and n.shape[-1] > 0)
    if x is None:
        return
    spatial = w.integer(1, min(2, x.aval.ndim))
    if min(x.shape[-spatial:]) == 0:
        return
    window = tuple(w.integer(1, min(3, n)) for n in x.shape[-spatial:])
    params = {
        "window": window,
        "stride": tuple(w.integer(1, 3) for _ in window),
        "padding": tuple((w.integer(0, k - 1), w.integer(0, k - 1)) for k in window),
    }
    bound = w.bound[x] * math.prod(window)
    if x in w.smooth or w.differentiable or w.chance():
        y = w.add("sum_pool", x, **params, bound=bound)
        if w.chance():
            w.add("sum_pool_spread", y, **params, size=x.shape[-spatial:], bound=w.bound[y] * math.prod(window))
        return
    y = w.add("max_pool", x, **params, bound=w.bound[x])
    if w.chance() and y.prim.name == "max_pool":
        ct = w.fit(w.value(lambda n: n.dtype == x.dtype) or x, y.shape)
        w.add("max_pool_route", ct, x, y, **params, bound=w.bound[ct] * math.prod(window))
    elif y.prim.name == "max_pool":
        t = w.fit(w.value(lambda n: n.dtype == x.dtype) or x, x.shape)
        w.add("max_pool_pick", t, x, y, **params, bound=w.bound[t])


def bits(w: Writer) -> None:
    if np.dtype(np.uint32) in w.dtypes:
        key = w.input(Aval((2,), np.dtype(np.uint32)))
        node = w.add("random_bits", key, shape=w.shape(), word=w.integer(0, 1), stream=1, bound=1.0)
        w.bound[node] = 2.0**32
