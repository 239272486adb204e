"""Orthogonal factorisations as loops, for compiled programs: Householder's QR, Jacobi's eigenvectors and singular
vectors.

Jacobi's method turns pairs of columns until all are orthogonal (G. Golub and C. Van Loan, "Matrix Computations",
sections 5.2 and 8.5). A round turns n / 2 disjoint pairs of whole stacks of matrices at once; n - 1 rounds, in the
order of a round-robin tournament, meet every pair.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tracegrad.numpy import creation, elementwise as ew, reductions, selecting
from tracegrad.numpy.arithmetic import where
from tracegrad.numpy.eliminations import rounds
from tracegrad.numpy.joining import concatenate
from tracegrad.numpy.products import matmul
from tracegrad.numpy.shaping import matrix_transpose as mT
from tracegrad.ops import control
from tracegrad.trace import trace

SWEEPS = 40
"""Jacobi's method needs about 10 of them; what is not a number needs none."""


def qr(a: Any) -> Any:
    """Return the rows of Q, and below them those of R.T, of tall matrices; signs are LAPACK's."""
    m, n = a.shape[-2:]
    row, column = creation.arange(m), creation.arange(n)

    def reflect(k: Any, r: Any, vs: Any, taus: Any) -> list[Any]:
        x = where(row >= k, r[..., k], 0.0)
        head = x[..., k]
        size = reductions.max(ew.absolute(x), -1)
        unit = x / where(size > 0.0, size, 1.0)[..., None]
        norm = size * ew.sqrt(reductions.sum(unit * unit, -1))
        done = reductions.all(where(row > k, x, 0.0) == 0.0, -1)
        beta = where(done, head, where(head >= 0.0, -norm, norm))
        tau = where(done, 0.0, (beta - head) / where(done, 1.0, beta))
        v = where(row == k, 1.0, where(row > k, x, 0.0) / where(done, 1.0, head - beta)[..., None])
        r = reflected(r, v, tau)
        return [r, where(column == k, v[..., None], vs), where(column == k, tau[..., None], taus)]

    def gather(i: Any, q: Any, vs: Any, taus: Any) -> list[Any]:
        k = n - 1 - i
        return [reflected(q, vs[..., k], taus[..., k]), vs, taus]

    zeros = creation.zeros_like(a)
    r, vs, taus = rounds(n, reflect, a, zeros, zeros[..., 0, :])
    q, _, _ = rounds(n, gather, zeros + creation.eye(m, n, dtype=a.dtype), vs, taus)
    return concatenate([q, mT(selecting.triu(r[..., :n, :]))], -2)


def reflected(x: Any, v: Any, tau: Any) -> Any:
    """Return (1 - tau v v.T) x."""
    return x - tau[..., None, None] * v[..., None] * matmul(v[..., None, :], x)


def partners(r: Any, n: int) -> Any:
    """Return whom each of n players meets in round r of n - 1 (of n, for odd n, where one meets itself)."""
    others = n + n % 2 - 1
    player = creation.arange(n)
    seat = where(player == 0, 0, 1 + (player - 1 - r) % others)
    opposite = others - seat
    found = where(opposite == 0, 0, 1 + (opposite - 1 + r) % others)
    return where(found < n, found, player)


def sweep(turn: Callable[..., list[Any]], n: int, *carry: Any) -> list[Any]:
    """Repeat rounds `turn(r, *carry)`, whose last carry is how far from orthogonal a pair was, until none is far."""
    tolerance = 8.0 * float(np.finfo(carry[0].dtype).eps)

    def body(*values: Any) -> list[Any]:
        *found, _, count = values
        return [*rounds(n + n % 2 - 1, turn, *found, creation.zeros((), carry[0].dtype)), count + 1]

    start = [*carry, creation.ones((), carry[0].dtype), creation.zeros((), np.int64)]
    avals = [x.aval for x in start]
    goes_on = trace(lambda *xs: (xs[-2] > tolerance) & (xs[-1] < SWEEPS), avals, name="unfinished")
    step = trace(body, avals, name="sweep")
    assert not goes_on.captures and not step.captures, "a sweep reads values from outside"
    whole = control.while_loop(
        *start, condition=goes_on.graph, body=step.graph, n_carry=len(start), n_xs=0, reverse=False
    )
    return [control.item(whole, index=i) for i in range(len(carry))]


def side(x: Any) -> Any:
    """Return -1 below 0, else 1."""
    return creation.astype(where(x < 0.0, -1.0, 1.0), x.dtype)


def angle(first: Any, second: Any, product: Any, still: Any) -> tuple[Any, Any]:
    """Return cosine and sine of the turn that makes [[first, product], [product, second]] diagonal."""
    ratio = (second - first) / where(still, 1.0, 2.0 * product)
    tangent = side(ratio) / (ew.absolute(ratio) + ew.sqrt(1.0 + ratio * ratio))
    tangent = where(still, 0.0, tangent)
    cosine = 1.0 / ew.sqrt(1.0 + tangent * tangent)
    return cosine, tangent * cosine


def turned(x: Any, partner: Any, cosine: Any, sine: Any) -> Any:
    """Turn pairs of columns."""
    return x * cosine[..., None, :] + x[..., partner] * sine[..., None, :]


def largest(a: Any) -> Any:
    """Return the size of each matrix's largest element, 1 where all are 0."""
    size = reductions.max(ew.absolute(a), (-2, -1), keepdims=True)
    return where(size == 0.0, 1.0, size)


def eigh(a: Any) -> Any:
    """Return the eigenvalues, ascending, as a row above the eigenvectors, of symmetric matrices (lower triangles)."""
    n = a.shape[-1]
    low = selecting.tril(a)
    size = largest(low)
    symmetric = (low + mT(selecting.tril(a, -1))) / size

    def turn(r: Any, x: Any, v: Any, worst: Any) -> list[Any]:
        player = creation.arange(n)
        partner = partners(r, n)
        first, second = ew.minimum(player, partner), ew.maximum(player, partner)
        diagonal, product = selecting.diagonal(x, 0, -2, -1), x[..., first, second]
        alone = partner == player
        cosine, sine = angle(diagonal[..., first], diagonal[..., second], product, alone | (product == 0.0))
        sine = where(player < partner, -sine, sine)
        x = turned(mT(turned(x, partner, cosine, sine)), partner, cosine, sine)
        far = reductions.max(where(alone, 0.0, ew.absolute(product)))
        return [x, turned(v, partner, cosine, sine), ew.maximum(worst, far)]

    x, v = sweep(turn, n, symmetric, creation.zeros_like(a) + creation.eye(n, dtype=a.dtype))
    values = selecting.diagonal(x, 0, -2, -1)
    order = selecting.argsort(values, -1)
    values = selecting.take_along_axis(values, order, -1) * size[..., 0]
    vectors = selecting.take_along_axis(v, order[..., None, :], -1)
    return concatenate([values[..., None, :], vectors * signs(vectors)], -2)


def signs(v: Any) -> Any:
    """Return the sign of each column's largest component, as a row."""
    place = reductions.argmax(ew.absolute(v), -2, keepdims=True)
    return side(selecting.take_along_axis(v, place, -2))


def svd(a: Any) -> Any:
    """Return the singular values, descending, as a row above the left and the right vectors, of tall matrices."""
    m, n = a.shape[-2:]
    size = largest(a)
    base, core = None, a / size
    if m > n:
        both = qr(core)
        base, core = both[..., :m, :], mT(both[..., m:, :])

    def turn(r: Any, x: Any, v: Any, worst: Any) -> list[Any]:
        player = creation.arange(n)
        partner = partners(r, n)
        squares, product = reductions.sum(x * x, -2), reductions.sum(x * x[..., partner], -2)
        first, second = squares[..., ew.minimum(player, partner)], squares[..., ew.maximum(player, partner)]
        noise = reductions.max(squares, -1, keepdims=True) * float(np.finfo(a.dtype).eps) ** 2
        still = (partner == player) | (ew.minimum(first, second) <= noise) | (product == 0.0)
        cosine, sine = angle(first, second, product, still)
        sine = where(player < partner, -sine, sine)
        far = where(still, 0.0, ew.absolute(product) / ew.sqrt(where(still, 1.0, first * second)))
        return [
            turned(x, partner, cosine, sine), turned(v, partner, cosine, sine),
            ew.maximum(worst, reductions.max(far)),
        ]  # fmt: skip

    x, v = sweep(turn, n, core, creation.zeros_like(core) + creation.eye(n, dtype=a.dtype))
    values = ew.sqrt(reductions.sum(x * x, -2))
    order = selecting.argsort(-values, -1)[..., None, :]
    x, v = selecting.take_along_axis(x, order, -1), selecting.take_along_axis(v, order, -1)
    sign = signs(v)
    left = orthonormal(x * sign)
    left = left if base is None else matmul(base, left)
    values = selecting.take_along_axis(values[..., None, :], order, -1) * size
    return concatenate([values, left, v * sign], -2)


def orthonormal(x: Any) -> Any:
    """Return orthogonal columns with norm 1; those that are 0 get any that complete the others."""
    n = x.shape[-1]
    both = qr(x)
    q, diagonal = both[..., :n, :], selecting.diagonal(both[..., n:, :], 0, -2, -1)
    return q * side(diagonal)[..., None, :]
