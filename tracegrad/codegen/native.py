"""LLVM assembly -> relocatable object code, through Numba's code generator.

Its code library (link, optimise, verify) and its target machine are used; what differs from `numba.njit`:

* The libraries belong to Numba's ahead-of-time code generator, tuned for the host.  Nothing is added to an execution
  engine, so finalising neither generates code a second time nor resolves external symbols: `tg_par_for` and friends
  stay undefined in the object until `tracegrad.runtime.objects` loads it.
* No reference-count runtime, CPython wrapper or cfunc wrapper is linked: the object needs llvmlite alone.
* The optimiser runs once.  Numba simplifies each function when it is added, runs a cheap module pipeline for its
  reference-count pruning, then the full one.  Here only the last runs, with the loop vectoriser, after everything but
  the exports has been made internal (dead code goes, single callers inline).
* A module has a context of its own, and each thread its generator, so modules are compiled side by side: llvmlite runs
  one call at a time, by a lock that the two long calls (`unlocked`) go round. LLVM promises that for contexts that
  share nothing; ThinLTO compiles so.
* `-prefer-256-bit` is appended to the host's features, so loops use 512-bit vectors where the CPU has AVX-512.

Measured on a module of 50 loops of 10 operations (seconds): Numba's JIT pipeline 0.40 (function passes 0.05, finalise
0.35, and an engine entry that is never used); this one 0.31 (-O3 0.16, code generation 0.15, verifying and parsing
0.002).  The generated loops are the same.  For the library kernels, -O2 and no inlining of large functions take off a
third, and tiles that are linked after the optimiser as much again.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from llvmlite.binding import ffi
from numba.core import codegen, compiler_lock

from tracegrad.codegen.cpu import target


class ObjectLibrary(codegen.AOTCodeLibrary):
    """A Numba code library of one module in a context of its own, which is optimised when it is finalised."""

    def __init__(self, generator: ObjectCodegen, name: str) -> None:
        super().__init__(generator, name)
        self.context = llvm.create_context()
        self.level = 3
        self.inline_limit: int | None = None  # lines of assembly, as written, above which a function is never inlined

    def parse(self, text: str) -> llvm.ModuleRef:
        module = llvm.parse_assembly(text, self.context)
        module.triple = llvm.get_process_triple()
        module.data_layout = self._codegen._data_layout
        return module

    def read(self, text: str) -> None:
        """Take assembly as the library's module; what it defines with external linkage is exported."""
        self._final_module = self.parse(text)
        for value in self._final_module.global_variables:
            if not value.is_declaration:
                value.linkage = "internal"

    def finalize(self) -> None:
        """Optimise and verify the module."""
        self._raise_if_finalized()
        if self.inline_limit is not None:
            for function in self._final_module.functions:
                if str(function).count("\n") > self.inline_limit:
                    function.add_function_attribute("noinline")
        passes, builder = self._codegen._module_pass_manager(opt=self.level, loop_vectorize=True, slp_vectorize=False)
        unlocked("LLVMPY_RunNewModulePassManager")(passes, self._final_module, builder)
        self._final_module.verify()
        self._finalized = True

    def emit(self, parts: Iterable[ir.Module] = (), timings: dict[str, float] | None = None) -> bytes:
        """Optimise, link `parts` in as they are, and return the object code."""
        began = time.perf_counter()
        self._ensure_finalized()
        optimised = time.perf_counter()
        for part in parts:
            self._final_module.link_in(self.parse(str(part)))
        data = emit_object(self._codegen._tm, self._final_module)
        if timings is not None:
            timings |= {"optimise": optimised - began, "generate": time.perf_counter() - optimised}
        return data


class ObjectCodegen(codegen.AOTCPUCodegen):
    """Numba's ahead-of-time code generator, for this host's CPU and for code that is loaded by a JIT linker."""

    _library_class = ObjectLibrary

    def _customize_tm_options(self, options: dict[str, Any]) -> None:
        jit_options: Any = codegen.JITCPUCodegen._customize_tm_options
        jit_options(self, options)
        options["cpu"] = target().name  # its name implies features, which the flags only add to

    def _customize_tm_features(self) -> str:
        features = target().flags
        return f"{features},-prefer-256-bit" if "+avx512f" in features else features


_FREE: list[ObjectCodegen] = []


@contextmanager
def empty_library(name: str) -> Iterator[ObjectLibrary]:
    """Give an empty library of a generator that nobody else uses now: target machines must not be shared."""
    try:
        generator = _FREE.pop()
    except IndexError:
        with compiler_lock.global_compiler_lock:
            generator = ObjectCodegen("tracegrad", cpu_name=target().name)
    yield generator.create_library(name)
    _FREE.append(generator)


def compile_ir(text: str, name: str, timings: dict[str, float] | None = None) -> bytes:
    """Compile LLVM assembly to object code; every function it defines with external linkage is exported.

    External symbols may stay undefined: the loader resolves them.  Raises RuntimeError on invalid assembly.  The
    seconds of optimising and of code generation are written to `timings`.  Threads may call it at once.
    """
    with empty_library(name) as library:
        library.read(text)
        return library.emit(timings=timings)


def compile_library(text: str, name: str, parts: Iterable[ir.Module] = ()) -> bytes:
    """Compile the assembly of library kernels (`kernel_writer.write`); threads may call it at once.

    parts: modules of finished LLVM code that the kernels call by external symbol; they skip the optimiser.
    """
    with empty_library(name) as library:
        library.level = 2  # a third less time than -O3, and the same loops
        library.inline_limit = 180  # a third less again: many passes take more than linear time
        library.read(text)
        return library.emit(parts)


def unlocked(name: str) -> Callable[..., Any]:
    """Return a function of llvmlite's library without llvmlite's lock; with it, should llvmlite be built otherwise."""
    locked = getattr(ffi.lib, name)
    return getattr(locked, "_cfn", locked)


def emit_object(machine: llvm.TargetMachine, module: llvm.ModuleRef) -> bytes:
    """`machine.emit_object(module)` without the lock."""
    with ffi.OutputString() as problem:
        memory = unlocked("LLVMPY_TargetMachineEmitToMemory")(machine, module, 1, problem)
        if not memory:
            raise RuntimeError(str(problem))
    try:
        return ctypes.string_at(ffi.lib.LLVMPY_GetBufferStart(memory), ffi.lib.LLVMPY_GetBufferSize(memory))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(memory)
