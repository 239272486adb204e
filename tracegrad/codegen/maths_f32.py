"""Elementary functions on f32: branch-free, without tables."""

from __future__ import annotations

from tracegrad.codegen.maths_builtin import Scalar, from_bits32, horner, i32, rint


def exp_f32(x: Scalar) -> Scalar:
    y = -104.0 if x < -104.0 else x
    y = 89.0 if y > 89.0 else y
    n = rint(y * 1.44269504)
    r = y - n * 0.693359375 - n * -2.12194440e-4
    p = horner(r, 1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
    e = p * (r * r) + r + 1.0
    k = i32(n)
    h = k >> 1
    return e * from_bits32((h + 127) << 23) * from_bits32((k - h + 127) << 23)
