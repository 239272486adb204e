"""How a node is lowered, by the kind of its primitive.

| lowering | meaning                                                                              |
| view     | no code of its own: its index is rewritten into the operand's                        |
| point    | one element at a time, fused into loops                                              |
| reduce   | accumulated inside the loops of its operand's elements                               |
| nest     | loops of its own that write a buffer piece by piece                                  |
| library  | a call of a precompiled kernel                                                       |
| control  | a native loop or branch around the schedules of other graphs                         |
| item     | one of the buffers that a control node writes                                        |
"""

from __future__ import annotations

from typing import Literal

from tracegrad.ir import Node
from tracegrad.ops.contract import dot
from tracegrad.ops.pool import max_pool_route, sum_pool_spread
from tracegrad.ops.shape import concat, pad, turn
from tracegrad.schedule.small_dot import is_small_dot, terms

Lowering = Literal["view", "point", "reduce", "nest", "library", "control", "item", "input"]

BY_KIND: dict[str, Lowering] = {
    "input": "input",
    "elementwise": "point",
    "random": "point",
    "gather": "point",
    "window": "point",
    "reduce": "reduce",
    "shape": "view",
    "scatter": "nest",
    "contract": "library",
    "opaque": "library",
    "control": "control",
    "item": "item",
}
WRITERS = (concat, turn, max_pool_route, sum_pool_spread)


def lowering(node: Node) -> Lowering:
    """Return how `node` becomes code."""
    if node.prim in WRITERS or (node.prim is pad and any(node.params["gap"])):
        return "nest"
    if is_small_dot(node):
        return "point"
    return BY_KIND[node.prim.kind]


def cost(node: Node) -> int:
    """Return the rough number of arithmetic operations per element."""
    if node.prim.kind == "elementwise":
        return int(getattr(node.prim, "cost", 1))
    if node.prim.kind == "random":
        return 120
    if node.prim.kind == "window":
        taps = 1
        for k in node.params["window"]:
            taps *= k
        return 2 * taps
    if node.prim is dot:
        return 2 * terms(node)
    return 4 if node.prim.kind == "gather" else 1
