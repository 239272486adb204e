"""Products of small matrices, computed one element at a time like element-wise operations, and fused with them.

    y[b, i, j] = a[b, i, 0] * c[b, 0, j] + ... + a[b, i, K-1] * c[b, K-1, j]          written out, K terms

A tile of a library product would be mostly empty, and a call takes longer than the work. Outer products (K = 1) are
limited by memory at any size. Between 8 and 16 columns the tile is half full, and the loops are slow where the columns
are no whole vectors (GF/s of one core, f32, AVX2; thousands of products):

    rows x terms x columns     3x3x16   16x4x16   16x4x12   16x8x16   8x8x8   10x10x10   12x12x12   16x16x16
    written out                  38       35         5        36        48       10         13         35
    tile                         13       23        27        36        24       34         48         51

Of one product with many rows, some more sums are slow written out: long ones (k > 8) of one column, or of 5 to 8, and
short ones in more columns than a vector has, if they are no whole vectors (f64), or the loops along them read across
the rows of a transposed c (us, 2048 rows):

    terms x columns    16x1   16x5   16x5, c^T   16x8, a^T   3x16, c^T   5x16, c^T   8x16, c^T   f64 5x5
    written out         6.3   28.4        41.8        34.7        13.2        29.6        45.4      20.9
    library             3.6   30.5        21.0        24.0         9.7         7.7         9.4      11.0
"""

from __future__ import annotations

from itertools import product
from math import prod
from typing import TYPE_CHECKING

from tracegrad.ir import Node
from tracegrad.ir.aval import NAMES, is_float
from tracegrad.ops.contract import dot, free
from tracegrad.schedule.index import Affine, Index
from tracegrad.schedule.kernel import Const, Value

if TYPE_CHECKING:
    from tracegrad.schedule.body import Body

SMALL = 16
"""The most terms of a sum, and columns of a matrix, that count as small."""
NARROW = 8
"""Columns that fill no more than half of a tile."""
FEW_ROWS = 64
"""Rows of all products together for which a call of the library takes longer than what its tile saves."""
VECTOR_BYTES = 32
FEW_COLUMNS = 4
"""Columns whose sums all stay in registers."""


def terms(node: Node) -> int:
    """Return K, the number of terms of each sum."""
    return prod(node.operands[0].aval.shape[a] for a in node.params["contract"][0])


def is_small_dot(node: Node) -> bool:
    """Say whether a node is a product that needs no library kernel."""
    if node.prim is not dot or not is_float(node.dtype):
        return False
    k = terms(node)
    if k <= 1:
        return k == 1
    contract, batch = node.params["contract"][1], node.params["batch"][1]
    shape = node.operands[1].aval.shape
    columns = prod(shape[a] for a in free(len(shape), contract, batch))
    if max(k, columns) > SMALL:
        return False
    suits_tile = columns > NARROW and (k > NARROW or columns % NARROW != 0)
    if has_many_rows(node):
        suits_tile |= k > NARROW and (columns == 1 or columns > FEW_COLUMNS)
        lanes = VECTOR_BYTES // node.dtype.itemsize
        suits_tile |= columns > lanes and (columns % lanes != 0 or (k > 2 and is_read_across(node)))
    return not suits_tile or node.aval.size <= FEW_ROWS * columns


def has_many_rows(node: Node) -> bool:
    """Say whether each of the products is tall."""
    shape = node.operands[0].aval.shape
    rows = free(len(shape), node.params["contract"][0], node.params["batch"][0])
    return prod(shape[a] for a in rows) > FEW_ROWS


def is_read_across(node: Node) -> bool:
    """Say whether loops along the columns of the product read the second operand across its rows."""
    shape = node.operands[1].aval.shape
    columns = free(len(shape), node.params["contract"][1], node.params["batch"][1])
    wide = [a for a, n in enumerate(shape) if n != 1]
    return bool(wide) and wide[-1] not in columns


def point_dot(body: Body, node: Node, index: Index) -> Value:
    """Compute one element; the sum starts from 0.0, as that of the library does."""
    contract, batch = node.params["contract"], node.params["batch"]
    a, b = node.operands
    dtype = NAMES[node.dtype]
    n_batch = len(batch[0])
    rows = free(a.aval.ndim, contract[0], batch[0])
    columns = free(b.aval.ndim, contract[1], batch[1])
    places = [
        dict(zip((*batch[0], *rows), index[: n_batch + len(rows)], strict=True)),
        dict(zip((*batch[1], *columns), (*index[:n_batch], *index[n_batch + len(rows) :]), strict=True)),
    ]
    total: Value = Const(0.0, dtype)
    for at in product(*(range(a.aval.shape[axis]) for axis in contract[0])):
        factors = []
        for side, operand in enumerate((a, b)):
            inner = places[side] | {axis: Affine(i) for axis, i in zip(contract[side], at, strict=True)}
            factors.append((body.value(operand, tuple(inner[axis] for axis in range(operand.aval.ndim))), dtype))
        term = body.compute("{0} * {1}", factors, dtype, node.where)
        total = body.compute("{0} + {1}", [(total, dtype), (term, dtype)], dtype, node.where)
    return total
