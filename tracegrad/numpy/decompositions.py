"""`numpy.linalg`'s decompositions into orthogonal factors, and what is solved or counted with them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.ir import Aval
from tracegrad.ir.aval import is_float, is_half
from tracegrad.numpy import arithmetic, creation, elementwise as ew, reductions, shaping, spectra
from tracegrad.numpy.factorisations import square
from tracegrad.numpy.joining import concatenate
from tracegrad.numpy.products import matmul
from tracegrad.numpy.promote import FLOAT32, FLOAT64, INT64, Array, ArrayLike, array, cast, result_dtype, shown
from tracegrad.numpy.shaping import matrix_transpose as mT


class QRResult(NamedTuple):
    """Q with orthogonal columns, R upper triangular."""

    Q: Array
    R: Array


class EighResult(NamedTuple):
    """Eigenvalues, ascending, and eigenvectors as columns."""

    eigenvalues: Array
    eigenvectors: Array


class SVDResult(NamedTuple):
    """Left singular vectors as columns, singular values, descending, and right singular vectors as rows."""

    U: Array
    S: Array
    Vh: Array


def matrices(name: str, *xs: ArrayLike) -> list[Array]:
    """Accept stacks of matrices as floats of one dtype."""
    found = result_dtype([array(name, x) for x in xs])
    dtype = FLOAT32 if is_half(found) else found if is_float(found) else FLOAT64
    return [cast(name, array(name, x), dtype) for x in xs]


def one_matrix(name: str, a: ArrayLike) -> Array:
    """Accept (a stack of) matrices with elements."""
    (x,) = matrices(name, a)
    if len(x.shape) < 2 or 0 in x.shape[-2:]:
        raise ShapeError(f"{name}: {shown(x)} is not a matrix with elements", fix="check the shape")
    return x


def qr(a: ArrayLike, mode: str = "reduced") -> Any:
    """Return Q and R of a = Q @ R, as `numpy.linalg.qr` with mode "reduced"; with "r" only R.

    The gradient needs columns that do not depend on each other: else it is inf or NaN. Raises ArgumentError for other
    modes.

    >>> qr(np.array([[3.0, 1.0], [0.0, 2.0]])).R
    array([[3., 1.],
           [0., 2.]])
    """
    x = one_matrix("qr", a)
    m, n = x.shape[-2:]
    if mode not in ("reduced", "r") and not (mode == "complete" and m <= n):
        raise ArgumentError(f"qr: mode={mode!r} is not supported", fix='use mode="reduced"')
    k = min(m, n)
    both = spectra.qr(x[..., :k])
    q, r = both[..., :m, :], mT(both[..., m:, :])
    if n > k:
        r = concatenate([r, matmul(mT(q), x[..., k:])], -1)
    return r if mode == "r" else QRResult(q, r)


def eigh(a: ArrayLike, UPLO: str = "L") -> EighResult:
    """Return eigenvalues and eigenvectors of symmetric matrices, of which one triangle is read, as `numpy.linalg.eigh`.

    Each eigenvector has its largest component positive (LAPACK's sign is arbitrary). The gradient is that of a
    symmetric matrix, and symmetric; through the eigenvectors of equal eigenvalues it is inf or NaN.

    >>> eigh(np.array([[2.0, 0.0], [0.0, 1.0]])).eigenvalues
    array([1., 2.])
    """
    x = one_matrix("eigh", a)
    square("eigh", Aval(x.shape, x.dtype))
    if UPLO.upper() not in ("L", "U"):
        raise ArgumentError(f"eigh: UPLO={UPLO!r} is not a triangle", fix='use "L" or "U"')
    both = spectra.eigh(x if UPLO.upper() == "L" else mT(x))
    return EighResult(both[..., 0, :], both[..., 1:, :])


def eigvalsh(a: ArrayLike, UPLO: str = "L") -> Array:
    """Return the eigenvalues of symmetric matrices, ascending, as `numpy.linalg.eigvalsh`; see `eigh`."""
    return eigh(a, UPLO).eigenvalues


def svd(a: ArrayLike, full_matrices: bool = True, compute_uv: bool = True, hermitian: bool = False) -> Any:
    """Return U, S and Vh of a = U @ diag(S) @ Vh, as `numpy.linalg.svd`; S alone without `compute_uv`.

    Each row of Vh has its largest component positive (of a wide matrix each column of U): LAPACK's signs are arbitrary.
    Gradients through vectors of equal or zero singular values are inf or NaN. Raises ArgumentError for `full_matrices`
    of matrices that are not square: the vectors that complete a basis have no gradient.

    >>> svd(np.array([[0.0, 3.0], [2.0, 0.0]])).S
    array([3., 2.])
    """
    del hermitian  # another way to the same factors
    x = one_matrix("svd", a)
    m, n = x.shape[-2:]
    if compute_uv and full_matrices and m != n:
        raise ArgumentError(
            f"svd: full_matrices=True of {shown(x)}, which is not square, is not supported",
            fix="use np.linalg.svd(x, full_matrices=False)",
        )
    both = spectra.svd(mT(x) if m < n else x)
    rows = max(m, n)
    values, left, right = both[..., 0, :], both[..., 1 : rows + 1, :], both[..., rows + 1 :, :]
    if not compute_uv:
        return values
    return SVDResult(right, values, mT(left)) if m < n else SVDResult(left, values, mT(right))


def svdvals(x: ArrayLike, /) -> Array:
    """Return the singular values, descending, as `numpy.linalg.svdvals`."""
    return svd(x, compute_uv=False)


def pinv(a: ArrayLike, rcond: float | None = None, hermitian: bool = False, *, rtol: float | None = None) -> Array:
    """Return the pseudo-inverse, as `numpy.linalg.pinv`; the cutoff is a number that is known while tracing.

    The gradient is that for matrices of the same rank.

    >>> pinv(np.array([[2.0], [0.0]]))
    array([[0.5, 0. ]])
    """
    del hermitian
    given = rtol if rcond is None else rcond
    return spectra.pinv(one_matrix("pinv", a), cutoff=1e-15 if given is None else float(given))


def default_cutoff(x: Array) -> float:
    """Return NumPy's: what lies below it, times the largest singular value, is rounding error."""
    return float(np.finfo(x.dtype).eps) * int(max(x.shape[-2:]))


def lstsq(a: ArrayLike, b: ArrayLike, rcond: float | None = None) -> tuple[Array, Array, Array, Array]:
    """Return the shortest x that makes a @ x - b least, with residuals, rank and singular values, as
    `numpy.linalg.lstsq`.

    The residuals of a matrix with more rows than columns are there, NaN where its rank is not full (NumPy's are then an
    empty array: the rank is not known while tracing). The gradient is that for matrices of the same rank.

    >>> lstsq(np.array([[1.0], [1.0]]), np.array([1.0, 3.0]))[0]
    array([2.])
    """
    x, y = matrices("lstsq", a, b)
    if len(x.shape) != 2 or len(y.shape) not in (1, 2) or x.shape[0] != y.shape[0] or 0 in x.shape:
        raise ShapeError(f"lstsq: {shown(y)} does not fit {shown(x)}", fix="pass a [m, n] and b [m] or [m, k]")
    cutoff = default_cutoff(x) if rcond is None else float(np.finfo(x.dtype).eps) if rcond < 0 else float(rcond)
    found = matmul(spectra.pinv(x, cutoff=cutoff), y)
    values = svdvals(x)
    rank = reductions.sum(ew.greater(values, cutoff * values[0]), dtype=INT64)
    m, n = x.shape
    if m <= n:
        return found, creation.zeros((0,), x.dtype), rank, values
    off = matmul(x, found) - y
    rest = arithmetic.where(ew.equal(rank, n), reductions.sum(off * off, 0), np.nan)
    return found, shaping.reshape(rest, (-1,)), rank, values


def matrix_rank(A: ArrayLike, tol: Any = None, hermitian: bool = False, *, rtol: Any = None) -> Array:
    """Return how many singular values are larger than `tol`, as `numpy.linalg.matrix_rank`: int64."""
    del hermitian
    x = array("matrix_rank", A)
    if len(x.shape) < 2:
        return creation.astype(reductions.any(ew.not_equal(x, 0)), INT64)
    x = one_matrix("matrix_rank", x)
    values = svdvals(x)
    cutoff = values[..., :1] * (default_cutoff(x) if rtol is None else rtol) if tol is None else tol
    return reductions.sum(ew.greater(values, cutoff), -1, dtype=INT64)
