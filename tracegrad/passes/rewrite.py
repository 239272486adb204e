"""The language of rewrites: patterns of expressions, and functions of a node.

    rewrite("mul-one", lambda x: x * 1.0, lambda x: x)           two expressions of the same variables

    @rule(reshape)
    def merge_reshapes(r: Rewriter, node: Node) -> ...           returns the replacement, or None
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tracegrad.ir import Builder, Literal, Node, Operand, Primitive
from tracegrad.ops import elementwise as el


class Rewriter:
    """Adds the nodes of a replacement, on the line of the node that is replaced."""

    def __init__(self, builder: Builder):
        self.builder = builder
        self.where: Any = None

    def add(self, prim: Primitive, *operands: Operand, **params: Any) -> Node:
        return self.builder.add(prim, operands, params, self.where)


Apply = Callable[[Rewriter, Node], Operand | None]


@dataclass(frozen=True)
class Rule:
    """A named rewrite of the primitives it looks at (all of them when none is named)."""

    name: str
    apply: Apply
    prims: tuple[Primitive, ...] = ()
    before: Callable[..., Any] | None = None
    after: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Pattern:
    """An expression over variables: a variable, a literal, or a primitive applied to patterns."""

    prim: Primitive | None = None
    operands: tuple[Any, ...] = ()
    name: str = ""

    def __add__(self, other: Any) -> Pattern:
        return Pattern(el.add, (self, other))

    def __sub__(self, other: Any) -> Pattern:
        return Pattern(el.sub, (self, other))

    def __mul__(self, other: Any) -> Pattern:
        return Pattern(el.mul, (self, other))

    def __rmul__(self, other: Any) -> Pattern:
        return Pattern(el.mul, (other, self))

    def __truediv__(self, other: Any) -> Pattern:
        return Pattern(el.div, (self, other))

    def __neg__(self) -> Pattern:
        return Pattern(el.neg, (self,))


def match(pattern: Any, operand: Operand, found: dict[str, Operand]) -> bool:
    """Bind the variables of `pattern` so that it equals `operand`."""
    if not isinstance(pattern, Pattern):
        return isinstance(operand, Literal) and same_number(operand.value, pattern)
    if pattern.prim is None:
        return found.setdefault(pattern.name, operand) is operand
    if not isinstance(operand, Node) or operand.prim is not pattern.prim:
        return False
    return all(match(p, o, found) for p, o in zip(pattern.operands, operand.operands, strict=True))


def same_number(a: Any, b: Any) -> bool:
    """Compare literals; 0.0 and -0.0 differ."""
    return bool(a == b) and np.signbit(a) == np.signbit(b)


def build(rewriter: Rewriter, pattern: Any, found: dict[str, Operand], dtype: np.dtype[Any]) -> Operand:
    if not isinstance(pattern, Pattern):
        return Literal(pattern, dtype)
    if pattern.prim is None:
        return found[pattern.name]
    return rewriter.add(pattern.prim, *(build(rewriter, p, found, dtype) for p in pattern.operands))


def rewrite(name: str, before: Callable[..., Any], after: Callable[..., Any]) -> Rule:
    """Make a rule from two functions of the same variables."""
    names = before.__code__.co_varnames[: before.__code__.co_argcount]
    variables = [Pattern(name=n) for n in names]
    source, target = before(*variables), after(*variables)

    def apply(rewriter: Rewriter, node: Node) -> Operand | None:
        found: dict[str, Operand] = {}
        if not match(source, node, found):
            return None
        result = build(rewriter, target, found, node.dtype)
        return result if result.aval == node.aval else None

    return Rule(name, apply, (source.prim,), before, after)


def rule(*prims: Primitive) -> Callable[[Apply], Rule]:
    """Make a rule from a function; its name is the function's."""
    return lambda apply: Rule(apply.__name__.replace("_", "-"), apply, prims)
