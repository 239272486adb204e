"""Making tensors: of numbers, lists and arrays, of memory of other libraries, of whole models."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad import tree
from tracegrad.errors import ArgumentError, TracegradError, TracerError
from tracegrad.ir.aval import check_dtype, check_plain, is_float, peculiar
from tracegrad.tape.tensor import Tensor, wrap
from tracegrad.trace import STATE, Tracer


def tensor(data: Any, dtype: Any = None, requires_grad: bool = False) -> Tensor:
    """Return a new tensor, a leaf: `data` (numbers, nested lists, an array, a tensor) is copied.

    Dtypes are NumPy's: Python floats give float64. Raises DTypeError for dtypes that are not supported, TapeError when
    `requires_grad` is asked of integers.

    >>> tensor([1.0, 2.0], requires_grad=True)
    tensor([1., 2.], requires_grad=True)
    """
    found = wrap(checked(array_of(np.array, data, dtype, "tensor")))
    if requires_grad:
        found.requires_grad = True
    return found


def plain(data: Any, name: str) -> Any:
    """Return data that NumPy understands: tensors without their graph."""
    check_plain(data, name)
    if isinstance(data, Tensor):
        return data.concrete(f"{name}()", "use the traced value itself")
    if isinstance(data, Tracer):
        raise TracerError(f"{name}: a traced value {data.aval} is not known while tracing", fix="use it as it is")
    if isinstance(data, (list, tuple)) and data and not isinstance(data[0], (int, float)):
        return [plain(d, name) for d in data]
    return data


def array_of(make: Any, data: Any, dtype: Any, name: str) -> np.ndarray[Any, Any]:
    """Return data as an array of a known dtype; ragged lists are refused."""
    chosen = None if dtype is None else check_dtype(dtype, name)
    try:
        found: np.ndarray[Any, Any] = make(plain(data, name), chosen)
    except (ValueError, TypeError, OverflowError) as error:
        if isinstance(error, TracegradError):
            raise
        raise ArgumentError(
            f"{name}: the data do not make one array of numbers ({str(error).partition('. ')[0].replace(':', '')})",
            fix="give all rows one length, or convert the data with np.asarray first",
        ) from None
    return found


def checked(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    check_dtype(array.dtype, f"tensor: data of shape {array.shape}")
    return array


def as_tensor(data: Any, dtype: Any = None) -> Tensor:
    """Return `data` as a tensor: itself if it is one of this dtype; an array shares its memory.

    >>> a = np.zeros(2)
    >>> as_tensor(a).fill_(1.0); a
    tensor([1., 1.])
    array([1., 1.])
    """
    if isinstance(data, Tensor):
        found: Tensor = data if dtype is None or data.dtype == dtype else data.astype(dtype)  # type: ignore[attr-defined]
        return found
    return wrap(checked(array_of(np.asarray, data, dtype, "as_tensor")))


def from_numpy(array: np.ndarray[Any, Any]) -> Tensor:
    """Return a tensor on the memory of a NumPy array: changes of one are seen in the other.

    >>> a = np.zeros(2)
    >>> x = from_numpy(a)
    >>> a[0] = 5.0
    >>> x
    tensor([5., 0.])
    """
    if not isinstance(array, np.ndarray) or peculiar(array):
        raise ArgumentError(f"from_numpy: a {type(array).__name__} is not a NumPy array", fix="use tg.tensor(data)")
    return wrap(checked(np.asarray(array)))


def from_dlpack(source: Any) -> Tensor:
    """Return a tensor on the memory of an array of another library (PyTorch, JAX, CuPy on the CPU, ...), shared.

    Raises ArgumentError when the object has no `__dlpack__`, or its memory is not in reach of the CPU.

    >>> from_dlpack(np.arange(3.0))
    tensor([0., 1., 2.])
    """
    if not hasattr(source, "__dlpack__"):
        raise ArgumentError(f"from_dlpack: a {type(source).__name__} has no __dlpack__", fix="use tg.tensor(data)")
    try:
        return wrap(checked(np.from_dlpack(source)))
    except (BufferError, RuntimeError, TypeError) as error:
        raise ArgumentError(
            f"from_dlpack: {type(source).__name__}: {error}", fix="detach it and move it to the CPU first"
        ) from None


def track(model: Any) -> Any:
    """Return a copy of a pytree (a module, say) whose floating-point arrays are tensors that require gradients.

    The other leaves stay, but the buffers of modules become tensors without gradient, which training updates in place.
    So a training loop on the tape reads as in PyTorch; `untrack` gives arrays back.

    >>> import tracegrad as tg
    >>> model = tg.track(tg.nn.Linear(3, 1))
    >>> model(tg.tensor([1.0, 2.0, 3.0], dtype=np.float32)).sum().backward()
    >>> model.bias.grad
    tensor([1.], dtype=float32)
    """

    buffers = {id(b) for b in buffers_of(model)}

    def tracked(leaf: Any) -> Any:
        if id(leaf) in buffers:
            return tensor(leaf)
        if isinstance(leaf, (np.ndarray, Tensor)) and is_float(leaf.dtype):
            return tensor(leaf, requires_grad=True)
        return leaf

    if STATE.get().traces:
        raise TracerError("track: a traced function cannot make tensors", fix="call tg.track outside")
    return tree.map(tracked, model)


def buffers_of(model: Any) -> list[Any]:
    """Return the buffers of the modules in lists, tuples and dicts."""
    if hasattr(model, "named_buffers"):
        return list(model.named_buffers().values())
    parts = model.values() if isinstance(model, dict) else model if isinstance(model, (list, tuple)) else ()
    return [b for part in parts for b in buffers_of(part)]


def untrack(model: Any) -> Any:
    """Return a pytree with NumPy arrays, copies, in place of tensors.

    >>> import tracegrad as tg
    >>> untrack({"w": tg.tensor([1.0])})
    {'w': array([1.])}
    """
    return tree.map(lambda leaf: np.array(leaf._data) if isinstance(leaf, Tensor) else leaf, model)
