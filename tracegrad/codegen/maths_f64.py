"""Elementary functions on f64: branch-free, without tables, minimax polynomials.

`fma` stands where a product must be exact; elsewhere the compiler may contract, which only makes results better.
"""

from __future__ import annotations

from tracegrad.codegen.maths_builtin import (
    Scalar,
    bits64,
    clamp,
    copysign,
    f64,
    fabs,
    fma,
    from_bits64,
    horner,
    i32,
    i64,
    rint,
    sqrt,
    trunc,
)

INF, NAN = float("inf"), float("nan")
ROUND, ROUND_BITS = (
    6755399441055744.0,
    0x4338000000000000,
)  # 1.5 * 2**52: adding it leaves the nearest integer in the low bits
SQRT_HALF_BITS, FRACTION = 0x3FE6A09E00000000, 0xFFFFFFFFFFFFF
LOG2E, TWO_OVER_PI, TINY = 1.4426950408889634, 0.6366197723675814, 5.551115123125783e-17
LN2_HI, LN2_LO = 6.93147180369123816490e-01, 1.90821492927058770002e-10
LN2_1, LN2_2 = 0.6931471805599453, 2.3190468138462996e-17
PIO2_1, PIO2_2, PIO2_3 = 1.5707963267948966, 6.123233995736766e-17, -1.4973849048591698e-33
TRIG_LIMIT = 1125899906842624.0  # 2**50


def power_of_two_f64(k: Scalar) -> Scalar:
    return from_bits64((k + 1023) << 52)


def scale_f64(x: Scalar, k: Scalar) -> Scalar:
    """`x * 2**k` in two steps, so that gradual underflow and overflow come out right."""
    h = k >> 1
    return x * power_of_two_f64(h) * power_of_two_f64(k - h)


def exp_poly_f64(r: Scalar) -> Scalar:
    """`exp(r) - 1` for abs(r) <= ln(2)/2."""
    p = horner(
        r, 2.0924433818411473e-09, 2.510909903039171e-08, 2.7557242815058096e-07, 2.755724403924872e-06,
        2.4801587360455936e-05, 0.0001984126988628644, 0.001388888888886691, 0.008333333333321572, 0.0416666666666667,
        0.16666666666666677, 0.5,
    )  # fmt: skip
    return p * (r * r) + r


def reduced_exp_f64(x: Scalar) -> tuple[Scalar, Scalar]:
    """(q, k) with exp(x) = (1 + q) * 2**k."""
    shifted = x * LOG2E + ROUND
    n = shifted - ROUND
    return exp_poly_f64((x - n * LN2_HI) - n * LN2_LO), bits64(shifted) - ROUND_BITS


def exp_f64(x: Scalar) -> Scalar:
    q, k = reduced_exp_f64(clamp(x, -750.0, 710.0))
    return scale_f64(q + 1.0, k)


def half_exp_f64(x: Scalar) -> Scalar:
    """`exp(x) / 2`, finite up to where sinh and cosh are."""
    q, k = reduced_exp_f64(clamp(x, -750.0, 711.0))
    return scale_f64(q + 1.0, k - 1)


def exp2_f64(x: Scalar) -> Scalar:
    y = clamp(x, -1080.0, 1025.0)
    shifted = y + ROUND
    q = exp_poly_f64((y - (shifted - ROUND)) * LN2_1)
    return scale_f64(q + 1.0, bits64(shifted) - ROUND_BITS)


def expm1_f64(x: Scalar) -> Scalar:
    q, k = reduced_exp_f64(clamp(x, -50.0, 710.0))
    half = power_of_two_f64(k - 1)
    value = (half * q + (half - 0.5)) * 2.0
    return x if fabs(x) < TINY else value


def tanh_f64(x: Scalar) -> Scalar:
    """With e = expm1(2 |x|): e / (e + 2)."""
    a = clamp(fabs(x), 0.0, 22.0)
    q, k = reduced_exp_f64(a + a)
    s = power_of_two_f64(k)
    e = s * q + (s - 1.0)
    return copysign(e / (e + 2.0), x)


def log1p_poly_f64(f: Scalar) -> Scalar:
    """`f - log(1 + f)` for sqrt(1/2) <= 1 + f <= sqrt(2): a series in s = f / (2 + f)."""
    s = f / (f + 2.0)
    z = s * s
    p = horner(
        z, 0.14796618312549384, 0.1531398741091187, 0.18183566642838694, 0.222221985316885, 0.28571428742759875,
        0.3999999999941316, 0.6666666666666735,
    )  # fmt: skip
    half = 0.5 * f * f
    return half - s * (half + p * z)


def log_special_f64(x: Scalar, value: Scalar) -> Scalar:
    value = value if x < INF else x
    value = NAN if x < 0.0 else value
    return -INF if x == 0.0 else value


def log_parts_f64(x: Scalar) -> tuple[Scalar, Scalar]:
    """(f, k) with x = (1 + f) * 2**k and sqrt(1/2) <= 1 + f < sqrt(2)."""
    small = x < 2.2250738585072014e-308
    b = bits64(x * 18014398509481984.0 if small else x) - SQRT_HALF_BITS
    k = f64(b >> 52) - (54.0 if small else 0.0)
    return from_bits64((b & FRACTION) + SQRT_HALF_BITS) - 1.0, k


def log_f64(x: Scalar) -> Scalar:
    f, k = log_parts_f64(x)
    value = k * LN2_HI - ((log1p_poly_f64(f) - k * LN2_LO) - f)
    return log_special_f64(x, value)


def split_log_f64(x: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """(high, low, k) with log(x) = high + low + k * ln(2); high has 20 bits only."""
    f, k = log_parts_f64(x)
    half = 0.5 * f * f
    high = from_bits64(bits64(f - half) & -4294967296)
    low = ((f - high) - half) + (half - log1p_poly_f64(f))
    return high, low, k


def log2_f64(x: Scalar) -> Scalar:
    high, low, k = split_log_f64(x)
    top = high * 1.44269504072144627571
    rest = (low + high) * 1.67517131648865118353e-10 + low * 1.44269504072144627571
    total = k + top
    return log_special_f64(x, total + (rest + ((k - total) + top)))


def log10_f64(x: Scalar) -> Scalar:
    high, low, k = split_log_f64(x)
    top = high * 4.34294481878168880939e-01
    big = k * 3.01029995663611771306e-01
    rest = k * 3.69423907715893078616e-13 + (low + high) * 2.50829467116452752298e-11 + low * 4.34294481878168880939e-01
    total = big + top
    return log_special_f64(x, total + (rest + ((big - total) + top)))


def log1p_f64(x: Scalar) -> Scalar:
    """The exponent of 1 + x scales x itself: nothing of x is lost in the sum."""
    b = bits64(x + 1.0) - SQRT_HALF_BITS
    exponent = b & -4503599627370496
    f = from_bits64(bits64(x) - exponent) + (from_bits64(0x4010000000000000 - exponent) * 0.25 - 1.0)
    k = f64(b >> 52)
    value = k * LN2_HI - ((log1p_poly_f64(f) - k * LN2_LO) - f)
    value = value if x < INF else x
    value = NAN if x < -1.0 else value
    value = -INF if x == -1.0 else value
    return x if fabs(x) < TINY else value


def reduced_angle_f64(x: Scalar) -> tuple[Scalar, Scalar, Scalar]:
    """(r, tail, k) with x = r + tail + k * pi/2; beyond TRIG_LIMIT, where the angle is not known, r is NaN.

    `x - n * PIO2_1` is exact in one fma: it is a multiple of 2**-53 below 1.
    """
    shifted = x * TWO_OVER_PI + ROUND
    n = shifted - ROUND
    a = fma(n, -PIO2_1, x)
    p = n * PIO2_2
    r = a - p
    tail = ((a - r) - p) - (fma(n, PIO2_2, -p) + n * PIO2_3)
    inside = fabs(x) < TRIG_LIMIT
    return r if inside else NAN, tail if inside else 0.0, bits64(shifted)


def sin_cos_f64(r: Scalar, tail: Scalar) -> tuple[Scalar, Scalar]:
    """sin and cos of r + tail for abs(r) <= pi/4."""
    z = r * r
    p = horner(
        z, 1.5896737109826408e-10, -2.5050757140123644e-08, 2.7557313685927503e-06, -0.00019841269829791282,
        0.008333333333322394,
    )  # fmt: skip
    cube = z * r
    s = r - ((z * (0.5 * tail - cube * p) - tail) - cube * -0.16666666666666632)
    q = horner(
        z, -1.1359607783981636e-11, 2.087572252786196e-09, -2.755731434706327e-07, 2.480158728946473e-05,
        -0.0013888888888874097, 0.0416666666666666,
    )  # fmt: skip
    half = 0.5 * z
    w = 1.0 - half
    return s, w + (((1.0 - w) - half) + (z * z * q - r * tail))


def sin_f64(x: Scalar) -> Scalar:
    r, tail, k = reduced_angle_f64(x)
    s, c = sin_cos_f64(r, tail)
    value = from_bits64(bits64(c if (k & 1) != 0 else s) ^ ((k & 2) << 62))
    return x if fabs(x) < 1e-9 else value


def cos_f64(x: Scalar) -> Scalar:
    r, tail, k = reduced_angle_f64(x)
    s, c = sin_cos_f64(r, tail)
    return from_bits64(bits64(s if (k & 1) != 0 else c) ^ (((k + 1) & 2) << 62))


def tan_f64(x: Scalar) -> Scalar:
    r, tail, k = reduced_angle_f64(x)
    s, c = sin_cos_f64(r, tail)
    odd = (k & 1) != 0
    value = (-c if odd else s) / (s if odd else c)
    return x if fabs(x) < 1e-9 else value


def asin_poly_f64(x: Scalar, z: Scalar) -> Scalar:
    """`asin(x) - x` for z = x * x <= 1/4."""
    p = horner(
        z, 0.03267668914548702, -0.021076953695372446, 0.021763246440533963, 0.0036831517078354547,
        0.010786498397379869, 0.011397781746371889, 0.013980960712776193, 0.017351600156250452, 0.022372215656572082,
        0.030381942683753795, 0.044642857175117935, 0.07499999999970265, 0.16666666666666763,
    )  # fmt: skip
    return p * z * x


def asin_f64(x: Scalar) -> Scalar:
    a = fabs(x)
    large = a > 0.5
    z = (1.0 - a) * 0.5 if large else a * a
    t = sqrt(z) if large else a
    p = asin_poly_f64(t, z)
    return copysign((PIO2_1 - 2.0 * t) - (2.0 * p - PIO2_2) if large else t + p, x)


def acos_f64(x: Scalar) -> Scalar:
    a = fabs(x)
    large = a > 0.5
    z = (1.0 - a) * 0.5 if large else a * a
    t = sqrt(z) if large else a
    p = asin_poly_f64(t, z)
    t, p = copysign(t, x), copysign(p, x)
    turn = 2.0 if x < 0.0 else 0.0
    near = turn * PIO2_1 + (2.0 * (t + p) + turn * PIO2_2)
    return near if large else PIO2_1 - (t + (p - PIO2_2))


def atan_poly_f64(t: Scalar) -> Scalar:
    """`atan(t)` for abs(t) <= tan(pi/8)."""
    z = t * t
    p = horner(
        z, 0.015209075982535049, -0.033488153325160766, 0.04504137241498942, -0.05218548833970002, 0.05877044219694449,
        -0.06666229045297008, 0.07692282913470964, -0.09090908151369316, 0.1111111108836723, -0.14285714285391046,
        0.19999999999997695, -0.33333333333333326,
    )  # fmt: skip
    return p * z * t + t


def atan_f64(x: Scalar) -> Scalar:
    a = fabs(x)
    big, middle = a > 2.414213562373095, a > 0.41421356237309503
    top = -1.0 if big else a - 1.0 if middle else a
    bottom = a if big else a + 1.0 if middle else 1.0
    turn = 1.0 if big else 0.5 if middle else 0.0
    return copysign(turn * PIO2_1 + (atan_poly_f64(top / bottom) + turn * PIO2_2), x)


def atan2_f64(y: Scalar, x: Scalar) -> Scalar:
    """The octant is folded to 0 <= t <= tan(pi/8); the angle is `turns * pi/2 + sign * atan(t)`."""
    a, b = fabs(x), fabs(y)
    swap, behind = b > a, bits64(x) < 0
    top, bottom = (a if swap else b), (b if swap else a)
    scale = 0.25 if bottom > 1e300 else 1.0
    same = (top == bottom) & ((bottom == INF) | (bottom == 0.0))
    t = 1.0 if same & (bottom == INF) else top * scale
    d = 1.0 if same else bottom * scale
    middle = t > d * 0.41421356237309503
    p = atan_poly_f64((t - d if middle else t) / (t + d if middle else d))
    turn = 0.5 if middle else 0.0
    turn, p = (1.0 - turn if swap else turn), (-p if swap else p)
    turn, p = (2.0 - turn if behind else turn), (-p if behind else p)
    return copysign(turn * PIO2_1 + (p + turn * PIO2_2), y)


def sinh_poly_f64(x: Scalar) -> Scalar:
    """`sinh(x)` for abs(x) <= 1."""
    z = x * x
    p = horner(
        z, 7.759312217547371e-13, 1.6057240340884456e-10, 2.505212339855279e-08, 2.7557319155337e-06,
        0.0001984126984143768, 0.008333333333333139, 0.16666666666666669,
    )  # fmt: skip
    return p * z * x + x


def log_pair_f64(a: Scalar) -> tuple[Scalar, Scalar]:
    """log(a) as an unevaluated sum of two doubles, 2**-65 accurate: 2 s + 2 s**3 (1/3 + s**2 / 5 + ...) + k ln(2)."""
    f, k = log_parts_f64(a)
    d = f + 2.0
    s = f / d
    s_low = (fma(-s, d, f) - s * (f - (d - 2.0))) / d
    z = s * s
    z_low = fma(s, s, -z) + 2.0 * s * s_low
    p = z * horner(
        z, 0.05994767445409841, 0.058373780852027816, 0.06668160236462144, 0.076922783960583, 0.09090909435731304,
        0.11111111108763592, 0.14285714285722576, 0.1999999999999999,
    )  # fmt: skip
    c = p + 0.3333333333333333
    c_low = (p - (c - 0.3333333333333333)) + (1.850371707708594e-17 + z_low * 0.2)
    q = z * c
    q_low = fma(z, c, -q) + (z_low * c + z * c_low)
    t = s * q
    t_low = fma(s, q, -t) + (s_low * q + s * q_low)
    high = k * LN2_1
    low = fma(k, LN2_1, -high) + k * LN2_2
    total = high + 2.0 * s
    rest = (high - total) + 2.0 * s if fabs(high) > 0.0 else 0.0
    whole = total + 2.0 * t
    rest = rest + ((total - whole) + 2.0 * t)
    return whole, rest + (low + 2.0 * (s_low + t_low))


def pow_f64(x: Scalar, y: Scalar) -> Scalar:
    """exp(y * log(abs(x))) with the logarithm and the product in two doubles, then IEEE 754's special cases."""
    a = fabs(x)
    log, log_low = log_pair_f64(a)
    log = log if a < INF else a
    log = -INF if a == 0.0 else log
    t = y * log
    inside = fabs(t) < 760.0
    t_low = fma(y, log, -t) + y * log_low if inside else 0.0
    t = clamp(t, -760.0, 760.0)
    shifted = t * LOG2E + ROUND
    n = shifted - ROUND
    r = ((t - n * LN2_HI) - n * LN2_LO) + t_low
    value = scale_f64(exp_poly_f64(r) + 1.0, bits64(shifted) - ROUND_BITS)
    integer = rint(y) == y
    odd = integer & (rint(y * 0.5) * 2.0 != y)
    value = -value if odd & (bits64(x) < 0) else value
    value = NAN if (x < 0.0) & (x != -INF) & (integer ^ True) else value
    one = (y == 0.0) | (x == 1.0) | ((x == -1.0) & (fabs(y) == INF))
    return 1.0 if one else value


def cbrt_start(a: Scalar) -> Scalar:
    """The cube root of a normal a > 0 to 23 bits: a third of the exponent, then a polynomial in t**3 / a."""
    high = i32(f64(i32(bits64(a) >> 32)) * 0.3333333333333333) + 715094163
    t = from_bits64(i64(high) << 32)
    t = 0.0 if a == 0.0 else t
    r = t * t * (t / (1.0 if a == 0.0 else a))
    p = horner(
        r, 0.145996192886612446982, -0.758397934778766047437, 1.621429720105354466140, -1.88497979543377169875,
        1.87595182427177009643,
    )  # fmt: skip
    return t * p


def cbrt_f64(x: Scalar) -> Scalar:
    small = fabs(x) < 2.2250738585072014e-308
    a = fabs(x) * 18014398509481984.0 if small else fabs(x)
    t = from_bits64((bits64(cbrt_start(a)) + 2147483648) & -1073741824)
    r = a / (1.0 if a == 0.0 else t * t)
    t = t + t * ((r - t) / ((1.0 if a == 0.0 else t + t) + r))
    t = t * 3.814697265625e-06 if small else t
    return copysign(t, x) if (fabs(x) < INF) & (x != 0.0) else x


def fmod_f64(x: Scalar, y: Scalar) -> Scalar:
    """C's remainder (`np.fmod`), exact where the quotient is below 2**53; NaN beyond.

    The rounded quotient may be one too large; then the remainder has the wrong sign, and one divisor is added back.
    """
    a, b = fabs(x), fabs(y)
    q = trunc(a / b)
    r = fma(-q, b, a)
    r = r + b if r < 0.0 else r
    r = NAN if (q >= 9007199254740992.0) & (b > 0.0) & (a < INF) else r
    r = a if (b == INF) & (a < INF) else r
    return copysign(r, x)
