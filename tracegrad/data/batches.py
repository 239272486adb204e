"""Minibatches: rows of several arrays in a shuffled order that a seed and an epoch fix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.random import fold_in, permutation
from tracegrad.random import key as random_key


def batches(
    arrays: Any | Sequence[Any],
    batch_size: int,
    *,
    key: Any = None,
    seed: int = 0,
    epoch: int = 0,
    shuffle: bool = True,
    drop_last: bool = True,
) -> Iterator[tuple[Any, ...]]:
    """Yield tuples of `batch_size` rows of every array, in an order that key (or seed) and epoch alone decide.

    `arrays` is one array or a sequence of arrays [n, ...] with one n. A memory-mapped array is read batch by batch,
    never as a whole. With `drop_last` every batch has the same shape, so that a compiled step is compiled once; without
    it the last batch may be smaller, which costs one more compilation. Raises ShapeError when the arrays differ in
    length, or when no batch can be made. The arguments are checked at the call, before the first batch is drawn.

    >>> x, y = np.arange(6.0).reshape(3, 2), np.arange(3)
    >>> [b.tolist() for _, b in batches((x, y), 2, shuffle=False, drop_last=False)]
    [[0, 1], [2]]
    """
    columns = [arrays] if hasattr(arrays, "shape") else list(arrays)
    n = checked_length(columns, batch_size, drop_last)
    order = shuffled(n, random_key(seed) if key is None else key, epoch) if shuffle else np.arange(n)
    stop = n - n % batch_size if drop_last else n
    return slices(columns, order[:stop], batch_size, shuffle)


def checked_length(columns: list[Any], batch_size: int, drop_last: bool) -> int:
    """Return the common number of rows."""
    if batch_size < 1:
        raise ArgumentError(f"batches: batch_size is {batch_size}", fix="use a batch size of 1 or more")
    if not columns or any(np.ndim(c) == 0 for c in columns):
        raise ShapeError("batches: expected arrays [n, ...] with rows along axis 0", fix="pass (x, y)")
    lengths = {len(c) for c in columns}
    if len(lengths) > 1:
        shown = " and ".join(str(tuple(c.shape)) for c in columns)
        raise ShapeError(f"batches: the arrays {shown} differ in length", fix="pass arrays with one row per example")
    (n,) = lengths
    if drop_last and n < batch_size:
        raise ShapeError(
            f"batches: {n} rows do not fill one batch of {batch_size}",
            fix="use a smaller batch_size, or drop_last=False",
        )
    return n


def shuffled(n: int, key: Any, epoch: int) -> Any:
    return permutation(fold_in(key, epoch), n)


def slices(columns: list[Any], order: Any, batch_size: int, shuffle: bool) -> Iterator[tuple[Any, ...]]:
    """Yield the batches; rows of a memory map are fetched in ascending order, which keeps the reads sequential."""
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        if not shuffle:
            first, last = int(rows[0]), int(rows[-1]) + 1
            yield tuple(native(np.array(c[first:last])) for c in columns)
            continue
        ascending = np.argsort(rows)
        back = np.argsort(ascending)
        yield tuple(
            native(np.asarray(c[rows[ascending]])[back] if isinstance(c, np.memmap) else np.asarray(c)[rows])
            for c in columns
        )


def native(rows: Any) -> Any:
    """Return rows in this machine's byte order."""
    return rows.astype(rows.dtype.newbyteorder("="), copy=False)
