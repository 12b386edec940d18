"""A periodic flow made ready for one time step."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

from ..core.adjoint import remat
from .etdrk import ETDRK2, ETDRK4
from .low_storage import LowStorageRK3
from .periodic_forms import FlowState

# Per stepper: the scheme, and the largest dt |lambda| on the imaginary axis, where advection lies. ETDRK2 has no such
# limit above zero; at 0.5 the shortest waves grow by less than a percent per step, which viscosity must outdo.
STEPPERS = {"rk3": (LowStorageRK3, math.sqrt(3)), "etdrk2": (ETDRK2, 0.5), "etdrk4": (ETDRK4, 2 * math.sqrt(2))}


class FlowStepper(eqx.Module):
    """A periodic flow made ready for one time step."""

    scheme: Any
    force: FlowState | None
    feedback: tuple
    form: Any
    carries: bool = eqx.field(static=True)
    # A step is long: nothing is gained by two of them per turn of the loop.
    unroll: int = eqx.field(static=True, default=1)

    def step(self, state: FlowState, inputs: Any) -> FlowState:
        """Advance the state by one step; reverse mode keeps the state and the rates of its stages."""
        return remat(lambda s, i: self._advance(s, i), "rate")(state, inputs)

    def nonlinear(self, state: FlowState, keep: bool = True) -> FlowState:
        """Advection, to be kept for the reverse sweep or not, and what functions of the velocity give."""
        rate = self.form.advection(state)
        rate = jax.tree.map(_kept, rate) if keep else rate
        if not self.feedback:
            return rate
        velocity = self.form.modes.to_field(self.form.velocity(state))
        for function in self.feedback:
            force = jnp.asarray(function(velocity), velocity.dtype)
            if force.shape != velocity.shape:
                raise ValueError(
                    f"A forcing given as a function must return the force on the nodes, shape {velocity.shape}, "
                    f"it returned {force.shape}."
                )
            rate = jax.tree.map(jnp.add, rate, rate_of_force(self.form, force, self.carries))
        return rate

    def force_of(self, inputs: Any) -> FlowState | None:
        """The body force during one step, as a rate of the state."""
        if inputs is None:
            return self.force
        if jnp.ndim(inputs) == 0:
            if self.force is None:
                raise ValueError("A number as `inputs` multiplies the body force, and this flow has none.")
            return jax.tree.map(lambda f: inputs * f, self.force)
        more = rate_of_force(self.form, inputs, self.carries)
        return more if self.force is None else jax.tree.map(jnp.add, self.force, more)

    def _advance(self, state: FlowState, inputs: Any) -> FlowState:
        force = self.force_of(inputs)
        if isinstance(self.scheme, LowStorageRK3):
            return self.scheme.step(state, lambda s: self.nonlinear(s), force)

        def rate(state: FlowState, keep: bool = True) -> FlowState:
            found = self.nonlinear(state, keep)
            return found if force is None else jax.tree.map(jnp.add, found, force)

        if isinstance(self.scheme, ETDRK4):
            # Four rates and the state would be more than two fields per step; the last one costs a stage to find again.
            return self.scheme.step(state, rate, lambda s: rate(s, False))
        return self.scheme.step(state, rate)


def _kept(rate: Array) -> Array:
    """The rate, to be kept for the reverse sweep; in two parts, for JAX keeps no complex array by name."""
    if not jnp.iscomplexobj(rate):
        return rate
    return jax.lax.complex(checkpoint_name(rate.real, "rate"), checkpoint_name(rate.imag, "rate"))


def rate_of_force(form: Any, field: Array, carries: bool) -> FlowState:
    """What a body force on the nodes does to the state, per time."""
    modes, mean = form.force(form.modes.to_modes(field))
    # Scalars have no source: a zero that broadcasts.
    return FlowState(modes, mean, jnp.zeros((), field.dtype) if carries else None)
