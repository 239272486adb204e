"""Arrays by name, put into the places of a module: everything that does not fit is told at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tracegrad.errors import TracegradError
from tracegrad.ir import Aval
from tracegrad.ir.aval import kind_of
from tracegrad.tape.create import tensor
from tracegrad.tape.tensor import Tensor


class StateDictError(TracegradError, ValueError):
    """A state dict does not fit a module: keys or shapes differ."""


def matched(owner: str, own: Mapping[str, Any], given: Mapping[str, Any], strict: bool) -> list[Any]:
    """Return the given value (or, not strict, the own one) for every own name, in the own dtype; or raise."""
    problems = []
    if strict:
        problems += listed("missing", (f"{name} {shown(own[name])}" for name in own if name not in given))
        problems += listed("unexpected", (f"{name} {shown(given[name])}" for name in given if name not in own))
    both = [name for name in own if name in given]
    problems += listed(
        "of another shape",
        (f"{n} {shown(given[n])} for {shown(own[n])}" for n in both if shape(given[n]) != shape(own[n])),
    )
    problems += listed(
        "of another kind",
        (f"{n} {shown(given[n])} for {shown(own[n])}" for n in both if kind(given[n]) != kind(own[n])),
    )
    if problems:
        raise StateDictError(
            f"load_state_dict: {owner}: the arrays do not fit\n    " + "\n    ".join(problems),
            fix="make the module with the sizes it was saved with"
            + (", or pass strict=False to ignore missing and unexpected keys" if strict else ""),
        )
    return [converted(given[name], own[name]) if name in given else own[name] for name in own]


def listed(what: str, names: Iterable[str]) -> list[str]:
    text = ", ".join(names)
    return [f"{what}: {text}"] if text else []


def shown(value: Any) -> str:
    """Return dtype and shape as they are written everywhere, also of what is no array of ours."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        try:
            return str(Aval(tuple(value.shape), np.dtype(value.dtype)))
        except (TypeError, KeyError):
            return f"{value.dtype}{list(value.shape)}"
    return f"({type(value).__name__})"


def shape(value: Any) -> tuple[int, ...] | None:
    return tuple(value.shape) if hasattr(value, "shape") else None


def kind(value: Any) -> str:
    """Return f for floating point, i for integers and bool, and the type's name for what is no array."""
    dtype = getattr(value, "dtype", None)
    if not isinstance(dtype, np.dtype):
        return type(value).__name__
    return "i" if dtype.kind in "iub" else kind_of(dtype)


def converted(value: Any, like: Any) -> Any:
    """Return a copy of an array in the dtype of `like`, as a leaf tensor where `like` is a tensor; a traced value is
    converted only where dtypes differ."""
    if isinstance(like, Tensor) and isinstance(value, (np.ndarray, np.generic, Tensor)):
        return tensor(value, like.dtype, like.requires_grad)
    if isinstance(value, (np.ndarray, np.generic, Tensor)):
        return np.array(as_array(value), dtype=like.dtype)
    return value if value.dtype == like.dtype else value.astype(like.dtype)


def as_array(value: Any) -> Any:
    """Return an array, also of a tensor that records its gradient."""
    return np.asarray(value.detach() if isinstance(value, Tensor) else value)
