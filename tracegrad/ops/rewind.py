"""The pullback of a loop that keeps few carries: they are computed again from a fixed number of saved ones.

    rewind(rounds, *carry, *sums, *consts; advance, step, n_carry, slots)
        carry[0] = carry, carry[i + 1] = advance(carry[i], consts)
        sums = step(sums, carry[i], consts)    for i = rounds - 1, ..., 0

The number of rounds is known when the loop has ended, so the plan is that of a loop of known length: binomial
checkpointing, which needs the fewest rounds that `slots` saved carries allow (Griewank & Walther, "Algorithm 799:
revolve", 2000). With b(c, r) = (c + r)! / (c! r!) and the least r for which b(slots, r) >= n, it computes
r n - b(slots + 1, r - 1) rounds. Online checkpointing (Stumm & Walther, 2010) saves some of them by placing carries
while the loop runs for the first time; it needs a little more in every round of that, and more code.
"""

from __future__ import annotations

from typing import Any

from tracegrad.errors import ShapeError
from tracegrad.ir import Graph, interpret
from tracegrad.ir.aval import Aval, Avals
from tracegrad.ops.control import Control, check_inputs, results_of


def split(gap: int, slots: int) -> int:
    """Return after how many of the next `gap` rounds to save a carry, when `slots` places are left, the one of the
    carry at their beginning included: the last rounds go to one slot less, the first ones to one repetition less.

    `codegen.rewind_region` says the same in LLVM."""
    r, before, reach = 1, 1, slots + 1
    while reach < gap:
        r += 1
        before, reach = reach, reach * (slots + r) // r
    return min(before, gap - before * slots // (slots + r - 1))


class Rewind(Control):
    name = "rewind"

    def aval(self, *operands: Aval, advance: Graph, step: Graph, n_carry: int, slots: int) -> Aval:  # type: ignore[override]
        _, carry, sums, consts = self.parts(operands, step, n_carry)
        check_inputs("rewind", advance, (*carry, *consts))
        check_inputs("rewind", step, (*sums, *carry, *consts))
        if results_of(advance) != carry or results_of(step) != sums:
            raise ShapeError(f"rewind: {advance.name} or {step.name} gives something else than it takes")
        return Avals.of(sums)

    def parts(self, operands: tuple[Any, ...], step: Graph, n_carry: int) -> tuple[Any, ...]:
        """Return (rounds, carry, sums, consts)."""
        rounds, rest, n = operands[0], operands[1:], n_carry + len(step.outputs)
        return rounds, rest[:n_carry], rest[n_carry:n], rest[n:]

    def eager(self, *operands: Any, advance: Graph, step: Graph, n_carry: int, slots: int) -> Any:
        rounds, carry, sums, consts = self.parts(operands, step, n_carry)
        saved = [(0, carry)]
        for i in range(int(rounds) - 1, -1, -1):
            while saved[-1][0] < i and len(saved) < slots:
                at, carry = saved[-1]
                to = at + split(i + 1 - at, slots - len(saved) + 1)
                saved.append((to, run(advance, to - at, carry, consts)))
            at, carry = saved[-1]
            sums = interpret(step, *sums, *run(advance, i - at, carry, consts), *consts)
            if at == i and i > 0:
                saved.pop()
        return tuple(sums)


def run(advance: Graph, rounds: int, carry: Any, consts: Any) -> Any:
    for _ in range(rounds):
        carry = interpret(advance, *carry, *consts)
    return carry


rewind = Rewind()
