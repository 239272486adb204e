"""What is known where: a branch knows its condition, and a variable may be set wherever a flag says so.

    if a:
        if b:
            return 0.0       done = True
        t = 1.0              if not done: t = 1.0
    else:
        t = 2.0
    return t                 if not done: return t

After the first `if`, t is set wherever `done` is false; the last line, which knows that, may read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tracegrad.api.python_control.state import Guarded, Undefined
from tracegrad.ir import Node
from tracegrad.ops.elementwise import logical_not
from tracegrad.trace import STATE, Tracer

Fact = tuple[Any, bool]
"""A node of a traced bool, and the value it has."""


def fact(predicate: Tracer, holds: bool) -> Fact:
    """Return what `predicate is holds` says about the bool under all `not`s."""
    node = predicate._node
    while isinstance(node, Node) and node.prim is logical_not:
        node, holds = node.operands[0], not holds
    return node, holds


def learn(predicate: Tracer, holds: bool) -> None:
    """Remember in the innermost trace, that of a branch, that its condition was decided."""
    node, value = fact(predicate, holds)
    STATE.get().traces[-1].known[node] = value


def guards_of(a: Any, b: Any, flags: Sequence[tuple[Any, Any]]) -> list[tuple[int, bool]]:
    """Return (place of a flag, its value) for the flags that say that a variable is set, after either branch.

    `a` and `b` are what it holds after them, `flags` what all variables hold after them.
    """
    return [
        (place, holds)
        for place, (x, y) in enumerate(flags)
        for holds in (True, False)
        if is_set_where(x, holds, a) and is_set_where(y, holds, b)
    ]


def is_set_where(flag: Any, holds: bool, value: Any) -> bool:
    """Say whether a variable is set at the end of a branch if the flag is `holds` there."""
    if flag is True or flag is False:
        return flag is not holds or not isinstance(value, Undefined)
    if not isinstance(flag, Tracer) or flag.dtype != np.bool_:
        return False
    return not isinstance(value, Undefined) or (isinstance(value, Guarded) and fact(flag, holds) in value.guards)
