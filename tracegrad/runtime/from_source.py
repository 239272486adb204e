"""Programs that run from their printed source, slowly: `backend="python-source"` and `backend="numba-source"`.

They share schedule and memory with compiled programs: a difference between the two is a defect of code generation.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

from tracegrad.config import config
from tracegrad.errors import ArgumentError
from tracegrad.ir import Graph
from tracegrad.ir.aval import NAMES, is_half
from tracegrad.passes.simplify import simplify
from tracegrad.runtime.compiling import grain
from tracegrad.runtime.executable import Facts
from tracegrad.schedule.memory import Memory, assign_memory
from tracegrad.schedule.plan import Plan, build_plan


class SourceExecutable:
    """A schedule whose kernels are the printed functions."""

    def __init__(self, graph: Graph, donate: Sequence[int], backend: str):
        if backend == "numba-source" and any(is_half(n.dtype) for n in (*graph.inputs, *graph.nodes)):
            raise ArgumentError(
                "backend='numba-source' has no half precision: Numba cannot compute with it",
                fix="use backend='python-source', or the default",
            )
        self.plan: Plan = build_plan(simplify(graph), config.threads, grain)
        self.memory: Memory = assign_memory(self.plan, donate)
        reference = importlib.import_module("tracegrad.codegen.reference")  # imports Numba: only where it is asked for
        self.run = reference.Reference(self.plan, self.memory, backend)
        self.names: list[str] = []
        donated = self.memory.donated
        self.facts = Facts(
            inputs=[(NAMES[n.dtype], list(n.shape)) for n in graph.inputs],
            outputs=[(NAMES[o.dtype], list(o.aval.shape), donated.get(i, -1)) for i, o in enumerate(graph.outputs)],
            arena_bytes=self.memory.arena_bytes,
            temporary_bytes=self.memory.arena_bytes,
            families=[],
            threads=config.threads,
            checks=[],
            steps=[step.name for step in self.plan.steps],
            kernels=len(self.plan.steps),
            refusals=[str(r) for r in self.plan.refusals],
            parallel=False,
            narrowed=[],
            layouts=[None] * len(graph.inputs),
        )

    def __call__(self, values: Sequence[Any]) -> list[Any]:
        found: list[Any] = self.run(values)
        return found
