"""What a library kernel does with a finished block of its result: it lets the program's epilogue run on it.

A block is `rows` runs of `columns` neighbours in the result, `row_step` elements apart, the first at element `first`.
The epilogue is a function of the program (`blocks`); the operand table holds its address, or 0, and the table of the
program, so that library kernels need not be compiled anew for a program.
"""

from __future__ import annotations

from tracegrad.codegen.addresses import call_block, load_word
from tracegrad.codegen.kernel import kernel
from tracegrad.codegen.plan import EPILOGUE, EPILOGUE_TABLE


@kernel
def finish(operands: int, first: int, rows: int, row_step: int, columns: int) -> None:
    """Run the epilogue, if there is one, on a block whose elements have their last value, and are in cache."""
    function = load_word(operands, EPILOGUE)
    if function != 0:
        call_block(function, load_word(operands, EPILOGUE_TABLE), first, rows, row_step, columns)
