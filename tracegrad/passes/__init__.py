"""Rewrites of graphs: a table of rules applied until nothing changes, and the lowering of composite primitives."""
