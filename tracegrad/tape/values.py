"""Tensors as Python's numbers, lists and text, and their memory in other libraries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tracegrad.errors import ShapeError, TapeError
from tracegrad.ir.aval import is_float, is_half
from tracegrad.numpy import torch_names
from tracegrad.tape.tensor import Tensor, wrap

RETURN = "return the value from the function"
PLAIN_DTYPES = (np.float64, np.int64, np.bool_)


def item(self: Tensor) -> Any:
    """Return the one element as a Python number. Raises TapeError if there are more."""
    array = self.concrete("item()", RETURN)
    if array.size != 1:
        raise TapeError(f"item: {self.aval} has {array.size} elements, not one", fix="use x.tolist(), or x[i]")
    return array.item()


def tolist(self: Tensor) -> Any:
    """Return the elements as nested lists of Python numbers."""
    return self.concrete("tolist()", RETURN).tolist()


def truth(self: Tensor) -> bool:
    array = self.concrete("the truth value", "use np.where(condition, a, b)")
    if array.size != 1:
        raise TapeError(f"bool: the truth of {self.aval} is ambiguous", fix="use x.any() or x.all()")
    return bool(array)


def as_float(self: Tensor) -> float:
    return float(item(self))


def as_int(self: Tensor) -> int:
    return int(item(self))


def as_index(self: Tensor) -> int:
    if self.dtype.kind not in "iu" or self.shape != ():
        raise TapeError(f"index: {self.aval} is not an integer scalar", fix="use int(x)")
    return int(item(self))


def length(self: Tensor) -> int:
    if not self.shape:
        raise TapeError("len: a tensor of rank 0 has no length", fix="check the shape")
    return self.shape[0]


def iterate(self: Tensor) -> Iterator[Any]:
    if not self.shape:
        raise TapeError("iteration: a tensor of rank 0 cannot be iterated over", fix="check the shape")
    return (self[i] for i in range(len(self)))  # type: ignore[index]


def contains(self: Tensor, value: Any) -> bool:
    return bool((self._data == (value._data if isinstance(value, Tensor) else value)).any())


def formatted(self: Tensor, spec: str) -> str:
    return format(item(self), spec) if self.shape == () and spec else str(self) if not spec else format(str(self), spec)


def style_of(sizes: np.ndarray[Any, Any]) -> str:
    """Choose how to write floats, from the absolute values of those that are finite and not 0, as PyTorch does."""
    wide = bool(sizes.size) and (sizes.max() / sizes.min() > 1000.0 or sizes.max() > 1e8)
    if np.array_equal(sizes, np.trunc(sizes)):
        return "{:.4e}" if wide else "{:.0f}."
    return "{:.4e}" if wide or sizes.min() < 1e-4 else "{:.4f}"


def numbers(data: np.ndarray[Any, Any], prefix: str) -> str:
    """Write the elements: four digits, unless all are whole."""
    if not is_float(data.dtype):
        return np.array2string(data, separator=", ", prefix=prefix)
    data = data.astype(np.float32) if is_half(data.dtype) else data
    nonzero = data[np.isfinite(data) & (data != 0)]
    style = style_of(np.abs(nonzero))
    shown = nonzero if data.size <= 1000 else nonzero[:1000]
    width = max((len(style.format(v)) for v in shown), default=0)

    def text(value: Any) -> str:
        return (style.format(value) if np.isfinite(value) else str(float(value))).rjust(width)

    return np.array2string(data, separator=", ", prefix=prefix, formatter={"float_kind": text})


def shown(self: Tensor) -> str:
    """Write the tensor in PyTorch's style; float64, int64 and bool are not named."""
    more = [] if self.dtype.type in PLAIN_DTYPES else [f"dtype={self.dtype}"]
    if self.grad_fn is not None:
        more.append(f"grad_fn={self.grad_fn!r}")
    elif self.requires_grad:
        more.append("requires_grad=True")
    if not self._data.size and self.shape != (0,):
        more.insert(0, f"size={self.shape}")
    text = numbers(self._data, "tensor(") if self._data.size else "[]"
    return f"tensor({', '.join([text, *more])})"


def dlpack(self: Tensor, **how: Any) -> Any:
    """Export the memory through DLPack."""
    if self.requires_grad:
        raise TapeError(f"DLPack: {self.aval} requires a gradient, which would be lost", fix="export x.detach()")
    return self._data.__dlpack__(**how)


def dlpack_device(self: Tensor) -> Any:
    """Return where the memory is: the CPU."""
    return self._data.__dlpack_device__()


def copied(self: Tensor, memo: dict[int, Any]) -> Tensor:
    """Deep copies of leaves keep `requires_grad` and the gradient."""
    if not self.is_leaf:
        raise TapeError(f"deepcopy: {self.aval} is the result of {self._node.prim.name}", fix="copy x.detach()")
    found = wrap(self._data.copy())
    found._leaf = self._leaf
    found._grad = None if self._grad is None else wrap(self._grad._data.copy())
    memo[id(self)] = found
    return found


def transpose(self: Tensor, *axes: Any) -> Any:
    """Permute the axes; x.transpose(0, 1) of a matrix is refused, because NumPy and PyTorch disagree about it."""
    if axes == (0, 1) and len(self.shape) == 2:
        raise ShapeError(
            f"transpose: the axes (0, 1) of {self.aval} mean nothing to NumPy, and a swap to PyTorch",
            fix="write x.T, or np.transpose(x, axes)",
        )
    return torch_names.transpose(self, *axes)


def contiguous(self: Tensor) -> Tensor:
    """Return the tensor, copied if its memory does not lie in order."""
    return self if self._data.flags.c_contiguous else self.clone().in_order()


def is_contiguous(self: Tensor) -> bool:
    """Whether the memory lies in row-major order."""
    return bool(self._data.flags.c_contiguous)


def view(self: Tensor, *shape: Any) -> Any:
    """Return the elements in another shape on the same memory. Raises ShapeError if that is not possible."""
    found = torch_names.view(self, *shape)
    if isinstance(found, Tensor) and found._data.size and not np.may_share_memory(found._data, self._data):
        raise ShapeError(f"view: the memory of {self.aval} does not lie in order", fix="use x.reshape(...)")
    return found


METHODS: dict[str, Any] = {
    "item": item, "tolist": tolist, "__bool__": truth, "__float__": as_float, "__int__": as_int,
    "__index__": as_index, "__len__": length, "__iter__": iterate, "__contains__": contains, "__format__": formatted,
    "__repr__": shown, "__dlpack__": dlpack, "__dlpack_device__": dlpack_device, "__deepcopy__": copied,
    "transpose": transpose, "contiguous": contiguous, "is_contiguous": is_contiguous, "view": view,
}  # fmt: skip
