"""From a graph to something to call: from memory, from the cache on disk, or compiled now."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tracegrad import lazy
from tracegrad.config import config
from tracegrad.errors import CompileError, TracegradError
from tracegrad.ir import Graph
from tracegrad.ir.key import key_text
from tracegrad.ir.layout import Layout
from tracegrad.ir.text import show
from tracegrad.runtime import cache, identity
from tracegrad.runtime.executable import Executable, Facts
from tracegrad.runtime.objects import ObjectError

if TYPE_CHECKING:
    from tracegrad.codegen import program as emitter
    from tracegrad.runtime import compiling, from_source
    from tracegrad.schedule.memory import Memory
    from tracegrad.schedule.plan import Plan
else:  # rewrites, schedule and code generation: only where something must be compiled
    compiling = lazy.module("tracegrad.runtime.compiling")
    emitter = lazy.module("tracegrad.codegen.program")
    from_source = lazy.module("tracegrad.runtime.from_source")

SOURCE_BACKENDS = ("python-source", "numba-source")


class Program:
    """A compiled graph. Calling it takes the graph's inputs in order and returns a list of results.

    `graph` is what was compiled, before simplification; `timings` are seconds per stage; `kernels`, `arena_bytes` and
    `schedule` describe the schedule; `source` is made when asked for.
    """

    def __init__(
        self,
        graph: Graph | Callable[[], Graph],
        executable: Executable | from_source.SourceExecutable,
        timings: dict[str, float],
        donate: Sequence[int],
        *,
        text: str = "",
    ):
        self._graph = graph
        self._text = text
        self.executable = executable
        self.timings = timings
        self.donate = tuple(donate)
        self._planned: tuple[Plan, Memory] | None = None

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        return self.executable(inputs)

    @property
    def graph(self) -> Graph:
        """The graph; that of a program from a file is read when it is asked for."""
        if not isinstance(self._graph, Graph):
            self._graph = self._graph()
        return self._graph

    @property
    def text(self) -> str:
        """The graph as text, with the user's lines."""
        return self._text or show(self.graph, lines=True)

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """How the inputs are stored."""
        found = self.executable.facts.layouts
        return tuple(None if layout is None else tuple(layout) for layout in found)

    @property
    def kernels(self) -> int:
        """Kernels and library calls of one run."""
        return self.executable.facts.kernels

    @property
    def arena_bytes(self) -> int:
        """Bytes of one run's memory beside arguments and results, scratch of library kernels included."""
        return self.executable.facts.arena_bytes

    def planned(self) -> tuple[Plan, Memory]:
        if self._planned is None:
            self._planned = compiling.planned(self.graph, self.donate, self.layouts)
        return self._planned

    @property
    def source(self) -> str:
        """The loop nests as Python source."""
        plan, memory = self.planned()
        return str(emitter.show_source(plan, memory))

    @property
    def schedule(self) -> str:
        """The steps in order, then every fusion that was refused with its reason."""
        facts = self.executable.facts
        lines = [f"{facts.kernels} steps, arena {facts.arena_bytes} bytes ({facts.temporary_bytes} for values)"]
        lines += [f"  {i}: {step}" for i, step in enumerate(facts.steps)]
        lines += ["not fused:", *(f"  {r}" for r in facts.refusals)] if facts.refusals else []
        return "\n".join(lines)

    def summary(self) -> str:
        stages = ", ".join(f"{k} {v * 1e3:.0f} ms" for k, v in self.timings.items())
        return f"{self.kernels} kernels, {self.arena_bytes} bytes: {stages}"


def build(
    graph: Graph,
    *,
    donate: Sequence[int] = (),
    names: Sequence[str] = (),
    backend: str = "cpu",
    layouts: Sequence[Layout] = (),
) -> Program:
    """Return the program of a graph: simplify, schedule, emit, load; or take it from the cache.

    Inputs with one of `layouts` are read as they are stored, all others in C order: donated ones, too, and those of
    back ends that run from source.
    """
    if backend in SOURCE_BACKENDS:
        return Program(graph, from_source.SourceExecutable(graph, donate, backend), {}, donate)
    if backend != "cpu":
        raise CompileError(f"backend: {backend!r} is not known", fix='use backend="cpu"')
    layouts = settled(layouts, len(graph.inputs), donate)
    timings: dict[str, float] = {}
    began = time.perf_counter()
    text = key_text(graph, lines=has_checks(graph))
    settings = (
        f"donate={tuple(donate)} threads={config.threads} fast_math={config.fast_math} "
        f"epilogues={config.epilogues} winograd={config.winograd} layouts={layouts}"
    )
    key = identity.entry_key([text, settings])
    found = cache.load(key)
    timings["key"] = time.perf_counter() - began
    if found is not None:
        began = time.perf_counter()
        try:
            executable = Executable(Facts(**found[0]), found[1], names)
            timings["load"] = time.perf_counter() - began
            return Program(graph, executable, timings, donate)
        except (ObjectError, TypeError, KeyError, ValueError):
            pass
    try:
        facts, data, plan, memory = compiling.compile_graph(graph, donate, layouts, timings)
        cache.store(key, facts.as_json(), data, f"program {graph.name}")
        began = time.perf_counter()
        program = Program(graph, Executable(facts, data, names), timings, donate)
    except TracegradError:
        raise
    except Exception as error:  # whatever fails in LLVM or Numba reaches the user as one error of ours
        raise CompileError(
            f"compiling {graph.name} failed: {type(error).__name__}: {error}",
            fix="run it in tg.eager() for now, and report this with the graph's text",
        ) from error
    program._planned = plan, memory
    timings["load"] = time.perf_counter() - began
    return program


def settled(layouts: Sequence[Layout], count: int, donate: Sequence[int]) -> tuple[Layout, ...]:
    """Return one layout per input: results take over donated arrays, and are in C order."""
    every = (*layouts, *[None] * (count - len(layouts)))
    return tuple(None if i in donate else layout for i, layout in enumerate(every))


def has_checks(graph: Graph) -> bool:
    """Say whether running the graph can raise an error that names a line: then the lines belong to its identity."""
    return any(n.prim.kind in ("gather", "scatter", "control") for n in graph.nodes)
