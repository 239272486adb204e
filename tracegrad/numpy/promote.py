"""What every public call does first: accept operands, promote dtypes as NumPy 2 does, broadcast shapes, settle axes.

The graph never broadcasts or promotes. Python scalars, and the traced values that stand for them, are weak: they take
the dtype of the arrays beside them (NEP 50). A Python or NumPy scalar becomes a literal and needs no broadcast.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, wraps
from typing import Any, TypeAlias, TypeVar

import numpy as np

from tracegrad.bfloat16 import as_dtype, is_bfloat16
from tracegrad.errors import ArgumentError, DTypeError, ShapeError
from tracegrad.ir import Aval
from tracegrad.ir.aval import NAMES, check_dtype, check_plain, is_float
from tracegrad.ops.elementwise import convert
from tracegrad.ops.shape import broadcast, concat, reshape
from tracegrad.memory import Memory, note_view
from tracegrad.trace import Tracer, current_trace, is_scalar, scalar_dtype

Array: TypeAlias = Any
"""A traced value, a NumPy array or a NumPy scalar."""
ArrayLike: TypeAlias = Any
"""An Array, a Python scalar or nested lists of them."""
DType: TypeAlias = Any
Function = TypeVar("Function", bound=Callable[..., Any])
Shape: TypeAlias = tuple[int, ...]
Axis: TypeAlias = int | Sequence[int] | None

BOOL = np.dtype(np.bool_)
INT64 = np.dtype(np.int64)
FLOAT32 = np.dtype(np.float32)
FLOAT64 = np.dtype(np.float64)
PROXIES: dict[str, Any] = {"b": False, "i": 0, "u": 0, "f": 0.0}


def operand(name: str, value: Any) -> Array:
    """Return `value` as something a primitive takes; an array met inside a trace becomes a hidden input."""
    if isinstance(value, Tracer) or is_scalar(value):
        return value
    if isinstance(value, (np.ndarray, np.generic)):
        return known(name, value)
    if isinstance(value, (list, tuple)):
        return from_nested(name, value)
    if hasattr(value, "__array__"):
        return known(name, np.asarray(value))
    raise ArgumentError(
        f"{name}: a value of type {type(value).__name__} is not an array, a number or a list of them",
        fix="pass np.asarray(x, dtype=np.float32) or a number",
    )


def known(name: str, value: np.ndarray[Any, Any] | np.generic) -> Array:
    """Accept a NumPy value: check its dtype, and lift an array into the innermost trace."""
    check_plain(value, name)
    if value.dtype not in NAMES:
        check_dtype(value.dtype, f"{name}: an operand of shape {value.shape}")
    trace = current_trace()
    if trace is None or isinstance(value, np.generic):
        return value
    found = Tracer(trace, trace.lift(value))
    if not isinstance(value, Tracer):
        Memory(found, "an array of NumPy's")
    return found


def from_nested(name: str, value: Sequence[Any]) -> Array:
    """Return nested lists as one array; traced values inside are stacked."""
    if any(isinstance(leaf, Tracer) for leaf in nested_leaves(value)):
        rows = [operand(name, row) for row in value]
        dtype = result_dtype(rows)
        shapes = {shape_of(row) for row in rows}
        if len(shapes) > 1:
            raise ShapeError(
                f"{name}: the rows of a list have the shapes {' and '.join(map(str, sorted(shapes)))}",
                fix="make every row of the list as long as the others",
            )
        parts = [as_rank(array_of(cast(name, row, dtype))) for row in rows]
        return concat(*parts, axis=0)
    try:
        found = np.asarray(value)
    except ValueError:
        raise ArgumentError(
            f"{name}: the rows of a nested list differ in length", fix="pad the rows to one length, or pass one array"
        ) from None
    return known(name, found)


def nested_leaves(value: Any) -> Iterable[Any]:
    """Yield what nested lists and tuples hold."""
    if isinstance(value, (list, tuple)):
        for part in value:
            yield from nested_leaves(part)
    else:
        yield value


def as_rank(x: Array) -> Array:
    """Put one axis in front."""
    return reshape(x, shape=(1, *x.shape))


def array_of(x: Array) -> Array:
    """Return a scalar as a traced value or an array of rank 0; inside a trace a literal needs no hidden input."""
    if isinstance(x, (Tracer, np.ndarray)):
        return x
    trace = current_trace()
    scalar = scalar_dtype(x).type(x) if is_scalar(x) else x
    if trace is None:
        return np.asarray(scalar)
    return Tracer(trace, trace.lift(scalar), is_scalar(x))


def array(name: str, value: Any) -> Array:
    """Accept an operand that needs a shape: scalars become arrays of rank 0."""
    return array_of(operand(name, value))


def shape_of(x: Any) -> Shape:
    return tuple(x.shape) if hasattr(x, "shape") else ()


def dtype_of(x: Any) -> np.dtype[Any]:
    """Return the dtype of an operand; a Python scalar has the one it would have alone."""
    return scalar_dtype(x) if is_scalar(x) else x.dtype


def shown(x: Any) -> str:
    """Write shape and dtype of an operand for an error."""
    return str(Aval(shape_of(x), dtype_of(x)))


def is_weak(x: Any) -> bool:
    """Tell whether `x` takes the dtype of what stands beside it."""
    return is_scalar(x) or (isinstance(x, Tracer) and x.weak)


@lru_cache(maxsize=4096)
def joined(strong: tuple[np.dtype[Any], ...], weak: tuple[str, ...]) -> np.dtype[Any]:
    """Return NumPy's result dtype of strong dtypes beside Python scalars of the given kinds.

    bfloat16 beside a Python number stays what it is, as float16 does, though ml_dtypes makes it wider.
    """
    try:
        if any(map(is_bfloat16, strong)) and is_bfloat16(found := np.result_type(*strong)):
            return found
        return np.result_type(*strong, *(PROXIES[kind] for kind in weak))
    except np.exceptions.DTypePromotionError:
        listed = " and ".join(sorted({str(d) for d in strong}))
        raise DTypeError(
            f"{listed} have no dtype in common", fix="convert one of them, for instance with x.astype(np.float32)"
        ) from None


def array_dtypes(values: Iterable[Any]) -> tuple[np.dtype[Any], ...]:
    """Return the dtypes of the arrays among some values that are not weak."""
    return tuple(x.dtype for x in values if isinstance(getattr(x, "dtype", None), np.dtype) and not is_weak(x))


def result_dtype(operands: Sequence[Any]) -> np.dtype[Any]:
    """Return the dtype that operands are promoted to."""
    strong = tuple(dtype_of(x) for x in operands if not is_weak(x))
    weak = tuple(dtype_of(x).kind for x in operands if is_weak(x))
    return check_dtype(joined(strong, weak), "the promoted result")


def float_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype in which a function of floats computes; NumPy's float16 for small integers becomes float32."""
    if is_float(dtype):
        return dtype
    return FLOAT32 if dtype.itemsize <= 2 else FLOAT64


def floats_dtype(operands: Sequence[Any]) -> np.dtype[Any]:
    """Return the dtype in which a function of several floats computes: NumPy converts each to float by itself."""
    dtype = result_dtype(operands)
    if is_float(dtype):
        return dtype
    if any(map(is_weak, operands)):
        return FLOAT64 if all(map(is_weak, operands)) else float_dtype(dtype)
    return np.result_type(*[float_dtype(dtype_of(x)) for x in operands])


def cast(name: str, x: Any, dtype: np.dtype[Any]) -> Array:
    """Convert an operand, without a node when it has the dtype already."""
    if isinstance(x, (Tracer, np.ndarray)):
        return x if x.dtype == dtype else convert(x, dtype=dtype)
    if isinstance(x, np.generic):
        return x if x.dtype == dtype else x.astype(dtype)
    try:
        return dtype.type(x)
    except (OverflowError, ValueError):
        raise DTypeError(
            f"{name}: the number {x} does not fit {shown_dtype(dtype)}",
            fix="convert the array to a wider dtype first, for instance x.astype(np.int64)",
        ) from None


def shown_dtype(dtype: np.dtype[Any]) -> str:
    return str(Aval((), np.dtype(dtype)))


def mark(result: Array, weak: bool) -> Array:
    """Hand a result out: weak tracers are marked, and an array of rank 0 becomes a scalar, as in NumPy."""
    if isinstance(result, Tracer):
        if weak:
            result.weak = True
        return result
    return result[()] if isinstance(result, np.ndarray) and result.ndim == 0 else result


def computed(function: Function) -> Function:
    """Let the result of a function be nobody else's memory, as a tensor, where the function has nothing to do."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        found = function(*args, **kwargs)
        return found.apart((*args, *kwargs.values())) if isinstance(found, Tracer) else found

    return call  # type: ignore[return-value]


def view_of_array(function: Function) -> Function:
    """Let the result be a view where it is one of NumPy's; a tensor's is its own, as PyTorch's."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        found = function(*args, **kwargs)
        plain = type(found) is Tracer or not isinstance(found, Tracer)
        return found if plain else found.apart((*args, *kwargs.values()))

    return call  # type: ignore[return-value]


def readonly_view(x: Any, found: Any, function: Function, **params: Any) -> Any:
    """Return what `function(x, **params)` made of x with several primitives as the view that NumPy's is."""
    if type(x) is Tracer and type(found) is Tracer:
        note_view(x, found, function, params)
    return found


def broadcast_shape(name: str, operands: Sequence[Any]) -> Shape:
    """Return the shape that the operands broadcast to."""
    found = common_shape(*[shape_of(x) for x in operands])
    if found is None:
        listed = " and ".join(shown(x) for x in operands if shape_of(x))
        raise ShapeError(
            f"{name}: {listed} cannot be broadcast together",
            fix="make the sizes equal or 1, for instance with x[:, None] or x.reshape(...)",
        )
    return found


@lru_cache(maxsize=4096)
def common_shape(*shapes: Shape) -> Shape | None:
    """Return the shape that shapes broadcast to, None if they do not."""
    rank = max((len(s) for s in shapes), default=0)
    sizes = [1] * rank
    for shape in shapes:
        for axis, size in enumerate(shape, rank - len(shape)):
            if sizes[axis] == 1:
                sizes[axis] = size
            elif size not in (1, sizes[axis]):
                return None
    return tuple(sizes)


def broadcast_array(x: Array, shape: Shape) -> Array:
    """Broadcast an array to a shape that is known to fit."""
    have = shape_of(x)
    if have == shape:
        return x
    axes, sizes = spread(have, shape)
    return broadcast(x if sizes == have else reshape(x, shape=sizes), shape=shape, axes=axes)


@lru_cache(maxsize=4096)
def spread(have: Shape, shape: Shape) -> tuple[Shape, Shape]:
    """Return the axes of `shape` that an array of shape `have` does not repeat along, and their sizes."""
    axes = tuple(a for a, n in enumerate(have, len(shape) - len(have)) if n == shape[a])
    return axes, tuple(shape[a] for a in axes)


def align(name: str, operands: Sequence[Any], dtype: np.dtype[Any]) -> list[Array]:
    """Convert the operands to `dtype` and broadcast the arrays among them; scalars stay literals."""
    shape = broadcast_shape(name, operands)
    parts = [cast(name, x, dtype) for x in operands]
    return [broadcast_array(x, shape) if isinstance(x, (Tracer, np.ndarray)) else x for x in parts]


def one_axis(name: str, axis: Any, ndim: int, what: Any) -> int:
    """Return `axis` as a number from 0 to ndim - 1; `what` is the array, or describes it, in the error."""
    try:
        number = operator.index(axis)
    except TypeError:
        raise ArgumentError(
            f"{name}: the axis {axis!r} is not an integer", fix="pass axis=0, or a tuple of integers"
        ) from None
    if not -ndim <= number < ndim:
        fix = f"use an axis from {-ndim} to {ndim - 1}" if ndim else "a scalar has no axis: leave axis= out"
        described = what if isinstance(what, str) else shown(what)
        raise ShapeError(f"{name}: axis {number} does not exist in {described}", fix=fix)
    return number % ndim


def settle_axes(name: str, axis: Axis, x: Array) -> tuple[int, ...]:
    """Return sorted, non-negative axes; None means all."""
    ndim = len(x.shape)
    if axis is None:
        return tuple(range(ndim))
    if type(axis) is int and -ndim <= axis < ndim:
        return (axis % ndim,)
    listed = axis if isinstance(axis, (tuple, list)) else (axis,)
    axes = [one_axis(name, a, ndim, x) for a in listed]
    if len(set(axes)) != len(axes):
        raise ShapeError(
            f"{name}: the axes {tuple(listed)} name one axis twice in {shown(x)}", fix="name each axis once"
        )
    return tuple(sorted(axes))


def settle_shape(name: str, shape: Any) -> Shape:
    """Return a shape as a tuple of non-negative integers."""
    listed = shape if isinstance(shape, (tuple, list, np.ndarray)) else (shape,)
    try:
        sizes = tuple(operator.index(n) for n in listed)
    except TypeError as error:
        if isinstance(error, ArgumentError | DTypeError) or any(isinstance(n, Tracer) for n in listed):
            raise
        raise ArgumentError(
            f"{name}: the shape {shape!r} does not hold integers", fix="pass a tuple of integers"
        ) from None
    if min(sizes, default=0) < 0:
        raise ShapeError(f"{name}: the shape {sizes} has a negative size", fix="pass sizes of 0 or more")
    return sizes


def settle_dtype(dtype: DType, name: str) -> np.dtype[Any]:
    """Return a dtype that a graph can hold."""
    try:
        return check_dtype(as_dtype(dtype), f"{name}: the result")
    except TypeError as error:
        if isinstance(error, DTypeError):
            raise
        raise DTypeError(f"{name}: {dtype!r} is not a dtype", fix="pass np.float32 or another NumPy dtype") from None


def sized(shape: Shape, axes: Iterable[int]) -> int:
    """Return the number of elements along some axes."""
    return math.prod(shape[a] for a in axes)


def result_type(*arrays_and_dtypes: Any) -> np.dtype[Any]:
    """Return the dtype that NumPy's promotion gives; Python scalars and traced scalars are weak.

    >>> result_type(np.float32, 1.0)
    dtype('float32')
    """
    strong: list[np.dtype[Any]] = []
    weak: list[str] = []
    for item in arrays_and_dtypes:
        if is_weak(item):
            weak.append(dtype_of(item).kind)
        elif hasattr(item, "dtype") and not isinstance(item, type):
            strong.append(np.dtype(item.dtype))
        else:
            strong.append(as_dtype(item))
    return joined(tuple(strong), tuple(weak))


def promote_types(first: DType, second: DType) -> np.dtype[Any]:
    """Return the smallest dtype that both convert to, as `numpy.promote_types`."""
    return joined((as_dtype(first), as_dtype(second)), ())
