"""Relocatable objects -> one: what `ld -r` does, for the objects of a program that was compiled in parts.

Sections are put one after another; each symbol that one object needs and another one defines becomes one symbol, local
to the result unless it is to be exported.  Code and relocations stay as they are, so no machine's instructions are
known here.  The format is that of `elf`; what the sections of our objects never are (groups) is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Sequence
from typing import NamedTuple

from tracegrad.runtime.elf import (
    FIRST_RESERVED,
    RELOCATIONS,
    SYMBOLS,
    UNDEFINED,
    WITHOUT_DATA,
    ObjectError,
    read,
)

NAMES, GROUP = 3, 17
"""Kinds of sections: texts of names; sections that belong together."""
NOTES, PROCESSOR = 0x60000000, 0x70000000
"""Kinds from the first to the second are notes for linkers, by numbers of symbols: they may be left out. From the
second on they are the processor's, as unwinding tables are."""
ORDERED = 0x80
"""The flag of a section whose order is that of the one that it links to."""
HEADER = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
ENTRY = struct.Struct("<QQq")  # of relocations: place, symbol << 32 | kind, addend
GLOBAL = 0x10


class Header(NamedTuple):
    """A section, as the table of sections has it."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    align: int
    entry: int


class Symbol(NamedTuple):
    """A symbol, as the table of symbols has it; info is binding << 4 | kind."""

    name: int
    info: int
    visibility: int
    section: int
    value: int
    size: int


class Piece(NamedTuple):
    """A section of the result; `owner` is the number of its object."""

    owner: int
    name: bytes
    header: Header
    content: bytes


class Names:
    """The texts of names in a section of their own."""

    def __init__(self) -> None:
        self.content = bytearray(b"\0")
        self.places: dict[bytes, int] = {b"": 0}

    def place(self, name: bytes) -> int:
        if name not in self.places:
            self.places[name] = len(self.content)
            self.content += name + b"\0"
        return self.places[name]


def join(objects: Sequence[bytes], exports: Collection[str]) -> bytes:
    """Return one object that exports these symbols, and needs what none of the objects defines.

    Raises ObjectError for what cannot be joined: damaged objects, groups of sections, a symbol that is defined twice.
    """
    if len(objects) == 1:
        return objects[0]
    pieces: list[Piece] = []
    sections: list[dict[int, int]] = []  # number in the object -> number in the result
    for owner, data in enumerate(objects):
        read(data)  # all bounds are checked here
        sections.append({})
        for number, (name, header) in enumerate(headers(data)):
            if header.kind == GROUP:
                raise ObjectError("objects cannot be joined: one has groups of sections")
            if header.kind in (0, NAMES, SYMBOLS) or NOTES <= header.kind < PROCESSOR:
                continue
            sections[owner][number] = len(pieces) + 1
            content = b"" if header.kind == WITHOUT_DATA else data[header.offset : header.offset + header.size]
            pieces.append(Piece(owner, name, header, content))
    table, locals_, texts, numbers = join_symbols(objects, sections, frozenset(s.encode() for s in exports))
    pieces = [renumbered(p, sections[p.owner], numbers[p.owner], len(pieces) + 1) for p in pieces]
    symbols = Header(0, SYMBOLS, 0, 0, 0, len(table), len(pieces) + 2, locals_, 8, SYMBOL.size)
    names = Header(0, NAMES, 0, 0, 0, len(texts), 0, 0, 1, 0)
    pieces += [Piece(0, b".symtab", symbols, table), Piece(0, b".strtab", names, texts)]
    return written(objects[0][:64], pieces)


def headers(data: bytes) -> list[tuple[bytes, Header]]:
    """Return the names and headers of all sections."""
    (start,) = struct.unpack_from("<Q", data, 40)
    count, home = struct.unpack_from("<HH", data, 60)
    found = [Header(*HEADER.unpack_from(data, start + i * HEADER.size)) for i in range(count)]
    return [(text_at(data, found[home].offset + h.name), h) for h in found]


def symbols_of(data: bytes) -> list[tuple[bytes, Symbol]]:
    """Return the names and entries of an object's symbols; the first one is empty and stands for none."""
    every = headers(data)
    for _, header in every:
        if header.kind == SYMBOLS:
            texts = every[header.link][1].offset
            content = data[header.offset : header.offset + header.size]
            found = [Symbol(*entry) for entry in SYMBOL.iter_unpack(content)]
            return [(text_at(data, texts + s.name), s) for s in found]
    return []


def text_at(data: bytes, place: int) -> bytes:
    return data[place : data.index(b"\0", place)]


def join_symbols(
    objects: Sequence[bytes], sections: Sequence[dict[int, int]], exports: frozenset[bytes]
) -> tuple[bytes, int, bytes, list[list[int]]]:
    """Return the table of symbols, how many are local, the texts, and the new numbers of each object's symbols."""
    local: list[tuple[bytes, Symbol]] = [(b"", Symbol(0, 0, 0, 0, 0, 0))]
    shared: dict[bytes, Symbol] = {}  # those that another object may define
    found: list[list[bytes | int]] = []  # per object and symbol: a name in `shared`, or a number in `local`
    for data, homes in zip(objects, sections, strict=True):
        found.append([0])
        for name, symbol in symbols_of(data)[1:]:
            if UNDEFINED < symbol.section < FIRST_RESERVED:
                if symbol.section not in homes:  # left out, with all that refers to it
                    found[-1].append(0)
                    continue
                symbol = symbol._replace(section=homes[symbol.section])
            if symbol.info < GLOBAL:
                found[-1].append(len(local))
                local.append((name, symbol))
                continue
            found[-1].append(name)
            known = shared.get(name)
            if known is None or known.section == UNDEFINED:
                shared[name] = symbol
            elif symbol.section != UNDEFINED:
                raise ObjectError(f"objects cannot be joined: two of them define {name.decode()}")
    inside = {n: s for n, s in shared.items() if s.section != UNDEFINED and n not in exports}
    local += [(n, s._replace(info=s.info & 0xF, visibility=0)) for n, s in inside.items()]
    outside = [(n, s) for n, s in shared.items() if n not in inside]
    every = [*local, *outside]
    place = {name: len(local) - len(inside) + i for i, name in enumerate([*inside, *(n for n, _ in outside)])}
    texts = Names()
    table = b"".join(SYMBOL.pack(texts.place(name), *symbol[1:]) for name, symbol in every)
    numbers = [[n if isinstance(n, int) else place[n] for n in one] for one in found]
    return table, len(local), bytes(texts.content), numbers


def renumbered(piece: Piece, sections: dict[int, int], symbols: Sequence[int], table: int) -> Piece:
    """Return a section whose header and relocations refer to sections and symbols of the result."""
    header = piece.header
    if header.kind == RELOCATIONS:
        entries = [(p, symbols[i >> 32] << 32 | i & 0xFFFFFFFF, a) for p, i, a in ENTRY.iter_unpack(piece.content)]
        header = header._replace(link=table, info=sections[header.info])
        return piece._replace(header=header, content=b"".join(ENTRY.pack(*entry) for entry in entries))
    if header.flags & ORDERED:
        header = header._replace(link=sections[header.link])
    return piece._replace(header=header)


def written(start: bytes, pieces: Sequence[Piece]) -> bytes:
    """Return the file: its header, the sections' contents, the texts of their names, and the table of sections."""
    texts = Names()
    out = bytearray(start)
    table = [bytes(HEADER.size)]
    for piece in pieces:
        out += bytes(-len(out) % max(piece.header.align, 1))
        table.append(HEADER.pack(*piece.header._replace(name=texts.place(piece.name), offset=len(out))))
        out += piece.content
    place = texts.place(b".shstrtab")
    table.append(HEADER.pack(place, NAMES, 0, 0, len(out), len(texts.content), 0, 0, 1, 0))
    out += texts.content
    out += bytes(-len(out) % 8)
    if len(table) >= FIRST_RESERVED:
        raise ObjectError("objects cannot be joined: too many sections")
    struct.pack_into("<Q", out, 40, len(out))
    struct.pack_into("<HH", out, 60, len(table), len(table) - 1)
    return bytes(out) + b"".join(table)
