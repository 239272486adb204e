"""Relocatable object code -> addresses of functions, with llvmlite alone (Numba is never imported here).

MCJIT ends the process when it meets a symbol that it can't resolve, or an object that it can't read.  So an object is
checked first: its format and machine, the bounds of its sections, and its symbol table (every undefined symbol must be
known, every requested one must be defined).
"""

from __future__ import annotations

import ctypes
import platform
import struct
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from tracegrad import lazy

if TYPE_CHECKING:
    import ctypes.util as finding

    import llvmlite.binding as llvm
else:
    finding = lazy.module("ctypes.util")
    llvm = lazy.module("llvmlite.binding")

ELF_MAGIC = b"\x7fELF"
ELF_RELOCATABLE = 1
ELF_MACHINES = {"x86_64": 62, "amd64": 62, "aarch64": 183, "arm64": 183}
SECTION_SYMBOLS = 2
SECTION_WITHOUT_DATA = 8
PYTHON = {
    "tg_gil_ensure": ctypes.pythonapi.PyGILState_Ensure,
    "tg_check_signals": ctypes.pythonapi.PyErr_CheckSignals,
    "tg_clear_error": ctypes.pythonapi.PyErr_Clear,
    "tg_gil_release": ctypes.pythonapi.PyGILState_Release,
}
"""What a long loop calls to see whether the user wants to stop (`codegen.program`)."""

_LOCK = threading.RLock()
_ENGINES: list[llvm.ExecutionEngine] = []  # compiled code lives as long as the process: addresses stay valid
_DEFINED: dict[str, int] = {}


class ObjectError(RuntimeError):
    """The object code can't be loaded: damaged, for another machine, or with symbols that nothing defines."""


def define_symbols(addresses: Mapping[str, int]) -> None:
    """Make addresses known under these names to every object loaded from now on."""
    with _LOCK:
        for name, address in addresses.items():
            llvm.add_symbol(name, address)
            _DEFINED[name] = address


def load_object(data: bytes, symbols: Iterable[str], own: Mapping[str, int] | None = None) -> dict[str, int]:
    """Load object code and return the addresses of `symbols`; raises ObjectError where that is not possible.

    `own` are addresses known to this object alone, in front of those that all objects know.
    """
    wanted = list(symbols)
    defined, undefined = read_symbols(data)
    missing = sorted(set(wanted) - defined)
    if missing:
        raise ObjectError(f"object code does not define {', '.join(missing)}")
    own = own or {}
    with _LOCK:
        if not _ENGINES:
            define_symbols({n: ctypes.cast(f, ctypes.c_void_p).value or 0 for n, f in PYTHON.items()})
        unresolved = sorted(name for name in undefined if name not in own and not _is_known(name))
        if unresolved:
            raise ObjectError(f"object code needs symbols that nothing defines: {', '.join(unresolved)}")
        for name, address in own.items():
            llvm.add_symbol(name, address)
        try:
            engine = _new_engine()
            engine.add_object_file(llvm.ObjectFileRef.from_data(data))
            engine.finalize_object()
        finally:
            for name in own:
                llvm.add_symbol(name, _DEFINED.get(name, 0))
        _ENGINES.append(engine)
        return {name: engine.get_function_address(name) for name in wanted}


def read_symbols(data: bytes) -> tuple[set[str], set[str]]:
    """Return the names that an object defines globally and those that it leaves undefined."""
    try:
        return _read_elf_symbols(data)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise ObjectError(f"damaged object code: {error}") from error


def _read_elf_symbols(data: bytes) -> tuple[set[str], set[str]]:
    """Walk the symbol table of a little-endian 64-bit ELF file (gABI 4.1)."""
    sections = _read_elf_sections(data)
    defined: set[str] = set()
    undefined: set[str] = set()
    for kind, offset, size, link in sections:
        if kind != SECTION_SYMBOLS:
            continue
        _, names_offset, names_size, _ = sections[link]
        names = data[names_offset : names_offset + names_size]
        for position in range(offset + 24, offset + size, 24):  # the first entry is always empty
            name_offset, info, _, section = struct.unpack_from("<IBBH", data, position)
            name = names[name_offset : names.index(b"\0", name_offset)].decode() if name_offset < names_size else ""
            if section == 0:
                undefined.add(name)
            elif info >> 4:
                defined.add(name)
    return defined, undefined - {""}


def _read_elf_sections(data: bytes) -> list[tuple[int, int, int, int]]:
    """Check the header and return (kind, offset, size, link) of every section."""
    if data[:4] != ELF_MAGIC:
        raise ObjectError("not object code: it does not start with the ELF magic")
    kind, machine = struct.unpack_from("<HH", data, 16)
    (start,) = struct.unpack_from("<Q", data, 40)
    entry_size, count = struct.unpack_from("<HH", data, 58)
    if data[4:6] != b"\x02\x01" or kind != ELF_RELOCATABLE or machine != ELF_MACHINES.get(platform.machine().lower()):
        raise ObjectError(f"object code is not for this machine ({platform.machine()})")
    if entry_size != 64 or start + count * entry_size > len(data):
        raise ObjectError("damaged object code: the section table is cut off")
    sections = []
    for position in range(start, start + count * entry_size, entry_size):
        section_kind, _, _, offset, size, link = struct.unpack_from("<IQQQQI", data, position + 4)
        if section_kind != SECTION_WITHOUT_DATA and offset + size > len(data):
            raise ObjectError("damaged object code: a section is cut off")
        sections.append((section_kind, offset, size, link))
    return sections


def _is_known(name: str) -> bool:
    """Say whether the loader can resolve a symbol: one of ours, or of the C and maths libraries."""
    if name in _DEFINED or llvm.address_of_symbol(name):
        return True
    address = _address_in_libm(name)
    if address:
        define_symbols({name: address})
    return bool(address)


def _address_in_libm(name: str) -> int:
    """Return the address of a function of the C maths library, 0 if it has none of that name."""
    library_name = finding.find_library("msvcrt" if sys.platform == "win32" else "m")
    function = getattr(ctypes.CDLL(library_name), name, None)
    return ctypes.cast(function, ctypes.c_void_p).value or 0 if function else 0


def _new_engine() -> llvm.ExecutionEngine:
    """Return an empty engine: the object brings its code, so no CPU or optimisation level matters."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
