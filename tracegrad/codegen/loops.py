"""Kernels -> LLVM assembly: one internal function per kernel, and one task that finds its buffers and its share of
the work.

Every buffer is a `noalias` parameter, so LLVM needs no overlap checks to vectorise. Accumulators are stack slots that
LLVM turns into registers; their additions may be reassociated, nothing else may.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracegrad.codegen.interior import Condition, Interior, interior_of
from tracegrad.codegen.scalar import FLAGS, Emitter
from tracegrad.schedule.index import Affine
from tracegrad.schedule.kernel import (
    Accumulate,
    Checked,
    Compute,
    Const,
    Declare,
    Guard,
    IndexValue,
    Kernel,
    Load,
    Local,
    Loop,
    ReadAcc,
    Stmt,
    Store,
    Test,
    Value,
    walk,
)

MEMORY = {
    "bool": "i8", "i8": "i8", "u8": "i8", "i16": "i16", "u16": "i16", "i32": "i32", "u32": "i32", "i64": "i64",
    "u64": "i64", "f16": "i16", "bf16": "i16", "f32": "float", "f64": "double",
}  # fmt: skip
REGISTER = {**MEMORY, "bool": "i1"}
FROZEN = ("f16", "bf16", "f32", "f64", "i32", "i64", "u32", "u64")
"""Dtypes whose loads are frozen where the same buffer is written: else LLVM makes `x[i] = x[i] if m else 0` a masked
store, which takes AMD's CPUs about as long as eight plain ones."""
SHORTEST_VECTOR = 4
LOOP_HINT = '!0 = distinct !{!0, !1}\n!1 = !{!"llvm.loop.unroll.disable"}\n'
"""Keeps LLVM from unrolling a short loop completely before its vectoriser has seen it."""
REDUCE_FLAGS = "reassoc contract"
"""Enough to sum in several lanes. With `nsz` LLVM looks into the terms, too, and cancels x against x in sum(x - x)."""
REDUCTIONS = {"{0} + {1}": "fadd", "{0} * {1}": "fmul"}


def is_innermost(body: Sequence[Stmt]) -> bool:
    return not any(isinstance(s, Loop) for s in body)


class Function:
    """Writes one kernel."""

    ranges: tuple[str, ...] = ("%lo", "%hi")
    """The parameters that say which part of the work to do."""

    def __init__(self, kernel: Kernel, emitter: Emitter):
        self.kernel = kernel
        self.emitter = emitter
        emitter.restart()
        self.buffers = kernel.buffers()
        self.pointer = {name: f"%b{i}" for i, name in enumerate(self.buffers)}
        self.written = {s.buffer for s in walk(kernel.body) if isinstance(s, Store)}
        self.entry: list[str] = []
        self.lines: list[str] = []
        self.block = "start"
        self.labels = 0
        self.values: dict[str, str] = {}
        self.offsets: list[dict[Affine, str]] = [{}]
        self.holding: frozenset[Condition] = frozenset()

    def text(self) -> tuple[str, str]:
        """Return the parameters and the body: equal kernels of a program have equal text, and are compiled once."""
        self.slots()
        self.parallel()
        params = [f"ptr noalias nocapture %b{i}" for i in range(len(self.buffers))]
        params += [*(f"i64 {word}" for word in self.ranges), "ptr nocapture %status"]
        body = ["entry:", *self.entry, "  br label %start", "start:", *self.lines, "  ret void"]
        return ", ".join(params), "\n".join(body)

    def slots(self) -> None:
        """Reserve the stack slots of accumulators and local arrays."""
        for s in walk(self.kernel.body):
            if isinstance(s, Declare):
                self.entry.append(f"  %{s.name} = alloca {REGISTER[s.dtype]}")
            elif isinstance(s, Local):
                name = f"%{s.name}.local"
                self.entry.append(f"  {name} = alloca [{max(s.size, 1)} x {MEMORY[s.dtype]}], align 64")
                self.pointer[s.name] = name

    # --- loops --------------------------------------------------------------------------------------------------------

    def parallel(self) -> None:
        """The loop over this task's share of the outer loops."""
        outer = self.kernel.outer
        if not outer:
            self.body(self.kernel.body)
            return
        if len(outer) == 1 and is_innermost(self.kernel.body):
            (var, extent), = outer
            self.rounds(var, "%lo", "%hi", extent, self.kernel.body)
            return
        with_index = outer[0][0] if len(outer) == 1 else "p"
        start, after = self.open_loop(with_index, "%lo", "%hi")
        self.unravel(self.values[with_index], outer)
        self.body(self.kernel.body)
        self.close_loop(with_index, "%hi", start, after)

    def unravel(self, rest: str, loops: Sequence[tuple[str, int]]) -> None:
        """Give each loop its variable, from the number of the round of all of them."""
        for var, n in reversed(loops[1:]):
            remainder = self.values[var] = self.emitter.name()
            self.add(f"{remainder} = urem i64 {rest}, {n}")
            quotient = self.emitter.name()
            self.add(f"{quotient} = udiv i64 {rest}, {n}")
            rest = quotient
        self.values[loops[0][0]] = rest

    def loop(self, s: Loop) -> None:
        low = self.offset(s.start)
        high: str
        if not s.start.terms and s.limit is None:
            high = str(s.start.const + s.extent)
        else:
            high = self.emitter.name()
            self.add(f"{high} = add nsw i64 {low}, {s.extent}")
            if s.limit is not None:
                least = self.emitter.name()
                below = self.emitter.name()
                self.add(f"{below} = icmp slt i64 {high}, {s.limit}")
                self.add(f"{least} = select i1 {below}, i64 {high}, i64 {s.limit}")
                high = least
        if is_innermost(s.body):
            self.rounds(s.var, low, high, s.extent, s.body, vectorise=s.extent >= SHORTEST_VECTOR)
            return
        start, after = self.open_loop(s.var, low, high)
        self.body(s.body)
        self.close_loop(s.var, high, start, after)

    def rounds(
        self, var: str, low: str, high: str, extent: int, body: Sequence[Stmt], *, vectorise: bool = False
    ) -> None:
        """Write an innermost loop, which has at most `extent` rounds: as one, or as its interior with what is around
        it.

        Around it nothing is contracted. Where LLVM can tell what a guard says, for it knows the range of the rounds, it
        could contract more, and the bits would depend on how the rounds are cut into tasks.
        """
        interior = interior_of(body, var, extent)
        first, end = self.bounds(interior, low, high) if interior else (low, high)
        parts = [(low, first, False), (first, end, True), (end, high, False)] if interior else [(low, high, False)]
        for start, stop, inside in parts:
            self.holding = interior.holds if interior and inside else frozenset()
            head, after = self.open_loop(var, start, stop)
            begin = len(self.lines)
            self.body(body)
            if interior and not inside:
                self.lines[begin:] = [line.replace(f" {FLAGS} ", " ") for line in self.lines[begin:]]
            self.close_loop(var, stop, head, after, vectorise=vectorise)
        self.holding = frozenset()

    def bounds(self, interior: Interior, low: str, high: str) -> tuple[str, str]:
        """Return the ends of a loop's interior: low <= first <= end <= high."""
        first, end = low, high
        for bound in interior.first:
            first = self.extreme("sgt", self.offset(bound), first)
        first = self.extreme("slt", first, high)
        for bound in interior.end:
            end = self.extreme("slt", self.offset(bound), end)
        if interior.always:
            name = self.emitter.name()
            self.add(f"{name} = select i1 {self.guard(Guard(interior.always))}, i64 {end}, i64 {first}")
            end = name
        return first, self.extreme("sgt", end, first)

    def extreme(self, test: str, a: str, b: str) -> str:
        """Return the larger (sgt) or smaller (slt) of two integers."""
        chosen, name = self.emitter.name(), self.emitter.name()
        self.add(f"{chosen} = icmp {test} i64 {a}, {b}")
        self.add(f"{name} = select i1 {chosen}, i64 {a}, i64 {b}")
        return name

    def label(self, prefix: str) -> str:
        self.labels += 1
        return f"{prefix}{self.labels}"

    def open_loop(self, var: str, low: str, high: str) -> tuple[str, str]:
        """Begin a loop; return its label and the label after it."""
        head, after = self.label("loop"), self.label("done")
        test = self.emitter.name()
        name = f"%{var}.{head}"
        self.add(f"{test} = icmp slt i64 {low}, {high}")
        self.add(f"br i1 {test}, label %{head}, label %{after}")
        before = self.block
        self.start_block(head)
        self.lines.append(f"  {name} = phi i64 [ {low}, %{before} ], [ {name}.next, %{head}.latch ]")
        self.values[var] = name
        self.offsets.append({})
        return head, after

    def close_loop(self, var: str, high: str, head: str, after: str, *, vectorise: bool = False) -> None:
        name = f"%{var}.{head}"
        self.offsets.pop()
        self.add(f"br label %{head}.latch")
        self.start_block(f"{head}.latch")
        self.add(f"{name}.next = add nuw nsw i64 {name}, 1")
        self.add(f"{name}.again = icmp slt i64 {name}.next, {high}")
        hint = ", !llvm.loop !0" if vectorise else ""
        self.add(f"br i1 {name}.again, label %{head}, label %{after}{hint}")
        self.start_block(after)

    def start_block(self, label: str) -> None:
        self.lines.append(f"{label}:")
        self.block = label

    def add(self, line: str) -> None:
        self.lines.append(f"  {line}")

    # --- statements ---------------------------------------------------------------------------------------------------

    def body(self, statements: Sequence[Stmt]) -> None:
        for s in statements:
            match s:
                case Loop():
                    self.loop(s)
                case Load():
                    self.load(s)
                case Store():
                    self.store(s)
                case Compute():
                    args = [(self.value(v, d), d) for v, d in s.args]
                    self.values[s.name] = self.emitter.expression(self.lines, s.text, args, s.dtype)
                case IndexValue():
                    self.values[s.name] = self.emitter.convert(self.lines, self.offset(s.index), "i64", s.dtype)
                case Test():
                    self.values[s.name] = self.guard(s.guard)
                case Checked():
                    self.checked(s)
                case Declare():
                    init = self.emitter.constant(s.init.value, s.init.dtype)
                    self.add(f"store {REGISTER[s.dtype]} {init}, ptr %{s.name}")
                case Accumulate():
                    self.accumulate(s)
                case ReadAcc():
                    self.values[s.name] = self.emitter.name()
                    self.add(f"{self.values[s.name]} = load {REGISTER[s.dtype]}, ptr %{s.acc}")
                case Local():
                    pass

    def value(self, value: Value, dtype: str) -> str:
        if isinstance(value, Const):
            return self.emitter.constant(value.value, value.dtype)
        return self.values[value]

    def offset(self, index: Affine) -> str:
        """Return the i64 value of an index, computed once per loop body."""
        if not index.terms:
            return str(index.const)
        for known in reversed(self.offsets):
            if index in known:
                return known[index]
        total = ""
        for name, factor in index.terms:
            term = self.values[name]
            if factor != 1:
                scaled = self.emitter.name()
                self.add(f"{scaled} = mul nsw i64 {term}, {factor}")
                term = scaled
            if total:
                joined = self.emitter.name()
                self.add(f"{joined} = add nsw i64 {total}, {term}")
                total = joined
            else:
                total = term
        if index.const:
            shifted = self.emitter.name()
            self.add(f"{shifted} = add nsw i64 {total}, {index.const}")
            total = shifted
        self.offsets[-1][index] = total
        return total

    def address(self, buffer: str, dtype: str, offset: str) -> str:
        place = self.emitter.name()
        self.add(f"{place} = getelementptr inbounds {MEMORY[dtype]}, ptr {self.pointer[buffer]}, i64 {offset}")
        return place

    def guard(self, guard: Guard) -> str:
        """Return an i1 that says whether all conditions hold."""
        total = ""
        for index, low, high in (c for c in guard.conditions if c not in self.holding):
            offset = self.offset(index)
            for test in (f"icmp sge i64 {offset}, {low}", f"icmp slt i64 {offset}, {high}"):
                name = self.emitter.name()
                self.add(f"{name} = {test}")
                if total:
                    both = self.emitter.name()
                    self.add(f"{both} = and i1 {total}, {name}")
                    name = both
                total = name
        return total or "true"

    def load(self, s: Load) -> None:
        offset = self.offset(s.index)
        if s.guard is None or self.holding.issuperset(s.guard.conditions):
            self.values[s.name] = self.load_element(s.buffer, s.dtype, offset)
            return
        holds = self.guard(s.guard)
        inside, after = self.label("inside"), self.label("after")
        before = self.block
        self.add(f"br i1 {holds}, label %{inside}, label %{after}")
        self.start_block(inside)
        value = self.load_element(s.buffer, s.dtype, offset)
        self.add(f"br label %{after}")
        self.start_block(after)
        name = self.values[s.name] = self.emitter.name()
        fill = self.emitter.constant(s.fill, s.dtype)
        self.add(f"{name} = phi {REGISTER[s.dtype]} [ {value}, %{inside} ], [ {fill}, %{before} ]")

    def load_element(self, buffer: str, dtype: str, offset: str) -> str:
        place = self.address(buffer, dtype, offset)
        name = self.emitter.name()
        self.add(f"{name} = load {MEMORY[dtype]}, ptr {place}")
        if dtype in FROZEN and buffer in self.written and buffer in self.buffers:
            frozen = self.emitter.name()
            self.add(f"{frozen} = freeze {MEMORY[dtype]} {name}")
            return frozen
        if dtype != "bool":
            return name
        flag = self.emitter.name()
        self.add(f"{flag} = icmp ne i8 {name}, 0")
        return flag

    def store(self, s: Store) -> None:
        value = self.value(s.value, s.dtype)
        offset = self.offset(s.index)
        after = ""
        if s.guard is not None and not self.holding.issuperset(s.guard.conditions):
            holds = self.guard(s.guard)
            inside, after = self.label("inside"), self.label("after")
            self.add(f"br i1 {holds}, label %{inside}, label %{after}")
            self.start_block(inside)
        if s.dtype == "bool":
            wide = self.emitter.name()
            self.add(f"{wide} = zext i1 {value} to i8")
            value = wide
        self.add(f"store {MEMORY[s.dtype]} {value}, ptr {self.address(s.buffer, s.dtype, offset)}")
        if after:
            self.add(f"br label %{after}")
            self.start_block(after)

    def checked(self, s: Checked) -> None:
        """Make an index non-negative and check it; a bad one sets the status and reads position 0."""
        raw = self.emitter.convert(self.lines, self.value(s.value, s.dtype), s.dtype, "i64")
        negative, wrapped, index, good, safe = (self.emitter.name() for _ in range(5))
        bad, after = self.label("bad"), self.label("after")
        self.add(f"{negative} = icmp slt i64 {raw}, 0")
        self.add(f"{wrapped} = add i64 {raw}, {s.size}")
        self.add(f"{index} = select i1 {negative}, i64 {wrapped}, i64 {raw}")
        self.add(f"{good} = icmp ult i64 {index}, {s.size}")
        self.add(f"br i1 {good}, label %{after}, label %{bad}")
        self.start_block(bad)
        self.add(f"store i64 {s.code}, ptr %status")
        self.add(f"br label %{after}")
        self.start_block(after)
        self.add(f"{safe} = select i1 {good}, i64 {index}, i64 0")
        self.values[s.name] = safe

    def accumulate(self, s: Accumulate) -> None:
        kind = REGISTER[s.dtype]
        before = self.emitter.name()
        self.add(f"{before} = load {kind}, ptr %{s.acc}")
        value = self.value(s.value, s.dtype)
        if s.text in REDUCTIONS and s.dtype in ("f32", "f64"):
            total = self.emitter.name()
            self.add(f"{total} = {REDUCTIONS[s.text]} {REDUCE_FLAGS} {kind} {before}, {value}")
        else:
            total = self.emitter.expression(self.lines, s.text, [(before, s.dtype), (value, s.dtype)], s.dtype)
        self.add(f"store {kind} {total}, ptr %{s.acc}")
