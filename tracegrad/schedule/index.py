"""Affine index expressions over loop variables and integer values: `3 + 64*i0 + i1`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Affine:
    """A constant plus integer multiples of variables; terms are sorted and have no zero factors."""

    const: int = 0
    terms: tuple[tuple[str, int], ...] = ()

    @staticmethod
    def var(name: str, factor: int = 1) -> Affine:
        return Affine(0, ((name, factor),) if factor else ())

    def __add__(self, other: Affine | int) -> Affine:
        if isinstance(other, int):
            return Affine(self.const + other, self.terms)
        total = dict(self.terms)
        for name, factor in other.terms:
            total[name] = total.get(name, 0) + factor
        return Affine(self.const + other.const, tuple(sorted((n, f) for n, f in total.items() if f)))

    def __mul__(self, factor: int) -> Affine:
        if factor == 0:
            return ZERO
        return Affine(self.const * factor, tuple((n, f * factor) for n, f in self.terms))

    def factor(self, name: str) -> int:
        return dict(self.terms).get(name, 0)

    def substitute(self, values: Mapping[str, Affine]) -> Affine:
        total = Affine(self.const)
        for name, factor in self.terms:
            total = total + values.get(name, Affine.var(name)) * factor
        return total

    def __str__(self) -> str:
        parts = [name if factor == 1 else f"{factor}*{name}" for name, factor in self.terms]
        if self.const or not parts:
            parts.append(str(self.const))
        return " + ".join(parts).replace("+ -", "- ")


ZERO = Affine()
Index = tuple[Affine, ...]


def strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides, in elements, of a contiguous array."""
    found, step = [], 1
    for n in reversed(shape):
        found.append(step)
        step *= n
    return tuple(reversed(found))


def dot(index: Iterable[Affine], factors: Iterable[int]) -> Affine:
    """Return the offset of `index` in an array with these strides."""
    total = ZERO
    for i, f in zip(index, factors, strict=True):
        total = total + i * f
    return total


def matching_groups(a: Sequence[int], b: Sequence[int]) -> list[tuple[range, range]] | None:
    """Cut two shapes of one size into the smallest runs of axes with equal products; None for empty arrays."""
    groups: list[tuple[range, range]] = []
    i = j = 0
    while i < len(a) or j < len(b):
        i0, j0 = i, j
        left = a[i] if i < len(a) else 1
        right = b[j] if j < len(b) else 1
        i, j = min(i + 1, len(a)), min(j + 1, len(b))
        while left != right:
            if left < right and i < len(a):
                left, i = left * a[i], i + 1
            elif right < left and j < len(b):
                right, j = right * b[j], j + 1
            else:
                return None
        groups.append((range(i0, i), range(j0, j)))
    return groups


def through_reshape(index: Index, result: Sequence[int], source: Sequence[int]) -> Index | None:
    """Return the index into `source` for an index into `reshape(source) -> result`, or None when it is not affine."""
    groups = matching_groups(result, source)
    if groups is None:
        return None
    found: list[Affine] = [ZERO] * len(source)
    for mine, theirs in groups:
        wide = [a for a in theirs if source[a] != 1]
        inner = [result[a] for a in mine]
        if len(wide) == 1:
            found[wide[0]] = dot([index[a] for a in mine], strides(inner))
        elif len(wide) > 1:
            real = [a for a in mine if result[a] != 1]
            if [result[a] for a in real] != [source[a] for a in wide]:
                return None
            for a, b in zip(real, wide, strict=True):
                found[b] = index[a]
    return tuple(found)
