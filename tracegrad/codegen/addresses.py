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
    """What kernels call and is written in instructions by hand: `write(builder, *args)` returns its result."""

    def __init__(self, signature: types.Signature | None, write: Callable[..., Any]) -> None:
        self.signature = signature
        self.write = write
        self.__doc__ = write.__doc__

    def signature_of(self, count: int) -> types.Signature:
        """Return the signature for so many arguments; where none is given, all are words and so is the result."""
        found: types.Signature = self.signature or types.int64(*[types.int64] * count)
        return found


def intrinsic(signature: types.Signature | None = None) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function that writes an intrinsic."""
    return lambda write: Intrinsic(signature, write)


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

    @intrinsic(element_type(types.int64, types.int64))
    def load(builder: ir.IRBuilder, *args: Any) -> ir.Value:
        element = element_type.llvm
        return builder.load(element_pointer(builder, args[0], args[1], element), typ=element)

    return load


def storer(dtype: str) -> Any:
    """Return the intrinsic `store(address, index, value)` for arrays of dtype."""
    element_type = KERNEL_TYPES[dtype]

    @intrinsic(types.void(types.int64, types.int64, element_type))
    def store(builder: ir.IRBuilder, *args: Any) -> None:
        element = element_type.llvm
        builder.store(args[2], element_pointer(builder, args[0], args[1], element))

    return store


load_word = loader("int64")
store_word = storer("int64")


@intrinsic(types.int64(types.int64))
def load_acquire(builder: ir.IRBuilder, *args: Any) -> ir.Value:
    """Read the int64 at an address; later accesses stay after it."""
    return builder.load_atomic(word_pointer(builder, args[0]), "acquire", 8, typ=I64)


@intrinsic(types.void(types.int64, types.int64))
def store_release(builder: ir.IRBuilder, *args: Any) -> None:
    """Write the int64 at an address; earlier accesses stay before it."""
    builder.store_atomic(args[1], word_pointer(builder, args[0]), "release", 8)


@intrinsic(types.int64(types.int64, types.int64))
def add_atomic(builder: ir.IRBuilder, *args: Any) -> ir.Value:
    """Add to the int64 at an address, and return what it was."""
    return builder.atomic_rmw("add", word_pointer(builder, args[0]), args[1], "acq_rel")


@intrinsic(types.boolean(types.int64, types.int64, types.int64))
def compare_and_swap(builder: ir.IRBuilder, *args: Any) -> ir.Value:
    """Replace old by new at an address; say whether it was old."""
    pair = builder.cmpxchg(word_pointer(builder, args[0]), args[1], args[2], "acq_rel", "acquire")
    return builder.extract_value(pair, 1)


@intrinsic(types.void())
def relax(builder: ir.IRBuilder, *args: Any) -> None:
    """Tell the core that this thread is spinning."""
    triple = builder.module.triple or binding.get_process_triple()
    if triple.startswith(("x86_64", "i686")):
        builder.call(declare(builder.module, "llvm.x86.sse2.pause", VOID, []), [])
    elif triple.startswith(("aarch64", "arm64")):
        full_barrier = ir.Constant(I32, 15)
        builder.call(declare(builder.module, "llvm.aarch64.isb", VOID, [I32]), [full_barrier])


@intrinsic()
def call(builder: ir.IRBuilder, *args: Any) -> ir.Value:
    """Call a C function of words by its address, and return its result."""
    function_type = ir.FunctionType(I64, [I64] * (len(args) - 1))
    return builder.call(builder.inttoptr(args[0], function_type.as_pointer()), args[1:])


@intrinsic(types.void(types.int64, types.int64, types.int64, types.int64))
def call_task(builder: ir.IRBuilder, *args: Any) -> None:
    """Call `void task(i64 arguments, i64 index, i64 thread)` by its address."""
    task_type = ir.FunctionType(VOID, [I64, I64, I64])
    builder.call(builder.inttoptr(args[0], task_type.as_pointer()), args[1:])


@intrinsic(types.void(*[types.int64] * 6))
def call_block(builder: ir.IRBuilder, *args: Any) -> None:
    """Call `void epilogue(i64 table, i64 first, i64 rows, i64 row_step, i64 columns)` by its address."""
    block_type = ir.FunctionType(VOID, [I64] * 5)
    builder.call(builder.inttoptr(args[0], block_type.as_pointer()), args[1:])


@intrinsic(types.void(types.int64, types.int64, types.int64, types.int64))
def par_for(builder: ir.IRBuilder, *args: Any) -> None:
    """Run a task for 0..count-1 on the pool: a call of the external symbol `tg_par_for`."""
    builder.call(declare(builder.module, "tg_par_for", VOID, [I64, I64, I64, I64]), args)


def task_address(symbol: str) -> Any:
    """Return the intrinsic that gives the address of a task exported under `symbol` from the same object."""

    @intrinsic(types.int64())
    def address(builder: ir.IRBuilder, *args: Any) -> ir.Value:
        return builder.ptrtoint(declare(builder.module, symbol, VOID, [I64, I64, I64]), I64)

    return address


def _selection(predicate: str, summary: str) -> Any:
    """Return an intrinsic that selects one of two int64."""

    @intrinsic(types.int64(types.int64, types.int64))
    def select(builder: ir.IRBuilder, *args: Any) -> ir.Value:
        return builder.select(builder.icmp_signed(predicate, args[0], args[1]), args[0], args[1])

    select.__doc__ = summary
    return select


minimum = _selection("<", "The smaller of two int64.")
maximum = _selection(">", "The larger of two int64.")
