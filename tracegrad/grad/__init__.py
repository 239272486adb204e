"""Reverse mode: the pullback over recorded nodes, the joint graph, and its split into forward and backward."""
