"""The register tile of matrix products, as LLVM vector code: it reads both operands where they lie.

    product_tile(rows, k, a, a_row, a_k, b, b_step, c, c_row, n, accumulate)     addresses and strides in bytes
        C[i, j] (+)= sum_k  A[i, k] * B[k, j]                i < rows, j < n <= columns, k >= 1

    product_tiles(rows, k, a, a_row, a_k, b, b_step, c, c_row, tiles, b_tile, accumulate)
        the same for neighbours of full width, each `b_tile` further in B: the setup is worth more than a few terms

An element of A is broadcast from any place, so a packed panel is only another pair of strides.  A row of B is read in
whole vectors: two where n is more than one, the second of which ends at column n, and repeats columns of the first if
it must.  So nothing outside B is touched, and no store is masked, unless n is less than one vector: then a row of B
must have the rest of it.  In the same way an odd row is computed twice.  What is written twice has the same bits.

Each shape is a function of its own, reached through one switch: even numbers of rows, one vector or two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from tracegrad.codegen.addresses import I64, POINTER
from tracegrad.codegen.tile import (
    AHEAD,
    Lanes,
    offset,
    opaque,
    part_function,
    part_intrinsic,
    part_module,
    prefetch,
    word,
)
from tracegrad.codegen.tile_shape import TileShape
from tracegrad.codegen.unrolled_loop import UNROLLED, UnrolledLoop

ARGUMENTS = 11
TILES_ARGUMENTS = 12

Sums = list[ir.Value]


def product_tile_name(bits: int) -> str:
    """Return the symbol of the tile."""
    return f"tg_product_tile_f{bits}"


def product_tile_intrinsic(bits: int) -> Any:
    """Return the intrinsic product_tile(rows, k, a, a_row, a_k, b, b_step, c, c_row, n, accumulate)."""

    return part_intrinsic(product_tile_name(bits), ARGUMENTS)


def product_tiles_intrinsic(bits: int) -> Any:
    """Return the intrinsic product_tiles(rows, k, a, a_row, a_k, b, b_step, c, c_row, tiles, b_tile, accumulate)."""

    return part_intrinsic(f"{product_tile_name(bits)}s", TILES_ARGUMENTS)


def product_tile_part(bits: int, shape: TileShape) -> ir.Module:
    """Return the module that defines the tile."""
    lanes = Lanes(bits, shape.lanes(bits // 8))
    name = product_tile_name(bits)
    module = part_module(name)
    one = part_function(module, name, ARGUMENTS)
    builder = ir.IRBuilder(one.append_basic_block("entry"))
    is_wide = builder.zext(builder.icmp_signed(">", one.args[9], word(lanes.count)), I64)
    callees = {
        (rows, vectors): ProductTile(lanes, rows, vectors, part_function(module, f"{name}_{rows}x{vectors}", ARGUMENTS))
        for rows in range(2, shape.rows + 1, 2)
        for vectors in (1, 2)
    }
    _emit_switch(builder, is_wide, {rows + vectors - 1: tile for (rows, vectors), tile in callees.items()})
    many = part_function(module, f"{name}s", TILES_ARGUMENTS)
    rows_of = {
        rows: TileRow(lanes, rows, 2, part_function(module, f"{name}s_{rows}", TILES_ARGUMENTS))
        for rows in range(2, shape.rows + 1, 2)
    }
    _emit_switch(ir.IRBuilder(many.append_basic_block("entry")), word(0), rows_of)
    return module


def _emit_switch(builder: ir.IRBuilder, offset_of_case: ir.Value, tiles: Mapping[int, ProductTile]) -> None:
    """Emit a switch over the number of rows, rounded up to an even one, plus an offset; and the tiles it calls."""
    function = builder.function
    end = function.append_basic_block("end")
    even_rows = builder.and_(builder.add(function.args[0], word(1)), word(-2))
    switch = builder.switch(builder.add(even_rows, offset_of_case), end)
    for case, tile in tiles.items():
        tile.emit()
        block = function.append_basic_block("case")
        switch.add_case(word(case), block)
        builder.position_at_end(block)
        builder.call(tile.function, function.args).tail = "tail"
        builder.branch(end)
    ir.IRBuilder(end).ret_void()


@dataclass
class ProductTile:
    """Emits the tile of one number of rows and vectors."""

    lanes: Lanes
    rows: int
    vectors: int
    function: ir.Function

    def emit(self) -> None:
        """Fill the function: places, sums, stores."""
        function = self.function
        function.linkage = "internal"
        _, _, a, _, _, b, _, c, self.c_row, self.n, self.accumulate = function.args
        head = ir.IRBuilder(function.append_basic_block("entry"))
        self._places(head, self.n)
        self._emit_tile(head, [head.inttoptr(x, POINTER) for x in (a, b, c)]).ret_void()

    def _emit_tile(self, head: ir.IRBuilder, starts: list[ir.Value]) -> ir.IRBuilder:
        """Emit the sums of one tile, and their stores; return where control goes on."""
        self.c = starts[2]
        zeros: Sums = [self.lanes.zero] * (self.rows * self.vectors)
        loop = UnrolledLoop(UNROLLED, self._prefetch, self._step)
        sums, done = loop.emit(head, self.function.args[1], starts, zeros)
        return self._store(ir.IRBuilder(done), sums)

    def _places(self, builder: ir.IRBuilder, n: ir.Value) -> None:
        """Work out where rows of A and C and vectors of B and C start; an odd row is the one before it again."""
        rows, _, _, a_row, self.a_k, _, self.b_step, _, c_row = self.function.args[:9]
        last = builder.sub(rows, word(1))
        numbers: Sequence[ir.Value] = [*(word(i) for i in range(self.rows - 1)), last]
        self.a_rows = [builder.mul(i, a_row) for i in numbers]
        self.c_rows = [builder.mul(i, c_row) for i in numbers]
        size, count = self.lanes.item_size, self.lanes.count
        second = builder.mul(builder.sub(n, word(count)), word(size))
        whole = builder.icmp_signed(">=", n, word(2 * count))
        self.columns = [word(0), builder.select(whole, word(count * size), second)][: self.vectors]
        self.ahead = builder.mul(self.b_step, word(AHEAD))

    def _prefetch(self, builder: ir.IRBuilder, left: ir.Value, places: list[ir.Value]) -> list[ir.Value]:
        """Ask for a row of C, which may lie across two lines."""
        a, b, c = places
        for line in (0, self.lanes.count * self.lanes.item_size * self.vectors - 1):
            prefetch(builder, offset(builder, c, word(line)), write=True)
        return [a, b, offset(builder, c, self.c_row)]

    def _step(self, builder: ir.IRBuilder, places: list[ir.Value], sums: Sums) -> tuple[list[ir.Value], Sums]:
        """Add the products of one k; return the places of the next, and the sums."""
        a, b, c = places
        lanes = self.lanes
        prefetch(builder, offset(builder, b, self.ahead), write=False)
        b_vectors = [lanes.load(builder, offset(builder, b, column)) for column in self.columns]
        found: Sums = []
        for i in range(self.rows):
            spread = lanes.splat(builder, builder.load(offset(builder, a, self.a_rows[i]), typ=lanes.element))
            found += [
                lanes.fma(builder, spread, b_vectors[j], sums[i * self.vectors + j]) for j in range(self.vectors)
            ]
        return [*(opaque(builder, offset(builder, x, by)) for x, by in ((a, self.a_k), (b, self.b_step))), c], found

    def _store(self, builder: ir.IRBuilder, sums: Sums) -> ir.IRBuilder:
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
        return ir.IRBuilder(leave)

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


class TileRow(ProductTile):
    """Emits the loop over neighbouring tiles of full width."""

    def emit(self) -> None:
        """Fill the function: places, then tile after tile."""
        function = self.function
        function.linkage = "internal"
        _, _, a, _, _, b, _, c, self.c_row, tiles, b_tile, self.accumulate = function.args
        entry = ir.IRBuilder(function.append_basic_block("entry"))
        width = self.lanes.count * self.vectors
        self.n = word(width)
        self._places(entry, self.n)
        starts = [entry.inttoptr(x, POINTER) for x in (a, b, c)]
        head, leave = function.append_basic_block("tile"), function.append_basic_block("leave_row")
        entry.branch(head)
        builder = ir.IRBuilder(head)
        left, b_place, c_place = (builder.phi(value.type) for value in (tiles, *starts[1:]))
        end = self._emit_tile(builder, [starts[0], b_place, c_place])
        fewer = end.sub(left, word(1))
        following = [
            fewer, offset(end, b_place, b_tile), offset(end, c_place, word(width * self.lanes.item_size))
        ]  # fmt: skip
        for phi, first, value in zip((left, b_place, c_place), (tiles, *starts[1:]), following, strict=True):
            phi.add_incoming(first, entry.block)
            phi.add_incoming(value, end.block)
        end.cbranch(end.icmp_signed(">", fewer, word(0)), head, leave)
        ir.IRBuilder(leave).ret_void()
