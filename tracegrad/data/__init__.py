"""Feeding arrays to a training step: minibatches, normalisation, the digits and IDX files."""

from tracegrad.data.batches import batches
from tracegrad.data.digits import Split, digits
from tracegrad.data.idx import read_idx
from tracegrad.data.normalise import Normaliser, normalise

__all__ = ["Normaliser", "Split", "batches", "digits", "normalise", "read_idx"]
