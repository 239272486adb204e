"""einsum: the text is parsed, diagonals are taken, and operands are joined pair by pair, the cheapest result first.

ij,jk,k->i      each step is one `dot`: letters in both and wanted later are batch axes, letters in both and in no other
                operand nor the result are contracted, letters of one operand alone are summed before
"""

from __future__ import annotations

import math
import string
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from tracegrad.errors import ArgumentError, ShapeError
from tracegrad.numpy import reductions, selecting, shaping
from tracegrad.numpy.half import rounded_once
from tracegrad.numpy.promote import computed
from tracegrad.numpy.promote import BOOL, INT64, Array, ArrayLike, array, broadcast_array, cast, mark, operand
from tracegrad.numpy.promote import result_dtype, shown
from tracegrad.ops.contract import dot as contract
from tracegrad.ops.elementwise import not_equal

Term = tuple[Array, str]
EXAMPLE = 'write, for instance, einsum("ij,jk->ik", a, b)'


@computed
@rounded_once(of_operands=True)
def einsum(subscripts: Any, /, *operands: ArrayLike, optimize: Any = True) -> Array:
    """Sum products of elements over named axes, as `numpy.einsum`; `...` stands for broadcast axes.

    The order of the pairwise products is chosen here, `optimize` is accepted and ignored. Raises ArgumentError for
    text that cannot be read, ShapeError for letters whose sizes differ.

    >>> einsum("ij,j->i", np.ones((2, 3)), np.arange(3.0))
    array([3., 3.])
    """
    del optimize
    if not isinstance(subscripts, str):
        subscripts, operands = from_lists((subscripts, *operands))
    xs = [operand("einsum", x) for x in operands]
    dtype = result_dtype(xs) if xs else INT64
    xs = [array("einsum", cast("einsum", x, INT64 if dtype == BOOL else dtype)) for x in xs]
    inputs, output = parse(subscripts, xs)
    sizes = letter_sizes(inputs, xs)
    unknown = [c for c in output if c not in sizes]
    if unknown or len(set(output)) != len(output):
        raise ArgumentError(f"einsum: the result {output!r} repeats a letter or has one of no operand", fix=EXAMPLE)
    terms = [single(x, letters, sizes) for x, letters in zip(xs, inputs, strict=True)]
    found = finish(contract_all(terms, output, sizes), output)
    return mark(not_equal(found, np.int64(0)) if dtype == BOOL else found, False)


def from_lists(arguments: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
    """Turn einsum(a, [0, 1], b, [1, 2], [0, 2]) into text and operands."""
    lists = list(arguments[1::2])
    last = arguments[-1] if len(arguments) % 2 else None
    text = ",".join(map(letters_of, lists))
    operands = arguments[: 2 * len(lists) : 2]
    return text if last is None else f"{text}->{letters_of(last)}", tuple(operands)


def letters_of(axes: Sequence[Any]) -> str:
    return "".join("..." if i is Ellipsis else string.ascii_letters[i] for i in axes)


def parse(subscripts: str, xs: Sequence[Array]) -> tuple[list[str], str]:
    """Return one string of letters per operand, and the result's; `...` is replaced by unused letters."""
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    inputs = left.split(",")
    if len(inputs) != len(xs):
        raise ArgumentError(
            f"einsum: {subscripts!r} names {len(inputs)} operands but {len(xs)} were given", fix=EXAMPLE
        )
    for part in (*inputs, right):
        rest = part.replace("...", "", 1)
        if any(c not in string.ascii_letters for c in rest):
            raise ArgumentError(
                f"einsum: {part!r} in {subscripts!r} holds more than letters and one '...'", fix=EXAMPLE
            )
    free = [c for c in string.ascii_letters if c not in text]
    ranks = [len(x.shape) - len(p.replace("...", "")) if "..." in p else 0 for p, x in zip(inputs, xs, strict=True)]
    dots = "".join(free[: max(ranks, default=0)])
    for part, x, rank in zip(inputs, xs, ranks, strict=True):
        if rank < 0 or ("..." not in part and len(part) != len(x.shape)):
            raise ShapeError(f"einsum: {part!r} does not fit {shown(x)}", fix="give one letter per axis")
    full = [p.replace("...", dots[len(dots) - r :]) for p, r in zip(inputs, ranks, strict=True)]
    if arrow:
        return full, right.replace("...", dots)
    joined = "".join(p.replace("...", "") for p in inputs)
    return full, dots + "".join(sorted(c for c in set(joined) if joined.count(c) == 1))


def letter_sizes(inputs: Sequence[str], xs: Sequence[Array]) -> dict[str, int]:
    """Return the size of every letter; 1 broadcasts."""
    sizes: dict[str, int] = {}
    for letters, x in zip(inputs, xs, strict=True):
        for letter, n in zip(letters, x.shape, strict=True):
            held = sizes.setdefault(letter, n)
            if held == 1:
                sizes[letter] = n
            elif n not in (1, held):
                listed = " and ".join(map(shown, xs))
                raise ShapeError(f"einsum: {listed}: a letter has the sizes {held} and {n}", fix="check the subscripts")
    return sizes


def single(x: Array, letters: str, sizes: dict[str, int]) -> Term:
    """Take the diagonals of repeated letters, and drop axes of size 1 that broadcast."""
    for letter in set(letters):
        while letters.count(letter) > 1:
            first = letters.index(letter)
            second = letters.index(letter, first + 1)
            n = sizes[letter]
            x = broadcast_array(x, tuple(n if c == letter else m for c, m in zip(letters, x.shape, strict=True)))
            x = selecting.diagonal(x, axis1=first, axis2=second)
            letters = letters[:first] + letters[first + 1 : second] + letters[second + 1 :] + letter
    narrow = tuple(i for i, c in enumerate(letters) if x.shape[i] == 1 and sizes[c] != 1)
    if narrow:
        x = shaping.squeeze(x, narrow)
        letters = "".join(c for i, c in enumerate(letters) if i not in narrow)
    return x, letters


def contract_all(terms: list[Term], output: str, sizes: dict[str, int]) -> Term:
    """Join pairs, those with the smallest growth first, until one term is left."""
    while len(terms) > 1:
        pairs = combinations(range(len(terms)), 2)
        _, i, j = min((growth(terms, i, j, output, sizes), i, j) for i, j in pairs)
        joined = join(terms, i, j, output)
        terms = [t for k, t in enumerate(terms) if k not in (i, j)] + [joined]
    return terms[0]


def growth(terms: Sequence[Term], i: int, j: int, output: str, sizes: dict[str, int]) -> int:
    """Return by how many elements a product of two terms is larger than both."""
    before = sum(math.prod(sizes[c] for c in terms[k][1]) for k in (i, j))
    return math.prod(sizes[c] for c in result_letters(terms, i, j, output)) - before


def wanted(terms: Sequence[Term], i: int, j: int, output: str) -> set[str]:
    """Return the letters that the result or another operand needs."""
    return set(output).union(*(set(t[1]) for k, t in enumerate(terms) if k not in (i, j)))


def result_letters(terms: Sequence[Term], i: int, j: int, output: str) -> set[str]:
    return (set(terms[i][1]) | set(terms[j][1])) & wanted(terms, i, j, output)


def join(terms: Sequence[Term], i: int, j: int, output: str) -> Term:
    """Multiply two terms, and sum over what nothing else needs."""
    need = wanted(terms, i, j, output)
    (x, a), (y, b) = terms[i], terms[j]
    x, a = summed(x, a, need | set(b))
    y, b = summed(y, b, need | set(a))
    shared = [c for c in a if c in b]
    batch = [c for c in shared if c in need]
    inner = [c for c in shared if c not in need]
    found = contract(
        x,
        y,
        contract=(tuple(a.index(c) for c in inner), tuple(b.index(c) for c in inner)),
        batch=(tuple(a.index(c) for c in batch), tuple(b.index(c) for c in batch)),
    )
    free = [c for c in a if c not in shared] + [c for c in b if c not in shared]
    return found, "".join(batch + free)


def summed(x: Array, letters: str, need: set[str]) -> Term:
    """Sum over the letters that are not needed."""
    axes = tuple(i for i, c in enumerate(letters) if c not in need)
    if not axes:
        return x, letters
    return array("einsum", reductions.sum(x, axes, dtype=x.dtype)), "".join(c for c in letters if c in need)


def finish(term: Term, output: str) -> Array:
    """Sum what is left over, and put the axes into the order of the result."""
    x, letters = summed(*term, set(output))
    return shaping.permuted(x, tuple(letters.index(c) for c in output))
