"""Checks of what a user gives to a periodic flow."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.checks import as_field, check_finite, is_known
from ..core.grid import Grid
from .periodic_forms import FlowState


def check_state(state: Any, ndim: int, modes: tuple[int, ...], diffusivity: Array | None) -> None:
    """ValueError unless the state has the parts, shapes and finite values of a flow with these modes and scalars."""
    if not isinstance(state, FlowState):
        raise ValueError(
            "The state of a flow comes from flow.from_velocity(...), flow.from_vorticity(...), "
            f"flow.random_start(...) or another start, got {type(state).__name__}."
        )
    own = modes if ndim == 2 else (3, *modes)
    if state.modes.shape != own or not jnp.iscomplexobj(state.modes):
        raise ValueError(
            f"The state does not belong to this flow: its modes are {state.modes.dtype}{list(state.modes.shape)}, "
            f"the flow needs complex numbers of shape {own}. A field on the nodes becomes a state by "
            "flow.from_velocity or flow.from_vorticity."
        )
    scalars = None if diffusivity is None else (diffusivity.size, *modes)
    for name, expected in (("mean", (2,) if ndim == 2 else None), ("scalars", scalars)):
        value = getattr(state, name)
        shape = None if value is None else value.shape
        if shape != expected:
            raise ValueError(f"The state does not belong to this flow: `{name}` is {shape}, the flow needs {expected}.")
    for name in ("modes", "mean", "scalars"):
        value = getattr(state, name)
        if value is not None and is_known(value):
            check_finite(np.asarray(value), f"state.{name}")


def check_inputs(inputs: Any, steps: int, grid: Grid, steady: bool) -> None:
    """ValueError unless inputs are None, factors of a body force that is there, or body forces."""
    if inputs is None:
        return
    shape, bodies = jnp.shape(inputs), (steps, grid.ndim, *grid.shape)
    if shape not in ((steps,), bodies) or not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise ValueError(
            f"`inputs` must be real with shape (steps,) = ({steps},), factors of the forcing, or {bodies}, "
            f"body forces; got {inputs.dtype}{list(shape)}."
        )
    if shape == (steps,) and not steady:
        raise ValueError("`inputs` of shape (steps,) multiply the body force, and this flow has none.")
    if is_known(inputs):
        check_finite(np.asarray(inputs), "inputs")


def real_field(value: Any, name: str, shape: tuple[int, ...]) -> Array:
    """A real field of the given shape."""
    if np.iscomplexobj(value) if is_known(value) else jnp.iscomplexobj(value):
        raise ValueError(f"`{name}` is a real field on the nodes, got complex numbers.")
    if jnp.shape(value) != shape:
        raise ValueError(f"`{name}` must have the shape {shape}, got {jnp.shape(value)}.")
    return as_field(value, name, shape)


def real_number(value: Any, name: str) -> Array:
    """One real finite number as an array."""
    if jnp.ndim(value) != 0 or jnp.iscomplexobj(value):
        raise ValueError(f"`{name}` must be one real number, got {value!r}.")
    return as_field(value, name, ())
