"""A compiled program in memory: how its arguments are checked, its results made, its one entry called."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tracegrad.codegen.caller_layout import ALIGNED, ALIGNED_C
from tracegrad.codegen.cpu import target
from tracegrad.codegen.table_layout import HEADER
from tracegrad.config import config
from tracegrad.errors import ArgumentError, DTypeError, IndexOutOfBounds, OutOfMemory, ShapeError, Where
from tracegrad.ir.aval import DTYPES, NAMES, Aval, check_plain, kind_of, spelled
from tracegrad.ir.layout import extent
from tracegrad.record import as_dict, record
from tracegrad.runtime import caller, library
from tracegrad.runtime.layout import laid_out, lies_as
from tracegrad.runtime.objects import load_object

Libraries = Mapping[str, tuple[list[str], bytes]]
ENTRY = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
OUT_OF_MEMORY = -1


@record
class Facts:
    """What must be known to run the object code: plain data that goes into the cache beside it."""

    inputs: list[tuple[str, list[int]]]
    outputs: list[tuple[str, list[int], int]]
    arena_bytes: int
    temporary_bytes: int
    families: list[str]
    threads: int
    checks: list[tuple[str, int, str, int]]
    steps: list[str]
    kernels: int
    refusals: list[str]
    parallel: bool
    """Whether it enters the pool: if not, no thread need be woken."""
    narrowed: list[tuple[int, str]]
    """Integer scalars that the program converts to a narrower dtype: input number and that dtype."""
    layouts: list[list[int] | None]
    """How each input is stored (`ir.layout`)."""

    def as_json(self) -> dict[str, Any]:
        return as_dict(self)


def aligned_bytes(n: int) -> np.ndarray[Any, Any]:
    """Return n bytes that start on a cache line."""
    raw = np.empty(n + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + n]


class Executable:
    """Object code, loaded; calling it is thread-safe, because every call in flight has an arena of its own."""

    def __init__(self, facts: Facts, data: bytes, names: Sequence[str], *, libraries: Libraries | None = None):
        self.facts = facts
        self.data = data
        self.cpu = target()
        self.libraries = libraries
        """The library kernels that came with the object code; by default it calls those of this process."""
        if libraries is None:
            library.ensure(["pool", *facts.families])
            self.address = load_object(data, ["tg_entry"])["tg_entry"]
        else:
            caller.bring(libraries["caller"][1])
            self.address = load_object(data, ["tg_entry"], library.load_apart(libraries))["tg_entry"]
        self.entry = ENTRY(self.address)
        self.pool = library.pool(min(facts.threads, config.threads))  # scratch is there for facts.threads
        self.names = list(names)
        self.inputs = [(DTYPES[d], tuple(shape)) for d, shape in facts.inputs]
        self.layouts = [None if found is None else tuple(found) for found in facts.layouts]
        self.outputs = [(DTYPES[d], tuple(shape), donated) for d, shape, donated in facts.outputs]
        self.donated = sorted({d for _, _, d in self.outputs if d >= 0})
        self.scalar = [not shape for _, shape, _ in self.outputs]
        self.arenas: list[tuple[Any, int]] = []
        self.stamps = np.zeros(facts.kernels + 1, np.int64)
        self.stamp_address = int(self.stamps.ctypes.data)
        self.table_type = ctypes.c_int64 * (HEADER + len(self.inputs) + len(self.outputs) + 1)
        self.blocks = caller.Blocks(len(self.inputs), len(self.outputs), facts.arena_bytes)
        """The memory of calls that native code takes."""

    @functools.cached_property
    def native(self) -> Any:
        """What runs the program on a list of inputs, in native code; None where that cannot be."""
        return caller.list_caller(self).call if caller.usable(self) else None

    def __call__(self, values: Sequence[Any]) -> list[Any]:
        """Run the program on arrays and numbers; return new arrays, or the donated ones."""
        if self.native is None:
            return self.run(self.checked(values))
        try:
            found = self.native(values)
            if found is None:  # for Python to look at, or as many calls are in flight as there are blocks
                arrays = self.checked(values)
                found = self.native(arrays)
                if found is None and self.blocks.add():
                    found = self.native(arrays)
                if found is None:
                    return self.run(arrays)
        except MemoryError:
            raise self.out_of_memory() from None
        if type(found) is int:
            self.fail(found)
        return found  # type: ignore[no-any-return]

    def checked(self, values: Sequence[Any]) -> list[Any]:
        """Return the arguments as the arrays that the code needs, or raise the user's error."""
        arrays: list[Any] = []
        for position, ((dtype, shape), layout) in enumerate(zip(self.inputs, self.layouts, strict=True)):
            value = values[position]
            flags = ALIGNED_C if layout is None else ALIGNED
            if (
                type(value) is not np.ndarray
                or value.dtype is not dtype
                or value.shape != shape
                or value.flags.num & flags != flags
                or (layout is not None and not lies_as(value, layout))
            ):
                value = self.convert(position, value)
            arrays.append(value)
        if self.donated:
            self.check_donated(values, arrays)
        return arrays

    def run(self, arrays: Sequence[Any]) -> list[Any]:
        """Run the program from Python: where native code cannot read its arguments from Python's objects."""
        try:
            results = [arrays[d] if d >= 0 else np.empty(shape, dtype) for dtype, shape, d in self.outputs]
            arena = self.take_arena()
        except MemoryError:
            raise self.out_of_memory() from None
        addresses = [a.__array_interface__["data"][0] for a in arrays]
        addresses += [r.__array_interface__["data"][0] for r in results]
        table = self.table_type(self.pool.ctl, arena[1], 0, *addresses, self.stamp_address)
        if self.facts.parallel:
            self.pool.enter()
        try:
            status = self.entry(ctypes.addressof(table))
        except SystemError as error:  # ctypes found the exception of a signal handler, which has ended a loop
            raise error.__cause__ or error from None
        finally:
            if self.facts.parallel:
                self.pool.leave()
            self.arenas.append(arena)
        if status:
            self.fail(status)
        return [r[()] if scalar else r for r, scalar in zip(results, self.scalar, strict=True)]

    def take_arena(self) -> tuple[Any, int]:
        """Return an arena that no other call uses; another thread may take the last one at any time."""
        try:
            return self.arenas.pop()
        except IndexError:
            return self.new_arena()

    def new_arena(self) -> tuple[Any, int]:
        memory = aligned_bytes(max(self.facts.arena_bytes, 64))
        return memory, int(memory.ctypes.data)

    def out_of_memory(self) -> OutOfMemory:
        results = sum(dtype.itemsize * math.prod(shape) for dtype, shape, donated in self.outputs if donated < 0)
        return OutOfMemory(
            f"out of memory: the program needs {results / 2**20:.1f} MiB for its results and "
            f"{self.facts.arena_bytes / 2**20:.1f} MiB for the values in between",
            fix="use smaller arrays; a gradient keeps less with tg.checkpoint, or scan(..., checkpoint=True)",
        )

    def convert(self, position: int, value: Any) -> Any:
        """Bring an argument into the layout the code was compiled for; a dtype or shape that differs is refused."""
        dtype, shape = self.inputs[position]
        name = f"argument {self.names[position]}" if position < len(self.names) else "a captured array"
        if isinstance(value, (bool, int, float)) and not isinstance(value, np.generic):
            return self.number(name, position, value)
        if not isinstance(value, (np.ndarray, np.generic)):
            kind = type(value).__name__
            raise ArgumentError(f"{name}: a {kind} is not a NumPy array", fix="call it with arrays and numbers")
        check_plain(value, name)
        wanted, found = Aval(shape, dtype), f"{NAMES.get(value.dtype, value.dtype)}{list(value.shape) or ''}"
        if value.dtype != dtype:
            raise DTypeError(
                f"{name}: compiled for {wanted} but called with {found}",
                fix=f"convert it with x.astype({spelled(dtype)})",
            )
        if value.shape != shape:
            raise ShapeError(
                f"{name}: compiled for {wanted} but called with {found}",
                fix="pass an array of that shape, or compile for this one",
            )
        return laid_out(value, self.layouts[position]).reshape(shape)

    def number(self, name: str, position: int, value: bool | int | float) -> Any:
        """Return a Python number as the scalar argument it stands for; nothing is rounded or wrapped in silence."""
        dtype, shape = self.inputs[position]
        kinds = {bool: "biuf", int: "iuf", float: "f"}[type(value)] if type(value) in (bool, int, float) else "biuf"
        if shape or kind_of(dtype) not in kinds:
            raise DTypeError(
                f"{name}: compiled for {Aval(shape, dtype)} but called with the {type(value).__name__} {value}",
                fix="pass a value of that dtype, or compile for this one",
            )
        for wanted in [*[DTYPES[d] for at, d in self.facts.narrowed if at == position], dtype]:
            try:
                found = np.array(value, wanted)
            except OverflowError:
                raise DTypeError(
                    f"{name}: the number {value} does not fit {NAMES[wanted]}",
                    fix="pass a smaller number, or convert the array beside it to a wider dtype",
                ) from None
        return found

    def check_donated(self, values: Sequence[Any], arrays: Sequence[Any]) -> None:
        """Refuse donated memory that cannot be written, or that another argument shares; copy what is strided."""
        spans: list[tuple[int, int, int]] = []
        for position in self.donated:
            array = arrays[position]
            if array is values[position] and not array.flags.writeable:
                raise ArgumentError(
                    f"donated argument {self.names[position]}: the array is read-only", fix="pass a copy: np.array(x)"
                )
            start = array.__array_interface__["data"][0]
            spans.append((start, start + array.nbytes, position))
        spans.sort()
        for (_, stop, first), (start, _, second) in zip(spans, spans[1:], strict=False):
            if start < stop:
                raise ArgumentError(
                    f"donated arguments {self.names[first]} and {self.names[second]} share memory",
                    fix="pass copies, or donate one of them only",
                )
        low, high = spans[0][0], max(s for _, s, _ in spans)
        donated = set(self.donated)
        for position, array in enumerate(arrays):
            if position in donated:
                continue
            start = array.__array_interface__["data"][0]
            stop = start + array.itemsize * extent(array.shape, self.layouts[position])
            if start < high and stop > low:
                self.refuse_overlap(spans, start, stop, position)

    def refuse_overlap(self, spans: Sequence[tuple[int, int, int]], start: int, stop: int, position: int) -> None:
        for low, high, donated in spans:
            if start < high and low < stop:
                name = self.names[position] if position < len(self.names) else "a captured array"
                raise ArgumentError(
                    f"donated argument {self.names[donated]} shares memory with {name}",
                    fix="pass a copy of one of them",
                )

    def fail(self, status: int) -> None:
        """Raise the error behind a status: an index was out of bounds, or a tape did not fit into memory."""
        if status == OUT_OF_MEMORY:
            raise OutOfMemory(
                "while_loop: there is no memory left to keep the carries of every round for the gradient",
                fix="call it with checkpoint=True (about 3 sqrt(n) of n carries are kept) or slots=k (k of them)",
            )
        primitive, size, file, line = self.facts.checks[status - 1]
        raise IndexOutOfBounds(
            f"{primitive}: an index is out of bounds for an axis of size {size}",
            fix=f"use indices from {-size} to {size - 1}" if size else "the axis is empty",
            where=Where(file, line) if file else None,
        )


