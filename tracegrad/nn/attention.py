"""Multi-head attention."""

from __future__ import annotations

from typing import Any

import numpy as np

import tracegrad.numpy as tnp
from tracegrad import random
from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.ir import Aval
from tracegrad.ir.aval import kind_of
from tracegrad.nn import functional as F
from tracegrad.nn import init
from tracegrad.nn.functional.attention import attention_weights, causal_mask
from tracegrad.nn.layers import Linear
from tracegrad.nn.module import Module


class MultiheadAttention(Module):
    """Attention in `num_heads` heads of width embed_dim / num_heads, then a linear map (Vaswani et al., 2017).

    Arguments as torch.nn.MultiheadAttention; parameters in_proj_weight [3 E, E] (or q_proj_weight, k_proj_weight and
    v_proj_weight where kdim or vdim is not E), in_proj_bias, out_proj, and bias_k and bias_v with add_bias_kv.

    `y, weights = attention(query, key, value)`: query [L, N, E], key [S, N, kdim], value [S, N, vdim], with batch_first
    [N, ., .], or without N; y is like query. Masks follow PyTorch's: bool, True where a position is *shut out*, or
    floating point, to be added. `key_padding_mask` is [N, S]; `attn_mask` [L, S] or [N num_heads, L, S]; `is_causal`
    shuts out later positions. `weights` are [N, L, S], their mean over the heads, [N, num_heads, L, S] with
    average_attn_weights=False, and None with need_weights=False. A query with nothing left to see gives zeros before
    the last map. Dropout acts with `dropout_key=..., training=True`. Raises ShapeError when sizes do not fit.

    >>> x = np.ones((5, 2, 8), np.float32)
    >>> y, weights = MultiheadAttention(8, 4)(x, x, x, is_causal=True)
    >>> y.shape, weights.shape, weights[0, 1].tolist()
    ((5, 2, 8), (2, 5, 5), [0.5, 0.5, 0.0, 0.0, 0.0])
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        *,
        dtype: Any = np.float32,
        key: Any = None,
    ):
        if num_heads < 1 or embed_dim < 1 or embed_dim % num_heads:
            raise ShapeError(
                f"MultiheadAttention: num_heads={num_heads} does not divide embed_dim={embed_dim}",
                fix="choose embed_dim as a multiple of num_heads",
            )
        if not 0 <= dropout <= 1:
            raise ArgumentError(
                f"MultiheadAttention: dropout is {dropout}, not a probability", fix="use 0 <= dropout <= 1"
            )
        e = embed_dim
        self.embed_dim = e
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn
        self.kdim = e if kdim is None else kdim
        self.vdim = e if vdim is None else vdim
        keys = random.split(init.key_or_default(key), 6)
        joint = (self.kdim, self.vdim) == (e, e)
        self.in_proj_weight = init.xavier_uniform(keys[0], (3 * e, e), dtype=dtype) if joint else None
        apart = (
            None if joint else init.xavier_uniform(k, (e, width), dtype=dtype)
            for k, width in zip(keys, (e, self.kdim, self.vdim), strict=False)
        )
        self.q_proj_weight, self.k_proj_weight, self.v_proj_weight = apart
        self.in_proj_bias = init.zeros((3 * e,), dtype) if bias else None
        out = Linear(e, e, bias, dtype=dtype, key=keys[3])
        self.out_proj = out.replace(bias=init.zeros((e,), dtype)) if bias else out
        self.bias_k = init.normal(keys[4], (1, 1, e), 0.0, e**-0.5, dtype) if add_bias_kv else None
        self.bias_v = init.normal(keys[5], (1, 1, e), 0.0, e**-0.5, dtype) if add_bias_kv else None

    def __call__(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
        *,
        dropout_key: Any = None,
        training: bool = False,
    ) -> tuple[Any, Any]:
        inputs = [tnp.asarray(t) for t in (query, key, value)]
        batched = inputs[0].ndim == 3
        self.check_inputs(inputs)
        if not batched:
            inputs = [t[None] for t in inputs]
        elif not self.batch_first:
            inputs = [tnp.swapaxes(t, 0, 1) for t in inputs]
        q, k, v = self.projected(inputs, alike=query is key and key is value)
        blocked, added = self.masks(q, k, key_padding_mask, attn_mask, is_causal, batched)
        q, k, v = self.heads(q), self.heads(k), self.heads(v)
        weights = attention_weights(q, k, blocked, added)
        weights = F.dropout(weights, self.dropout, training and self.dropout > 0, key=dropout_key)
        y = tnp.swapaxes(weights @ v, 1, 2)
        y = self.out_proj(tnp.reshape(y, (*y.shape[:2], self.embed_dim)))
        y = y[0] if not batched else y if self.batch_first else tnp.swapaxes(y, 0, 1)
        if not need_weights:
            return y, None
        shown = tnp.mean(weights, axis=1) if average_attn_weights else weights
        return y, shown if batched else shown[0]

    def check_inputs(self, inputs: list[Any]) -> None:
        q, k, v = (tuple(t.shape) for t in inputs)
        widths = (self.embed_dim, self.kdim, self.vdim)
        batch = 0 if self.batch_first else 1
        sound = len(q) in (2, 3) and len(q) == len(k) == len(v) and (q[-1], k[-1], v[-1]) == widths
        if not sound or k[:-1] != v[:-1] or (len(q) == 3 and q[batch] != k[batch]):
            shown = ", ".join(str(Aval(tuple(t.shape), t.dtype)) for t in inputs)
            axes = "[N, T, .]" if self.batch_first else "[T, N, .]"
            raise ShapeError(
                f"MultiheadAttention: query, key and value {shown} are not {axes} (or without N) of widths {widths}",
                fix="check embed_dim, kdim, vdim and batch_first",
            )

    def projected(self, inputs: list[Any], alike: bool) -> list[Any]:
        """Return queries, keys and values [N, T, E], with the positions that add_bias_kv and add_zero_attn append.

        Inputs that are one array (self-attention) meet all weights in one product.
        """
        e, bias = self.embed_dim, self.in_proj_bias
        thirds = [slice(i * e, (i + 1) * e) for i in range(3)]
        if alike and self.in_proj_weight is not None:
            joint = F.linear(inputs[0], self.in_proj_weight, bias)
            q, k, v = (joint[..., third] for third in thirds)
        else:
            apart = [self.q_proj_weight, self.k_proj_weight, self.v_proj_weight]
            weights = apart if self.in_proj_weight is None else [self.in_proj_weight[third] for third in thirds]
            biases = [None if bias is None else bias[third] for third in thirds]
            q, k, v = (F.linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True))
        row = (k.shape[0], 1, e)
        if self.bias_k is not None:
            k = tnp.concatenate([k, tnp.broadcast_to(self.bias_k, row)], axis=1)
            v = tnp.concatenate([v, tnp.broadcast_to(self.bias_v, row)], axis=1)
        if self.add_zero_attn:
            k, v = (tnp.concatenate([t, tnp.zeros(row, dtype=t.dtype)], axis=1) for t in (k, v))
        return [q, k, v]

    def heads(self, x: Any) -> Any:
        """Return [N, T, E] as [N, heads, T, E / heads]."""
        n, t, e = x.shape
        return tnp.swapaxes(tnp.reshape(x, (n, t, self.num_heads, e // self.num_heads)), 1, 2)

    def masks(self, q: Any, k: Any, padding: Any, attn: Any, is_causal: bool, batched: bool) -> tuple[Any, Any]:
        """Return what is shut out, and what is added, each for scores [N, heads, L, S] or None."""
        n, length, total = q.shape[0], q.shape[1], k.shape[1]
        size = total - (self.bias_k is not None) - self.add_zero_attn
        given = []
        if padding is not None:
            padding = self.checked_mask("key_padding_mask", padding, ((n, size),) if batched else ((size,),))
            given.append(tnp.reshape(padding, (n, 1, 1, size)))
        if attn is not None:
            attn = self.checked_mask("attn_mask", attn, ((length, size), (n * self.num_heads, length, size)))
            given.append(attn if attn.ndim == 2 else tnp.reshape(attn, (n, self.num_heads, length, size)))
        if is_causal:
            given.append(causal_mask(length, size))
        blocked = added = None
        for mask in given:
            if total > size:
                wide = [(0, 0)] * (mask.ndim - 1) + [(0, total - size)]
                mask = tnp.pad(mask, wide)
            if mask.dtype == np.bool_:
                blocked = mask if blocked is None else blocked | mask
            else:
                added = mask if added is None else added + mask
        return blocked, added

    @staticmethod
    def checked_mask(name: str, mask: Any, shapes: tuple[tuple[int, ...], ...]) -> Any:
        mask = tnp.asarray(mask)
        if tuple(mask.shape) not in shapes or kind_of(mask.dtype) not in "fb":
            raise ShapeError(
                f"MultiheadAttention: {name} {Aval(tuple(mask.shape), mask.dtype)} is not a bool or floating-point "
                f"mask of shape {' or '.join(map(str, shapes))}",
                fix="True shuts a position out; floating-point masks are added",
            )
        return mask
