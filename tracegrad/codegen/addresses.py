"""Loads, stores, atomics and calls through integer addresses: the intrinsics of kernels.

Kernels receive every address as an int64 and never touch a NumPy array: no reference counts, no shapes to unpack, and
the typed `getelementptr` that LLVM's vectoriser wants.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir

from tracegrad.codegen import types

I8 = ir.IntType(8)
I32 = ir.IntType(32)
I64 = ir.IntType(64)
POINTER = ir.PointerType()
VOID = ir.VoidType()


class Intrinsic:
    """A call of kernels that is written by hand: `define(typing_context, *arguments)` gives signature and generator."""

    def __init__(self, define: Callable[..., Any]) -> None:
        self.define = define
        self.__doc__ = define.__doc__


intrinsic: Any = Intrinsic

KERNEL_TYPES = {t.name: t for t in (types.float32, types.float64, types.int32, types.int64)}


def word_pointer(builder: ir.IRBuilder, address: ir.Value) -> ir.Value:
    """Return a typed pointer to an int64: llvmlite's atomics want one."""
    return builder.inttoptr(address, I64.as_pointer())


def element_pointer(builder: ir.IRBuilder, address: ir.Value, index: ir.Value, element: ir.Type) -> ir.Value:
    """Return the address of element `index` of an array that starts at an integer address."""
    return builder.gep(builder.inttoptr(address, POINTER), [index], source_etype=element)


def declare(module: ir.Module, name: str, result: ir.Type, arguments: list[ir.Type]) -> ir.Function:
    """Return the module's function of that name, declared if it is new."""
    if name in module.globals:
        return module.globals[name]
    return ir.Function(module, ir.FunctionType(result, arguments), name)


def loader(dtype: str) -> Any:
    """Return the intrinsic `load(address, index)` for arrays of dtype."""
    element_type = KERNEL_TYPES[dtype]

    @intrinsic
    def load(typing_context: Any, address: Any, index: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
            element = element_type.llvm
            return builder.load(element_pointer(builder, args[0], args[1], element), typ=element)

        return element_type(types.int64, types.int64), generate

    return load


def storer(dtype: str) -> Any:
    """Return the intrinsic `store(address, index, value)` for arrays of dtype."""
    element_type = KERNEL_TYPES[dtype]

    @intrinsic
    def store(typing_context: Any, address: Any, index: Any, value: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            element = element_type.llvm
            builder.store(args[2], element_pointer(builder, args[0], args[1], element))
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, element_type), generate

    return store


load_word = loader("int64")
store_word = storer("int64")


@intrinsic
def load_acquire(typing_context: Any, address: Any) -> Any:
    """Read the int64 at an address; later accesses stay after it."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.load_atomic(word_pointer(builder, args[0]), "acquire", 8, typ=I64)

    return types.int64(types.int64), generate


@intrinsic
def store_release(typing_context: Any, address: Any, value: Any) -> Any:
    """Write the int64 at an address; earlier accesses stay before it."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], word_pointer(builder, args[0]), "release", 8)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def add_atomic(typing_context: Any, address: Any, value: Any) -> Any:
    """Add to the int64 at an address, and return what it was."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        return builder.atomic_rmw("add", word_pointer(builder, args[0]), args[1], "acq_rel")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def compare_and_swap(typing_context: Any, address: Any, old: Any, new: Any) -> Any:
    """Replace old by new at an address; say whether it was old."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        pair = builder.cmpxchg(word_pointer(builder, args[0]), args[1], args[2], "acq_rel", "acquire")
        return builder.extract_value(pair, 1)

    return types.boolean(types.int64, types.int64, types.int64), generate


@intrinsic
def relax(typing_context: Any) -> Any:
    """Tell the core that this thread is spinning."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        triple = builder.module.triple or binding.get_process_triple()
        if triple.startswith(("x86_64", "i686")):
            builder.call(declare(builder.module, "llvm.x86.sse2.pause", VOID, []), [])
        elif triple.startswith(("aarch64", "arm64")):
            full_barrier = ir.Constant(I32, 15)
            builder.call(declare(builder.module, "llvm.aarch64.isb", VOID, [I32]), [full_barrier])
        return context.get_dummy_value()

    return types.void(), generate


@intrinsic
def call(typing_context: Any, function: Any, *arguments: Any) -> Any:
    """Call a C function of words by its address, and return its result."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
        function_type = ir.FunctionType(I64, [I64] * len(arguments))
        return builder.call(builder.inttoptr(args[0], function_type.as_pointer()), args[1:])

    return types.int64(*[types.int64] * (1 + len(arguments))), generate


@intrinsic
def call_task(typing_context: Any, function: Any, arguments: Any, index: Any, thread: Any) -> Any:
    """Call `void task(i64 arguments, i64 index, i64 thread)` by its address."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        task_type = ir.FunctionType(VOID, [I64, I64, I64])
        builder.call(builder.inttoptr(args[0], task_type.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


@intrinsic
def call_block(
    typing_context: Any, function: Any, table: Any, first: Any, rows: Any, row_step: Any, columns: Any
) -> Any:
    """Call `void epilogue(i64 table, i64 first, i64 rows, i64 row_step, i64 columns)` by its address."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        block_type = ir.FunctionType(VOID, [I64] * 5)
        builder.call(builder.inttoptr(args[0], block_type.as_pointer()), args[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), generate


@intrinsic
def par_for(typing_context: Any, pool: Any, function: Any, arguments: Any, count: Any) -> Any:
    """Run a task for 0..count-1 on the pool: a call of the external symbol `tg_par_for`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        builder.call(declare(builder.module, "tg_par_for", VOID, [I64, I64, I64, I64]), args)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate


def task_address(symbol: str) -> Any:
    """Return the intrinsic that gives the address of a task exported under `symbol` from the same object."""

    @intrinsic
    def address(typing_context: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
            return builder.ptrtoint(declare(builder.module, symbol, VOID, [I64, I64, I64]), I64)

        return types.int64(), generate

    return address


def _selection(predicate: str, summary: str) -> Any:
    """Return an intrinsic that selects one of two int64."""

    @intrinsic
    def select(typing_context: Any, first: Any, second: Any) -> Any:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> ir.Value:
            return builder.select(builder.icmp_signed(predicate, args[0], args[1]), args[0], args[1])

        return types.int64(types.int64, types.int64), generate

    select.__doc__ = summary
    return select


minimum = _selection("<", "The smaller of two int64.")
maximum = _selection(">", "The larger of two int64.")
