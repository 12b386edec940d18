"""The equations of motion in Fourier space: vorticity in the plane, velocity in space."""

from typing import Any

import equinox as eqx
import jax
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

    z = u + i v is one complex transform, and so is w_x + i w_y; the product needs a real one back. A passive scalar is
    carried like the vorticity. With dealiased products this equals the curl of div(u u),

        (u . grad) w = (d_xx - d_yy)(u v) + d_xy(v^2 - u^2),    z^2 = u^2 - v^2 + 2 i u v,

    which does with z there and z^2 back. Its two derivatives raise the round-off of the products by k^2, more than all
    else at 256 nodes in single precision, so the value is formed as advection; but the derivative, 2 z dz, is taken
    of this form, where reverse mode needs half of the transforms and nothing but z.

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

    def advection(self, state: FlowState) -> FlowState:
        """-(u . grad) w, that the mean velocity stays, and -(u . grad) theta."""
        scalars = None
        if state.scalars is not None:
            z = _velocity_on_points(self, state.modes, state.mean)
            scalars = jax.vmap(lambda theta: _carried(self.modes, z, theta))(state.scalars)
        # Aliased products make the two forms differ, and the derivative of one is not that of the other.
        rate = _advected if self.modes.dealias == "none" else _advected_paired
        return FlowState(rate(self, state.modes, state.mean), jnp.zeros_like(state.mean), scalars)


def _velocity_on_points(form: PlanarVorticity, vorticity: Array, mean: Any) -> Array:
    """z = u + i v where products are formed."""
    return form.modes.to_points_paired(*form.swirl(FlowState(vorticity))) + jax.lax.complex(*mean)


def _carried(modes: Modes, z: Array, scalar: Array) -> Array:
    """Modes of -(u . grad) of a scalar."""
    slope = modes.to_points_paired(modes.derivative(scalar, 0), modes.derivative(scalar, 1))
    rate = modes.from_points(-(z.real * slope.real + z.imag * slope.imag))
    return rate.at[0, 0].set(0)  # the mean stays what it is, to the last bit


def _advected(form: PlanarVorticity, vorticity: Array, mean: Any) -> Array:
    return _carried(form.modes, _velocity_on_points(form, vorticity, mean), vorticity)


_advected_paired = jax.custom_jvp(_advected, nondiff_argnums=(0,))


@_advected_paired.defjvp
def _advected_jvp(form: PlanarVorticity, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    z, dz = _velocity_on_points(form, *primals), _velocity_on_points(form, *tangents)
    k, m = (jnp.asarray(k) for k in form.modes.wavenumbers(z.real.dtype))
    difference, twice = form.modes.from_points_paired(2 * z * dz)
    return _carried(form.modes, z, primals[0]), (0.5 * (k**2 - m**2)) * twice - (k * m) * difference


class SpatialVelocity(eqx.Module):
    r"""Three dimensions: u_t = P(-(u . grad) u + ...), P the projection onto fields without divergence.

    div(u u) with v^2 taken off the diagonal, which the pressure takes up: three transforms there and five back, where
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

    def advection(self, state: FlowState) -> FlowState:
        """P(-div(u u)) and -div(u theta); (u + i v)^2 and w (u + i v) hold two products each."""
        modes, d = self.modes, self.modes.derivative
        across, w = modes.to_points_paired(*state.modes[:2]), modes.to_points(state.modes[2])
        v = across.imag
        xx, twice = modes.from_points_paired(across * across)
        xz, yz = modes.from_points_paired(w * across)
        xy, zz = twice / 2, modes.from_points((w - v) * (w + v))
        force = [d(xx, 0) + d(xy, 1) + d(xz, 2), d(xy, 0) + d(yz, 2), d(xz, 0) + d(yz, 1) + d(zz, 2)]

        def carried(theta: Array) -> Array:
            theta = modes.to_points(theta)
            return -modes.divergence([*modes.from_points_paired(across * theta), modes.from_points(w * theta)])

        scalars = None if state.scalars is None else jax.vmap(carried)(state.scalars)
        return FlowState(modes.project(-jnp.stack(force)), None, scalars)

    def _curl(self, field: Array) -> Array:
        def d(component: int, axis: int) -> Array:
            return self.modes.derivative(field[component], axis)

        return jnp.stack([d(2, 1) - d(1, 2), d(0, 2) - d(2, 0), d(1, 0) - d(0, 1)])
