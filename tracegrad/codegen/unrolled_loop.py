"""The loop over k of every register tile, as LLVM code: rounds of several steps, then single ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llvmlite import ir

from tracegrad.codegen.addresses import I64

UNROLLED = 4  # steps of a round: one of the 6 x 16 tile has 12 FMAs in 6 cycles, and nothing else may take longer


@dataclass(frozen=True)
class UnrolledLoop:
    """Emits a loop over a number of steps, `unrolled` of them at a time and the rest one by one.

    What lives in registers is a list of places and one of sums.  begin(builder, left, places) opens a round and returns
    its places; step(builder, places, sums) returns both as they are after it.
    """

    unrolled: int
    begin: Callable[[ir.IRBuilder, ir.Value, list[ir.Value]], list[ir.Value]]
    step: Callable[[ir.IRBuilder, list[ir.Value], list[ir.Value]], tuple[list[ir.Value], list[ir.Value]]]

    def emit(
        self, head: ir.IRBuilder, count: ir.Value, places: list[ir.Value], sums: list[ir.Value]
    ) -> tuple[list[ir.Value], ir.Block]:
        """Go on from `head`; return the sums after `count` steps, and the block where they are."""
        state = [count, *places, *sums]
        middle, end = (head.function.append_basic_block(name) for name in ("middle", "end"))
        after_rounds = self._loop(head, self.unrolled, len(places), state, middle)
        builder = ir.IRBuilder(middle)
        after_steps = self._loop(builder, 1, len(places), self._joined(builder, after_rounds), end)
        return self._joined(ir.IRBuilder(end), after_steps)[1 + len(places) :], end

    def _loop(
        self, head: ir.IRBuilder, steps: int, place_count: int, start: list[ir.Value], leave: ir.Block
    ) -> dict[ir.Block, list[ir.Value]]:
        """Emit rounds of `steps` steps while there are as many; return by which blocks one leaves, and with what."""
        entry, block = head.block, head.function.append_basic_block("rounds")
        head.cbranch(head.icmp_signed(">=", start[0], ir.Constant(I64, steps)), block, leave)
        builder = ir.IRBuilder(block)
        carried = [builder.phi(value.type) for value in start]
        left, places, sums = carried[0], list(carried[1 : 1 + place_count]), list(carried[1 + place_count :])
        places = self.begin(builder, left, places)
        for _ in range(steps):
            places, sums = self.step(builder, places, sums)
        fewer = builder.sub(left, ir.Constant(I64, steps))
        following = [fewer, *places, *sums]
        for phi, first, value in zip(carried, start, following, strict=True):
            phi.add_incoming(first, entry)
            phi.add_incoming(value, block)
        builder.cbranch(builder.icmp_signed(">=", fewer, ir.Constant(I64, steps)), block, leave)
        return {entry: start, block: following}

    @staticmethod
    def _joined(builder: ir.IRBuilder, incoming: dict[ir.Block, list[ir.Value]]) -> list[ir.Value]:
        """Return the values that depend on where control comes from."""
        joined = [builder.phi(value.type) for value in next(iter(incoming.values()))]
        for block, values in incoming.items():
            for phi, value in zip(joined, values, strict=True):
                phi.add_incoming(value, block)
        return joined
