"""Rewrites of graphs: a table of exact rules, applied until nothing changes, and the lowering of composite primitives."""
