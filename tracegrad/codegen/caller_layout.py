"""The tables by which compiled code finds its arguments in Python's objects: words shared by its two halves.

`caller_kernels` walks them, `tracegrad.runtime.caller` fills them.
"""

from __future__ import annotations

# --- one table per process: addresses of Python's and NumPy's objects and functions ---
(ARRAY_TYPE, FLOAT_TYPE, LONG_TYPE, TRUE, FALSE, SAVE_THREAD, RESTORE_THREAD, INC_REF, DEC_REF, LIST_NEW, TUPLE_NEW,
 FROM_LONG, AS_LONG, DICT_GET, ERROR_CLEAR, CALL, EMPTY, SCALAR, NONE, GET_ATTRIBUTES, STATIC_NAME) = range(21)
PROCESS_WORDS = 21

# --- one table per program and structure of arguments ---
(PROCESS, ENTRY, NODES, NODE_COUNT, INPUTS, INPUT_COUNT, OUTPUTS, OUTPUT_COUNT, DONATED, DONATED_COUNT, BLOCKS,
 BLOCK_COUNT, CONTROL, PARALLEL, WAKE, FORM, STAMPS, LAST, NUMBERS_AT, LEAVES_AT, RESULTS_AT, ARENA_AT,
 OBJECTS) = range(23)  # fmt: skip
CALL_WORDS = 23

# --- one record per node of the tree of arguments, parents first ---
PARENT, PLACE, FAMILY, TYPE, SIZE = range(5)
NODE_WORDS = 5
LEAF, TUPLE, LIST, DICT, EMPTY_NODE, OBJECT = range(6)
"""Families of nodes. PLACE is the index in a tuple or list, the address of the key in a dict, of the name in an object.
SIZE of an object is the address of its static data, which it has under STATIC_NAME."""

# --- one record per argument ---
KIND, DESCR, NDIM, SHAPE, SCALAR_TYPE, FLAGS, NBYTES, INSTEAD, STRIDES = range(9)
INPUT_WORDS = 9
ARRAY, FLOAT, INTEGER, BOOLEAN, OTHER = range(5)
"""What an argument must be. INSTEAD of an array, a Python number of that kind is taken, too. STRIDES, in bytes, are
those of an array that is not in C order (0 if it is); NBYTES reach from its first byte to its last."""

# --- one record per result ---
SOURCE, OUT_DESCR, OUT_NDIM, OUT_SHAPE = range(4)
OUTPUT_WORDS = 4
NEW, NUMBER = -1, -2
"""SOURCE is the number of the donated argument, or one of these: a new array, a NumPy scalar."""

INTERRUPTED = -2
"""The status of a program that a signal ended (`region_text`)."""

AS_LIST, AS_TUPLE, BARE = range(3)
"""What a call returns: all results in a list or a tuple, or the only one as it is."""

# --- words in Python's objects (CPython, 64 bits; checked by `runtime.caller` before they are relied on) ---
OBJECT_TYPE = 1
OBJECT_SIZE = 2  # tuple, list, dict
TUPLE_ITEMS = 3
LIST_ITEMS = 3
NUMBER_VALUE = 2  # float, and NumPy's scalars
SELF_WORDS = 2  # a ctypes array
ARRAY_DATA, ARRAY_NDIM, ARRAY_SHAPE, ARRAY_STRIDES, ARRAY_DESCR, ARRAY_FLAGS = 2, 3, 4, 5, 7, 8
LOW_HALF = 0xFFFFFFFF
ALIGNED = 0x100
ALIGNED_C = 0x101
WRITEABLE = 0x400
