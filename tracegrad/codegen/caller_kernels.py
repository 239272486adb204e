"""Calls from Python, in native code: arguments are found in Python's own objects, checked, and handed to the program.

    PyObject *tg_call(PyObject *self, PyObject *arguments)      a METH_O function: no ctypes, no Python in between

The functions here are kernels (`kernel`), which call Python's C functions by their addresses.
It walks the tuple of arguments by the tables of `caller_layout`, makes the results, gives up the GIL and enters the
program. Whatever is not exactly what the tables say is left to Python, which knows the errors: then the answer is None.
Another int than 0 as the program's status comes back as a Python int. The GIL is held but for the program itself; every
array is referenced for that time, so nobody can free it.
"""

from __future__ import annotations

from tracegrad.codegen.addresses import call, load_word, store_word
from tracegrad.codegen.caller_layout import (
    ARENA_AT,
    ARRAY,
    ARRAY_DATA,
    ARRAY_DESCR,
    ARRAY_FLAGS,
    ARRAY_NDIM,
    ARRAY_SHAPE,
    ARRAY_STRIDES,
    ARRAY_TYPE,
    AS_LIST,
    AS_LONG,
    BARE,
    BLOCK_COUNT,
    BLOCKS,
    BOOLEAN,
    CALL,
    CONTROL,
    DEC_REF,
    DESCR,
    DICT,
    DICT_GET,
    DONATED,
    DONATED_COUNT,
    EMPTY,
    EMPTY_NODE,
    ENTRY,
    ERROR_CLEAR,
    FALSE,
    FAMILY,
    FLAGS,
    FLOAT,
    FLOAT_TYPE,
    FORM,
    FROM_LONG,
    GET_ATTRIBUTES,
    INC_REF,
    INPUT_COUNT,
    INPUT_WORDS,
    INPUTS,
    INSTEAD,
    INTEGER,
    INTERRUPTED,
    KIND,
    LAST,
    LEAF,
    LEAVES_AT,
    LIST,
    LIST_ITEMS,
    LIST_NEW,
    LONG_TYPE,
    LOW_HALF,
    NBYTES,
    NDIM,
    NEW,
    NODE_COUNT,
    NODE_WORDS,
    NODES,
    NONE,
    NUMBER,
    NUMBER_VALUE,
    NUMBERS_AT,
    OBJECT,
    OBJECT_SIZE,
    OBJECT_TYPE,
    OBJECTS,
    OUT_DESCR,
    OUT_NDIM,
    OUT_SHAPE,
    OUTPUT_COUNT,
    OUTPUT_WORDS,
    OUTPUTS,
    PARALLEL,
    PARENT,
    PLACE,
    PROCESS,
    RESTORE_THREAD,
    RESULTS_AT,
    SAVE_THREAD,
    SCALAR,
    SCALAR_TYPE,
    SELF_WORDS,
    SHAPE,
    SIZE,
    SOURCE,
    STAMPS,
    STATIC_NAME,
    STRIDES,
    TRUE,
    TUPLE,
    TUPLE_ITEMS,
    TUPLE_NEW,
    TYPE,
    WAKE,
)
from tracegrad.codegen.pool_layout import PARKS, RUNNING, WAKES
from tracegrad.codegen.table_layout import HEADER

WORD = 8


# --- blocks: the table, scratch and arena of one call in flight -------------------------------------------------------


def take(words: int) -> int:
    """Return a block that no other call uses, 0 if there is none."""
    blocks = load_word(words, BLOCKS)
    for i in range(load_word(words, BLOCK_COUNT)):
        found = load_word(blocks, i)
        if found != 0:
            store_word(blocks, i, 0)
            return found
    return 0


def give(words: int, block: int) -> None:
    """Put a block back; one for which there is no room stays with its owner in Python."""
    blocks = load_word(words, BLOCKS)
    for i in range(load_word(words, BLOCK_COUNT)):
        if load_word(blocks, i) == 0:
            store_word(blocks, i, block)
            return


# --- arguments --------------------------------------------------------------------------------------------------------


def array_data(spec: int, leaf: int) -> int:
    """Return where an array's elements are, 0 if it is not of the dtype, shape and layout that the code needs."""
    ndim = load_word(spec, NDIM)
    if load_word(leaf, ARRAY_DESCR) != load_word(spec, DESCR) or load_word(leaf, ARRAY_NDIM) & LOW_HALF != ndim:
        return 0
    flags = load_word(spec, FLAGS)
    if load_word(leaf, ARRAY_FLAGS) & flags != flags:
        return 0
    found = load_word(leaf, ARRAY_SHAPE)
    wanted = load_word(spec, SHAPE)
    for axis in range(ndim):
        if load_word(found, axis) != load_word(wanted, axis):
            return 0
    steps = load_word(spec, STRIDES)
    if steps != 0:
        found = load_word(leaf, ARRAY_STRIDES)
        for axis in range(ndim):
            if load_word(wanted, axis) != 1 and load_word(found, axis) != load_word(steps, axis):
                return 0
    return load_word(leaf, ARRAY_DATA)


def number_data(process: int, kind: int, leaf: int, place: int) -> int:
    """Return where the value of a Python number is; integers and truth values are written to `place`."""
    if kind == FLOAT:
        if load_word(leaf, OBJECT_TYPE) != load_word(process, FLOAT_TYPE):
            return 0
        return leaf + WORD * NUMBER_VALUE
    if kind == INTEGER and load_word(leaf, OBJECT_TYPE) == load_word(process, LONG_TYPE):
        store_word(place, 0, 0)
        value = call(load_word(process, AS_LONG), leaf, place)
        if load_word(place, 0) & LOW_HALF != 0:
            return 0
        store_word(place, 0, value)
        return place
    if kind == BOOLEAN and (leaf == load_word(process, TRUE) or leaf == load_word(process, FALSE)):
        store_word(place, 0, 1 if leaf == load_word(process, TRUE) else 0)
        return place
    return 0


def leaf_data(process: int, spec: int, leaf: int, place: int) -> int:
    """Return the address of an argument's value, 0 if Python must look at it."""
    kind = load_word(spec, KIND)
    if kind != ARRAY:
        return number_data(process, kind, leaf, place)
    found = load_word(leaf, OBJECT_TYPE)
    if found == load_word(process, ARRAY_TYPE):
        return array_data(spec, leaf)
    if found == load_word(spec, SCALAR_TYPE):
        return leaf + WORD * NUMBER_VALUE
    return number_data(process, load_word(spec, INSTEAD), leaf, place)


def child(process: int, family: int, parent: int, place: int) -> int:
    """Return an entry of a container whose size was checked, 0 if a dict, or that of an object, has no such key."""
    if family == TUPLE:
        return load_word(parent, TUPLE_ITEMS + place)
    if family == LIST:
        return load_word(load_word(parent, LIST_ITEMS), place)
    found = call(load_word(process, DICT_GET), parent, place)
    if found == 0:
        call(load_word(process, ERROR_CLEAR), 0)
    return found


def attributes_of(process: int, node: int, found: int) -> int:
    """Return the dict of an object's attributes, 0 if its static data is another object than when it was compiled."""
    attributes = call(load_word(process, GET_ATTRIBUTES), found, 0)
    if attributes == 0:
        call(load_word(process, ERROR_CLEAR), 0)
        return 0
    call(load_word(process, DEC_REF), attributes)  # the object has another reference
    static = child(process, DICT, attributes, load_word(process, STATIC_NAME))
    return attributes if static == load_word(node, SIZE) else 0


def find_leaves(words: int, root: int, block: int) -> bool:
    """Walk the arguments; write every leaf, and the address of its value, into the block. False: not as expected."""
    process = load_word(words, PROCESS)
    nodes = load_word(words, NODES)
    objects = load_word(words, OBJECTS)  # nothing else runs while these are in use: the GIL is held
    leaves = block + load_word(words, LEAVES_AT)
    numbers = block + load_word(words, NUMBERS_AT)
    inputs = load_word(words, INPUTS)
    count = 0
    for i in range(load_word(words, NODE_COUNT)):
        node = nodes + WORD * NODE_WORDS * i
        found = root
        if i > 0:
            above = load_word(node, PARENT)
            family = load_word(nodes + WORD * NODE_WORDS * above, FAMILY)
            found = child(process, family, load_word(objects, above), load_word(node, PLACE))
            if found == 0:
                return False
        kind = load_word(node, FAMILY)
        if kind == LEAF:
            data = leaf_data(process, inputs + WORD * INPUT_WORDS * count, found, numbers + WORD * count)
            if data == 0:
                return False
            store_word(leaves, count, found)
            store_word(block, HEADER + count, data)
            count += 1
        else:
            if load_word(found, OBJECT_TYPE) != load_word(node, TYPE):
                return False
            if kind == OBJECT:
                found = attributes_of(process, node, found)
                if found == 0:
                    return False
            elif kind != EMPTY_NODE and load_word(found, OBJECT_SIZE) != load_word(node, SIZE):
                return False
            store_word(objects, i, found)
    return True


def donation_is_safe(words: int, block: int) -> bool:
    """Say whether no donated array shares memory with another argument; the answer for the last addresses is kept."""
    inputs = load_word(words, INPUTS)
    count = load_word(words, INPUT_COUNT)
    last = load_word(words, LAST)
    same = True
    for i in range(count):
        if load_word(last, i) != load_word(block, HEADER + i):
            same = False
    if same:
        return True
    donated = load_word(words, DONATED)
    for j in range(load_word(words, DONATED_COUNT)):
        mine = load_word(donated, j)
        start = load_word(block, HEADER + mine)
        stop = start + load_word(inputs + WORD * INPUT_WORDS * mine, NBYTES)
        for i in range(count):
            spec = inputs + WORD * INPUT_WORDS * i
            other = load_word(block, HEADER + i)
            if i != mine and other < stop and other + load_word(spec, NBYTES) > start:
                return False
    for i in range(count):
        store_word(last, i, load_word(block, HEADER + i))
    return True


# --- results ----------------------------------------------------------------------------------------------------------


def drop(process: int, objects: int, count: int) -> None:
    """Give up references."""
    for i in range(count):
        if load_word(objects, i) != 0:
            call(load_word(process, DEC_REF), load_word(objects, i))


def make_results(words: int, block: int) -> bool:
    """Make the arrays that the program writes; False: there is no memory, and Python's error is set."""
    process = load_word(words, PROCESS)
    outputs = load_word(words, OUTPUTS)
    results = block + load_word(words, RESULTS_AT)
    leaves = block + load_word(words, LEAVES_AT)
    first = HEADER + load_word(words, INPUT_COUNT)
    count = load_word(words, OUTPUT_COUNT)
    for i in range(count):
        spec = outputs + WORD * OUTPUT_WORDS * i
        source = load_word(spec, SOURCE)
        if source == NUMBER:
            store_word(results, i, 0)
            store_word(block, first + i, results + WORD * (count + i))
            continue
        if source == NEW:
            descr = load_word(spec, OUT_DESCR)
            call(load_word(process, INC_REF), descr)  # PyArray_Empty takes it over
            made = call(load_word(process, EMPTY), load_word(spec, OUT_NDIM), load_word(spec, OUT_SHAPE), descr, 0)
            if made == 0:
                drop(process, results, i)
                return False
        else:
            made = load_word(leaves, source)
            call(load_word(process, INC_REF), made)
        store_word(results, i, made)
        store_word(block, first + i, load_word(made, ARRAY_DATA))
    return True


def hand_over(words: int, block: int) -> int:
    """Make scalars of single numbers, and return the results as the call returns them; 0: Python's error is set."""
    process = load_word(words, PROCESS)
    outputs = load_word(words, OUTPUTS)
    results = block + load_word(words, RESULTS_AT)
    count = load_word(words, OUTPUT_COUNT)
    for i in range(count):
        spec = outputs + WORD * OUTPUT_WORDS * i
        if load_word(spec, SOURCE) == NUMBER:
            place = results + WORD * (count + i)
            made = call(load_word(process, SCALAR), place, load_word(spec, OUT_DESCR), 0)
            store_word(results, i, made)
            if made == 0:
                drop(process, results, count)
                return 0
    form = load_word(words, FORM)
    if form == BARE:
        return load_word(results, 0)
    made = call(load_word(process, LIST_NEW if form == AS_LIST else TUPLE_NEW), count)
    if made == 0:
        drop(process, results, count)
        return 0
    items = load_word(made, LIST_ITEMS) if form == AS_LIST else made + WORD * TUPLE_ITEMS
    for i in range(count):
        store_word(items, i, load_word(results, i))
    return made


# --- the call ---------------------------------------------------------------------------------------------------------


def run(words: int, block: int) -> int:
    """Enter the program without the GIL; return its status."""
    process = load_word(words, PROCESS)
    inputs = load_word(words, INPUT_COUNT)
    leaves = block + load_word(words, LEAVES_AT)
    for i in range(inputs):  # from here on other threads run: `wake` is Python, and the program does without the GIL
        call(load_word(process, INC_REF), load_word(leaves, i))
    control = load_word(words, CONTROL)
    parallel = load_word(words, PARALLEL)
    if parallel != 0 and load_word(control, PARKS) != load_word(control, WAKES):
        woken = call(load_word(process, CALL), load_word(words, WAKE))
        if woken == 0:
            call(load_word(process, ERROR_CLEAR), 0)
        else:
            call(load_word(process, DEC_REF), woken)
    store_word(block, 0, control)
    store_word(block, 1, block + load_word(words, ARENA_AT))
    store_word(block, HEADER + inputs + load_word(words, OUTPUT_COUNT), load_word(words, STAMPS))
    if parallel != 0:  # counted with the GIL held, so no two callers count at once
        store_word(control, RUNNING, load_word(control, RUNNING) + 1)
    state = call(load_word(process, SAVE_THREAD), 0)
    status = call(load_word(words, ENTRY), block)
    call(load_word(process, RESTORE_THREAD), state)
    if parallel != 0:
        store_word(control, RUNNING, load_word(control, RUNNING) - 1)
    drop(process, leaves, inputs)
    return status


def answer(words: int, root: int, block: int) -> int:
    """Return the result of one call as a new reference, 0 with Python's error set, or None."""
    process = load_word(words, PROCESS)
    none = load_word(process, NONE)
    if not find_leaves(words, root, block) or (
        load_word(words, DONATED_COUNT) > 0 and not donation_is_safe(words, block)
    ):
        call(load_word(process, INC_REF), none)
        return none
    if not make_results(words, block):
        return 0
    status = run(words, block)
    if status != 0:
        drop(process, block + load_word(words, RESULTS_AT), load_word(words, OUTPUT_COUNT))
        if status == INTERRUPTED:  # a signal handler has raised an exception, which is set
            return 0
        return call(load_word(process, FROM_LONG), status)
    return hand_over(words, block)


def tg_call(self: int, root: int) -> int:
    """Take a block, answer the call, give the block back."""
    words = load_word(self, SELF_WORDS)
    block = take(words)
    if block == 0:
        none = load_word(load_word(words, PROCESS), NONE)
        call(load_word(load_word(words, PROCESS), INC_REF), none)
        return none
    result = answer(words, root, block)
    give(words, block)
    return result
