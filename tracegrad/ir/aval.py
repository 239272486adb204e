"""Abstract values: the shape and dtype that a node is known by."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

from tracegrad.bfloat16 import as_dtype, bfloat16, is_bfloat16
from tracegrad.errors import ArgumentError, DTypeError
from tracegrad.record import record, setters


class Dtypes(dict[str, np.dtype[Any]]):
    """dtypes by name; bf16 joins them when it is met."""

    def __contains__(self, name: object) -> bool:
        return name == "bf16" or super().__contains__(name)

    def __missing__(self, name: str) -> np.dtype[Any]:
        if name != "bf16":
            raise KeyError(name)
        found = self[name] = bfloat16()
        NAMES[found] = name
        return found


DTYPES = Dtypes({
    "bool": np.dtype(np.bool_),
    "i8": np.dtype(np.int8),
    "i16": np.dtype(np.int16),
    "i32": np.dtype(np.int32),
    "i64": np.dtype(np.int64),
    "u8": np.dtype(np.uint8),
    "u16": np.dtype(np.uint16),
    "u32": np.dtype(np.uint32),
    "u64": np.dtype(np.uint64),
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
})  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
KNOWN = " ".join(map(str, NAMES))


def dtype_name(dtype: np.dtype[Any]) -> str:
    """Return the short name, for instance `f32`."""
    return NAMES[dtype]


def peculiar(value: Any) -> tuple[str, str] | None:
    """Return why a kind of array may not be taken for a plain one, and the fix; None for all others.

    `np.ma` is imported by who makes a masked array, not by who asks.
    """
    if "numpy.ma" in sys.modules and isinstance(value, np.ma.MaskedArray):
        return "a masked array would lose its mask", "pass x.filled(0.0), and the mask beside it"
    if isinstance(value, np.matrix):
        return "an np.matrix would lose its matrix product *", "pass np.asarray(x), and write x @ y for products"
    return None


def check_plain(value: Any, what: str) -> None:
    """Refuse masked arrays and matrices, with which the same code would compute something else."""
    if found := peculiar(value):
        raise ArgumentError(f"{what}: {found[0]}", fix=found[1])


def check_dtype(dtype: Any, what: str = "array") -> np.dtype[Any]:
    """Return `dtype` as a NumPy dtype, or raise DTypeError when compiled code has no such type."""
    try:
        found = as_dtype(dtype)
    except DTypeError:
        raise
    except TypeError:
        raise DTypeError(f"{what}: {dtype!r} is not a dtype", fix="pass one, for instance np.float32") from None
    if found in NAMES or (is_bfloat16(found) and found == DTYPES["bf16"]):
        return found
    native = found.newbyteorder("=")
    if native in NAMES:
        raise DTypeError(
            f"{what} has dtype {found.str}: its bytes are not in this machine's order",
            fix="convert it once with x.astype(x.dtype.newbyteorder('='))",
        )
    if found == np.dtype(object):
        raise DTypeError(
            f"{what} has dtype object: it holds Python objects, not numbers",
            fix="build it with a numeric dtype, for instance np.asarray(x, dtype=np.float32)",
        )
    if found.kind == "c":
        raise DTypeError(
            f"{what} has dtype {found}: complex numbers are not supported", fix="pass x.real and x.imag as two arrays"
        )
    raise DTypeError(f"{what} has dtype {found}: it is not one of {KNOWN}", fix="convert it with x.astype(np.float32)")


@record
class Aval:
    """Shape and dtype; prints as `f32[2, 3]`, a scalar as `f32`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]):
        put_shape(self, shape)
        put_dtype(self, dtype)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __str__(self) -> str:
        return NAMES[self.dtype] + (f"[{', '.join(map(str, self.shape))}]" if self.shape else "")

    def with_shape(self, shape: tuple[int, ...]) -> Aval:
        return Aval(tuple(shape), self.dtype)

    def with_dtype(self, dtype: Any) -> Aval:
        return Aval(self.shape, np.dtype(dtype))


put_shape, put_dtype = setters(Aval)


@functools.cache
def scalar_aval(dtype: np.dtype[Any]) -> Aval:
    """Return the aval of a scalar."""
    return Aval((), dtype)


def is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or is_bfloat16(dtype)


def kind_of(dtype: np.dtype[Any]) -> str:
    """Return NumPy's letter of the kind of numbers; ml_dtypes gives bfloat16 another one."""
    return "f" if is_bfloat16(dtype) else dtype.kind


def is_half(dtype: np.dtype[Any]) -> bool:
    """Tell whether this is a dtype to store numbers in: what computes with them computes in float32."""
    return dtype.char in "eE"  # NumPy's letter of float16, and ml_dtypes' of bfloat16: every operation asks


def can_hold(dtype: np.dtype[Any]) -> bool:
    """Tell whether arrays of this dtype can be values of a graph."""
    return dtype in NAMES or is_bfloat16(dtype)


def spelled(dtype: np.dtype[Any]) -> str:
    """Write a dtype as one types it."""
    return f"{'ml_dtypes' if is_bfloat16(dtype) else 'np'}.{dtype}"


@record
class Avals(Aval):
    """What a control-flow node is known by: one aval per result. `item` picks one."""

    parts: tuple[Aval, ...] = ()

    @classmethod
    def of(cls, parts: Iterable[Aval]) -> Avals:
        return cls((), np.dtype(np.bool_), tuple(parts))

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.parts))}{',' if len(self.parts) == 1 else ''})"


@record
class TapeAval(Aval):
    """Rows of one aval, as many as a loop has had rounds: what a loop of unknown length leaves for its pullback.

    In memory a tape is the address of its rows; it never leaves the program that made it.
    """

    row: Aval = Aval((), np.dtype(np.bool_))

    @classmethod
    def of(cls, row: Aval) -> TapeAval:
        return cls((), np.dtype(np.int64), row)

    def __str__(self) -> str:
        return f"tape[{self.row}]"


def has_gradient(aval: Aval) -> bool:
    """Say whether a gradient can flow through a value (or a part) of this aval."""
    match aval:
        case Avals():
            return any(has_gradient(p) for p in aval.parts)
        case TapeAval():
            return has_gradient(aval.row)
    return is_float(aval.dtype)
