"""Relocatable object code -> addresses of functions (Numba is never imported here).

A linker ends the process when it meets a symbol that it can't resolve, or an object that it can't read.  So an object
is checked first (`elf`), and every undefined symbol must be known, every requested one defined.  `linking` loads what
it knows; MCJIT, through llvmlite, the rest, and everything on other systems.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tracegrad import lazy
from tracegrad.runtime import elf, linking
from tracegrad.runtime.elf import ObjectError

if TYPE_CHECKING:
    import ctypes.util as finding

    import llvmlite.binding as llvm
else:
    finding = lazy.module("ctypes.util")
    llvm = lazy.module("llvmlite.binding")

__all__ = ["ObjectError", "define_symbols", "load_object", "read_symbols"]

PYTHON = {
    "tg_gil_ensure": ctypes.pythonapi.PyGILState_Ensure,
    "tg_check_signals": ctypes.pythonapi.PyErr_CheckSignals,
    "tg_gil_release": ctypes.pythonapi.PyGILState_Release,
}
"""What a long loop calls to see whether the user wants to stop (`codegen.program`)."""

_LOCK = threading.RLock()
_ENGINES: list[llvm.ExecutionEngine] = []  # compiled code lives as long as the process: addresses stay valid
_DEFINED: dict[str, int] = {n: ctypes.cast(f, ctypes.c_void_p).value or 0 for n, f in PYTHON.items()}


def _renew_lock() -> None:
    """In a forked child nobody gives back what another thread of the parent held."""
    global _LOCK
    _LOCK = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def define_symbols(addresses: Mapping[str, int]) -> None:
    """Make addresses known under these names to every object loaded from now on."""
    with _LOCK:
        _DEFINED.update(addresses)


def load_object(data: bytes, symbols: Iterable[str], own: Mapping[str, int] | None = None) -> dict[str, int]:
    """Load object code and return the addresses of `symbols`; raises ObjectError where that is not possible.

    `own` are addresses known to this object alone, in front of those that all objects know.
    """
    wanted = list(symbols)
    found = elf.read(data)
    missing = sorted(set(wanted) - found.exports())
    if missing:
        raise ObjectError(f"object code does not define {', '.join(missing)}")
    with _LOCK:
        known = {name: (own or {}).get(name) or address_of(name) for name in found.imports()}
        unresolved = sorted(name for name, address in known.items() if not address)
        if unresolved:
            raise ObjectError(f"object code needs symbols that nothing defines: {', '.join(unresolved)}")
        if linking.is_native():
            try:
                addresses = linking.link(found, known.__getitem__)
                return {name: addresses[name] for name in wanted}
            except (linking.Unsupported, OSError):
                pass
        return load_with_llvm(data, wanted, known)


def load_with_llvm(data: bytes, wanted: Iterable[str], known: Mapping[str, int]) -> dict[str, int]:
    """Load object code with MCJIT."""
    for name, address in known.items():
        llvm.add_symbol(name, address)
    engine = new_engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    engine.finalize_object()
    _ENGINES.append(engine)
    return {name: engine.get_function_address(name) for name in wanted}


def new_engine() -> llvm.ExecutionEngine:
    """Return an empty engine: the object brings its code, so no CPU or optimisation level matters."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def read_symbols(data: bytes) -> tuple[set[str], set[str]]:
    """Return the names that an object defines globally and those that it leaves undefined."""
    found = elf.read(data)
    return found.exports(), found.imports()


def address_of(name: str) -> int:
    """Return the address of a symbol that all objects may use: one of ours, or of the C and maths libraries."""
    return _DEFINED.get(name) or address_in_c(name)


@functools.cache
def address_in_c(name: str) -> int:
    """Return the address of a function of the process or the C maths library, 0 if there is none of that name."""
    for library in (None, maths_library()):
        try:
            function = getattr(ctypes.CDLL(library), name, None)
        except (OSError, TypeError):  # Windows has no library of the process
            continue
        if function is not None:
            return ctypes.cast(function, ctypes.c_void_p).value or 0
    return 0


@functools.cache
def maths_library() -> str | None:
    if sys.platform == "linux":
        return "libm.so.6"
    return finding.find_library("msvcrt" if sys.platform == "win32" else "m")
