"""Journals of changes in place: what a piece of the user's code has changed can be taken back, and be made again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar


class Changing(Protocol):
    """What can be changed: an array's memory (`tracegrad.memory.Memory`)."""

    def state(self) -> tuple[Any, ...]: ...

    def restore(self, state: tuple[Any, ...]) -> None: ...


AnyMemory = TypeVar("AnyMemory", bound=Changing)


class Journal:
    """The arrays that a piece of the user's code changes in place, to take the changes back and to make them again."""

    def __init__(self) -> None:
        self.states: dict[Changing, tuple[Any, ...]] = {}

    def note(self, memory: Changing) -> None:
        if memory not in self.states:
            self.states[memory] = memory.state()

    def exchange(self) -> None:
        """Let the arrays be what they were; the next time, what they are now."""
        for memory, state in self.states.items():
            self.states[memory] = memory.state()
            memory.restore(state)


JOURNALS: ContextVar[tuple[Journal, ...]] = ContextVar("tracegrad_journals", default=())


@contextmanager
def journal(found: Journal) -> Iterator[Journal]:
    """Note the changes in place that are made in this block."""
    token = JOURNALS.set((*JOURNALS.get(), found))
    try:
        yield found
    finally:
        JOURNALS.reset(token)


def about_to_change(memory: AnyMemory) -> AnyMemory:
    """Note an array in the open journals before it changes; return it."""
    for found in JOURNALS.get():
        found.note(memory)
    return memory
