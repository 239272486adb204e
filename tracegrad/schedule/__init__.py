"""Scheduling: a graph becomes an ordered list of kernels and library calls over buffers in one arena."""
