"""Elementary functions on f64: branch-free, without tables."""

from __future__ import annotations
