"""A compiled program with fixed arguments: checked once, then a call costs little more than the program."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tracegrad.codegen.table_layout import HEADER
from tracegrad.errors import ArgumentError
from tracegrad.runtime.executable import Executable


class Bound:
    """Call it to run the program on the buffers it was made with; `results` are arrays that every call overwrites.

    Change the buffers in place between calls. Single results are arrays of shape (). Calls from several threads take
    turns.
    """

    def __init__(self, executable: Executable, values: Sequence[Any], assemble: Callable[[Sequence[Any]], Any]):
        self._executable = executable
        self._arrays = executable.checked(values)
        for i, (given, used) in enumerate(zip(values, self._arrays, strict=True)):
            if isinstance(given, np.ndarray) and given is not used:
                what, fix = "a C-contiguous, aligned array", "pass np.ascontiguousarray(x), and change that in place"
                if executable.layouts[i] is not None:
                    what, fix = "an array that is stored as its example was", "compile for one that is stored as this"
                name = f"argument {executable.names[i]}" if i < len(executable.names) else "a captured array"
                raise ArgumentError(f"{name}: bind needs {what}", fix=fix)
        self._outputs = [
            self._arrays[d] if d >= 0 else np.empty(shape, dtype) for dtype, shape, d in executable.outputs
        ]
        self.results = assemble(self._outputs)
        self._arena = executable.new_arena()
        addresses = [a.ctypes.data for a in (*self._arrays, *self._outputs)]
        words = (executable.pool.ctl, self._arena[1], 0, *addresses, executable.stamp_address)
        self._table = (ctypes.c_int64 * (HEADER + len(addresses) + 1))(*words)
        self._address = ctypes.addressof(self._table)
        self._entry = executable.entry
        self._pool = executable.pool if executable.facts.parallel else None
        self._lock = threading.Lock()

    def __call__(self) -> Any:
        """Run the program and return `results`."""
        with self._lock:
            if self._pool is None:
                status = self._entry(self._address)
            else:
                self._pool.enter()
                try:
                    status = self._entry(self._address)
                finally:
                    self._pool.leave()
        if status:
            self._executable.fail(status)
        return self.results
