"""The graph IR: immutable array nodes with one output each, a builder that numbers values, text that round-trips."""

from tracegrad.ir.aval import DTYPES, Aval, dtype_name
from tracegrad.ir.build import Builder
from tracegrad.ir.dot import to_dot
from tracegrad.ir.graph import Graph, Literal, Node, Operand
from tracegrad.ir.interpret import interpret
from tracegrad.ir.primitive import INPUT, PRIMITIVES, Primitive
from tracegrad.ir.text import parse
from tracegrad.ir.verify import verify

__all__ = [
    "Aval", "Builder", "DTYPES", "Graph", "INPUT", "Literal", "Node", "Operand", "PRIMITIVES", "Primitive",
    "dtype_name", "interpret", "parse", "to_dot", "verify",
]  # fmt: skip
