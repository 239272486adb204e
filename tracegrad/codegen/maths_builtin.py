"""What the built-in names of scalar code mean in plain Python (and, where Numba has no word for them, under Numba).

`translate` knows each of these names and emits one or two instructions for it.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

Scalar: TypeAlias = Any  # a NumPy scalar; the dtype is in the function's name

f16, f32, f64 = np.float16, np.float32, np.float64
i8, i16, i32, i64 = np.int8, np.int16, np.int32, np.int64
u8, u16, u32, u64 = np.uint8, np.uint16, np.uint32, np.uint64
rint, floor, ceil, trunc, sqrt, fabs, copysign = np.rint, np.floor, np.ceil, np.trunc, np.sqrt, np.absolute, np.copysign
maximum, minimum, isnan, isinf, isfinite = np.maximum, np.minimum, np.isnan, np.isinf, np.isfinite


def bits32(x: Scalar) -> Scalar:
    return f32(x).view(i32)


def bits64(x: Scalar) -> Scalar:
    return f64(x).view(i64)


def from_bits32(x: Scalar) -> Scalar:
    return i32(x).view(f32)


def from_bits64(x: Scalar) -> Scalar:
    return i64(x).view(f64)


def bit_width(x: Scalar) -> int:
    return int(x.dtype.itemsize) * 8


def where(test: Scalar, yes: Scalar, no: Scalar) -> Scalar:
    return yes if test else no


def clamp(x: Scalar, low: float, high: float) -> Scalar:
    """NaN stays NaN."""
    return np.clip(x, low, high)


def horner(x: Scalar, *coefficients: float) -> Scalar:
    """The polynomial with these coefficients, highest power first."""
    total = x * 0.0 + coefficients[0]
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total


def fma(x: Scalar, y: Scalar, z: Scalar) -> Scalar:
    """`x * y + z` with one rounding (on f32: through f64)."""
    return f32(fma_f64(f64(x), f64(y), f64(z))) if isinstance(x, f32) else fma_f64(x, y, z)


def fma_f64(x: Scalar, y: Scalar, z: Scalar) -> Scalar:
    """Dekker's product and Knuth's sum: exact where the result is; compiled code has the true instruction."""
    big_x, big_y = x * 134217729.0, y * 134217729.0
    x_high, y_high = big_x - (big_x - x), big_y - (big_y - y)
    x_low, y_low = x - x_high, y - y_high
    p = x * y
    error = ((x_high * y_high - p) + x_high * y_low + x_low * y_high) + x_low * y_low
    total = p + z
    other = total - p
    rest = error + ((p - (total - other)) + (z - other))
    return total + (rest if isfinite(rest) else 0.0)
