"""Checks of what a user gives, before tracing: every message says what was given, what is allowed, what to do."""

import operator
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array


def is_known(x: Any) -> bool:
    """True where the values can be looked at: not under `jit`, `grad` or `vmap`."""
    return not isinstance(x, Tracer)


def as_field(value: Any, name: str, shape: tuple[int, ...] | None = None, dtype: Any = None) -> Array:
    """A floating array of the given shape (a number is spread over it), with finite values where they are known.

    Raises:
        ValueError: for a wrong shape, integers in an array, complex numbers where the dtype is real, values that are
            not finite.
    """
    if dtype is not None and jnp.issubdtype(dtype, jnp.floating):
        check_real(value, name)
    if is_known(value):
        array = np.asarray(value)
        if array.dtype.kind not in "fc" and not (array.ndim == 0 and array.dtype.kind in "iu"):
            raise ValueError(
                f"`{name}` must hold floating numbers, got dtype {array.dtype}; convert it with .astype(float)."
            )
        check_finite(array, name)
        warn_of_truncation(value, name)
    elif not jnp.issubdtype(value.dtype, jnp.inexact):
        raise ValueError(f"`{name}` must hold floating numbers, got dtype {value.dtype}.")
    given = jnp.shape(value)
    if shape is not None and given not in ((), shape):
        raise ValueError(f"`{name}` must be a number or have the shape {shape}, got shape {given}.")
    array = jnp.asarray(value, dtype)
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        array = array.astype(jnp.result_type(float))
    return array if shape is None else jnp.broadcast_to(array, shape)


def check_finite(array: np.ndarray, name: str) -> None:
    """ValueError that names the array, how many values are not finite, and the first."""
    _refuse(array, ~np.isfinite(array), f"`{name}` must be finite")


def check_real(value: Any, name: str) -> None:
    """ValueError for complex values, whose imaginary part would be dropped."""
    if np.iscomplexobj(value) if is_known(value) else jnp.iscomplexobj(value):
        raise ValueError(f"`{name}` must be real, got complex values; take their real part.")


def check_positive(value: Any, name: str) -> None:
    """ValueError unless all values, where known, are positive."""
    if is_known(value):
        array = np.asarray(value)
        _refuse(array, ~(array > 0), f"`{name}` must be positive")


def _refuse(array: np.ndarray, bad: Any, demand: str) -> None:
    found = np.argwhere(bad)
    if len(found):
        where = tuple(int(i) for i in found[0])
        raise ValueError(
            f"{demand} everywhere; {len(found)} of {array.size} values are not, the first is {array[where]} at index "
            f"{where}."
        )


def warn_of_truncation(value: Any, name: str) -> None:
    """Say that JAX is about to turn float64 input into float32."""
    single = jax.dtypes.canonicalize_dtype(np.float64) == np.float32
    if single and isinstance(value, np.ndarray) and value.dtype == np.float64 and value.ndim:
        warnings.warn(
            f"`{name}` is float64 and JAX will keep it as float32. Convert it yourself, or switch on double precision "
            'with jax.config.update("jax_enable_x64", True).',
            UserWarning,
            stacklevel=4,
        )


def check_same_struct(before: Any, after: Any) -> None:
    """TypeError unless a step returns the structure, shapes and dtypes that it got."""
    if jax.tree.structure(after) != jax.tree.structure(before):
        raise TypeError(
            "The step must return a state of the structure that it got: "
            f"got {jax.tree.structure(before)}, returned {jax.tree.structure(after)}."
        )
    for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True):
        if old.shape != new.shape or old.dtype != new.dtype:
            raise TypeError(
                f"The step changes the state{jax.tree_util.keystr(path)} from {old.dtype}{list(old.shape)} to "
                f"{new.dtype}{list(new.shape)}; shape and dtype must stay (is an input or a constant of higher "
                "precision?)."
            )


def whole(value: Any, name: str, least: int = 1) -> int:
    """A checked whole number, of any type that says it is one: int, NumPy's integers."""
    if not is_whole(value):
        raise ValueError(f"`{name}` must be a whole number, got {value!r}.")
    if value < least:
        raise ValueError(f"`{name}` must be at least {least}, got {value}.")
    return operator.index(value)


def is_whole(value: Any) -> bool:
    """True for integers of Python, NumPy and others, and for concrete scalar arrays of them; a bool is none."""
    if isinstance(value, bool | np.bool_ | Tracer):
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return True
