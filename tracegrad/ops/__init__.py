"""The primitives. Adding an op is one declaration in one of these files: importing the package registers it."""

from tracegrad.ops import contract, control, conv, elementwise, index, pool, random, reduce, rewind, shape

__all__ = ["contract", "control", "conv", "elementwise", "index", "pool", "random", "reduce", "rewind", "shape"]
