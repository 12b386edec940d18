"""Checkpoints of runs: which file to go on from, whether it belongs to this run, and how its arrays come back."""

import os
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import checkpoint_file
from .checkpoint_file import CheckpointError, ForeignFileError

ROWS = 1 << 20  # numbers of inputs looked at in one go


def check_place(path: Path) -> None:
    """Tell at the start, not after hours, that there is no place to write to."""
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise CheckpointError(f"The folder {path.parent} of the checkpoint does not exist or cannot be written to.")


def newest(path: Path) -> tuple[Path, dict, dict] | None:
    """The newest whole checkpoint; None where there is none at all."""
    older = checkpoint_file.previous(path)
    if not path.exists() and not older.exists():
        return None
    try:
        return (path, *checkpoint_file.read(path))
    except ForeignFileError:
        # Perhaps something precious with an unlucky name: neither read nor written over.
        raise
    except CheckpointError as problem:
        try:
            found = checkpoint_file.read(older)
        except CheckpointError:
            raise CheckpointError(
                f"{problem} There is no whole checkpoint before it either: delete {_standing(path)} to start again."
            ) from problem
        if path.exists():
            warnings.warn(f"{problem} Going on from the one before it, {older.name}.", UserWarning, stacklevel=6)
        return (older, *found)


def check_identity(path: Path, mine: dict, meta: dict) -> None:
    """CheckpointError unless the descriptions agree."""
    theirs = {key: meta.get(key) for key in mine}
    told = [f"{key}: {theirs[key]} there, {mine[key]} here" for key in mine if theirs[key] != mine[key]]
    if told:
        raise CheckpointError(f"{_foreign(path)} {'; '.join(told)}. {_what_to_do(path)}")


def check_probes(path: Path, probes: dict[str, np.ndarray], arrays: dict[str, np.ndarray], why: dict[str, str]) -> None:
    """CheckpointError unless the fingerprints of this run agree with those of a file.

    Names begin with a group, as in "state/0"; `why` says for each group what it means if one differs.
    """
    for group, meaning in why.items():
        mine = {name: x for name, x in probes.items() if name.startswith(group + "/")}
        theirs = {name: x for name, x in arrays.items() if name.startswith(group + "/")}
        if mine.keys() != theirs.keys() or not all(_agree(x, theirs[name]) for name, x in mine.items()):
            raise CheckpointError(f"{_foreign(path)} {meaning} {_what_to_do(path)}")


def probe(group: str, tree: Any) -> dict[str, np.ndarray]:
    """A few numbers per leaf that tell states apart and forgive round-off, by name."""
    return {f"{group}/{i}": _fingerprint(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}


class Consumed:
    """Fingerprints of the rows that the steps so far have read; rows to come may be others."""

    def __init__(self, stacked: Any):
        self.leaves, self.count = jax.tree.leaves(stacked), 0
        self.sums = [np.zeros(2) for _ in self.leaves]

    def upto(self, count: int) -> dict[str, np.ndarray]:
        """The fingerprints of the first `count` rows; `count` never falls."""
        for leaf, sums in zip(self.leaves, self.sums, strict=True):
            width = max(int(np.prod(leaf.shape[1:])), 1)
            for first in range(self.count, count, max(ROWS // width, 1)):
                rows = np.asarray(leaf[first : min(first + max(ROWS // width, 1), count)])
                sums += _sums(rows, first * width)
        self.count = count
        return {
            f"inputs/{i}": _rounded(s, x.dtype) for i, (s, x) in enumerate(zip(self.sums, self.leaves, strict=True))
        }


def named(tree: Any) -> dict[str, np.ndarray]:
    """Leaves by path, on the host; keys as the numbers behind them."""
    return {
        jax.tree_util.keystr(path): np.asarray(_numbers(x)) for path, x in jax.tree_util.tree_leaves_with_path(tree)
    }


def filled(path: Path, tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The tree with the values of a checkpoint, where its own are."""

    def fill(place: Any, x: Any) -> Any:
        numbers = _numbers(x)
        found = arrays.get(jax.tree_util.keystr(place))
        if found is None or found.shape != numbers.shape or found.dtype != numbers.dtype:
            what = "nothing" if found is None else f"{found.dtype}{list(found.shape)}"
            raise CheckpointError(
                f"{_foreign(path)} {jax.tree_util.keystr(place)} is {what} there, "
                f"{numbers.dtype}{list(numbers.shape)} here. {_what_to_do(path)}"
            )
        # What the user put nowhere must stay free to move to where the rest is.
        found = jax.device_put(found, numbers.sharding) if numbers.committed else jnp.asarray(found)
        return jax.random.wrap_key_data(found, impl=jax.random.key_impl(x)) if _is_key(x) else found

    return jax.tree_util.tree_map_with_path(fill, tree)


def _foreign(path: Path) -> str:
    return f"The checkpoint {path} belongs to another run."


def _what_to_do(path: Path) -> str:
    newest = path.with_name(path.name.removesuffix(checkpoint_file.PREVIOUS))
    return f"Give what that run was given, or name another file; or delete {_standing(newest)} to start again."


def _standing(path: Path) -> str:
    """The files of a checkpoint that are there, by name."""
    return " and ".join(file.name for file in (path, checkpoint_file.previous(path)) if file.exists())


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _numbers(x: Any) -> Any:
    return jax.random.key_data(x) if _is_key(x) else x


def _fingerprint(leaf: Any) -> np.ndarray:
    x = np.asarray(_numbers(leaf))
    return _rounded(_sums(x, 0), x.dtype)


def _sums(values: np.ndarray, first: int) -> np.ndarray:
    """Sum of sizes, and a sum with weights that tell places and signs apart; `first` is the place of the first one."""
    x = values.ravel()
    if x.dtype.kind == "c":
        x, first = x.astype(complex).view(float), 2 * first
    x = x.astype(float)
    size = np.abs(x).sum()
    # Offset by the sum of sizes, so that a sum that cancels is compared at the scale of what it sums.
    return np.array([size, x @ np.cos(np.arange(first, first + x.size)) + 2 * size])


def _rounded(sums: np.ndarray, dtype: Any) -> np.ndarray:
    """The sums in single precision if what was summed has no more."""
    single = jnp.issubdtype(dtype, jnp.inexact) and jnp.finfo(dtype).bits < 64
    return sums.astype(np.float32) if single else sums


def _agree(mine: np.ndarray, theirs: np.ndarray) -> bool:
    # Round-off of another machine is not another run.
    rtol = 1e-5 if mine.dtype == np.float32 else 1e-9
    return theirs.shape == mine.shape and np.allclose(theirs, mine, rtol, 0, equal_nan=True)
