"""Writes random Python functions with loops and branches, as source text, for the tests of converted control flow.

`f(x, y, v, n)` takes two floats, three floats in an array and a small integer, and returns a float. Every loop has a
bound, values grow slowly, and a variable keeps its kind: so a program has one meaning, and where it is smooth it has
derivatives.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import strategies as st

DEPTH = 3
LOOPS = 2
LITERALS = ("0.0", "0.5", "-0.5", "1.0", "1.5", "-1.2", "2.0", "0.3")


@dataclass(frozen=True)
class Helper:
    """A function that the program calls; it returns one float, or two."""

    name: str
    arity: int
    pair: bool


@dataclass
class Scope:
    """Names that hold a value on every path to here, by kind; `counters` may be read, not set."""

    floats: list[str] = field(default_factory=list)
    ints: list[str] = field(default_factory=list)
    bools: list[str] = field(default_factory=list)
    vectors: list[str] = field(default_factory=list)
    counters: list[str] = field(default_factory=list)

    def copy(self) -> Scope:
        return Scope(*(list(names) for names in vars(self).values()))


@dataclass
class Writer:
    """Draws the statements of a module; a function's body is written in the scope of its parameters."""

    integer: Callable[[int, int], int]
    size: int
    lines: list[str] = field(default_factory=list)
    helpers: list[Helper] = field(default_factory=list)
    scope: Scope = field(default_factory=Scope)
    indent: int = 0
    loops: int = 0
    rows: bool = False
    pair: bool = False
    fresh: int = 0

    # --- choices ------------------------------------------------------------------------------------------------------

    def choice(self, options: Sequence[Any]) -> Any:
        return options[self.integer(0, len(options) - 1)]

    def chance(self, of: int = 2) -> bool:
        return self.integer(1, of) == of

    def new(self, letter: str) -> str:
        self.fresh += 1
        return f"{letter}{self.fresh}"

    # --- expressions --------------------------------------------------------------------------------------------------

    def number(self, depth: int = 2) -> str:
        """Write a float."""
        if depth == 0 or self.chance(3):
            return str(self.choice([*self.scope.floats * 2, self.choice(LITERALS)]))
        a, b = self.number(depth - 1), self.number(depth - 1)
        forms = [
            f"({a} + {b})",
            f"({a} - {b})",
            f"{a} * np.sin({b})",
            f"np.tanh({a})",
            f"np.cos({a})",
            f"({a} + 1.5) * 0.4",
            f"{a} / (1.0 + {b} * {b})",
            f"(0.3 * {a} - {self.whole()} * 0.25)",
            f"{self.choice(['max', 'min'])}({a}, {b})",
        ]
        if self.scope.vectors:
            u = self.choice(self.scope.vectors)
            forms += [f"{u}[{self.integer(-1, 2)}]", f"{u}.sum()", f"np.dot({u}, {self.choice(self.scope.vectors)})"]
        if depth > 1:
            forms += [f"({a} if {self.condition(1)} else {b})"]
        if called := [h for h in self.helpers if not h.pair]:
            forms += [self.call(self.choice(called), depth - 1)]
        return str(self.choice(forms))

    def call(self, helper: Helper, depth: int) -> str:
        return f"{helper.name}({', '.join(self.number(depth) for _ in range(helper.arity))})"

    def whole(self) -> str:
        """Write an integer."""
        names = [*self.scope.ints, *self.scope.counters]
        a = str(self.choice([*names * 2, "1", "2"]))
        b = str(self.choice([*names, "2", "3"]))
        return str(self.choice([a, a, f"({a} + {b})", f"({a} - {b})", f"{a} % 3", f"({a} * 3 + {b}) % 5", f"{a} // 2"]))

    def condition(self, depth: int = 2) -> str:
        forms = [
            f"{self.number(1)} < {self.number(1)}",
            f"{self.number(1)} >= {self.choice(LITERALS)}",
            f"{self.choice(LITERALS)} < {self.number(1)} <= {self.choice(['1.5', '2.5'])}",
            f"{self.whole()} > {self.whole()}",
            f"{self.whole()} % 2 == 0",
            f"{self.whole()} % 3",
        ]
        if self.scope.vectors:
            u = self.choice(self.scope.vectors)
            forms += [f"{u}.sum() > {self.number(1)}", f"np.{self.choice(['any', 'all'])}({u} < {self.number(1)})"]
        forms += self.scope.bools * 2
        if depth > 1:
            a, b = self.condition(depth - 1), self.condition(depth - 1)
            forms += [f"({a} and {b})", f"({a} or {b})", f"not ({a})", f"({a} and not ({b}))"]
        return str(self.choice(forms))

    def vector(self) -> str:
        """Write an array of three floats, never another name of one that exists."""
        u, w = self.choice(self.scope.vectors), self.choice(self.scope.vectors)
        a = self.number(1)
        return str(
            self.choice(
                [
                    f"{u} * 0.5 + {w}",
                    f"{u} - np.sin({a}) * {w}",
                    f"np.tanh({u}) + {a}",
                    f"{u}[::-1] * 1.1",
                    f"np.where({u} > {a}, {u}, {w} * 0.5)",
                    f"(np.sin({u}) if {self.condition(1)} else 0.5 * {w})",
                ]
            )
        )

    # --- statements ---------------------------------------------------------------------------------------------------

    def emit(self, line: str) -> None:
        self.lines.append("    " * self.indent + line)

    @contextmanager
    def block(self, head: str, *, loop: bool = False) -> Any:
        """Open a block; what is set first inside it is unknown after it."""
        self.emit(head)
        outside = self.scope.copy()
        self.indent += 1
        self.loops += loop
        yield
        self.loops -= loop
        self.indent -= 1
        self.scope = outside

    def statements(self, depth: int, most: int = 3) -> bool:
        """Write a few statements; say whether the last one leaves the block."""
        for _ in range(self.integer(1, most)):
            self.statement(depth)
        kind = self.integer(0, 9)
        if self.loops and kind < 2 and self.indent > 2:
            self.emit(["break", "continue"][kind])
            return True
        if kind == 2 and self.indent > 1:
            self.give_back()
            return True
        return False

    def statement(self, depth: int) -> None:
        simple = [self.assign, self.augment, self.assign, self.count, self.flag, self.swap]
        if self.scope.vectors:
            simple += [self.assign_vector]
        if any(h.pair for h in self.helpers):
            simple += [self.unpack]
        nested = [self.if_, self.if_, self.leave]
        if self.loops < LOOPS:
            nested += [self.while_, self.while_, self.for_range, self.for_rows, self.for_range]
        self.size -= 1
        if depth == 0 or self.size < 0 or self.chance(3):
            self.choice(simple)()
        else:
            self.choice(nested)(depth - 1)

    def target(self) -> str:
        return str(self.choice(self.scope.floats)) if not self.chance(5) else self.new("t")

    def assign(self) -> None:
        name = self.target()
        self.emit(f"{name} = {self.number()}")
        if name not in self.scope.floats:
            self.scope.floats.append(name)

    def augment(self) -> None:
        form = self.choice(["{} += {}", "{} -= {}", "{} *= np.cos({})", "{} /= 1.0 + abs({})"])
        self.emit(form.format(self.choice(self.scope.floats), self.number(1)))

    def assign_vector(self) -> None:
        name = self.choice(self.scope.vectors) if self.chance() else self.new("u")
        self.emit(f"{name} = {self.vector()}")
        if name not in self.scope.vectors:
            self.scope.vectors.append(name)

    def count(self) -> None:
        if not self.scope.ints or self.chance(4):
            name = self.new("m")
            self.emit(f"{name} = {self.whole()}")
            self.scope.ints.append(name)
        else:
            name = self.choice(self.scope.ints)
            self.emit(self.choice([f"{name} += {self.whole()}", f"{name} = {self.whole()}"]))

    def flag(self) -> None:
        name = self.choice([*self.scope.bools, self.new("p")])
        self.emit(f"{name} = {self.comparison()}")
        if name not in self.scope.bools:
            self.scope.bools.append(name)

    def comparison(self) -> str:
        """Write a condition that is a bool: `and` and `or` of integers give integers."""
        found = f"{self.number(1)} < {self.number(1)}"
        return found if self.chance() else f"not ({self.condition(1)})"

    def swap(self) -> None:
        a, b = self.choice(self.scope.floats), self.choice(self.scope.floats)
        if a != b:
            self.emit(f"{a}, {b} = {b}, {self.number(1)}")
        else:
            self.emit(f"{a} = {self.number(1)}")

    def unpack(self) -> None:
        helper = self.choice([h for h in self.helpers if h.pair])
        a, b = self.choice(self.scope.floats), self.new("t")
        self.emit(f"{a}, {b} = {self.call(helper, 1)}")
        self.scope.floats.append(b)

    def give_back(self) -> None:
        self.emit(f"return {self.number(1)} * 1.0" + (f", {self.number(1)} * 1.0" if self.pair else ""))

    def leave(self, depth: int) -> None:
        """Write an early exit."""
        with self.block(f"if {self.condition()}:"):
            if self.chance():
                self.assign()
            kind = self.integer(0, 2)
            if kind < 2 and self.loops:
                self.emit(["break", "continue"][kind])
            else:
                self.give_back()

    def if_(self, depth: int) -> None:
        """Write a branch; with `both`, every arm sets one more variable."""
        both = self.new("t") if self.chance(3) else ""
        heads = [f"if {self.condition()}:"]
        heads += [f"elif {self.condition()}:" for _ in range(self.integer(0, 2) // 2)]
        if both or self.chance():
            heads.append("else:")
        for head in heads:
            with self.block(head):
                if not self.statements(depth, 2) and both:
                    self.emit(f"{both} = {self.number(1)}")
        if both:
            self.scope.floats.append(both)

    def body(self, depth: int) -> None:
        self.statements(depth, 3)

    def otherwise(self) -> None:
        if self.chance(6):
            with self.block("else:"):
                self.assign()

    def limit(self, *texts: str) -> Sequence[str]:
        """Return what may bound a loop where `n` can be read."""
        return texts if "n" in self.scope.counters else ()

    def while_(self, depth: int) -> None:
        k, bound = self.new("k"), self.choice(["3", "4", *self.limit("n")])
        form = self.choice(["guarded", "endless", "counted", "down"])
        self.emit(f"{k} = {bound if form == 'down' else 0}")
        self.scope.counters.append(k)
        head = {
            "guarded": f"while {self.condition()} and {k} < {bound}:",
            "endless": f"while {self.choice(['True', self.condition(1)])}:",
            "counted": f"while {k} < {bound}:",
            "down": f"while {k} > 0:",
        }[form]
        with self.block(head, loop=True):
            if form == "endless":
                with self.block(f"if {k} >= {bound}{self.choice(['', ' or ' + self.condition(1)])}:"):
                    self.emit("break")
            self.emit(f"{k} {'-' if form == 'down' else '+'}= 1")
            self.body(depth)
        self.otherwise()

    def for_range(self, depth: int) -> None:
        i = self.new("i")
        limits = self.choice(["3", "1, 4", "0, 5, 2", *self.limit("n", "n + 1", "n, 0, -1", "1, n + 2", "5, n, -2")])
        with self.block(f"for {i} in range({limits}):", loop=True):
            self.scope.counters.append(i)
            self.body(depth)
        self.otherwise()

    def for_rows(self, depth: int) -> None:
        e, i = self.new("e"), self.new("i")
        heads = [(f"for {e} in (0.5, -1.0):", False), (f"for {e} in np.array([0.2, -0.6, 0.9]):", False)]
        if self.scope.vectors:
            u = self.choice(self.scope.vectors)
            heads += [(f"for {e} in {u}:", False)] * 2 + [(f"for {i}, {e} in enumerate({u}):", True)]
            heads += [(f"for {e}, {i}e in zip({u}, {self.choice(self.scope.vectors)}):", False)]
        head, counted = self.choice(heads)
        with self.block(head, loop=True):
            self.scope.floats += [e, f"{i}e"] if "zip" in head else [e]
            self.scope.counters += [i] if counted else []
            self.body(depth)
        self.otherwise()

    # --- functions ----------------------------------------------------------------------------------------------------

    def function(self, name: str, scope: Scope, parameters: str, *, pair: bool, depth: int, most: int) -> None:
        outer = self.scope, self.loops, self.pair
        self.scope, self.loops, self.pair = scope, 0, pair
        with self.block(f"def {name}({parameters}):"):
            self.body_of_function(depth, most)
        self.scope, self.loops, self.pair = outer

    def body_of_function(self, depth: int, most: int) -> None:
        for _ in range(self.integer(1, most)):
            self.statement(depth)
        self.give_back()

    def helper(self) -> None:
        arity, pair, name = self.integer(1, 2), self.chance(3), self.new("h")
        parameters = ["a", "b"][:arity]
        self.function(name, Scope(floats=parameters), ", ".join(parameters), pair=pair, depth=2, most=2)
        self.helpers.append(Helper(name, arity, pair))

    def inner(self) -> None:
        """Write a function inside the function: it reads the variables around it."""
        name = self.new("g")
        outer = self.scope, self.loops
        self.scope, self.loops = self.scope.copy(), 0
        self.scope.floats += ["a", "a"]
        with self.block(f"def {name}(a):"):
            with self.block(f"if {self.condition()}:"):
                self.give_back()
            self.give_back()
        self.scope, self.loops = outer
        self.helpers.append(Helper(name, 1, False))

    def module(self) -> str:
        for _ in range(self.integer(0, 2)):
            self.helper()
        self.scope = Scope(floats=["x", "y", "s", "r"], ints=["m"], bools=["p"], vectors=["v", "w"], counters=["n"])
        with self.block("def f(x, y, v, n):"):
            start = [("s", ["0.0", "0", "x * y"]), ("r", ["1.0", "y", "2"]), ("m", ["0", "1", "n"])]
            start += [("p", ["True", "x > y"]), ("w", ["np.ones(3)", "v * x"])]
            for name, values in start:
                self.emit(f"{name} = {self.choice(values)}")
            for _ in range(self.integer(1, 5)):
                self.statement(DEPTH)
            if self.chance(5):
                self.inner()
                self.statement(DEPTH)
            self.emit("return s + np.sin(r) * x + 0.1 * m + 0.5 * w.sum() + (y if p else v[0])")
        return "import numpy as np\n\n\n" + "\n".join(self.lines) + "\n"


@st.composite
def programs(draw: Callable[[Any], Any], size: int = 10) -> str:
    return Writer(lambda low, high: int(draw(st.integers(low, high))), size).module()


# --- what a run decides -----------------------------------------------------------------------------------------------


class Decisions(ast.NodeTransformer):
    """Wraps comparisons, `max`, `min` and `abs`, so that a run tells its path and how near it was to another one."""

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        self.generic_visit(node)
        return self.wrapped("_compared", node, node, node.left, *node.comparators)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id in ("max", "min", "abs"):
            return self.wrapped("_picked", node, node.func, *node.args)
        return node

    def wrapped(self, name: str, place: ast.AST, *args: ast.expr) -> ast.AST:
        return ast.fix_missing_locations(ast.copy_location(ast.Call(ast.Name(name, ast.Load()), [*args], []), place))


@dataclass
class Path:
    """The decisions of one run, and the least distance between two numbers that were compared."""

    taken: list[Any] = field(default_factory=list)
    margin: float = np.inf

    def measure(self, *numbers: Any) -> None:
        for a, b in itertools.pairwise(numbers):
            distance = np.abs(np.asarray(a, float) - b)
            if a is not b and "f" in (np.asarray(a).dtype.kind, np.asarray(b).dtype.kind):
                self.margin = min(self.margin, float(np.min(distance)))

    def compared(self, result: Any, *numbers: Any) -> Any:
        self.taken.append(np.asarray(result).tolist())
        self.measure(*numbers)
        return result

    def picked(self, pick: Callable[..., Any], *numbers: Any) -> Any:
        compared = numbers if len(numbers) > 1 else (*numbers, 0.0)
        self.taken.append([a < b for a, b in itertools.pairwise(compared)])
        self.measure(*compared)
        return pick(*numbers)


def recorded(source: str) -> Callable[..., tuple[Any, Path]]:
    """Return `f` as plain Python that gives its path beside its value."""
    code = compile(Decisions().visit(ast.parse(source)), "<recorded>", "exec")

    def run(*args: Any) -> tuple[Any, Path]:
        path = Path()
        namespace: dict[str, Any] = {"_compared": path.compared, "_picked": path.picked}
        exec(code, namespace)
        with np.errstate(all="ignore"):
            return namespace["f"](*args), path

    return run
