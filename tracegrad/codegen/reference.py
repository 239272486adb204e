"""The printed loop nests, run as they stand: by Python, or compiled by Numba from the same text.

This is the reference that compiled programs are compared with. The schedule's memory is kept to the byte: values share
an arena, donated arguments are overwritten, and what nobody has written holds a pattern that shows in the result. The
rounds of a kernel run as a few tasks, the last one first: they must not depend on each other. Library calls, loops
and branches run the eager rule of their primitive.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numba
import numpy as np

from tracegrad.codegen.scalar import numba_namespace, reference_namespace
from tracegrad.codegen.source import identifier, show_kernel
from tracegrad.errors import IndexOutOfBounds
from tracegrad.ir.aval import DTYPES, NAMES, Aval
from tracegrad.schedule.body import buffer_name
from tracegrad.schedule.kernel import Kernel
from tracegrad.schedule.memory import Memory, Place
from tracegrad.schedule.plan import Call, Plan, Region, Step, View

BACKENDS = ("python-source", "numba-source")
UNWRITTEN = 0xC5
"""Every byte of memory before something is written to it."""
TASKS = 3
"""Into how many tasks a kernel is cut."""


def checked(index: Any, size: int, code: int, status: Any) -> Any:
    """Make an index non-negative; a bad one sets the status and becomes 0."""
    place = index + size if index < 0 else index
    if 0 <= place < size:
        return place
    status[0] = code
    return 0


def python_checked(index: Any, size: int, code: int, status: Any) -> int:
    return int(checked(int(index), size, code, status))


def namespace(backend: str) -> dict[str, Any]:
    """Return the names that the source of a kernel uses."""
    found = reference_namespace() if backend == "python-source" else numba_namespace(numba.njit)
    if "bf16" in NAMES.values():
        found["bf16"] = DTYPES["bf16"].type
    found["checked"] = python_checked if backend == "python-source" else numba.njit(checked)
    return {**found, "bool_": np.bool_, "empty": np.empty, "min": min, "range": range, "float": float}


def compile_kernel(kernel: Kernel, backend: str, names: dict[str, Any]) -> Callable[..., None]:
    """Return the function that the source of a kernel defines."""
    buffers = {name: f"m{number}" for number, name in enumerate(kernel.buffers())}
    text = show_kernel(kernel, buffers)
    file = f"<kernel {kernel.name}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    exec(compile(text, file, "exec"), names)
    function: Callable[..., None] = names[identifier(kernel.name)]
    return function if backend == "python-source" else numba.njit(function)


class Reference:
    """A schedule that runs from its printed source. Call it like a program: inputs in, list of results out."""

    def __init__(self, plan: Plan, memory: Memory, backend: str = "python-source"):
        self.plan = plan
        self.memory = memory
        names = namespace(backend)
        loops = {i: loops_of(s) for i, s in enumerate(plan.steps)}
        self.kernels = {i: compile_kernel(k, backend, names) for i, k in loops.items() if k is not None}

    def __call__(self, values: Sequence[Any]) -> list[Any]:
        """Run every step in order; donated arrays are overwritten and returned."""
        graph, donated = self.plan.graph, self.memory.donated
        arrays = [contiguous(v, n.aval) for v, n in zip(values, graph.inputs, strict=True)]
        avals = [o.aval for o in graph.outputs]
        results = [arrays[donated[i]] if i in donated else unwritten(a.shape, a.dtype) for i, a in enumerate(avals)]
        run = Run(self, arrays, results)
        with np.errstate(all="ignore"):
            for number, step in enumerate(self.plan.steps):
                if not isinstance(step, Kernel):
                    run.call(step)
                if (loops := loops_of(step)) is not None:
                    run.kernel(loops, self.kernels[number])
        if run.status[0]:
            node, size = self.plan.checks[int(run.status[0])]
            raise IndexOutOfBounds(f"index: an index is out of bounds for an axis of size {size}", where=node.where)
        return [r if r.shape else r[()] for r in results]


def loops_of(step: Step) -> Kernel | None:
    """Return the loops that a step consists of, or ends with."""
    if isinstance(step, Call):
        return step.epilogue
    return step if isinstance(step, Kernel) else None


class Run:
    """One run: the memory behind every buffer."""

    def __init__(self, reference: Reference, arrays: list[Any], results: list[Any]):
        self.memory = reference.memory
        self.dtypes = {buffer_name(n): n.dtype for n in reference.plan.graph.inputs}
        self.dtypes |= {name: DTYPES[dtype] for name, (dtype, _) in reference.plan.buffers.items()}
        self.held = {"argument": arrays, "result": results}
        self.arena = unwritten((self.memory.arena_bytes,), np.dtype(np.uint8))
        self.tapes: dict[str, list[Any]] = {}
        self.status = np.zeros(1, np.int64)

    def buffer(self, name: str) -> Any:
        """Return the flat array behind a buffer."""
        place: Place = self.memory.places[name]
        if place.kind == "arena":
            return self.arena[place.slot : place.slot + place.nbytes].view(self.dtypes[name])
        return self.held[place.kind][place.slot].reshape(-1)

    def kernel(self, kernel: Kernel, function: Callable[..., None]) -> None:
        buffers = [self.buffer(name) for name in kernel.buffers()]
        cuts = sorted({kernel.extent * part // TASKS for part in range(TASKS + 1)})
        for low, high in reversed(list(pairwise(cuts))):
            function(low, high, *buffers, self.status)

    def call(self, step: Call | Region) -> None:
        """Run the eager rule of a library call, or of a loop or a branch, whose results are several."""
        found = step.node.prim.eager(*(self.view(v) for v in step.operands), **step.node.params)
        named = [(buffer_name(step.node), found)] if isinstance(step, Call) else zip(step.results, found, strict=True)
        for name, value in named:
            if isinstance(value, list):
                self.tapes[name] = value
            else:
                self.buffer(name)[:] = np.asarray(value).reshape(-1)

    def view(self, view: View) -> Any:
        name = buffer_name(view.node)
        if name in self.tapes:
            return self.tapes[name]
        flat = self.buffer(name)
        steps = [s * flat.itemsize for s in view.strides]
        found = np.lib.stride_tricks.as_strided(flat[view.offset :], view.shape, steps, writeable=False)
        return np.array(found)


def contiguous(value: Any, aval: Aval) -> Any:
    """Return a value in the layout of an argument: itself where it has that layout."""
    found = np.ascontiguousarray(value, aval.dtype)
    return found if found.shape == aval.shape else found.reshape(aval.shape)


def unwritten(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Return an array whose bytes are the pattern of what has not been written; bools are True."""
    found = np.empty(shape, dtype)
    found.reshape(-1).view(np.uint8)[:] = 1 if dtype.kind == "b" else UNWRITTEN
    return found


def run_source(plan: Plan, memory: Memory, arrays: Sequence[Any], backend: str = "python-source") -> list[Any]:
    """Run the printed source of a schedule on arrays."""
    return Reference(plan, memory, backend)(arrays)
