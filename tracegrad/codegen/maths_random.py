"""Counter-based random bits: Threefry-2x32 with 20 rounds (Salmon et al., "Parallel random numbers: as easy as 1,
2, 3")."""

from __future__ import annotations

from tracegrad.codegen.maths_builtin import Scalar, f32, f64, u32


def mix(a: Scalar, b: Scalar, left: int) -> tuple[Scalar, Scalar]:
    """One round."""
    total = u32(a + b)
    return total, u32(((b << left) | (b >> (32 - left))) ^ total)


def four_rounds(a: Scalar, b: Scalar, r0: int, r1: int, r2: int, r3: int) -> tuple[Scalar, Scalar]:
    a, b = mix(a, b, r0)
    a, b = mix(a, b, r1)
    a, b = mix(a, b, r2)
    a, b = mix(a, b, r3)
    return a, b


def threefry2x32(k0: Scalar, k1: Scalar, c0: Scalar, c1: Scalar) -> tuple[Scalar, Scalar]:
    """Two random words from a key (k0, k1) and a counter (c0, c1), all u32."""
    k2 = u32(k0 ^ k1 ^ u32(0x1BD11BDA))
    a, b = four_rounds(u32(c0 + k0), u32(c1 + k1), 13, 15, 26, 6)
    a, b = four_rounds(u32(a + k1), u32(b + k2 + u32(1)), 17, 29, 16, 24)
    a, b = four_rounds(u32(a + k2), u32(b + k0 + u32(2)), 13, 15, 26, 6)
    a, b = four_rounds(u32(a + k0), u32(b + k1 + u32(3)), 17, 29, 16, 24)
    a, b = four_rounds(u32(a + k1), u32(b + k2 + u32(4)), 13, 15, 26, 6)
    return u32(a + k2), u32(b + k0 + u32(5))


def threefry2x32_0(k0: Scalar, k1: Scalar, c0: Scalar, c1: Scalar) -> Scalar:
    a, _ = threefry2x32(k0, k1, c0, c1)
    return a


def threefry2x32_1(k0: Scalar, k1: Scalar, c0: Scalar, c1: Scalar) -> Scalar:
    _, b = threefry2x32(k0, k1, c0, c1)
    return b


def uniform_f32(bits: Scalar) -> Scalar:
    """The upper 24 of 32 random bits, as a float in [0, 1)."""
    return f32(bits >> 8) * 5.9604644775390625e-08


def uniform_f64(bits_hi: Scalar, bits_lo: Scalar) -> Scalar:
    """53 of 64 random bits, as a double in [0, 1)."""
    return (f64(bits_hi >> 5) * 67108864.0 + f64(bits_lo >> 6)) * 1.1102230246251565e-16
