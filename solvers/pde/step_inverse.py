"""What a time step does to the linear part of its equation, undone: a preconditioner for steady states."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..core.fourier import Modes


class StepInverse(eqx.Module):
    r"""An approximation of (1 - dstep/du)^-1 for steps of u_t = L u + N(u) that integrate L exactly.

    With N' = -shift, a constant, such a step multiplies a disturbance by e^(dt (L - shift)) to its order, so that

        1 - dstep/du = 1 - e^(dt (L - shift)),

    one number for each mode. Modes where that vanishes to round-off, such as the mean of a quantity that is conserved,
    stay as they are: the equation leaves them undetermined and no inverse exists.

    Made by the method `preconditioner` of an equation; a function (v, x, *args) as `steady_state` takes it, of v alone.

    Attributes:
        factors: the inverse of each mode, a pytree like the modes.
        space: the way from the nodes to the modes; None where the state is made of modes.
    """

    factors: Any
    space: Modes | None

    def __init__(self, linear: Any, dt: Any, shift: Any, space: Modes | None = None):
        self.factors = jax.tree.map(lambda factor: _inverse(factor, dt, shift), linear)
        self.space = space

    def __call__(self, v: Any, x: Any = None, *args: Any) -> Any:
        """The approximate inverse times v."""
        if self.space is None:
            return jax.tree.map(lambda factor, v: _like(factor, v) * v, self.factors, v)
        modes = self.space.to_modes(v)
        # What dealiasing drops is no part of the step, where the Jacobian is the identity.
        return v + self.space.to_field((_like(self.factors, modes) - 1) * modes)


def _inverse(linear: Array, dt: Any, shift: Any) -> Array:
    step = -jnp.expm1(dt * (linear - shift))
    lost = jnp.abs(step) <= float(jnp.finfo(step.dtype).eps)
    return jnp.where(lost, 1, 1 / jnp.where(lost, 1, step))


def _like(factor: Array, v: Array) -> Array:
    """In the precision of v."""
    real = jnp.finfo(v.dtype).dtype
    return factor.astype(jnp.result_type(real, jnp.complex64) if jnp.iscomplexobj(factor) else real)
