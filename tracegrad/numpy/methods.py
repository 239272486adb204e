"""Puts operators, methods and properties on traced values, and the traced versions behind NumPy's own names.

`np.mean(x)` of a traced value arrives here through NumPy's protocols; keywords that a traced version does not have are
refused by name, and NumPy's defaults among them are dropped.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError, TracerError
from tracegrad.numpy import arithmetic, array_methods, creation, elementwise as ew, inplace, joining, pieces
from tracegrad.numpy import products, reductions, selecting, selection, shaping, slices, special
from tracegrad.numpy import torch_names
from tracegrad.numpy.promote import Array, DType, settle_dtype
from tracegrad.numpy.updates import At
from tracegrad.trace import FUNCTIONS, UFUNCS, Tracer

Function = Callable[..., Any]

OPERATORS: dict[str, Function] = {
    "add": ew.add,
    "sub": ew.subtract,
    "mul": ew.multiply,
    "truediv": ew.divide,
    "floordiv": ew.floor_divide,
    "mod": ew.remainder,
    "divmod": arithmetic.divmod,
    "pow": arithmetic.power,
    "matmul": products.matmul,
    "and": ew.bitwise_and,
    "or": ew.bitwise_or,
    "xor": ew.bitwise_xor,
    "lshift": ew.left_shift,
    "rshift": ew.right_shift,
}
COMPARISONS: dict[str, Function] = {
    "eq": ew.equal,
    "ne": ew.not_equal,
    "lt": ew.less,
    "le": ew.less_equal,
    "gt": ew.greater,
    "ge": ew.greater_equal,
}
UNARY: dict[str, Function] = {
    "neg": ew.negative,
    "pos": arithmetic.positive,
    "abs": ew.absolute,
    "invert": ew.invert,
    "round": arithmetic.round,
    "getitem": slices.getitem,
}
METHODS: dict[str, Function] = {
    "all": reductions.all,
    "any": reductions.any,
    "argmax": reductions.argmax,
    "argmin": reductions.argmin,
    "argsort": selecting.argsort,
    "astype": creation.astype,
    "clip": arithmetic.clip,
    "copy": creation.copy,
    "cumprod": reductions.cumprod,
    "cumsum": reductions.cumsum,
    "diagonal": selecting.diagonal,
    "dot": products.dot,
    "flatten": shaping.ravel,
    "max": reductions.max,
    "mean": reductions.mean,
    "min": reductions.min,
    "prod": reductions.prod,
    "ravel": shaping.ravel,
    "conj": pieces.conjugate,
    "conjugate": pieces.conjugate,
    "fill": inplace.fill,
    "repeat": joining.repeat,
    "searchsorted": selecting.searchsorted,
    "round": arithmetic.round,
    "squeeze": shaping.squeeze,
    "std": reductions.std,
    "sum": reductions.sum,
    "swapaxes": shaping.swapaxes,
    "take": selecting.take,
    "trace": products.trace,
    "var": reductions.var,
}
DEFAULTS: dict[str, tuple[Any, ...]] = {
    "out": (None,),
    "where": (True,),
    "dtype": (None,),
    "casting": ("same_kind",),
    "order": ("K", "C", None),
    "subok": (True, False),
    "like": (None,),
    "initial": (),
    "optimize": (True, False, "greedy", "optimal"),
}
ANY = "**"
"""Among the keywords of a function that takes any."""
INSTEAD = {
    "where": "choose with np.where(mask, x, 0) first",
    "initial": "combine the result with the starting value",
    "order": "arrays are row-major; leave order= out",
    "casting": "convert with x.astype(...)",
}


def forward(function: Function, *, swap: bool = False, unknown: bool = False) -> Function:
    """Make an operator of a function: `swap` for reflected ones; `unknown` leaves other operands to Python."""

    def operator(self: Tracer, other: Any) -> Any:
        if unknown and is_foreign(other):
            return NotImplemented
        return function(other, self) if swap else function(self, other)

    return operator


def is_foreign(other: Any) -> bool:
    """Say whether an operand is none of NumPy's, so that Python asks it what the operator means."""
    if other is None or isinstance(other, (str, bytes, dict, set, selection.Selected)):
        return True
    return getattr(type(other), "__array_ufunc__", True) is None  # NumPy's protocol for classes with own operators


def method(name: str, function: Function) -> Function:
    """Make a method of a function, with its name and documentation."""

    def bound(self: Tracer, *args: Any, **kwargs: Any) -> Any:
        return function(self, *args, **kwargs)

    bound.__name__ = name
    bound.__doc__ = function.__doc__
    return bound


def reshape_method(self: Tracer, *shape: Any) -> Array:
    """Return the elements in another shape: x.reshape(2, -1) or x.reshape((2, -1))."""
    return shaping.reshape(self, shape[0] if len(shape) == 1 else shape)


def install() -> None:
    """Put everything on Tracer."""
    for name, function in OPERATORS.items():
        setattr(Tracer, f"__{name}__", forward(function, unknown=True))
        setattr(Tracer, f"__r{name}__", forward(function, swap=True, unknown=True))
    for name, function in COMPARISONS.items():
        setattr(Tracer, f"__{name}__", forward(function, unknown=True))
    for name, function in UNARY.items():
        setattr(Tracer, f"__{name}__", method(f"__{name}__", function))
    for name, function in {**METHODS, **torch_names.METHODS, **array_methods.METHODS}.items():
        setattr(Tracer, name, method(name, function))
    for name, function in {**torch_names.PLAIN, **inplace.METHODS}.items():
        setattr(Tracer, name, function)
    selection.install(OPERATORS, {**COMPARISONS, **{name: UNARY[name] for name in ("neg", "pos", "abs", "invert")}})
    more: dict[str, Any] = {
        "__getattr__": array_methods.missing,
        "flat": array_methods.FLAT,
        "reshape": reshape_method,
        "size": property(torch_names.size_of, doc=torch_names.size_of.__doc__),
        "T": property(shaping.transpose, doc="The array with its axes reversed."),
        "imag": property(pieces.imag, doc="Zeros: there are no complex numbers."),
        "itemsize": property(lambda self: self.dtype.itemsize, doc="The bytes of an element."),
        "nbytes": property(lambda self: self.aval.size * self.dtype.itemsize, doc="The bytes of all elements."),
        "real": property(pieces.real, doc="The array itself: there are no complex numbers."),
        "mT": property(shaping.matrix_transpose, doc="The array with its last two axes swapped."),
        "at": property(At, doc="x.at[index].set(v), .add(v), .multiply(v), ...: a new array, changed at an index."),
    }
    for name, value in more.items():
        setattr(Tracer, name, value)


def adapted(name: str, function: Function, *, ufunc: bool = False) -> Function:
    """Take the keywords of a NumPy call: drop defaults, refuse what is not supported."""
    accepted: set[str] | None = None  # worked out at the first call: most functions are never called in this way

    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal accepted
        if not kwargs:
            return function(*args)
        if accepted is None:
            accepted = keywords_of(function)
        dtype = kwargs.pop("dtype", None) if ufunc else None
        kept = {k: v for k, v in kwargs.items() if ANY in accepted or k in accepted or not is_default(k, v)}
        for key in kept:
            if key not in accepted and ANY not in accepted:
                raise ArgumentError(
                    f"numpy.{name}: {key}= is not supported on traced values", fix=INSTEAD.get(key, f"leave {key}= out")
                )
        if dtype is not None:
            args = tuple(creation.astype(x, settle_dtype(dtype, name)) for x in args)
        return function(*args, **{k: v for k, v in kept.items() if v is not np._NoValue})

    return call


def keywords_of(function: Function) -> set[str]:
    """Return the keywords that a function takes; ANY is among them where it takes all."""
    signature = inspect.signature(function).parameters.values()
    return {ANY if p.kind is p.VAR_KEYWORD else p.name for p in signature if p.kind is not p.POSITIONAL_ONLY}


def is_default(key: str, value: Any) -> bool:
    if value is np._NoValue:
        return True
    return any(
        value is d or (isinstance(d, str) and isinstance(value, str) and value == d) for d in DEFAULTS.get(key, ())
    )


def along_first(function: Function) -> Function:
    """Return a reduction whose axis is 0 unless told, as in `np.add.reduce`."""

    def reduce(x: Any, axis: Any = 0, dtype: DType = None, keepdims: bool = False) -> Array:
        more = {} if dtype is None else {"dtype": dtype}
        return function(x, axis, keepdims=keepdims, **more)

    return reduce


def accumulate(function: Function) -> Function:
    """Return a running reduction whose axis is 0 unless told, as in `np.add.accumulate`."""
    return lambda x, axis=0, dtype=None: function(x, axis, dtype=dtype)


def running_extremum(name: str, largest: bool) -> Function:
    """Return what `np.maximum.accumulate(x)` calls."""
    return lambda x, axis=0: reductions.running_extremum(f"{name}.accumulate", x, axis, largest=largest)


def outer_of(function: Function) -> Function:
    """Return the function of all pairs, as in `np.multiply.outer`."""

    def outer(x: Any, y: Any) -> Array:
        ndim = shaping.ndim(y)
        return function(shaping.expand_dims(x, tuple(range(shaping.ndim(x), shaping.ndim(x) + ndim))) if ndim else x, y)

    return outer


REDUCTIONS: dict[str, Function] = {
    "add": reductions.sum,
    "multiply": reductions.prod,
    "maximum": reductions.max,
    "minimum": reductions.min,
    "logical_and": reductions.all,
    "logical_or": reductions.any,
}


DYNAMIC = (
    "argwhere", "compress", "extract", "flatnonzero", "intersect1d", "nonzero", "setdiff1d", "setxor1d", "trim_zeros",
    "union1d", "unique", "unique_counts", "unique_inverse", "unique_values",
)  # fmt: skip
"""NumPy's functions whose results have a size that depends on values."""


def dynamic(name: str) -> Function:
    """Return what refuses one of them."""

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise TracerError(
            f"numpy.{name}: the size of its result depends on values, which are not known while tracing",
            fix="use np.where(mask, x, 0), or np.sort(x), and reductions, or call it outside the traced function",
        )

    return refuse


def is_alias(name: str, source: Any) -> bool:
    """Tell whether NumPy calls its function of that name by another one."""
    return getattr(getattr(source, name, None), "__name__", "") != name


def fill_functions(public: Mapping[str, Any], linalg: Mapping[str, Any]) -> None:
    """Register every public function under the name that NumPy's protocols report."""
    for prefix, names, source in (("", public, np), ("linalg.", linalg, np.linalg)):
        for name, function in sorted(names.items(), key=lambda item: is_alias(item[0], source)):
            theirs = getattr(source, name, None)
            if not callable(function) or isinstance(function, type) or theirs is None or isinstance(theirs, type):
                continue
            ufunc = isinstance(theirs, np.ufunc)
            key = f"{'' if ufunc else prefix}{theirs.__name__}"
            FUNCTIONS.setdefault(key, adapted(key, function, ufunc=ufunc))
            if ufunc:
                UFUNCS.setdefault(theirs, function)
            if ufunc and theirs.nin == 2:
                FUNCTIONS.setdefault(f"{key}.outer", adapted(f"{key}.outer", outer_of(function)))
    for name, function in REDUCTIONS.items():
        FUNCTIONS[f"{name}.reduce"] = adapted(f"{name}.reduce", along_first(function))
    for name, method_name in inplace.AT.items():
        FUNCTIONS[f"{name}.at"] = inplace.at_method(name, method_name)
    FUNCTIONS["logaddexp.reduce"] = adapted("logaddexp.reduce", along_first(reductions.logsumexp))
    FUNCTIONS["lib.stride_tricks.sliding_window_view"] = pieces.sliding_window_view
    FUNCTIONS["copyto"] = inplace.copyto
    FUNCTIONS["fill_diagonal"] = inplace.fill_diagonal
    FUNCTIONS["iscomplexobj"], FUNCTIONS["isrealobj"] = (lambda x: False), (lambda x: True)
    for name in DYNAMIC:
        FUNCTIONS[name] = dynamic(name)
    FUNCTIONS["add.accumulate"] = adapted("add.accumulate", accumulate(reductions.cumsum))
    FUNCTIONS["multiply.accumulate"] = adapted("multiply.accumulate", accumulate(reductions.cumprod))
    for name, largest in (("maximum", True), ("minimum", False)):
        FUNCTIONS[f"{name}.accumulate"] = adapted(f"{name}.accumulate", running_extremum(name, largest))
    for name, function in special.SCIPY.items():
        FUNCTIONS[name] = adapted(name, function, ufunc=True)
