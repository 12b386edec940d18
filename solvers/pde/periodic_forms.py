"""The equations of motion in Fourier space: vorticity in the plane, velocity in space."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..core.fourier import Modes
from .planar_advection import advected


class FlowState(eqx.Module):
    """A periodic flow as Fourier coefficients, cut at the dealiased modes: what `PeriodicNavierStokes` marches.

    Make one with `flow.from_velocity`, `flow.from_vorticity` or one of the starts, and read it with `flow.velocity`,
    `flow.vorticity`, `flow.scalars`. It holds no grid: a flow with as many modes in a box of another size
    takes it for a state of that box, and nothing can notice.

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

    Passive scalars are carried like the vorticity; see `planar_advection`.
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
        rate, scalars = advected(self.modes, state.modes, state.mean, state.scalars)  # type: ignore[arg-type]
        return FlowState(rate, jnp.zeros_like(state.mean), scalars)  # type: ignore[arg-type]


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
