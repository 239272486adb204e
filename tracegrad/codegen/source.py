"""Kernels -> Python source: the readable form of every loop nest, and the reference back end.

The text is plain Python over flat arrays: `codegen.reference` runs it on NumPy scalars, and compiles it with Numba.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracegrad.ir.aval import DTYPES, is_float
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
)


def type_name(dtype: str) -> str:
    return "bool_" if dtype == "bool" else dtype


def identifier(name: str) -> str:
    return name.replace("@", "m").replace(".", "_")


class Source:
    """Writes one kernel as a Python function of (lo, hi, buffers..., status)."""

    def __init__(self, kernel: Kernel, names: dict[str, str]):
        self.kernel = kernel
        self.names = {b: names.get(b, identifier(b)) for b in kernel.buffers()}
        self.lines: list[str] = []

    def text(self) -> str:
        kernel = self.kernel
        args = ", ".join(["lo", "hi", *dict.fromkeys(self.names.values()), "status"])
        loops = " * ".join(str(n) for _, n in kernel.outer) or "1"
        self.lines.append(f"def {identifier(kernel.name)}({args}):  # {loops} rounds")
        self.lines += [f"    # {note}" for note in kernel.notes]
        if not kernel.outer:
            self.body(kernel.body, 1)
        elif len(kernel.outer) == 1:
            self.lines.append(f"    for {kernel.outer[0][0]} in range(lo, hi):")
            self.body(kernel.body, 2)
        else:
            self.lines.append("    for p in range(lo, hi):")
            rest = "p"
            for var, n in reversed(kernel.outer[1:]):
                self.lines.append(f"        {var} = {rest} % {n}")
                rest = f"{rest} // {n}"
            self.lines.append(f"        {kernel.outer[0][0]} = {rest}")
            self.body(kernel.body, 2)
        return "\n".join(self.lines)

    def body(self, statements: Sequence[Stmt], depth: int) -> None:
        for s in statements:
            self.statement(s, "    " * depth, depth)
        if not statements:
            self.lines.append("    " * depth + "pass")

    def statement(self, s: Stmt, pad: str, depth: int) -> None:
        add = self.lines.append
        match s:
            case Loop():
                stop = f"{s.start} + {s.extent}" if s.start.terms or s.start.const else str(s.extent)
                stop = f"min({stop}, {s.limit})" if s.limit is not None else stop
                start = f"{s.start}, " if s.start.terms or s.start.const else ""
                add(f"{pad}for {s.var} in range({start}{stop}):")
                self.body(s.body, depth + 1)
            case Load():
                read = f"{self.buffer(s.buffer)}[{s.index}]"
                if s.guard is not None:
                    read = f"{read} if {self.guard(s.guard)} else {cast(s.dtype, s.fill)}"
                add(f"{pad}{s.name} = {read}")
            case Store():
                write = f"{self.buffer(s.buffer)}[{s.index}] = {self.value(s.value)}"
                add(f"{pad}if {self.guard(s.guard)}: {write}" if s.guard is not None else pad + write)
            case Compute():
                expression = s.text
                for i, (v, _) in enumerate(s.args):
                    expression = expression.replace(f"{{{i}}}", self.value(v))
                note = f"  # {s.where}" if s.where else ""
                add(f"{pad}{s.name} = {type_name(s.dtype)}({expression}){note}")
            case IndexValue():
                add(f"{pad}{s.name} = {type_name(s.dtype)}({s.index})")
            case Test():
                add(f"{pad}{s.name} = {self.guard(s.guard)}")
            case Checked():
                add(f"{pad}{s.name} = checked({self.value(s.value)}, {s.size}, {s.code}, status)")
            case Declare():
                add(f"{pad}{s.name} = {self.value(s.init)}")
            case Accumulate():
                expression = s.text.replace("{0}", s.acc).replace("{1}", self.value(s.value))
                add(f"{pad}{s.acc} = {type_name(s.dtype)}({expression})")
            case ReadAcc():
                add(f"{pad}{s.name} = {s.acc}")
            case Local():
                add(f"{pad}{s.name} = empty({s.size}, {type_name(s.dtype)})")

    def buffer(self, name: str) -> str:
        return self.names.get(name, name)

    def value(self, value: Value) -> str:
        return cast(value.dtype, value.value) if isinstance(value, Const) else value

    def guard(self, guard: Guard) -> str:
        return " and ".join(f"{low} <= {index} < {high}" for index, low, high in guard.conditions)


def cast(dtype: str, value: float) -> str:
    """Write a constant of a dtype."""
    if dtype == "bool":
        return f"bool_({bool(value)})"
    if value != value or value in (float("inf"), float("-inf")):
        return f"{dtype}(float('{value}'))"
    return f"{dtype}({value if is_float(DTYPES[dtype]) else int(value)})"


def show_kernel(kernel: Kernel, names: dict[str, str] | None = None) -> str:
    """Return the Python text of a kernel."""
    return Source(kernel, names or {}).text()
