"""Plans of a stable argsort along rows and of cumulative sums."""

from __future__ import annotations

from tracegrad.codegen.plan import HEADER_BYTES, ITEM_SIZES, SHORT_NAMES, LibraryCall, ceil_div, round_up

# Words of the plan of a sort.
S_ROWS, S_LENGTH, S_KIND, S_KEY_BYTES, S_TASKS, S_WORK_BYTES = range(6)
FLOAT_KEYS, SIGNED_KEYS, UNSIGNED_KEYS = range(3)

# Words of the plan of a cumulative sum over the middle axis of [outer, length, inner].
C_OUTER, C_LENGTH, C_INNER, C_BLOCKS, C_REVERSE, C_TASKS = range(6)

DIGITS = 256  # values of a byte: a pass of the radix sort
INNER_BLOCK = 1024
ITEMS_PER_TASK = 1 << 14

_KINDS = {"float": FLOAT_KEYS, "int": SIGNED_KEYS, "uint": UNSIGNED_KEYS}


def plan_sort(dtype: str, rows: int, length: int, threads: int = 1) -> LibraryCall:
    """Plan the stable argsort of contiguous rows: operands (keys[rows, length], int64 indices[rows, length]).

    NaN comes last, and -0.0 equals 0.0, as in NumPy.  dtype: float32/64, int32/64 or uint32/64.
    """
    size = ITEM_SIZES[dtype]
    kind = _KINDS[dtype.rstrip("0123456789")]
    tasks = min(rows, 8 * threads) if rows * length >= ITEMS_PER_TASK else min(rows, 1)
    work = round_up(4 * 8 * length + 8 * size * DIGITS)
    plan = (rows, length, kind, size, tasks, work)
    return LibraryCall("tg_argsort", "sort", plan, HEADER_BYTES + work * threads, 0)


def plan_cumsum(
    dtype: str, outer: int, length: int, inner: int, threads: int = 1, *, reverse: bool = False
) -> LibraryCall:
    """Plan cumulative sums over the middle axis of a contiguous [outer, length, inner]: operands (x, result).

    reverse: from the end to the start.  dtype: float32/64 or int32/64 (wrapping).
    """
    blocks = ceil_div(inner, INNER_BLOCK)
    is_small = outer * length * inner < ITEMS_PER_TASK
    tasks = min(outer * blocks, 1 if is_small else 16 * threads)
    plan = (outer, length, inner, blocks, int(reverse), tasks)
    name = SHORT_NAMES[dtype]
    return LibraryCall(f"tg_cumsum_{name}", f"scan_{name}", plan, HEADER_BYTES, outer * length * inner)
