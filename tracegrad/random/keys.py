"""Keys of the counter-based generator: made from a seed, split, and folded with a number.

    split(key, n)[i]   = E(key, block i of the stream SPLIT)
    fold_in(key, data) = E(E(key, block 0 of the stream FOLD) ^ data, block 0 of the stream FOLD)

E is Threefry-2x32. For one key, different data give different inner keys: the xor is a bijection.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError, DTypeError
from tracegrad.ops.elementwise import bitwise_xor, convert, right_shift
from tracegrad.ops.random import random_bits
from tracegrad.ops.shape import concat, reshape
from tracegrad.trace import Tracer

DRAW, DRAW_MORE, SPLIT, FOLD = 0, 1, 0x5917, 0xF01D
U32 = np.dtype(np.uint32)
U64 = np.dtype(np.uint64)
I64 = np.dtype(np.int64)


def key(seed: Any) -> Any:
    """Return the key u32[2] of an integer seed of up to 64 bits; the seed may be traced.

    >>> from tracegrad import random
    >>> random.key(7)
    array([0, 7], dtype=uint32)
    """
    return joined(words(seed, "key: the seed"))


def split(key: Any, n: int = 2) -> Any:
    """Return `n` new keys as u32[n, 2]; do not use `key` itself for anything else.

    >>> from tracegrad import random
    >>> a, b = random.split(random.key(0))
    """
    key = checked(key)
    columns = [reshape(random_bits(key, shape=(n,), word=w, stream=SPLIT), shape=(n, 1)) for w in (0, 1)]
    return concat(*columns, axis=1)


def fold_in(key: Any, data: Any) -> Any:
    """Return a new key from a key and an integer (a step, an epoch, a layer number), which may be traced.

    >>> from tracegrad import random
    >>> bool((random.fold_in(random.key(0), 1) != random.fold_in(random.key(0), 2)).any())
    True
    """
    folded = [bitwise_xor(b, w) for b, w in zip(block(checked(key)), words(data, "fold_in: data"), strict=True)]
    return joined(block(joined(folded)))


def block(key: Any) -> list[Any]:
    """Return both words of block 0 of the stream FOLD, each u32[1]."""
    return [random_bits(key, shape=(1,), word=w, stream=FOLD) for w in (0, 1)]


def joined(parts: list[Any]) -> Any:
    """Return two words, scalars or u32[1], as one key."""
    if any(isinstance(p, Tracer) for p in parts):
        return concat(*parts, axis=0)
    return np.array([int(np.asarray(p).item()) for p in parts], U32)


def words(value: Any, what: str) -> list[Any]:
    """Return the upper and the lower 32 bits of an integer: scalars, or u32[1] of a traced one."""
    if not isinstance(value, Tracer):
        try:
            number = int(value) if np.asarray(value).dtype.kind in "iu" else None
        except (TypeError, ValueError, OverflowError):
            number = None
        if number is None or not -(2**63) <= number < 2**64:
            raise ArgumentError(f"{what} is {value!r}, not an integer of up to 64 bits", fix="pass an int")
        number %= 2**64
        return [np.uint32(number >> 32), np.uint32(number & 0xFFFFFFFF)]
    if value.shape != () or value.dtype.kind not in "iu":
        raise ArgumentError(f"{what} is {value.aval}, not an integer scalar", fix="pass an int")
    wide = convert(convert(value, dtype=I64) if value.dtype.kind == "i" else value, dtype=U64)
    parts = [right_shift(wide, np.uint64(32)), wide]
    return [reshape(convert(p, dtype=U32), shape=(1,)) for p in parts]


def checked(key: Any) -> Any:
    """Return `key`, or raise DTypeError when it is not one."""
    if getattr(key, "shape", None) != (2,) or key.dtype != U32:
        kind = f"{key.dtype}{list(key.shape)}" if hasattr(key, "dtype") else repr(key)
        raise DTypeError(f"random: the key {kind} is not u32[2]", fix="make one with tg.random.key(seed)")
    return key
