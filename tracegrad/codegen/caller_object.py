"""The native half of calls, compiled: `caller_kernels`, by llvmlite alone, for processes that never import Numba."""

from __future__ import annotations

import llvmlite.binding as llvm

from tracegrad.codegen import caller_kernels, types
from tracegrad.codegen.cpu import target
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.kernel_writer import write

SYMBOL = "tg_call"


def build() -> bytes:
    """Return the object code; it takes about a tenth of a second."""
    entry = kernel(caller_kernels.tg_call), types.int64(types.int64, types.int64)
    return compile_alone(write({SYMBOL: entry}, "caller"))


def compile_alone(text: str) -> bytes:
    """Compile assembly without loops worth a vector to object code for the target CPU."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = llvm.get_process_triple()
    machine = llvm.Target.from_triple(triple).create_target_machine(
        cpu=target().name, features=target().flags, opt=2, codemodel="jitdefault", jit=True
    )
    module = llvm.parse_assembly(text)
    module.triple = triple
    module.data_layout = str(machine.target_data)
    options = llvm.create_pipeline_tuning_options(speed_level=1)
    options.loop_vectorization = options.slp_vectorization = options.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    module.verify()
    return bytes(machine.emit_object(module))
