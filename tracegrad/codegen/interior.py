"""The interior of a loop: the rounds in which guards hold, so that they need not be asked.

What is read through padding (the gradient of a slice, a stencil with a border) is guarded in every round, though only
rounds near the ends have anything to guard. Such a loop runs as three: before, inside, after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tracegrad.schedule.index import Affine
from tracegrad.schedule.kernel import Load, Stmt, Store, Test

Condition = tuple[Affine, int, int]
SHORTEST = 16
"""Loops of fewer rounds are not cut: the code of three takes longer to compile than it saves."""


@dataclass(frozen=True)
class Interior:
    """Rounds `max(first) <= var < min(end)`, if all of `always` hold: then all of `holds` do."""

    holds: frozenset[Condition]
    first: tuple[Affine, ...]
    end: tuple[Affine, ...]
    always: tuple[Condition, ...]


def conditions(body: Sequence[Stmt]) -> Iterator[Condition]:
    for s in body:
        if isinstance(s, (Load, Store, Test)) and s.guard is not None:
            yield from s.guard.conditions


def interior_of(body: Sequence[Stmt], var: str, extent: int) -> Interior | None:
    """Return the interior of an innermost loop over `var`, None if it has no guards or most rounds are near an end."""
    if extent < SHORTEST:
        return None
    made_here = {name for s in body if (name := getattr(s, "name", ""))}
    holds: list[Condition] = []
    always: list[Condition] = []
    first: list[Affine] = []
    end: list[Affine] = []
    for condition in dict.fromkeys(conditions(body)):
        index, low, high = condition
        factor = index.factor(var)
        rest = index + Affine.var(var, -factor)
        if any(name in made_here for name, _ in rest.terms) or factor < 0 or (factor > 1 and rest.terms):
            continue
        holds.append(condition)
        if factor == 0:
            always.append(condition)
        elif factor == 1:
            first.append(rest * -1 + low)
            end.append(rest * -1 + high)
        else:
            first.append(Affine(-((rest.const - low) // factor)))
            end.append(Affine(-((rest.const - high) // factor)))
    least = max((a.const for a in first if not a.terms), default=0)
    most = min((a.const for a in end if not a.terms), default=extent)
    if not holds or 2 * (min(most, extent) - max(least, 0)) < extent:
        return None
    return Interior(frozenset(holds), tuple(dict.fromkeys(first)), tuple(dict.fromkeys(end)), tuple(always))
