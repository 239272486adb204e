"""Attention: softmax(q k^T / sqrt(d) + mask) v (Vaswani et al., "Attention is all you need", 2017)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import tracegrad.numpy as tnp
from tracegrad.errors import DTypeError, ShapeError
from tracegrad.ir import Aval
from tracegrad.ir.aval import kind_of
from tracegrad.nn.functional.activation import softmax
from tracegrad.nn.functional.layers import dropout
from tracegrad.numpy.half import rounded_once


@rounded_once
def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    *,
    dropout_key: Any = None,
) -> Any:
    """Return softmax(q k^T scale + mask) v for query [..., L, d], key [..., S, d], value [..., S, e]: [..., L, e].

    `attn_mask` broadcasts to [..., L, S]: bool, True where a position takes part, or floating point, to be added.
    `is_causal` lets position i see positions up to i. The scale is 1/sqrt(d) unless given. A row whose positions are
    all shut out gives zeros. With dropout_p the weights are dropped, which needs a `dropout_key` of `tracegrad.random`.
    Raises ShapeError when the shapes do not fit.

    >>> x = np.eye(2)
    >>> scaled_dot_product_attention(x, x, x, is_causal=True)[0].tolist()
    [1.0, 0.0]
    """
    name = "scaled_dot_product_attention"
    q, k, v = (tnp.asarray(t) for t in (query, key, value))
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        shown = " and ".join(str(Aval(tuple(t.shape), t.dtype)) for t in (q, k, v))
        raise ShapeError(
            f"{name}: query, key and value {shown} are not [..., L, d], [..., S, d] and [..., S, e]",
            fix="check the order of the axes",
        )
    blocked = None
    if attn_mask is not None:
        attn_mask = tnp.asarray(attn_mask)
        if attn_mask.dtype == np.bool_:
            blocked, attn_mask = ~attn_mask, None
    if is_causal:
        later = causal_mask(q.shape[-2], k.shape[-2])
        blocked = later if blocked is None else blocked | later
    weights = attention_weights(q, k, blocked, attn_mask, scale)
    return dropout(weights, dropout_p, dropout_p > 0, key=dropout_key) @ v


@rounded_once
def attention_weights(q: Any, k: Any, blocked: Any, added: Any, scale: float | None = None) -> Any:
    """Return the softmax of the scores along the last axis; `blocked` positions get 0, also where none is left."""
    scores = q * (1.0 / math.sqrt(q.shape[-1]) if scale is None else scale) @ tnp.swapaxes(k, -1, -2)
    for mask in (blocked, added):
        check_mask(mask, tuple(scores.shape))
    if added is not None:
        scores = scores + added.astype(scores.dtype)
    if blocked is not None:
        scores = tnp.where(blocked, -np.inf, scores)
    weights = softmax(scores, -1)
    if blocked is None and added is None:
        return weights
    return tnp.where(tnp.all(scores == -np.inf, axis=-1, keepdims=True), 0.0, weights)


def check_mask(mask: Any, shape: tuple[int, ...]) -> None:
    """Refuse a mask that does not broadcast to the scores."""
    if mask is None:
        return
    if kind_of(mask.dtype) not in "fb":
        raise DTypeError(
            f"attention: the mask {Aval(tuple(mask.shape), mask.dtype)} is neither bool nor floating point",
            fix="use mask.astype(bool)",
        )
    rest = shape[len(shape) - mask.ndim :] if mask.ndim <= len(shape) else ()
    if mask.ndim > len(shape) or any(m not in (1, n) for m, n in zip(mask.shape, rest, strict=True)):
        raise ShapeError(
            f"attention: the mask {Aval(tuple(mask.shape), mask.dtype)} does not fit scores of shape {shape}",
            fix="the scores have the axes [..., queries, keys]",
        )


def causal_mask(n_queries: int, n_keys: int) -> Any:
    """Return the positions that lie after each query's own."""
    return np.arange(n_keys) > np.arange(n_queries)[:, None]
