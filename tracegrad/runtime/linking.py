"""Puts object code into memory and fills in its addresses, on Linux on x86-64, without llvmlite.

Our code is compiled for the large code model, where an address is always 8 bytes: two kinds of relocations are all
there is (System V ABI, AMD64, 4.4.1; S the symbol, A the addend, P the place).

    R_X86_64_64      S + A         code and tables
    R_X86_64_PC64    S + A - P     unwinding tables

So linking is copying and adding, which takes less than a millisecond, where llvmlite's import alone takes thirty.
Whatever else an object has in it is left to llvmlite's linker (`objects`). Code is never writable and executable at
the same time.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import platform
import struct
import sys
from collections.abc import Callable

from tracegrad.runtime.elf import (
    EXECUTABLE,
    FIRST_RESERVED,
    IN_MEMORY,
    RELOCATIONS,
    RELOCATIONS_WITHOUT_ADDENDS,
    THREAD_LOCAL,
    UNDEFINED,
    WITHOUT_DATA,
    WRITABLE,
    Elf,
    ObjectError,
    Section,
)

ABSOLUTE, RELATIVE = 1, 24
UNWINDING = 0x70000001
"""The kind of the section with unwinding tables."""
PAGE = mmap.PAGESIZE
READ, WRITE, EXECUTE = 1, 2, 4
LONGEST_ALIGNMENT = 4096
RELOCATION = 24
"""Bytes of a relocation with its addend."""


class Unsupported(Exception):
    """What this linker leaves to llvmlite's; the text says why."""


def is_native() -> bool:
    """Say whether this linker knows the machine."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and sys.maxsize > 2**32


def link(elf: Elf, resolve: Callable[[str], int]) -> dict[str, int]:
    """Load an object whose undefined symbols `resolve` knows; return the addresses of those that it exports.

    Raises Unsupported for what only llvmlite can load, and ObjectError for an object that is damaged.
    """
    places, groups, size = arrange(elf)
    memory = mmap.mmap(-1, max(size, PAGE), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, READ | WRITE)
    keep(memory)  # code is there for as long as the process
    base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for number, offset in places.items():
        section = elf.sections[number]
        if section.kind != WITHOUT_DATA:
            memory[offset : offset + section.size] = elf.data[section.offset : section.offset + section.size]
    addresses = {number: base + offset for number, offset in places.items()}
    symbols = symbol_addresses(elf, addresses, resolve)
    for section in elf.sections:
        if section.kind == RELOCATIONS and section.info in places:
            relocate(elf, section, memory, places[section.info], base, symbols)
    for protection, start, stop in groups:
        if start < stop and protect(base + start, stop - start, protection):
            raise Unsupported("the system does not let memory become executable")
    for number, address in addresses.items():
        if elf.sections[number].kind == UNWINDING:
            register_unwinding(address)
    return {
        s.name: a for s, a in zip(elf.symbols, symbols, strict=True) if s.exported and s.section != UNDEFINED
    }  # fmt: skip


def arrange(elf: Elf) -> tuple[dict[int, int], list[tuple[int, int, int]], int]:
    """Return the offsets of the sections in memory, the groups of pages of one protection, and the size of all."""
    places: dict[int, int] = {}
    groups = []
    end = 0
    for flags, protection in ((EXECUTABLE, READ | EXECUTE), (0, READ), (WRITABLE, READ | WRITE)):
        start = end
        for number, section in enumerate(elf.sections):
            if not section.flags & IN_MEMORY or section.flags & (EXECUTABLE | WRITABLE) != flags:
                continue
            align = max(section.align, 1)
            if align & (align - 1) or align > LONGEST_ALIGNMENT:
                raise ObjectError(f"damaged object code: an alignment of {align}")
            places[number] = -(-end // align) * align
            end = places[number] + section.size + (4 if section.kind == UNWINDING else 0)  # a zero word ends the table
        end = -(-end // PAGE) * PAGE
        groups.append((protection, start, end))
    if any(s.flags & IN_MEMORY and number not in places for number, s in enumerate(elf.sections)):
        raise Unsupported("a section is writable and executable")
    if any(s.flags & THREAD_LOCAL or s.kind == RELOCATIONS_WITHOUT_ADDENDS for s in elf.sections):
        raise Unsupported("variables per thread, or relocations of another form")
    return places, groups, end


def symbol_addresses(elf: Elf, addresses: dict[int, int], resolve: Callable[[str], int]) -> list[int]:
    """Return the address of every symbol, 0 for those of sections that are not in memory."""
    found = []
    for symbol in elf.symbols:
        if symbol.section == UNDEFINED:
            found.append(resolve(symbol.name) if symbol.name else 0)
        elif symbol.section >= FIRST_RESERVED:
            if symbol.exported:
                raise Unsupported(f"{symbol.name} has no section")
            found.append(0)
        else:
            home = addresses.get(symbol.section)
            found.append(0 if home is None else home + symbol.value)
    return found


def relocate(
    elf: Elf, section: Section, memory: mmap.mmap, offset: int, base: int, symbols: list[int]
) -> None:  # fmt: skip
    """Write the addresses of one section, which starts at `offset`."""
    size = elf.sections[section.info].size
    if section.size % RELOCATION:
        raise ObjectError("damaged object code: a relocation is cut off")
    for place, info, addend in struct.iter_unpack("<QQq", elf.data[section.offset : section.offset + section.size]):
        kind, number = info & 0xFFFFFFFF, info >> 32
        if place + 8 > size or number >= len(symbols):
            raise ObjectError("damaged object code: a relocation is outside of its section")
        if not symbols[number]:
            raise ObjectError(f"object code needs {elf.symbols[number].name or 'a section'}, which has no address")
        value = symbols[number] + addend
        if kind == RELATIVE:
            value -= base + offset + place
        elif kind != ABSOLUTE:
            raise Unsupported(f"relocations of kind {kind}")
        struct.pack_into("<Q", memory, offset + place, value & 0xFFFFFFFFFFFFFFFF)


def keep(memory: mmap.mmap) -> None:
    """Never unmap this memory: a thread may still run in it when the interpreter takes its objects apart."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(memory))


@functools.cache
def mprotect() -> Callable[[int, int, int], int]:
    function = ctypes.CDLL(None, use_errno=True).mprotect
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function


def protect(address: int, size: int, protection: int) -> int:
    """Set the protection of some pages; return 0 unless the system refuses."""
    return mprotect()(address, size, protection)


@functools.cache
def unwinder() -> Callable[[int], None] | None:
    """Return the function of the C compiler's run time that learns of unwinding tables, where there is one."""
    try:
        function = ctypes.CDLL("libgcc_s.so.1").__register_frame
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = [ctypes.c_void_p], None
    return function


def register_unwinding(address: int) -> None:
    """Let a thread that ends while our code is below it on the stack find its way out."""
    register = unwinder()
    if register is not None:
        register(address)
