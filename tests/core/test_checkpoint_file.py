"""A checkpoint is whole or refused with one kind of error, and an old one survives what happens to a new one."""

import hashlib
import json
import os
import struct

import jax.numpy as jnp
import numpy as np
import pytest

from solvers.core import checkpoint_file
from solvers.core.checkpoint_file import PREFIX, CheckpointError, ForeignFileError, previous, read, write

ARRAYS = {
    "x": np.arange(12.0).reshape(3, 4),
    "n": np.array(7, np.int32),
    "none": np.zeros((0, 3), np.float32),
    "flags": np.array([True, False]),
    "short": np.asarray(jnp.array([1.5, -2.0], jnp.bfloat16)),
    "complex": np.array([1 + 2j]),
    "turned": np.arange(6.0).reshape(2, 3).T,
}
META = {"step": 7, "kernel": "Mala", "nested": {"a": [1, 2.5, None]}}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "run.ckpt"
    write(path, ARRAYS, META)
    return path


def same(found, expected=ARRAYS):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


def test_what_is_written_is_read(path):
    arrays, meta = read(path)
    same(arrays)
    assert meta == META
    arrays["x"][0] = 1.0  # restored arrays may be written to


def test_the_previous_checkpoint_is_kept(path):
    first = path.read_bytes()
    write(path, {"x": np.zeros(2)}, {"step": 8})
    assert previous(path).read_bytes() == first
    assert read(path)[1] == {"step": 8}
    assert sorted(p.name for p in path.parent.iterdir()) == ["run.ckpt", "run.ckpt.previous"]


def test_a_half_written_file_is_never_taken_for_a_checkpoint(path):
    path.with_name("run.ckpt.new").write_bytes(path.read_bytes()[:50])
    assert read(path)[1] == META
    write(path, ARRAYS, META)
    assert not path.with_name("run.ckpt.new").exists()


def test_a_full_disk_leaves_the_old_checkpoint(path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"No space left.*untouched"):
        write(path, {"x": np.ones(3)}, {})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["run.ckpt"]


def test_every_cut_is_refused(path):
    whole = path.read_bytes()
    for size in [*range(0, 120), *range(120, len(whole), 37)]:
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            read(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(CheckpointError, match="announced"):
        read(path)


def test_every_flipped_bit_is_refused(path):
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    places = [*range(8 * PREFIX.size), *rng.integers(8 * PREFIX.size, 8 * len(whole), 400)]
    for place in places:
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read(path)


def test_random_garbage_after_the_right_magic_is_refused(path):
    rng = np.random.default_rng(1)
    for size in rng.integers(0, 400, 300):
        path.write_bytes(checkpoint_file.MAGIC + rng.bytes(size))
        with pytest.raises(CheckpointError):
            read(path)


def forged(header, payload=b""):
    """A file with a right checksum around any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    counts = struct.pack("<8sIIQ", checkpoint_file.MAGIC, 1, len(text), len(payload))
    return counts + hashlib.sha256(counts + text + payload).digest() + text + payload


@pytest.mark.parametrize(
    "arrays",
    [
        [{"name": "x", "dtype": "float64", "shape": [1 << 42]}],
        [{"name": "x", "dtype": "float64", "shape": [1 << 64]}],
        [{"name": "x", "dtype": "float64", "shape": [-1]}],
        [{"name": "x", "dtype": "float64", "shape": [1.0]}],
        [{"name": "x", "dtype": "float64", "shape": [True]}],
        [{"name": "x", "dtype": "object", "shape": [1]}],
        [{"name": "x", "dtype": ["float64"], "shape": [1]}],
        [{"name": "x", "shape": [1]}],
        ["x"],
        3,
        None,
    ],
)
def test_sizes_are_checked_before_anything_is_allocated(path, arrays):
    path.write_bytes(forged({"library": "0", "meta": {}, "arrays": arrays}, bytes(8)))
    with pytest.raises(CheckpointError, match=r"header makes no sense|arrays take"):
        read(path)


@pytest.mark.parametrize("header", [b"", b"{", b"[]", b"\xff\xfe", b"3", b"[" * 100_000, b'{"arrays": []}'])
def test_a_header_that_is_no_header_is_refused(path, header):
    path.write_bytes(forged(header))
    with pytest.raises(CheckpointError, match=r"header makes no sense"):
        read(path)


def test_a_header_that_announces_more_than_the_file_holds(path):
    path.write_bytes(struct.pack("<8sIIQ32s", checkpoint_file.MAGIC, 1, 1 << 31, 1 << 63, bytes(32)))
    with pytest.raises(CheckpointError, match="announced"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04\x95", b"My thesis", b"\x93NUMPY\x01\x00"])
def test_other_files_are_left_alone(path, content):
    path.write_bytes(content)
    with pytest.raises(ForeignFileError, match="no checkpoint of this library"):
        read(path)
    assert path.read_bytes() == content


def test_folders_pipes_and_missing_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in (".", "pipe"):
        with pytest.raises(ForeignFileError, match="no file"):
            read(tmp_path / name)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read(tmp_path / "missing")


def test_a_newer_format_says_so(path):
    content = bytearray(path.read_bytes())
    content[8] = 2
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="update"):
        read(path)


def test_what_is_no_number_is_not_written(path):
    with pytest.raises(CheckpointError, match="dtype object"):
        write(path, {"x": np.array([{}], dtype=object)}, {})
    assert read(path)[1] == META
