"""Random numbers drawn while a function is traced: they would be the same at every call, so they are refused.

Looked at are NumPy's and Python's global generators, and the generators among what the function reads from outside and
its static arguments. A generator that the function makes or seeds itself draws the same numbers in NumPy, too.
What other threads draw meanwhile is theirs: a trace that draws comes out otherwise when it is made again.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import numpy as np

from tracegrad.errors import TracerError
from tracegrad.record import record
from tracegrad.runtime.pool import NAME as POOL_NAME

T = TypeVar("T")
WORDS = 624
"""Words of a Mersenne Twister's state: drawing that many makes the next state."""
FARTHEST = 1 << 14
"""How many states are looked at: beyond, drawing is taken for seeding."""


@record
class Source:
    """A global generator: the module whose functions are its methods, and a class of generators with the same ones."""

    name: str
    module: Any
    kind: Any
    getter: str
    setter: str
    words: Callable[[Any], Any]
    draw: Callable[[Any], Any]
    """Draw as many words from a generator as a state has."""

    def get(self, generator: Any = None) -> Any:
        return getattr(generator or self.module, self.getter)()

    def set(self, state: Any, generator: Any = None) -> None:
        getattr(generator or self.module, self.setter)(state)

    def was_drawn(self, start: Any) -> bool:
        """Say whether the generator has gone on from a state, and was not seeded anew."""
        now = self.words(self.get())
        copy = self.kind(0)
        self.set(start, copy)
        for _ in range(FARTHEST):
            if self.words(self.get(copy)) == now:
                return True
            self.draw(copy)
        return False


def sources(named: bool) -> list[Source]:
    """Return the global generators. NumPy imports its one at its first use, which takes long: when it is there, or
    code names it."""
    found = []
    if named or "numpy.random" in sys.modules:
        words, draw = lambda state: state[1].tobytes(), lambda copy: copy.bytes(4 * WORDS)
        found.append(Source("np.random", np.random, np.random.RandomState, "get_state", "set_state", words, draw))
    if python := sys.modules.get("random"):
        words, draw = lambda state: state[1][:-1], lambda copy: copy.getrandbits(32 * WORDS)
        found.append(Source("random", python, python.Random, "getstate", "setstate", words, draw))
    return found


def frozen(state: Any) -> Any:
    """Return a generator's state as what can be compared."""
    if isinstance(state, dict):
        return tuple((key, frozen(value)) for key, value in sorted(state.items()))
    if isinstance(state, (tuple, list)):
        return tuple(map(frozen, state))
    return state.tobytes() if isinstance(state, np.ndarray) else state


def state_of(value: Any) -> Any:
    """Return the state of a generator; of anything else, None."""
    if "numpy.random" in sys.modules:
        if isinstance(value, np.random.Generator):
            return frozen(value.bit_generator.state)
        if isinstance(value, np.random.RandomState):
            return frozen(value.get_state())
    python: Any = sys.modules.get("random")
    return frozen(value.getstate()) if python is not None and isinstance(value, python.Random) else None


def refusal(name: str, function: str) -> TracerError:
    return TracerError(
        f"{function}: random numbers of {name} were drawn while the function was traced: each call would use the same",
        fix="draw them outside and pass them as an argument, use tracegrad.random with a key, or make the generator "
        "inside with a seed",
    )


def alone() -> bool:
    """Say whether this is the only thread that runs Python: those of the pool do not."""
    return sum(not thread.name.startswith(POOL_NAME) for thread in threading.enumerate()) == 1


def without_draws(
    trace: Callable[[], T],
    same: Callable[[T, T], bool],
    function: str,
    named: bool,
    outside: Callable[[], Iterable[tuple[str, Any]]],
) -> T:
    """Return what `trace` returns; refuse it if it draws from generators of the outside, which are `outside` by name.

    `named` says whether the code has the word "random" in it, `same` whether two traces have come out the same.
    """
    watched = sources(named)
    before = [source.get() for source in watched]
    known = [(name, g, state) for name, g in outside() if (state := state_of(g)) is not None]
    starts, ours = before, alone()
    if ours:  # a state that no seed of the user's leads to, so that seeding is told from drawing
        starts = [source.get(source.kind()) for source in watched]
        for source, start in zip(watched, starts, strict=True):
            source.set(start)
    seeded = set()
    try:
        found = trace()
        changed = [s for s, start in zip(watched, starts, strict=True) if frozen(s.get()) != frozen(start)]
        drawn = [name for name, generator, state in known if state_of(generator) != state]
        if ours and alone():
            seeded = {s.name for s in changed if not s.was_drawn(starts[watched.index(s)])}
            drawn = [s.name for s in changed if s.name not in seeded] + drawn
            suspected = bool(drawn)
        else:
            drawn = [s.name for s in changed] + drawn
            suspected = bool(drawn) and not same(found, trace())
        if suspected:
            raise refusal(drawn[0], function)
        return found
    finally:
        if ours:
            for source, state in zip(watched, before, strict=True):
                if source.name not in seeded:
                    source.set(state)
