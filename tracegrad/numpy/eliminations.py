"""Factorisations as loops over columns, for compiled programs: each round works on whole stacks of matrices at once.

Textbook algorithms (G. Golub and C. Van Loan, "Matrix Computations", chapters 3 to 5), not blocked: n rounds over n^2
elements. What a round must not touch is masked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.ir import Aval
from tracegrad.numpy import creation, elementwise as ew, reductions, selecting
from tracegrad.numpy.arithmetic import where
from tracegrad.numpy.joining import concatenate, stack
from tracegrad.ops import control
from tracegrad.ops.shape import iota
from tracegrad.trace import trace

FEW = 3
"""Matrices up to this size are worked on without loops: a loop takes longer to compile than their few operations."""
INT64 = np.dtype(np.int64)


def rounds(count: int, step: Callable[..., Any], *carry: Any) -> Any:
    """Return the carry after `carry = step(i, *carry)` for i = 0, ..., count - 1, as one `scan`."""
    traced = trace(lambda *xs: step(xs[-1], *xs[:-1]), [*(x.aval for x in carry), Aval((), INT64)], name="round")
    numbers = iota.beside(carry[0], shape=(count,), axis=0, dtype=INT64)
    whole = control.scan(
        *carry, numbers, *traced.captures, body=traced.graph, n_carry=len(carry), n_xs=1, length=count, reverse=False
    )
    return [control.item(whole, index=i) for i in range(len(carry))]


def cholesky(a: Any) -> Any:
    """Return L of a = L L.T; all NaN where a pivot is not positive."""
    n = a.shape[-1]
    m = cholesky_of_few(a) if n <= FEW else cholesky_in_rounds(a)
    failed = reductions.any(~(selecting.diagonal(m, 0, -2, -1) > 0.0), -1)
    return where(failed[..., None, None], np.nan, m)


def cholesky_of_few(a: Any) -> Any:
    low: list[list[Any]] = []
    for i in range(a.shape[-1]):
        low.append([])
        for j in range(i + 1):
            rest = a[..., i, j]
            for k in range(j):
                rest = rest - low[i][k] * low[j][k]
            low[i].append(ew.sqrt(rest) if i == j else rest / low[j][j])
    zero = creation.zeros_like(a[..., 0, 0])
    return stack([stack([*row, *[zero] * (a.shape[-1] - len(row))], -1) for row in low], -2)


def cholesky_in_rounds(a: Any) -> Any:
    row = creation.arange(a.shape[-1])

    def step(i: Any, m: Any) -> Any:
        column = m[..., i]
        column = where(row >= i, column / ew.sqrt(column[..., i])[..., None], 0.0)
        below = where(row > i, column, 0.0)
        return [where(row == i, column[..., None], m - below[..., None] * below[..., None, :])]

    (m,) = rounds(a.shape[-1], step, a)
    return selecting.tril(m)


def eliminate(m: Any, n: int) -> tuple[Any, Any]:
    """Make zeros below the diagonal of the first n columns, the largest element of each as pivot.

    Return the rows, and whether an even (1) or odd (-1) number of them were exchanged.
    """
    if n <= FEW:
        return eliminate_few(m, n)
    row = creation.arange(n)

    def step(i: Any, m: Any, sign: Any) -> Any:
        place = reductions.argmax(where(row >= i, ew.absolute(m[..., i]), -1.0), -1)
        order = where(row == i, place[..., None], where(row == place[..., None], i, row))
        m = selecting.take_along_axis(m, order[..., None], -2)
        column = m[..., i]
        pivot = column[..., i][..., None]
        factor = where((row > i) & (pivot != 0.0), column / where(pivot == 0.0, 1.0, pivot), 0.0)
        return m - factor[..., None] * m[..., i, :][..., None, :], where(place == i, sign, -sign)

    rows, sign = rounds(n, step, m, creation.ones(m.shape[:-2], m.dtype))
    return rows, sign


def eliminate_few(m: Any, n: int) -> tuple[Any, Any]:
    """Do so row by row; each exchange brings the larger of two elements up."""
    rows = [m[..., i, :] for i in range(n)]
    sign = creation.ones(m.shape[:-2], m.dtype)
    for i in range(n):
        for j in range(i + 1, n):
            swap = ew.absolute(rows[j][..., i]) > ew.absolute(rows[i][..., i])
            wide = swap[..., None]
            rows[i], rows[j] = where(wide, rows[j], rows[i]), where(wide, rows[i], rows[j])
            sign = where(swap, -sign, sign)
        pivot = rows[i][..., i]
        some = where(pivot == 0.0, 1.0, pivot)
        for j in range(i + 1, n):
            factor = where(pivot == 0.0, 0.0, rows[j][..., i] / some)
            rows[j] = rows[j] - factor[..., None] * rows[i]
    return stack(rows, -2), sign


def substitute(a: Any, b: Any, *, upwards: bool) -> Any:
    """Solve a x = b for a triangular matrix, the first unknown first, or the last with `upwards`."""
    n = a.shape[-1]
    if n <= FEW:
        rows = [b[..., i, :] for i in range(n)]
        order = range(n)[::-1] if upwards else range(n)
        for place, i in enumerate(order):
            rows[i] = rows[i] / a[..., i, i][..., None]
            for j in order[place + 1 :]:
                rows[j] = rows[j] - a[..., j, i][..., None] * rows[i]
        return stack(rows, -2)
    row = creation.arange(n)[:, None]

    def step(k: Any, x: Any) -> Any:
        i = n - 1 - k if upwards else k
        known = x[..., i, :] / a[..., i, :][..., i][..., None]
        rest = where(row < i if upwards else row > i, a[..., i][..., None], 0.0)
        return [where(row == i, known[..., None, :], x - rest * known[..., None, :])]

    (x,) = rounds(n, step, b)
    return x


def solve(a: Any, b: Any) -> Any:
    """Return x with a x = b."""
    n = a.shape[-1]
    rows, _ = eliminate(concatenate([a, b], -1), n)
    return substitute(rows[..., :n], rows[..., n:], upwards=True)


def determinant(a: Any) -> Any:
    rows, sign = eliminate(a, a.shape[-1])
    return sign * reductions.prod(selecting.diagonal(rows, 0, -2, -1), -1)


def log_determinant(a: Any) -> Any:
    rows, _ = eliminate(a, a.shape[-1])
    return reductions.sum(ew.log(ew.absolute(selecting.diagonal(rows, 0, -2, -1))), -1)


def sign_of_determinant(a: Any) -> Any:
    rows, sign = eliminate(a, a.shape[-1])
    return sign * reductions.prod(ew.sign(selecting.diagonal(rows, 0, -2, -1)), -1)
