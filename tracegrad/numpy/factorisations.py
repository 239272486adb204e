"""Factorisations of square and tall matrices: primitives over the last two axes, with NumPy's LAPACK as eager rule.

In compiled programs they are loops over other primitives (`tracegrad.numpy.eliminations`). Where NumPy raises
LinAlgError, the results are NaN, in every way to run. Notation of the rules: `m.T` swaps the last two axes, dX is a
cotangent, tX a tangent (M. Giles, "Collected matrix derivative results", 2008; I. Murray, arXiv:1602.07527).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.errors import DTypeError, ShapeError
from tracegrad.ir import Node
from tracegrad.ir.aval import Aval, is_float
from tracegrad.numpy import arithmetic, creation, eliminations, reductions, selecting
from tracegrad.numpy.products import matmul
from tracegrad.numpy.shaping import matrix_transpose as mT
from tracegrad.ops.custom import Written
from tracegrad.ops.shape import transpose


def square(name: str, a: Aval) -> int:
    """Check a stack of square matrices of floats; return their size."""
    if a.ndim < 2 or a.shape[-1] != a.shape[-2]:
        raise ShapeError(f"{name}: {a} is not a square matrix", fix="check the shape; the last two axes are the matrix")
    if not is_float(a.dtype):
        raise DTypeError(f"{name}: {a} is not floating point", fix="convert it with x.astype(np.float64)")
    return a.shape[-1]


def each(function: Callable[..., Any], *stacks: Any, shape: tuple[int, ...]) -> Any:
    """Apply a function of NumPy's to every matrix of stacks; NaN where it fails."""
    try:
        return function(*stacks)
    except np.linalg.LinAlgError:
        if stacks[0].ndim == 2:
            return np.full(shape, np.nan, stacks[0].dtype)
    rows = [each(function, *parts, shape=shape[1:]) for parts in zip(*stacks, strict=True)]
    return np.stack(rows)


def halved(m: Any) -> Any:
    """Return the lower triangle with half of the diagonal."""
    return selecting.tril(m) - 0.5 * on_diagonal(m)


def on_diagonal(m: Any) -> Any:
    """Return the matrix without what is beside its diagonal."""
    return arithmetic.where(creation.eye(m.shape[-1], dtype=bool), m, 0.0)


class Cholesky(Written):
    """a = L L.T, L lower; reads the lower triangle. The gradient is that of a symmetric matrix, and symmetric."""

    name = "cholesky"

    def aval(self, a: Aval) -> Aval:  # type: ignore[override]
        square("cholesky", a)
        return a

    def eager(self, a: Any) -> Any:
        return each(np.linalg.cholesky, a, shape=a.shape)

    def program(self, a: Any) -> Any:
        return eliminations.cholesky(a)

    def vjp(self, ct: Any, y: Any, a: Any) -> Any:
        inner = triangular_solve(y, halved(matmul(mT(y), ct)), transpose=True)
        found = mT(triangular_solve(y, mT(inner), transpose=True))
        return 0.5 * (found + mT(found))

    def jvp(self, ts: tuple[Any, ...], y: Any, a: Any) -> Any:
        t = 0.5 * (ts[0] + mT(ts[0]))
        inner = triangular_solve(y, mT(triangular_solve(y, t, transpose=False)), transpose=False)
        return matmul(y, halved(inner))


class TriangularSolve(Written):
    """x with L x = b, or L.T x = b with `transpose`; reads the lower triangle of the matrix."""

    name = "triangular_solve"

    def aval(self, a: Aval, b: Aval, *, transpose: bool) -> Aval:  # type: ignore[override]
        check_right_side("triangular_solve", a, b)
        return b

    def eager(self, a: Any, b: Any, *, transpose: bool) -> Any:
        low = np.tril(a)
        return each(np.linalg.solve, np.swapaxes(low, -1, -2) if transpose else low, b, shape=b.shape)

    def program(self, a: Any, b: Any, *, transpose: bool) -> Any:
        return eliminations.substitute(mT(a) if transpose else a, b, upwards=transpose)

    def vjp(self, ct: Any, y: Any, a: Any, b: Any, *, transpose: bool) -> Any:
        db = triangular_solve(a, ct, transpose=not transpose)
        return selecting.tril(-matmul(y, mT(db)) if transpose else -matmul(db, mT(y))), db

    def jvp(self, ts: tuple[Any, ...], y: Any, a: Any, b: Any, *, transpose: bool) -> Any:
        ta, tb = ts
        if ta is not None:
            low = selecting.tril(ta)
            moved = matmul(mT(low) if transpose else low, y)
            tb = -moved if tb is None else tb - moved
        return triangular_solve(a, tb, transpose=transpose)


class Solve(Written):
    """x with a x = b, by elimination with row exchanges."""

    name = "solve"

    def aval(self, a: Aval, b: Aval) -> Aval:  # type: ignore[override]
        check_right_side("solve", a, b)
        return b

    def eager(self, a: Any, b: Any) -> Any:
        return each(np.linalg.solve, a, b, shape=b.shape)

    def program(self, a: Any, b: Any) -> Any:
        return eliminations.solve(a, b)

    def vjp(self, ct: Any, y: Any, a: Any, b: Any) -> Any:
        db = solve(mT(a), ct)
        return -matmul(db, mT(y)), db

    def jvp(self, ts: tuple[Any, ...], y: Any, a: Any, b: Any) -> Any:
        ta, tb = ts
        if ta is not None:
            tb = -matmul(ta, y) if tb is None else tb - matmul(ta, y)
        return solve(a, tb)


def check_right_side(name: str, a: Aval, b: Aval) -> None:
    """Check that b is a stack of as many columns as the matrices are long."""
    n = square(name, a)
    if a.dtype != b.dtype or b.ndim != a.ndim or a.shape[:-2] != b.shape[:-2] or b.shape[-2] != n:
        raise ShapeError(f"{name}: {b} does not fit {a}", fix="check the right side's shape")


def solve_any(a: Any, b: Any) -> Any:
    """Return x with a x = b: by substitution if the matrix is known to be triangular, else by elimination."""
    node = getattr(a, "_node", None)
    if not isinstance(node, Node):
        return solve(a, b)
    if node.prim is cholesky:
        return triangular_solve(a, b, transpose=False)
    if node.prim is transpose:
        source, perm = node.operands[0], node.params["perm"]
        if isinstance(source, Node) and source.prim is cholesky and perm[-2:] == (a.ndim - 1, a.ndim - 2):
            return triangular_solve(mT(a), b, transpose=True)
    return solve(a, b)


def inverse(a: Any) -> Any:
    eye = creation.eye(a.shape[-1], dtype=a.dtype)
    return solve(a, creation.zeros_like(a) + eye)


class Determinant(Written):
    """The determinant; its gradient is NaN or inf where the matrix is singular."""

    name = "det"

    def aval(self, a: Aval) -> Aval:  # type: ignore[override]
        square(self.name, a)
        return a.with_shape(a.shape[:-2])

    def eager(self, a: Any) -> Any:
        return np.asarray(np.linalg.det(a), a.dtype)

    def program(self, a: Any) -> Any:
        return eliminations.determinant(a)

    def vjp(self, ct: Any, y: Any, a: Any) -> Any:
        return (ct * y)[..., None, None] * mT(inverse(a))

    def jvp(self, ts: tuple[Any, ...], y: Any, a: Any) -> Any:
        return y * reductions.sum(mT(inverse(a)) * ts[0], (-2, -1))


class LogDeterminant(Determinant):
    """log |det a|, -inf where the matrix is singular."""

    name = "logabsdet"

    def eager(self, a: Any) -> Any:
        return np.asarray(np.linalg.slogdet(a)[1], a.dtype)

    def program(self, a: Any) -> Any:
        return eliminations.log_determinant(a)

    def vjp(self, ct: Any, y: Any, a: Any) -> Any:
        return ct[..., None, None] * mT(inverse(a))

    def jvp(self, ts: tuple[Any, ...], y: Any, a: Any) -> Any:
        return reductions.sum(mT(inverse(a)) * ts[0], (-2, -1))


class SignOfDeterminant(Determinant):
    """1, -1, or 0 where the matrix is singular."""

    name = "sign_of_det"
    constant = True

    def eager(self, a: Any) -> Any:
        return np.asarray(np.linalg.slogdet(a)[0], a.dtype)

    def program(self, a: Any) -> Any:
        return eliminations.sign_of_determinant(a)

    def vjp(self, ct: Any, y: Any, a: Any) -> Any:
        return None

    def jvp(self, ts: tuple[Any, ...], y: Any, a: Any) -> Any:
        return creation.zeros_like(y)


cholesky, triangular_solve, solve = Cholesky(), TriangularSolve(), Solve()
det, logabsdet, sign_of_det = Determinant(), LogDeterminant(), SignOfDeterminant()
