"""The two half-precision formats, by their bits: f16 (IEEE 754 binary16) and bf16 (the upper half of an f32).

Integers alone, without branches, so that loops of conversions vectorise on every CPU; where the CPU converts f16 itself
(F16C, ARM), `HARDWARE` stands in. Numbers are rounded to nearest, ties to even, subnormals included; too large ones
become infinite, and NaN stays NaN.
"""

from __future__ import annotations

from tracegrad.codegen.maths_builtin import Scalar, bits32, f32, f64, fabs, from_bits32, minimum, u16, u32

SIGN, MAGNITUDE = 0x8000, 0x7FFF
F32_INFINITY = 0x7F800000
F16_INFINITY, F16_NAN = 0x7C00, 0x7E00
BF16_NAN = 0x7FC0
REBIAS = 112 << 23
"""The difference of the exponents' biases, 127 - 15, at the exponent's place in an f32."""
HALF_BITS = 0x3F000000
"""0.5 as f32: its last place is the smallest subnormal f16."""
SMALLEST_NORMAL = 113 << 23
"""2**-14 as f32: what is below becomes subnormal in f16."""


def f32_of_f16(bits: Scalar) -> Scalar:
    size = u32(bits & MAGNITUDE) << 13
    subnormal = u32(bits32(from_bits32(size + SMALLEST_NORMAL) - 6.103515625e-05))
    finite = subnormal if size < SMALLEST_NORMAL - REBIAS else size + REBIAS
    found = size + 2 * REBIAS if size >= F16_INFINITY << 13 else finite
    return from_bits32(found | (u32(bits & SIGN) << 16))


def f16_of_f32(x: Scalar) -> Scalar:
    bits = u32(bits32(x))
    size = bits & 0x7FFFFFFF
    normal = minimum((size + 0xFFF + ((size >> 13) & 1) - REBIAS) >> 13, u32(F16_INFINITY))
    subnormal = u32(bits32(from_bits32(size) + 0.5)) - HALF_BITS
    finite = subnormal if size < SMALLEST_NORMAL else normal
    found = u32(F16_NAN) if size > F32_INFINITY else finite
    return u16(found | ((bits >> 16) & SIGN))


def f16_of_f64(x: Scalar) -> Scalar:
    """Through an f32 that is rounded to odd, because two roundings to nearest are not one."""
    near = f32(x)
    bits = u32(bits32(near))
    below = bits - 1 if fabs(f64(near)) > fabs(x) else bits
    exact = (f64(near) == x) | (x != x)
    return f16_of_f32(from_bits32(bits if exact else below | 1))


def f32_of_bf16(bits: Scalar) -> Scalar:
    return from_bits32(u32(bits) << 16)


def bf16_of_f32(x: Scalar) -> Scalar:
    bits = u32(bits32(x))
    rounded = (bits + MAGNITUDE + ((bits >> 16) & 1)) >> 16
    found = BF16_NAN | ((bits >> 16) & SIGN) if (bits & 0x7FFFFFFF) > F32_INFINITY else rounded
    return u16(found)


HARDWARE = {
    "f32_of_f16": "  %half = bitcast i16 %bits to half\n  %found = fpext half %half to float\n  ret float %found\n",
    "f16_of_f32": "  %half = fptrunc float %x to half\n  %found = bitcast half %half to i16\n  ret i16 %found\n",
}
"""The same functions as instructions of CPUs that have them."""
