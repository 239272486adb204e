"""IDX files, the format of MNIST (yann.lecun.com/exdb/mnist): big-endian magic, sizes, elements.

bytes 0-1   zero
byte  2     element type
byte  3     number of axes
then one uint32 per axis, then the elements in row-major order
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tracegrad.errors import TracegradError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP = b"\x1f\x8b"
AGAIN = "download the file again"


class IdxError(TracegradError, ValueError):
    """A file is not a whole IDX file."""


def read_idx(path: str | Path, *, mmap: bool = False) -> Any:
    """Return the array in an IDX file, plain or gzipped, in this machine's byte order.

    With `mmap` a plain file is mapped into memory, read-only and in the file's byte order, and read where it is used;
    `batches` converts its rows. Raises IdxError, with the offset and the sizes, when the file is damaged or of another
    format, and OSError when it cannot be read.

    >>> read_idx("train-images-idx3-ubyte.gz").shape  # doctest: +SKIP
    (60000, 28, 28)
    """
    path = Path(path)
    if not mmap:
        data = unpacked(path)
        shape, dtype, head = header(path, data, len(data))
        return np.frombuffer(data, dtype, offset=head).reshape(shape).astype(dtype.newbyteorder("="))
    with path.open("rb") as file:
        start = file.read(4 + 4 * 255)
    if start.startswith(GZIP):
        raise IdxError(f"read_idx: {path.name} is gzipped, and cannot be mapped", fix="gunzip it, or use mmap=False")
    shape, dtype, head = header(path, start, path.stat().st_size)
    if math.prod(shape) == 0:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", head, shape)


def header(path: Path, data: bytes, size: int) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape, dtype and the place of the first element; `data` is the beginning of `size` bytes."""
    if len(data) < 4 or data[:2] != b"\0\0":
        raise IdxError(f"read_idx: {path.name} does not start with an IDX header: {data[:4]!r}", fix="check the file")
    code, ndim = data[2], data[3]
    if code not in TYPES:
        raise IdxError(
            f"read_idx: {path.name} has element type 0x{code:02x}, which IDX does not define", fix="check the file"
        )
    head = 4 + 4 * ndim
    if size < head:
        raise IdxError(f"read_idx: {path.name} ends at byte {size}, inside its header of {head} bytes", fix=AGAIN)
    if ndim > 64:
        raise IdxError(f"read_idx: {path.name} has {ndim} axes, and NumPy at most 64", fix=AGAIN)
    shape = struct.unpack(f">{ndim}I", data[4:head])
    dtype = np.dtype(TYPES[code])
    expected = head + math.prod(shape) * dtype.itemsize
    if size != expected:
        raise IdxError(
            f"read_idx: {path.name} has {size} bytes, but its header {shape} {dtype} asks for {expected}", fix=AGAIN
        )
    return shape, dtype, head


def unpacked(path: Path) -> bytes:
    """Return the bytes of a file, decompressed when it is gzipped."""
    data = path.read_bytes()
    if not data.startswith(GZIP):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise IdxError(f"read_idx: {path.name} is not a whole gzip file: {error}", fix=AGAIN) from None
