"""Layers one after the other."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from tracegrad.errors import ArgumentError
from tracegrad.nn.module import Module
from tracegrad.random import fold_in


class Sequential(Module):
    """Apply layers in order; a layer is a module or a plain function of one array.

    `model(x, key=key, training=True)` hands `key` and `training` on to the layers whose call takes them (Dropout, a
    nested Sequential, or your own modules with those keywords). Layer i gets `fold_in(key, i)`, so no two layers share
    a draw.

    >>> import numpy as np
    >>> model = Sequential(lambda x: x + 1.0, np.tanh)
    >>> model(np.zeros(1)).round(3).tolist()
    [0.762]
    """

    def __init__(self, *layers: Callable[..., Any]):
        for i, layer in enumerate(layers):
            if not callable(layer):
                raise ArgumentError(
                    f"Sequential: layer {i} is a {type(layer).__name__}, not a layer",
                    fix="pass the layers one by one: nn.Sequential(nn.Linear(2, 3), nn.ReLU())",
                )
            setattr(self, str(i), layer)

    def __call__(self, x: Any, *, key: Any = None, training: bool = False) -> Any:
        for i, layer in enumerate(self):
            given: dict[str, Any] = {}
            if isinstance(layer, Module):
                takes = keywords(type(layer))
                if "key" in takes:
                    given["key"] = None if key is None else fold_in(key, i)
                if "training" in takes:
                    given["training"] = training
            x = layer(x, **given)
        return x

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return (self.__dict__[str(i)] for i in range(len(self)))

    def __len__(self) -> int:
        return len(self.attributes())

    def __getitem__(self, index: int | slice) -> Any:
        layers = list(self)
        return Sequential(*layers[index]) if isinstance(index, slice) else layers[index]

    def __repr__(self) -> str:
        lines = [f"({i}): {layer!r}".replace("\n", "\n  ") for i, layer in enumerate(self)]
        return "Sequential(\n  " + "\n  ".join(lines) + "\n)"


@cache
def keywords(cls: type) -> frozenset[str]:
    """Return the names of the parameters of a module's call."""
    return frozenset(inspect.signature(cls.__call__).parameters)
