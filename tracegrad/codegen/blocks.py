"""Epilogues -> LLVM assembly: the loops of a kernel, run on a block of a library call's result.

A block is `rows` runs of `columns` neighbours among the elements in the order of memory, `row_step` apart, from element
`first` on; where runs follow each other without a gap they are one.

A library kernel whose blocks are whole rounds of the kernel's outer loops calls the kernel itself: the same code as
when nothing is fused, with constant bounds where there is one block only. For others a run is cut where the innermost
loop begins anew, and each piece is one call:

    for run in range(rows):
        begin = first + run * row_step
        for p in range(begin // n, (begin + columns - 1) // n + 1):       the outer loops, as one
            innermost(p, max(begin - p * n, 0), min(begin + columns - p * n, n))

The innermost loop is a function, because LLVM keeps the constants of a polynomial in registers where a loop stands
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tracegrad.codegen.loops import Function
from tracegrad.codegen.scalar import Emitter
from tracegrad.schedule.kernel import Accumulate, Kernel, Loop, Stmt
from tracegrad.schedule.memory import Memory, Place

Loops = list[tuple[str, int]]

BLOCK = "i64 %address, i64 %first, i64 %rows, i64 %step, i64 %columns"
"""The parameters of the function that a library kernel calls for each block."""

ROUNDS = """
  %count = mul i64 %rows, %columns
  %end = add i64 %first, %count
  %lo = udiv i64 %first, {n}
  %hi = udiv i64 %end, {n}
  call void @{symbol}({args}, i64 %lo, i64 %hi, ptr %status)
  ret void"""
WHOLE = """
  call void @{symbol}({args}, i64 0, i64 {n}, ptr %status)
  ret void"""
PIECES = """
  %whole = icmp eq i64 %step, %columns
  %total = mul i64 %rows, %columns
  %count = select i1 %whole, i64 %total, i64 %columns
  %runs = select i1 %whole, i64 1, i64 %rows
  br label %run
run:
  %r = phi i64 [ 0, %entry ], [ %r.next, %done ]
  %skipped = mul i64 %r, %step
  %begin = add i64 %first, %skipped
  %end = add i64 %begin, %count
  %start = udiv i64 %begin, {n}
  br label %piece
piece:
  %p = phi i64 [ %start, %run ], [ %p.next, %piece ]
  %origin = mul i64 %p, {n}
  %from = sub i64 %begin, %origin
  %to = sub i64 %end, %origin
  %starts = icmp sgt i64 %from, 0
  %lo = select i1 %starts, i64 %from, i64 0
  %stops = icmp slt i64 %to, {n}
  %hi = select i1 %stops, i64 %to, i64 {n}
  call void @{symbol}({args}, i64 %p, i64 %lo, i64 %hi, ptr %status)
  %p.next = add i64 %p, 1
  %p.end = add i64 %origin, {n}
  %more = icmp slt i64 %p.end, %end
  br i1 %more, label %piece, label %done
done:
  %r.next = add i64 %r, 1
  %again = icmp slt i64 %r.next, %runs
  br i1 %again, label %run, label %last
last:
  ret void"""


class Innermost(Function):
    """Writes the innermost loop of a kernel as a function of the round of the outer loops, and of a range."""

    ranges = ("%p", "%lo", "%hi")

    def parallel(self) -> None:
        loops, body = all_loops(self.kernel)
        if len(loops) > 1:
            self.unravel("%p", loops[:-1])
        var = loops[-1][0]
        head, after = self.open_loop(var, "%lo", "%hi")
        self.body(body)
        self.close_loop(var, "%hi", head, after)


def all_loops(kernel: Kernel) -> tuple[Loops, Sequence[Stmt]]:
    """Return the loops of a kernel that walks its elements once, outermost first, and what they contain."""
    loops, body = list(kernel.outer), kernel.body
    while len(body) == 1 and isinstance(body[0], Loop):
        loops.append((body[0].var, body[0].extent))
        body = body[0].body
    return loops, body


class Parent(Protocol):
    """The function whose library call runs the epilogue."""

    memory: Memory

    def pointer(self, name: str, place: Place) -> list[str]: ...


@dataclass(frozen=True)
class Blocks:
    """How the loops of a kernel run on blocks: the function that does the work, and the one that calls it."""

    function: Function
    text: str
    n: int

    def task(self, parent: Parent, symbol: str) -> str:
        """Return the body of the function that a library kernel calls; the one that does the work is `symbol`."""
        lines = [
            "entry:",
            "  %table = inttoptr i64 %address to ptr",
            "  %status = getelementptr i64, ptr %table, i64 2",
        ]
        args = []
        for i, buffer in enumerate(self.function.buffers):
            lines += parent.pointer(f"%b{i}", parent.memory.places[buffer])
            args.append(f"ptr %b{i}")
        return "\n".join(lines) + self.text.format(n=self.n, symbol=symbol, args=", ".join(args))


def on_blocks(kernel: Kernel, size: int, grain: int, emitter: Emitter) -> Blocks | None:
    """Return how a kernel runs on blocks of a grain (`LibraryCall`) of a result of `size` elements; None: it cannot."""
    n = size // max(kernel.extent, 1)
    if grain == size or size == 1:
        return Blocks(Function(kernel, emitter), WHOLE, kernel.extent)
    if grain and grain % n == 0:
        return Blocks(Function(kernel, emitter), ROUNDS, n)
    loops, body = all_loops(kernel)
    if any(isinstance(s, (Loop, Accumulate)) for s in body):
        return None
    return Blocks(Innermost(kernel, emitter), PIECES, loops[-1][1])
