"""Layers without windows."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError
from tracegrad.nn import functional as F
from tracegrad.nn import init
from tracegrad.nn.module import Module


class Linear(Module):
    """x @ weight.T + bias on the last axis; weight [out_features, in_features], bias [out_features].

    Both start uniform on +-1/sqrt(in_features), as in PyTorch. `key` makes the draw explicit; without it the default
    keys are used (see `nn.seed`).

    >>> Linear(3, 4)(np.ones((2, 3), np.float32)).shape
    (2, 4)
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *, dtype: Any = np.float32, key: Any = None
    ):
        self.in_features = in_features
        self.out_features = out_features
        key = init.key_or_default(key)
        self.weight, self.bias = init.linear_weight_and_bias(key, (out_features, in_features), bias, dtype)

    def __call__(self, x: Any) -> Any:
        return F.linear(x, self.weight, self.bias)


class Embedding(Module):
    """Row `index` of weight [num_embeddings, embedding_dim]; row `padding_idx` starts at zero and gets no gradient.

    >>> Embedding(10, 4)(np.array([[1, 2, 3]])).shape
    (1, 3, 4)
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        *,
        dtype: Any = np.float32,
        key: Any = None,
    ):
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        weight = init.normal(init.key_or_default(key), (num_embeddings, embedding_dim), dtype=dtype)
        if padding_idx is not None:
            weight = weight * (np.arange(num_embeddings) != padding_idx % num_embeddings)[:, None]
        self.weight = weight

    def __call__(self, index: Any) -> Any:
        return F.embedding(index, self.weight, self.padding_idx)


class Dropout(Module):
    """In training, set elements to zero with probability `p` and divide the others by 1 - p; else the identity.

    `dropout(x, key=key, training=True)`; the key is required in training. In a compiled step pass the key as an
    argument: every key gives a fresh mask, and none compiles again. `training` is a Python bool, so name it in
    `static=` if it is an argument of the compiled function.

    >>> Dropout(0.5)(np.ones(3))
    array([1., 1., 1.])
    """

    def __init__(self, p: float = 0.5):
        if not 0 <= p <= 1:
            raise ArgumentError(f"Dropout: p is {p}, not a probability", fix="use 0 <= p <= 1")
        self.p = p

    def __call__(self, x: Any, *, key: Any = None, training: bool = False) -> Any:
        return F.dropout(x, self.p, training, key=key)


class Flatten(Module):
    """Join the axes from start_dim to end_dim."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1):
        self.start_dim = start_dim
        self.end_dim = end_dim

    def __call__(self, x: Any) -> Any:
        return F.flatten(x, self.start_dim, self.end_dim)


class Identity(Module):
    """Return the input; any arguments are ignored, as in PyTorch."""

    def __init__(self, *args: Any, **kwargs: Any):
        del args, kwargs

    def __call__(self, x: Any) -> Any:
        return x
