"""Files of plain data and object code under a digest: entries of the cache, and saved programs.

    one line of JSON      magic, name, sizes, SHA-256 of what follows
    JSON                  what must be known about the object code
    object code           as the linker takes it

Written beside their place and renamed, so readers see all of a file or nothing of it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
from typing import Any

LONGEST_HEADER = 4096


class SealError(ValueError):
    """The bytes are not what was written; the text says in which way."""


def seal(magic: str, name: str, facts: dict[str, Any], data: bytes) -> bytes:
    """Return the file's bytes."""
    text = json.dumps(facts).encode()
    body = text + data
    header = {"magic": magic, "name": name, "facts": len(text), "data": len(data)}
    header["digest"] = hashlib.sha256(body).hexdigest()
    return json.dumps(header).encode() + b"\n" + body


def unseal(raw: bytes, magic: str, name: str) -> tuple[dict[str, Any], bytes]:
    """Return (facts, object code); raises SealError unless every byte is as it was written."""
    head, newline, body = raw[:LONGEST_HEADER].partition(b"\n")
    header = read_header(head)
    if header.get("magic") != magic:
        raise SealError(f"it says {str(header.get('magic'))[:40]!r}, not {magic!r}")
    if header.get("name") != name:
        raise SealError("it holds something else than its name says")
    sizes = header.get("facts"), header.get("data")
    body = raw[len(head) + len(newline) :]
    if not all(type(n) is int and n >= 0 for n in sizes) or len(body) != sum(sizes):  # type: ignore[arg-type]
        raise SealError(f"it is cut off, or something was added: {len(body)} bytes follow its first line")
    if hashlib.sha256(body).hexdigest() != header.get("digest"):
        raise SealError("its content does not match its digest")
    try:
        facts = json.loads(body[: sizes[0]])
    except (ValueError, RecursionError) as error:
        raise SealError(f"its facts cannot be read: {error}") from None
    if not isinstance(facts, dict):
        raise SealError("its facts cannot be read")
    return facts, body[sizes[0] :]


def read_header(line: bytes) -> dict[str, Any]:
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        raise SealError("its first line is not a header") from None
    if not isinstance(header, dict) or json.dumps(header).encode() != line:
        raise SealError("its first line is not a header")
    return header


def write(path: str | os.PathLike[str], content: bytes, *, durable: bool = False) -> None:
    """Put a file in its place in one move; `durable` waits until the disk has it. Raises OSError, leaving no rest."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise OSError(errno.EEXIST, "it is a device or a pipe, which the move would replace")
    folder, name = os.path.split(os.fspath(path))
    temporary = os.path.join(folder, f".{name[:40]}-{os.urandom(8).hex()}.part")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    if durable:
        flush_folder(folder or os.curdir)


def flush_folder(folder: str) -> None:
    """Make the rename itself last, where the system lets a folder be opened."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
