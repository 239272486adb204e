"""The register tile of matrix products, as LLVM vector code: it reads both operands where they lie.

    product_tile(rows, k, a, a_row, a_k, b, b_step, c, c_row, n, accumulate)     addresses and strides in bytes
        C[i, j] (+)= sum_k  A[i, k] * B[k, j]                i < rows, j < n <= columns, k >= 1

An element of A is broadcast from any place, so a packed panel is only another pair of strides.  A row of B is read in
whole vectors: two where n is more than one, the second of which ends at column n, and repeats columns of the first if
it must.  So nothing outside B is touched, and no store is masked, unless n is less than one vector: then a row of B
must have the rest of it.  In the same way an odd row is computed twice.  What is written twice has the same bits.

Each shape is a function of its own, reached through one switch: even numbers of rows, one vector or two.  Four steps of
k are written out: a step of the 6 x 16 tile has 12 FMAs, which take 6 cycles, and nothing else may take longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types

from tracegrad.codegen.addresses import I64, POINTER, intrinsic
from tracegrad.codegen.tile import WORD, Lanes, offset, part_call, part_function, part_module, prefetch, word
from tracegrad.codegen.tile_shape import TileShape

ARGUMENTS = 11
UNROLLED = 4
AHEAD = 8  # rows of B between its prefetch and its use

Sums = list[ir.Value]


def product_tile_name(bits: int) -> str:
    """Return the symbol of the tile."""
    return f"tg_product_tile_f{bits}"


def product_tile_intrinsic(bits: int) -> Any:
    """Return the intrinsic product_tile(rows, k, a, a_row, a_k, b, b_step, c, c_row, n, accumulate)."""

    @intrinsic
    def product_tile(
        typing_context: Any, rows: Any, k: Any, a: Any, a_row: Any, a_k: Any, b: Any, b_step: Any, c: Any, c_row: Any,
        n: Any, accumulate: Any,
    ) -> Any:  # fmt: skip
        return types.void(*[WORD] * ARGUMENTS), part_call(product_tile_name(bits), ARGUMENTS)

    return product_tile


def product_tile_part(bits: int, shape: TileShape) -> ir.Module:
    """Return the module that defines the tile."""
    lanes = Lanes(bits, shape.lanes(bits // 8))
    name = product_tile_name(bits)
    module = part_module(name)
    function = part_function(module, name, ARGUMENTS)
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    end = function.append_basic_block("end")
    is_wide = builder.zext(builder.icmp_signed(">", function.args[9], word(lanes.count)), I64)
    even_rows = builder.and_(builder.add(function.args[0], word(1)), word(-2))
    switch = builder.switch(builder.add(even_rows, is_wide), end)
    for rows in range(2, shape.rows + 1, 2):
        for wide in (0, 1):
            callee = ProductTile(lanes, rows, wide + 1, part_function(module, f"{name}_{rows}x{wide + 1}", ARGUMENTS))
            callee.emit()
            block = function.append_basic_block("case")
            switch.add_case(word(rows + wide), block)
            builder.position_at_end(block)
            builder.call(callee.function, function.args).tail = "tail"
            builder.branch(end)
    ir.IRBuilder(end).ret_void()
    return module


@dataclass
class ProductTile:
    """Emits the tile of one number of rows and vectors."""

    lanes: Lanes
    rows: int
    vectors: int
    function: ir.Function

    def emit(self) -> None:
        """Fill the function: whole rounds of four steps, single steps, stores."""
        function = self.function
        function.linkage = "internal"
        rows, count, a, _, _, b, _, c, self.c_row, self.n, self.accumulate = function.args
        entry, rounds, middle, single, done = (
            function.append_basic_block(name) for name in ("entry", "rounds", "middle", "single", "done")
        )
        builder = ir.IRBuilder(entry)
        self._places(builder, rows)
        starts = [builder.inttoptr(x, POINTER) for x in (a, b, c)]
        self.c = starts[2]
        zeros: Sums = [self.lanes.zero] * (self.rows * self.vectors)
        builder.cbranch(builder.icmp_signed(">=", count, word(UNROLLED)), rounds, middle)

        builder.position_at_end(rounds)
        left = self._carried(builder, {entry: count})
        a_p, b_p, c_p = (self._carried(builder, {entry: start}) for start in starts)
        carried = [self._carried(builder, {entry: zero}) for zero in zeros]
        for line in (0, self.lanes.count * self.lanes.item_size * self.vectors - 1):  # a row may lie across two lines
            prefetch(builder, offset(builder, c_p, word(line)), write=True)
        (a_next, b_next), sums = (a_p, b_p), list(carried)
        for _ in range(UNROLLED):
            prefetch(builder, offset(builder, b_next, self.ahead), write=False)
            (a_next, b_next), sums = self._step(builder, (a_next, b_next), sums)
        fewer = builder.sub(left, word(UNROLLED))
        c_next = offset(builder, c_p, self.c_row)
        for phi, value in zip([left, a_p, b_p, c_p, *carried], [fewer, a_next, b_next, c_next, *sums], strict=True):
            phi.add_incoming(value, rounds)
        builder.cbranch(builder.icmp_signed(">=", fewer, word(UNROLLED)), rounds, middle)

        builder.position_at_end(middle)
        left, a_p, b_p, *carried = (
            self._carried(builder, {entry: start, rounds: value})
            for start, value in zip([count, *starts[:2], *zeros], [fewer, a_next, b_next, *sums], strict=True)
        )
        middles = [left, a_p, b_p, *carried]
        builder.cbranch(builder.icmp_signed(">", left, word(0)), single, done)

        builder.position_at_end(single)
        left, a_p, b_p, *carried = (self._carried(builder, {middle: value}) for value in middles)
        (a_next, b_next), sums = self._step(builder, (a_p, b_p), carried)
        fewer = builder.sub(left, word(1))
        for phi, value in zip([left, a_p, b_p, *carried], [fewer, a_next, b_next, *sums], strict=True):
            phi.add_incoming(value, single)
        builder.cbranch(builder.icmp_signed(">", fewer, word(0)), single, done)

        builder.position_at_end(done)
        self._store(builder, [
            self._carried(builder, {middle: x, single: y}) for x, y in zip(middles[3:], sums, strict=True)
        ])  # fmt: skip

    def _places(self, builder: ir.IRBuilder, rows: ir.Value) -> None:
        """Work out where rows of A and C and vectors of B and C start; an odd row is the one before it again."""
        _, _, _, a_row, self.a_k, _, self.b_step, _, c_row, n, _ = self.function.args
        last = builder.sub(rows, word(1))
        numbers: Sequence[ir.Value] = [*(word(i) for i in range(self.rows - 1)), last]
        self.a_rows = [builder.mul(i, a_row) for i in numbers]
        self.c_rows = [builder.mul(i, c_row) for i in numbers]
        size, count = self.lanes.item_size, self.lanes.count
        second = builder.mul(builder.sub(n, word(count)), word(size))
        whole = builder.icmp_signed(">=", n, word(2 * count))
        self.columns = [word(0), builder.select(whole, word(count * size), second)][: self.vectors]
        self.ahead = builder.mul(self.b_step, word(AHEAD))

    @staticmethod
    def _carried(builder: ir.IRBuilder, incoming: dict[ir.Block, ir.Value]) -> ir.PhiInstr:
        """Return the value that depends on where control comes from."""
        phi = builder.phi(next(iter(incoming.values())).type)
        for block, value in incoming.items():
            phi.add_incoming(value, block)
        return phi

    def _step(
        self, builder: ir.IRBuilder, places: tuple[ir.Value, ir.Value], sums: Sums
    ) -> tuple[tuple[ir.Value, ir.Value], Sums]:
        """Add the products of one k; return the places of the next, and the sums."""
        a, b = places
        lanes = self.lanes
        b_vectors = [lanes.load(builder, offset(builder, b, column)) for column in self.columns]
        found: Sums = []
        for i in range(self.rows):
            spread = lanes.splat(builder, builder.load(offset(builder, a, self.a_rows[i]), typ=lanes.element))
            found += [
                lanes.fma(builder, spread, b_vectors[j], sums[i * self.vectors + j]) for j in range(self.vectors)
            ]
        return (opaque(builder, offset(builder, a, self.a_k)), opaque(builder, offset(builder, b, self.b_step))), found

    def _store(self, builder: ir.IRBuilder, sums: Sums) -> None:
        """Emit C (+)= sums; less than one vector is masked, by a branch where masks are not cheap."""
        lanes = self.lanes
        places = [offset(builder, self.c, row, column) for row in self.c_rows for column in self.columns]
        whole, leave = (self.function.append_basic_block(name) for name in ("whole", "leave"))
        if self.vectors == 1:
            part = self.function.append_basic_block("part")
            builder.cbranch(builder.icmp_signed(">=", self.n, word(lanes.count)), whole, part)
            builder.position_at_end(part)
            self._store_cells(builder, leave, sums, places, lanes.first(builder, self.n))
        else:
            builder.branch(whole)
        builder.position_at_end(whole)
        self._store_cells(builder, leave, sums, places, None)
        ir.IRBuilder(leave).ret_void()

    def _store_cells(
        self, builder: ir.IRBuilder, leave: ir.Block, sums: Sums, places: list[ir.Value], mask: ir.Value | None
    ) -> None:
        """Emit C (+)= sums for all vectors, under a mask if there is one."""
        lanes = self.lanes
        add, write = (self.function.append_basic_block(name) for name in ("add", "write"))

        def store(builder: ir.IRBuilder, values: Sums) -> None:
            for value, place in zip(values, places, strict=True):
                if mask is None:
                    lanes.store(builder, value, place)
                else:
                    lanes.masked_store(builder, value, place, mask)
            builder.branch(leave)

        builder.cbranch(builder.icmp_signed("!=", self.accumulate, word(0)), add, write)
        builder.position_at_end(add)  # all loads before all stores: two rows or two vectors may be the same
        old = [lanes.load(builder, p) if mask is None else lanes.masked_load(builder, p, mask) for p in places]
        store(builder, [builder.fadd(x, y) for x, y in zip(old, sums, strict=True)])
        builder.position_at_end(write)
        store(builder, sums)


def opaque(builder: ir.IRBuilder, pointer: ir.Value) -> ir.Value:
    """Return a pointer whose origin the compiler does not see, so that it advances by one addition.

    Otherwise the places of all steps become sums of strides, more than there are registers.
    """
    return builder.asm(ir.FunctionType(POINTER, [POINTER]), "", "=r,0", [pointer], side_effect=False)
