"""QR, eigenvectors of symmetric matrices, singular vectors, pseudo-inverses: primitives like those of `factorisations`.

Each has one result, an array whose rows are those of all factors. In compiled programs they are loops
(`tracegrad.numpy.rotations`). Formulas: M. Giles, "Collected matrix derivative results", 2008; J. Townsend,
"Differentiating the singular value decomposition", 2016; G. Golub and V. Pereyra, SIAM J. Numer. Anal. 10 (1973) for
the pseudo-inverse. A gradient that asks for the vectors of equal eigenvalues, or of equal or zero singular values, is
inf or NaN: there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.ir.aval import Aval
from tracegrad.numpy import arithmetic, creation, rotations, selecting
from tracegrad.numpy.factorisations import each, on_diagonal, square, triangular_solve
from tracegrad.numpy.joining import concatenate
from tracegrad.numpy.products import matmul
from tracegrad.numpy.shaping import matrix_transpose as mT
from tracegrad.ops.custom import Written


def stacked(a: Any, function: Callable[..., Any], rows: int) -> Any:
    """Apply a function that packs the factors of one matrix to each of a stack; NaN where it fails."""
    if a.ndim > 2:
        parts = [stacked(x, function, rows) for x in a]
        return np.stack(parts) if parts else np.zeros((0, *a.shape[1:-2], rows, a.shape[-1]), a.dtype)
    return each(lambda x: np.concatenate(function(x)).astype(a.dtype), a, shape=(rows, a.shape[-1]))


def column_signs(v: Any) -> Any:
    """Return the sign of each column's largest component (`rotations.signs`) of a matrix of NumPy's."""
    return np.where(v[np.argmax(np.abs(v), 0), np.arange(v.shape[1])] < 0.0, -1.0, 1.0)


def over(x: Any, d: Any) -> Any:
    """Return x / d, 0 where x is 0."""
    none = x == 0.0
    return arithmetic.where(none, 0.0, x / arithmetic.where(none, 1.0, d))


def gaps(x: Any) -> Any:
    """Return x[j] - x[i] at row i and column j."""
    return x[..., None, :] - x[..., :, None]


def tall(name: str, a: Aval) -> tuple[int, int]:
    m, n = a.shape[-2:]
    assert m >= n, f"{name} of a wide matrix"
    return m, n


def lead(a: Aval, rows: int) -> Aval:
    return a.with_shape((*a.shape[:-2], rows, a.shape[-1]))


def skew(m: Any) -> Any:
    """Return the part below the diagonal, less its transpose."""
    low = selecting.tril(m, -1)
    return low - mT(low)


class QR(Written):
    """Q and below it R.T of a = Q R, for matrices with as many rows as columns or more."""

    name = "qr"

    def aval(self, a: Aval) -> Aval:  # type: ignore[override]
        return lead(a, sum(tall("qr", a)))

    def eager(self, a: Any) -> Any:
        return stacked(a, lambda x: [(both := np.linalg.qr(x))[0], both[1].T], sum(a.shape[-2:]))

    def program(self, a: Any) -> Any:
        return rotations.qr(a)

    def vjp(self, ct: Any, y: Any, a: Any) -> Any:
        m = a.shape[-2]
        q, r, dq, dr = y[..., :m, :], mT(y[..., m:, :]), ct[..., :m, :], selecting.triu(mT(ct[..., m:, :]))
        inner = matmul(r, mT(dr)) - matmul(mT(dq), q)
        low = selecting.tril(inner, -1)
        right = dq + matmul(q, low + mT(low) + on_diagonal(inner))
        return mT(triangular_solve(mT(r), mT(right), transpose=True))

    def jvp(self, ts: tuple[Any, ...], y: Any, a: Any) -> Any:
        m = a.shape[-2]
        q, r = y[..., :m, :], mT(y[..., m:, :])
        x = mT(triangular_solve(mT(r), mT(ts[0]), transpose=False))
        inner = matmul(mT(q), x)
        turn = skew(inner)
        return concatenate([matmul(q, turn - inner) + x, mT(matmul(selecting.triu(inner - turn), r))], -2)


class Eigh(Written):
    """Eigenvalues, ascending, and below them the eigenvectors, each with its largest component positive; reads the
    lower triangle. The gradient is that of a symmetric matrix, and symmetric."""

    name = "eigh"

    def aval(self, a: Aval) -> Aval:  # type: ignore[override]
        return lead(a, square("eigh", a) + 1)

    def eager(self, a: Any) -> Any:
        def factors(x: Any) -> list[Any]:
            values, vectors = np.linalg.eigh(x)
            return [values[None], vectors * column_signs(vectors)]

        return stacked(a, factors, a.shape[-1] + 1)

    def program(self, a: Any) -> Any:
        return rotations.eigh(a)

    def vjp(self, ct: Any, y: Any, a: Any) -> Any:
        values, v = y[..., 0, :], y[..., 1:, :]
        inner = over(off_diagonal(matmul(mT(v), ct[..., 1:, :])), gaps(values)) + on_diagonal(ct[..., :1, :] + 0.0 * v)
        found = matmul(v, matmul(inner, mT(v)))
        return 0.5 * (found + mT(found))

    def jvp(self, ts: tuple[Any, ...], y: Any, a: Any) -> Any:
        values, v = y[..., 0, :], y[..., 1:, :]
        inner = matmul(mT(v), matmul(0.5 * (ts[0] + mT(ts[0])), v))
        turn = over(off_diagonal(inner), gaps(values))
        return concatenate([selecting.diagonal(inner, 0, -2, -1)[..., None, :], matmul(v, turn)], -2)


def off_diagonal(m: Any) -> Any:
    """Return the matrix with zeros on its diagonal."""
    return arithmetic.where(creation.eye(m.shape[-1], dtype=bool), 0.0, m)


class SVD(Written):
    """Singular values, descending, and below them the left and the right vectors as columns, of matrices with as many
    rows as columns or more; each right vector has its largest component positive."""

    name = "svd"

    def aval(self, a: Aval) -> Aval:  # type: ignore[override]
        return lead(a, sum(tall("svd", a)) + 1)

    def eager(self, a: Any) -> Any:
        def factors(x: Any) -> list[Any]:
            u, s, vt = np.linalg.svd(x, full_matrices=False)
            sign = column_signs(vt.T)
            return [s[None], u * sign, vt.T * sign]

        return stacked(a, factors, sum(a.shape[-2:]) + 1)

    def program(self, a: Any) -> Any:
        return rotations.svd(a)

    def parts(self, y: Any, a: Any) -> tuple[Any, Any, Any]:
        m = a.shape[-2]
        return y[..., 0, :], y[..., 1 : m + 1, :], y[..., m + 1 :, :]

    def vjp(self, ct: Any, y: Any, a: Any) -> Any:
        (s, u, v), (ds, du, dv) = self.parts(y, a), self.parts(ct, a)
        row = s[..., None, :]
        left, right = matmul(mT(u), du), matmul(mT(v), dv)
        spread = gaps(s * s)
        inner = over(left - mT(left), spread) * row + mT(row) * over(right - mT(right), spread)
        found = matmul(u, matmul(inner + on_diagonal(ds[..., None, :] + 0.0 * v), mT(v)))
        if a.shape[-2] > a.shape[-1]:
            found = found + matmul(over(du - matmul(u, left), row), mT(v))
        return found

    def jvp(self, ts: tuple[Any, ...], y: Any, a: Any) -> Any:
        s, u, v = self.parts(y, a)
        row = s[..., None, :]
        moved = matmul(ts[0], v)
        inner = matmul(mT(u), moved)
        spread = gaps(s * s)
        left = over(off_diagonal(inner * row + mT(inner * row)), spread)
        right = over(off_diagonal(mT(row) * inner + mT(mT(row) * inner)), spread)
        du = matmul(u, left)
        if a.shape[-2] > a.shape[-1]:
            du = du + over(moved - matmul(u, inner), row)
        return concatenate([selecting.diagonal(inner, 0, -2, -1)[..., None, :], du, matmul(v, right)], -2)


class Pinv(Written):
    """The pseudo-inverse, with singular values up to `cutoff` times the largest as zero; its gradient is that for
    matrices of the same rank."""

    name = "pinv"

    def aval(self, a: Aval, *, cutoff: float) -> Aval:  # type: ignore[override]
        m, n = a.shape[-2:]
        return a.with_shape((*a.shape[:-2], n, m))

    def eager(self, a: Any, *, cutoff: float) -> Any:
        return each(lambda x: np.linalg.pinv(x, rcond=cutoff), a, shape=(*a.shape[:-2], a.shape[-1], a.shape[-2]))

    def program(self, a: Any, *, cutoff: float) -> Any:
        m, n = a.shape[-2:]
        if m < n:
            return mT(self.program(mT(a), cutoff=cutoff))
        y = rotations.svd(a)
        s, u, v = y[..., 0, :], y[..., 1 : m + 1, :], y[..., m + 1 :, :]
        large = s > cutoff * s[..., :1]
        scale = arithmetic.where(large, 1.0 / arithmetic.where(large, s, 1.0), 0.0)
        return matmul(v * scale[..., None, :], mT(u))

    def vjp(self, ct: Any, y: Any, a: Any, *, cutoff: float) -> Any:
        return self.change(ct, mT(y), mT(a))

    def jvp(self, ts: tuple[Any, ...], y: Any, a: Any, *, cutoff: float) -> Any:
        return self.change(ts[0], y, a)

    def change(self, t: Any, y: Any, a: Any) -> Any:
        """Return the tangent for a tangent t of a: -y t y + y y.T t.T (1 - a y) + (1 - y a) t.T y.T y."""
        turned = mT(t)
        first, last = matmul(y, matmul(mT(y), turned)), matmul(turned, matmul(mT(y), y))
        outer = first - matmul(matmul(first, a), y) + last - matmul(y, matmul(a, last))
        return outer - matmul(y, matmul(t, y))


qr, eigh, svd, pinv = QR(), Eigh(), SVD(), Pinv()
