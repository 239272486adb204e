"""Factorisations as loops over columns, for compiled programs: each round works on whole stacks of matrices at once.

Textbook algorithms (G. Golub and C. Van Loan, "Matrix Computations", chapters 3 to 5): n rounds over n^2 elements.
What a round must not touch is masked. For large matrices Cholesky's factors, and substitution with many right sides, go
block by block, which leaves most of the work to matrix products.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.ir import Aval
from tracegrad.numpy import arithmetic, creation, elementwise as ew, reductions, selecting
from tracegrad.numpy.arithmetic import where
from tracegrad.numpy.joining import concatenate, pad, stack
from tracegrad.numpy.products import matmul
from tracegrad.numpy.shaping import matrix_transpose as mT, moveaxis, reshape
from tracegrad.ops import control
from tracegrad.ops.shape import iota
from tracegrad.trace import trace

FEW = 3
"""Matrices up to this size are worked on without loops: a loop takes longer to compile than their few operations."""
BLOCK, LARGE = 32, 96
"""Matrices from a size of LARGE on go block by block."""
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
    m = cholesky_of_few(a) if n <= FEW else cholesky_in_rounds(a) if n < LARGE else cholesky_in_blocks(a)
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


def cholesky_in_blocks(a: Any) -> Any:
    """Factor the block on the diagonal; the rows below it follow by substitution, what is left by a product."""
    n = a.shape[-1]
    a = bordered(a, -2, -1)
    size = a.shape[-1]
    row, within = creation.arange(size), creation.arange(BLOCK)

    def step(k: Any, m: Any) -> Any:
        columns = k * BLOCK + within
        panel = selecting.take(m, columns, -1)
        low = cholesky_in_rounds(selecting.take(panel, columns, -2))
        place = row - k * BLOCK
        below = where((place >= BLOCK)[:, None], panel, 0.0)
        below = mT(substitute_in_rounds(low, mT(below), upwards=False))
        beside = selecting.take(low, arithmetic.clip(place, 0, BLOCK - 1), -2)
        inside = ((place >= 0) & (place < BLOCK))[:, None]
        return [m - matmul(below, mT(below)), where(inside, beside, below)]

    panels = blocks(size, step, a)
    return selecting.tril(reshape(panels, a.shape)[..., :n, :n])


def bordered(a: Any, *axes: int) -> Any:
    """Continue a matrix to whole blocks along some axes: both of a square one, with ones on its diagonal."""
    n = a.shape[axes[0]]
    more = -n % BLOCK
    if not more:
        return a
    wide = pad(a, [(0, more if axis - len(a.shape) in axes else 0) for axis in range(len(a.shape))])
    if len(axes) == 1:
        return wide
    place = creation.arange(n + more)
    return where((place[:, None] == place) & (place >= n), 1.0, wide)


def blocks(size: int, step: Callable[..., Any], x: Any, order: int = 1) -> Any:
    """Run x, y = step(k, x) for all blocks, from the last one with order -1; return the y side by side as columns."""
    count = size // BLOCK
    traced = trace(lambda x, k: step(k, x), [x.aval, Aval((), INT64)], name="block")
    numbers = iota.beside(x, shape=(count,), axis=0, dtype=INT64)
    whole = control.scan(
        x, numbers, *traced.captures, body=traced.graph, n_carry=1, n_xs=1, length=count, reverse=order < 0
    )
    return moveaxis(control.item(whole, index=1), 0, -2)


def substitute_in_blocks(a: Any, b: Any, *, upwards: bool) -> Any:
    """Find a block of unknowns by substitution, and take it out of the other equations by a product."""
    n, count = b.shape[-2:]
    a, b = bordered(a, -2, -1), bordered(b, -2)
    size = a.shape[-1]
    row, within = creation.arange(size)[:, None], creation.arange(BLOCK)

    def step(k: Any, b: Any) -> Any:
        rows = k * BLOCK + within
        columns = selecting.take(a, rows, -1)
        triangle = selecting.take(columns, rows, -2)
        known = substitute_in_rounds(triangle, selecting.take(b, rows, -2), upwards=upwards)
        rest = row < k * BLOCK if upwards else row >= (k + 1) * BLOCK
        return [b - matmul(where(rest, columns, 0.0), known), mT(known)]

    found = blocks(size, step, b, -1 if upwards else 1)
    return mT(reshape(found, (*b.shape[:-2], count, size)))[..., :n, :]


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
    if n >= LARGE and b.shape[-1] >= BLOCK // 2:
        return substitute_in_blocks(a, b, upwards=upwards)
    return substitute_in_rounds(a, b, upwards=upwards)


def substitute_in_rounds(a: Any, b: Any, *, upwards: bool) -> Any:
    n = a.shape[-1]
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
