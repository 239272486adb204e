"""Random programs on tensors, as lines of Python that run with `T = tg` and `T = torch` alike.

A program is written line by line, with the shapes and flags that PyTorch's variables have so far; each line runs in
both libraries at once. Both must succeed or both must refuse, and all variables must agree: values, gradients, flags,
versions. A failure shows the program as text to paste.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

HEAD = "seen = []"
LARGE = 1e60
"""Values that grow beyond this end a program: rounding is amplified."""


STRICTER = {
    "refer to a single memory location": "",  # both sides overlap: here the result is computed before it is written
    "modified by an inplace operation": "",  # PyTorch's rule reads the value, ours does not
    "a view of a leaf Variable that requires grad": "requires_grad_(False)",  # it did when the view was made
    "detached in-place": "",  # what was saved is still there
    "a second time": "",  # the rule keeps nothing that could have been freed
}
"""What PyTorch refuses and tracegrad does, rightly, after a line that holds the second text."""
MORE_CAREFUL = (
    "shows one element in several places",  # a part of an expanded tensor might be written to; PyTorch looks closer
    "differ beside axis",  # PyTorch joins vectors without elements to everything
)
"""What tracegrad refuses and PyTorch may do."""


class Difference(AssertionError):
    """The libraries disagree; the message holds the program."""


class Names:
    """What programs call `T`: tracegrad's names, and PyTorch's for functions that are NumPy's there."""

    def __init__(self, tg: Any):
        self._tg = tg

    def __getattr__(self, name: str) -> Any:
        if hasattr(self._tg, name):
            return getattr(self._tg, name)
        if name == "clone":
            return self._tg.Tensor.clone
        names = {"cat": "concatenate", "mul": "multiply"}
        return getattr(np, names.get(name, name))


class Program:
    """A program that grows: `ours` and `theirs` are its variables in both libraries."""

    def __init__(self, seed: int, tg: Any, torch: Any):
        self.random = random.Random(seed)
        self.seed = seed
        self.lines: list[str] = []
        self.count = 0
        self.ended = False
        self.versions: dict[str, tuple[int, int]] = {}
        self.ours: dict[str, Any] = {"T": Names(tg), "np": np}
        self.theirs: dict[str, Any] = {"T": torch, "np": np}
        self.run(HEAD)

    # --- choosing -----------------------------------------------------------------------------------------------------

    def names(self, kind: str = "f") -> list[str]:
        """Return the variables of one kind: f(loats), i(ntegers), b(ools)."""
        dtypes = {"f": "torch.float64", "i": "torch.int64", "b": "torch.bool"}
        return [k for k, v in self.theirs.items() if k[0] == "v" and str(v.dtype) == dtypes[kind]]

    def pick(self, kind: str = "f") -> str:
        return self.random.choice(self.names(kind)[-8:])

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.theirs[name].shape)

    def fresh(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def array(self, shape: tuple[int, ...]) -> str:
        """Return the text of a new array with values that have few digits."""
        size = int(np.prod(shape, dtype=int))
        values = [self.random.choice([-2, -1.5, -1, -0.5, 0.25, 0.5, 1, 1.5, 2, 3]) for _ in range(size)]
        return f"np.array({values}, dtype=np.float64).reshape({shape})"

    # --- running ------------------------------------------------------------------------------------------------------

    def run(self, line: str) -> bool:
        """Run a line in both libraries; return whether it succeeded."""
        self.lines.append(line)
        before = self.flags()
        ours, theirs = attempt(line, self.ours), attempt(line, self.theirs)
        if any(words in str(ours) for words in MORE_CAREFUL) or (theirs is not None and self.flags() != before):
            self.ended = True  # here, or PyTorch has changed something although it refused
            return False
        stricter = [words for words, after in STRICTER.items() if words in str(theirs) and after in str(self.lines)]
        if ours is None and stricter:
            self.ended = True
            return False
        if (ours is None) != (theirs is None):
            raise self.difference(f"tracegrad: {ours or 'fine'}; torch: {theirs or 'fine'}")
        if theirs is not None:
            self.lines[-1] += f"  # refused: {str(theirs).splitlines()[0][:60]}"
            if "backward" in line or "grad(" in line:  # PyTorch stops half-way
                self.ended = True
                return False
        self.compare()
        return theirs is None

    def flags(self) -> list[Any]:
        return [(k, v.requires_grad, v._version, v.is_leaf) for k, v in self.theirs.items() if k[0] == "v"]

    def has_views(self, name: str) -> bool:
        x = self.theirs[name]
        return x._base is not None or any(v._base is x for k, v in self.theirs.items() if k[0] == "v")

    def compare(self) -> None:
        if len(self.ours["seen"]) != len(self.theirs["seen"]):
            raise self.difference("a hook was called more often in one of them")
        for number, (ours, theirs) in enumerate(zip(self.ours["seen"], self.theirs["seen"], strict=True)):
            self.compare_arrays(f"seen[{number}]", ours, theirs)
        for name, theirs in self.theirs.items():
            if name[0] != "v":
                continue
            ours = self.ours[name]
            self.compare_arrays(name, ours.detach().numpy(), theirs.detach().numpy())
            if theirs._base is not None and theirs.requires_grad and theirs.is_leaf:
                self.ended = True  # a view from before requires_grad_(): in PyTorch no gradient flows, flag or not
                return
            self.compare_flags(name, ours, theirs)
            self.compare_gradients(name, ours, theirs)

    def compare_flags(self, name: str, ours: Any, theirs: Any) -> None:
        first = self.versions.setdefault(name, (ours._version, theirs._version))  # PyTorch's may start at 1
        if ours._version - first[0] != theirs._version - first[1]:
            raise self.difference(f"{name}._version is {ours._version} after {first[0]}, {theirs._version} in torch")
        for flag in ("requires_grad", "is_leaf", "retains_grad")[: 2 if theirs.is_leaf else 3]:
            if getattr(ours, flag) != getattr(theirs, flag):
                raise self.difference(f"{name}.{flag} is {getattr(ours, flag)}, in torch {getattr(theirs, flag)}")

    def compare_gradients(self, name: str, ours: Any, theirs: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            a, b = ours.grad, theirs.grad
        if (a is None) != (b is None):
            raise self.difference(f"{name}.grad is {a} in tracegrad, {b} in torch")
        if b is not None:
            self.compare_arrays(f"{name}.grad", a.detach().numpy(), b.detach().numpy())

    def compare_arrays(self, name: str, ours: Any, theirs: Any) -> None:
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            raise self.difference(f"{name} is {ours.dtype}{ours.shape}, in torch {theirs.dtype}{theirs.shape}")
        if not np.isfinite(theirs).all() or np.abs(theirs.astype(float)).max(initial=0.0) > LARGE:
            self.ended = True
            return
        scale = max(1.0, np.abs(theirs.astype(float)).max(initial=0.0))
        if not np.allclose(ours, theirs, rtol=1e-9, atol=1e-11 * scale):
            raise self.difference(f"{name} is\n{ours}\nin torch\n{theirs}")

    def difference(self, what: str) -> Difference:
        return Difference(f"seed {self.seed}: {what}\n" + "\n".join(self.lines))


def attempt(line: str, variables: dict[str, Any]) -> Exception | None:
    """Run a line; return its error, if it raises one."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(line, variables)
    except Exception as error:
        return error
    return None


# --- lines ------------------------------------------------------------------------------------------------------------


def leaf(p: Program) -> None:
    shape = p.random.choice([(), (3,), (2, 3), (3, 2), (1, 3), (2, 1, 3), (4,)])
    tracked = p.random.random() < 0.7
    p.run(f"{p.fresh()} = T.tensor({p.array(shape)}, requires_grad={tracked})")


def unary(p: Program) -> None:
    name = p.random.choice(
        "exp sin cos tanh sigmoid neg square abs relu clone detach contiguous sum mean flatten sign exp sqrt".split()
    )
    x = p.pick()
    inner = f"({x} * {x} + 0.5)" if name == "sqrt" else f"({x} * 0.1)" if name == "exp" else x
    p.run(f"{p.fresh()} = {inner}.{name}()")


def binary(p: Program) -> None:
    op = p.random.choice(["+", "-", "*", "/", "*", "+"])
    x, y = p.pick(), p.random.choice([p.pick(), p.pick(), "2.0", "3", "-0.5"])
    x, y = (x, y) if p.random.random() < 0.8 else (y, x)
    if not ({x[0], y[0]} & {"v"}):
        return
    right = f"({y} * {y} + 1.0)" if op == "/" else y
    p.run(f"{p.fresh()} = {x} {op} {right}")


def pair(p: Program) -> None:
    name = p.random.choice(["maximum", "minimum", "matmul", "mul", "add"])
    p.run(f"{p.fresh()} = T.{name}({p.pick()}, {p.pick()})")


def reduction(p: Program) -> None:
    x = p.pick()
    rank = len(p.shape(x))
    if not rank:  # PyTorch takes dim=0 of a scalar
        return
    dim = p.random.randrange(-rank - 1, rank + 1)
    keep = p.random.random() < 0.5
    call = p.random.choice(["sum", "mean", "amax", "amin", "cumsum", "var", *(["prod"] if 1 not in p.shape(x) else [])])
    more = "" if call == "cumsum" else f", keepdim={keep}"
    p.run(f"{p.fresh()} = {x}.{call}(dim={dim}{more})")


def values(p: Program) -> None:
    x = p.pick()
    rank = len(p.shape(x))
    if not rank:
        return
    dim = p.random.randrange(-rank, rank)
    call = p.random.choice(["max", "min", "sort"])
    p.run(f"{p.fresh()} = {x}.{call}(dim={dim})[0]")


def part(p: Program, shape: tuple[int, ...]) -> str:
    """Return a basic index."""
    entries = []
    for size in shape[: p.random.randrange(0, len(shape) + 1)]:
        low = p.random.randrange(-1, size + 1)
        choices = [f"{p.random.randrange(-size, size) if size else 0}", ":", f"{low}:", f":{size - 1}", "::2", "1:2"]
        entries.append(p.random.choice(choices))
    if p.random.random() < 0.25:
        entries.insert(p.random.randrange(len(entries) + 1), "None")
    if p.random.random() < 0.25:
        entries.insert(p.random.randrange(len(entries) + 1), "...")
    return ", ".join(entries) or "..."


def index(p: Program) -> None:
    x = p.pick()
    p.run(f"{p.fresh()} = {x}[{part(p, p.shape(x))}]")


def points(p: Program, shape: tuple[int, ...], *, distinct: bool = False) -> str:
    """Return an index with an array in it; of distinct places, where it is undefined which value would stay."""
    size = shape[0]
    numbers = [p.random.randrange(-size, size) for _ in range(p.random.randrange(1, 4))]
    columns = [p.random.randrange(shape[-1]) for _ in range(2)]
    if distinct:
        numbers, columns = p.random.sample(range(size), min(size, 2)), p.random.sample(range(shape[-1]), 1)
    kind = p.random.randrange(5)
    if kind == 0:
        return f"{numbers}"
    if kind == 1:
        return f"T.tensor({numbers})"
    if kind == 2:
        return f"T.tensor({[p.random.random() < 0.5 for _ in range(size)]})"
    if kind == 3:
        return f"..., {columns}"
    if kind == 4 and len(shape) > 1:
        return f"{numbers}, {[p.random.randrange(shape[1]) for _ in numbers]}"
    return f"{numbers}, None"


def advanced(p: Program) -> None:
    x = p.pick()
    if p.shape(x) and 0 not in p.shape(x):
        p.run(f"{p.fresh()} = {x}[{points(p, p.shape(x))}]")


def view(p: Program) -> None:
    x = p.pick()
    shape = p.shape(x)
    rank, size = len(shape), int(np.prod(shape, dtype=int))
    first, second = (p.random.randrange(-rank, rank) if rank else 0 for _ in range(2))
    names = ", ".join(map(str, p.random.sample(range(rank), rank)))
    calls = [
        f"view({size})", "view(-1)", f"reshape({size}, 1)", "reshape(-1)", f"unsqueeze({first})", "squeeze()",
        f"expand(2, {', '.join('-1' for _ in shape) or '1'})", "flatten()", "ravel()", f"squeeze(dim={first})",
    ]  # fmt: skip
    if rank:
        calls += [
            f"permute({names})", f"swapaxes({first}, {second})", f"narrow({first}, 0, 1)", f"unsqueeze({first})",
            f"split(1, dim={first})[0].clone()", f"chunk(2, dim={first})[-1].clone()", f"unbind({first})[0].clone()",
            f"flip({first})", "mT" if rank > 1 else "T", "T" if rank == 2 else f"movedim({first}, {second})",
        ]  # fmt: skip
    p.run(f"{p.fresh()} = {x}.{p.random.choice(calls)}")


def joined(p: Program) -> None:
    x, y = p.pick(), p.pick()
    call = p.random.choice([f"T.cat([{x}, {y}], 0)", f"T.stack([{x}, {y}])", f"T.where({x} > 0.0, {x}, {y})"])
    p.run(f"{p.fresh()} = {call}")


def operand(p: Program, x: str) -> str:
    """Return what may be written into x."""
    alike = [y for y in p.names() if p.shape(y) == p.shape(x)]
    return p.random.choice([p.random.choice(alike), p.pick(), "0.5", "2"])


def in_place(p: Program) -> None:
    x = p.pick()
    y = operand(p, x)
    line = p.random.choice([
        f"{x}.add_({y})", f"{x}.mul_({y})", f"{x}.sub_({y})", f"{x}.copy_({y})" if y[0] == "v" else f"{x}.fill_({y})",
        f"{x} += {y}", f"{x} *= {y}", f"{x}.zero_()", f"{x}.tanh_()", f"{x}.clamp_(-1.0, 1.0)", f"{x}.sigmoid_()",
        f"{x}.neg_()", f"{x}.relu_()", f"{x}.div_(2.0)", f"{x}.pow_(2)", f"{x}.square_()", f"{x}.abs_()",
    ])  # fmt: skip
    p.run(line)


def assign(p: Program) -> None:
    x = p.pick()
    shape = p.shape(x)
    at = part(p, shape)
    if shape and 0 not in shape and p.random.random() < 0.4:
        at = points(p, shape, distinct=True)
    value = p.random.choice([p.pick(), "1.5", f"{x}[{at}] * 2.0", f"{p.pick()}.sum()"])
    p.run(f"{x}[{at}] {p.random.choice(['=', '=', '+=', '*='])} {value}")


def flags(p: Program) -> None:
    x = p.pick()
    lines = [f"{x}.retain_grad()", f"{x}.retain_grad()", f"{x}.grad = None", f"{x}.grad.zero_()"]
    if not p.has_views(x):  # views from before stay as they are, in one way or another
        lines += [f"{x}.requires_grad_()", f"{x}.requires_grad_(False)", f"{x}.detach_()", f"{x}.requires_grad = True"]
    p.run(p.random.choice(lines))


def hook(p: Program) -> None:
    x = p.pick()
    body = p.random.choice([
        "g * 2.0", "seen.append(g.detach().clone().numpy())", "None", "g.clone()", "g.sum() * g",
    ])  # fmt: skip
    p.run(f"{x}.register_hook(lambda g: {body})")


def under_no_grad(p: Program) -> None:
    x, y = p.pick(), p.pick()
    line = p.random.choice([
        f"{p.fresh()} = {x} * 2.0", f"{x}.mul_(0.5)", f"{x}.copy_({y})", f"{x}.add_({y})", f"{x}[...] = 0.5",
    ])  # fmt: skip
    p.run(f"with T.no_grad(): {line}")


def shared(p: Program) -> None:
    x = p.pick()
    line = p.random.choice([
        f"{p.fresh()} = T.from_dlpack({x}.detach())", f"{x}.data.mul_(0.5)", f"{p.fresh()} = {x}.detach()",
        f"{p.fresh()} = T.from_numpy({x}.detach().numpy())", f"{p.fresh()} = {x}.data",
        f"{x}.detach().add_(1.0)", f"{p.fresh()} = T.clone({x})",
        f"{p.fresh()} = T.zeros_like({x})",
    ])  # fmt: skip
    p.run(line)


def backward(p: Program) -> None:
    x = p.pick()
    more = [f"retain_graph={p.random.random() < 0.6}"]
    if p.random.random() < 0.2:
        more.append("create_graph=True")
    if p.random.random() < 0.2 and "register_hook" not in str(p.lines):  # whose outputs' hooks run, differs
        more.append(f"inputs=[{p.pick()}]")
    start = p.random.choice([f"{x}.sum().backward(", f"({x} * {x}).sum().backward(", f"{x}.backward("])
    if start.startswith(f"{x}.b") and p.random.random() < 0.7:
        more.insert(0, f"T.ones_like({x})")
    p.run(f"{start}{', '.join(more)})")


def grad(p: Program) -> None:
    x = p.pick()
    wrt = [p.pick() for _ in range(p.random.choice([1, 1, 2]))]
    if "register_hook" in str(p.lines):  # of several, PyTorch hooks some before it keeps them, some after
        wrt = wrt[:1]
    more = f"retain_graph=True, create_graph={p.random.random() < 0.5}"
    if p.random.random() < 0.5:
        more += ", allow_unused=True"
    if p.run(f"g = T.autograd.grad({x}.sum(), [{', '.join(wrt)}], {more})"):
        for place, found in enumerate(p.theirs["g"]):
            if (found is None) != (p.ours["g"][place] is None):
                raise p.difference(f"g[{place}] is {p.ours['g'][place]}, in torch {found}")
            if found is None:
                continue
            if found.requires_grad and not p.ours["g"][place].requires_grad:  # it is constant, which PyTorch ignores
                p.ended = True
                return
            p.run(f"{p.fresh()} = g[{place}].clone()")


LINES: tuple[tuple[Callable[[Program], None], int], ...] = (
    (leaf, 2), (unary, 4), (binary, 6), (pair, 1), (reduction, 2), (values, 1), (index, 4), (advanced, 2), (view, 4),
    (joined, 2), (in_place, 5), (assign, 4), (flags, 2), (hook, 1), (under_no_grad, 1), (shared, 1), (backward, 4),
    (grad, 2),
)  # fmt: skip
"""Kinds of lines, and how often they are written."""


def run_program(seed: int, tg: Any, torch: Any, lines: int = 30) -> Program:
    """Write and run one program; raises Difference where the libraries disagree."""
    p = Program(seed, tg, torch)
    leaf(p)
    leaf(p)
    kinds, weights = zip(*LINES, strict=True)
    for kind in p.random.choices(kinds, weights, k=lines):
        kind(p)
        if p.ended:
            break
    return p
