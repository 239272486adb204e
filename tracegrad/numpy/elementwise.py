"""Element-wise functions, as tables: a row is NumPy's name, the primitive behind it, how operands are promoted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.errors import DTypeError
from tracegrad.ir.aval import is_float
from tracegrad.ir.primitive import as_float32
from tracegrad.numpy.promote import BOOL, FLOAT64, Array, ArrayLike, align, broadcast_array, broadcast_shape, cast
from tracegrad.numpy.promote import computed, dtype_of, float_dtype, floats_dtype, is_weak, mark, operand
from tracegrad.numpy.promote import result_dtype, shown
from tracegrad.ops import elementwise as ops
from tracegrad.trace import Tracer

Function = Callable[..., Any]
INT8 = np.dtype(np.int8)


def named(function: Function, name: str, doc: str) -> Function:
    """Give a function of a table its name and documentation."""
    function.__name__ = function.__qualname__ = name
    function.__module__ = "tracegrad.numpy"
    function.__doc__ = doc
    return function


def not_bool(name: str, *operands: Any) -> DTypeError:
    listed = " and ".join(shown(x) for x in operands)
    return DTypeError(
        f"{name}: {listed} cannot be used with bool",
        fix="use ~x, x ^ y or np.logical_not, or convert with x.astype(int)",
    )


def settled(name: str, x: Any, y: Any) -> tuple[Any, Any] | None:
    """Return a pair of floats of one dtype, the common case, broadcast; None if there is something to promote."""
    if isinstance(x, Tracer):
        if x.weak or not is_float(x.dtype):
            return None
        if isinstance(y, Tracer):
            if y.dtype != x.dtype or y.weak:
                return None
            shape = x.shape
            if y.shape == shape:
                return x, y
            shape = broadcast_shape(name, (x, y))
            return broadcast_array(x, shape), broadcast_array(y, shape)
        return (x, x.dtype.type(y)) if is_plain(y) else None
    if isinstance(y, Tracer) and is_plain(x) and is_float(y.dtype) and not y.weak:
        return y.dtype.type(x), y
    return None


def is_plain(x: Any) -> bool:
    """Tell whether `x` is a Python number that every floating-point dtype can hold."""
    return (type(x) is float or type(x) is int) and -1e30 < x < 1e30


def floating(name: str, prim: Function, doc: str) -> Function:
    """Make a function of floats: integers are converted."""

    def function(x: ArrayLike, /) -> Array:
        if isinstance(x, Tracer) and is_float(x.dtype) and not x.weak:
            return prim(x)
        x = operand(name, x)
        weak = is_weak(x)
        dtype = FLOAT64 if weak and not is_float(dtype_of(x)) else float_dtype(dtype_of(x))
        return mark(prim(cast(name, x, dtype)), weak)

    return named(
        function, name, f"{doc}, element by element, as `numpy.{name}`; integers are converted to float first."
    )


def scaled(factor: float) -> Function:
    """Return multiplication with a number that is not rounded to half precision."""

    def apply(x: Array) -> Array:
        wide = as_float32(x)
        return cast("multiply", ops.mul(wide, wide.dtype.type(factor)), x.dtype)

    return apply


def numeric(name: str, prim: Function, doc: str, *, on_bool: Function | None = None) -> Function:
    """Make a function that keeps the dtype of its operand; `on_bool` stands in for bool, None refuses it."""

    def function(x: ArrayLike, /) -> Array:
        x = operand(name, x)
        weak, dtype = is_weak(x), dtype_of(x)
        if dtype == BOOL and on_bool is None:
            raise not_bool(name, x)
        apply = on_bool if dtype == BOOL and on_bool is not None else prim
        return mark(apply(cast(name, x, dtype)), weak)

    return named(computed(function), name, f"{doc}, element by element, as `numpy.{name}`.")


def rounding(name: str, prim: Function, doc: str) -> Function:
    """Make a function that rounds floats and leaves integers as they are. Its gradient is zero."""

    def function(x: ArrayLike, /) -> Array:
        x = operand(name, x)
        return mark(prim(cast(name, x, dtype_of(x))) if is_float(dtype_of(x)) else x, is_weak(x))

    doc = f"{doc}, as `numpy.{name}`; integers stay as they are, the gradient is zero."
    return named(computed(function), name, doc)


def predicate(name: str, prim: Function, doc: str, of_integers: bool) -> Function:
    """Make a test of floats; all integers give one answer."""

    def function(x: ArrayLike, /) -> Array:
        x = operand(name, x)
        if is_float(dtype_of(x)):
            return mark(prim(cast(name, x, dtype_of(x))), False)
        same = ops.equal(cast(name, x, dtype_of(x)), cast(name, x, dtype_of(x)))
        return mark(same if of_integers else ops.logical_not(same), False)

    return named(function, name, f"{doc}, element by element, as `numpy.{name}`.")


def arithmetic(name: str, prim: Function, doc: str, *, on_bool: Function | np.dtype[Any] | None = None) -> Function:
    """Make a binary function of promoted operands; two bools go to `on_bool`, a function or a dtype, or are refused."""

    def function(x: ArrayLike, y: ArrayLike, /) -> Array:
        ready = settled(name, x, y)
        if ready is not None:
            return prim(*ready)
        xs = [operand(name, x), operand(name, y)]
        dtype = result_dtype(xs)
        apply = prim
        if dtype == BOOL:
            if on_bool is None:
                raise not_bool(name, *xs)
            if isinstance(on_bool, np.dtype):
                dtype = on_bool
            else:
                apply = on_bool
        return mark(apply(*align(name, xs, dtype)), is_weak(xs[0]) and is_weak(xs[1]))

    return named(function, name, f"{doc}, element by element with broadcasting, as `numpy.{name}`.")


def floating2(name: str, prim: Function, doc: str, *, small: bool = True) -> Function:
    """Make a binary function of floats; `small` lets small integers compute in float32, as NumPy's functions do."""

    def function(x: ArrayLike, y: ArrayLike, /) -> Array:
        ready = settled(name, x, y)
        if ready is not None:
            return prim(*ready)
        xs = [operand(name, x), operand(name, y)]
        weak = is_weak(xs[0]) and is_weak(xs[1])
        dtype = floats_dtype(xs) if small or is_float(result_dtype(xs)) else FLOAT64
        return mark(prim(*align(name, xs, dtype)), weak)

    return named(
        function, name, f"{doc}, element by element with broadcasting, as `numpy.{name}`; the result is floating."
    )


def comparison(name: str, prim: Function, doc: str) -> Function:
    """Make a comparison: bool."""

    def function(x: ArrayLike, y: ArrayLike, /) -> Array:
        xs = [operand(name, x), operand(name, y)]
        return mark(prim(*align(name, xs, comparable(xs))), False)

    return named(function, name, f"{doc}, element by element with broadcasting, as `numpy.{name}`; the result is bool.")


def comparable(xs: list[Any]) -> np.dtype[Any]:
    """Return the dtype to compare in: a Python integer that the array's dtype cannot hold widens it."""
    dtype = result_dtype(xs)
    for x in xs:
        if isinstance(x, int) and dtype.kind in "iu" and not np.iinfo(dtype).min <= x <= np.iinfo(dtype).max:
            dtype = np.promote_types(dtype, np.min_scalar_type(x))
    return dtype


def truth(name: str, x: Any) -> Array:
    """Return where an operand is not zero."""
    x = operand(name, x)
    dtype = dtype_of(x)
    return cast(name, x, dtype) if dtype == BOOL else ops.not_equal(cast(name, x, dtype), dtype.type(0))


def logical(name: str, prim: Function, doc: str) -> Function:
    """Make a function of truth values."""

    def function(x: ArrayLike, y: ArrayLike, /) -> Array:
        return mark(prim(*align(name, [truth(name, x), truth(name, y)], BOOL)), False)

    return named(function, name, f"{doc} of the truth of each element, as `numpy.{name}`.")


def bitwise(name: str, prim: Function, doc: str, *, on_bool: np.dtype[Any] = BOOL) -> Function:
    """Make a function of integers or bools."""

    def function(x: ArrayLike, y: ArrayLike, /) -> Array:
        xs = [operand(name, x), operand(name, y)]
        dtype = result_dtype(xs)
        if dtype.kind not in "iub":
            listed = " and ".join(map(shown, xs))
            raise DTypeError(f"{name}: {listed} are not integers", fix="convert them with x.astype(np.int64)")
        dtype = on_bool if dtype == BOOL else dtype
        return mark(prim(*align(name, xs, dtype)), is_weak(xs[0]) and is_weak(xs[1]))

    return named(function, name, f"{doc}, element by element with broadcasting, as `numpy.{name}`.")


# --- arithmetic -------------------------------------------------------------------------------------------------------
add = arithmetic("add", ops.add, "x + y", on_bool=ops.bitwise_or)
subtract = arithmetic("subtract", ops.sub, "x - y")
multiply = arithmetic("multiply", ops.mul, "x * y", on_bool=ops.bitwise_and)
divide = floating2("divide", ops.div, "x / y", small=False)
floor_divide = arithmetic("floor_divide", ops.floor_divide, "The largest integer not above x / y", on_bool=INT8)
remainder = arithmetic("remainder", ops.mod, "x - y * floor(x / y), with the sign of y", on_bool=INT8)
negative = numeric("negative", ops.neg, "-x")
absolute = numeric("absolute", ops.abs_, "The absolute value; its gradient at 0 is 0", on_bool=lambda x: x)
fabs = floating("fabs", ops.abs_, "The absolute value")
sign = numeric("sign", ops.sign, "-1, 0 or 1")
square = numeric("square", ops.square, "x * x", on_bool=lambda x: ops.convert(x, dtype=INT8))
sqrt = floating("sqrt", ops.sqrt, "The square root")
cbrt = floating("cbrt", ops.cbrt, "The cube root; its gradient at 0 is infinite")
maximum = arithmetic("maximum", ops.maximum, "The larger; ties share the gradient, NaN wins", on_bool=ops.bitwise_or)
minimum = arithmetic("minimum", ops.minimum, "The smaller; ties share the gradient, NaN wins", on_bool=ops.bitwise_and)

# --- rounding ---------------------------------------------------------------------------------------------------------
floor = rounding("floor", ops.floor, "The largest integer not above x")
ceil = rounding("ceil", ops.ceil, "The smallest integer not below x")
trunc = rounding("trunc", ops.trunc, "x without its fraction")
fix = rounding("fix", ops.trunc, "x without its fraction")
rint = floating("rint", ops.rint, "The nearest integer, halves to even")

# --- exponentials, logarithms, trigonometry ---------------------------------------------------------------------------
exp = floating("exp", ops.exp, "e ** x")
exp2 = floating("exp2", ops.exp2, "2 ** x")
expm1 = floating("expm1", ops.expm1, "e ** x - 1 without cancellation")
log = floating("log", ops.log, "The natural logarithm")
log2 = floating("log2", ops.log2, "The logarithm to base 2")
log10 = floating("log10", ops.log10, "The logarithm to base 10")
log1p = floating("log1p", ops.log1p, "log(1 + x) without cancellation")
sin = floating("sin", ops.sin, "The sine of radians")
cos = floating("cos", ops.cos, "The cosine of radians")
tan = floating("tan", ops.tan, "The tangent of radians")
arcsin = floating("arcsin", ops.arcsin, "The angle whose sine is x")
arccos = floating("arccos", ops.arccos, "The angle whose cosine is x")
arctan = floating("arctan", ops.arctan, "The angle whose tangent is x")
arctan2 = floating2("arctan2", ops.arctan2, "The angle of the point (y, x), operands (y, x)")
sinh = floating("sinh", ops.sinh, "The hyperbolic sine")
cosh = floating("cosh", ops.cosh, "The hyperbolic cosine")
tanh = floating("tanh", ops.tanh, "The hyperbolic tangent")
arcsinh = floating("arcsinh", ops.arcsinh, "The inverse hyperbolic sine")
arccosh = floating("arccosh", ops.arccosh, "The inverse hyperbolic cosine")
arctanh = floating("arctanh", ops.arctanh, "The inverse hyperbolic tangent")
degrees = floating("degrees", scaled(180.0 / np.pi), "Radians in degrees")
radians = floating("radians", scaled(np.pi / 180.0), "Degrees in radians")

# --- comparisons, logic, bits -----------------------------------------------------------------------------------------
equal = comparison("equal", ops.equal, "x == y")
not_equal = comparison("not_equal", ops.not_equal, "x != y")
less = comparison("less", ops.less, "x < y")
less_equal = comparison("less_equal", ops.less_equal, "x <= y")
greater = comparison("greater", ops.greater, "x > y")
greater_equal = comparison("greater_equal", ops.greater_equal, "x >= y")
isnan = predicate("isnan", ops.isnan, "Tell what is NaN", of_integers=False)
isinf = predicate("isinf", ops.isinf, "Tell what is infinite", of_integers=False)
isfinite = predicate("isfinite", ops.isfinite, "Tell what is neither infinite nor NaN", of_integers=True)
logical_and = logical("logical_and", ops.bitwise_and, "x and y")
logical_or = logical("logical_or", ops.bitwise_or, "x or y")
logical_xor = logical("logical_xor", ops.bitwise_xor, "Either x or y")
bitwise_and = bitwise("bitwise_and", ops.bitwise_and, "x & y")
bitwise_or = bitwise("bitwise_or", ops.bitwise_or, "x | y")
bitwise_xor = bitwise("bitwise_xor", ops.bitwise_xor, "x ^ y")
left_shift = bitwise("left_shift", ops.left_shift, "x << y", on_bool=INT8)
right_shift = bitwise("right_shift", ops.right_shift, "x >> y", on_bool=INT8)


def logical_not(x: ArrayLike, /) -> Array:
    """Not x, of the truth of each element, as `numpy.logical_not`."""
    return mark(ops.logical_not(truth("logical_not", x)), False)


def invert(x: ArrayLike, /) -> Array:
    """~x: the bits of integers, `not` of bools, as `numpy.invert`."""
    x = operand("invert", x)
    if dtype_of(x).kind not in "iub":
        raise DTypeError(f"invert: {shown(x)} is not integer or bool", fix="convert it with x.astype(np.int64)")
    apply = ops.logical_not if dtype_of(x) == BOOL else ops.bitwise_not
    return mark(apply(cast("invert", x, dtype_of(x))), is_weak(x))
