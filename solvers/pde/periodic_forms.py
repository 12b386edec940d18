"""The equations of motion in Fourier space: vorticity in the plane, velocity in space."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from ..core.fourier import Modes


class FlowState(eqx.Module):
    """A periodic flow as Fourier coefficients, cut at the dealiased modes: what `PeriodicNavierStokes` marches.

    Make one with `flow.from_velocity`, `flow.from_vorticity` or one of the starts, and read it with `flow.velocity`,
    `flow.vorticity`, `flow.scalars`.

    Attributes:
        modes: coefficients of the vorticity (two dimensions) or of the velocity, mean included (three, leading axis).
        mean: mean velocity in two dimensions, shape (2,), which the vorticity does not know; None in three.
        scalars: coefficients of passive scalars, leading axis; None without.
    """

    modes: Array
    mean: Array | None = None
    scalars: Array | None = None


class PlanarVorticity(eqx.Module):
    r"""Two dimensions: w_t + (u . grad) w = ..., with w = dv/dx - du/dy and u from w.

    Without divergence, the curl of div(u u) is (d_xx - d_yy)(u v) + d_xy(v^2 - u^2): two transforms there and two back
    (Basdevant), where advection of w needs three and two. With dealiased products all forms are equal.

    Reference:
        C. Basdevant, Journal of Computational Physics 50 (1983), 209.
    """

    modes: Modes = eqx.field(static=True)

    def state(self, velocity: Array) -> FlowState:
        """The state of a velocity, given and kept by its modes; a divergence is dropped."""
        vorticity, mean = self.force(velocity)
        return FlowState(vorticity, mean)

    def force(self, force: Array) -> tuple[Array, Array]:
        """What a body force (or velocity) does to (vorticity, mean velocity): its curl and its mean."""
        curl = self.modes.derivative(force[1], 0) - self.modes.derivative(force[0], 1)
        return curl, force[:, 0, 0].real

    def from_vorticity(self, vorticity: Array, mean: Array) -> FlowState:
        """The state of a vorticity; its mean is dropped."""
        return FlowState(vorticity.at[0, 0].set(0), mean)

    def swirl(self, state: FlowState) -> Array:
        """Modes of the velocity without its mean: u = -d_y psi, v = d_x psi, lap psi = w."""
        psi = self.modes.inverse_laplacian(state.modes)
        return jnp.stack([-self.modes.derivative(psi, 1), self.modes.derivative(psi, 0)])

    def velocity(self, state: FlowState) -> Array:
        """Modes of the velocity."""
        return self.swirl(state).at[:, 0, 0].set(state.mean)

    def vorticity(self, state: FlowState) -> Array:
        """Modes of the vorticity."""
        return state.modes

    def on_points(self, swirl: Array, state: FlowState) -> Array:
        """Velocity where products are formed."""
        return swirl + state.mean[:, None, None]  # type: ignore[index]

    def fluxes(self, u: Array) -> list[Array]:
        """The products that momentum needs."""
        return [u[0] * u[1], (u[1] - u[0]) * (u[1] + u[0])]

    def tendency(self, fluxes: Array) -> tuple[Array, Array]:
        """-curl div(u u), and that the mean velocity stays."""
        k, m = (jnp.asarray(k) for k in self.modes.wavenumbers(fluxes.real.dtype))
        return (k**2 - m**2) * fluxes[0] + (k * m) * fluxes[1], jnp.zeros(2, fluxes.real.dtype)


class SpatialVelocity(eqx.Module):
    r"""Three dimensions: u_t = P(-(u . grad) u + ...), P the projection onto fields without divergence.

    div(u u) with w^2 taken off the diagonal, which the pressure takes up: three transforms there and five back, where
    the rotational form P(u x curl u) needs six and three. With dealiased products both are equal.

    Reference:
        C. Basdevant, Journal of Computational Physics 50 (1983), 209; R. S. Rogallo, NASA TM 81315 (1981).
    """

    modes: Modes = eqx.field(static=True)

    def state(self, velocity: Array) -> FlowState:
        """The state of a velocity, given and kept by its modes; a divergence is dropped."""
        return FlowState(self.modes.project(velocity))

    def force(self, force: Array) -> tuple[Array, None]:
        """What a body force does to the velocity."""
        return self.modes.project(force), None

    def from_vorticity(self, vorticity: Array, mean: Array) -> FlowState:
        """The velocity with a vorticity, u = -inverse laplacian of its curl, and with a mean."""
        velocity = -self.modes.inverse_laplacian(self._curl(vorticity))
        return FlowState(velocity.at[:, 0, 0, 0].set(mean))

    def swirl(self, state: FlowState) -> Array:
        """Modes of the velocity."""
        return state.modes

    def velocity(self, state: FlowState) -> Array:
        """Modes of the velocity."""
        return state.modes

    def vorticity(self, state: FlowState) -> Array:
        """Modes of the vorticity."""
        return self._curl(state.modes)

    def on_points(self, swirl: Array, state: FlowState) -> Array:
        """Velocity where products are formed."""
        return swirl

    def fluxes(self, u: Array) -> list[Array]:
        """The products that momentum needs."""
        u, v, w = u
        return [(u - w) * (u + w), (v - w) * (v + w), u * v, u * w, v * w]

    def tendency(self, fluxes: Array) -> tuple[Array, None]:
        """P(-div(u u))."""
        xx, yy, xy, xz, yz = fluxes
        rows = [(xx, xy, xz), (xy, yy, yz), (xz, yz)]
        force = [sum(self.modes.derivative(f, axis) for axis, f in enumerate(row)) for row in rows]
        return self.modes.project(-jnp.stack(force)), None  # type: ignore[arg-type]

    def _curl(self, field: Array) -> Array:
        def d(component: int, axis: int) -> Array:
            return self.modes.derivative(field[component], axis)

        return jnp.stack([d(2, 1) - d(1, 2), d(0, 2) - d(2, 0), d(1, 0) - d(0, 1)])


def nonlinear(form: Any, state: FlowState) -> FlowState:
    """Advection of momentum and of the scalars, in one pass of transforms there and one back."""
    modes, ndim = form.modes, form.modes.ndim
    carried = [form.swirl(state)] + ([] if state.scalars is None else [state.scalars])
    fields = modes.to_points(carried[0] if len(carried) == 1 else jnp.concatenate(carried))
    u = form.on_points(fields[:ndim], state)
    products = form.fluxes(u)
    count = len(products)
    products += [component * scalar for scalar in fields[ndim:] for component in u]
    fluxes = modes.from_points(jnp.stack(products))
    rate, mean = form.tendency(fluxes[:count])
    if state.scalars is None:
        return FlowState(rate, mean)
    carried_out = fluxes[count:].reshape(state.scalars.shape[0], ndim, *modes.shape)
    return FlowState(rate, mean, -jnp.stack([modes.divergence(flux) for flux in carried_out]))
