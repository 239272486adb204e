"""Contractions: one primitive for matrix products of any rank and batch.

    y[b, i, j] = sum_k a[b, i, k] c[b, k, j]        b batch axes, i free axes of a, j free axes of c, k contracted axes
    <ct, dot(a, c)> = <dot(ct, c), a> = <dot(a, ct), c>: the vjp of a product is two products, at every order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegrad.errors import DTypeError, ShapeError
from tracegrad.ir.aval import Aval
from tracegrad.ir.primitive import Primitive, as_eager
from tracegrad.ops.shape import transpose

Ints = tuple[int, ...]
Pair = tuple[Ints, Ints]


def free(ndim: int, contract: Ints, batch: Ints) -> Ints:
    return tuple(a for a in range(ndim) if a not in contract and a not in batch)


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
        rows = free(a.ndim, contract[0], batch[0])
        columns = free(b.ndim, contract[1], batch[1])
        shape = [a.shape[i] for i in (*batch[0], *rows)] + [b.shape[j] for j in columns]
        lead = [a.shape[i] for i in batch[0]]
        inner = int(np.prod([a.shape[i] for i in contract[0]], dtype=np.int64))
        m = int(np.prod([a.shape[i] for i in rows], dtype=np.int64))
        n = int(np.prod([b.shape[j] for j in columns], dtype=np.int64))
        left = a.transpose(*batch[0], *rows, *contract[0]).reshape(*lead, m, inner)
        right = b.transpose(*batch[1], *contract[1], *columns).reshape(*lead, inner, n)
        return as_eager(np.matmul(left, right).reshape(shape), a.dtype)

    def vjp(self, ct: Any, y: Any, a: Any, b: Any, *, contract: Pair, batch: Pair) -> Any:
        return self.vjp_of((True, True), ct, y, a, b, contract=contract, batch=batch)

    def vjp_of(
        self, needed: Sequence[bool], ct: Any, y: Any, a: Any, b: Any, *, contract: Pair, batch: Pair
    ) -> Any:
        da = operand_ct(ct, b, a, contract, batch, first=True) if needed[0] else None
        db = operand_ct(ct, a, b, contract[::-1], batch[::-1], first=False) if needed[1] else None
        return da, db


dot = Dot()


def operand_ct(ct: Any, other: Any, target: Any, contract: Pair, batch: Pair, *, first: bool) -> Any:
    """Contract ct with the other operand over the other's free axes, and put the axes into the target's order.

    `contract` and `batch` name the target's axes first. Result axes: batch, target's free, other's contracted
    (ascending).
    """
    n_batch = len(batch[0])
    others = free(len(other.shape), contract[1], batch[1])
    mine = free(len(target.shape), contract[0], batch[0])
    ct_batch = tuple(range(n_batch))
    if first:
        ct_others = tuple(range(n_batch + len(mine), n_batch + len(mine) + len(others)))
    else:
        ct_others = tuple(range(n_batch, n_batch + len(others)))
    order = np.argsort(contract[1])
    if first:
        found = dot(ct, other, contract=(ct_others, others), batch=(ct_batch, batch[1]))
        axes = (*batch[0], *mine, *(contract[0][i] for i in order))
    else:
        found = dot(other, ct, contract=(others, ct_others), batch=(batch[1], ct_batch))
        axes = (*batch[0], *(contract[0][i] for i in order), *mine)
    perm = tuple(int(i) for i in np.argsort(axes))
    return found if perm == tuple(range(len(perm))) else transpose(found, perm=perm)
