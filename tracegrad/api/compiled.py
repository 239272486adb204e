"""Ahead of time: `tg.compile` fixes the signature and returns a program with everything there is to look at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tracegrad import lazy, tree
from tracegrad.api import retrace
from tracegrad.api.function import MISS, Function, Parts, Static
from tracegrad.api.signature import Arguments, exact_keys, without_layout
from tracegrad.api.transform import Jit
from tracegrad.errors import ArgumentError
from tracegrad.ir import Graph
from tracegrad.runtime.executable import Executable

if TYPE_CHECKING:
    from pathlib import Path

    from tracegrad.api import bound, saved
    from tracegrad.runtime import profile as profiling
else:
    bound = lazy.module("tracegrad.api.bound")
    saved = lazy.module("tracegrad.api.saved")
    profiling = lazy.module("tracegrad.runtime.profile")


def missed(args: Any) -> Any:
    """Stand for the short way of a call that cannot take it: some arguments are static."""
    return MISS


class Compiled:
    """A function compiled for one signature. Call it like the function; other shapes or dtypes raise ShapeError.

    `graph` prints the traced program, `schedule` its kernels and every refused fusion, `source` the loop nests as
    Python, `timings` the seconds of each stage; `kernels` and `arena_bytes` count. The stages are trace, adjoint, key,
    simplify, schedule, import, library, emit, optimise, generate, load; a program that the cache has goes from key to
    load.
    """

    def __init__(self, parts: Parts):
        self._parts = parts
        self._function = parts.function
        self._specialised = parts.specialised
        self._parameters = parts.parameters
        self._direct = missed if parts.static else parts.specialised.direct
        watch = parts.specialised.watch
        self._watch = watch if watch is not None and watch.variables else None
        self._treedef = parts.treedef
        self._static = parts.static
        self.__name__ = parts.name

    def __reduce__(self) -> Any:
        raise ArgumentError(
            f"pickle: {self.__name__} is a compiled program", fix="save it with program.save(path), and tg.load(path)"
        )

    def __copy__(self) -> Compiled:
        return self

    def __deepcopy__(self, memo: Any) -> Compiled:
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._watch is not None:
            self.check_outside(self._watch.key())
        if not kwargs and (found := self._direct(args)) is not MISS:
            return found
        return self._specialised(self.matching(args, kwargs).leaves)

    def matching(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Take a call apart, and refuse it when its structure or static values are not those compiled for."""
        arguments = self._parameters.split(args, kwargs)
        static = arguments.static, exact_keys(arguments.static)
        if arguments.treedef != self._treedef or static != (self._static, exact_keys(self._static)):
            raise self.refusal(arguments)
        return arguments

    def check_outside(self, now: tuple[Any, ...]) -> None:
        """Refuse a call when a value that is fixed in the program is another one now."""
        then = self._specialised.environment
        if now != then and tuple(map(without_layout, now)) != tuple(map(without_layout, then)):
            text = "; ".join(retrace.outside_differences(then, now))
            raise ArgumentError(
                f"{self.__name__}: {text}, but the program was compiled for what it was",
                fix="pass it as an argument, or compile again (tg.jit does by itself)",
            )

    def refusal(self, arguments: Arguments) -> ArgumentError:
        """Say how a call differs in structure, or in its static values, from the one that was compiled."""
        if arguments.treedef == self._treedef:
            ours, theirs = (", ".join(f"{k}={v!r}" for k, v in values) for values in (self._static, arguments.static))
            return ArgumentError(
                f"{self.__name__}: compiled for the static values {ours} but called with {theirs}",
                fix="pass the same static values, or compile again",
            )
        ours, theirs = (", ".join(self._parameters.leaf_names(t)) for t in (self._treedef, arguments.treedef))
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

    def profile(self, *args: Any, **kwargs: Any) -> profiling.Profile:
        """Time every step of the program on copies of these arguments; the result prints as a table, slowest first."""
        arguments = self._parameters.split(args, kwargs)
        captured = [source.read() for source in self._specialised.captures]
        return profiling.profile(self._specialised.program, [*arguments.leaves, *captured])

    def bind(self, *args: Any, **kwargs: Any) -> bound.Bound:
        """Fix the arguments: the result is called without any, reads these buffers, and returns the same arrays anew.

        Everything is checked once, here; captured arrays are read here, too. Arrays must be stored as the program reads
        them: in C order, or as its examples were. Raises the errors of a call.

        >>> import numpy as np, tracegrad as tg
        >>> x = np.zeros(2)
        >>> bound = tg.compile(lambda x: x + 1.0, x).bind(x)
        >>> x += 5.0
        >>> bound()
        array([6., 6.])
        """
        if self._watch is not None:
            self.check_outside(self._watch.key())
        arguments = self.matching(args, kwargs)
        executable = self._specialised.program.executable
        if not isinstance(executable, Executable):
            raise ArgumentError("bind: this back end has no native code", fix='compile with backend="cpu"')
        values = [*arguments.leaves, *[source.read() for source in self._specialised.captures]]
        return bound.Bound(executable, values, lambda leaves: tree.unflatten(self._specialised.out_tree, leaves))

    def save(self, path: str | Path, levels: Sequence[str] = ()) -> None:
        """Write the program to a file that `tg.load` runs without its source, without tracing and without Numba.

        The file holds object code for this machine's CPU and for `levels` of x86-64 (`"x86-64-v2"`, `"x86-64-v3"`,
        `"x86-64-v4"`), with the library kernels that it calls, and the graph's text. Captured arrays are kept in it
        with the values they have now. The file takes its place in one move: an interrupted save leaves the old one.
        Raises ArtefactError when a class of the arguments or results cannot be found by its name, when a static value
        cannot be written, or when the disk is full.

        >>> import os, tempfile, numpy as np, tracegrad as tg
        >>> path = os.path.join(tempfile.mkdtemp(), "double.tgx")
        >>> tg.compile(lambda x: 2.0 * x, tg.spec(3)).save(path)
        >>> tg.load(path)(np.arange(3.0))
        array([0., 2., 4.])
        """
        saved.save(self._parts, path, levels)

    def export_c(self, folder: str | Path, name: str = "") -> Path:
        """Write `lib<name>.so` and `<name>.h`: the program as one C function that needs no Python; return the library.

        The header documents the function: pointers to the arguments and results in order, donated arguments being
        results, too. It runs on its caller's thread. Captured arrays are kept in the library with the values they have
        now. Raises ArtefactError without a C compiler (`cc`, `gcc` or `clang`) to link with.

            path = tg.compile(step, w, x, donate=("w",)).export_c("build", "step")
            gcc main.c build/libstep.so -Wl,-rpath,build       # int64_t step(float *w, const float *x, float *loss);
        """
        return saved.export_c(self._parts, folder, name)

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

    The program reads arrays that lie in memory as their examples do (transposed, or as the first columns of wider
    rows), and copies others at each call; specs stand for C order, and donated arrays are in C order.

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
    specialised = function.specialise(arguments, donate=donated, smallest=0)
    parts = Parts(function, function.__name__, function.parameters, specialised, arguments.treedef, arguments.static)
    return Compiled(parts)


def load(path: str | Path, strict: bool = False) -> Compiled:
    """Return the program that `compiled.save(path)` wrote.

    Its results have the structure they had; classes in it are imported by name. On a CPU that the file has no object
    code for, or with another run time, the program is compiled again from its graph, with a warning that says why;
    `strict=True` refuses instead. Raises ArtefactError for a file that is damaged, cut off, or of another format. A
    file holds native code: load only what you trust as you trust a program.

    >>> import os, tempfile, numpy as np, tracegrad as tg
    >>> path = os.path.join(tempfile.mkdtemp(), "slope.tgx")
    >>> tg.compile(tg.grad(lambda x: x * x), 1.0).save(path)
    >>> tg.load(path, strict=True)(3.0)
    np.float64(6.0)
    """
    return Compiled(saved.load(path, strict))
