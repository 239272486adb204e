"""bfloat16, a dtype that NumPy gets from the package ml_dtypes: known where the user has it, never required."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from tracegrad.errors import DTypeError

NAME = "bfloat16"
LARGEST = float.fromhex("0x1.fep127")


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Tell whether this is ml_dtypes' dtype."""
    return dtype.kind == "V" and dtype.name == NAME


def bfloat16() -> np.dtype[Any]:
    """Return the dtype, or raise DTypeError where ml_dtypes is not installed."""
    try:
        found: np.dtype[Any] = np.dtype(importlib.import_module("ml_dtypes").bfloat16)
    except ImportError:
        raise DTypeError(
            "bfloat16: NumPy has it from the package ml_dtypes, which is not installed", fix="pip install ml_dtypes"
        ) from None
    return found


def text_of(dtype: np.dtype[Any]) -> str:
    """Return what a file says of a dtype, for `as_dtype` to read."""
    return NAME if is_bfloat16(dtype) else dtype.str


def as_dtype(dtype: Any) -> np.dtype[Any]:
    """Return what `np.dtype` does, which knows the name bfloat16 once ml_dtypes has been imported."""
    return bfloat16() if isinstance(dtype, str) and dtype == NAME else np.dtype(dtype)
