"""The matrices of Winograd's minimal filtering F(m x m, 3 x 3): m x m outputs from n x n inputs, n = m + 2.

    Y = A^T [(G g G^T) * (B^T d B)] A          d: a tile of the input, g: 3 x 3 taps, *: element by element

(Winograd, "Arithmetic complexity of computations", 1980; Lavin and Gray, "Fast algorithms for convolutional neural
networks", 2016.)  It multiplies two polynomials by their values at n points, one of them at infinity: one product per
point pair instead of 9 per output, 2.25 times fewer for m = 2, 4 times fewer for m = 4.

The points decide the rounding.  Largest error in f32 over the largest element, normal operands, 64 and 512 channels
(the direct sum, pairwise: 2e-7, 3.5e-7):

    m = 2    0, 1, -1                  3.4e-7   5.2e-7
    m = 4    0, 1, -1, 2, -2           7.1e-6   9.6e-6
             0, 3/4, -3/4, 3/2, -3/2   1.3e-6   2.5e-6        taken: their powers are exact, too
"""

from __future__ import annotations

import math
from fractions import Fraction

POINTS = {2: ("0", "1", "-1"), 4: ("0", "3/4", "-3/4", "3/2", "-3/2")}  # each point stands beside its negative

Matrix = list[list[float]]


def points(m: int) -> list[Fraction]:
    """Return the finite points of F(m x m, 3 x 3)."""
    return [Fraction(x) for x in POINTS[m]]


def _product(roots: list[Fraction]) -> list[Fraction]:
    """Return the coefficients of the product of all (x - root), the constant first."""
    found = [Fraction(1)]
    for root in roots:
        found = [a - root * b for a, b in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return found


def _floats(rows: list[list[Fraction]]) -> Matrix:
    return [[float(x) for x in row] for row in rows]


def transposed(matrix: Matrix) -> Matrix:
    return [list(column) for column in zip(*matrix, strict=True)]


def input_matrix(m: int) -> Matrix:
    """Return B^T, n x n: a row per point, the one at infinity last."""
    finite = points(m)
    rows = []
    for p in finite:
        others = [*_product([q for q in finite if q != p]), Fraction(0)]
        rows.append([x * _sign(m, p) for x in others])
    return _floats([*rows, _product(finite)])


def weight_matrix(m: int) -> Matrix:
    """Return G, n x 3."""
    finite = points(m)
    rows = []
    for p in finite:
        scale = math.prod((p - q for q in finite if q != p), start=Fraction(1)) * _sign(m, p)
        rows.append([p**k / scale for k in range(3)])
    return _floats([*rows, [Fraction(0), Fraction(0), Fraction(1)]])


def output_matrix(m: int) -> Matrix:
    """Return A^T, m x n."""
    columns = [[p**k for k in range(m)] for p in points(m)]
    columns.append([Fraction(int(k == m - 1)) for k in range(m)])
    return transposed(_floats(columns))


def _sign(m: int, point: Fraction) -> int:
    """Return the sign that makes the first row of B^T begin with a positive number."""
    return -1 if point == 0 and m == 2 else 1
