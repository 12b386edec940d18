"""Incompressible flow in a periodic box, pseudo-spectral, in two and three dimensions."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.checks import as_field, check_positive, is_known
from ..core.fourier import Modes
from ..core.grid import Grid, check_grid
from . import flow_starts
from .forcing import LinearForcing, check_forcing
from .periodic_checks import (
    check_inputs,
    check_state,
    checked_dtype,
    checked_peak,
    real_field,
    real_number,
    real_numbers,
)
from .periodic_forms import FlowState, PlanarVorticity, SpatialVelocity
from .periodic_stepper import STEPPERS, FlowStepper, rate_of_force
from .step_inverse import StepInverse


class PeriodicNavierStokes(eqx.Module):
    r"""Incompressible flow in a periodic box, two- or three-dimensional.

        u_t + (u . grad) u = -grad p + nu lap u - drag u - nu_h (-lap)^p u + f,    div u = 0
        theta_t + u . grad theta = kappa lap theta                                 (passive scalars)

    A Fourier-Galerkin method: exact in space for what the kept modes can hold, products without aliasing, so that
    without viscosity and force the equations conserve energy (and in two dimensions enstrophy) to round-off.
    Viscosity, drag and hyperviscosity are integrated exactly and limit no time step; advection does, see `max_dt`. In
    two dimensions the vorticity is marched and the mean velocity beside it, in three the velocity.

    A step transforms 5 fields in two dimensions and 8 in three per stage, two real ones by one complex transform, with
    3 (`rk3`), 2 (`etdrk2`) or 4 (`etdrk4`) stages. Reverse mode keeps the state and the rates of the stages (of
    `etdrk4` those of the first three) and recomputes what lies on the nodes: per step 1.8 real fields of the grid
    (`etdrk2` 1.4) in two dimensions and 3.6 (2.7) in three. "3/2" and "none" keep more modes: 4 (3) and 12 (9). Not for
    walls, inflow or shocks; the smallest scales must be resolved, or damped by hyperviscosity.

    Args:
        grid: nodes of one period, two or three axes; the box has the sides `shape * spacing`. At least 4 per axis.
        viscosity: nu > 0, length^2/time; differentiable.
        forcing: f: a body force on the nodes, shape (axes, *grid.shape); `Kolmogorov`; `LinearForcing`; a function of
            the velocity on the nodes that returns the force there; or a tuple of these. What of it has a divergence
            goes into the pressure. None for none. `inputs` of `simulate`, held over each step, act on it: shape
            (steps,) multiplies the body forces, shape (steps, axes, *grid.shape) adds one.
        drag: linear friction, 1/time, at least 0; differentiable.
        stepper: "rk3", third order, low storage; "etdrk2"; "etdrk4".
        dealias: "2/3" keeps a third of the wavenumbers on either side of zero and forms products on the grid itself;
            "3/2" keeps all and forms products on a finer grid; "none" keeps all and lets products alias.
        hyperviscosity: nu_h, length^(2p)/time, None for none; differentiable.
        hyperviscosity_power: p, at least 2.
        diffusivity: kappa of each passive scalar, a number or shape (scalars,), positive; None for no scalar.

    Raises:
        ValueError: for values that are not positive or not finite, a forcing of the wrong shape, a grid with one axis
            or fewer than four nodes on one.

    Example:
        >>> import solvers as sv, jax, numpy as np
        >>> grid = sv.Grid(shape=(32, 32), spacing=2 * np.pi / 32)
        >>> flow = sv.PeriodicNavierStokes(grid, viscosity=1e-2)
        >>> start = flow.random_start(jax.random.key(0), peak_wavenumber=3, max_speed=1.0)
        >>> run = sv.simulate(flow, start, steps=50, dt=0.5 * flow.max_dt(start), observe=flow.energy).check()
        >>> flow.vorticity(run.final).shape, flow.velocity(run.final).shape, bool((np.diff(run.observed) < 0).all())
        ((32, 32), (2, 32, 32), True)

    Reference:
        Canuto, Hussaini, Quarteroni and Zang, Spectral Methods: Evolution to Complex Geometries (2007), chapter 3;
        Basdevant, Journal of Computational Physics 50 (1983), 209 (the products in three dimensions).
    """

    viscosity: Array
    drag: Array
    hyperviscosity: Array | None
    diffusivity: Array | None
    forcing: tuple
    modes: Modes
    method: str = eqx.field(static=True)
    hyperviscosity_power: int = eqx.field(static=True)

    def __init__(
        self,
        grid: Grid,
        viscosity: Any,
        forcing: Any = None,
        drag: Any = 0.0,
        *,
        stepper: str = "rk3",
        dealias: str = "2/3",
        hyperviscosity: Any = None,
        hyperviscosity_power: int = 4,
        diffusivity: Any = None,
    ):
        check_grid(grid)
        if grid.ndim == 1:
            raise ValueError("A periodic flow needs a grid of two or three axes; for one axis see Burgers.")
        if stepper not in STEPPERS:
            raise ValueError(f"`stepper` must be one of {', '.join(map(repr, STEPPERS))}, got {stepper!r}.")
        if dealias not in ("2/3", "3/2", "none"):
            raise ValueError(f'`dealias` must be "2/3", "3/2" or "none", got {dealias!r}.')
        if min(grid.shape) < 4:
            raise ValueError(f"A periodic flow needs at least 4 nodes per axis, got shape={grid.shape}.")
        if not isinstance(hyperviscosity_power, int) or hyperviscosity_power < 2:
            raise ValueError(
                f"`hyperviscosity_power` must be a whole number of at least 2, got {hyperviscosity_power!r}."
            )
        self.modes, self.method, self.hyperviscosity_power = Modes(grid, dealias), stepper, hyperviscosity_power
        self.viscosity = real_number(viscosity, "viscosity")
        check_positive(viscosity, "viscosity")
        self.drag = real_number(drag, "drag")
        if is_known(drag) and not np.asarray(drag) >= 0:
            raise ValueError(f"`drag` must be at least 0, got {drag}; a LinearForcing drives the flow.")
        self.hyperviscosity = None if hyperviscosity is None else real_number(hyperviscosity, "hyperviscosity")
        if hyperviscosity is not None:
            check_positive(hyperviscosity, "hyperviscosity")
        self.diffusivity = None
        if diffusivity is not None:
            self.diffusivity = real_numbers(diffusivity, "diffusivity")
            check_positive(self.diffusivity, "diffusivity")
        self.forcing = check_forcing(forcing, self.modes)

    @property
    def grid(self) -> Grid:
        """The nodes."""
        return self.modes.grid

    # ---- States

    def from_velocity(self, velocity: Any) -> FlowState:
        """The state of a velocity on the nodes, shape (axes, *grid.shape).

        A divergence and modes above the cut are dropped. Scalars are zero; see `with_scalars`.

        Raises:
            ValueError: for a wrong shape, complex numbers or integers, values that are not finite.
        """
        field = real_field(velocity, "velocity", (self.grid.ndim, *self.grid.shape))
        return self._complete(self._form.state(self.modes.to_modes(field)))

    def from_vorticity(self, vorticity: Any, mean: Any = 0.0) -> FlowState:
        """The state of a vorticity on the nodes, shape `grid.shape`, in three dimensions (3, *grid.shape).

        In two dimensions w = dv/dx - du/dy. The mean of the vorticity (no periodic flow has one), in three dimensions
        its divergence, and modes above the cut are dropped.

        Args:
            vorticity: w.
            mean: mean velocity, which the vorticity does not determine; a number or one per axis.

        Raises:
            ValueError: as `from_velocity`.
        """
        lead = () if self.grid.ndim == 2 else (3,)
        field = real_field(vorticity, "vorticity", (*lead, *self.grid.shape))
        mean = as_field(mean, "mean", (self.grid.ndim,), field.dtype)
        return self._complete(self._form.from_vorticity(self.modes.to_modes(field), mean))

    def with_scalars(self, state: FlowState, scalars: Any) -> FlowState:
        """The state with passive scalars given on the nodes, shape (scalars, *grid.shape), or grid.shape for one.

        Raises:
            ValueError: if the flow has no `diffusivity`, and as `from_velocity`.
        """
        if self.diffusivity is None:
            raise ValueError("This flow carries no scalars; give it a `diffusivity`.")
        if self.diffusivity.size == 1 and jnp.ndim(scalars) == self.grid.ndim:
            scalars = jnp.asarray(scalars)[None] if not is_known(scalars) else np.asarray(scalars)[None]
        field = real_field(scalars, "scalars", (self.diffusivity.size, *self.grid.shape))
        return FlowState(state.modes, state.mean, self.modes.to_modes(field.astype(state.modes.real.dtype)))

    def at_rest(self, dtype: Any = None) -> FlowState:
        """No motion."""
        zero = jnp.zeros((self.grid.ndim, *self.modes.shape), jnp.result_type(checked_dtype(dtype), jnp.complex64))
        return self._complete(self._form.state(zero))

    def random_start(
        self,
        key: Array,
        peak_wavenumber: float | int,
        max_speed: Any = 1.0,
        spectrum: Callable[[Array], Array] | None = None,
        dtype: Any = None,
    ) -> FlowState:
        """A random flow with a given energy spectrum, the same field at any resolution.

        Every Fourier mode is drawn from a key of its own wavenumber: two grids agree in all modes that both hold.

        Args:
            key: random key.
            peak_wavenumber: 2 pi / wavelength where the spectrum peaks, in the unit of 1 / spacing. In a box of length
                2 pi it counts the waves.
            max_speed: greatest speed, to about two percent.
            spectrum: shape of E(k), a function of the wavenumber; by default k^4 exp(-2 (k / peak)^2).
            dtype: float32 or float64; by default JAX's default.

        Raises:
            ValueError: if the peak is not a positive number that the grid can hold.
        """
        peak, max_speed = checked_peak(peak_wavenumber, self.modes), real_number(max_speed, "max_speed")
        spectrum = flow_starts.peaked(peak) if spectrum is None else spectrum
        velocity = flow_starts.random_velocity(self.modes, key, peak, max_speed, spectrum, checked_dtype(dtype))
        return self._complete(self._form.state(velocity))

    def taylor_green(self, speed: Any = 1.0, dtype: Any = None) -> FlowState:
        """Taylor-Green vortices, one period per axis.

        Two dimensions: u = U cos(kx) sin(my), which decays as exp(-nu (k^2 + m^2) t), an exact solution. Three:
        u = U sin(kx) cos(my) cos(nz), w = 0, which becomes turbulent; Re = U L / (2 pi nu).

        Reference:
            G. I. Taylor and A. E. Green, Proceedings of the Royal Society A 158 (1937), 499.
        """
        speed = real_number(speed, "speed")
        return self.from_velocity(flow_starts.taylor_green(self.grid, speed, checked_dtype(dtype)))

    def shear_layers(
        self, thickness: float | int, disturbance: float | int = 0.05, speed: Any = 1.0, dtype: Any = None
    ) -> FlowState:
        """Two shear layers of a thickness, in the unit of the spacing, that roll up from a small disturbance.

        u = U tanh((y - L/4) / thickness) below the middle and its mirror image above, v = disturbance U sin(2 pi x/Lx).

        Reference:
            D. L. Brown and M. L. Minion, Journal of Computational Physics 122 (1995), 165.
        """
        if np.iscomplexobj(thickness) or not 0 < thickness < math.inf:
            raise ValueError(f"`thickness` must be positive and finite, got {thickness}.")
        rest = (real_number(disturbance, "disturbance"), real_number(speed, "speed"), checked_dtype(dtype))
        field = flow_starts.shear_layers(self.grid, float(thickness), *rest)
        return self.from_velocity(field)

    # ---- Fields and numbers of a state

    def velocity(self, state: FlowState) -> Array:
        """Velocity on the nodes, shape (axes, *grid.shape)."""
        return self.modes.to_field(self._form.velocity(state))

    def vorticity(self, state: FlowState) -> Array:
        """Vorticity dv/dx - du/dy on the nodes, shape grid.shape; in three dimensions curl u, (3, *grid.shape)."""
        return self.modes.to_field(self._form.vorticity(state))

    def scalars(self, state: FlowState) -> Array:
        """Passive scalars on the nodes, shape (scalars, *grid.shape)."""
        if state.scalars is None:
            raise ValueError("This state carries no scalars; give the flow a `diffusivity`.")
        return self.modes.to_field(state.scalars)

    def pressure(self, state: FlowState) -> Array:
        """Pressure per density on the nodes, with mean zero, of the motion alone: lap p = -div div(u u)."""
        modes = self.modes
        u = modes.to_points(self._form.velocity(state))
        flux = modes.from_points(u[:, None] * u[None])
        force = jnp.stack([modes.divergence(row) for row in flux])
        return modes.to_field(-modes.inverse_laplacian(modes.divergence(force)))

    def divergence(self, state: FlowState) -> Array:
        """div u on the nodes: round-off."""
        return self.modes.to_field(self.modes.divergence(self._form.velocity(state)))

    def energy(self, state: FlowState) -> Array:
        """Mean kinetic energy |u|^2 / 2."""
        velocity = self._form.velocity(state)
        return 0.5 * self.modes.inner(velocity, velocity)

    def enstrophy(self, state: FlowState) -> Array:
        """Mean of |curl u|^2 / 2."""
        vorticity = self._form.vorticity(state)
        return 0.5 * self.modes.inner(vorticity, vorticity)

    def dissipation(self, state: FlowState) -> Array:
        """Energy that viscosity and hyperviscosity take per time: 2 nu enstrophy without hyperviscosity."""
        velocity = self._form.velocity(state)
        return self.modes.inner(velocity, self._friction(velocity.real.dtype) * velocity)

    def spectrum(self, state: FlowState) -> tuple[Array, Array]:
        """Isotropic energy spectrum (k, E(k)): shells of the width dk = 2 pi / longest side, sum(E) dk = energy."""
        velocity = self._form.velocity(state)
        return self.modes.spectrum(0.5 * jnp.sum(velocity.real**2 + velocity.imag**2, axis=0))

    def courant(self, state: FlowState, dt: Any) -> Any:
        """Spectral Courant number dt max(sum_i k_i |u_i|), k_i the largest kept wavenumbers; below it dt is stable.

        The limit is 3^(1/2) for "rk3" and 8^(1/2) for "etdrk4". "etdrk2" grows slowly at any, and relies on viscosity;
        0.5 is taken.
        """
        rate = _advection_rate(self.modes, self._form, state)
        return float(dt * rate) if is_known(rate) and is_known(dt) else dt * rate

    def max_dt(self, state: FlowState, safety: float | int = 1.0) -> Any:
        """The largest time step for which advection by this state is stable; a flow may become faster later."""
        rate = _advection_rate(self.modes, self._form, state)
        limit = safety * STEPPERS[self.method][1]
        if is_known(rate):
            return limit / float(rate) if rate > 0 else math.inf
        return limit / rate

    # ---- For the loop

    def tendency(self, state: FlowState, inputs: Any = None) -> FlowState:
        """du/dt as a state: what the method of lines needs."""
        stepper = self.stepper(jnp.ones((), state.modes.real.dtype))
        linear = self._linear(state.modes.real.dtype)
        rate = jax.tree.map(lambda u, factor, n: factor * u + n, state, linear, stepper.nonlinear(state))
        force = stepper.force_of(inputs)
        return rate if force is None else jax.tree.map(jnp.add, rate, force)

    def step(self, state: FlowState, inputs: Any, dt: Any) -> FlowState:
        """One step from t to t + dt; `inputs` are held over it."""
        return self.stepper(jnp.asarray(dt, state.modes.real.dtype)).step(state, inputs)

    def preconditioner(self, dt: Any, shift: Any = 0.0) -> StepInverse:
        """Friction during a step, inverted mode by mode: the `preconditioner` of `steady_state` for steps of a state.

        Approximates A^-1 with A = 1 - dstep/dstate, see `StepInverse`: good where friction outweighs advection. The
        mean velocity stays as it is where no drag acts on it.

        Args:
            dt: time step, as in `step`.
            shift: further friction, 1/time.
        """
        return StepInverse(self._linear(jnp.result_type(float)), dt, shift)

    def stepper(self, dt: Array) -> FlowStepper:
        """What does not change from step to step, computed once."""
        scheme = STEPPERS[self.method][0](self._linear(dt.dtype), dt)
        steady = [
            entry.body_force(self.grid) if hasattr(entry, "body_force") else entry
            for entry in self.forcing
            if hasattr(entry, "body_force") or eqx.is_array(entry)
        ]
        feedback = tuple(
            entry
            for entry in self.forcing
            if callable(entry) and not hasattr(entry, "body_force") and not isinstance(entry, LinearForcing)
        )
        force = None
        if steady:
            total = jnp.sum(jnp.stack(steady).astype(dt.dtype), axis=0)
            force = rate_of_force(self._form, total, self.diffusivity is not None)
        return FlowStepper(scheme, force, feedback, self._form, self.diffusivity is not None)

    def check(self, state: Any, *, steps: int, dt: Any, inputs: Any) -> None:
        """Raise ValueError for what cannot run, warn of a step above the limit; values are looked at where known."""
        check_state(state, self.grid.ndim, self.modes.shape, self.diffusivity)
        steady = any(hasattr(entry, "body_force") or eqx.is_array(entry) for entry in self.forcing)
        check_inputs(inputs, steps, self.grid, steady)
        if not is_known(dt):
            return
        if float(dt) <= 0:
            raise ValueError(f"`dt` must be positive, got {dt}.")
        if all(is_known(x) for x in jax.tree.leaves(state)):
            number, limit = self.courant(state, float(dt)), STEPPERS[self.method][1]
            if number > limit * (1 + 1e-5):
                warnings.warn(
                    f"Courant number {number:.3g} > {limit:.3g}, the limit of {self.method}: unless viscosity damps "
                    f"them, short waves grow. Take dt <= {float(dt) * limit / number:.4g} (you gave {float(dt):.4g}).",
                    UserWarning,
                    stacklevel=3,
                )

    # ---- Parts

    @property
    def _form(self) -> PlanarVorticity | SpatialVelocity:
        return PlanarVorticity(self.modes) if self.grid.ndim == 2 else SpatialVelocity(self.modes)

    def _complete(self, state: FlowState) -> FlowState:
        """The state with zeros for the scalars that the flow carries."""
        if self.diffusivity is None:
            return state
        zeros = jnp.zeros((self.diffusivity.size, *self.modes.shape), state.modes.dtype)
        return FlowState(state.modes, state.mean, zeros)

    def _friction(self, dtype: Any) -> Array:
        """nu k^2 + nu_h k^(2p) of every mode."""
        k2 = self.modes.squared(dtype)
        friction = self.viscosity.astype(dtype) * k2
        if self.hyperviscosity is not None:
            friction = friction + self.hyperviscosity.astype(dtype) * k2**self.hyperviscosity_power
        return friction

    def _linear(self, dtype: Any) -> FlowState:
        """Factors of the modes in the linear part of the equations, as a state."""
        drag = self.drag.astype(dtype)
        linear = -self._friction(dtype) - drag
        moving = self.modes.squared(dtype) > 0
        for entry in self.forcing:
            if isinstance(entry, LinearForcing):
                linear = linear + jnp.where(moving, entry.rate.astype(dtype), 0)
        scalars = None
        if self.diffusivity is not None:
            lift = (-1, *[1] * self.grid.ndim)
            scalars = -self.diffusivity.astype(dtype).reshape(lift) * self.modes.squared(dtype)
        return FlowState(linear, -drag if self.grid.ndim == 2 else None, scalars)


@eqx.filter_jit
def _advection_rate(modes: Modes, form: Any, state: FlowState) -> Array:
    """Largest frequency of advection by this velocity, max over the nodes of sum_i k_i |u_i|."""
    velocity = jnp.abs(modes.to_field(form.velocity(state)))
    largest = [2 * math.pi * cut / period for cut, period in zip(modes.cut, modes.period, strict=True)]
    return jnp.max(sum((k * u for k, u in zip(largest[1:], velocity[1:], strict=True)), start=largest[0] * velocity[0]))
