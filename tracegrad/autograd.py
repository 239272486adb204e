"""Gradients on the tape as functions: `tg.autograd.grad`, `tg.autograd.backward`, and the recorded graph to look at."""

from __future__ import annotations

from tracegrad.tape.drawing import graph
from tracegrad.tape.engine import backward, grad

__all__ = ["backward", "grad", "graph"]
