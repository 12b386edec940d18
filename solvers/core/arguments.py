"""What `simulate`, `plan` and `run` check and convert at the door."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .captured import fingerprint_of_run
from .checks import is_known, warn_of_truncation, whole
from .equation import hashable


class Arguments(NamedTuple):
    """A run, checked: what `simulate` and `plan` have in common.

    Attributes:
        seen: fingerprint of what the equation holds and its methods see, a part of its identity for every cache.
    """

    equation: Any
    state: Any
    inputs: Any
    dt: Array
    steps: int
    every: int
    seen: Any


def checked(equation: Any, state: Any, *, steps: Any, dt: Any, inputs: Any, every: Any) -> Arguments:
    """The arguments of a run in the dtype of its state; ValueError or TypeError for what cannot run."""
    steps, every = whole(steps, "steps"), whole(every, "every")
    for path, x in jax.tree_util.tree_leaves_with_path(state):
        warn_of_truncation(x, f"state{jax.tree_util.keystr(path)}")
    state = jax.tree.map(jnp.asarray, state)
    dtype = working_dtype(state)
    dt = time_step(dt, dtype)
    inputs = stacked_inputs(inputs, steps, dtype)
    if hasattr(equation, "check"):
        equation.check(state, steps=steps, dt=dt, inputs=inputs)
    if not hasattr(equation, "step") and not hasattr(equation, "stepper"):
        raise TypeError(f"`equation` needs a method step(state, inputs, dt); {type(equation).__name__} has none.")
    return Arguments(hashable(equation), state, inputs, dt, steps, every, fingerprint_of_run(equation))


def working_dtype(state: Any) -> Any:
    """The real floating dtype of the state, which inputs and `dt` take on."""
    leaves = jax.tree.leaves(state)
    if not leaves:
        raise ValueError("`state` holds no array.")
    floats = [x.dtype for x in leaves if jnp.issubdtype(x.dtype, jnp.inexact)]
    if not floats:
        raise ValueError(f"`state` holds no floating array (dtypes {sorted({str(x.dtype) for x in leaves})}).")
    return jnp.finfo(jnp.result_type(*floats)).dtype


def time_step(dt: Any, dtype: Any) -> Array:
    """One real number, finite where it is known, in the dtype of the run."""
    if jnp.ndim(dt) != 0 or jnp.iscomplexobj(dt):
        raise ValueError(f"`dt` must be one real number, got {dt!r}.")
    if is_known(dt) and not np.isfinite(float(dt)):
        raise ValueError(f"`dt` must be finite, got {dt!r}.")
    return jnp.asarray(dt, dtype)


def stacked_inputs(inputs: Any, steps: int, dtype: Any) -> Any:
    """Arrays with one row per step, floating ones in the dtype of the run."""

    def check(path: Any, x: Any) -> Array:
        warn_of_truncation(x, f"inputs{jax.tree_util.keystr(path)}")
        x = jnp.asarray(x)
        if x.ndim == 0 or x.shape[0] != steps:
            raise ValueError(
                f"`inputs{jax.tree_util.keystr(path)}` needs a leading axis of length steps={steps}, "
                f"got shape {x.shape}."
            )
        # Values of higher precision would promote the state.
        return x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x

    return jax.tree_util.tree_map_with_path(check, inputs)
