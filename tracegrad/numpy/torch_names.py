"""PyTorch's everyday methods, on traced values and tensors alike, so that one text runs on the tape and compiled.

They are put on `Tracer` beside NumPy's methods. Where both have a name, both work: axes may be named `axis=` or `dim=`,
`keepdims=` or `keepdim=`. What differs between the two keeps NumPy's meaning, unless `dim=` is written:
`x.max(dim=0)` gives values and indices, `x.max(axis=0)` and `x.max(0)` the values; `x.sort(dim=0)` likewise, while
`x.sort()` of a traced value works in place (`array_methods`).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tracegrad.errors import ShapeError, TracerError
from tracegrad.numpy import arithmetic, creation, elementwise as ew, indexing, joining, products, reductions
from tracegrad.numpy import selecting, shaping
from tracegrad.numpy.half import rounded_once
from tracegrad.numpy.promote import Array, ArrayLike, Axis, array, one_axis, settle_axes, shown
from tracegrad.ops import elementwise as ops
from tracegrad.ops.elementwise import convert
from tracegrad.trace import Tracer

Function = Callable[..., Any]


class ValuesIndices(NamedTuple):
    """The values along an axis, and where they were."""

    values: Any
    indices: Any


def parted(*found: Any) -> ValuesIndices:
    """Return values and indices that were computed here, and share no memory with anything."""
    return ValuesIndices(*(v.apart(()) if isinstance(v, Tracer) else v for v in found))


class Elements(int):
    """The number of elements; called, the shape, or the size of one axis, as PyTorch's `x.size()`.

    Its attribute is not called `shape`: a number that has one would be taken for an array.
    """

    axes: tuple[int, ...]

    def __call__(self, dim: int | None = None) -> Any:
        return self.axes if dim is None else self.axes[one_axis("size", dim, len(self.axes), f"{self.axes}")]


def size_of(x: Any) -> Elements:
    """The number of elements; called as `x.size()` the shape, as `x.size(0)` the size of one axis."""
    found = Elements(math.prod(x.shape))
    found.axes = tuple(x.shape)
    return found


def renamed(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Return keywords with NumPy's names."""
    names = {"dim": "axis", "keepdim": "keepdims"}
    return {names.get(k, k): v for k, v in kwargs.items()}


def either(function: Function) -> Function:
    """Let a function of NumPy's take PyTorch's keywords, too."""

    @functools.wraps(function)
    def method(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **(renamed(kwargs) if "dim" in kwargs or "keepdim" in kwargs else kwargs))

    return method


def unbiased(function: Function) -> Function:
    """Let `var` and `std` take PyTorch's keywords: with `dim=` or `unbiased=`, the divisor is n - 1 unless told."""

    @functools.wraps(function)
    def method(*args: Any, **kwargs: Any) -> Any:
        if "dim" in kwargs or "unbiased" in kwargs:
            chosen = kwargs.pop("unbiased", True)
            kwargs.setdefault("correction", 1 if chosen else 0)
        return function(*args, **renamed(kwargs))

    return method


def extremum(function: Function, position: Function) -> Function:
    """Let `max` and `min` give values and indices when `dim=` is written, and compare with another array."""

    @functools.wraps(function)
    def method(x: ArrayLike, *args: Any, **kwargs: Any) -> Any:
        if "dim" in kwargs:
            axis, keep = kwargs.pop("dim"), kwargs.pop("keepdim", False)
            at = position(x, axis=axis, keepdims=True)
            found = selecting.take_along_axis(x, at, axis)
            return parted(*((found, at) if keep else (shaping.squeeze(v, axis) for v in (found, at))))
        return function(x, *args, **renamed(kwargs))

    return method


def sort(x: ArrayLike, dim: int = -1, descending: bool = False, stable: bool = True) -> ValuesIndices:
    """Sort along an axis: the values, and where they were."""
    at = selecting.argsort(x, axis=dim, stable=stable)
    at = shaping.flip(at, dim) if descending else at
    return parted(selecting.take_along_axis(x, at, dim), at)


def sizes(given: tuple[Any, ...]) -> Any:
    return given[0] if len(given) == 1 and not isinstance(given[0], int) else given


def view(x: ArrayLike, *shape: Any) -> Array:
    """Return the elements in another shape: x.view(2, -1). The memory is shared where it lies in order."""
    return shaping.reshape(x, sizes(shape))


def permute(x: ArrayLike, *dims: Any) -> Array:
    """Permute the axes: x.permute(2, 0, 1)."""
    return shaping.transpose(x, sizes(dims))


def transpose(x: ArrayLike, *axes: Any) -> Array:
    """Permute the axes, as NumPy: reversed without arguments. Of more than two axes, two may be named to be swapped."""
    x = array("transpose", x)
    listed = tuple(axes[0]) if len(axes) == 1 and not isinstance(axes[0], int) else axes
    if len(listed) == 2 and len(x.shape) != 2:
        return shaping.swapaxes(x, *listed)
    return shaping.transpose(x, listed or None)


def t(x: ArrayLike) -> Array:
    """Transpose a matrix; a vector is returned as it is."""
    x = array("t", x)
    if len(x.shape) > 2:
        raise ShapeError(f"t: {shown(x)} has more than 2 axes", fix="use x.mT, or x.permute(...)")
    return shaping.transpose(x)


def unsqueeze(x: ArrayLike, dim: int) -> Array:
    """Add an axis of size 1 at `dim`."""
    return shaping.expand_dims(x, dim)


def squeeze(x: ArrayLike, axis: Axis = None, **more: Any) -> Array:
    """Drop axes of size 1; an axis of another size is refused, or left alone if it is named with `dim=`."""
    if "dim" not in more:
        return shaping.squeeze(x, axis)
    x = array("squeeze", x)
    if not x.shape and more["dim"] in (0, -1):
        return x
    return shaping.squeeze(x, tuple(a for a in settle_axes("squeeze", more["dim"], x) if x.shape[a] == 1))


def expand(x: ArrayLike, *shape: Any) -> Array:
    """Repeat axes of size 1 without copying; -1 keeps a size."""
    x = array("expand", x)
    target = list(sizes(shape))
    lead = len(target) - len(x.shape)
    return shaping.broadcast_to(x, tuple(x.shape[i - lead] if n == -1 else n for i, n in enumerate(target)))


def flatten(x: ArrayLike, start_dim: int = 0, end_dim: int = -1, order: str = "C") -> Array:
    """Join the axes from start_dim to end_dim, all unless told; of a traced value this is a copy, as in NumPy."""
    x = array("flatten", x)
    shape = tuple(x.shape) or (1,)
    first, last = (one_axis("flatten", d, len(shape), x) for d in (start_dim, end_dim))
    found = shaping.reshape(x, (*shape[:first], math.prod(shape[first : last + 1]), *shape[last + 1 :]))
    return found.owned() if type(found) is Tracer else found


@rounded_once
def norm(x: ArrayLike, p: Any = 2, dim: Axis = None, keepdim: bool = False, **more: Any) -> Array:
    """Return the p-norm over `dim` (all elements unless told), 0 with gradient 0 at 0; p may be 1, 2, inf or "fro"."""
    axis, keep = more.get("axis", dim), more.get("keepdims", keepdim)
    if p in (2, "fro"):
        return reductions.root(reductions.sum(ew.square(x), axis, keepdims=keep))
    if p == 1:
        return reductions.sum(ew.absolute(x), axis, keepdims=keep)
    if p == math.inf:
        return reductions.max(ew.absolute(x), axis, keepdims=keep)
    return arithmetic.power(reductions.sum(arithmetic.power(ew.absolute(x), p), axis, keepdims=keep), 1.0 / p)


def add(x: ArrayLike, other: ArrayLike, *, alpha: float = 1) -> Array:
    """x + alpha * other."""
    return ew.add(x, other if alpha == 1 else ew.multiply(other, alpha))


def sub(x: ArrayLike, other: ArrayLike, *, alpha: float = 1) -> Array:
    """x - alpha * other."""
    return ew.subtract(x, other if alpha == 1 else ew.multiply(other, alpha))


def clamp(x: ArrayLike, min: ArrayLike = None, max: ArrayLike = None) -> Array:
    """Limit x to [min, max]; None leaves a side open."""
    return arithmetic.clip(x, min, max)


def relu(x: ArrayLike) -> Array:
    """max(x, 0)."""
    return ops.relu(array("relu", x))


def sigmoid(x: ArrayLike) -> Array:
    """1 / (1 + exp(-x)) without overflow."""
    return ops.sigmoid(array("sigmoid", x))


def rsqrt(x: ArrayLike) -> Array:
    """1 / sqrt(x)."""
    return ops.rsqrt(array("rsqrt", x))


@rounded_once
def softmax(x: ArrayLike, axis: int = -1) -> Array:
    """exp(x) divided by its sum along an axis, without overflow."""
    x = array("softmax", x)
    e = ew.exp(ew.subtract(x, ops.stop_gradient(reductions.max(x, axis, keepdims=True))))
    return ew.divide(e, reductions.sum(e, axis, keepdims=True))


@rounded_once
def log_softmax(x: ArrayLike, axis: int = -1) -> Array:
    """The logarithm of softmax, without overflow."""
    x = array("log_softmax", x)
    return ew.subtract(x, reductions.logsumexp(x, axis, keepdims=True))


def masked_fill(x: ArrayLike, mask: ArrayLike, value: ArrayLike) -> Array:
    """x with `value` where the mask holds."""
    return arithmetic.where(mask, value, x)


def split(x: ArrayLike, split_size_or_sections: Any, dim: int = 0) -> list[Array]:
    """Cut into pieces of one size along an axis (the last may be smaller), or of the sizes listed."""
    x = array("split", x)
    n = x.shape[one_axis("split", dim, len(x.shape), x)]
    given = split_size_or_sections
    ends = list(range(given, n, given)) if isinstance(given, int) else list(itertools.accumulate(given))
    if not isinstance(given, int) and (not ends or ends.pop() != n):
        raise ShapeError(f"split: the sizes {tuple(given)} do not add up to {n}, of {shown(x)}", fix="check the sizes")
    return joining.split(x, ends, dim)


def chunk(x: ArrayLike, chunks: int, dim: int = 0) -> list[Array]:
    """Cut into `chunks` pieces of one size along an axis; the last may be smaller."""
    x = array("chunk", x)
    return split(x, -(-x.shape[one_axis("chunk", dim, len(x.shape), x)] // chunks) or 1, dim)


def narrow(x: ArrayLike, dim: int, start: int, length: int) -> Array:
    """Return `length` slices along an axis, from `start` on."""
    x = array("narrow", x)
    at = one_axis("narrow", dim, len(x.shape), x)
    n = x.shape[at]
    first = start + n if start < 0 else start
    if length < 0 or not 0 <= first <= first + length <= n:
        raise ShapeError(
            f"narrow: {length} from {start} do not lie in axis {at} of {shown(x)}", fix=f"the axis has {n} elements"
        )
    return indexing.getitem(x, (*[slice(None)] * at, slice(first, first + length)))


def gather(x: ArrayLike, dim: int, index: ArrayLike) -> Array:
    """Return the elements at `index` along an axis, as `np.take_along_axis`."""
    return selecting.take_along_axis(x, index, dim)


def index_select(x: ArrayLike, dim: int, index: ArrayLike) -> Array:
    """Return the slices at the positions of a vector along an axis, as `np.take`."""
    return selecting.take(x, index, axis=dim)


def unbind(x: ArrayLike, dim: int = 0) -> list[Array]:
    """Return the slices along an axis."""
    return list(joining.unstack(x, axis=dim))


def clone(x: ArrayLike) -> Array:
    """Return a copy through which gradients flow."""
    x = array("clone", x)
    return convert(x, dtype=x.dtype)


def detach(x: ArrayLike) -> Array:
    """Return x as a constant for differentiation."""
    return ops.stop_gradient(array("detach", x))


def to(x: ArrayLike, dtype: Any) -> Array:
    """Convert to a dtype, or to that of another array."""
    return creation.astype(x, getattr(dtype, "dtype", dtype) if not isinstance(dtype, type) else dtype)


def converted(dtype: Any) -> Function:
    def method(x: ArrayLike) -> Array:
        return creation.astype(x, dtype)

    method.__doc__ = f"Convert to {np.dtype(dtype)}."
    return method


METHODS: dict[str, Function] = {
    "abs": ew.absolute, "add": add, "acos": ew.arccos, "amax": either(reductions.max), "amin": either(reductions.min),
    "asin": ew.arcsin, "atan": ew.arctan, "atan2": ew.arctan2,
    "bmm": products.matmul, "ceil": ew.ceil, "chunk": chunk, "clamp": clamp, "clone": clone, "cos": ew.cos,
    "cosh": ew.cosh, "detach": detach, "div": ew.divide, "eq": ew.equal, "exp": ew.exp, "expand": expand,
    "expm1": ew.expm1, "fabs": ew.fabs, "flip": either(shaping.flip), "floor": ew.floor, "gather": gather,
    "ge": ew.greater_equal, "gt": ew.greater, "index_select": index_select, "inner": products.inner,
    "isfinite": ew.isfinite, "isinf": ew.isinf, "isnan": ew.isnan, "le": ew.less_equal, "log": ew.log,
    "log10": ew.log10, "log1p": ew.log1p, "log2": ew.log2, "log_softmax": either(log_softmax),
    "logsumexp": either(reductions.logsumexp), "lt": ew.less, "masked_fill": masked_fill, "matmul": products.matmul,
    "maximum": ew.maximum, "minimum": ew.minimum, "moveaxis": shaping.moveaxis, "movedim": shaping.moveaxis,
    "mm": products.matmul, "mul": ew.multiply, "mv": products.matmul,
    "narrow": narrow, "ne": ew.not_equal, "neg": ew.negative, "norm": norm, "outer": products.outer, "permute": permute,
    "pow": arithmetic.power, "reciprocal": arithmetic.reciprocal, "relu": relu, "roll": joining.roll, "rsqrt": rsqrt,
    "sigmoid": sigmoid, "sign": ew.sign, "sin": ew.sin, "sinh": ew.sinh, "softmax": either(softmax), "split": split,
    "sqrt": ew.sqrt, "square": ew.square, "sub": sub, "t": t, "tan": ew.tan, "tanh": ew.tanh, "tile": joining.tile,
    "to": to, "tril": selecting.tril, "triu": selecting.triu, "trunc": ew.trunc, "type": to, "unbind": unbind,
    "unsqueeze": unsqueeze, "view": view, "where": lambda x, condition, y: arithmetic.where(condition, x, y),
    "double": converted(np.float64), "float": converted(np.float32), "int": converted(np.int32),
    "half": converted(np.float16), "long": converted(np.int64), "bool": converted(np.bool_),
    # NumPy's methods with PyTorch's keywords
    "all": either(reductions.all), "any": either(reductions.any), "argmax": either(reductions.argmax),
    "argmin": either(reductions.argmin), "argsort": either(selecting.argsort), "cumprod": either(reductions.cumprod),
    "cumsum": either(reductions.cumsum), "flatten": flatten, "max": extremum(reductions.max, reductions.argmax),
    "mean": either(reductions.mean), "min": extremum(reductions.min, reductions.argmin),
    "prod": either(reductions.prod), "squeeze": squeeze, "std": unbiased(reductions.std),
    "sum": either(reductions.sum), "transpose": transpose, "var": unbiased(reductions.var),
}  # fmt: skip
"""Methods by name, called with the array first."""


def numel(x: Any) -> int:
    """The number of elements."""
    return math.prod(x.shape)


def dim(x: Any) -> int:
    """The number of axes."""
    return len(x.shape)


def backward(x: Any, *args: Any, **kwargs: Any) -> None:
    """Refuse: gradients of a traced function are asked for from outside."""
    raise TracerError(
        "backward: a traced function cannot run the tape", fix="use tg.grad of the function, or call backward outside"
    )


PLAIN: dict[str, Function] = {"backward": backward, "dim": dim, "ndimension": dim, "numel": numel, "nelement": numel}
"""Methods whose results are not arrays."""
