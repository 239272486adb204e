"""Draws from keys. All are pure, and work on concrete and on traced keys alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError, DTypeError, ShapeError
from tracegrad.ir.aval import check_dtype, is_float, is_half
from tracegrad.ops.elementwise import (
    add,
    bitwise_or,
    convert,
    cos,
    greater_equal,
    left_shift,
    less,
    log,
    mod,
    mul,
    right_shift,
    sqrt,
    sub,
)
from tracegrad.ops.index import argsort, gather
from tracegrad.ops.random import random_bits
from tracegrad.ops.reduce import cumsum, reduce_sum
from tracegrad.ops.shape import broadcast, reshape, slice_
from tracegrad.random.keys import DRAW, DRAW_MORE, I64, U64, checked
from tracegrad.trace import is_scalar

Shape = int | Sequence[int]
F32 = np.dtype(np.float32)
F64 = np.dtype(np.float64)


def bits(key: Any, shape: Shape = ()) -> Any:
    """Return 32 random bits per element, u32 of `shape`.

    >>> from tracegrad import random
    >>> random.bits(np.zeros(2, np.uint32)) == 0x6B200159  # the first known answer of Threefry-2x32
    np.True_
    """
    return random_bits(checked(key), shape=sizes(shape), word=0, stream=DRAW)


def uniform(key: Any, shape: Shape = (), dtype: Any = np.float64, low: Any = 0.0, high: Any = 1.0) -> Any:
    """Draw from the uniform distribution on [low, high), up to rounding: 24 random bits in float32, 53 in float64.

    Half precision is drawn in float32 and rounded. `low` and `high` are numbers, or (traced) scalars.

    >>> from tracegrad import random
    >>> random.uniform(random.key(0), (3,), np.float32).dtype
    dtype('float32')
    """
    shape, dtype = sizes(shape), floating(dtype, "uniform")
    if is_half(dtype):
        return convert(uniform(key, shape, F32, low, high), dtype=dtype)
    u = unit(checked(key), shape, dtype, DRAW)
    if is_scalar(low) and is_scalar(high) and (low, high) == (0.0, 1.0):
        return u
    low, high = spread(low, shape, dtype), spread(high, shape, dtype)
    return add(mul(u, sub(high, low)), low)


def normal(key: Any, shape: Shape = (), dtype: Any = np.float64) -> Any:
    """Draw from the normal distribution with mean 0 and variance 1.

    sqrt(-2 log u) cos(2 pi v) of two uniform numbers (Box and Muller, 1958); u > 0 has 32 bits in float32 and 53 in
    float64, so the largest values are 6.7 and 8.6. Half precision is drawn in float32 and rounded.

    >>> from tracegrad import random
    >>> random.normal(random.key(0), (2, 3)).shape
    (2, 3)
    """
    shape, dtype, key = sizes(shape), floating(dtype, "normal"), checked(key)
    if is_half(dtype):
        return convert(normal(key, shape, F32), dtype=dtype)
    if dtype == F32:
        # (bits + 1) / 2**32 lies in (0, 1]: small u keep all their digits, and log never sees 0.
        u = mul(
            add(convert(random_bits(key, shape=shape, word=0, stream=DRAW), dtype=F32), F32.type(1)), F32.type(2.0**-32)
        )
        v = mul(convert(upper(key, shape, 8, word=1), dtype=F32), F32.type(2.0**-24))
    else:
        u = sub(F64.type(1), unit(key, shape, F64, DRAW))
        v = unit(key, shape, F64, DRAW_MORE)
    radius = sqrt(mul(log(u), dtype.type(-2)))
    return mul(radius, cos(mul(v, dtype.type(2 * math.pi))))


def bernoulli(key: Any, p: Any = 0.5, shape: Shape = ()) -> Any:
    """Draw bools that are True with probability `p`, a number or a (traced) scalar.

    >>> from tracegrad import random
    >>> bool(random.bernoulli(random.key(0), 1.0))
    True
    """
    if is_scalar(p) and not 0 <= p <= 1:
        raise ArgumentError(f"bernoulli: p is {p}, not a probability", fix="use 0 <= p <= 1")
    shape = sizes(shape)
    return less(unit(checked(key), shape, F32, DRAW), spread(p, shape, F32))


def randint(key: Any, low: Any, high: Any, shape: Shape = (), dtype: Any = np.int64) -> Any:
    """Draw integers from low, low + 1, ..., high - 1; the bias of a span s is at most s / 2**64.

    >>> from tracegrad import random
    >>> int(random.randint(random.key(0), 3, 4))
    3
    """
    shape, dtype, key = sizes(shape), np.dtype(dtype), checked(key)
    if dtype.kind not in "iu":
        raise DTypeError(f"randint: the dtype {dtype} is not an integer", fix="use dtype=np.int64")
    if is_scalar(low) and is_scalar(high):
        if low >= high:
            raise ArgumentError(f"randint: no integer lies in [{low}, {high})", fix="use low < high")
        info = np.iinfo(dtype)
        if low < info.min or high - 1 > info.max:
            raise ArgumentError(f"randint: [{low}, {high}) does not fit {dtype}", fix="use a wider dtype")
        span: Any = U64.type(high - low)
    else:
        span = convert(sub(spread(high, shape, I64), spread(low, shape, I64)), dtype=U64)
    offset = convert(mod(wide_bits(key, shape), span), dtype=dtype)
    return add(offset, spread(low, shape, dtype))


def permutation(key: Any, x: Any) -> Any:
    """Return the integers 0 to x - 1 in random order, or the rows (axis 0) of the array `x` in random order.

    >>> from tracegrad import random
    >>> sorted(random.permutation(random.key(0), 4).tolist())
    [0, 1, 2, 3]
    """
    if isinstance(x, (int, np.integer)):
        return argsort(wide_bits(checked(key), (int(x),)))
    if not x.shape:
        raise ShapeError("permutation: a scalar array has no rows", fix="pass an int, or an array with an axis")
    return gather(x, argsort(wide_bits(checked(key), (x.shape[0],))), axes=(0,))


def choice(key: Any, x: Any, shape: Shape = (), replace: bool = True, p: Any = None) -> Any:
    """Draw from 0 to x - 1, or from the rows of the array `x`; with probabilities `p`, or without replacement.

    Raises ShapeError when more distinct ones are asked for than there are. `p` [n] need not add up to 1, and is used
    only with replacement.

    >>> from tracegrad import random
    >>> random.choice(random.key(0), 10, (3,), replace=False).shape
    (3,)
    """
    n = int(x) if isinstance(x, (int, np.integer)) else x.shape[0]
    shape = sizes(shape)
    if not replace:
        if p is not None:
            raise ArgumentError("choice: p= is for draws with replacement", fix="use replace=True, or leave p out")
        count = math.prod(shape)
        if count > n:
            raise ShapeError(f"choice: {count} distinct ones of {n} were asked for", fix="use replace=True")
        index = reshape(slice_(permutation(key, n), start=(0,), size=(count,), step=(1,)), shape=shape)
    elif p is None:
        index = randint(key, 0, n, shape)
    else:
        index = inverse_cdf(key, p, n, shape)
    return index if isinstance(x, (int, np.integer)) else gather(x, index, axes=(0,))


def inverse_cdf(key: Any, p: Any, n: int, shape: tuple[int, ...]) -> Any:
    """Count, for each uniform draw, the upper ends of the first n - 1 intervals that lie at or below it."""
    p = p if hasattr(p, "dtype") else np.asarray(p, F64)
    if tuple(p.shape) != (n,):
        raise ShapeError(
            f"choice: p has shape {tuple(p.shape)}, but there are {n} to choose from", fix="pass one p for each"
        )
    ends = cumsum(convert(p, dtype=F64), axis=0, reverse=False)
    total = slice_(ends, start=(n - 1,), size=(1,), step=(1,))
    ends = slice_(ends, start=(0,), size=(n - 1,), step=(1,))
    u = mul(unit(checked(key), shape, F64, DRAW), broadcast(reshape(total, shape=()), shape=shape, axes=()))
    grid = (*shape, n - 1)
    u = broadcast(u, shape=grid, axes=tuple(range(len(shape))))
    below = greater_equal(u, broadcast(ends, shape=grid, axes=(len(shape),)))
    return reduce_sum(convert(below, dtype=I64), axes=(len(shape),))


def sizes(shape: Shape) -> tuple[int, ...]:
    return (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(int(n) for n in shape)


def floating(dtype: Any, name: str) -> np.dtype[Any]:
    """Return a floating-point dtype, or raise DTypeError."""
    found = check_dtype(dtype, f"{name}: the result")
    if not is_float(found):
        raise DTypeError(f"{name}: the dtype {found} is not floating point", fix="use dtype=np.float32")
    return found


def upper(key: Any, shape: tuple[int, ...], drop: int, *, word: int, stream: int = DRAW) -> Any:
    """Return random bits without the lowest `drop` ones."""
    return right_shift(random_bits(key, shape=shape, word=word, stream=stream), np.uint32(drop))


def unit(key: Any, shape: tuple[int, ...], dtype: np.dtype[Any], stream: int) -> Any:
    """Return uniform numbers in [0, 1)."""
    if dtype == F32:
        return mul(convert(upper(key, shape, 8, word=0, stream=stream), dtype=F32), F32.type(2.0**-24))
    high = convert(upper(key, shape, 5, word=0, stream=stream), dtype=F64)
    low = convert(upper(key, shape, 6, word=1, stream=stream), dtype=F64)
    return mul(add(mul(high, F64.type(2.0**26)), low), F64.type(2.0**-53))


def wide_bits(key: Any, shape: tuple[int, ...]) -> Any:
    """Return 64 random bits per element, u64."""
    high, low = [convert(random_bits(key, shape=shape, word=w, stream=DRAW), dtype=U64) for w in (0, 1)]
    return bitwise_or(left_shift(high, U64.type(32)), low)


def spread(value: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Return a number as a scalar of `dtype`, an array or a traced value broadcast to `shape`."""
    if is_scalar(value):
        return dtype.type(value)
    return broadcast(convert(value, dtype=dtype), shape=shape, axes=tuple(range(len(value.shape))))
