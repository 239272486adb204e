"""The pullback of a loop over few saved carries (`ops.rewind`) in native code.

    save the first carry; for i = rounds - 1, ..., 0:
        while the last saved carry is not that of round i, and a slot is free:
            advance from it by as many rounds as `tg_split` says, and save the carry there
        advance from the last saved carry to that of round i; step
        if the last saved carry is that of round i: its slot is free again
"""

from __future__ import annotations

from tracegrad.codegen.region_text import Parent, RegionText
from tracegrad.codegen.table_layout import HEADER

SPLIT = """define internal i64 @tg_split(i64 %gap, i64 %slots) {
entry:
  %first = add i64 %slots, 1
  br label %head
head:
  %r = phi i64 [ 1, %entry ], [ %next, %more ]
  %before = phi i64 [ 1, %entry ], [ %reach, %more ]
  %reach = phi i64 [ %first, %entry ], [ %further, %more ]
  %near = icmp slt i64 %reach, %gap
  br i1 %near, label %more, label %done
more:
  %next = add i64 %r, 1
  %factor = add i64 %slots, %next
  %product = mul i64 %reach, %factor
  %further = udiv i64 %product, %next
  br label %head
done:
  %scaled = mul i64 %before, %slots
  %sum = add i64 %slots, %r
  %divisor = sub i64 %sum, 1
  %last = udiv i64 %scaled, %divisor
  %rest = sub i64 %gap, %last
  %less = icmp slt i64 %before, %rest
  %found = select i1 %less, i64 %before, i64 %rest
  ret i64 %found
}
"""
"""`ops.rewind.split`."""


class RewindWriter(RegionText):
    """Writes one region.

    Stack slots, which LLVM turns into registers, hold what changes: the number of the last saved carry (`top`), how
    many rounds are left (`left`), where the sums and the carry are (`sum*`, `at*`), and where the next ones go
    (`sum*.next`, `at*.next`).
    """

    def write(self) -> str:
        node = self.step.node
        self.begin()
        advance, step = self.bodies
        n, n_sums, slots = node.params["n_carry"], len(step.plan.outputs), node.params["slots"]
        self.carry_bytes = [o.aval.nbytes for o in node.operands[1 : 1 + n]]
        self.sum_bytes = [o.aval.nbytes for o in node.operands[1 + n : 1 + n + n_sums]]
        self.table("ta", advance)
        self.table("tb", step)
        for k in range(1 + n + n_sums, len(node.operands)):
            self.put("ta", HEADER + k - 1 - n_sums, self.name(f"op{k}"))
            self.put("tb", HEADER + k - 1, self.name(f"op{k}"), "b")
        self.start()
        head, descend, turn, after = (f"{self.prefix}.{part}" for part in ("head", "descend", "turn", "after"))
        self.start_block(head, jump=True)
        self.branch(f"icmp sgt i64 {self.load('left')}, 0", descend, after)
        self.start_block(descend)
        self.descend(slots, descend, turn, after)
        self.start_block(turn)
        self.turn(after)
        self.add(f"br label %{head}")
        self.start_block(after)
        for k, nbytes in enumerate(self.sum_bytes):
            self.bring(self.load(f"sum{k}", "ptr"), self.name(f"out{k}"), nbytes)
        self.pass_status("ta", "tb")
        return f"{node.prim.name} {node.aval}: {advance.plan.graph.name}, {step.plan.graph.name}, {slots} slots"

    # --- small pieces -------------------------------------------------------------------------------------------------

    def value(self, text: str) -> str:
        """Name the value of an instruction."""
        self.values += 1
        name = self.name(f"v{self.values}")
        self.add(f"{name} = {text}")
        return name

    def load(self, short: str, kind: str = "i64") -> str:
        return self.value(f"load {kind}, ptr {self.name(short)}")

    def store(self, short: str, value: str, kind: str = "i64") -> None:
        self.add(f"store {kind} {value}, ptr {self.name(short)}")

    def branch(self, condition: str, yes: str, no: str) -> None:
        self.add(f"br i1 {self.value(condition)}, label %{yes}, label %{no}")

    def bring(self, source: str, target: str, nbytes: int) -> None:
        """Copy, unless it is there already."""
        there = self.value(f"icmp eq ptr {source}, {target}")
        self.copy(target, source, self.value(f"select i1 {there}, i64 0, i64 {nbytes}"))

    def row(self, k: int, number: str) -> str:
        """Return the address of a saved carry."""
        offset = self.value(f"mul i64 {number}, {self.carry_bytes[k]}")
        return self.value(f"getelementptr i8, ptr {self.work(k, 2)}, i64 {offset}")

    def work(self, k: int, place: int) -> str:
        """Return one of the three buffers of a carry: two where rounds take turns, and the slots."""
        return self.name(f"work{2 + len(self.sum_bytes) + 3 * k + place}")

    def position(self, number: str) -> str:
        """Return the address of the round of a saved carry."""
        rounds = self.name(f"work{2 + len(self.sum_bytes) + 3 * len(self.carry_bytes)}")
        return self.value(f"getelementptr i64, ptr {rounds}, i64 {number}")

    def run(self, short: str, body: Parent, first: int, values: str, count: int, after: str) -> None:
        """Call a body on the values `values*`, its operands from number `first` on, and let them take turns."""
        n_in = len(body.plan.graph.inputs)
        turns = [k for k in range(count) if body.memory.donated.get(k) != k]
        for k in range(count):
            here = self.load(f"{values}{k}", "ptr")
            self.put(short, HEADER + first + k, here, "r")
            self.put(short, HEADER + n_in + k, self.load(f"{values}{k}.next", "ptr") if k in turns else here, "r")
        self.call(short, body)
        self.stop_on_failure(short, body, after)
        for k in turns:
            here, there = self.load(f"{values}{k}", "ptr"), self.load(f"{values}{k}.next", "ptr")
            self.store(f"{values}{k}", there, "ptr")
            self.store(f"{values}{k}.next", here, "ptr")

    # --- the parts ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Save the first carry, and copy the sums into the results' buffers."""
        for short in ("top", "left", "round"):
            self.parent.reserve(self.name(short), "i64")
        for k, nbytes in enumerate(self.carry_bytes):
            for short in (f"at{k}", f"at{k}.next"):
                self.parent.reserve(self.name(short), "ptr")
            self.copy(self.work(k, 2), self.name(f"op{1 + k}"), nbytes)
        for k, nbytes in enumerate(self.sum_bytes):
            for short, place in ((f"sum{k}", f"out{k}"), (f"sum{k}.next", f"work{2 + k}")):
                self.parent.reserve(self.name(short), "ptr")
                self.store(short, self.name(place), "ptr")
            self.copy(self.name(f"out{k}"), self.name(f"op{1 + len(self.carry_bytes) + k}"), nbytes)
        self.add(f"store i64 0, ptr {self.position('0')}")
        self.store("top", "0")
        self.store("left", self.load("op0"))

    def descend(self, slots: int, again: str, turn: str, after: str) -> None:
        """Go on from the last saved carry: to the next one that is to be saved, or to that of the last round left."""
        top, left = self.load("top"), self.load("left")
        at = self.value(f"load i64, ptr {self.position(top)}")
        gap = self.value(f"sub i64 {left}, {at}")
        free = self.value(f"sub i64 {slots}, {top}")
        far, room = self.value(f"icmp sgt i64 {gap}, 1"), self.value(f"icmp sgt i64 {free}, 1")
        saves = self.value(f"and i1 {far}, {room}")
        asked = self.value(f"select i1 {saves}, i64 {gap}, i64 1")
        ahead = self.value(f"call i64 @tg_split(i64 {asked}, i64 {free})")
        rest = self.value(f"sub i64 {gap}, 1")
        rounds = self.value(f"select i1 {saves}, i64 {ahead}, i64 {rest}")
        above = self.value(f"add i64 {top}, 1")
        goals = []
        for k in range(len(self.carry_bytes)):
            source = self.row(k, top)
            self.store(f"at{k}", source, "ptr")
            goals.append((source, self.value(f"select i1 {saves}, ptr {self.row(k, above)}, ptr {self.work(k, 0)}")))
        advance, spin, going, arrived, save = (
            f"{self.prefix}.{part}" for part in ("advance", "spin", "going", "arrived", "save")
        )
        self.branch(f"icmp eq i64 {rounds}, 0", turn, advance)
        self.start_block(advance)
        for k, (source, goal) in enumerate(goals):
            self.copy(goal, source, self.carry_bytes[k])
            self.store(f"at{k}", goal, "ptr")
            self.store(f"at{k}.next", self.work(k, 1), "ptr")
        self.store("round", "0")
        self.start_block(spin, jump=True)
        number = self.load("round")
        self.branch(f"icmp slt i64 {number}, {rounds}", going, arrived)
        self.start_block(going)
        self.run("ta", self.bodies[0], 0, "at", len(goals), after)
        self.store("round", self.value(f"add i64 {number}, 1"))
        self.poll(number, after, "a")
        self.add(f"br label %{spin}")
        self.start_block(arrived)
        for k, (_, goal) in enumerate(goals):
            self.bring(self.load(f"at{k}", "ptr"), goal, self.carry_bytes[k])
            self.store(f"at{k}", goal, "ptr")
        self.add(f"br i1 {saves}, label %{save}, label %{turn}")
        self.start_block(save)
        self.store("top", above)
        self.add(f"store i64 {self.value(f'add i64 {at}, {rounds}')}, ptr {self.position(above)}")
        self.add(f"br label %{again}")

    def turn(self, after: str) -> None:
        """Pull back one round; a slot whose carry is not needed any more is free."""
        for k in range(len(self.carry_bytes)):
            self.put("tb", HEADER + len(self.sum_bytes) + k, self.load(f"at{k}", "ptr"), "c")
        self.run("tb", self.bodies[1], 0, "sum", len(self.sum_bytes), after)
        left, top = self.value(f"sub i64 {self.load('left')}, 1"), self.load("top")
        self.store("left", left)
        at = self.value(f"load i64, ptr {self.position(top)}")
        here, above = self.value(f"icmp eq i64 {at}, {left}"), self.value(f"icmp sgt i64 {top}, 0")
        frees = self.value(f"and i1 {here}, {above}")
        self.store("top", self.value(f"sub i64 {top}, {self.value(f'zext i1 {frees} to i64')}"))
        self.poll(left, after, "b")
