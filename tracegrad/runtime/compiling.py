"""From a graph to object code: simplify, schedule, emit. Imported when something must be compiled, not at start."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tracegrad.codegen.calls import block_grain
from tracegrad.config import config
from tracegrad.ir import Graph, Node, Operand
from tracegrad.ir.aval import NAMES
from tracegrad.ir.layout import Layout
from tracegrad.ops.control import cond, scan, while_loop
from tracegrad.ops.custom import custom
from tracegrad.ops.elementwise import convert
from tracegrad.passes.simplify import simplify
from tracegrad.passes.stored import as_stored
from tracegrad.runtime import building, library
from tracegrad.runtime.executable import Facts
from tracegrad.runtime.joining import join
from tracegrad.schedule.memory import Memory, assign_memory
from tracegrad.schedule.plan import Plan, build_plan


def grain(node: Node) -> int:
    """Return what the scheduler asks about the blocks of a library call."""
    return block_grain(node, config.threads)


def planned(graph: Graph, donate: Sequence[int], layouts: Sequence[Layout]) -> tuple[Plan, Memory]:
    """Return the schedule of a graph, and where its buffers live."""
    plan = build_plan(simplify(as_stored(graph, layouts)), config.threads, grain)
    return plan, assign_memory(plan, donate)


def narrowed_inputs(graph: Graph) -> list[tuple[int, str]]:
    """Return the integer scalars among the inputs that are converted to a narrower integer dtype, with that dtype."""
    numbers = {n: i for i, n in enumerate(graph.inputs) if not n.shape and n.dtype == np.int64}
    return sorted(narrowings(graph, numbers))


def narrowings(graph: Graph, numbers: Mapping[Node, int]) -> set[tuple[int, str]]:
    """Return what `narrowed_inputs` does, for nodes that are inputs of these numbers; bodies are looked into, too."""
    found = set()
    for node in graph.nodes:
        if node.prim is convert and node.dtype.kind in "iu" and node.dtype != np.int64:
            found |= {(numbers[o], NAMES[node.dtype]) for o in node.nodes() if o in numbers}
        for inner, operands in inner_graphs(node):
            pairs = zip(inner.inputs, operands, strict=True)
            handed_in = {n: numbers[o] for n, o in pairs if isinstance(o, Node) and o in numbers}
            if handed_in:
                found |= narrowings(inner, handed_in)
    return found


def inner_graphs(node: Node) -> Iterator[tuple[Graph, Sequence[Operand]]]:
    """Give the graphs that a primitive of control flow runs, each with the operands of its first round."""
    operands, params = node.operands, node.params
    if node.prim is cond:
        for branch in params["branches"]:
            yield branch, operands[1:]
    elif node.prim is scan or node.prim is custom:
        yield params["body"], operands
    elif node.prim is while_loop:
        _, carry, xs, consts = while_loop.parts(operands, params["condition"], params["n_carry"], params["n_xs"])
        yield params["body"], (*carry, *xs, *consts)
        if params["condition"] is not None:
            yield params["condition"], (*carry, *consts)


def compile_graph(
    graph: Graph,
    donate: Sequence[int],
    layouts: Sequence[Layout],
    timings: dict[str, float],
    *,
    profile: bool = False,
    load: bool = True,
) -> tuple[Facts, bytes, Plan, Memory]:
    """Compile a graph to object code, and `load` the library kernels that it calls."""
    began = time.perf_counter()
    simple = simplify(as_stored(graph, layouts))
    timings["simplify"] = time.perf_counter() - began
    began = time.perf_counter()
    plan = build_plan(simple, config.threads, grain)
    timings["schedule"] = time.perf_counter() - began
    began = time.perf_counter()
    emitter = importlib.import_module("tracegrad.codegen.program")  # imports Numba: only on a cache miss
    timings["import"] = time.perf_counter() - began
    with building.Workers() as workers:
        emitted = emitter.emit(plan, donate, config.threads, workers, profile=profile, announce=building.start)
        families = ["pool", *emitted.families]
        if load:
            timings["library"] = library.ensure(families)
        else:  # they stay in the cache, for the file that is written
            for family in families:
                library.object_of(family)
    memory = emitted.memory
    timings.update(emitted.timings)
    checks = []
    for node, size in plan.checks.values():
        where = node.where
        name = "index" if node.prim.kind == "gather" else "index update"
        checks.append((name, size, where.file if where else "", where.line if where else 0))
    facts = Facts(
        inputs=[(NAMES[n.dtype], list(n.shape)) for n in graph.inputs],
        outputs=[
            (NAMES[o.dtype], list(o.aval.shape), memory.donated.get(i, -1)) for i, o in enumerate(graph.outputs)
        ],
        arena_bytes=emitted.arena_bytes,
        temporary_bytes=memory.arena_bytes,
        families=list(emitted.families),
        threads=config.threads,
        checks=checks,
        steps=list(emitted.steps),
        kernels=len(plan.steps),
        refusals=[str(r) for r in plan.refusals],
        parallel=emitted.parallel,
        narrowed=narrowed_inputs(graph),
        layouts=[None if found is None else list(found) for found in layouts],
    )
    return facts, join(emitted.objects, ["tg_entry"]), plan, memory
