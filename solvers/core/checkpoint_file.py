"""Checkpoint files: arrays and JSON in one file that is either whole or refused.

Layout, all integers little-endian: 8 bytes of magic, format version (4), length of the header (4), length of the
payload (8), SHA-256 of all that and of header and payload (32), the header (JSON: library version, metadata, name,
dtype and shape of each array), the payload (the arrays, one after the other). Nothing in a file is ever executed.

A file is written beside its place, synced, and renamed into it; the one that stood there is kept as `.previous` unless
it is damaged. At every moment at least one of the two is whole, whenever the process or the machine dies.
"""

import contextlib
import hashlib
import json
import math
import os
import stat
import struct
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import jax.numpy as jnp
import numpy as np

MAGIC = b"\x93SLVCKP\n"
VERSION = 1
PREFIX = struct.Struct("<8sIIQ32s")
LARGEST_HEADER = 1 << 26  # bytes
BLOCK = 1 << 20  # bytes hashed at a time
PREVIOUS = ".previous"  # ends the name of the last checkpoint but one
KINDS = {
    name: jnp.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
        *("float16", "bfloat16", "float32", "float64", "complex64", "complex128"),
    )
}


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, read, or used for this run; the message says why and what to do."""


class ForeignFileError(CheckpointError):
    """A file that is no checkpoint of this library, or one of a later version, and is therefore left alone."""


def previous(path: Path) -> Path:
    """Where the last checkpoint but one is kept."""
    return path.with_name(path.name + PREVIOUS)


def write(path: Path, arrays: dict[str, np.ndarray], meta: dict[str, Any], keep: bool = True) -> None:
    """Write a checkpoint so that the old one survives whatever happens.

    Args:
        path: the file; its folder must exist.
        arrays: host arrays by name.
        meta: what else to keep, anything that JSON can hold.
        keep: whether the file that stands there becomes the previous one. One that was found damaged must not: it
            would take the place of the only whole one.

    Raises:
        CheckpointError: if the disk is full, or the folder cannot be written to; the old checkpoint is then untouched.
    """
    entries, payload = [], []
    for name, given in arrays.items():
        array = np.ascontiguousarray(given).reshape(np.shape(given))
        if array.dtype.name not in KINDS:
            raise CheckpointError(f"An array of dtype {array.dtype} ({name}) cannot be kept in a checkpoint.")
        entries.append({"name": name, "dtype": array.dtype.name, "shape": list(array.shape)})
        payload.append(array.reshape(-1).view(np.uint8).data)
    text = {"library": _library(), "byteorder": "little", "meta": meta, "arrays": entries}
    header = json.dumps(text).encode()
    counts = struct.pack("<8sIIQ", MAGIC, VERSION, len(header), sum(part.nbytes for part in payload))
    digest = hashlib.sha256(counts + header)
    for part in payload:
        digest.update(part)
    new = path.with_name(path.name + ".new")
    try:
        with open(new, "wb") as file:
            file.write(counts + digest.digest() + header)
            for part in payload:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        if keep and path.exists():
            os.replace(path, previous(path))
        os.replace(new, path)
        sync_folder(path.parent)
    except OSError as problem:
        with contextlib.suppress(OSError):
            new.unlink()
        raise CheckpointError(
            f"The checkpoint {path} could not be written ({problem}). The one written before is untouched: make room "
            "or choose another place, and call again."
        ) from problem


def sync_folder(folder: Path) -> None:
    """Make renames in a folder durable, where the system lets one do so."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and metadata of a checkpoint. Sizes and checksum are verified before any array is allocated.

    Raises:
        CheckpointError: if the file is missing, damaged, or of a newer format.
        ForeignFileError: if it is something else altogether.
    """
    try:
        # A pipe would wait for ever, a device has no size.
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ForeignFileError(f"{path} is no file.")
        with open(path, "rb") as file:
            header, start = _verified_header(path, file)
            return _arrays(path, file, header, start), header["meta"]
    except OSError as problem:
        raise CheckpointError(f"The checkpoint {path} cannot be read: {problem}.") from problem


def _verified_header(path: Path, file: IO[bytes]) -> tuple[dict, int]:
    """The header and where the payload starts."""
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(PREFIX.size)
    if prefix[:8] != MAGIC[: len(prefix)] or not prefix:
        raise ForeignFileError(
            f"{path} is no checkpoint of this library: it begins with other bytes. It is left alone."
        )
    if len(prefix) < PREFIX.size:
        raise _damaged(path, "it is cut short")
    _, version, head, body, digest = PREFIX.unpack(prefix)
    if version > VERSION:
        raise ForeignFileError(f"{path} has format {version}; this library reads formats up to {VERSION}: update it.")
    if head > LARGEST_HEADER or PREFIX.size + head + body != size:
        raise _damaged(path, f"it has {size} bytes where {PREFIX.size + head + body} are announced")
    found = hashlib.sha256(prefix[:-32])
    header = file.read(head)
    found.update(header)
    while block := file.read(BLOCK):
        found.update(block)
    if found.digest() != digest:
        raise _damaged(path, "its checksum is wrong")
    try:
        text = json.loads(header)
        sizes = [_size(entry) for entry in text["arrays"]]
        whole = isinstance(text["meta"], dict) and sum(sizes) == body
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise _damaged(path, f"its header makes no sense ({problem!r})") from problem
    if not whole:
        raise _damaged(path, f"its arrays take {sum(sizes)} bytes where there are {body}")
    return text, PREFIX.size + head


def _size(entry: dict) -> int:
    shape = entry["shape"]
    if not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"shape {shape}")
    return math.prod(shape) * KINDS[entry["dtype"]].itemsize


def _arrays(path: Path, file: IO[bytes], header: dict, start: int) -> dict[str, np.ndarray]:
    file.seek(start)
    arrays = {}
    for entry in header["arrays"]:
        content = file.read(_size(entry))
        if len(content) != _size(entry):
            raise _damaged(path, "it shrank while it was read")
        # A copy, because what is read from bytes cannot be written to.
        arrays[entry["name"]] = np.frombuffer(content, KINDS[entry["dtype"]]).reshape(entry["shape"]).copy()
    return arrays


def _library() -> str:
    try:
        return metadata.version("solvers")
    except metadata.PackageNotFoundError:
        return "not installed"


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"The checkpoint {path} is damaged: {why}.")
