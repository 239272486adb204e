"""Relocatable ELF objects, 64-bit and little-endian (gABI 4.1): what is in them, with every bound checked.

Object code comes out of the cache or a file. A loader that follows a wrong offset ends the process, so nothing is
handed on that points outside of the object.
"""

from __future__ import annotations

import platform
import struct
from typing import NamedTuple

MAGIC = b"\x7fELF"
RELOCATABLE = 1
MACHINES = {"x86_64": 62, "amd64": 62, "aarch64": 183, "arm64": 183}
SYMBOLS, RELOCATIONS, WITHOUT_DATA, RELOCATIONS_WITHOUT_ADDENDS = 2, 4, 8, 9
"""Kinds of sections."""
WRITABLE, IN_MEMORY, EXECUTABLE, THREAD_LOCAL = 1, 2, 4, 0x400
"""Flags of sections."""
UNDEFINED, FIRST_RESERVED = 0, 0xFF00
"""Numbers that stand for sections in symbols: those from FIRST_RESERVED on have a meaning of their own."""


class ObjectError(RuntimeError):
    """The object code can't be loaded: damaged, for another machine, or with symbols that nothing defines."""


class Section(NamedTuple):
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int


class Symbol(NamedTuple):
    """`section` is a number; 0 leaves the symbol to the loader."""

    name: str
    exported: bool
    section: int
    value: int


class Elf(NamedTuple):
    """An object and its tables."""

    data: bytes
    sections: list[Section]
    symbols: list[Symbol]

    def exports(self) -> set[str]:
        """Return the names that the object defines globally."""
        return {s.name for s in self.symbols if s.section != UNDEFINED and s.exported}

    def imports(self) -> set[str]:
        """Return the names that it leaves undefined."""
        return {s.name for s in self.symbols if s.section == UNDEFINED and s.name}


def read(data: bytes) -> Elf:
    """Take an object apart; raises ObjectError when it is damaged, or for another machine."""
    try:
        sections = read_sections(data)
        return Elf(data, sections, read_symbols(data, sections))
    except (struct.error, IndexError, ValueError) as error:  # the last one: no end of a name, or no text
        raise ObjectError(f"damaged object code: {error}") from error


def read_sections(data: bytes) -> list[Section]:
    """Check the header and return every section."""
    if data[:4] != MAGIC:
        raise ObjectError("not object code: it does not start with the ELF magic")
    kind, machine = struct.unpack_from("<HH", data, 16)
    (start,) = struct.unpack_from("<Q", data, 40)
    entry_size, count = struct.unpack_from("<HH", data, 58)
    if data[4:6] != b"\x02\x01" or kind != RELOCATABLE or machine != MACHINES.get(platform.machine().lower()):
        raise ObjectError(f"object code is not for this machine ({platform.machine()})")
    if entry_size != 64 or start + count * entry_size > len(data):
        raise ObjectError("damaged object code: the section table is cut off")
    found = []
    for position in range(start, start + count * entry_size, entry_size):
        kind, flags, _, offset, size, link, info, align = struct.unpack_from("<IQQQQIIQ", data, position + 4)
        if kind != WITHOUT_DATA and offset + size > len(data):
            raise ObjectError("damaged object code: a section is cut off")
        found.append(Section(kind, flags, offset, size, link, info, align))
    return found


def read_symbols(data: bytes, sections: list[Section]) -> list[Symbol]:
    """Return the symbol table; its first entry is always empty."""
    found: list[Symbol] = []
    for section in sections:
        if section.kind != SYMBOLS:
            continue
        if found:
            raise ObjectError("damaged object code: it has two symbol tables")
        names = sections[section.link]
        texts = data[names.offset : names.offset + names.size]
        for position in range(section.offset, section.offset + section.size, 24):
            start, info, _, home, value = struct.unpack_from("<IBBHQ", data, position)
            name = texts[start : texts.index(b"\0", start)].decode() if start < len(texts) else ""
            if UNDEFINED < home < FIRST_RESERVED and value > sections[home].size:
                raise ObjectError(f"damaged object code: {name} is outside of its section")
            found.append(Symbol(name, bool(info >> 4), home, value))
    return found
