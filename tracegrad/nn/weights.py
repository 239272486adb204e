"""Weights in safetensors files, which PyTorch and others read and write: a header in JSON, then plain bytes.

    nn.save_file(model, "model.safetensors")
    model = model.load_state_dict(nn.load_file("model.safetensors"))

A file appears whole or not at all: it is written beside its place, brought to the disk, and renamed. What stood there
before stays until then, whatever happens. Reading runs no code.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tracegrad.bfloat16 import is_bfloat16
from tracegrad.errors import DTypeError, TracegradError
from tracegrad.nn.loading import as_array
from tracegrad.nn.module import Module

DTYPES = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32, "I16": np.int16,
    "I8": np.int8, "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8, "BOOL": np.bool_,
}  # fmt: skip


class WeightsError(TracegradError, ValueError):
    """A file of weights is damaged or cannot be written."""


def library() -> Any:
    """Return the package safetensors, which is optional."""
    try:
        import safetensors.numpy
    except ImportError:
        raise TracegradError(
            "nn.save_file and nn.load_file: safetensors is not installed", fix='pip install "tracegrad[weights]"'
        ) from None
    return safetensors


def save_file(tensors: Any, path: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> None:
    """Write a module's state dict, or a dict of arrays by name, into a safetensors file, atomically.

    Raises WeightsError when the disk is full or the place cannot be written to; the file that was there is unchanged
    then. Raises DTypeError for arrays that the format has no dtype for.

    >>> from tracegrad import nn
    >>> nn.save_file(nn.Linear(2, 3), "layer.safetensors")  # doctest: +SKIP
    """
    arrays = {
        name: native(value)
        for name, value in (tensors.state_dict() if isinstance(tensors, Module) else tensors).items()
    }
    for name, array in arrays.items():
        if array.dtype.type not in DTYPES.values() and not is_bfloat16(array.dtype):
            raise DTypeError(
                f"nn.save_file: {name} is {array.dtype}, which safetensors cannot hold",
                fix="convert it to one of " + ", ".join(np.dtype(t).name for t in DTYPES.values()),
            )
    content = library().numpy.save(arrays, dict(metadata) if metadata else None)
    try:
        replace_file(Path(os.path.realpath(path)), content)
    except OSError as error:
        raise WeightsError(
            f"nn.save_file: {os.fspath(path)} could not be written ({error.strerror}); what was there is unchanged",
            fix="free space, or save to another place",
        ) from error


def native(value: Any) -> Any:
    """Return a contiguous array in this machine's byte order."""
    array = as_array(value)
    return np.asarray(array, array.dtype.newbyteorder("="), order="C")


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` in the place of a file: all of it, or nothing."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def load_file(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the arrays of a safetensors file by name; bfloat16 becomes float32, which holds the same
    numbers: `tnp.astype(x, "bfloat16")` loses nothing.

    Raises WeightsError when the file is damaged or is none, and OSError when it cannot be read.

    >>> from tracegrad import nn
    >>> state = nn.load_file("layer.safetensors")  # doctest: +SKIP
    """
    package = library()
    name = os.fspath(path)
    content = Path(path).read_bytes()
    try:
        found = package.deserialize(content)
    except package.SafetensorError as error:
        raise WeightsError(
            f"nn.load_file: {name} of {len(content)} bytes is not a whole safetensors file ({error})",
            fix="copy or save it again",
        ) from None
    return {key: array_of(name, key, entry) for key, entry in sorted(found)}


def array_of(path: str, key: str, entry: Mapping[str, Any]) -> Any:
    """Return one tensor as a writable array in this machine's byte order."""
    code, shape, data = entry["dtype"], entry["shape"], entry["data"]
    if code == "BF16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if code not in DTYPES:
        raise DTypeError(
            f"nn.load_file: {key} in {path} has the dtype {code}, which NumPy does not have",
            fix="convert it to F32 before saving",
        )
    stored = np.dtype(DTYPES[code])
    return np.frombuffer(data, stored.newbyteorder("<")).reshape(shape).astype(stored)
