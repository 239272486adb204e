"""The functions of a program, and how they are cut into LLVM modules that are compiled side by side.

    main     the entry, the bodies of loops and branches, and the kernels that those call directly
    groups   a kernel with the functions that call it: tasks of the thread pool, blocks of a library call's result

What main needs of a group is an address or one call per step, so a group may be compiled apart: nothing that LLVM
could find out about it helps main, nor the other way round.  The objects of all parts are joined into one
(`runtime.joining`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tracegrad.codegen.loops import LOOP_HINT
from tracegrad.codegen.rewind_region import SPLIT
from tracegrad.codegen.scalar import Emitter

DECLARATIONS = """declare void @tg_par_for(i64, i64, i64, i64)
declare ptr @realloc(ptr, i64)
declare void @free(ptr)
declare i32 @tg_gil_ensure()
declare i32 @tg_check_signals()
declare void @tg_gil_release(i32)
define internal i64 @tg_poll() noinline {
  %state = call i32 @tg_gil_ensure()
  %raised = call i32 @tg_check_signals()
  call void @tg_gil_release(i32 %state)
  %stop = icmp ne i32 %raised, 0
  %answer = zext i1 %stop to i64
  ret i64 %answer
}
"""
"""What programs may call. `tg_poll` lets Python handle signals in the middle of a loop; 1: a handler raised, and its
exception stays set for the thread until the program has returned."""
PART = 12_000
"""Characters of kernels that are worth a part of their own: some 30 ms of optimising and code generation."""


@dataclass(frozen=True)
class Defined:
    """A function: `head` is `void @name(parameters)`, `group` the kernel that it is or calls, "" in main."""

    head: str
    body: str
    attributes: str = ""
    group: str = ""

    def text(self, linkage: str = "internal ") -> str:
        return f"define {linkage}{self.head}{self.attributes} {{\n{self.body}\n}}"

    @property
    def name(self) -> str:
        return self.head[self.head.index("@") + 1 : self.head.index("(")]


@dataclass
class Module:
    """What all functions of a program share."""

    threads: int
    emitter: Emitter = field(default_factory=Emitter)
    functions: list[Defined] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)
    kernels: dict[tuple[str, str], str] = field(default_factory=dict)
    families: dict[str, None] = field(default_factory=dict)
    symbols: dict[str, None] = field(default_factory=dict)
    steps: list[str] = field(default_factory=list)
    entries: int = 0
    called: set[str] = field(default_factory=set)
    """Kernels that functions of main call directly."""

    def kernel(self, text: tuple[str, str], hint: str = "noinline") -> str:
        """Define a kernel's function from its parameters and its body, unless an equal one is; return its name."""
        symbol = self.kernels.get(text)
        if symbol is None:
            symbol = self.kernels[text] = f"kernel{len(self.kernels)}"
            params, body = text
            self.functions.append(Defined(f"void @{symbol}({params})", body, f" {hint} nounwind", symbol))
        return symbol

    def define(self, head: str, body: str, group: str = "") -> None:
        self.functions.append(Defined(head, body, group=group))

    def text(self) -> str:
        """Return the assembly of the whole module."""
        return self.assembly([f.text("" if f.name == "tg_entry" else "internal ") for f in self.functions])

    def parts(self, most: int) -> list[str]:
        """Return the assembly of at most so many modules; the first one has the entry."""
        apart = [f for f in self.functions if f.group and f.group not in self.called]
        count = min(most, 1 + sum(len(f.body) for f in apart) // PART)
        if count < 2:
            return [self.text()]
        main = [f for f in self.functions if not f.group or f.group in self.called]
        texts = [f.text("" if f.name == "tg_entry" else "internal ") for f in main]
        bins = balanced(apart, sum(len(f.body) for f in main if f.group), count)
        texts += [f.text() for f in bins[0]]
        found = []
        for members in bins[1:]:
            texts += [f"declare {f.head}" for f in members if f.name != f.group]
            kernels = [f.text("internal " if f.name == f.group else "") for f in members]
            found.append(self.assembly(kernels, constants=False))
        return [self.assembly(texts), *found]

    def assembly(self, functions: Sequence[str], *, constants: bool = True) -> str:
        """Return the text of a module with these functions, and with all that they call."""
        body = "\n".join(functions)
        declared = "".join(f"declare void @{s}(i64, i64, i64, i64)\n" for s in self.symbols)
        declared += SPLIT if "@tg_split(" in body else ""
        helpers = needed(body, self.emitter.helpers())
        return "\n".join([DECLARATIONS + declared, *(self.constants if constants else ()), body, helpers, LOOP_HINT])


def balanced(functions: Sequence[Defined], load: int, count: int) -> list[list[Defined]]:
    """Put groups into so many bins of about equal length, the longest group first; the first bin has a load."""
    groups: dict[str, list[Defined]] = {}
    for function in functions:
        groups.setdefault(function.group, []).append(function)
    bins: list[list[Defined]] = [[] for _ in range(count)]
    loads = [load, *[0] * (count - 1)]
    sizes = {name: sum(len(f.body) for f in members) for name, members in groups.items()}
    for name in sorted(groups, key=lambda name: -sizes[name]):
        lightest = loads.index(min(loads))
        bins[lightest] += groups[name]
        loads[lightest] += sizes[name]
    return bins


def needed(text: str, helpers: dict[str, str]) -> str:
    """Return the definitions of the helper functions that a text calls, and of those that they call."""
    found: dict[str, str] = {}
    rest: Iterable[str] = [text]
    while rest:
        names = {name for t in rest for name in re.findall(r"@([\w.]+)\(", t)} - found.keys()
        rest = [found.setdefault(name, helpers[name]) for name in names & helpers.keys()]
    return "".join(text for name, text in helpers.items() if name in found)
