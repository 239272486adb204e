"""Every public function against NumPy: on arrays, traced by its name here, and traced by NumPy's own name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy_more import MORE

import tracegrad as tg
import tracegrad.numpy as tnp
from tracegrad.ir import Aval, interpret, parse, verify
from tracegrad.testing import check_grads
from tracegrad.trace import trace

Case = Callable[..., Any]
RNG = np.random.default_rng(3)
A = RNG.uniform(0.2, 0.9, (3, 4))
B = RNG.uniform(-2.0, 2.0, (4,))
S = RNG.uniform(-2.0, 2.0, (2, 3, 4))
M = RNG.uniform(-1.0, 1.0, (3, 3))
I = np.array([[5, -3, 2], [7, 0, -4]])
U = np.array([3, 200, 7], np.uint8)
K = np.array([[True, False, True], [False, False, True]])
N = np.array([1.0, np.nan, -np.inf, np.inf, -0.0, 0.0])
F = RNG.uniform(-2.0, 2.0, (3, 4)).astype(np.float32)
SIZES = np.array([4, -1])

UNARY = """
absolute abs fabs negative positive sign square sqrt cbrt exp exp2 expm1 log log2 log10 log1p sin cos tan
arcsin arccos arctan asin acos atan sinh cosh tanh arcsinh arctanh asinh atanh degrees radians deg2rad rad2deg
floor ceil trunc fix rint isnan isinf isfinite logical_not signbit reciprocal isposinf isneginf
""".split()
BINARY = """
add subtract multiply divide true_divide floor_divide remainder mod fmod power pow float_power maximum minimum
fmax fmin hypot arctan2 atan2 logaddexp logaddexp2 copysign heaviside equal not_equal less less_equal greater
greater_equal logical_and logical_or logical_xor
""".split()
INTEGER = "bitwise_and bitwise_or bitwise_xor left_shift right_shift bitwise_left_shift bitwise_right_shift".split()


def unary(name: str) -> Case:
    return lambda xp, x: getattr(xp, name)(x)


def binary(name: str) -> Case:
    return lambda xp, x, y: getattr(xp, name)(x, y)


def ends(dtype: str) -> Any:
    """Return the ends of an integer dtype's range and small numbers."""
    if dtype[0] == "f":
        return np.array([-3.0, 0.5, 7.25, -100.5], dtype)
    limits = np.iinfo(dtype)
    return np.array([limits.min, limits.max, 7, 100, 3, -3 if limits.min else 5], dtype)


CASES: list[Any] = [
    *(pytest.param(unary(n), (A,), id=n) for n in UNARY),
    *(pytest.param(unary(n), (F + 3.0,), id=f"{n}-f32") for n in UNARY if n[:3] not in ("arc", "asi", "aco", "ata")),
    *(pytest.param(unary(n), (np.abs(I) % 2,), id=f"{n}-i64") for n in UNARY if n != "reciprocal" and "log" not in n),
    *(pytest.param(binary(n), (A, np.abs(B) + 0.1), id=n) for n in BINARY),
    *(pytest.param(binary(n), (F, np.abs(F[1]) + 0.1), id=f"{n}-f32") for n in BINARY if "pow" not in n),
    *(pytest.param(binary(n), (np.abs(I) + 1, np.abs(I[1]) % 3 + 1), id=f"{n}-i64") for n in BINARY),
    *(pytest.param(binary(n), (I, np.array([1, 2, 3])), id=n) for n in INTEGER),
    *(
        pytest.param(binary("fmod"), (ends(a), ends(b)[:, None]), id=f"fmod-{a}-{b}")
        for a, b in [("i1", "i1"), ("i1", "u1"), ("u2", "i2"), ("i8", "i8"), ("i4", "u4"), ("i1", "f4"), ("u1", "u1")]
    ),
    pytest.param(binary("fmod"), (np.array([-0.0, 0.0, -4.0, 4.0, -5.5]), np.array([2.0])), id="fmod-zeros"),
    pytest.param(unary("cbrt"), (np.array([-64.0, 27.0, 125.0, 1000.0, -0.0, 1e-320, 1.7e308, np.inf]),), id="cubes"),
    pytest.param(binary("ldexp"), (F[0], np.array([-3, 0, 5, 10])), id="ldexp-f32"),
    pytest.param(binary("ldexp"), (np.arange(3, dtype=np.int32), np.arange(3)), id="ldexp-i32"),
]
TABLE: dict[str, tuple[Case, tuple[Any, ...]]] = {
    "arccosh": (lambda np, x: np.arccosh(x + 1.0) + np.acosh(x + 2.0), (A,)),
    "invert": (lambda np, x: (np.invert(x), np.bitwise_not(x), np.bitwise_invert(x)), (I,)),
    "invert-bool": (lambda np, k: np.invert(k), (K,)),
    "power-static": (lambda np, x: [np.power(x, p) for p in (0, 1, 2, 3, 7, -2, 0.5, 1.5, 20)], (A,)),
    "power-int": (lambda np, i: np.power(i, 3), (I,)),
    "divmod": (lambda np, x, y: np.divmod(x, y), (A, B)),
    "special": (
        lambda np, n: (np.isnan(n), np.isinf(n), np.signbit(n), np.nan_to_num(n), np.heaviside(n, 0.5)),
        (N[1:],),
    ),
    "nan_to_num": (lambda np, n: np.nan_to_num(n, nan=7.0, posinf=1.0, neginf=2.0), (N,)),
    "isclose": (lambda np, n, m: (np.isclose(n, m), np.isclose(n, m, equal_nan=True)), (N, N + 1e-9)),
    "allclose": (lambda np, x: np.allclose(x, x + 1e-12), (A,)),
    "array_equal": (lambda np, x: (np.array_equal(x, x), np.array_equal(x, x[:1])), (A,)),
    "round": (lambda np, x: (np.round(x, 2), np.round(x * 100, -1), np.around(x)), (A,)),
    "where": (lambda np, x, y: np.where(x > 0.5, x, y), (A, B)),
    "where-scalar": (lambda np, x: np.where(x > 0.5, 1.0, x), (F,)),
    "clip": (
        lambda np, x, y: (np.clip(x, 0.3, y), np.clip(x, None, 0.5), np.clip(x, min=0.5, max=0.6)),
        (A, np.abs(B)),
    ),
    "clip-int": (lambda np, i: np.clip(i, -1, 3), (I,)),
    "sum": (lambda np, s: (np.sum(s), np.sum(s, axis=1), np.sum(s, axis=(0, -1), keepdims=True)), (S,)),
    "sum-int": (lambda np, i, u, k: (np.sum(i, axis=0), np.sum(u), np.sum(k)), (I, U, K)),
    "sum-dtype": (lambda np, x: np.sum(x, dtype=np.float32), (A,)),
    "mean": (lambda np, s, i, f: (np.mean(s, axis=(1, 2)), np.mean(i), np.mean(f, axis=-1)), (S, I, F)),
    "var": (lambda np, s: (np.var(s), np.var(s, axis=1, ddof=1), np.var(s, axis=(0, 2), keepdims=True)), (S,)),
    "std": (lambda np, s, i: (np.std(s, axis=-1), np.std(i, axis=0)), (S, I)),
    "max": (lambda np, s, k: (np.max(s, axis=1), np.amax(s), np.max(k, axis=0)), (S, K)),
    "min": (lambda np, s, k: (np.min(s, axis=(0, 1)), np.amin(s), np.min(k)), (S, K)),
    "ptp": (lambda np, s: np.ptp(s, axis=2), (S,)),
    "prod": (lambda np, s, i: (np.prod(s, axis=1), np.prod(s), np.prod(i, axis=0), np.prod(s, axis=(0, 2))), (S, I)),
    "any-all": (lambda np, k, x: (np.any(k, axis=0), np.all(k, axis=1), np.any(x > 2), np.all(x, axis=(0, 1))), (K, A)),
    "any-all-empty": (lambda np, x: (np.any(x, axis=0), np.all(x, axis=0)), (np.zeros((0, 2)),)),
    "count_nonzero": (lambda np, i: np.count_nonzero(i, axis=1), (I,)),
    "arg": (lambda np, s: (np.argmax(s, axis=1), np.argmin(s), np.argmax(s, axis=-1, keepdims=True)), (S,)),
    "cumsum": (lambda np, s, i: (np.cumsum(s, axis=1), np.cumsum(s), np.cumsum(i, axis=0)), (S, I)),
    "cumprod": (lambda np, s, i: (np.cumprod(s, axis=2), np.cumprod(i)), (S, I)),
    "average": (lambda np, x, y: (np.average(x, axis=1, weights=np.abs(y)), np.average(x)), (A, B)),
    "median": (lambda np, x, m: (np.median(x), np.median(x, axis=0), np.median(m, axis=1, keepdims=True)), (A, M)),
    "nan": (lambda np, n: (np.nansum(n[:2]), np.nanmean(n[:2]), np.nanmax(n), np.nanmin(n)), (N,)),
    "diff": (lambda np, s, k: (np.diff(s), np.diff(s, n=2, axis=1), np.diff(k)), (S, K)),
    "reshape": (lambda np, s: (np.reshape(s, (4, -1)), np.reshape(s, -1), np.ravel(s)), (S,)),
    "reshape-array": (lambda np, s: np.reshape(s, SIZES), (S,)),
    "transpose": (lambda np, s: (np.transpose(s), np.transpose(s, (1, -1, 0)), np.permute_dims(s, (2, 0, 1))), (S,)),
    "axes": (lambda np, s: (np.swapaxes(s, 0, -1), np.moveaxis(s, 0, 1), np.moveaxis(s, (0, 1), (-1, 0))), (S,)),
    "rollaxis": (lambda np, s: (np.rollaxis(s, 2), np.rollaxis(s, 0, 3), np.matrix_transpose(s)), (S,)),
    "squeeze": (lambda np, b: (np.squeeze(b[None, :, None]), np.squeeze(b[None, :, None], axis=0)), (B,)),
    "expand_dims": (lambda np, b: (np.expand_dims(b, 0), np.expand_dims(b, (0, -1))), (B,)),
    "broadcast": (lambda np, b: (np.broadcast_to(b, (2, 3, 4)), *np.broadcast_arrays(b, np.ones((3, 1)))), (B,)),
    "atleast": (lambda np, b: (np.atleast_1d(b[0]), np.atleast_2d(b), np.atleast_3d(b)), (B,)),
    "flip": (lambda np, s: (np.flip(s), np.flip(s, (0, 2)), np.flipud(s), np.fliplr(s)), (S,)),
    "rot90": (lambda np, s: [np.rot90(s, k, (1, 2)) for k in range(-1, 4)], (S,)),
    "concatenate": (
        lambda np, x, m: (np.concatenate([x, m], axis=1), np.concat([x, x]), np.concatenate([x, m], None)),
        (A, M),
    ),
    "stack": (lambda np, b: (np.stack([b, b]), np.stack([b, b], axis=-1), np.vstack([b, b]), np.hstack([b, b])), (B,)),
    "column_stack": (
        lambda np, b, x: (np.column_stack([b, b]), np.hstack([x, x]), np.append(b, b), np.append(x, x, 1)),
        (B, A),
    ),
    "split": (
        lambda np, x: (*np.split(x, 2, axis=1), *np.split(x, [1, 2]), *np.array_split(x, 2), *np.unstack(x)),
        (A,),
    ),
    "pad": (lambda np, x: [np.pad(x, 2), np.pad(x, ((1, 0), (0, 3)), constant_values=1.5)], (A,)),
    "pad-modes": (
        lambda np, x: [np.pad(x, ((5, 1), (0, 9)), mode=m) for m in ("edge", "reflect", "symmetric", "wrap")],
        (A,),
    ),
    "roll": (lambda np, s: (np.roll(s, 2), np.roll(s, -1, axis=1), np.roll(s, (1, 2), (0, 2))), (S,)),
    "tile": (lambda np, x: (np.tile(x, 2), np.tile(x, (2, 1, 3)), np.tile(x, (2, 2))), (A,)),
    "repeat": (lambda np, x: (np.repeat(x, 2), np.repeat(x, 3, axis=1), np.repeat(x, [2, 0, 1], axis=0)), (A,)),
    "tri": (lambda np, s: (np.tril(s, 1), np.triu(s), np.triu(s, -1)), (S,)),
    "diag": (lambda np, m, b: (np.diag(m), np.diag(m, 1), np.diag(b), np.diag(b, -2), np.diag(b, 1)), (M, B)),
    "diagonal": (lambda np, s: (np.diagonal(s), np.diagonal(s, 1, 1, 2), np.trace(s), np.trace(s, -1, 1, 2)), (S,)),
    "take": (
        lambda np, x: (np.take(x, [3, 0]), np.take(x, [[1, 2]], axis=1), np.take(x, [9, -9], 0, mode="clip")),
        (A,),
    ),
    "take-wrap": (lambda np, x: np.take(x, [9, -9], axis=0, mode="wrap"), (A,)),
    "take_along_axis": (lambda np, x: np.take_along_axis(x, np.argsort(x, axis=1), axis=1), (A,)),
    "sort": (lambda np, s: (np.sort(s), np.sort(s, axis=0), np.sort(s, axis=None), np.argsort(s, axis=1)), (S,)),
    "searchsorted": (
        lambda np, b, x: (np.searchsorted(np.sort(b), x), np.searchsorted(np.sort(b), b, side="right")),
        (B, A),
    ),
    "matmul": (
        lambda np, x, b, s: (np.matmul(x, b), x.T @ x, s @ x.T, x @ s[0].T, b @ np.swapaxes(s, 1, 2)),
        (A, B, S),
    ),
    "matmul-batch": (
        lambda np, s, x: (np.swapaxes(s, 1, 2) @ s, s[:, None] @ s[None].transpose(0, 1, 3, 2), x.T @ s),
        (S, A),
    ),
    "matmul-types": (lambda np, i, k, f, x: (i.T @ i, k.T @ k, f @ x.T), (I, K, F, A)),
    "dot": (
        lambda np, x, b, s: (np.dot(x, b), np.dot(s, x.T), np.dot(b, b), np.dot(2.0, b), np.inner(s, b)),
        (A, B, S),
    ),
    "vdot": (lambda np, x: (np.vdot(x, x), np.outer(x, x[0]), np.vecdot(x, x, axis=0), np.vecdot(x, x[0])), (A,)),
    "tensordot": (
        lambda np, s, x: (np.tensordot(s, s, ([1, 2], [1, 2])), np.tensordot(s, x, 2), np.tensordot(x, x, 0)),
        (S, A),
    ),
    "kron": (lambda np, x, b: (np.kron(x, b), np.kron(b, b), np.cross(x[:, :3], x[0, 1:])), (A, B)),
    "einsum": (
        lambda np, s, x, b: (np.einsum("bij,ij->b", s, x), np.einsum("ij,j", x, b), np.einsum("bij,kj,j->ki", s, x, b)),
        (S, A, B),
    ),
    "einsum-dots": (
        lambda np, s, b: (
            np.einsum("...j,j->...", s, b),
            np.einsum("b...,b...->...", s, s),
            np.einsum("i...->...i", s),
        ),
        (S, B),
    ),
    "einsum-diag": (
        lambda np, m: (np.einsum("ii->i", m), np.einsum("ii", m), np.einsum("ij->ji", m), np.einsum("ij->", m)),
        (M,),
    ),
    "einsum-lists": (lambda np, x, b: np.einsum(x, [0, 1], b, [1], [0]), (A, B)),
    "einsum-outer": (
        lambda np, b: (np.einsum("i,j->ji", b, b), np.einsum("i,i->i", b, b), np.einsum("i,j,k->jk", b, b, b)),
        (B,),
    ),
    "norm": (
        lambda np, x, b: [np.linalg.norm(x), np.linalg.norm(b, 1), np.linalg.norm(b, np.inf), np.linalg.norm(b, 3)],
        (A, B),
    ),
    "norm-axis": (
        lambda np, s: [np.linalg.norm(s, axis=1), np.linalg.norm(s, axis=(0, 2)), np.linalg.norm(s, -np.inf, 1, True)],
        (S,),
    ),
    "norm-matrix": (lambda np, m: [np.linalg.norm(m, o) for o in (1, -1, np.inf, -np.inf, "fro")], (M,)),
    "norms": (
        lambda np, s: (np.linalg.vector_norm(s), np.linalg.vector_norm(s, axis=(0, 1)), np.linalg.matrix_norm(s)),
        (S,),
    ),
    "norm-0": (lambda np, b: (np.linalg.norm(b, 0), np.linalg.vector_norm(b, axis=0, keepdims=True, ord=1)), (B,)),
    "linalg": (lambda np, m: (np.linalg.matrix_power(m, 5), np.linalg.multi_dot([m, m, m]), np.linalg.trace(m)), (M,)),
    "like": (
        lambda np, x: (np.zeros_like(x), np.ones_like(x, dtype=np.int32), np.full_like(x, 3), np.empty_like(x) * 0),
        (F,),
    ),
    "linspace": (
        lambda np, b: (np.linspace(b[0], 3.0, 7), np.linspace(b, b * 2, 4, axis=1), np.linspace(b[0], b[1], 5, False)),
        (B,),
    ),
    "meshgrid": (
        lambda np, b: (*np.meshgrid(b, b[:2]), *np.meshgrid(b, b[:3], indexing="ij"), *np.meshgrid(b, b, sparse=True)),
        (B,),
    ),
    "copy": (
        lambda np, x: (np.copy(x), np.astype(x, np.float32), np.vander(x[0]), np.vander(x[0], 2, increasing=True)),
        (A,),
    ),
}
TABLE |= MORE
CASES += [pytest.param(*row, id=name) for name, row in TABLE.items()]
MADE: dict[str, Callable[[Any], Any]] = {
    "zeros": lambda np: (np.zeros(3), np.zeros((2, 3), np.int32), np.empty((0, 2)) * 1, np.zeros(())),
    "ones": lambda np: (np.ones((2,)), np.ones((), np.bool_), np.full((2, 2), 7), np.full(3, [1.0, 2.0, 3.0])),
    "arange": lambda np: (np.arange(5), np.arange(1, 7, 2), np.arange(5.0, 2.0, -0.5), np.arange(0), np.arange(2, 3)),
    "arange-dtype": lambda np: (np.arange(3, dtype=np.float32), np.arange(0, 1, 0.25)),
    "linspace": lambda np: (np.linspace(0, 1, 5), np.linspace(0, 10, 4, dtype=np.int64), np.linspace(2.0, 3.0, 1)),
    "eye": lambda np: (np.eye(3), np.eye(2, 4, 1), np.eye(3, k=-1, dtype=np.int32), np.identity(2), np.tri(3, 4, -1)),
    "asarray": lambda np: (
        np.asarray([[1, 2], [3, 4]]),
        np.array([1.5], dtype=np.float32),
        np.asarray(2.5),
        np.array(True),
    ),
    "logspace": lambda np: np.logspace(0, 2, 5),
}


def flat(tree: Any) -> list[Any]:
    return [leaf for part in tree for leaf in flat(part)] if isinstance(tree, (list, tuple)) else [tree]


def assert_same(found: Any, expected: Any) -> None:
    for ours, theirs in zip(flat(found), flat(expected), strict=True):
        theirs = np.asarray(theirs)
        assert np.shape(ours) == theirs.shape
        assert ours.dtype == theirs.dtype, f"{ours.dtype} is not {theirs.dtype}"
        rtol = 2e-6 if theirs.dtype == np.float32 else 1e-12
        np.testing.assert_allclose(np.asarray(ours), theirs, rtol=rtol, atol=rtol / 10)


def traced_values(fn: Callable[..., Any], *arrays: Any) -> list[Any]:
    """Trace, check the graph and its text, and interpret it."""
    traced = trace(fn, [Aval(a.shape, a.dtype) for a in arrays])
    verify(traced.graph)
    assert str(parse(str(traced.graph))) == str(traced.graph)
    return list(interpret(traced.graph, *arrays, *traced.captures))


@pytest.mark.parametrize(("case", "arrays"), CASES)
def test_against_numpy(case: Case, arrays: tuple[Any, ...]) -> None:
    with np.errstate(all="ignore"):
        expected = case(np, *arrays)
        kept = [a.copy() for a in arrays]
        assert_same(case(tnp, *arrays), expected)
        assert_same(traced_values(lambda *xs: case(tnp, *xs), *arrays), expected)
        assert_same(traced_values(lambda *xs: case(np, *xs), *arrays), expected)
    for before, after in zip(kept, arrays, strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("name", MADE)
def test_creation(name: str) -> None:
    expected = MADE[name](np)
    assert_same(MADE[name](tnp), expected)
    traced = trace(lambda x: (x, MADE[name](tnp)), [Aval((), np.dtype(np.float64))])
    if name not in ("ones", "asarray"):
        assert not traced.captures
    assert_same(list(interpret(traced.graph, 0.0, *traced.captures)[1:]), expected)


SMOOTH = [
    name for name in TABLE if not any(w in name for w in ("int", "round", "special", "nan", "isclose", "types", "like"))
]
SMOOTH = [
    n for n in SMOOTH if any(a.dtype == np.float64 for a in TABLE[n][1]) and "any" not in n and n != "power-static"
]


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients(name: str) -> None:
    case, arrays = TABLE[name]
    check_grads(lambda *xs: flat(case(tnp, *xs)), arrays, order=1, atol=1e-5)


@pytest.mark.parametrize("size", [1, 40, 129, 1000])
@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_searching_in_tables_of_any_size(size: int, dtype: Any) -> None:
    rng = np.random.default_rng(size)
    table = np.sort(rng.integers(0, size, size)).astype(dtype)
    ends = [np.nan, np.inf, -np.inf] if dtype == np.float64 else []
    values = np.concatenate([rng.uniform(-2.0, size + 2.0, 200), table[:50], ends]).astype(dtype)
    if dtype == np.float64 and size > 1:
        table[-1] = np.nan
    for side in ("left", "right"):
        search = lambda a, v, side=side: np.searchsorted(a, v, side)
        compiled = tg.compile(search, table, values)
        found = compiled(table, values)
        assert found.dtype == np.int64 and compiled.kernels <= 3
        np.testing.assert_array_equal(found, search(table, values))
        np.testing.assert_array_equal(tnp.searchsorted(table, values, side), found)


@pytest.mark.parametrize("exponent", [1.5, 2.5, -0.5, -1.5, 3.5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_powers_by_roots_are_exact_enough_up_to_the_ends_of_the_range(exponent: float, dtype: Any) -> None:
    ends = np.finfo(dtype)
    special = [0.0, -0.0, 1.0, -1.0, -2.5, np.inf, -np.inf, np.nan, ends.max, ends.tiny, -ends.tiny]
    spread = np.exp(np.random.default_rng(0).uniform(np.log(ends.tiny), np.log(ends.max), 3000))
    x = np.concatenate([special, [ends.smallest_subnormal], spread]).astype(dtype)
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.longdouble), np.longdouble(exponent)).astype(dtype)
    found = tg.jit(lambda x: np.power(x, exponent))(x)
    np.testing.assert_array_equal(np.signbit(found[~np.isnan(exact)]), np.signbit(exact[~np.isnan(exact)]))
    normal = ~(np.abs(exact) < ends.tiny)  # others keep fewer digits
    np.testing.assert_array_max_ulp(found[normal], exact[normal], 3)
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=ends.tiny)


@pytest.mark.parametrize("power", [0, 1, 2, 3, 7, -2, 0.5, 1.5])
def test_gradients_of_powers(power: float) -> None:
    check_grads(lambda x: tnp.power(x, power), [A], order=3, atol=1e-3, rtol=1e-4)
    found = traced_values(lambda x: x**power, np.array([2.0]))
    np.testing.assert_allclose(found, [[2.0**power]])


@pytest.mark.parametrize("x", [[2.0, 0.0, 3.0], [0.0, 0.0, 3.0], [2.0, 4.0, 3.0, 0.0, 5.0]])
def test_product_with_zeros(x: list[float]) -> None:
    array = np.array(x)
    check_grads(tnp.prod, [array], order=2)
    check_grads(tnp.cumprod, [array], order=2)


def test_every_public_name_is_tested() -> None:
    used: set[str] = set()

    class Recorder:
        def __getattr__(self, name: str) -> Any:
            used.add(name)
            return getattr(tnp, name)

    with np.errstate(all="ignore"):
        for param in CASES:
            case, arrays = param.values
            case(Recorder(), *arrays)
    for made in MADE.values():
        made(Recorder())
    values = {n for n in tnp.__all__ if not callable(getattr(tnp, n)) or isinstance(getattr(tnp, n), type)}
    elsewhere = {
        "at",
        "logsumexp",
        "result_type",
        "promote_types",
        "ndim",
        "shape",
        "size",
        "tril_indices",
        "triu_indices",
    }
    assert set(tnp.__all__) - used - values - elsewhere - {"broadcast_shapes"} == set()


def test_names_that_numpy_lacks_or_that_are_not_arrays() -> None:
    x = np.array([[0.0, 1.0], [-1000.0, 1000.0]])
    np.testing.assert_allclose(tnp.logsumexp(x, axis=1), [np.log(1 + np.e), 1000.0])
    check_grads(lambda v: tnp.logsumexp(v, axis=0, keepdims=True), [A], order=2)
    assert tnp.ndim(x) == 2 and tnp.shape(x) == (2, 2) and tnp.size(x) == 4
    assert tnp.broadcast_shapes((2, 1), (3,)) == (2, 3)
    np.testing.assert_array_equal(tnp.tril_indices(3), np.tril_indices(3))
    np.testing.assert_array_equal(tnp.triu_indices(3, 1), np.triu_indices(3, 1))
    assert tnp.pi == np.pi and tnp.newaxis is None and tnp.float32 is np.float32 and tnp.bool is np.bool_


def test_no_node_without_work() -> None:
    def fn(x: Any) -> Any:
        same = tnp.transpose(tnp.reshape(tnp.astype(x, np.float32), (2, 3)), (0, 1))
        return tnp.squeeze(tnp.broadcast_to(same[:, :], (2, 3)))

    graph = trace(fn, [Aval((2, 3), np.dtype(np.float32))]).graph
    assert graph.nodes == ()


def test_other_ways_to_functions() -> None:
    def fn(x: Any) -> Any:
        windows = np.lib.stride_tricks.sliding_window_view(x, (2, 3))
        return (
            np.logaddexp.reduce(x), np.logaddexp.reduce(x, axis=1, keepdims=True), windows, x.real, x.imag, x.conj(),
            x[0].searchsorted(x[1]), np.iscomplexobj(x), np.isrealobj(x), x.nbytes, x.itemsize,
        )  # fmt: skip

    assert_same(traced_values(fn, np.sort(A)), fn(np.sort(A)))
