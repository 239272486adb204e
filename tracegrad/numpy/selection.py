"""x[mask] for a traced mask: as many elements as the mask has, which is not known while tracing.

A `Selected` keeps the whole array and the mask. What treats elements one by one is computed everywhere, reductions
leave out what is not selected, and an assignment `x[mask] = ...` by the same mask writes back. All else is refused.
The gradient of what is not selected is 0, even where a function of it is NaN (see `where`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, Self

import numpy as np

from tracegrad.errors import TracerError
from tracegrad.ir.aval import is_float
from tracegrad.numpy import arithmetic, elementwise as ew, reductions, selecting, shaping
from tracegrad.numpy.promote import BOOL, INT64, Array, array, operand, shape_of, shown
from tracegrad.trace import FUNCTIONS, UFUNCS, Tracer

FIX = "use np.where(mask, x, 0) and a reduction, or a mask that is a NumPy array when the function is traced"


class Selected:
    """The elements x[mask], in order: the first axis is as long as the mask has true elements."""

    __slots__ = ("_mask", "_whole")
    unsized = True
    what = "x[mask]: how many elements a traced mask selects"
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, whole: Array, mask: Array):
        self._whole = as_copy(whole)
        self._mask = as_copy(mask)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._whole.dtype  # type: ignore[no-any-return]

    @property
    def ndim(self) -> int:
        return 1 + self.rest

    @property
    def size(self) -> Array:
        return self.count() * int(np.prod(self._whole.shape[self._mask.ndim :]))

    @property
    def shape(self) -> tuple[Any, ...]:
        return (self.count(), *self._whole.shape[self._mask.ndim :])

    @property
    def rest(self) -> int:
        """The number of axes after the first."""
        return int(len(self._whole.shape) - self._mask.ndim)

    def count(self) -> Array:
        """Return how many are selected, a traced number."""
        return reductions.sum(self._mask, dtype=INT64)

    def refuse(self, what: str) -> NoReturn:
        raise TracerError(f"{what} of {self.what} is not known while tracing", fix=FIX)

    def wide_mask(self, keep: int | None = None) -> Array:
        """Return the mask with axes of size 1 for the axes after the first."""
        return shaping.as_shape(self._mask, (*self._mask.shape, *(1,) * (self.rest if keep is None else keep)))

    def filled(self, value: Any) -> Array:
        """Return the whole array with a value where nothing is selected."""
        return arithmetic.where(self.wide_mask(), self._whole, value)

    def __getitem__(self, index: Any) -> Self:
        parts = index if isinstance(index, tuple) else (index,)
        first = parts[0] if parts else None
        if first is not Ellipsis and first != slice(None):
            self.refuse("an element or a part")
        lead = () if first is Ellipsis else (slice(None),) * self._mask.ndim
        return type(self)(self._whole[(*lead, *parts[1:])] if lead else self._whole[parts], self._mask)

    def __setitem__(self, index: Any, value: Any) -> None:
        self.refuse("an assignment to a part")

    def __getattr__(self, name: str) -> Any:
        if name in REDUCTIONS:
            return lambda *args, **kwargs: REDUCTIONS[name](self, *args, **kwargs)
        if name in ("copy", "astype", "clip", "round", "conj"):
            return lambda *args, **kwargs: elementwise(FUNCTIONS[name], f"x.{name}", self, *args, **kwargs)
        if name.startswith("_") or not hasattr(np.ndarray, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self.refuse(f"the attribute {name}")

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        name = ufunc.__name__
        if method == "reduce" and name in REDUCED:
            return REDUCTIONS[REDUCED[name]](*inputs, **{"axis": 0, **kwargs})
        if name == "matmul" and method == "__call__":
            return product(*inputs)
        if method != "__call__" or kwargs or ufunc not in UFUNCS:
            self.refuse(f"numpy.{name}" if method == "__call__" else f"numpy.{name}.{method}")
        return elementwise(UFUNCS[ufunc], f"numpy.{name}", *inputs)

    def __array_function__(self, func: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        name = func.__name__
        if name in REDUCTIONS and isinstance(args[0], Selected):
            return REDUCTIONS[name](*args, **kwargs)
        if name == "real":  # there are no complex numbers
            return args[0]
        if name in ELEMENTWISE:
            return elementwise(FUNCTIONS[name], f"numpy.{name}", *args, **kwargs)
        if name in PROPERTIES and len(args) == 1:
            return getattr(self, name)
        return self.refuse(f"numpy.{name}")

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        self.refuse("the array")

    def __len__(self) -> NoReturn:
        raise TracerError("len() of x[mask]: it is not known while tracing", fix="use mask.sum()")

    def __iter__(self) -> NoReturn:
        self.refuse("going through the elements")

    def __bool__(self) -> bool:
        return self.refuse("the truth")

    def __repr__(self) -> str:
        return f"Selected<{shown(self._whole)} by {shown(self._mask)}>"


def as_copy(x: Array) -> Array:
    """Return an array that no change in place of x reaches: what a mask selects is a copy."""
    return x.owned() if type(x) is Tracer else x


def elementwise(function: Callable[..., Any], name: str, *operands: Any, **params: Any) -> Selected:
    """Apply a function to elements selected by one mask, beside numbers and what repeats along the first axis."""
    given = [x for x in operands if isinstance(x, Selected)]
    first = given[0]
    if any(not same_mask(x._mask, first._mask) or x.rest != first.rest for x in given):
        raise TracerError(
            f"{name}: elements selected by two masks, or of different rank, do not fit: how many they are is not known "
            "while tracing",
            fix="select by one and the same mask, or compute on whole arrays and select then",
        )

    def whole(value: Any) -> Any:
        if isinstance(value, Selected):
            return value._whole
        shape = shape_of(operand(name, value)) if isinstance(value, (Tracer, np.ndarray, list)) else ()
        if len(shape) == first.rest + 1 and shape[0] == 1:
            return shaping.as_shape(array(name, value), shape[1:])
        if len(shape) > first.rest:
            first.refuse(f"{name} with an array of shape {shape}")
        return value

    return Selected(function(*map(whole, operands), **params), first._mask)


def same_mask(a: Array, b: Array) -> bool:
    """Say whether two masks are one: equal computations are one node of a graph."""
    return a is b or (isinstance(a, Tracer) and isinstance(b, Tracer) and a._node is b._node)


def product(a: Any, b: Any) -> Array:
    """Return the inner product of two selections of vectors."""
    both = elementwise(ew.multiply, "matmul", a, b)
    if not isinstance(a, Selected) or not isinstance(b, Selected) or both.rest:
        both.refuse("a product of matrices")
    return total(both)


def reducing(function: Callable[..., Array]) -> Callable[..., Any]:
    """Make a reduction over the first axis of one that takes (selected, axes of the whole, keepdims); the reduction of
    other axes alone is that of the whole array."""
    name = function.__name__

    def reduce(x: Selected, axis: Any = None, *args: Any, **kwargs: Any) -> Any:
        if args or kwargs.pop("dtype", None) is not None or kwargs.pop("out", None) is not None:
            x.refuse(f"{name} with out= or dtype=")
        kwargs = {k: v for k, v in kwargs.items() if v is not np._NoValue}
        ndim, lead = x.ndim, x._mask.ndim
        listed = range(ndim) if axis is None else axis if isinstance(axis, tuple) else (axis,)
        if any(not -ndim <= a < ndim for a in listed):
            x.refuse(f"{name} over axis {axis}")
        settled = {a % ndim for a in listed}
        later = tuple(a - 1 + lead for a in sorted(settled - {0}))
        if 0 not in settled:
            return Selected(FUNCTIONS[name](x._whole, axis=later, **kwargs), x._mask)
        keep = bool(kwargs.pop("keepdims", False))
        found = function(x, (*range(lead), *later), **kwargs)
        shape = [1 if a in settled else x._whole.shape[a - 1 + lead] for a in range(ndim)]
        return shaping.reshape(found, tuple(shape)) if keep else found

    reduce.__name__ = name
    reduce.__doc__ = function.__doc__
    return reduce


def total(x: Selected, axes: tuple[int, ...] | None = None) -> Array:
    """Return the sum."""
    return reductions.sum(x.filled(x.dtype.type(0)), axes)


def number(x: Selected, axes: tuple[int, ...]) -> Array:
    """Return how many elements are reduced to one, as floats."""
    rest = [x._whole.shape[a] for a in axes if a >= x._mask.ndim]
    return ew.multiply(x.count(), float(np.prod(rest)))


def sum_(x: Selected, axes: tuple[int, ...]) -> Array:
    return total(x, axes)


def mean(x: Selected, axes: tuple[int, ...]) -> Array:
    dtype = x.dtype if is_float(x.dtype) else np.dtype(np.float64)
    return ew.divide(FUNCTIONS["astype"](total(x, axes), dtype), FUNCTIONS["astype"](number(x, axes), dtype))


def var(x: Selected, axes: tuple[int, ...], ddof: float = 0) -> Array:
    centre = shaping.expand_dims(mean(x, axes), axes)
    off = Selected(ew.square(ew.subtract(x._whole, centre)), x._mask)
    left = FUNCTIONS["astype"](number(x, axes) - ddof, off.dtype)
    return ew.divide(total(off, axes), arithmetic.where(left > 0.0, left, 0.0))


def std(x: Selected, axes: tuple[int, ...], ddof: float = 0) -> Array:
    return reductions.root(var(x, axes, ddof))


def prod(x: Selected, axes: tuple[int, ...]) -> Array:
    return reductions.prod(x.filled(x.dtype.type(1)), axes)


def any_(x: Selected, axes: tuple[int, ...]) -> Array:
    return reductions.any(x.filled(x.dtype.type(0)), axes)


def all_(x: Selected, axes: tuple[int, ...]) -> Array:
    return reductions.all(x.filled(x.dtype.type(1)), axes)


def count_nonzero(x: Selected, axes: tuple[int, ...]) -> Array:
    return reductions.count_nonzero(x.filled(x.dtype.type(0)), axes)


def extremum(name: str, fill: float) -> Callable[..., Array]:
    """Return `max` or `min`: of nothing NaN, where NumPy raises ValueError."""

    def function(x: Selected, axes: tuple[int, ...]) -> Array:
        if not is_float(x.dtype):
            x.refuse(f"{name} of {x.dtype}")
        return arithmetic.where(x.count() > 0, FUNCTIONS[name](x.filled(fill), axis=axes), np.nan)

    function.__name__ = name
    return function


def median(x: Selected, axis: Any = None) -> Array:
    """Return the middle of selected numbers."""
    if not is_float(x.dtype) or x.rest:
        x.refuse("median along an axis, or of integers")
    ordered = selecting.sort(shaping.ravel(x.filled(np.inf)))
    n = x.count()
    last = ordered.shape[0] - 1
    low, high = (ordered[arithmetic.clip(i, 0, last)] for i in ((n - 1) // 2, n // 2))
    nans = total(elementwise(ew.isnan, "isnan", x)) > 0
    return arithmetic.where(nans | (n == 0), np.nan, (low + high) / 2)


def norm(x: Selected, ord: Any = None) -> Array:
    """Return the Euclidean norm."""
    if ord not in (None, 2) or x.rest:
        x.refuse("a norm that is not the Euclidean one of a vector")
    return reductions.root(total(elementwise(ew.square, "square", x)))


sum_.__name__, any_.__name__, all_.__name__ = "sum", "any", "all"
REDUCTIONS: dict[str, Callable[..., Any]] = {
    f.__name__: reducing(f)
    for f in (sum_, mean, var, std, prod, any_, all_, count_nonzero, extremum("max", -np.inf), extremum("min", np.inf))
}
REDUCTIONS |= {
    "amax": REDUCTIONS["max"], "amin": REDUCTIONS["min"], "dot": product, "median": median, "norm": norm,
    "inner": product, "vdot": product,
}  # fmt: skip
REDUCED = {
    "add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min", "logical_and": "all", "logical_or": "any",
}  # fmt: skip
ELEMENTWISE = ("around", "clip", "copy", "isclose", "nan_to_num", "round", "sinc", "where")
PROPERTIES = ("ndim", "shape", "size")


def by_mask(x: Array, index: Any) -> Selected | None:
    """Return x[index] if its first entry is a traced mask, and those after it are known; else None."""
    parts = index if isinstance(index, tuple) else (index,)
    mask: Any = parts[0] if parts else None
    if not is_unknown(mask) or mask.shape != tuple(x.shape[: mask.ndim]):
        return None
    if any(isinstance(part, (Tracer, np.ndarray, list)) for part in parts[1:]):
        return None
    lead = (slice(None),) * mask.ndim
    return Selected(x if len(parts) == 1 else x[(*lead, *parts[1:])], mask)


def written(x: Array, mask: Array, value: Selected) -> Array:
    """Return x with a selection by the same mask in the places of the mask."""
    if not same_mask(mask, value._mask) or value._whole.shape != tuple(x.shape):
        value.refuse("an assignment to other places")
    return arithmetic.where(value.wide_mask(), FUNCTIONS["astype"](value._whole, x.dtype), x)


def is_unknown(mask: Any) -> bool:
    """Say whether something is a mask that is not known while tracing."""
    return type(mask) is Tracer and mask.dtype == BOOL and mask.ndim > 0 and not mask._trace.computes


def operator(function: Callable[..., Any], name: str, *, swap: bool = False) -> Callable[..., Any]:
    """Make an operator of a function."""

    def apply(self: Selected, *other: Any) -> Any:
        operands = (*other, self) if swap else (self, *other)
        return product(*operands) if name == "matmul" else elementwise(function, name, *operands)

    return apply


def install(operators: dict[str, Any], others: dict[str, Any]) -> None:
    """Put operators on `Selected`: `x[mask] += v` computes x[mask] + v, which the assignment stores."""
    for name, function in {**operators, **others}.items():
        setattr(Selected, f"__{name}__", operator(function, name))
    for name, function in operators.items():
        setattr(Selected, f"__r{name}__", operator(function, name, swap=True))
