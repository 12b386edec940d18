"""Where the observations of a long run go: into memory, or into files that grow row by row."""

import contextlib
import os
import re
import zlib
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from .checkpoint_file import BLOCK, CheckpointError, sync_folder


class Draws(eqx.Module):
    """A sink that writes every observation to disk, and hands them back as memory-mapped arrays.

    The folder gets one NumPy file per array of the observation, of shape (observations, members, ...), which
    `np.load(file, mmap_mode="r")` reads at any time, also while the run goes on. A run that is resumed from a
    checkpoint cuts the files back to what the checkpoint has seen, after a check that this is still there.

    Args:
        folder: where to write; made if missing. Files of an earlier run in it are written over.

    Example:
        >>> import jax.numpy as jnp, solvers as sv, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = sv.run(lambda x, n: x + 1.0, jnp.zeros(()), steps=4, sinks={"x": Draws(folder)})
        ...     print(run.sinks["x"].tolist())
        [1.0, 2.0, 3.0, 4.0]
    """

    folder: Path = eqx.field(static=True, converter=Path)


class InMemory:
    """Rows in memory; room for all of them is reserved, and taken as they come."""

    def __init__(self, value: Any, rows: int):
        self.arrays = jax.tree.map(lambda x: np.empty((rows, *x.shape), x.dtype), value)
        self.rows = 0

    def append(self, chunk: Any, count: int) -> None:
        """Add the first `count` rows of a chunk."""

        def put(array: np.ndarray, rows: Any) -> None:
            array[self.rows : self.rows + count] = np.asarray(rows)[:count]

        jax.tree.map(put, self.arrays, chunk)
        self.rows += count

    def result(self) -> Any:
        """The rows so far."""
        return jax.tree.map(lambda x: x[: self.rows], self.arrays)


class OnDisk:
    """Rows in one .npy file per array."""

    def __init__(self, folder: Path, value: Any):
        leaves, self.tree = jax.tree_util.tree_flatten_with_path(value)
        folder.mkdir(parents=True, exist_ok=True)
        names = [re.sub(r"\W+", "_", jax.tree_util.keystr(path)).strip("_") or "draws" for path, _ in leaves]
        # Names that differ only in signs would meet in one file.
        names = [name if names.count(name) == 1 else f"{name}_{i}" for i, name in enumerate(names)]
        self.files = [_Rows(folder / f"{n}.npy", x.shape, x.dtype) for n, (_, x) in zip(names, leaves, strict=True)]
        self.folder = folder

    def append(self, chunk: Any, count: int) -> None:
        """Add the first `count` rows of a chunk."""
        for file, rows in zip(self.files, jax.tree.leaves(chunk), strict=True):
            file.append(np.asarray(rows)[:count])

    def sync(self) -> list:
        """Make all rows durable; returns what `restore` needs."""
        kept = [file.sync() for file in self.files]
        sync_folder(self.folder)
        return kept

    def restore(self, kept: list) -> None:
        """Cut the files back to the rows of a checkpoint, or raise CheckpointError if they are no longer there."""
        if len(kept) != len(self.files):
            raise CheckpointError(f"The checkpoint knows {len(kept)} files of draws, this run has {len(self.files)}.")
        for file, seen in zip(self.files, kept, strict=True):
            file.restore(*seen)

    def clear(self) -> None:
        """Begin with no rows, whatever an earlier run left."""
        for file in self.files:
            file.clear()

    def result(self) -> Any:
        """The rows so far, memory-mapped and read-only."""
        return self.tree.unflatten([file.result() for file in self.files])

    def close(self) -> None:
        for file in self.files:
            file.close()


class _Rows:
    """One .npy file that grows. Its header has a fixed length, so that the number of rows in it can be replaced."""

    HEADER = 256

    def __init__(self, path: Path, shape: tuple, dtype: Any):
        self.path, self.shape, self.dtype = path, tuple(shape), np.dtype(dtype)
        if self.dtype.kind not in "biufc":
            raise TypeError(f"Draws of dtype {self.dtype} have no NumPy file format: observe them as float32.")
        self.row = self.dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        self.rows, self.checksum, self.file = 0, 0, None

    def clear(self) -> None:
        self.close()
        self.file = open(self.path, "w+b")
        self.file.write(self.header())
        self.rows, self.checksum = 0, 0

    def header(self) -> bytes:
        text = {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False}
        line = repr({**text, "shape": (self.rows, *self.shape)})
        room = self.HEADER - 10
        if len(line) >= room:
            raise ValueError(f"Draws of shape {self.shape} have too many axes for a file.")
        return b"\x93NUMPY\x01\x00" + room.to_bytes(2, "little") + line.ljust(room - 1).encode() + b"\n"

    def append(self, rows: np.ndarray) -> None:
        assert self.file is not None
        content = np.ascontiguousarray(rows, self.dtype).reshape(-1).view(np.uint8).data
        self.file.seek(0, os.SEEK_END)
        self.file.write(content)
        self.checksum = zlib.crc32(content, self.checksum)
        self.rows += len(rows)

    def sync(self) -> list[int]:
        assert self.file is not None
        self.file.seek(0)
        self.file.write(self.header())
        self.file.flush()
        os.fsync(self.file.fileno())
        return [self.rows, self.checksum]

    def restore(self, rows: int, checksum: int) -> None:
        self.close()
        size = self.HEADER + rows * self.row
        try:
            self.file = open(self.path, "r+b")
            found, left = 0, rows * self.row
            self.file.seek(self.HEADER)
            while left and (block := self.file.read(min(BLOCK, left))):
                found, left = zlib.crc32(block, found), left - len(block)
            if left or found != checksum:
                raise CheckpointError(
                    f"The draws in {self.path} are not those that the checkpoint knows: "
                    + (f"{-(-left // self.row)} of {rows} rows are missing." if left else "their checksum is wrong.")
                )
            self.file.truncate(size)
        except OSError as problem:
            raise CheckpointError(f"The draws in {self.path} cannot be read: {problem}.") from problem
        self.rows, self.checksum = rows, checksum
        self.file.seek(0)
        self.file.write(self.header())

    def result(self) -> np.ndarray:
        self.sync()
        if not self.rows or not self.row:
            return np.zeros((self.rows, *self.shape), self.dtype)
        return np.load(self.path, mmap_mode="r")

    def close(self) -> None:
        if self.file is not None:
            with contextlib.suppress(OSError):
                self.file.close()
            self.file = None
