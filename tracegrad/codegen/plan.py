"""What a planner returns: a call of a library kernel, decided ahead of time."""

from __future__ import annotations

from dataclasses import dataclass

HEADER_BYTES = 64  # at the start of every scratch: the kernel hands (plan, operands, scratch) to its tasks there
EPILOGUE, EPILOGUE_TABLE = 3, 4  # words of the operand table after two operands and the result

ITEM_SIZES = {"float32": 4, "float64": 8, "int32": 4, "int64": 8, "uint32": 4, "uint64": 8}
SHORT_NAMES = {"float32": "f32", "float64": "f64", "int32": "i32", "int64": "i64", "uint32": "u32", "uint64": "u64"}


@dataclass(frozen=True)
class LibraryCall:
    """Call `void symbol(i64 plan, i64 operands, i64 scratch, i64 pool)`, found in the object of `family`.

    plan: int64 values that the kernel reads through the address it is given.  scratch_bytes: 64-byte aligned memory it
    may write, contents undefined before and after.  flops: multiplications and additions, for reports.  why: the path
    that was chosen, and the reason, in words.

    takes_epilogue: it calls the function at word EPILOGUE of its operands for every finished block of the result.
    grain: every such block is one run of neighbours that starts and ends at a multiple of so many elements; 0: not so.
    """

    symbol: str
    family: str
    plan: tuple[int, ...]
    scratch_bytes: int
    flops: int
    why: str = ""
    takes_epilogue: bool = False
    grain: int = 0


def round_up(value: int, multiple: int = 64) -> int:
    """Return the least multiple that is not below value."""
    return -(-value // multiple) * multiple


def ceil_div(a: int, b: int) -> int:
    """Return a / b, rounded up."""
    return -(-a // b)
