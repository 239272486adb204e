"""The types of kernels: words, 32-bit integers, floats, truth values; signatures of them are `int64(int64, int64)`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir


@dataclass(frozen=True)
class Type:
    """A type by its name in NumPy.

    Called with types, it is the result of a function that takes these; called with a number, the number as this type.
    """

    name: str

    def __call__(self, *arguments: Any) -> Any:
        if len(arguments) == 1 and not isinstance(arguments[0], Type):
            return np.dtype(self.name).type(arguments[0])
        return Signature(self, arguments)

    @property
    def llvm(self) -> ir.Type:
        return LLVM_TYPES[self.name]


class Signature(NamedTuple):
    """What a function returns and takes."""

    result: Type
    arguments: tuple[Type, ...]


LLVM_TYPES = {
    "void": ir.VoidType(), "bool": ir.IntType(1), "int32": ir.IntType(32), "int64": ir.IntType(64),
    "float32": ir.FloatType(), "float64": ir.DoubleType(),
}  # fmt: skip

void = Type("void")
boolean = Type("bool")
int32 = Type("int32")
int64 = Type("int64")
float32 = Type("float32")
float64 = Type("float64")
