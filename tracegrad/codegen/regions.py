"""Loops and branches in native code.

A region fills the table of the function of its body (pool, arena, status, arguments, results) and calls it:

    cond     one call of the branch that the index names
    while    { call condition; call body } with the carries in two places that take turns; what the body leaves for
             the pullback goes on tapes, which grow by doubling
    scan     a counted loop; slices and stacked results advance by pointer, carries take turns

A carry that the body can update in place has one place only. Scalar carries and the condition have stack slots, whose
addresses nothing else can have: LLVM turns them into registers wherever the body becomes part of the loop.
"""

from __future__ import annotations

from tracegrad.codegen.region_text import Parent, RegionText, is_long
from tracegrad.codegen.table_layout import HEADER
from tracegrad.ops.control import cond, while_loop
from tracegrad.schedule.body import buffer_name
from tracegrad.schedule.plan import carries_from

FIRST_ROOM = 64
FIRST_BYTES = 1 << 16
"""A tape starts with room for so many rows, or for about so many bytes if they are large."""


class RegionWriter(RegionText):
    """Writes one region."""

    def write(self) -> str:
        node = self.step.node
        self.begin()
        if node.prim is cond:
            self.branches()
        elif node.prim is while_loop:
            self.while_loop()
        else:
            self.scan()
        return f"{self.step.name} {node.aval}: {', '.join(p.graph.name for p in self.step.plans)}"

    # --- branches -----------------------------------------------------------------------------------------------------

    def branches(self) -> None:
        """Switch on the index, which the front end has made one of the branches' numbers or beyond an end."""
        n = len(self.bodies)
        index = self.name("index")
        self.add(f"{index} = load i64, ptr {self.name('op0')}")
        labels = [f"{self.prefix}.branch{i}" for i in range(n)]
        self.add(f"{index}.neg = icmp slt i64 {index}, 0")
        self.add(f"{index}.low = select i1 {index}.neg, i64 0, i64 {index}")
        cases = " ".join(f"i64 {i}, label %{labels[i]}" for i in range(n - 1))
        self.add(f"switch i64 {index}.low, label %{labels[-1]} [ {cases} ]")
        after = f"{self.prefix}.after"
        for i, body in enumerate(self.bodies):
            self.start_block(labels[i])
            short = f"t{i}"
            self.table(short, body)
            n_in = len(body.plan.graph.inputs)
            for k in range(n_in):
                self.put(short, HEADER + k, self.name(f"op{k + 1}"))
            for k in range(len(body.plan.outputs)):
                self.put(short, HEADER + n_in + k, self.name(f"out{k}"))
            self.call(short, body)
            self.pass_status(short)
            self.add(f"br label %{after}")
        self.start_block(after)

    # --- loops --------------------------------------------------------------------------------------------------------

    def in_place(self, body: Parent, i: int) -> bool:
        return body.memory.donated.get(i) == i

    def starts_in_place(self, operand: int, result: int) -> bool:
        places = self.parent.memory.places
        return places[buffer_name(self.step.operands[operand].node)] == places[self.step.results[result]]

    def carry_bytes(self, i: int) -> int:
        return self.step.node.operands[i].aval.nbytes

    def is_scalar(self, i: int) -> bool:
        """Say whether carry i, which is output i of the body, is one element."""
        return self.step.plans[-1].graph.outputs[i].aval.size == 1

    def here(self, i: int) -> str:
        """Return the pointer to where a carry is in this round."""
        return self.name(f"scalar{i}" if self.is_scalar(i) else f"here{i}")

    def there(self, i: int) -> str:
        """Return the pointer to where the body writes a carry."""
        if self.is_scalar(i):
            return self.name(f"scalar{i}" if self.in_place(self.bodies[-1], i) else f"next{i}")
        return self.name(f"there{i}")

    def begin_carries(self, n: int, first: int = 0) -> None:
        """The carries start as copies of the operands (from number `first` on): scalars on the stack, others in the
        results' buffers, where some of the operands may be already (`schedule.memory`)."""
        for i in range(n):
            nbytes = self.carry_bytes(first + i)
            if self.is_scalar(i):
                for place in dict.fromkeys((self.here(i), self.there(i))):
                    self.parent.reserve(place, f"[{nbytes} x i8]")
                self.copy(self.here(i), self.name(f"op{first + i}"), nbytes)
            elif not self.starts_in_place(first + i, i):
                self.copy(self.name(f"out{i}"), self.name(f"op{first + i}"), nbytes)

    def carry_phis(self, n: int, before: str, again: str) -> None:
        """At the head of the loop: where each carry is now, and where the next one goes."""
        for i in range(n):
            if self.is_scalar(i):
                continue
            first, second = self.name(f"out{i}"), self.name(f"work{i + 2}")
            here, there = self.here(i), self.there(i)
            if self.in_place(self.bodies[-1], i):
                second, turns = first, (here, there)
            else:
                turns = (there, here)
            self.add(f"{here} = phi ptr [ {first}, %{before} ], [ {turns[0]}, %{again} ]")
            self.add(f"{there} = phi ptr [ {second}, %{before} ], [ {turns[1]}, %{again} ]")

    def turn_carries(self, n: int, first: int = 0) -> None:
        """At the end of a round: scalars move to where the next round reads them."""
        for i in range(n):
            if self.is_scalar(i) and self.here(i) != self.there(i):
                self.copy(self.here(i), self.there(i), self.carry_bytes(first + i))

    def finish_carries(self, n: int, first: int = 0) -> None:
        """Bring the last carries into the results' buffers, unless they are there."""
        for i in range(n):
            here, home, nbytes = self.here(i), self.name(f"out{i}"), self.carry_bytes(first + i)
            if self.is_scalar(i):
                self.copy(home, here, nbytes)
                continue
            self.add(f"{here}.home = icmp eq ptr {here}, {home}")
            self.add(f"{here}.n = select i1 {here}.home, i64 0, i64 {nbytes}")
            self.copy(home, here, f"{here}.n")

    def while_loop(self) -> None:
        """A loop that a condition ends; without one, the first operand is the number of rounds."""
        *conditions, body = self.bodies
        params = self.step.node.params
        n, first = params["n_carry"], carries_from(self.step.node)
        self.tapes = [o.aval.nbytes for o in body.plan.graph.outputs[n:]]
        self.while_tables(first)
        self.begin_carries(n, first)
        self.begin_tapes()
        parts = ("head", "test", "inside", "again", "after")
        head, test, inside, again, after = (f"{self.prefix}.{part}" for part in parts)
        before = self.block
        self.start_block(head, jump=True)
        i = self.name("i")
        self.add(f"{i} = phi i64 [ 0, %{before} ], [ {i}.next, %{again} ]")
        self.carry_phis(n, before, again)
        self.while_condition(i, after)
        self.add(f"br i1 {i}.more, label %{test}, label %{after}")
        self.start_block(test)
        self.poll(i, after)
        self.grow_tapes(i, inside, after, counted=not conditions)
        self.start_block(inside)
        self.while_round(i, first)
        self.stop_on_failure("tb", body, after)
        self.start_block(again, jump=True)
        self.turn_carries(n, first)
        self.add(f"{i}.next = add i64 {i}, 1")
        self.add(f"br label %{head}")
        self.start_block(after)
        self.finish_carries(n, first)
        self.add(f"store i64 {i}, ptr {self.name(f'out{n}')}")
        for k in range(len(self.tapes)):
            self.add(f"{self.name(f'done{k}')} = load ptr, ptr {self.name(f'rows{k}')}")
            self.add(f"store ptr {self.name(f'done{k}')}, ptr {self.name(f'out{n + 1 + k}')}")
        self.pass_status(*(["tc"] if conditions else []), "tb")

    def while_tables(self, first: int) -> None:
        """Fill in what is the same in every round: the constants, and where the condition is written."""
        *conditions, body = self.bodies
        params = self.step.node.params
        n, n_xs, n_in = params["n_carry"], params["n_xs"], len(body.plan.graph.inputs)
        self.table("tb", body)
        for k in range(n + n_xs, n_in):
            self.put("tb", HEADER + k, self.name(f"op{first + k}"))
        if conditions:
            self.table("tc", conditions[0])
            for k in range(n, n_in):
                self.put("tc", HEADER + k, self.name(f"op{k}"))
            self.parent.reserve(self.name("flag"), "i8")
            self.put("tc", HEADER + n_in, self.name("flag"))
        else:
            self.add(f"{self.name('rounds')} = load i64, ptr {self.name('op0')}")

    def while_condition(self, i: str, after: str) -> None:
        """Define `i.more`, which says whether there is another round."""
        *conditions, _ = self.bodies
        if not conditions:
            self.add(f"{i}.more = icmp slt i64 {i}, {self.name('rounds')}")
            return
        for k in range(self.step.node.params["n_carry"]):
            self.put("tc", HEADER + k, self.here(k), "c")
        self.call("tc", conditions[0])
        self.stop_on_failure("tc", conditions[0], after)
        self.add(f"{i}.flag = load i8, ptr {self.name('flag')}")
        self.add(f"{i}.more = icmp ne i8 {i}.flag, 0")

    def while_round(self, i: str, first: int) -> None:
        """Call the body with the carries, and with its rows of the tapes that are read and written."""
        *conditions, body = self.bodies
        params = self.step.node.params
        n, n_xs, n_in = params["n_carry"], params["n_xs"], len(body.plan.graph.inputs)
        row = f"{i}.row"
        self.add(f"{row}.back = sub i64 {self.name('rounds') if not conditions else i}, {i}")
        self.add(f"{row} = sub i64 {row}.back, 1" if params["reverse"] else f"{row} = add i64 0, {i}")
        for k in range(n):
            self.put("tb", HEADER + k, self.here(k), "b")
            self.put("tb", HEADER + n_in + k, self.there(k), "b")
        for k in range(n_xs):
            tape = self.name(f"x{k}")
            self.add(f"{tape} = load ptr, ptr {self.name(f'op{first + n + k}')}")
            self.put("tb", HEADER + n + k, self.row_of(f"x{k}", row, body.plan.graph.inputs[n + k].aval.nbytes), "b")
        for k, nbytes in enumerate(self.tapes):
            self.add(f"{self.name(f'y{k}')} = load ptr, ptr {self.name(f'rows{k}')}")
            self.put("tb", HEADER + n_in + n + k, self.row_of(f"y{k}", row, nbytes), "b")
        self.call("tb", body)

    # --- tapes --------------------------------------------------------------------------------------------------------

    def begin_tapes(self) -> None:
        """Start with no rows and no room."""
        if not self.tapes:
            return
        self.parent.reserve(self.name("room"), "i64")
        self.add(f"store i64 0, ptr {self.name('room')}")
        for k in range(len(self.tapes)):
            self.parent.reserve(self.name(f"rows{k}"), "ptr")
            self.add(f"store ptr null, ptr {self.name(f'rows{k}')}")

    def grow_tapes(self, i: str, inside: str, after: str, *, counted: bool) -> None:
        """Before a round: double the room when it is used up; a counted loop has room for all rounds from the first on.

        Memory that runs out ends the loop with status -1.
        """
        if not self.tapes:
            self.add(f"br label %{inside}")
            return
        grow, failed = f"{self.prefix}.grow", f"{self.prefix}.failed"
        room = self.name("room.now")
        self.add(f"{room} = load i64, ptr {self.name('room')}")
        self.add(f"{room}.full = icmp eq i64 {i}, {room}")
        self.add(f"br i1 {room}.full, label %{grow}, label %{inside}")
        self.start_block(grow)
        if counted:
            self.add(f"{room}.new = add i64 0, {self.name('rounds')}")
        else:
            self.add(f"{room}.double = mul i64 {room}, 2")
            first = max(1, min(FIRST_ROOM, FIRST_BYTES // max(*self.tapes, 1)))
            self.add(f"{room}.new = add i64 {room}.double, {first}")
        self.add(f"store i64 {room}.new, ptr {self.name('room')}")
        for k, nbytes in enumerate(self.tapes):
            rows, old = self.name(f"rows{k}"), self.name(f"old{k}")
            self.add(f"{old} = load ptr, ptr {rows}")
            self.add(f"{old}.bytes = mul i64 {room}.new, {max(nbytes, 1)}")
            self.add(f"{old}.new = call ptr @realloc(ptr {old}, i64 {old}.bytes)")
            self.add(f"{old}.bad = icmp eq ptr {old}.new, null")
            self.add(f"br i1 {old}.bad, label %{failed}, label %{grow}{k}")
            self.start_block(f"{grow}{k}")
            self.add(f"store ptr {old}.new, ptr {rows}")
        self.add(f"br label %{inside}")
        self.start_block(failed)
        self.add("store i64 -1, ptr %status")
        self.add(f"br label %{after}")

    def scan(self) -> None:
        (body,) = self.bodies
        params = self.step.node.params
        n, n_xs, length = params["n_carry"], params["n_xs"], params["length"]
        inputs, outputs = body.plan.graph.inputs, body.plan.graph.outputs
        self.table("tb", body)
        for k in range(n + n_xs, len(inputs)):
            self.put("tb", HEADER + k, self.name(f"op{k}"))
        self.begin_carries(n)
        head, inside, again, after = (f"{self.prefix}.{part}" for part in ("head", "inside", "again", "after"))
        before = self.block
        self.start_block(head, jump=True)
        i = self.name("i")
        self.add(f"{i} = phi i64 [ 0, %{before} ], [ {i}.next, %{again} ]")
        self.carry_phis(n, before, again)
        self.add(f"{i}.more = icmp slt i64 {i}, {length}")
        self.add(f"br i1 {i}.more, label %{inside}, label %{after}")
        self.start_block(inside)
        if is_long(self.step):
            self.poll(i, after)
        row = f"{i}.row"
        self.add(f"{row} = sub i64 {length - 1}, {i}" if params["reverse"] else f"{row} = add i64 0, {i}")
        for k in range(n):
            self.put("tb", HEADER + k, self.here(k))
            self.put("tb", HEADER + len(inputs) + k, self.there(k))
        for k in range(n_xs):
            self.put("tb", HEADER + n + k, self.row_of(f"op{n + k}", row, inputs[n + k].aval.nbytes))
        for k in range(n, len(outputs)):
            self.put("tb", HEADER + len(inputs) + k, self.row_of(f"out{k}", row, outputs[k].aval.nbytes))
        self.call("tb", body)
        self.stop_on_failure("tb", body, after)
        self.start_block(again, jump=True)
        self.turn_carries(n)
        self.add(f"{i}.next = add i64 {i}, 1")
        self.add(f"br label %{head}")
        self.start_block(after)
        self.finish_carries(n)
        self.pass_status("tb")
