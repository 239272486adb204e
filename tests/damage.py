"""Random damage to files of the cache, saved programs and object code.

TRACEGRAD_FUZZ says how many damages a test tries (60 without it), TRACEGRAD_FUZZ_SEED which:

    TRACEGRAD_FUZZ=1000 pytest -q tests/test_cache.py tests/test_saved.py tests/test_linking.py -k damaged
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator, Sequence

ROUNDS = int(os.environ.get("TRACEGRAD_FUZZ", "60"))
HEADER = 300
"""Bytes at the start that are damaged more often than their share."""


def place(data: bytearray, rng: random.Random) -> int:
    return rng.randrange(min(len(data), HEADER) if rng.random() < 0.3 else len(data))


def flip_bits(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    for _ in range(rng.choice((1, 1, 2, 16))):
        data[place(data, rng)] ^= 1 << rng.randrange(8)


def cut(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    del data[place(data, rng) :]


def leave_out(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    at = place(data, rng)
    del data[at : at + rng.randrange(1, 99)]


def put_in(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    at = rng.choice((0, len(data), place(data, rng)))
    data[at:at] = rng.randbytes(rng.randrange(1, 99))


def write_over(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    at = place(data, rng)
    size = min(rng.randrange(1, 64), len(data) - at)
    data[at : at + size] = rng.randbytes(size)


def lose_pages(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    """Zeros where a page was not written before the machine went down."""
    at = rng.randrange(0, len(data), 4096)
    data[at : at + 4096] = bytes(min(4096, len(data) - at))


def empty(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    data.clear()


def take_another(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    """All or half of another file."""
    other = rng.choice(others)
    at = rng.choice((0, len(other) // 2))
    data[at:] = other[at:]


def change_version(data: bytearray, rng: random.Random, others: Sequence[bytes]) -> None:
    """Another format or version in a file that is sound otherwise."""
    found = re.search(rb'"(magic|name)": "([^"]*)"', data[:HEADER])
    if found is not None:
        start, end = found.span(2)
        data[start:end] = rng.choice((b"tracegrad-cache-1", b"tracegrad-artefact", b"0" * 40, b"", b"2"))


KINDS: tuple[Callable[[bytearray, random.Random, Sequence[bytes]], None], ...] = (
    flip_bits, flip_bits, cut, leave_out, put_in, write_over, lose_pages, empty, take_another, change_version,
)  # fmt: skip


def damages(data: bytes, others: Sequence[bytes], rounds: int = ROUNDS) -> Iterator[bytes]:
    """Yield `data` so many times, damaged each time in another way; `others` are what may be mistaken for it."""
    rng = random.Random(int(os.environ.get("TRACEGRAD_FUZZ_SEED", "3")))
    made = 0
    while made < rounds:
        found = bytearray(data)
        rng.choice(KINDS)(found, rng, others)
        if found != data:
            made += 1
            yield bytes(found)
