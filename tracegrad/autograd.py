"""Gradients on the tape as functions: `tg.autograd.grad` and `tg.autograd.backward`."""

from __future__ import annotations

from tracegrad.tape.engine import backward, grad

__all__ = ["backward", "grad"]
