"""Keep a trained score in a file, and get it back."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..core import checkpoint_file
from ..core.checkpoint_file import CheckpointError
from .noise import Edm, VarianceExploding
from .preserving_noise import SubVariancePreserving, VariancePreserving

KIND = "score"


def save(path: str | Path, score: Any) -> None:
    """Write the arrays of a score to a file: arrays and JSON, no code and no pickle.

    The file is written beside its place and renamed into it, so that it is whole or not there; the one that stood there
    is kept as `.previous`.

    Args:
        path: the file; its folder must exist.
        score: any pytree with arrays, such as `fit.score`.

    Raises:
        ValueError: if the score holds no array.
        CheckpointError: if the file cannot be written.

    Example:
        >>> import jax, jax.numpy as jnp, solvers as sv, tempfile, pathlib
        >>> network = sv.ScoreMlp(2, jax.random.key(0), width=8, depth=1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(pathlib.Path(folder) / "score", network)
        ...     again = sv.load(pathlib.Path(folder) / "score", sv.ScoreMlp(2, jax.random.key(1), width=8, depth=1))
        >>> bool(jnp.all(again.inward.weight == network.inward.weight))
        True
    """
    arrays = _named(score)
    if not arrays:
        raise ValueError("The score holds no array, so there is nothing to keep.")
    noise = getattr(getattr(score, "preconditioning", None), "noise", None)
    meta = {"kind": KIND, "class": type(score).__qualname__, "noise": None if noise is None else type(noise).__name__}
    checkpoint_file.write(Path(path), {name: np.asarray(x) for name, x in arrays.items()}, meta)


def load(path: str | Path, like: Any) -> Any:
    """Read a score that `save` wrote.

    Args:
        path: the file.
        like: a score of the same kind and sizes, such as a new network; its values do not matter, so that
            `equinox.filter_eval_shape` of its constructor is enough. The noise and the moments of the data that a
            network was trained for come from the file.

    Returns:
        `like` with the arrays of the file.

    Raises:
        CheckpointError: if there is no such file, if it is damaged, or if it holds something else.

    Example:
        >>> load("no such file", lambda x, sigma: -x)
        Traceback (most recent call last):
        solvers.core.checkpoint_file.CheckpointError: The checkpoint no such file cannot be read: ...
    """
    arrays, meta = checkpoint_file.read(Path(path))
    if meta.get("kind") != KIND:
        raise CheckpointError(f"{path} holds no score; it is a checkpoint of a run.")
    if meta.get("class") != type(like).__qualname__:
        raise CheckpointError(f"{path} holds a {meta.get('class')}, and `like` is a {type(like).__qualname__}.")
    if meta.get("noise") is not None and hasattr(like, "bound"):
        zero = jnp.zeros(())
        like = like.bound(_noise(path, meta["noise"]), zero, zero)
    mine = _named(like)
    if arrays.keys() != mine.keys():
        other = sorted(arrays.keys() ^ mine.keys())
        raise CheckpointError(f"{path} holds a score of another structure: {', '.join(other[:3])} on one side only.")
    # The precision of a network may depend on where it was trained; its shapes may not.
    wrong = [name for name, x in mine.items() if arrays[name].shape != x.shape]
    if wrong:
        name = wrong[0]
        raise CheckpointError(
            f"{path} holds a score of other sizes: {name} is {list(arrays[name].shape)} there and "
            f"{list(mine[name].shape)} in `like`."
        )
    return jax.tree_util.tree_map_with_path(
        lambda place, x: jnp.asarray(arrays[jax.tree_util.keystr(place)]) if _is_array(x) else x, like
    )


def _is_array(x: Any) -> bool:
    return eqx.is_array(x) or isinstance(x, jax.ShapeDtypeStruct)


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, _is_array))
    return {jax.tree_util.keystr(path): x for path, x in leaves}


def _noise(path: Any, name: str) -> Any:
    """A noise of the given name; its numbers come from the file."""
    for kind in (Edm, VarianceExploding, VariancePreserving, SubVariancePreserving):
        if kind.__name__ == name:
            return kind()
    raise CheckpointError(f"{path} holds a score for the noise {name}, which is not one of this library.")
