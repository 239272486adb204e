"""Elementary functions on f32: branch-free, without tables, minimax polynomials.

`x * x * p + x` shapes keep the leading term exact, so the rounding error of the polynomial hardly counts. Where the
argument must be reduced with care (sin, cos, tan) or the result magnifies errors (pow), the work is done in f64: a few
instructions on half as many lanes are cheaper than compensated f32 arithmetic.
"""

from __future__ import annotations

from tracegrad.codegen.maths_builtin import (
    Scalar,
    bits32,
    bits64,
    clamp,
    copysign,
    f32,
    f64,
    fabs,
    fma,
    from_bits32,
    from_bits64,
    horner,
    i32,
    rint,
    sqrt,
)
from tracegrad.codegen.maths_f64 import cbrt_start, fmod_f64

INF, NAN = float("inf"), float("nan")
ROUND_F32, ROUND_BITS_F32 = 12582912.0, 0x4B400000  # 1.5 * 2**23: adding it leaves the nearest integer in the low bits
ROUND_F64 = 6755399441055744.0  # 1.5 * 2**52
SQRT_HALF_BITS_F32 = 0x3F3504F3
LOG2E, TWO_OVER_PI, TINY_F32 = 1.4426950408889634, 0.6366197723675814, 2.9802322387695312e-08
LN2_HI_F32, LN2_LO_F32 = 0.693359375, -2.12194440e-4
PIO2_1, PIO2_2 = 1.5707963267948966, 6.123233995736766e-17
TRIG_LIMIT = 1125899906842624.0  # 2**50


def power_of_two_f32(k: Scalar) -> Scalar:
    return from_bits32((k + 127) << 23)


def scale_f32(x: Scalar, k: Scalar) -> Scalar:
    """`x * 2**k` in two steps, so that gradual underflow and overflow come out right."""
    h = k >> 1
    return x * power_of_two_f32(h) * power_of_two_f32(k - h)


def reduced_exp_f32(x: Scalar) -> tuple[Scalar, Scalar]:
    """(q, k) with exp(x) = (1 + q) * 2**k."""
    shifted = x * LOG2E + ROUND_F32
    n = shifted - ROUND_F32
    r = x - n * LN2_HI_F32 - n * LN2_LO_F32
    p = horner(r, 0.0013916984, 0.008367083, 0.041666612, 0.16666539, 0.5)
    return p * (r * r) + r, bits32(shifted) - ROUND_BITS_F32


def exp_f32(x: Scalar) -> Scalar:
    q, k = reduced_exp_f32(clamp(x, -104.0, 89.0))
    return scale_f32(q + 1.0, k)


def half_exp_f32(x: Scalar) -> Scalar:
    """`exp(x) / 2`, finite up to where sinh and cosh are."""
    q, k = reduced_exp_f32(clamp(x, -104.0, 90.0))
    return scale_f32(q + 1.0, k - 1)


def exp2_f32(x: Scalar) -> Scalar:
    y = clamp(x, -151.0, 129.0)
    shifted = y + ROUND_F32
    r = y - (shifted - ROUND_F32)
    p = horner(r, 1.39522235e-05, 0.00015475346, 0.0013339231, 0.009618008, 0.05550404, 0.2402265, -1.9046542e-09)
    return scale_f32((p * r + r * 0.6931472) + 1.0, bits32(shifted) - ROUND_BITS_F32)


def expm1_f32(x: Scalar) -> Scalar:
    q, k = reduced_exp_f32(clamp(x, -20.0, 89.0))
    half = power_of_two_f32(k - 1)
    value = (half * q + (half - 0.5)) * 2.0
    return x if fabs(x) < TINY_F32 else value


def tanh_f32(x: Scalar) -> Scalar:
    """With e = expm1(2 |x|): e / (e + 2)."""
    a = clamp(fabs(x), 0.0, 10.0)
    q, k = reduced_exp_f32(a + a)
    s = power_of_two_f32(k)
    e = s * q + (s - 1.0)
    return copysign(e / (e + 2.0), x)


def log1p_poly_f32(f: Scalar) -> Scalar:
    """`log(1 + f) - f` for sqrt(1/2) <= 1 + f <= sqrt(2)."""
    z = f * f
    p = horner(
        f, 0.06893149, -0.11729668, 0.11855388, -0.12394866, 0.1422221, -0.16668668, 0.20002031, -0.24999997, 0.33333313
    )
    return f * z * p - 0.5 * z


def log_special_f32(x: Scalar, value: Scalar) -> Scalar:
    value = value if x < INF else x
    value = NAN if x < 0.0 else value
    return -INF if x == 0.0 else value


def log_parts_f32(x: Scalar) -> tuple[Scalar, Scalar]:
    """(f, k) with x = (1 + f) * 2**k and sqrt(1/2) <= 1 + f < sqrt(2)."""
    small = x < 1.17549435e-38
    b = bits32(x * 8388608.0 if small else x) - SQRT_HALF_BITS_F32
    k = f32(b >> 23) - (23.0 if small else 0.0)
    return from_bits32((b & 0x7FFFFF) + SQRT_HALF_BITS_F32) - 1.0, k


def log_f32(x: Scalar) -> Scalar:
    f, k = log_parts_f32(x)
    value = k * LN2_HI_F32 + (f + (log1p_poly_f32(f) + k * LN2_LO_F32))
    return log_special_f32(x, value)


def log2_f32(x: Scalar) -> Scalar:
    f, k = log_parts_f32(x)
    high = from_bits32(bits32(f) & -4096)
    low = (f - high) + log1p_poly_f32(f)
    value = k + (high * 1.4423828 + (high * 0.0003122284 + low * LOG2E))
    return log_special_f32(x, value)


def log10_f32(x: Scalar) -> Scalar:
    f, k = log_parts_f32(x)
    high = from_bits32(bits32(f) & -4096)
    low = (f - high) + log1p_poly_f32(f)
    value = k * 0.3010254 + (high * 0.4342041 + (high * 9.038034e-05 + low * 0.4342944819 + k * 4.605039e-06))
    return log_special_f32(x, value)


def log1p_f32(x: Scalar) -> Scalar:
    """The exponent of 1 + x scales x itself: nothing of x is lost in the sum."""
    b = bits32(x + 1.0) - SQRT_HALF_BITS_F32
    exponent = b & -8388608
    f = from_bits32(bits32(x) - exponent) + (from_bits32(0x40800000 - exponent) * 0.25 - 1.0)
    k = f32(b >> 23)
    value = k * LN2_HI_F32 + (f + (log1p_poly_f32(f) + k * LN2_LO_F32))
    value = value if x < INF else x
    value = NAN if x < -1.0 else value
    value = -INF if x == -1.0 else value
    return x if fabs(x) < TINY_F32 else value


def reduced_angle_f32(x: Scalar) -> tuple[Scalar, Scalar]:
    """(r, k) with x = r + k * pi/2, r in f64; beyond TRIG_LIMIT, where the angle is not known, r is NaN."""
    y = f64(x)
    shifted = y * TWO_OVER_PI + ROUND_F64
    n = shifted - ROUND_F64
    r = fma(n, -PIO2_2, fma(n, -PIO2_1, y))
    return r if fabs(y) < TRIG_LIMIT else NAN, bits64(shifted)


def sin_quadrant_f32(r: Scalar, k: Scalar) -> Scalar:
    """sin(r + k * pi/2) for abs(r) <= pi/4."""
    z = r * r
    s = horner(z, -1.9515295891e-4, 8.3321608736e-3, -1.6666654611e-1) * (z * r) + r
    c = horner(z, 2.443315711809948e-5, -1.388731625493765e-3, 4.166664568298827e-2) * (z * z) + (1.0 - 0.5 * z)
    return from_bits32(bits32(c if (k & 1) != 0 else s) ^ ((k & 2) << 30))


def sin_f32(x: Scalar) -> Scalar:
    r, k = reduced_angle_f32(x)
    return x if fabs(x) < 1e-4 else sin_quadrant_f32(f32(r), i32(k & 3))


def cos_f32(x: Scalar) -> Scalar:
    r, k = reduced_angle_f32(x)
    return sin_quadrant_f32(f32(r), i32((k + 1) & 3))


def tan_f32(x: Scalar) -> Scalar:
    r, k = reduced_angle_f32(x)
    z = r * r
    s = horner(z, 2.718291028840204e-06, -0.00019839332717673215, 0.008333329379406331, -0.1666666664157169) * z * r + r
    c = horner(z, -2.721004472829976e-07, 2.479951770531723e-05, -0.0013888883744819325, 0.04166666662273015) * z * z
    c = c + (1.0 - 0.5 * z)
    odd = (k & 1) != 0
    return f32((-c if odd else s) / (s if odd else c)) if x != 0.0 else x


def asin_poly_f32(x: Scalar, z: Scalar) -> Scalar:
    """`asin(x) - x` for z = x * x <= 1/4."""
    return horner(z, 0.042211562, 0.024152214, 0.045476023, 0.07495252, 0.16666754) * z * x


def asin_f32(x: Scalar) -> Scalar:
    a = fabs(x)
    large = a > 0.5
    z = (1.0 - a) * 0.5 if large else a * a
    t = sqrt(z) if large else a
    p = asin_poly_f32(t, z)
    return copysign((1.57079637 - 2.0 * t) - (2.0 * p + 4.37113883e-08) if large else t + p, x)


def acos_f32(x: Scalar) -> Scalar:
    a = fabs(x)
    large = a > 0.5
    z = (1.0 - a) * 0.5 if large else a * a
    t = sqrt(z) if large else a
    p = asin_poly_f32(t, z)
    t, p = copysign(t, x), copysign(p, x)
    near = (3.14159274 if x < 0.0 else 0.0) + (2.0 * (t + p) + (-8.74227766e-08 if x < 0.0 else 0.0))
    return near if large else 1.57079637 - (t + (p + 4.37113883e-08))


def atan_poly_f32(t: Scalar) -> Scalar:
    """`atan(t)` for abs(t) <= tan(pi/8)."""
    z = t * t
    return horner(z, -0.060924597, 0.10600062, -0.14244497, 0.19998533, -0.33333316) * z * t + t


def atan_f32(x: Scalar) -> Scalar:
    a = fabs(x)
    big, middle = a > 2.41421366, a > 0.414213568
    top = -1.0 if big else a - 1.0 if middle else a
    bottom = a if big else a + 1.0 if middle else 1.0
    base = 1.57079637 if big else 0.785398185 if middle else 0.0
    low = -4.37113883e-08 if big else -2.18556941e-08 if middle else 0.0
    return copysign(base + (atan_poly_f32(top / bottom) + low), x)


def atan2_f32(y: Scalar, x: Scalar) -> Scalar:
    """The octant is folded to one of 0 <= t <= tan(pi/8); the angle is `turns * pi/4 + sign * atan(t)`."""
    a, b = fabs(x), fabs(y)
    swap = b > a
    top, bottom = (a if swap else b), (b if swap else a)
    same = (top == bottom) & ((bottom == INF) | (bottom == 0.0))
    t = f64(1.0 if same & (bottom == INF) else top)
    d = f64(1.0 if same else bottom)
    middle = t > d * 0.41421356237309503
    p = f64(atan_poly_f32(f32((t - d if middle else t) / (t + d if middle else d))))
    p = p + 0.7853981633974483 if middle else p
    p = 1.5707963267948966 - p if swap else p
    p = 3.141592653589793 - p if bits32(x) < 0 else p
    return copysign(f32(p), y)


def sinh_poly_f32(x: Scalar) -> Scalar:
    """`sinh(x)` for abs(x) <= 1."""
    z = x * x
    return horner(z, 2.7841502e-06, 0.00019842599, 0.008333311, 0.16666667) * z * x + x


def pow_f32(x: Scalar, y: Scalar) -> Scalar:
    """exp2(y * log2(abs(x))) in f64, then IEEE 754's special cases."""
    a, e = f64(fabs(x)), f64(y)
    b = bits64(a) - 0x3FE6A09E00000000
    m = from_bits64((b & 0xFFFFFFFFFFFFF) + 0x3FE6A09E00000000)
    s = (m - 1.0) / (m + 1.0)
    p = horner(
        s * s, 0.28291753931680735, 0.31990447904097996, 0.4122092821918238, 0.5770779420673592, 0.9617966941143816,
        2.8853900817778495,
    )  # fmt: skip
    log2 = f64(i32(b >> 52)) + s * p
    log2 = log2 if a < INF else a
    log2 = -INF if a == 0.0 else log2
    t = clamp(e * log2, -1000.0, 1000.0)
    shifted = t + ROUND_F64
    r = t - (shifted - ROUND_F64)
    q = horner(
        r, 1.3259663927827941e-06, 1.530372154795422e-05, 0.00015403436433736512, 0.0013333478407850663,
        0.009618129183673342, 0.05550410906376171, 0.2402265069573715, 0.693147180556827, 1.0,
    )  # fmt: skip
    value: Scalar = f32(q * from_bits64((bits64(shifted) + 1023) << 52))
    integer = rint(y) == y
    odd = integer & (rint(y * 0.5) * 2.0 != y)
    value = -value if odd & (bits32(x) < 0) else value
    value = NAN if (x < 0.0) & (x != -INF) & (integer ^ True) else value
    one = (y == 0.0) | (x == 1.0) | ((x == -1.0) & (fabs(y) == INF))
    return 1.0 if one else value


def cbrt_f32(x: Scalar) -> Scalar:
    a = f64(fabs(x))
    t = cbrt_start(a)
    return copysign(f32(t), x) if fabs(x) < INF else x


def fmod_f32(x: Scalar, y: Scalar) -> Scalar:
    return f32(fmod_f64(f64(x), f64(y)))
