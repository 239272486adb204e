"""Calls without Python in between: the tables from which native code reads the arguments of a call.

`Caller` is one program with one structure of arguments: `call(args)` returns the results, None when Python must look at
the arguments, or an int, the status of a program that failed. Where Python or NumPy lay their objects out otherwise
than the tables say (another interpreter, another word size, no GIL), there is no `Caller`, and Python does the work.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tracegrad import lazy, tree
from tracegrad.codegen import caller_layout as at
from tracegrad.codegen.table_layout import HEADER
from tracegrad.ir.layout import extent
from tracegrad.runtime import cache, identity
from tracegrad.runtime.objects import ObjectError, load_object

if TYPE_CHECKING:
    from tracegrad.codegen import caller_object
else:  # only where it must be compiled
    caller_object = lazy.module("tracegrad.codegen.caller_object")

WORD = 8
BLOCKS = 8
SYMBOL = "tg_call"
METHOD_WITH_ONE_ARGUMENT = 8
PYTHON_FUNCTIONS = {
    at.SAVE_THREAD: "PyEval_SaveThread",
    at.RESTORE_THREAD: "PyEval_RestoreThread",
    at.INC_REF: "Py_IncRef",
    at.DEC_REF: "Py_DecRef",
    at.LIST_NEW: "PyList_New",
    at.TUPLE_NEW: "PyTuple_New",
    at.FROM_LONG: "PyLong_FromLongLong",
    at.AS_LONG: "PyLong_AsLongLongAndOverflow",
    at.DICT_GET: "PyDict_GetItemWithError",
    at.ERROR_CLEAR: "PyErr_Clear",
    at.CALL: "PyObject_CallNoArgs",
    at.GET_ATTRIBUTES: "PyObject_GenericGetDict",
}
NUMPY_ARRAY_TYPE, NUMPY_SCALAR, NUMPY_EMPTY = 2, 60, 184
"""Places in NumPy's table of C functions."""
CONTAINERS: dict[type, int] = {tuple: at.TUPLE, list: at.LIST, dict: at.DICT}
KINDS: dict[type, int] = {float: at.FLOAT, int: at.INTEGER, bool: at.BOOLEAN}
NUMBERS = {np.dtype(np.float64): at.FLOAT, np.dtype(np.int64): at.INTEGER, np.dtype(np.bool_): at.BOOLEAN}
"""The Python numbers that stand for a single argument of a dtype without conversion."""


class Method(ctypes.Structure):
    """PyMethodDef."""

    _fields_ = [("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int),
                ("doc", ctypes.c_char_p)]  # fmt: skip


@functools.cache
def table_type(length: int) -> Any:
    """Return the type of tables of so many words; a subclass, so that a table can keep other objects alive."""
    return type("Words", (ctypes.c_int64 * length,), {})


def words_of(values: Sequence[int]) -> Any:
    """Return a table of words."""
    return table_type(max(len(values), 1))(*values)


def word(obj: Any, index: int) -> int:
    """Return a word of a Python object."""
    return int(ctypes.c_int64.from_address(id(obj) + WORD * index).value)


def as_expected() -> bool:
    """Compare objects in memory with what the tables say about them."""
    array = np.zeros((3, 5), np.float32)
    half = at.LOW_HALF
    shape, steps = (
        (ctypes.c_int64 * 2).from_address(word(array, place)) for place in (at.ARRAY_SHAPE, at.ARRAY_STRIDES)
    )
    flags = word(array, at.ARRAY_FLAGS) & half
    pair, several, named = (array, shape), [array, shape], {"a": array}
    table = words_of([1])
    return (
        word(array, at.OBJECT_TYPE) == id(np.ndarray)
        and word(array, at.ARRAY_DATA) == array.ctypes.data
        and word(array, at.ARRAY_NDIM) & half == 2
        and (*shape, *steps) == (3, 5, 20, 4)
        and word(array, at.ARRAY_DESCR) == id(array.dtype)
        and flags == array.flags.num
        and flags & (at.ALIGNED_C | at.WRITEABLE) == at.ALIGNED_C | at.WRITEABLE
        and [word(pair, at.OBJECT_SIZE), word(several, at.OBJECT_SIZE), word(named, at.OBJECT_SIZE)] == [2, 2, 1]
        and word(pair, at.TUPLE_ITEMS + 1) == id(shape)
        and ctypes.c_int64.from_address(word(several, at.LIST_ITEMS) + WORD).value == id(shape)
        and all(
            type(x).__name__ == "bool_" or as_bytes(x) == np.asarray(x).tobytes()
            for x in (2.5, np.float64(2.5), np.float32(0.1), np.int64(-3), np.int32(7), np.uint8(9))
        )
        and word(table, at.SELF_WORDS) == ctypes.addressof(table)
    )


def as_bytes(number: Any) -> bytes:
    return ctypes.string_at(id(number) + WORD * at.NUMBER_VALUE, np.asarray(number).itemsize)


def numpy_functions() -> Any:
    """Return NumPy's table of C functions."""
    capsule = np._core._multiarray_umath._ARRAY_API  # type: ignore[attr-defined]
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return (ctypes.c_int64 * (NUMPY_EMPTY + 1)).from_address(pointer(capsule, None))


@functools.cache
def process_table() -> Any:
    """Return the addresses that all calls of this process share, or None where objects lie otherwise than expected."""
    try:
        gil = getattr(sys, "_is_gil_enabled", lambda: True)()
        if sys.implementation.name != "cpython" or ctypes.sizeof(ctypes.c_void_p) != WORD or not gil:
            return None
        functions = numpy_functions()
        if functions[NUMPY_ARRAY_TYPE] != id(np.ndarray) or not as_expected():
            return None
    except (AttributeError, ValueError, OSError):
        return None
    table = words_of([0] * at.PROCESS_WORDS)
    table[at.ARRAY_TYPE], table[at.FLOAT_TYPE], table[at.LONG_TYPE] = id(np.ndarray), id(float), id(int)
    table[at.TRUE], table[at.FALSE], table[at.NONE] = id(True), id(False), id(None)
    table[at.STATIC_NAME] = id(tree.STATIC)
    table[at.EMPTY], table[at.SCALAR] = functions[NUMPY_EMPTY], functions[NUMPY_SCALAR]
    for place, name in PYTHON_FUNCTIONS.items():
        table[place] = ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
    return table


def native_code() -> bytes:
    """Return the object code of `codegen.caller_kernels`, from the cache or compiled now."""
    key = identity.entry_key(["caller"])
    found = cache.load(key)
    if found is not None:
        return found[1]
    data = caller_object.build()
    cache.store(key, {}, data, "calls")
    return data


@functools.cache
def method() -> Method | None:
    """Return the description of the native function for Python, or None where it cannot be used."""
    if process_table() is None:
        return None
    try:
        address = load_object(BROUGHT[-1] if BROUGHT else native_code(), [SYMBOL])[SYMBOL]
    except (ObjectError, OSError, RuntimeError):  # no source at hand, or no compiler for this CPU
        return None
    return Method(b"tracegrad_call", address, METHOD_WITH_ONE_ARGUMENT, None)


BROUGHT: list[bytes] = []


def bring(data: bytes) -> None:
    """Use object code that a saved program brought, if there is none yet."""
    BROUGHT.append(data)
    method()


class Shapes:
    """Tables of sizes and of strides, each kept once."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, ...], Any] = {}

    def address(self, shape: tuple[int, ...]) -> int:
        if shape not in self.kept:
            self.kept[shape] = words_of(shape)
        return ctypes.addressof(self.kept[shape])


class Blocks:
    """The memory of the calls in flight of one program: table, leaves, numbers, results, arena. The first call adds
    the first block: until then a program takes no memory."""

    def __init__(self, inputs: int, outputs: int, arena_bytes: int):
        self.leaves_at = WORD * (HEADER + inputs + outputs + 1)
        self.numbers_at = self.leaves_at + WORD * inputs
        self.results_at = self.numbers_at + WORD * inputs
        self.arena_at = -(-(self.results_at + 2 * WORD * outputs) // 64) * 64
        self.size = self.arena_at + max(arena_bytes, 64)
        self.free = words_of([0] * BLOCKS)
        self.memory: list[Any] = []
        self.lock = threading.Lock()

    def add(self) -> bool:
        """Make one more call at a time possible; False: enough are."""
        with self.lock:
            if len(self.memory) >= BLOCKS:
                return False
            raw = np.empty(self.size + 64, np.uint8)
            self.memory.append(raw)
            start = raw.ctypes.data
            self.free[len(self.memory) - 1] = start + -start % 64  # 0 until now, so nobody else writes there
            return True


class Caller:
    """A program's native entry for arguments of one structure."""

    def __init__(self, executable: Any, nodes: Sequence[int], kinds: Sequence[int], form: int, *, lenient: bool):
        self.shapes = Shapes()
        blocks: Blocks = executable.blocks
        inputs = self.inputs(executable, kinds, lenient)
        tables = {
            at.NODES: words_of(nodes),
            at.INPUTS: words_of(inputs),
            at.OUTPUTS: words_of(self.outputs(executable)),
            at.DONATED: words_of(executable.donated),
            at.LAST: words_of([0] * len(kinds)),
            at.OBJECTS: words_of([0] * len(nodes)),
            at.PROCESS: process_table(),
            at.BLOCKS: blocks.free,
        }
        self.words = words_of([0] * at.CALL_WORDS)
        for place, table in tables.items():
            self.words[place] = ctypes.addressof(table)
        wake = executable.pool.wake
        numbers = {
            at.ENTRY: executable.address,
            at.NODE_COUNT: len(nodes) // at.NODE_WORDS,
            at.INPUT_COUNT: len(kinds),
            at.OUTPUT_COUNT: len(executable.outputs),
            at.DONATED_COUNT: len(executable.donated),
            at.BLOCK_COUNT: BLOCKS,
            at.CONTROL: executable.pool.ctl,
            at.PARALLEL: int(executable.facts.parallel),
            at.WAKE: id(wake),
            at.FORM: form,
            at.STAMPS: executable.stamp_address,
            at.NUMBERS_AT: blocks.numbers_at,
            at.LEAVES_AT: blocks.leaves_at,
            at.RESULTS_AT: blocks.results_at,
            at.ARENA_AT: blocks.arena_at,
        }
        for place, number in numbers.items():
            self.words[place] = number
        self.words.keep = (tables, self.shapes, wake, executable, blocks)  # for as long as the function lives
        self.call: Any = function_of(self.words)

    def inputs(self, executable: Any, kinds: Sequence[int], lenient: bool) -> list[int]:
        narrowed = {place for place, _ in executable.facts.narrowed}
        donors = set(executable.donated)
        found: list[int] = []
        for i, ((dtype, shape), kind) in enumerate(zip(executable.inputs, kinds, strict=True)):
            donated = i in donors
            layout = executable.layouts[i]
            flags = at.ALIGNED_C if layout is None else at.ALIGNED
            flags |= at.WRITEABLE if donated else 0
            steps = 0 if layout is None else self.shapes.address(tuple(step * dtype.itemsize for step in layout))
            scalar = id(dtype.type) if shape == () and not donated else 0
            size = dtype.itemsize * extent(shape, layout)
            instead = NUMBERS.get(dtype, at.OTHER) if lenient and scalar and i not in narrowed else at.OTHER
            found += [kind, id(dtype), len(shape), self.shapes.address(shape), scalar, flags, size, instead, steps]
        return found

    def outputs(self, executable: Any) -> list[int]:
        found: list[int] = []
        for dtype, shape, donated in executable.outputs:
            source = donated if donated >= 0 else (at.NEW if shape else at.NUMBER)
            found += [source, id(dtype), len(shape), self.shapes.address(shape)]
        return found


def function_of(table: Any) -> Any:
    """Make a Python function of the native one and a table."""
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.POINTER(Method), ctypes.py_object, ctypes.c_void_p]
    found = method()
    assert found is not None
    return make(ctypes.byref(found), table, None)


def usable(executable: Any) -> bool:
    """Say whether a program can be called natively; a single number in donated memory cannot be returned so."""
    return method() is not None and not any(d >= 0 and not shape for _, shape, d in executable.outputs)


def list_caller(executable: Any) -> Caller:
    """Return the entry that takes a list of arrays, and of numbers where no conversion is needed; it returns a list."""
    count = len(executable.inputs)
    nodes = node(0, 0, at.LIST, list, count)
    for i in range(count):
        nodes += node(0, i, at.LEAF, None, 0)
    return Caller(executable, nodes, [at.ARRAY] * count, at.AS_LIST, lenient=True)


def node(parent: int, place: int, family: int, kind: type | None, size: int) -> list[int]:
    return [parent, place, family, 0 if kind is None else id(kind), size]


class Structure:
    """The nodes of a tree of arguments, or of a pair of it and the captured arrays.

    Frozen objects are known by their static data, which must be the same object, as it is for all that are alike.
    """

    def __init__(self, treedef: tree.TreeDef, captures: int):
        arguments, keywords = treedef.children()
        self.nodes: list[int] = []
        self.keys: list[Any] = []
        self.known = not keywords.num_nodes > 1
        root = at.TUPLE if captures else 0
        if root:
            self.nodes += node(0, 0, at.TUPLE, tuple, 2)
        self.walk(arguments, 0, 0)
        if captures:
            above = len(self.nodes) // at.NODE_WORDS
            self.nodes += node(0, 1, at.TUPLE, tuple, captures)
            for i in range(captures):
                self.nodes += node(above, i, at.LEAF, None, 0)

    def walk(self, spec: tree.TreeDef, parent: int, place: int) -> None:
        """Add a node and all below it."""
        here = len(self.nodes) // at.NODE_WORDS
        kind: Any = spec.type
        if kind is None:
            self.nodes += node(parent, place, at.LEAF, None, 0)
            return
        if kind is type(None):
            self.nodes += node(parent, place, at.EMPTY_NODE, kind, 0)
            return
        family = CONTAINERS.get(kind, 0)
        if not family and issubclass(kind, tuple) and hasattr(kind, "_fields"):
            family = at.TUPLE
        if not family and kind in tree.FROZEN:
            family = at.OBJECT
        self.known = self.known and bool(family)
        inner = spec.children()
        size = id(tree.static_data(spec)) if family == at.OBJECT else len(inner)
        self.nodes += node(parent, place, family, kind, size)
        by_name = family in (at.DICT, at.OBJECT)
        for i, (entry, below) in enumerate(zip(spec.entries(), inner, strict=True)):
            if by_name:
                self.known = self.known and type(entry) in (str, int)
                self.keys.append(entry)
            self.walk(below, here, id(entry) if by_name else i)


def tree_caller(
    executable: Any, treedef: tree.TreeDef, leaves: Sequence[Any], captures: int, out_tree: tree.TreeDef
) -> Caller | None:
    """Return the entry for a tree of arguments like `leaves`, or None if native code cannot take it apart.

    It takes the tuple of arguments; with captured arrays, the pair of that and the tuple of them. Python numbers are
    taken where `leaves` has some of their type, and nowhere else: another type would be another signature.
    """
    structure = Structure(treedef, captures)
    if not structure.known:
        return None
    narrowed = {place for place, _ in executable.facts.narrowed}
    kinds = [at.OTHER if i in narrowed else KINDS.get(type(leaf), at.ARRAY) for i, leaf in enumerate(leaves)]
    found = Caller(executable, structure.nodes, [*kinds, *[at.ARRAY] * captures], form_of(out_tree), lenient=False)
    found.words.keep += (structure.keys, treedef)
    return found


def form_of(out_tree: tree.TreeDef) -> int:
    if out_tree.type is None:
        return at.BARE
    if out_tree.type is tuple and all(child.type is None for child in out_tree.children()):
        return at.AS_TUPLE
    return at.AS_LIST
