"""LLVM assembly -> relocatable object code, through Numba's code generator.

Its code library (link, optimise, verify) and its target machine are used; what differs from `numba.njit`:

* The libraries belong to Numba's ahead-of-time code generator, tuned for the host.  Nothing is added to an execution
  engine, so finalising neither generates code a second time nor resolves external symbols: `tg_par_for` and friends
  stay undefined in the object until `tracegrad.runtime.objects` loads it.
* No reference-count runtime, CPython wrapper or cfunc wrapper is linked: the object needs llvmlite alone.
* The optimiser runs once.  Numba simplifies each function when it is added, runs a cheap module pipeline for its
  reference-count pruning, then the full one.  Here only the last runs, with the loop vectoriser, after everything but
  the exports has been made internal (dead code goes, single callers inline).
* `-prefer-256-bit` is appended to the host's features, so loops use 512-bit vectors where the CPU has AVX-512.

Measured on a module of 50 loops of 10 operations (seconds): Numba's JIT pipeline 0.40 (function passes 0.05, finalise
0.35, and an engine entry that is never used); this one 0.31 (-O3 0.16, code generation 0.15, verifying and parsing
0.002).  The generated loops are the same.  For the library kernels, -O2 and no inlining of large functions take off a
third, and tiles that are linked after the optimiser as much again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import codegen, compiler_lock

from tracegrad.codegen.cpu import target


class ObjectLibrary(codegen.AOTCodeLibrary):
    """A Numba code library of one module, which is optimised when it is finalised and keeps `exports`."""

    exports: frozenset[str] = frozenset()
    level = 3
    inline_limit: int | None = None  # lines of assembly, as written, above which a function is never inlined

    def finalize(self) -> None:
        """Optimise and verify the module."""
        self._raise_if_finalized()
        self._optimize_final_module()
        self._final_module.verify()
        self._finalized = True

    def _optimize_functions(self, ll_module: llvm.ModuleRef) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        module = self._final_module
        for value in [*module.functions, *module.global_variables]:
            if not value.is_declaration and value.name not in self.exports:
                value.linkage = "internal"
        if self.inline_limit is not None:
            for function in module.functions:
                if str(function).count("\n") > self.inline_limit:
                    function.add_function_attribute("noinline")
        passes, builder = self._codegen._module_pass_manager(opt=self.level, loop_vectorize=True, slp_vectorize=False)
        passes.run(module, builder)

    def emit(
        self, exports: Iterable[str], parts: Iterable[ir.Module] = (), timings: dict[str, float] | None = None
    ) -> bytes:
        """Optimise, link `parts` in as they are, and return the object code that defines `exports`."""
        began = time.perf_counter()
        self.exports = frozenset(exports)
        self._ensure_finalized()
        optimised = time.perf_counter()
        for part in parts:
            module = llvm.parse_assembly(str(part))
            module.data_layout = self._codegen._data_layout
            self._final_module.link_in(module)
        data: bytes = self._codegen._tm.emit_object(self._final_module)
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


_GENERATOR = ObjectCodegen("tracegrad", cpu_name=target().name)


@compiler_lock.global_compiler_lock
def compile_ir(text: str, name: str, timings: dict[str, float] | None = None) -> bytes:
    """Compile LLVM assembly to object code; every function it defines with external linkage is exported.

    External symbols may stay undefined: the loader resolves them.  Raises RuntimeError on invalid assembly.  The
    seconds of optimising and of code generation are written to `timings`.
    """
    library, exports = _library(text, name)
    return library.emit(exports, timings=timings)


@compiler_lock.global_compiler_lock
def compile_library(text: str, name: str, parts: Iterable[ir.Module] = ()) -> bytes:
    """Compile the assembly of library kernels (`kernel_writer.write`).

    parts: modules of finished LLVM code that the kernels call by external symbol; they skip the optimiser.
    """
    library, exports = _library(text, name)
    library.level = 2  # a third less time than -O3, and the same loops
    library.inline_limit = 180  # a third less again: many passes take more than linear time
    return library.emit(exports, parts)


def _library(text: str, name: str) -> tuple[ObjectLibrary, list[str]]:
    """Return a code library with this assembly, and the names of what it exports."""
    library: ObjectLibrary = _GENERATOR.create_library(name)
    module = llvm.parse_assembly(text)
    module.triple = llvm.get_process_triple()
    exports = [f.name for f in module.functions if not f.is_declaration and f.linkage == llvm.Linkage.external]
    library.add_llvm_module(module)
    return library, exports
