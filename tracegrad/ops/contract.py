"""Contractions: one primitive for matrix products of any rank and batch.

    y[b, i, j] = sum_k a[b, i, k] c[b, k, j]        b batch axes, i free axes of a, j free axes of c, k contracted axes
    <ct, dot(a, c)> = <dot(ct, c), a> = <dot(a, ct), c>: the vjp of a product is two products, at every order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from tracegrad.errors import DTypeError, ShapeError
from tracegrad.ir.aval import Aval
from tracegrad.ir.primitive import Primitive, as_eager
from tracegrad.ops.shape import transpose

Ints = tuple[int, ...]
Pair = tuple[Ints, Ints]

SHORTEST_INNER = 16  # terms of a sum between two jumps in memory: with fewer, copying operands into order costs less


def free(ndim: int, contract: Ints, batch: Ints) -> Ints:
    return tuple(a for a in range(ndim) if a not in contract and a not in batch)


def is_run(shape: Sequence[int], axes: Sequence[int]) -> bool:
    """Say whether `axes`, in this order, are neighbours in memory; axes of size 1 do not matter."""
    wide = [a for a, n in enumerate(shape) if n != 1]
    at = [wide.index(a) for a in axes if shape[a] != 1]
    return at == list(range(at[0], at[0] + len(at))) if at else True


def contraction_cut(a: Sequence[int], b: Sequence[int], contract: Pair) -> int | None:
    """Return where the contracted axes of two shapes fall into two groups that are runs in both; 0: all are one run.

    None: they do not, or the second group is too short for a loop of its own.
    """
    sides = tuple(zip((a, b), contract, strict=True))
    for cut in range(max(1, len(contract[0]))):
        if cut and math.prod(a[axis] for axis in contract[0][cut:]) < SHORTEST_INNER:
            return None
        if all(is_run(shape, axes[:cut]) and is_run(shape, axes[cut:]) for shape, axes in sides):
            return cut
    return None


class Dot(Primitive):
    """Sum over `contract` axes, run along `batch` axes; result: batch, free axes of a, free axes of b."""

    name = "dot"
    kind = "contract"
    samples = [
        {"shapes": shapes, "params": {"contract": contract, "batch": batch}, "dtype": np.float64}
        for shapes, contract, batch in [
            ([(2, 3), (3, 4)], ((1,), (0,)), ((), ())),
            ([(3, 2), (4, 3)], ((0,), (1,)), ((), ())),
            ([(3,), (3,)], ((0,), (0,)), ((), ())),
            ([(2,), (3,)], ((), ()), ((), ())),
            ([(2, 3, 4), (2, 4, 5)], ((2,), (1,)), ((0,), (0,))),
            ([(2, 3, 4), (4, 2, 3)], ((1, 2), (2, 0)), ((0,), (1,))),
            ([(2, 2, 3, 4), (2, 2, 5, 4)], ((3,), (3,)), ((0, 1), (0, 1))),
        ]
    ]

    def aval(self, a: Aval, b: Aval, *, contract: Pair, batch: Pair) -> Aval:  # type: ignore[override]
        if a.dtype != b.dtype:
            raise DTypeError(f"matmul: {a} @ {b}: the dtypes differ", fix="convert one side with x.astype(...)")
        for (left, right), word in ((contract, "inner"), (batch, "batch")):
            for i, j in zip(left, right, strict=True):
                if a.shape[i] != b.shape[j]:
                    raise ShapeError(
                        f"matmul: {a} @ {b}: the {word} sizes {a.shape[i]} and {b.shape[j]} differ",
                        fix="transpose one side, or check the layer sizes on that line",
                    )
        rows = free(a.ndim, contract[0], batch[0])
        columns = free(b.ndim, contract[1], batch[1])
        shape = (*(a.shape[i] for i in (*batch[0], *rows)), *(b.shape[j] for j in columns))
        return Aval(shape, a.dtype)

    def eager(self, a: Any, b: Any, *, contract: Pair, batch: Pair) -> Any:
        a, b = np.asarray(a), np.asarray(b)
        perm_a, perm_b, n_batch, n_rows = layout(a.ndim, b.ndim, contract, batch)
        left = a if perm_a is None else a.transpose(perm_a)
        right = b if perm_b is None else b.transpose(perm_b)
        lead, rest = left.shape[:n_batch], right.shape[n_batch:]
        rows, inner = left.shape[n_batch : n_batch + n_rows], left.shape[n_batch + n_rows :]
        columns = rest[len(inner) :]
        if len(rows) == len(inner) == len(columns) == 1:
            return as_eager(np.matmul(left, right), a.dtype)
        left = left.reshape((*lead, math.prod(rows), math.prod(inner)))
        right = right.reshape((*lead, math.prod(inner), math.prod(columns)))
        return as_eager(np.matmul(left, right).reshape((*lead, *rows, *columns)), a.dtype)

    def vjp(self, ct: Any, y: Any, a: Any, b: Any, *, contract: Pair, batch: Pair) -> Any:
        return self.vjp_of((True, True), ct, y, a, b, contract=contract, batch=batch)

    def vjp_of(
        self, needed: Sequence[bool], ct: Any, y: Any, a: Any, b: Any, *, contract: Pair, batch: Pair
    ) -> Any:
        da = operand_ct(ct, b, a, contract, batch, first=True) if needed[0] else None
        db = operand_ct(ct, a, b, contract[::-1], batch[::-1], first=False) if needed[1] else None
        return da, db


dot = Dot()


@lru_cache(maxsize=1024)
def layout(ndim_a: int, ndim_b: int, contract: Pair, batch: Pair) -> tuple[Ints | None, Ints | None, int, int]:
    """Return the orders of axes that make stacks of matrices of both operands, and how many are batch and row axes."""
    rows, columns = free(ndim_a, contract[0], batch[0]), free(ndim_b, contract[1], batch[1])
    perm_a, perm_b = (*batch[0], *rows, *contract[0]), (*batch[1], *contract[1], *columns)
    return moves(perm_a), moves(perm_b), len(batch[0]), len(rows)


def moves(perm: Ints) -> Ints | None:
    """Return a permutation, None for the one that changes nothing."""
    return None if perm == tuple(range(len(perm))) else perm


def inverse(perm: Ints) -> Ints:
    """Return the permutation that takes one back; of other distinct numbers, the order that sorts them."""
    return tuple(sorted(range(len(perm)), key=perm.__getitem__))


@lru_cache(maxsize=1024)
def transposed(
    ndim_other: int, ndim_target: int, contract: Pair, batch: Pair, first: bool
) -> tuple[Pair, Pair, Ints | None]:
    """Return axes, batch axes and final permutation of the product that gives the cotangent of an operand."""
    n_batch = len(batch[0])
    others = free(ndim_other, contract[1], batch[1])
    mine = free(ndim_target, contract[0], batch[0])
    ct_batch = tuple(range(n_batch))
    shared = tuple(contract[0][i] for i in inverse(contract[1]))
    if first:
        ct_others = tuple(range(n_batch + len(mine), n_batch + len(mine) + len(others)))
        return (ct_others, others), (ct_batch, batch[1]), moves(inverse((*batch[0], *mine, *shared)))
    ct_others = tuple(range(n_batch, n_batch + len(others)))
    return (others, ct_others), (batch[1], ct_batch), moves(inverse((*batch[0], *shared, *mine)))


def operand_ct(ct: Any, other: Any, target: Any, contract: Pair, batch: Pair, *, first: bool) -> Any:
    """Contract ct with the other operand over the other's free axes, and put the axes into the target's order.

    `contract` and `batch` name the target's axes first. Result axes: batch, target's free, other's contracted
    (ascending).
    """
    axes, stacks, perm = transposed(len(other.shape), len(target.shape), contract, batch, first)
    pair = (ct, other) if first else (other, ct)
    found = dot(*pair, contract=axes, batch=stacks)
    return found if perm is None else transpose(found, perm=perm)
