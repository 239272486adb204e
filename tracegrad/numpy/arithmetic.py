"""Element-wise functions that are compositions of several primitives."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tracegrad.bfloat16 import LARGEST as LARGEST_BFLOAT16
from tracegrad.bfloat16 import is_bfloat16
from tracegrad.errors import ArgumentError, DTypeError
from tracegrad.numpy import elementwise as ew
from tracegrad.ir.aval import is_float
from tracegrad.numpy.half import rounded_once
from tracegrad.numpy.promote import computed
from tracegrad.numpy.promote import BOOL, FLOAT64, Array, ArrayLike, align, broadcast_array, broadcast_shape, cast
from tracegrad.numpy.promote import dtype_of, floats_dtype, is_weak, mark, operand, result_dtype, shape_of, shown
from tracegrad.ops import elementwise as ops
from tracegrad.ops.shape import broadcast
from tracegrad.trace import Tracer

LARGEST_UNROLLED = 8


@computed
def positive(x: ArrayLike, /) -> Array:
    """+x, as `numpy.positive`."""
    x = operand("positive", x)
    if dtype_of(x) == BOOL:
        raise ew.not_bool("positive", x)
    return x


def reciprocal(x: ArrayLike, /) -> Array:
    """1 / x, as `numpy.reciprocal`; integers give integers, as there."""
    x = operand("reciprocal", x)
    if is_float(dtype_of(x)):
        return mark(ops.reciprocal(cast("reciprocal", x, dtype_of(x))), is_weak(x))
    return where(ew.equal(ew.absolute(x), 1), x, ew.multiply(x, 0))


def static_exponent(y: Any) -> int | float | None:
    """Return an exponent that is known while tracing: a number, not an array."""
    if isinstance(y, (int, float, np.integer, np.floating)) and not isinstance(y, bool):
        value = float(y)
        return int(value) if value.is_integer() and abs(value) < 2**31 else value
    return None


@computed
@rounded_once(of_operands=True)
def power(x: ArrayLike, y: ArrayLike, /) -> Array:
    """x ** y, element by element with broadcasting, as `numpy.power`.

    A small integer exponent becomes multiplications and 0.5 a square root, so that gradients at 0 and of negative
    numbers are right. Raises DTypeError for integers to a negative integer power, as NumPy does.

    >>> power(np.array([-2.0, 3.0]), 2)
    array([4., 9.])
    """
    xs = [operand("power", x), operand("power", y)]
    dtype = result_dtype(xs)
    weak = is_weak(xs[0]) and is_weak(xs[1])
    if dtype == BOOL:
        dtype = np.dtype(np.int8)
    exponent = static_exponent(xs[1])
    if exponent is not None and dtype.kind in "iu" and exponent < 0:
        raise DTypeError(
            f"power: {shown(xs[0])} to the power {exponent}: integers have no negative powers",
            fix="convert to float first, for instance x.astype(np.float64)",
        )
    base = cast("power", xs[0], dtype)
    if exponent is not None and isinstance(base, (Tracer, np.ndarray)):
        short = short_power(base, exponent)
        if short is not None:
            return mark(short, weak)
    return mark(ops.power(*align("power", [base, xs[1]], dtype)), weak)


def short_power(x: Array, exponent: int | float) -> Array | None:
    """Return x ** exponent by multiplications, or None when it takes a real power."""
    if exponent == 0.5 and is_float(x.dtype):
        return ops.sqrt(x)
    if isinstance(exponent, float) or abs(exponent) > LARGEST_UNROLLED:
        return None
    if exponent == 0:
        return broadcast.beside(x, x.dtype.type(1), shape=shape_of(x), axes=())
    found, base, left = None, x, abs(exponent)
    while left:
        if left & 1:
            found = base if found is None else ops.mul(found, base)
        left >>= 1
        base = ops.square(base) if left else base
    return found if exponent > 0 else ops.reciprocal(found)


@computed
def float_power(x: ArrayLike, y: ArrayLike, /) -> Array:
    """x ** y in float64, as `numpy.float_power`."""
    return power(astype_float64(x), astype_float64(y))


def astype_float64(x: ArrayLike) -> Array:
    return cast("float_power", operand("float_power", x), FLOAT64)


def fmod(x: ArrayLike, y: ArrayLike, /) -> Array:
    """The remainder with the sign of x, as `numpy.fmod`."""
    xs = [operand("fmod", x), operand("fmod", y)]
    dtype = result_dtype(xs)
    if is_float(dtype):
        return mark(ops.fmod(*align("fmod", xs, dtype)), is_weak(xs[0]) and is_weak(xs[1]))
    found = ew.remainder(x, y)
    crossed = ew.logical_and(found, ew.not_equal(ew.less(x, 0), ew.less(y, 0)))
    return where(crossed, ew.subtract(found, y), found)


def divmod(x: ArrayLike, y: ArrayLike, /) -> tuple[Array, Array]:  # noqa: A001 (NumPy's name)
    """(x // y, x % y), as `numpy.divmod`."""
    return ew.floor_divide(x, y), ew.remainder(x, y)


@rounded_once(of_operands=True)
def hypot(x: ArrayLike, y: ArrayLike, /) -> Array:
    """sqrt(x * x + y * y) without overflow, as `numpy.hypot`; its gradient at (0, 0) is 0."""
    xs = [operand("hypot", x), operand("hypot", y)]
    weak = is_weak(xs[0]) and is_weak(xs[1])
    a, b = align("hypot", xs, floats_dtype(xs))
    largest = ops.stop_gradient(ops.maximum(ops.abs_(a), ops.abs_(b)))
    plain = ops.bitwise_and(ops.isfinite(largest), ops.greater(largest, 0.0))
    scale = ops.where(plain, largest, 1.0)
    root = ops.mul(scale, ops.sqrt(ops.add(ops.square(ops.div(a, scale)), ops.square(ops.div(b, scale)))))
    infinite = ops.bitwise_or(ops.isinf(a), ops.isinf(b))
    return mark(ops.where(plain, root, ops.where(infinite, np.inf, largest)), weak)


@rounded_once(of_operands=True)
def logaddexp(x: ArrayLike, y: ArrayLike, /) -> Array:
    """log(exp(x) + exp(y)) without overflow, as `numpy.logaddexp`; both may be -inf."""
    xs = [operand("logaddexp", x), operand("logaddexp", y)]
    weak = is_weak(xs[0]) and is_weak(xs[1])
    a, b = align("logaddexp", xs, floats_dtype(xs))
    gap = ops.sub(a, b)
    first = ops.add(a, ops.log1p(ops.exp(ops.neg(gap))))
    second = ops.add(b, ops.log1p(ops.exp(gap)))
    smooth = ops.where(ops.greater(gap, 0.0), first, second)
    return mark(ops.where(ops.isnan(gap), ops.add(a, b), smooth), weak)


@rounded_once(of_operands=True)
def logaddexp2(x: ArrayLike, y: ArrayLike, /) -> Array:
    """log2(2 ** x + 2 ** y) without overflow, as `numpy.logaddexp2`."""
    ln2 = math.log(2.0)
    xs = [operand("logaddexp2", x), operand("logaddexp2", y)]
    a, b = align("logaddexp2", xs, floats_dtype(xs))
    found = ew.divide(logaddexp(ew.multiply(a, ln2), ew.multiply(b, ln2)), ln2)
    return mark(found, is_weak(xs[0]) and is_weak(xs[1]))


@computed
def where(condition: ArrayLike, x: ArrayLike = None, y: ArrayLike = None, /) -> Array:
    """Choose x where `condition` holds, else y, with broadcasting, as `numpy.where`.

    The gradient flows to the chosen element only: NaN or inf in the other one never reaches it, nor in what it was
    computed from by element-wise functions, reductions, indexing, branches and loops. Matrix products, convolutions and
    maximum pooling end this: before them, use `where` on their operands. Raises ArgumentError for the form with one
    argument, whose size depends on values.

    >>> where(np.array([True, False]), 1.0, np.array([2.0, 3.0]))
    array([1., 3.])
    """
    if x is None or y is None:
        raise ArgumentError(
            "where: one argument alone gives a result whose size depends on values",
            fix="use np.where(condition, x, y), or np.nonzero on a NumPy array outside the traced function",
        )
    mask = ew.truth("where", condition)
    xs = [operand("where", x), operand("where", y)]
    shape = broadcast_shape("where", [mask, *xs])
    parts = [mask, *(cast("where", v, result_dtype(xs)) for v in xs)]
    ready = [broadcast_array(v, shape) if isinstance(v, (Tracer, np.ndarray)) else v for v in parts]
    return mark(ops.where(*ready), is_weak(xs[0]) and is_weak(xs[1]))


@computed
def clip(
    x: ArrayLike, a_min: ArrayLike = None, a_max: ArrayLike = None, *, min: ArrayLike = None, max: ArrayLike = None
) -> Array:
    """Limit x to [min, max], as `numpy.clip`; None leaves a side open.

    The gradient goes to x inside the limits, ends included, and to the limit outside.

    >>> clip(np.array([-1.0, 0.5, 2.0]), 0.0, 1.0)
    array([0. , 0.5, 1. ])
    """
    low, high = (a_min if min is None else min), (a_max if max is None else max)
    bounds = [operand("clip", v) for v in (low, high) if v is not None]
    x = operand("clip", x)
    dtype = result_dtype([x, *bounds])
    weak = is_weak(x) and all(map(is_weak, bounds))
    shape = broadcast_shape("clip", [x, *bounds])
    found = cast("clip", x, dtype)
    found = broadcast_array(found, shape) if isinstance(found, (Tracer, np.ndarray)) else found
    for bound, outside in ((low, ops.less), (high, ops.greater)):
        if bound is not None:
            value, limit = align("clip", [found, operand("clip", bound)], dtype)
            found = ops.where(outside(value, limit), limit, value)
    return mark(found, weak)


@computed
@rounded_once
def round(x: ArrayLike, decimals: int = 0) -> Array:  # noqa: A001 (NumPy's name)
    """Round to `decimals` places, halves to even, as `numpy.round`; the gradient is zero."""
    x = operand("round", x)
    if not is_float(dtype_of(x)):
        return x
    if decimals == 0:
        return ew.rint(x)
    scale = 10.0 ** abs(decimals)
    if decimals > 0:
        return ew.divide(ew.rint(ew.multiply(x, scale)), scale)
    return ew.multiply(ew.rint(ew.divide(x, scale)), scale)


def fmax(x: ArrayLike, y: ArrayLike, /) -> Array:
    """The larger, NaN only when both are, as `numpy.fmax`."""
    return where(ew.isnan(x), y, where(ew.isnan(y), x, ew.maximum(x, y)))


def fmin(x: ArrayLike, y: ArrayLike, /) -> Array:
    """The smaller, NaN only when both are, as `numpy.fmin`."""
    return where(ew.isnan(x), y, where(ew.isnan(y), x, ew.minimum(x, y)))


def heaviside(x: ArrayLike, h: ArrayLike, /) -> Array:
    """0 where x < 0, 1 where x > 0, h where x is 0, as `numpy.heaviside`."""
    xs = [operand("heaviside", x), operand("heaviside", h)]
    x, h = align("heaviside", xs, floats_dtype(xs))
    step = where(ew.equal(x, 0), h, where(ew.greater(x, 0), x.dtype.type(1), x.dtype.type(0)))
    return where(ew.isnan(x), x, step)


def signbit(x: ArrayLike, /) -> Array:
    """Tell what is negative, -0.0 included, as `numpy.signbit`; the sign of a NaN is not seen."""
    x = operand("signbit", x)
    negative = ew.less(x, 0)
    if not is_float(dtype_of(x)):
        return negative
    zero = ew.equal(x, 0)
    return ew.logical_or(negative, ew.logical_and(zero, ew.less(reciprocal(where(zero, x, 1.0)), 0)))


def copysign(x: ArrayLike, y: ArrayLike, /) -> Array:
    """|x| with the sign of y, as `numpy.copysign`."""
    xs = [operand("copysign", x), operand("copysign", y)]
    a, b = align("copysign", xs, floats_dtype(xs))
    size = ew.fabs(a)
    return mark(where(signbit(b), ew.negative(size), size), is_weak(xs[0]) and is_weak(xs[1]))


@rounded_once
def isclose(x: ArrayLike, y: ArrayLike, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Array:
    """|x - y| <= atol + rtol * |y|, as `numpy.isclose`; equal infinities are close."""
    limit = ew.add(atol, ew.multiply(rtol, ew.fabs(y)))
    near = ew.logical_and(ew.less_equal(ew.fabs(ew.subtract(x, y)), limit), ew.isfinite(y))
    found = ew.logical_or(near, ew.equal(x, y))
    return ew.logical_or(found, ew.logical_and(ew.isnan(x), ew.isnan(y))) if equal_nan else found


def isposinf(x: ArrayLike, /) -> Array:
    """Tell what is +inf, as `numpy.isposinf`."""
    return ew.logical_and(ew.isinf(x), ew.greater(x, 0))


def isneginf(x: ArrayLike, /) -> Array:
    """Tell what is -inf, as `numpy.isneginf`."""
    return ew.logical_and(ew.isinf(x), ew.less(x, 0))


@computed
def nan_to_num(x: ArrayLike, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Array:
    """Replace NaN and infinities by numbers, as `numpy.nan_to_num`."""
    x = operand("nan_to_num", x)
    if not is_float(dtype_of(x)):
        return x
    largest = largest_number(dtype_of(x))
    found = where(ew.isnan(x), nan, x)
    found = where(isposinf(x), largest if posinf is None else posinf, found)
    return where(isneginf(x), -largest if neginf is None else neginf, found)


def largest_number(dtype: np.dtype[Any]) -> float:
    return LARGEST_BFLOAT16 if is_bfloat16(dtype) else float(np.finfo(dtype).max)
