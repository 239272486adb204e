"""Linear maps, embeddings, dropout, reshaping."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import tracegrad.numpy as tnp
from tracegrad import random
from tracegrad.errors import ArgumentError, DTypeError, ShapeError
from tracegrad.ir import Aval
from tracegrad.numpy.half import rounded_once
from tracegrad.ops.contract import dot
from tracegrad.ops.elementwise import stop_gradient, where
from tracegrad.ops.index import gather
from tracegrad.trace import Tracer


@rounded_once
def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """Return x @ weight.T + bias along the last axis; weight [out, in] or [in], bias [out].

    >>> linear(np.ones((2, 3)), np.ones((4, 3)), np.ones(4))[0].tolist()
    [4.0, 4.0, 4.0, 4.0]
    """
    x, w = tnp.asarray(input), tnp.asarray(weight)
    if x.ndim < 1 or w.ndim not in (1, 2) or x.shape[-1] != w.shape[-1]:
        x_aval, w_aval = Aval(tuple(x.shape), x.dtype), Aval(tuple(w.shape), w.dtype)
        raise ShapeError(
            f"linear: the last axis of x {x_aval} does not fit weight {w_aval}, which is [out, in]",
            fix="check in_features, or flatten the input with nn.Flatten()",
        )
    if x.dtype != w.dtype:
        dtype = tnp.result_type(x, w)
        x, w = x.astype(dtype), w.astype(dtype)
    y = dot(x, w, contract=((x.ndim - 1,), (w.ndim - 1,)), batch=((), ()))
    return y if bias is None else y + bias


def embedding(input: Any, weight: Any, padding_idx: int | None = None) -> Any:
    """Return the rows `input` of weight [n, d], shape [*input.shape, d]; negative indices count from the end.

    Rows at `padding_idx` pass no gradient on. An index out of bounds raises IndexOutOfBounds when it is known.
    """
    index, table = tnp.asarray(input), tnp.asarray(weight)
    if index.dtype.kind not in "iu":
        raise DTypeError(
            f"embedding: the index {Aval(tuple(index.shape), index.dtype)} is not an integer array",
            fix="pass x.astype(np.int64)",
        )
    if table.ndim != 2:
        raise ShapeError(f"embedding: the weight {Aval(tuple(table.shape), table.dtype)} is not [n, d]")
    rows = gather(table, index, axes=(0,))
    if padding_idx is None:
        return rows
    blocked = (index == padding_idx % table.shape[0])[..., None]
    return tnp.where(blocked, stop_gradient(rows), rows)


def one_hot(tensor: Any, num_classes: int = -1) -> Any:
    """Return int64 rows with 1 at the class and 0 elsewhere, on a new last axis; -1 takes the largest class plus one.

    >>> one_hot(np.array([1, 0]), 3).tolist()
    [[0, 1, 0], [1, 0, 0]]
    """
    y = tnp.asarray(tensor)
    if y.dtype.kind not in "iu":
        raise DTypeError(f"one_hot: {Aval(tuple(y.shape), y.dtype)} is not an integer array", fix="pass integers")
    if num_classes == -1:
        if isinstance(y, Tracer) and y._trace.level == 0:
            y = y.concrete("one_hot", "pass num_classes=")  # the value of a tensor is known
        if isinstance(y, Tracer):
            raise ArgumentError(
                "one_hot: the number of classes of a traced array is not known", fix="pass num_classes="
            )
        num_classes = int(y.max()) + 1 if y.size else 0
    if not isinstance(y, Tracer) and y.size and not 0 <= int(y.min()) <= int(y.max()) < num_classes:
        raise ShapeError(
            f"one_hot: classes from {y.min()} to {y.max()} do not fit {num_classes}", fix="pass more classes"
        )
    hit = y[..., None] == tnp.arange(num_classes, dtype=y.dtype)
    return hit.astype(np.int64)


@rounded_once
def dropout(input: Any, p: float = 0.5, training: bool = True, *, key: Any = None) -> Any:
    """Return x with each element set to 0 with probability p and the others divided by 1 - p; x itself if not training.

    `key` is a key of `tracegrad.random`, required in training; the same key gives the same mask.
    Srivastava et al., "Dropout", 2014.

    >>> dropout(np.ones(4), 0.5, key=random.key(0)).tolist()
    [2.0, 2.0, 0.0, 0.0]
    """
    if isinstance(p, (int, float)) and not 0 <= p <= 1:
        raise ArgumentError(f"dropout: p is {p}, not a probability", fix="use 0 <= p <= 1")
    if isinstance(training, Tracer):
        raise ArgumentError(
            "dropout: training is a traced value, but it decides what is compiled",
            fix="name it in static=('training',)",
        )
    x = tnp.asarray(input)
    if not training or p == 0:
        return x
    if key is None:
        raise ArgumentError("dropout: training needs a key", fix="pass key=tg.random.fold_in(key, step), training=True")
    if p == 1:
        return tnp.zeros_like(x)
    kept = random.bernoulli(key, 1.0 - p, tuple(x.shape))
    return x * where(kept, x.dtype.type(1.0 / (1.0 - p)), x.dtype.type(0))


def flatten(input: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    """Return x with the axes from start_dim to end_dim joined.

    >>> flatten(np.zeros((2, 3, 4)), 1).shape
    (2, 12)
    """
    x = tnp.asarray(input)
    first, last = start_dim % max(x.ndim, 1), end_dim % max(x.ndim, 1)
    if first > last:
        raise ShapeError(f"flatten: start_dim {start_dim} lies after end_dim {end_dim} in {tuple(x.shape)}")
    shape = tuple(x.shape)
    joined = math.prod(shape[first : last + 1])
    return tnp.reshape(x, (*shape[:first], joined, *shape[last + 1 :]))
