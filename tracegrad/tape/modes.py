"""Switching the recording of gradients on and off: `no_grad`, `enable_grad`, `set_grad_enabled`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextvars import Token
from types import TracebackType
from typing import Any

from tracegrad.trace import STATE, State


def is_grad_enabled() -> bool:
    """Tell whether operations on tensors are recorded here.

    >>> is_grad_enabled()
    True
    """
    return STATE.get().grad_off < 0


def switched(enabled: bool) -> State:
    """Return the state of this context with recording on or off."""
    state = STATE.get()
    off = -1 if enabled else len(state.traces)
    return state if state.grad_off == off else State(state.traces, state.eager, state.rules, off)


class GradMode:
    """A context manager and a decorator that sets the mode inside, and restores it afterwards."""

    def __init__(self, enabled: bool):
        self._enabled = enabled
        self._tokens: list[Token[State]] = []

    def __enter__(self) -> None:
        self._tokens.append(STATE.set(switched(self._enabled)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        STATE.reset(self._tokens.pop())

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Run `fn` in this mode; a generator is resumed in it each time."""
        enabled = self._enabled

        @functools.wraps(fn)
        def inside(*args: Any, **kwargs: Any) -> Any:
            with GradMode(enabled):
                return fn(*args, **kwargs)

        @functools.wraps(fn)
        def resumed(*args: Any, **kwargs: Any) -> Any:
            generator = fn(*args, **kwargs)
            sent = None
            while True:
                try:
                    with GradMode(enabled):
                        found = generator.send(sent)
                except StopIteration as stop:
                    return stop.value
                sent = yield found

        return resumed if inspect.isgeneratorfunction(fn) else inside


class no_grad(GradMode):  # noqa: N801 (PyTorch's name)
    """Record nothing inside: results of operations on tensors have no gradients. A context manager and a decorator.

    Inside a traced function it makes constants of what is computed in the block, so compiled code has the same
    gradients.

    >>> import tracegrad as tg
    >>> w = tg.tensor(2.0, requires_grad=True)
    >>> with tg.no_grad():
    ...     y = w * 3.0
    >>> y.requires_grad
    False
    """

    def __new__(cls, fn: Callable[..., Any] | None = None) -> Any:
        return super().__new__(cls) if fn is None else GradMode(False)(fn)

    def __init__(self) -> None:
        super().__init__(False)


class enable_grad(GradMode):  # noqa: N801 (PyTorch's name)
    """Record inside, also where `no_grad` is on around it. A context manager and a decorator.

    >>> import tracegrad as tg
    >>> w = tg.tensor(2.0, requires_grad=True)
    >>> with tg.no_grad(), tg.enable_grad():
    ...     y = w * 3.0
    >>> y.requires_grad
    True
    """

    def __new__(cls, fn: Callable[..., Any] | None = None) -> Any:
        return super().__new__(cls) if fn is None else GradMode(True)(fn)

    def __init__(self) -> None:
        super().__init__(True)


class set_grad_enabled(GradMode):  # noqa: N801 (PyTorch's name)
    """Switch recording on or off at once; as a context manager also back again at the end.

    >>> import tracegrad as tg
    >>> with tg.set_grad_enabled(False):
    ...     tg.is_grad_enabled()
    False
    """

    def __init__(self, mode: bool):
        super().__init__(bool(mode))
        self._tokens.append(STATE.set(switched(self._enabled)))

    def __enter__(self) -> None:
        """The mode was set when this was made."""

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        STATE.reset(self._tokens.pop())
        return super().__call__(fn)
