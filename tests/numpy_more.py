"""More rows for `test_numpy_namespace`: statistics, curves, and arrays from pieces of others."""

from __future__ import annotations

from typing import Any

import numpy as np

RNG = np.random.default_rng(4)
A = RNG.uniform(0.2, 0.9, (3, 4))
V = RNG.uniform(-2.0, 2.0, 7)
W = RNG.uniform(-1.0, 1.0, 3)
G = np.sort(RNG.uniform(0.0, 4.0, 7))
S = RNG.uniform(-2.0, 2.0, (2, 3, 4))
I = np.array([1, 3, 0, 3, 2])
N = np.array([[1.0, np.nan, 2.5], [4.0, 0.5, -1.0]])

MORE: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "quantile": (
        lambda np, v, s: (
            np.quantile(v, 0.3), np.percentile(v, [25, 60.0]), np.quantile(s, 0.9, axis=(0, 2), keepdims=True),
            *(np.percentile(s, 35, axis=1, method=m) for m in ("linear", "lower", "higher", "midpoint")),
        ),
        (V, S),
    ),
    "quantile-nan": (lambda np, n: np.quantile(n, 0.5, axis=1), (N,)),
    "covariance": (
        lambda np, x, v: (
            np.cov(x), np.cov(v), np.cov(x, rowvar=False, bias=True), np.cov(v, v * v, ddof=0), np.corrcoef(x),
            np.corrcoef(v), np.corrcoef(v, v**3),
        ),
        (A, V),
    ),
    "nan-variance": (lambda np, n: (np.nanvar(n), np.nanstd(n, axis=0, ddof=0), np.nanvar(n, axis=1, ddof=1)), (N,)),
    "counts-int": (
        lambda np, i: (
            np.bincount(i, minlength=6), np.bincount(i, i * 0.5, 5), np.isin(i, [3, 7]), np.digitize(i, [1, 3]),
        ),
        (I,),
    ),
    "digitize-int": (lambda np, v: (np.digitize(v, [-1.0, 0.0, 1.0]), np.digitize(v, [0.0], right=True)), (V,)),
    "histogram-int": (
        lambda np, v: (
            *np.histogram(v, [-2.0, -0.5, 0.0, 2.0]), *np.histogram(v, 4, (-2.0, 2.0)), *np.histogram(v, 3),
            np.isin(v, v[:2], invert=True),
        ),
        (V,),
    ),
    "partition": (
        lambda np, v: (np.sort(np.partition(v, 3)), np.sort(np.argpartition(v, 3))[:2] * v[0]),
        (V,),
    ),
    "trapezoid": (
        lambda np, v, g, s: (
            np.trapezoid(v), np.trapezoid(v, g), np.trapezoid(s, dx=0.5, axis=1), np.trapezoid(s, g[:3], axis=1),
            np.trapezoid(s, s * 2.0 + 1.0, axis=0),
        ),
        (V, G, S),
    ),
    "gradient": (
        lambda np, v, g, s: (
            np.gradient(v), np.gradient(v, 0.5), np.gradient(v, g), *np.gradient(s), np.gradient(s, 2.0, axis=1),
            *np.gradient(s, 1.0, g[:4], axis=(0, 2)),
        ),
        (V, G, S),
    ),
    "interp": (
        lambda np, v, g: (
            np.interp(v * 2.0, g, v), np.interp(v, g, v, left=-1.0, right=7.0), np.interp(1.7, g, v),
            np.interp(g, g, v),
        ),
        (V, G),
    ),
    "convolve": (
        lambda np, v, w: [
            *(np.convolve(v, w, m) for m in ("full", "same", "valid")), np.convolve(w, v),
            np.convolve(v, w[:2], "same"),
            *(np.correlate(v, w, m) for m in ("full", "same", "valid")), np.correlate(w, v), np.correlate(w, v, "full"),
        ],
        (V, W),
    ),
    "convolve-int": (lambda np, i: (np.convolve(i, [1, 2, -1]), np.correlate(i, [1, 2], "same")), (I,)),
    "polyval": (lambda np, w, v: (np.polyval(w, v), np.polyval(w, 2.0), np.polyval(w, v[:, None])), (W, V)),
    "sinc": (lambda np, v: (np.sinc(v), np.sinc(v * 1e-6), np.ldexp(v, 3)), (V,)),
    "cumulative": (
        lambda np, v, s: (np.cumulative_sum(v), np.cumulative_prod(s, axis=1), np.ediff1d(s)),
        (V, S),
    ),
    "select": (
        lambda np, x: (
            np.select([x > 0.7, x > 0.4], [x * x, x + 1.0], 5.0),
            np.piecewise(x, [x < 0.4, x > 0.7], [lambda v: -v, lambda v: v * v, 2.0]),
            np.piecewise(x, [x < 0.5], [1.0]),
            np.choose(np.array([0, 1, 1, 0]), [x[0], x[1]]),
        ),
        (A,),
    ),
    "stacks": (
        lambda np, x, v, s: (
            np.dstack([x, x]), np.dstack([v, v]), *np.hsplit(x, 2), *np.hsplit(v, [2, 5]), *np.vsplit(x, 3),
            *np.dsplit(s, 2), np.block([[x, x], [x * 2.0, x]]), np.block([v, v]), np.block([[s], [s]]),
        ),
        (A, V, S),
    ),
    "insert": (
        lambda np, x, v: (
            np.insert(v, 2, 9.0), np.insert(v, -1, [1.0, 2.0]), np.insert(x, 1, 0.5, axis=0),
            np.insert(x, 4, x[:, 0], 1), np.insert(x, 0, 7.0),
        ),
        (A, V),
    ),
    "delete": (
        lambda np, x, v: (np.delete(v, 2), np.delete(v, [0, -1]), np.delete(x, slice(1, 3), 1), np.delete(x, 0)),
        (A, V),
    ),
    "resize": (lambda np, x: (np.resize(x, (2, 9)), np.resize(x, 5)), (A,)),
    "apply_along_axis": (
        lambda np, x, s: (
            np.apply_along_axis(lambda r: r / r.sum(), 1, x), np.apply_along_axis(lambda r: r.sum(), 0, s),
            np.apply_along_axis(lambda r: r[:, None] * r, 1, s),
        ),
        (A, S),
    ),
    "products-of-stacks": (lambda np, s: (np.matvec(s, s[:, 0]), np.vecmat(s[..., 0], s)), (S,)),
    "complex-names": (lambda np, x: (np.real(x), np.imag(x), np.conjugate(x), np.conj(x)), (A,)),
    "chosen": (
        lambda np, x, s: (
            np.sum(x, where=x > 0.5), np.sum(x, axis=0, initial=2.0), np.prod(s, axis=1, where=s > 0.0, initial=3.0),
            np.max(s, axis=2, initial=0.5), np.min(x, initial=0.0, where=x > 0.4), np.mean(x, where=x > 0.3),
            np.mean(s, axis=1, keepdims=True, where=x > 0.3), x.sum(where=x < 0.5), x.max(initial=7.0),
        ),
        (A, S),
    ),
    "chosen-int": (
        lambda np, i: (
            np.sum(i, where=i > 1, initial=5), np.mean(i, where=i > 1), np.any(i, where=i > 2), np.all(i, where=i != 0),
            np.max(i, initial=2),
        ),
        (I,),
    ),
    "dtypes-f32": (
        lambda np, f: (
            np.fmod(f, 2), np.fmod(f, 1.5), np.cov(f), np.corrcoef(f), np.vander(f[0], 3), np.append(f, 1),
            np.append(f[0], 2.5), np.append(f, f, axis=1), np.geomspace(1.0, f[0, 0], 3),
            np.quantile(f, [0.2, 0.7]), np.percentile(f, 30), np.quantile(f, 0.5, axis=1),
        ),
        (A.astype("f4"),),
    ),
    "dtypes-int": (
        lambda np, i: (np.fmod(i, 2), np.vander(i, 3), np.append(i, 1), np.append(1, i)),
        (I.astype("i4"),),
    ),
    "nan-quantiles": (
        lambda np, n: (
            np.nanmedian(n), np.nanmedian(n, axis=0), np.nanquantile(n, [0.1, 0.6], axis=1), np.nanpercentile(n, 30.0),
            np.nanquantile(n, 0.25, axis=(0, 1), keepdims=True), np.nanmedian(n[:1] * np.array([[np.nan, 1.0, 0.0]])),
        ),
        (N,),
    ),
    "nan-running": (
        lambda np, n: (
            np.nanprod(n), np.nanprod(n, axis=1), np.nancumsum(n, axis=1), np.nancumprod(n), np.nanargmax(n, axis=1),
            np.nanargmin(n), np.nanargmax(n, axis=0, keepdims=True),
        ),
        (N,),
    ),
    "polynomials": (
        lambda np, w, v: (
            np.polyadd(w, v), np.polysub(v, w), np.polymul(v, w), np.polyder(v), np.polyder(v, 3), np.polyint(v),
            np.polyint(w, 2, [1.0, 2.0]), np.polyint(w, m=2, k=3.0), np.polyadd(w, 2.0),
        ),
        (W, V),
    ),
    "polyfit": (
        lambda np, g, v, s: (
            np.polyfit(g, v, 2), np.polyfit(g, v, 1, w=g + 1.0), np.polyfit(g[:3], s[0], 1), np.polyfit(g, v, 0),
        ),
        (G, V, S),
    ),
    "unwrap": (
        lambda np, v, s: (
            np.unwrap(v * 4.0), np.unwrap(s * 9.0, axis=1), np.unwrap(v * 3.0, period=2.0),
            np.unwrap(v * 4.0, discont=4.0),
        ),
        (V, S),
    ),
    "modf-nan": (lambda np, v, n: (*np.modf(v), *np.modf(n), *np.modf(np.array([np.inf, -0.0, -2.0]))), (V, N)),
    "places-int": (
        lambda np, i: (
            *np.unravel_index(i, (2, 3)), np.ravel_multi_index((i % 2, i % 3), (2, 3)), *np.ix_(i, i[:2]),
            np.lexsort((i, i % 2)), np.lexsort((i,)),
        ),
        (I,),
    ),
    "diagonals": (lambda np, x, v: (np.diagflat(x), np.diagflat(v, 2), np.diagflat(v[:2], -1)), (A, V)),
    "geomspace": (
        lambda np, x: (
            np.geomspace(0.5, 8.0, 5), np.geomspace(x[0], 2.0, 4), np.geomspace(x[0, 0], 3.0, 3, endpoint=False),
        ),
        (A,),
    ),
}
