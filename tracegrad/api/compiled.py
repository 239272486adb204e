"""Ahead of time: `tg.compile` fixes the signature and returns a program with everything there is to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracegrad import tree
from tracegrad.api.function import Function, Specialised, Static
from tracegrad.api.signature import Arguments
from tracegrad.api.transform import Jit
from tracegrad.errors import ArgumentError
from tracegrad.ir import Graph
from tracegrad.runtime.profile import Profile, profile


class Compiled:
    """A function compiled for one signature. Call it like the function; other shapes or dtypes raise ShapeError.

    `graph` prints the traced program, `schedule` its kernels and every refused fusion, `source` the loop nests as
    Python, `timings` the seconds of each stage; `kernels` and `arena_bytes` count.
    """

    def __init__(
        self, function: Function, specialised: Specialised, treedef: tree.TreeDef, static: Any, names: list[str]
    ):
        self._function = function
        self._specialised = specialised
        self._treedef = treedef
        self._static = static
        self._names = names
        self.__name__ = getattr(function.fn, "__name__", "compiled")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arguments = self._function.parameters.split(args, kwargs)
        if arguments.treedef != self._treedef or arguments.static != self._static:
            raise self.refusal(arguments)
        return self._specialised(arguments.leaves)

    def refusal(self, arguments: Arguments) -> ArgumentError:
        """Say how a call differs in structure, or in its static values, from the one that was compiled."""
        if arguments.treedef == self._treedef:
            ours, theirs = (", ".join(f"{k}={v!r}" for k, v in values) for values in (self._static, arguments.static))
            return ArgumentError(
                f"{self.__name__}: compiled for the static values {ours} but called with {theirs}",
                fix="pass the same static values, or compile again",
            )
        ours, theirs = ", ".join(self._names), ", ".join(self._function.parameters.leaf_names(arguments.treedef))
        if ours == theirs:
            ours, theirs = str(self._treedef), str(arguments.treedef)
        return ArgumentError(
            f"{self.__name__}: compiled for the arguments ({ours}) but called with ({theirs})",
            fix="pass the same pytrees, or compile again",
        )

    @property
    def graph(self) -> Graph:
        return self._specialised.program.graph

    @property
    def schedule(self) -> str:
        return self._specialised.program.schedule

    @property
    def source(self) -> str:
        return self._specialised.program.source

    @property
    def timings(self) -> dict[str, float]:
        return self._specialised.program.timings

    @property
    def kernels(self) -> int:
        return self._specialised.program.kernels

    @property
    def arena_bytes(self) -> int:
        return self._specialised.program.arena_bytes

    def profile(self, *args: Any, **kwargs: Any) -> Profile:
        """Time every step of the program on copies of these arguments; the result prints as a table, slowest first."""
        arguments = self._function.parameters.split(args, kwargs)
        captured = [source.read() for source in self._specialised.captures]
        return profile(self._specialised.program, [*arguments.leaves, *captured])

    def __repr__(self) -> str:
        return f"<compiled {self.__name__}: {self._specialised.program.summary()}>"


def compile(  # noqa: A001 (the name users know)
    fn: Callable[..., Any],
    *examples: Any,
    donate: Sequence[str] | str = (),
    static: Static = (),
    backend: str = "cpu",
    **keywords: Any,
) -> Compiled:
    """Compile `fn` now, for arguments like `examples` (arrays, numbers, or `tg.spec(shape, dtype)`).

    `donate` names arguments whose arrays may be overwritten: a result of the same shape and dtype takes over their
    memory, and the donated array is what the call returns. A donated array that is read-only, or shares memory with
    another argument, is refused; a strided one is copied. Nothing is executed here.

    >>> import numpy as np, tracegrad as tg
    >>> step = tg.compile(lambda w, g: w - 0.1 * g, tg.spec((2,)), tg.spec((2,)), donate=("w",))
    >>> w = np.ones(2)
    >>> step(w, np.ones(2)) is w, w
    (True, array([0.9, 0.9]))
    """
    function = fn if isinstance(fn, Function) else Function(fn, Jit(), static=static, backend=backend)
    arguments = function.parameters.split(examples, keywords)
    names = function.parameters.leaf_names(arguments.treedef)
    chosen = {donate} if isinstance(donate, str) else set(donate)
    donated = []
    matched = set()
    for position, path in enumerate(arguments.treedef.paths()):
        name = function.parameters.name(path[1]) if path[0] == 0 else path[1]
        if name in chosen:
            donated.append(position)
            matched.add(name)
    if missing := chosen - matched:
        raise ArgumentError(
            f"compile: donate={sorted(missing)} names no array argument of {function.__name__}",
            fix=f"choose from {function.parameters.names}",
        )
    specialised = function.specialise(arguments, donate=donated)
    return Compiled(function, specialised, arguments.treedef, arguments.static, names)
