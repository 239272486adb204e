"""The register tile and its companions, as LLVM vector code behind intrinsics of kernels.

    tile(rows, k, a, b, step, c, ldc, n, accumulate)       all addresses and strides are in bytes
        C[i, j] (+)= sum_k  A[k * ROWS + i] * B[offset(k) + j]          i < rows, j < n


A is packed in panels of ROWS (`TileShape.rows`) elements per k.  A row of B is read where it lies: at k * step, or, in
the indirect tile, at the byte offset step[k] of a table.  Rows of B are read to the full width of the tile (one vector
if n fits it, else all); only n columns of C are read or written.

Each shape is a function of its own, reached through one switch: instantiated for even numbers of rows (an odd number
computes a row of junk that is not stored) and for one vector or all, so a GEMM brings 14 of them.  They are written as
the machine is to run them, in a module that is linked after the optimiser has run: it would only cost time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llvmlite import binding, ir

from tracegrad.codegen import types
from tracegrad.codegen.addresses import I8, I32, I64, POINTER, VOID, declare, intrinsic
from tracegrad.codegen.tile_shape import THIN_ROWS, TileShape, thin_vectors
from tracegrad.codegen.unrolled_loop import UNROLLED, UnrolledLoop

I1 = ir.IntType(1)
WORD = types.int64


CACHE_LINE = 64
TABLE_WORD = 8
AHEAD = 8  # rows of B between its prefetch and its use


def word(value: int) -> ir.Constant:
    """Return an i64 constant."""
    return ir.Constant(I64, value)


@dataclass(frozen=True)
class Lanes:
    """A vector type, and the operations on it that llvmlite has no method for."""

    bits: int
    count: int

    @property
    def element(self) -> ir.Type:
        return ir.FloatType() if self.bits == 32 else ir.DoubleType()

    @property
    def type(self) -> ir.VectorType:
        return ir.VectorType(self.element, self.count)

    @property
    def mask_type(self) -> ir.VectorType:
        return ir.VectorType(I1, self.count)

    @property
    def item_size(self) -> int:
        return self.bits // 8

    @property
    def has_cheap_masks(self) -> bool:
        """Say whether a masked store costs no more than a plain one: AVX-512 has registers for masks, AVX2 has not."""
        return self.count * self.item_size == CACHE_LINE

    @property
    def zero(self) -> ir.Constant:
        return ir.Constant(self.type, [0.0] * self.count)

    @property
    def _suffix(self) -> str:
        return f"v{self.count}f{self.bits}"

    def load(self, builder: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
        """Load a vector from an address that is aligned to its elements only."""
        return builder.load(pointer, typ=self.type, align=self.item_size)

    def store(self, builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value) -> None:
        builder.store(value, pointer, align=self.item_size)

    def masked_load(self, builder: ir.IRBuilder, pointer: ir.Value, mask: ir.Value) -> ir.Value:
        """Load the lanes of a mask; the others are zero, and are not touched in memory."""
        name = f"llvm.masked.load.{self._suffix}.p0"
        function = declare(builder.module, name, self.type, [POINTER, I32, self.mask_type, self.type])
        return builder.call(function, [pointer, ir.Constant(I32, self.item_size), mask, self.zero])

    def masked_store(self, builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value, mask: ir.Value) -> None:
        name = f"llvm.masked.store.{self._suffix}.p0"
        function = declare(builder.module, name, VOID, [self.type, POINTER, I32, self.mask_type])
        builder.call(function, [value, pointer, ir.Constant(I32, self.item_size), mask])

    def fma(self, builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
        """Return a * b + c, in one instruction where the CPU has it (`llvm.fma` would call the C library elsewhere)."""
        name = f"llvm.fmuladd.{self._suffix}"
        return builder.call(declare(builder.module, name, self.type, [self.type] * 3), [a, b, c])

    def splat(self, builder: ir.IRBuilder, scalar: ir.Value) -> ir.Value:
        """Return a vector with all lanes equal to a scalar of any type."""
        vector_type = ir.VectorType(scalar.type, self.count)
        undefined = ir.Constant(vector_type, ir.Undefined)
        vector = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
        return builder.shuffle_vector(vector, undefined, ir.Constant(ir.VectorType(I32, self.count), [0] * self.count))

    def first(self, builder: ir.IRBuilder, n: ir.Value) -> ir.Value:
        """Return the mask of the lanes below n (an i64 of any value)."""
        lane_numbers = ir.Constant(ir.VectorType(I64, self.count), list(range(self.count)))
        return builder.icmp_signed("<", lane_numbers, self.splat(builder, n))


def offset(builder: ir.IRBuilder, pointer: ir.Value, *byte_counts: ir.Value) -> ir.Value:
    """Return pointer + the sum of byte counts."""
    for count in byte_counts:
        pointer = builder.gep(pointer, [count], source_etype=I8)
    return pointer


def opaque(builder: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
    """Return a pointer whose origin the compiler does not see, so that it advances by one addition.

    Otherwise the places of all steps become sums of strides, more than there are registers.
    """
    return builder.asm(ir.FunctionType(POINTER, [POINTER]), "", "=r,0", [pointer], side_effect=False)


def prefetch(builder: ir.IRBuilder, pointer: ir.Value, write: bool) -> None:
    """Ask for a cache line."""
    function = declare(builder.module, "llvm.prefetch.p0", VOID, [POINTER, I32, I32, I32])
    builder.call(function, [pointer, ir.Constant(I32, int(write)), ir.Constant(I32, 3), ir.Constant(I32, 1)])


def part_module(name: str) -> ir.Module:
    """Return an empty module for code that is linked after the optimiser (`native.compile_library(parts=...)`)."""
    module = ir.Module(name)
    module.triple = binding.get_process_triple()
    return module


def part_function(module: ir.Module, name: str, argument_count: int) -> ir.Function:
    """Return a new function of int64 arguments."""
    return ir.Function(module, ir.FunctionType(VOID, [I64] * argument_count), name)


def part_intrinsic(name: str, argument_count: int) -> Any:
    """Return the intrinsic that calls a part's function."""

    @intrinsic(types.void(*[WORD] * argument_count))
    def call_part(builder: ir.IRBuilder, *args: Any) -> None:
        builder.call(declare(builder.module, name, VOID, [I64] * argument_count), args)

    return call_part


def switch_part(
    name: str, argument_count: int, selector: int, cases: Mapping[int, Callable[[ir.Module], ir.Function]]
) -> ir.Module:
    """Return the module of a part whose argument number `selector` says which of some functions is meant.

    Another value does nothing. `cases` write the functions.
    """
    module = part_module(name)
    function = part_function(module, name, argument_count)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    end = function.append_basic_block("end")
    switch = builder.switch(function.args[selector], end)
    for value, write in cases.items():
        callee = write(module)
        callee.linkage = "internal"
        block = function.append_basic_block("case")
        switch.add_case(word(value), block)
        builder.position_at_end(block)
        builder.call(callee, function.args).tail = "tail"
        builder.branch(end)
    ir.IRBuilder(end).ret_void()
    return module


@dataclass(frozen=True)
class TileEmitter:
    """Emits the tile of one number of rows and vectors."""

    lanes: Lanes
    panel_rows: int
    rows: int
    vectors: int
    indirect: bool

    def emit(self, module: ir.Module, name: str) -> ir.Function:
        """Add void name(rows, k, a, b, step, c, ldc, n, accumulate) to the module."""
        function = part_function(module, name, 9)
        function.linkage = "internal"
        sums, done = self._emit_sums(function, ir.IRBuilder(function.append_basic_block("entry")))
        self._emit_store(function, done, [sums[i : i + self.vectors] for i in range(0, len(sums), self.vectors)])
        return function

    def _emit_sums(self, function: ir.Function, head: ir.IRBuilder) -> tuple[list[ir.Value], ir.Block]:
        """Emit sum_k A[k, i] * B[k, j] with one accumulator per (i, vector of j); return them and where they are."""
        _, k_count, a_start, b_start, step, c_start, _, _, _ = function.args
        a, b_first, c = (head.inttoptr(value, POINTER) for value in (a_start, b_start, c_start))
        table = head.inttoptr(step, POINTER)
        ahead = head.mul(step, word(AHEAD))
        def add_products(
            builder: ir.IRBuilder, places: list[ir.Value], sums: list[ir.Value]
        ) -> tuple[list[ir.Value], list[ir.Value]]:
            a, b, c = places
            if self.indirect:
                row = offset(builder, b_first, builder.load(b, typ=I64))
                following = offset(builder, b, word(TABLE_WORD))
            else:
                row, following = b, opaque(builder, offset(builder, b, step))
                for line in self._lines:
                    prefetch(builder, offset(builder, b, ahead, line), write=False)
            elements = [offset(builder, a, word(i * self.lanes.item_size)) for i in range(self.rows)]
            sums = self._products(builder, elements, row, sums)
            return [offset(builder, a, word(self.panel_rows * self.lanes.item_size)), following, c], sums

        starts = [a, table if self.indirect else b_first, c]
        zeros: list[ir.Value] = [self.lanes.zero] * (self.rows * self.vectors)
        return UnrolledLoop(UNROLLED, self._rows_prefetch(head), add_products).emit(head, k_count, starts, zeros)

    def _rows_prefetch(self, head: ir.IRBuilder) -> Callable[[ir.IRBuilder, ir.Value, list[ir.Value]], list[ir.Value]]:
        """Return what prefetches one row of C, the last place, a round: a burst would exhaust the line fill buffers."""
        rows, k_count, _, _, _, _, ldc, _, _ = head.function.args
        at_last_row = head.sub(k_count, head.mul(head.sub(rows, word(1)), word(UNROLLED)))

        def prefetch_row(builder: ir.IRBuilder, left: ir.Value, places: list[ir.Value]) -> list[ir.Value]:
            *others, c = places
            for line in self._lines:
                prefetch(builder, offset(builder, c, line), write=True)
            step = builder.select(builder.icmp_signed(">", left, at_last_row), ldc, word(0))
            return [*others, offset(builder, c, step)]

        return prefetch_row

    @property
    def _lines(self) -> list[ir.Constant]:
        """Return the cache lines of a row of the tile."""
        return [word(line) for line in range(0, self.vectors * self.lanes.count * self.lanes.item_size, CACHE_LINE)]

    def _products(
        self, builder: ir.IRBuilder, elements: list[ir.Value], row: ir.Value, sums: list[ir.Value]
    ) -> list[ir.Value]:
        """Add to the sums what elements of A, each spread over a vector, and a row of B give."""
        lanes = self.lanes
        vector_bytes = lanes.count * lanes.item_size
        found = list(sums)

        def spread(i: int) -> ir.Value:
            return lanes.splat(builder, builder.load(elements[i], typ=lanes.element))

        def vector(j: int) -> ir.Value:
            return lanes.load(builder, offset(builder, row, word(j * vector_bytes)))

        def add(i: int, j: int, element: ir.Value, value: ir.Value) -> None:
            found[i * self.vectors + j] = lanes.fma(builder, element, value, found[i * self.vectors + j])

        # The fewer of both are kept in registers.
        if self.rows < self.vectors:
            kept = [spread(i) for i in range(self.rows)]
            for j in range(self.vectors):
                value = vector(j)
                for i, element in enumerate(kept):
                    add(i, j, element, value)
        else:
            kept = [vector(j) for j in range(self.vectors)]
            for i in range(self.rows):
                element = spread(i)
                for j, value in enumerate(kept):
                    add(i, j, element, value)
        return found

    def _emit_store(self, function: ir.Function, done: ir.Block, sums: list[list[ir.Value]]) -> None:
        """Emit C (+)= sums for the first `rows` rows and n columns; the last row may be one of junk."""
        rows, _, _, _, _, c_start, ldc, n, accumulate = function.args
        leave = function.append_basic_block("leave")
        lanes = self.lanes
        vector_bytes = lanes.count * lanes.item_size
        builder = ir.IRBuilder(done)
        c = builder.inttoptr(c_start, POINTER)
        cells = [(i, j) for i in range(self.rows) for j in range(self.vectors)]
        places = {}
        for i, j in cells:
            places[i, j] = offset(builder, c, builder.mul(word(i), ldc), word(j * vector_bytes))
        has_last = builder.icmp_signed(">=", rows, word(self.rows))
        masks = [lanes.first(builder, builder.sub(n, word(j * lanes.count))) for j in range(self.vectors)]
        nothing = ir.Constant(lanes.mask_type, [0] * lanes.count)
        last_masks = [builder.select(has_last, mask, nothing) for mask in masks]
        mask_of = {(i, j): (last_masks if i == self.rows - 1 else masks)[j] for i, j in cells}
        is_add = builder.icmp_signed("!=", accumulate, word(0))
        if not lanes.has_cheap_masks:
            whole, part = (function.append_basic_block(x) for x in ("whole", "part"))
            fits = builder.icmp_signed(">=", n, word(self.vectors * lanes.count))
            builder.cbranch(builder.and_(fits, has_last), whole, part)
            self._emit_cells(function, whole, leave, is_add, sums, places, {})
            builder.position_at_end(part)
        self._emit_cells(function, builder.block, leave, is_add, sums, places, mask_of)
        ir.IRBuilder(leave).ret_void()

    def _emit_cells(
        self,
        function: ir.Function,
        start: ir.Block,
        leave: ir.Block,
        is_add: ir.Value,
        sums: list[list[ir.Value]],
        places: dict[tuple[int, int], ir.Value],
        mask_of: dict[tuple[int, int], ir.Value],
    ) -> None:
        """Emit C (+)= sums for vectors of C, those without a mask as a whole."""
        lanes = self.lanes
        add, write = (function.append_basic_block(x) for x in ("add", "write"))

        def store(builder: ir.IRBuilder, value: ir.Value, cell: tuple[int, int]) -> None:
            if cell in mask_of:
                lanes.masked_store(builder, value, places[cell], mask_of[cell])
            else:
                lanes.store(builder, value, places[cell])

        ir.IRBuilder(start).cbranch(is_add, add, write)
        builder = ir.IRBuilder(add)  # all loads before all stores: rows of C may alias modulo 4 KiB
        totals = {}
        for (i, j), place in places.items():
            mask = mask_of.get((i, j))
            old = lanes.load(builder, place) if mask is None else lanes.masked_load(builder, place, mask)
            totals[i, j] = builder.fadd(old, sums[i][j])
        for cell, total in totals.items():
            store(builder, total, cell)
        builder.branch(leave)
        builder = ir.IRBuilder(write)
        for i, j in places:
            store(builder, sums[i][j], (i, j))
        builder.branch(leave)


def tile_name(bits: int, indirect: bool) -> str:
    """Return the symbol of the tile."""
    return f"tg_tile_f{bits}_{'indirect' if indirect else 'direct'}"


def tile_part(bits: int, shape: TileShape, indirect: bool) -> ir.Module:
    """Return the module that defines the tile."""
    lanes = Lanes(bits, shape.lanes(bits // 8))

    def emitter(rows: int, vectors: int) -> TileEmitter:
        return TileEmitter(lanes, shape.rows, rows, vectors, indirect)

    return switched_part(tile_name(bits, indirect), lanes, shape, emitter)


def switched_part(
    name: str, lanes: Lanes, shape: TileShape, emitter: Callable[[int, int], TileEmitter]
) -> ir.Module:
    """Return the module that defines a tile: a switch over functions for each height and width."""
    module = part_module(name)
    function = part_function(module, name, 9)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    end = function.append_basic_block("end")
    is_wide = builder.zext(builder.icmp_signed(">", function.args[7], word(lanes.count)), I64)
    even_rows = builder.and_(builder.add(function.args[0], word(1)), word(-2))
    switch = builder.switch(builder.add(even_rows, is_wide), end)
    for rows in range(2, shape.rows + 1, 2):
        for wide, vectors in enumerate((1, shape.vectors)):
            block = function.append_basic_block("case")
            switch.add_case(word(rows + wide), block)
            builder.position_at_end(block)
            call = builder.call(emitter(rows, vectors).emit(module, f"{name}_{rows}x{vectors}"), function.args)
            call.tail = "tail"
            builder.branch(end)
    ir.IRBuilder(end).ret_void()
    return module


def thin_tile_name(bits: int) -> str:
    """Return the symbol of the thin tile."""
    return f"tg_tile_f{bits}_thin"


def thin_tile_intrinsic(bits: int) -> Any:
    """Return the intrinsic of the thin tile: it is indirect, n is its full width, and rows may be one fewer."""

    return part_intrinsic(thin_tile_name(bits), 9)


def thin_tile_part(bits: int, shape: TileShape) -> ir.Module:
    """Return the module that defines the thin tile: a switch over functions by their width."""
    lanes = Lanes(bits, shape.lanes(bits // 8))
    name = thin_tile_name(bits)

    def case(rows: int, vectors: int) -> Callable[[ir.Module], ir.Function]:
        emitter = TileEmitter(lanes, shape.rows, rows, vectors, indirect=True)
        return lambda module: emitter.emit(module, f"{name}_{rows}x{vectors}")

    widths = [(rows, thin_vectors(rows)) for rows in range(1, THIN_ROWS + 1)]
    return switch_part(name, 9, 7, {vectors * lanes.count: case(rows, vectors) for rows, vectors in widths})


def tile_intrinsic(bits: int, indirect: bool) -> Any:
    """Return the intrinsic tile(rows, k, a, b, step, c, ldc, n, accumulate)."""

    return part_intrinsic(tile_name(bits, indirect), 9)
