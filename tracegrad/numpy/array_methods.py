"""Methods of NumPy's arrays that are no functions of `tracegrad.numpy`: changes in place, elements one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError, MissingAttribute, TracerError
from tracegrad.numpy import creation, indexing, inplace, selecting, shaping, statistics, torch_names
from tracegrad.numpy.promote import Array, mark
from tracegrad.numpy.updates import Update
from tracegrad.trace import Tracer

def sort(self: Tracer, axis: int = -1, kind: Any = None, **more: Any) -> Any:
    """Sort in place, as `ndarray.sort`. Tensors, and calls with `dim=` or `descending=`, get PyTorch's: a sorted copy,
    and where its elements were."""
    if type(self) is Tracer and not {"dim", "descending"} & more.keys():
        if more.keys() - {"stable"}:
            raise ArgumentError(f"sort: {', '.join(more)}= is not supported on traced values", fix="leave it out")
        return inplace.setitem(self, ..., selecting.sort(self, axis))
    given = {} if kind is None else {"descending": kind}
    return torch_names.sort(self, **{"dim": axis, **given, **more})


def partition(self: Tracer, kth: Any, axis: int = -1, kind: Any = None, order: Any = None) -> None:
    """Sort in place, which is one of the orders that `ndarray.partition` may give."""
    del kind, order
    inplace.setitem(self, ..., statistics.partition(self, kth, axis))


def put(self: Tracer, indices: Any, values: Any, mode: str = "raise") -> None:
    """Store values at places of the flat array, as `ndarray.put`; values are repeated where there are too few."""
    if mode != "raise":
        raise ArgumentError(f"put: mode={mode!r} is not supported", fix="keep the indices inside the array")
    places, given = shaping.ravel(indices), shaping.ravel(values)
    count, n = places.shape[0], given.shape[0]
    if count and n:
        chosen = given if n == 1 else indexing.getitem(given, np.arange(count) % n)
        Flat(self)[places] = chosen


def compress(self: Tracer, condition: Any, axis: int | None = None) -> Array:
    """Return the slices that a known mask names, as `ndarray.compress`."""
    if isinstance(condition, Tracer):
        raise TracerError(
            "compress: the size of the result of a traced condition is not known while tracing",
            fix="use np.where(condition, x, 0), or x[condition] and a reduction",
        )
    return selecting.take(self, np.flatnonzero(condition), axis)


def tolist(self: Tracer) -> Any:
    """Return nested lists of traced numbers like Python's, as `ndarray.tolist`; of a scalar, the number."""
    if self.shape:
        return [tolist(row) for row in self]
    wide = {"f": np.float64, "b": np.bool_}.get(self.dtype.kind, np.int64)
    return mark(creation.astype(self, wide).owned(), True)


class Flat:
    """What `x.flat` is: the elements in order, to read, to go through, and to change."""

    __slots__ = ("_x",)

    def __init__(self, x: Tracer):
        self._x = x

    def __getitem__(self, index: Any) -> Array:
        return indexing.getitem(shaping.ravel(self._x.owned()), index)

    def __setitem__(self, index: Any, value: Any) -> None:
        line = shaping.ravel(self._x.owned())
        changed = Update(line, indexing.plan(index, line)).set(inplace.stored(line, value))
        inplace.setitem(self._x, ..., shaping.reshape(changed, self._x.shape))

    def __iter__(self) -> Iterator[Any]:
        return iter(shaping.ravel(self._x))

    def __len__(self) -> int:
        return int(self._x.size)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        return getattr(ufunc, method)(*map(unflat, inputs), **kwargs)

    def __array_function__(self, func: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        return func(*map(unflat, args), **kwargs)

    def __repr__(self) -> str:
        return f"Flat<{self._x.aval}>"


def unflat(value: Any) -> Any:
    """Return the elements in order, where `value` is the flat view of an array."""
    return shaping.ravel(value._x) if isinstance(value, Flat) else value


def set_flat(self: Tracer, value: Any) -> None:
    """Store values in order, as in `x.flat = v`."""
    Flat(self)[...] = value


def missing(self: Tracer, name: str) -> Any:
    """Say of an attribute that NumPy's arrays have, and traced values have not, what to do."""
    if name.startswith("_") or type(self) is not Tracer or not hasattr(np.ndarray, name):
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
    why, fix = WHY.get(name, ("has none", "ask the value that the function returns, or run in tg.eager()"))
    raise MissingAttribute(f"x.{name}: a traced value {self.aval} {why}", fix=fix)


WHY = {
    "nonzero": (
        "gives a result whose size is not known while tracing", "use np.where(mask, x, 0), or x[mask] and a reduction"
    ),
    "resize": ("is not resized in place", "give the variable a new array: x = np.resize(x, shape)"),
}
"""Why traced values lack an attribute, and what to write instead."""
METHODS: dict[str, Any] = {
    "argpartition": statistics.argpartition, "compress": compress, "partition": partition, "put": put, "sort": sort,
    "tolist": tolist,
}  # fmt: skip
FLAT = property(lambda self: Flat(self), set_flat, doc="The elements in order, as `ndarray.flat`.")
