"""Special functions on f32 and f64: erf, erfc, erfinv, lgamma, digamma."""

from __future__ import annotations

from tracegrad.codegen.maths_builtin import Scalar, clamp, copysign, f32, f64, fabs, fma, horner, rint, sqrt
from tracegrad.codegen.maths_f32 import exp_f32
from tracegrad.codegen.maths_f64 import exp_f64, log_f64, sin_f64, tan_f64

INF, NAN, PI = float("inf"), float("nan"), 3.141592653589793


def erf_small_f32(x: Scalar) -> Scalar:
    """`erf(x)` for abs(x) < 0.921875."""
    p = horner(x * x, -5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1, 1.28379166e-1)
    return p * x + x


def erf_f32(x: Scalar) -> Scalar:
    """For large x: 1 - exp(polynomial)."""
    a = clamp(fabs(x), 0.0, 4.0)
    p = horner(
        a, -1.72853470e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1, -6.34846687e-1, -1.28717512e-1
    )
    return erf_small_f32(x) if a < 0.921875 else copysign(1.0 - exp_f32(p * a - a), x)


def erfc_f32(x: Scalar) -> Scalar:
    """For large x: exp(-x * x) times a polynomial in (x - 2) / (x + 2), over 1 + 2 x (Shepherd and Laframboise)."""
    a = clamp(fabs(x), 0.0, 10.2)
    p = horner(
        (a - 2.0) / (a + 2.0), -5.179211e-05, -0.0014418293, 0.0010973413, 0.008741793, -0.008006125, -0.054223552,
        0.16404952, -0.16603023, -0.0927638, 1.2769784,
    )  # fmt: skip
    z = a * a
    e = f64(exp_f32(-z))
    wide = f64(a)
    r = f32((e - e * (wide * wide - f64(z))) * (f64(p) / (2.0 * wide + 1.0)))
    large = r if x > 0.0 else 2.0 - r
    return 1.0 - erf_small_f32(x) if a < 0.75 else large


def erf_small_f64(x: Scalar) -> Scalar:
    """`erf(x)` for abs(x) <= 0.75."""
    p = horner(
        x * x, 1.1474860285739364e-08, -1.5940738203291433e-07, 1.6430765317484683e-06, -1.4924201734042413e-05,
        0.00012055289786993624, -0.0008548326194249776, 0.005223977615504137, -0.026866170644435795,
        0.11283791670952628, -0.37612638903183715, 0.1283791670955126,
    )  # fmt: skip
    return p * x + x


def erfc_large_f64(a: Scalar) -> Scalar:
    """`erfc(a)` for 0.75 <= a <= 28, as in f32 but with (a - 4) / (a + 4)."""
    p = horner(
        (a - 4.0) / (a + 4.0), -7.780624873194408e-09, -1.3753623720642917e-08, 9.870395765106455e-08,
        7.073094751427143e-08, -8.147750596956429e-07, 2.957374344087786e-07, 5.703749432888524e-06,
        -1.1222550470136813e-05, -2.4397085052517923e-05, 0.0001506217418419932, -0.00019925718190920346,
        -0.0007577732876891618, 0.005031970048564144, -0.01619773405920556, 0.0371675155313127, -0.06633036581204398,
        0.0937328349986462, -0.10103906603631292, 0.06809705425468617, 0.015379652102619892, -0.13962111684056247,
        1.2329951186255526,
    )  # fmt: skip
    z = a * a
    e = exp_f64(-z)
    return (e - e * fma(a, a, -z)) * (p / (2.0 * a + 1.0))


def erf_f64(x: Scalar) -> Scalar:
    a = clamp(fabs(x), 0.0, 28.0)
    return erf_small_f64(x) if a < 0.75 else copysign(1.0 - erfc_large_f64(a), x)


def erfc_f64(x: Scalar) -> Scalar:
    a = clamp(fabs(x), 0.0, 28.0)
    r = erfc_large_f64(a)
    return 1.0 - erf_small_f64(x) if a < 0.75 else r if x > 0.0 else 2.0 - r


def erfinv_f32(x: Scalar) -> Scalar:
    """In f64: x times a polynomial in w = -log(1 - x * x), or in sqrt(w) for the tails (Giles)."""
    d = f64(x)
    w = -log_f64((1.0 - d) * (1.0 + d))
    p = horner(
        w - 2.5,
        1.2009668700382037e-10, 4.333145498128203e-10, -1.0807726243149098e-08, 1.6511071626435618e-08,
        4.7837706650583e-07, -3.4262831414263153e-06, -4.995216870560631e-06, 0.00021826410930336865,
        -0.0012527087468387189, -0.004177325025481522, 0.24664027696664148, 1.5014093517359206,
    )  # fmt: skip
    q = horner(
        sqrt(w) - 3.0,
        -9.16679781708519e-06, -1.550825164020969e-05, 0.00017231523340037363, -0.0002995810672385271,
        -0.0001253028808073404, 0.0014875520940130713, -0.0035659836056737833, 0.005684793564970786,
        -0.007642907259317021, 0.009445541015854103, 1.0016752451291333, 2.832976798430081,
    )  # fmt: skip
    value = f32(d * (p if w < 5.0 else q))
    return copysign(INF, x) if fabs(x) == 1.0 else value


def erfinv_f64(x: Scalar) -> Scalar:
    """x times a polynomial in w = -log(1 - x * x), or in sqrt(w) for the tails."""
    w = -log_f64((1.0 - x) * (1.0 + x))
    s = sqrt(w)
    p = horner(
        w - 3.0, 3.147282603662488e-21, -1.0055497712893289e-20, -3.29534855885588e-19, 2.0347490015999363e-18,
        1.1465703972260087e-17, -1.624379695218888e-16, 2.92273359621602e-16, 6.338024286970298e-15,
        -5.307750644961103e-14, 6.195430013592787e-15, 2.699746396627769e-12, -1.7328547681966744e-11,
        -3.1428254833827133e-11, 1.1107974080283815e-09, -5.46717298416033e-09, -2.368872615127619e-08,
        4.4998541733754837e-07, -1.7480020969266246e-06, -1.2716422632631039e-05, 0.0001950613244139118,
        -0.0008361817769114179, -0.005738135221006021, 0.2416304041661585, 1.6235420064648298,
    )  # fmt: skip
    q = horner(
        s - 3.25, -1.5458629601488906e-08, 9.454642807839023e-10, 1.3210125955221454e-07, -2.7193911260606874e-07,
        -2.83176391563199e-08, 1.499301452422743e-06, -3.985198233494579e-06, 2.9254168575202413e-06,
        1.2464813789405173e-05, -4.731888819721024e-05, 6.828717130911626e-05, 2.4031239861451587e-05,
        -0.0003550378216533236, 0.0009532893654483703, -0.0016882755348330062, 0.002491442096898005,
        -0.0037512085082464642, 0.005370914553573238, 1.0052589676941657, 3.0838856104922208,
    )  # fmt: skip
    r = horner(
        s - 5.0, 4.24700889078485e-12, -1.9865389043030713e-11, 2.2760710326388962e-11, 6.718039150473481e-11,
        -3.9747084814262486e-10, 1.3204978800329357e-09, -3.51506256366883e-09, 7.816878171052215e-09,
        -1.5226700875427422e-08, 2.902130908770558e-08, -6.756731784055652e-08, 2.2905192070264219e-07,
        -9.930268275090832e-07, 4.526052691941655e-06, -1.9681771017271757e-05, 7.599527808193371e-05,
        -0.0002150301198101332, -0.00013871931837965945, 1.010300464864545, 4.849906401408584,
    )  # fmt: skip
    value = x * (p if w < 6.25 else q if w < 16.0 else r)
    return copysign(INF, x) if fabs(x) == 1.0 else value


def lgamma_positive_f64(x: Scalar) -> Scalar:
    """log(gamma(x)) for x > 0: Stirling's series from 8.75 on; below, shifted to 0.75 <= y < 2.75 by the recurrence."""
    small, large = x < 0.75, x >= 8.75
    y, product = (x + 1.0 if small else x), (x if small | large else 1.0)
    for _ in range(6):
        shift = (y >= 2.75) & (large ^ True)
        y = y - 1.0 if shift else y
        product = product * y if shift else product
    u = y - 1.75
    p = horner(
        u, 1.3415669602848216e-08, -2.192806885132998e-08, -6.455502728074905e-08, 9.956122383955831e-08,
        1.8516403448972265e-07, -2.775121897524729e-07, -2.6173326115786865e-07, 3.5873652207105704e-07,
        4.1336096822472277e-07, -5.98107886279844e-07, 5.13599422139187e-08, -2.38715680288036e-07,
        1.1705340662761323e-06, -2.0576370661392823e-06, 3.420929895881889e-06, -6.375104954696259e-06,
        1.1974225706395193e-05, -2.2298664806461525e-05, 4.170040389767382e-05, -7.845841684430193e-05,
        0.00014851746588024416, -0.00028319105201785147, 0.000544896926668845, -0.001060566040602948,
        0.002095533883446854, -0.004226194127506409, 0.008776370425155165, -0.019053957830213603,
        0.044520447198510824, -0.11948158662524296, 0.4501393121092563,
    )  # fmt: skip
    log = log_f64(product)
    near = (y - 1.0) * (y - 2.0) * p + (-log if small else log)
    v = 1.0 / x
    z = v * v
    tail = horner(
        z, 6.410256410256410e-03, -1.9175269175269176e-03, 8.417508417508417e-04, -5.952380952380952e-04,
        7.936507936507937e-04, -2.777777777777778e-03, 0.08333333333333333,
    )  # fmt: skip
    far = (x - 0.5) * (log - 1.0) + (0.41893853320467274 + tail * v)
    far = far if x < INF else x
    return far if large else near


def lgamma_f64(x: Scalar) -> Scalar:
    """log(abs(gamma(x))); for x < 0 by reflection, where the error is absolute near the zeros."""
    below = x < 0.0
    value = lgamma_positive_f64(1.0 - x if below else x)
    fraction = fabs(x - rint(x))
    reflected = 1.1447298858494002 - log_f64(sin_f64(fraction * PI)) - value
    reflected = INF if (fraction == 0.0) | (x == -INF) else reflected
    return reflected if below else value


def digamma_f64(x: Scalar) -> Scalar:
    """The logarithmic derivative of gamma: recurrence up to 8, then the asymptotic series; reflection for x < 0."""
    below = x < 0.0
    y = 1.0 - x if below else x
    top, bottom = 0.0 * y, 0.0 * y + 1.0
    for _ in range(8):
        shift = y < 8.0
        top = top * y + bottom if shift else top
        bottom = bottom * y if shift else bottom
        y = y + 1.0 if shift else y
    v = 1.0 / y
    z = v * v
    tail = z * horner(
        z, -8.333333333333333e-02, 2.109279609279609e-02, -7.575757575757576e-03, 4.166666666666667e-03,
        -3.968253968253968e-03, 8.333333333333333e-03, -8.333333333333333e-02,
    )  # fmt: skip
    value = log_f64(y) - 0.5 * v + tail - top / bottom
    value = value if y < INF else y
    fraction = x - rint(x)
    reflected = value - PI / tan_f64(fraction * PI)
    reflected = NAN if (fraction == 0.0) | (x == -INF) else reflected
    return copysign(INF, -x) if x == 0.0 else reflected if below else value


def lgamma_f32(x: Scalar) -> Scalar:
    return f32(lgamma_f64(f64(x)))


def digamma_f32(x: Scalar) -> Scalar:
    return f32(digamma_f64(f64(x)))
