"""The transforms users call.

`function.Function` holds the compile path: trace, differentiate, simplify, schedule, emit, load, call.
"""
