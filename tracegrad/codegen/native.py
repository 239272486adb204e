"""LLVM assembly and Numba functions -> relocatable object code.

Everything goes through Numba's code generation: its type inference and lowering for Python functions, its code library
(link, optimise, verify) and its target machine for both.  What differs from `numba.njit`:

* The libraries belong to Numba's ahead-of-time code generator, tuned for the host.  Nothing is added to an execution
  engine, so finalising neither generates code a second time nor resolves external symbols: `tg_par_for` and friends
  stay undefined in the object until `tracegrad.runtime.objects` loads it.
* No reference-count runtime, CPython wrapper or cfunc wrapper is linked: the object needs llvmlite alone.
* The optimiser runs once.  Numba simplifies each function when it is added, runs a cheap module pipeline for its
  reference-count pruning, then the full one, and does so again in every library that links another.  Here a library of
  a kernel function is left as lowered, and only the exported object is optimised, with the full -O3 pipeline and the
  loop vectoriser, after everything but the exports has been made internal (dead code goes, single callers inline).
* `-prefer-256-bit` is appended to the host's features, so loops use 512-bit vectors where the CPU has AVX-512.

Measured on a module of 50 loops of 10 operations (seconds): Numba's JIT pipeline 0.40 (function passes 0.05, finalise
0.35, and an engine entry that is never used); this one 0.31 (-O3 0.16, code generation 0.15, verifying and parsing
0.002).  The generated loops are the same.  The first Numba function costs 0.07 instead of 0.28 (no array library), the
tiled matrix product 0.7 instead of 2.3: a lean list of passes and a small typing context take off 0.5, tiles that are
linked after the optimiser 0.3, -O2 and no inlining of large functions 0.3, one signature per function the rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba.core import (
    codegen,
    compiler,
    compiler_lock,
    cpu,
    fastmathpass,
    target_extension,
    typed_passes,
    types,
    typing,
    untyped_passes,
)
from numba.core.compiler_machinery import PassManager
from numba.core.registry import CPUDispatcher, CPUTarget
from numba.core.typing import mathdecl
from numba.core.typing.templates import Signature
from numba.cpython import builtins, mathimpl, numbers, rangeobj, tupleobj  # noqa: F401  (registers lowering rules)

from tracegrad.codegen.cpu import target

TARGET_NAME = "tracegrad-cpu"
FASTMATH = frozenset({"contract", "arcp", "nsz", "reassoc"})

KERNEL_OPTIONS: dict[str, Any] = {
    "nopython": True,
    "nogil": True,
    "boundscheck": False,
    "error_model": "numpy",
    "fastmath": set(FASTMATH),
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
    "_nrt": False,
}


class ObjectLibrary(codegen.AOTCodeLibrary):
    """A Numba code library that is optimised only where `exports` names the symbols to keep."""

    exports: frozenset[str] = frozenset()
    level = 3
    inline_limit: int | None = None  # lines of assembly, as lowered, above which a function is never inlined

    def finalize(self) -> None:
        """Leave a kernel's library as lowered; link everything it reaches into an exporting one, and optimise that."""
        self._raise_if_finalized()
        if self.exports:
            for library in self._dependencies():
                self._final_module.link_in(library._get_module_for_linking(), preserve=True)
            self._optimize_final_module()
            self._final_module.verify()
        self._finalized = True

    def _dependencies(self) -> list[ObjectLibrary]:
        """Return the libraries that this one needs, directly or not, each once."""
        found: dict[ObjectLibrary, None] = {}
        pending = list(self._linking_libraries)
        while pending:
            library = pending.pop()
            if library not in found:
                found[library] = None
                pending.extend(library._linking_libraries)
        return list(found)

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


class KernelContext(cpu.CPUContext):
    """Numba's CPU target context over `ObjectCodegen`, without the reference-count runtime."""

    allow_dynamic_globals = False  # no address of this process in an object that another one loads

    @compiler_lock.global_compiler_lock
    def init(self) -> None:
        self.is32bit = False
        self._internal_codegen = ObjectCodegen("tracegrad", cpu_name=target().name)

    def load_additional_registries(self) -> None:
        self.install_registry(mathimpl.registry)

    def post_lowering(self, mod: ir.Module, library: codegen.CodeLibrary) -> None:
        if self.fastmath:
            fastmathpass.rewrite_module(mod, self.fastmath)

    def get_constant_generic(self, builder: ir.IRBuilder, ty: types.Type, val: Any) -> Any:
        """Return a constant; a kernel called by name is none, though an import in Numba would make it an address."""
        if isinstance(ty, types.Dispatcher):
            return self.get_dummy_value()
        return super().get_constant_generic(builder, ty, val)

    def get_executable(self, library: codegen.CodeLibrary, fndesc: Any, env: Any) -> object:
        """Return a key under which Numba finds the function again; kernels aren't called from Python."""
        return object()


class KernelTyping(typing.BaseContext):
    """Numba's typing context with scalar maths only: the array ufuncs make each binary operator slow to resolve."""

    def load_additional_registries(self) -> None:
        self.install_registry(mathdecl.registry)


class KernelHardware(target_extension.CPU):
    """Numba's tag of the target: the CPU, with a dispatcher of its own."""


class KernelTarget(CPUTarget):
    """The typing and target contexts that kernels share."""

    def __init__(self) -> None:
        super().__init__(TARGET_NAME)
        self._typing = KernelTyping()
        self._target = KernelContext(self._typing, TARGET_NAME)

    @property
    def typing_context(self) -> KernelTyping:
        return self._typing

    @property
    def target_context(self) -> KernelContext:
        return self._target


target_extension.target_registry[TARGET_NAME] = KernelHardware
KERNEL_TARGET = KernelTarget()


class KernelCompiler(compiler.CompilerBase):
    """Numba's compiler with the passes that scalar loops need: no closures, rewrites, literals or parallel loops."""

    def define_pipelines(self) -> list[PassManager]:
        passes = PassManager("tracegrad")
        for step in (
            untyped_passes.TranslateByteCode,
            untyped_passes.FixupArgs,
            untyped_passes.IRProcessing,
            untyped_passes.ReconstructSSA,
            typed_passes.NopythonTypeInference,
            typed_passes.PreLowerStripPhis,
            typed_passes.IRLegalization,
            typed_passes.NativeLowering,
            typed_passes.NoPythonBackend,
        ):
            passes.add_pass(step, step.__name__)
        passes.finalize()
        return [passes]


class KernelDispatcher(CPUDispatcher):
    """What `kernel` returns: callable from other kernels, compiled into whichever object calls it.

    Parameters annotated `int` are int64, whatever the caller has; others have the caller's type.
    """

    targetdescr = KERNEL_TARGET
    _compiler: Any

    def __init__(self, pyfunc: Callable[..., Any], targetoptions: dict[str, Any]) -> None:
        super().__init__(pyfunc, targetoptions=targetoptions, pipeline_class=KernelCompiler)
        self._integers = [pyfunc.__annotations__.get(name) in (int, "int") for name in self._compiler.pysig.parameters]

    def get_call_template(self, args: Any, kws: Any) -> Any:
        """Compile for int64 where a parameter is annotated so; Numba casts the argument."""
        _, positional = self._compiler.fold_argument_types(args, kws)
        wanted = [types.int64 if i else t for i, t in zip(self._integers, positional, strict=True)]
        return super().get_call_template(tuple(wanted), {})

    def add_overload(self, cres: Any) -> None:
        """Record the compiled library only: nothing is to be called from Python."""
        self.overloads[tuple(cres.signature.args)] = cres


target_extension.dispatcher_registry[KernelHardware] = KernelDispatcher


def kernel(pyfunc: Callable[..., Any]) -> KernelDispatcher:
    """Decorate a function that is called from exported kernels (`compile_functions`)."""
    return KernelDispatcher(pyfunc, targetoptions=dict(KERNEL_OPTIONS))


def kernel_with(**options: Any) -> Callable[[Callable[..., Any]], KernelDispatcher]:
    """`kernel` with some options changed, e.g. `kernel_with(fastmath=False)`."""
    return lambda pyfunc: KernelDispatcher(pyfunc, targetoptions=KERNEL_OPTIONS | options)


target_extension.jit_registry[KernelHardware] = kernel_with  # what Numba compiles an `@overload` with


@compiler_lock.global_compiler_lock
def compile_ir(text: str, name: str, timings: dict[str, float] | None = None) -> bytes:
    """Compile LLVM assembly to object code; every function it defines with external linkage is exported.

    External symbols may stay undefined: the loader resolves them.  Raises RuntimeError on invalid assembly.  The
    seconds of optimising and of code generation are written to `timings`.
    """
    library = KERNEL_TARGET.target_context.codegen().create_library(name)
    module = llvm.parse_assembly(text)
    module.triple = llvm.get_process_triple()
    exports = [f.name for f in module.functions if not f.is_declaration and f.linkage == llvm.Linkage.external]
    library.add_llvm_module(module)
    return library.emit(exports, timings=timings)


@compiler_lock.global_compiler_lock
def compile_functions(
    entries: dict[str, tuple[Callable[..., Any], Signature]], name: str, parts: Iterable[ir.Module] = ()
) -> bytes:
    """Compile Python functions with Numba and export each one as `void symbol(args...)`.

    entries: C symbol -> (function or `kernel`, Numba signature).  The functions may not raise: a status is ignored.
    parts: modules of finished LLVM code that the functions call by external symbol; they skip the optimiser.
    """
    context = KERNEL_TARGET.target_context
    library = context.codegen().create_library(name)
    module = context.create_module(name)
    with target_extension.target_override(TARGET_NAME):
        for symbol, (function, signature) in entries.items():
            dispatcher = function if isinstance(function, KernelDispatcher) else kernel(function)
            dispatcher.compile(signature)
            result: Any = dispatcher.overloads[signature.args]
            library.add_linking_library(result.library)
            _export(module, symbol, result.fndesc)
    library.add_ir_module(module)
    library.level = 2  # a third less time than -O3, and the same loops
    library.inline_limit = 180  # a third less again: many passes take more than linear time
    return library.emit(entries, parts)


def _export(module: ir.Module, symbol: str, descriptor: Any) -> None:
    """Add `void symbol(args...)` to the module: it calls the Numba function and drops its status."""
    context = KERNEL_TARGET.target_context
    callee_type = context.call_conv.get_function_type(descriptor.restype, descriptor.argtypes)
    callee = ir.Function(module, callee_type, descriptor.llvm_func_name)
    argument_types = [context.get_value_type(t) for t in descriptor.argtypes]
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), argument_types), symbol)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    context.call_conv.call_function(builder, callee, descriptor.restype, descriptor.argtypes, function.args)
    builder.ret_void()
