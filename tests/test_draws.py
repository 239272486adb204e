"""Random numbers drawn while a function is traced are refused; what seeds itself, or draws nothing, is not."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracegrad as tg
from tracegrad.errors import TracerError

RNG = np.random.default_rng(5)
OLD = np.random.RandomState(5)
X = np.zeros(3)


class Noisy:
    def __init__(self) -> None:
        self.generator = np.random.default_rng(1)

    def __call__(self, x: Any) -> Any:
        return x + self.generator.uniform(size=3)


def through_another(x: Any) -> Any:
    return with_global_generator(x) * 2.0


def with_global_generator(x: Any) -> Any:
    return x + RNG.normal(size=3)


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "np.random": (lambda x: x + np.random.randn(3), "np.random"),
    "many": (lambda x: x + np.random.rand(100_000).mean(), "np.random"),
    "random": (lambda x: x + random.random(), "random"),
    "generator": (with_global_generator, "RNG"),
    "another function": (through_another, "RNG"),
    "state": (lambda x: x + OLD.rand(3), "OLD"),
    "attribute": (Noisy(), "generator"),
}


@pytest.mark.parametrize(("function", "name"), REFUSED.values(), ids=REFUSED)
def test_draws_are_refused(function: Callable[..., Any], name: str) -> None:
    for transformed in (tg.jit(function), tg.grad(lambda x: function(x).sum())):
        with pytest.raises(TracerError, match=f"random numbers of .*({name}).* were drawn while") as caught:
            transformed(X)
        assert "fix: draw them outside and pass them as an argument" in str(caught.value)
    with tg.eager():
        assert not np.array_equal(tg.jit(function)(X), tg.jit(function)(X))  # nothing is kept


def test_a_generator_as_a_static_argument_is_refused() -> None:
    with pytest.raises(TracerError, match="random numbers of generator were drawn"):
        tg.jit(lambda x, generator: x + generator.normal(), static="generator")(X, np.random.default_rng(0))


def seeded(x: Any) -> Any:
    np.random.seed(3)
    random.seed(4)
    return x + np.random.randn(3) + random.random() + np.random.default_rng(2).normal(size=3)


def test_what_seeds_itself_is_as_in_numpy() -> None:
    np.random.seed(3)  # the state that the function starts from as well
    np.testing.assert_array_equal(tg.jit(seeded)(X), seeded(X))
    after = np.random.rand()
    tg.jit(seeded)(X)
    assert np.random.rand() == after  # the state is left as NumPy's own call leaves it


def test_draws_of_other_threads_are_theirs() -> None:
    """A thread that prepares data draws from the global generators all the time."""
    stop, started = threading.Event(), threading.Event()

    def draw() -> None:
        while not stop.is_set():
            np.random.rand(), random.random(), RNG.normal()
            started.set()

    thread = threading.Thread(target=draw)
    thread.start()
    started.wait()
    try:
        for k in range(3):
            assert tg.jit(lambda x, k=k: x + k if RNG is not None else x)(X).tolist() == [k] * 3
        for function, _ in REFUSED.values():
            with pytest.raises(TracerError, match="were drawn while"):
                tg.jit(function)(X)
    finally:
        stop.set()
        thread.join()


def test_the_generator_of_a_seeded_thread_is_left_alone() -> None:
    np.random.seed(7)
    wanted = np.random.rand(6).tolist()
    np.random.seed(7)
    drawn: list[float] = []
    begin, done = threading.Event(), threading.Event()

    def draw() -> None:
        begin.wait()
        drawn.extend(np.random.rand(3))
        done.set()

    def slow(x: Any) -> Any:
        begin.set()
        done.wait()
        return x + 1.0

    thread = threading.Thread(target=draw)
    thread.start()
    tg.jit(slow)(X)
    thread.join()
    assert [*drawn, *np.random.rand(3)] == wanted


def test_other_functions_leave_the_generators_alone() -> None:
    states = np.random.get_state()[1].tolist(), random.getstate()
    assert tg.jit(lambda x: x + 1.0 if RNG is not None else x)(X).tolist() == [1.0] * 3
    with pytest.raises(TracerError):
        tg.jit(with_global_generator)(X)
    with pytest.raises(TracerError):
        tg.jit(lambda x: np.random.randn(3) + x)(X)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == states
