"""Measurements: whole training steps, against other libraries. Never imported by tracegrad."""
