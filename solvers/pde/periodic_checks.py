"""Checks of what a user gives to a periodic flow."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.checks import as_field, check_finite, is_known
from ..core.fourier import Modes
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
    bodies = (steps, grid.ndim, *grid.shape)
    if not hasattr(inputs, "dtype"):
        raise ValueError(
            f"`inputs` must be one array of shape (steps,) = ({steps},), factors of the forcing, or {bodies}, body "
            f"forces; got {type(inputs).__name__}."
        )
    shape = jnp.shape(inputs)
    if shape not in ((steps,), bodies) or not jnp.issubdtype(inputs.dtype, jnp.floating):
        raise ValueError(
            f"`inputs` must be real with shape (steps,) = ({steps},), factors of the forcing, or {bodies}, "
            f"body forces; got {inputs.dtype}{list(shape)}."
        )
    if shape == (steps,) and not steady:
        raise ValueError("`inputs` of shape (steps,) multiply the body force, and this flow has none.")
    if is_known(inputs):
        check_finite(np.asarray(inputs), "inputs")


def checked_dtype(dtype: Any) -> Any:
    """A dtype that can be transformed; JAX's default for None.

    Raises:
        ValueError: if it is neither float32 nor float64.
    """
    dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
    if dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"`dtype` must be float32 or float64, which can be transformed, got {dtype}.")
    return dtype


def checked_peak(peak_wavenumber: Any, modes: Modes) -> float:
    """The wavenumber where a spectrum peaks.

    Raises:
        ValueError: if it is not a positive number that all axes hold.
    """
    largest = min(2 * math.pi * cut / period for cut, period in zip(modes.cut, modes.period, strict=True))
    if jnp.ndim(peak_wavenumber) or jnp.iscomplexobj(peak_wavenumber) or not 0 < peak_wavenumber <= largest:
        raise ValueError(
            f"`peak_wavenumber` must be positive and at most {largest:.4g}, the largest that all axes of this grid "
            f"keep, got {peak_wavenumber}."
        )
    return float(peak_wavenumber)


def real_field(value: Any, name: str, shape: tuple[int, ...]) -> Array:
    """A real field of the given shape."""
    if np.iscomplexobj(value) if is_known(value) else jnp.iscomplexobj(value):
        raise ValueError(f"`{name}` is a real field on the nodes, got complex numbers.")
    if jnp.shape(value) != shape:
        raise ValueError(f"`{name}` must have the shape {shape}, got {jnp.shape(value)}.")
    dtype = getattr(value, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32:
        raise ValueError(f"`{name}` must be float32 or float64, which can be transformed, got {dtype}; use .astype.")
    return as_field(value, name, shape)


def real_numbers(value: Any, name: str) -> Array:
    """One or more real finite numbers as an array on one axis."""
    value = np.asarray(value) if isinstance(value, (tuple, list)) else value
    if jnp.ndim(value) > 1 or jnp.iscomplexobj(value):
        raise ValueError(
            f"`{name}` must be a real number or have shape (scalars,), got {jnp.result_type(value)} of shape "
            f"{jnp.shape(value)}."
        )
    return jnp.atleast_1d(as_field(value, name))


def real_number(value: Any, name: str) -> Array:
    """One real finite number as an array."""
    if jnp.ndim(value) != 0 or jnp.iscomplexobj(value):
        raise ValueError(f"`{name}` must be one real number, got {value!r}.")
    return as_field(value, name, ())
