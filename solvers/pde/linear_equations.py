"""Linear equations with constant coefficients in periodic boxes: exact to round-off for any time step."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.checks import as_field, is_known
from ..core.fourier import Modes
from ..core.grid import Grid, check_grid
from .semilinear import Semilinear, Symbols, check_state, coefficient


def Advection(grid: Grid, velocity: Any) -> Semilinear:
    r"""Transport with a constant velocity, u_t + c . grad u = 0, exact to round-off for any dt.

    Args:
        grid: nodes of one period.
        velocity: c, a number (the same along every axis) or one per axis; differentiable.

    Raises:
        ValueError: for a wrong shape or values that are not finite.

    Example:
        >>> import solvers as sv, jax.numpy as jnp, numpy as np
        >>> grid = sv.Grid(shape=32, spacing=1 / 32)
        >>> start = jnp.sin(2 * np.pi * grid.axes()[0])
        >>> run = sv.simulate(sv.Advection(grid, 1.0), start, steps=4, dt=0.25)        # once around
        >>> bool(jnp.max(jnp.abs(run.final - start)) < 1e-5)
        True
    """
    parameters = {"velocity": coefficient(velocity, "velocity", (check_grid(grid).ndim,))}
    return Semilinear(grid, _advection, parameters=parameters)


def Diffusion(grid: Grid, diffusivity: Any) -> Semilinear:
    r"""Diffusion u_t = div(D grad u), exact to round-off for any dt.

    Args:
        grid: nodes of one period.
        diffusivity: D > 0, a number, one per axis, or a symmetric positive definite tensor (axes, axes);
            differentiable.

    Raises:
        ValueError: for a wrong shape, or a diffusivity that is not positive (definite) or not symmetric.

    Example:
        >>> import solvers as sv, jax.numpy as jnp, numpy as np
        >>> grid = sv.Grid(shape=(16, 16), spacing=2 * np.pi / 16)
        >>> x, y = np.meshgrid(*grid.axes(), indexing="ij")
        >>> heat = sv.Diffusion(grid, np.array([[1.0, 0.5], [0.5, 1.0]]))
        >>> run = sv.simulate(heat, jnp.sin(x + y), steps=1, dt=1.0)
        >>> round(float(jnp.max(run.final)), 5), round(float(np.exp(-3.0)), 5)
        (0.04979, 0.04979)
    """
    return Semilinear(grid, _diffusion, parameters={"diffusivity": _diffusivity(grid, diffusivity)})


def AdvectionDiffusion(grid: Grid, velocity: Any, diffusivity: Any) -> Semilinear:
    r"""Transport and diffusion, u_t + c . grad u = div(D grad u), exact to round-off for any dt.

    Args:
        grid: nodes of one period.
        velocity: c, as in `Advection`.
        diffusivity: D, as in `Diffusion`.

    Raises:
        ValueError: as `Advection` and `Diffusion`.

    Example:
        >>> import solvers as sv, jax.numpy as jnp, numpy as np
        >>> grid = sv.Grid(shape=32, spacing=2 * np.pi / 32)
        >>> drift = sv.AdvectionDiffusion(grid, velocity=1.0, diffusivity=0.1)
        >>> run = sv.simulate(drift, jnp.sin(grid.axes()[0]), steps=1, dt=np.pi / 2)
        >>> round(float(run.final[0]), 4), round(float(-np.exp(-0.05 * np.pi)), 4)
        (-0.8546, -0.8546)
    """
    parameters = {
        "velocity": coefficient(velocity, "velocity", (check_grid(grid).ndim,)),
        "diffusivity": _diffusivity(grid, diffusivity),
    }
    return Semilinear(grid, _advection_diffusion, parameters=parameters)


def Dispersion(grid: Grid, dispersivity: Any) -> Semilinear:
    r"""Dispersion u_t = sum_i a_i d^3 u / dx_i^3 (the linear Korteweg-de Vries equation), exact for any dt.

    A wave exp(i k x) travels with the speed a k^2, short waves fastest.

    Args:
        grid: nodes of one period.
        dispersivity: a, a number (the same along every axis) or one per axis; differentiable.

    Raises:
        ValueError: for a wrong shape or values that are not finite.

    Example:
        >>> import solvers as sv, jax.numpy as jnp, numpy as np
        >>> grid = sv.Grid(shape=32, spacing=2 * np.pi / 32)
        >>> run = sv.simulate(sv.Dispersion(grid, 1.0), jnp.sin(2 * grid.axes()[0]), steps=1, dt=np.pi / 16)
        >>> round(float(run.final[0]), 4), round(float(np.sin(-8 * np.pi / 16)), 4)
        (-1.0, -1.0)
    """
    parameters = {"dispersivity": coefficient(dispersivity, "dispersivity", (check_grid(grid).ndim,))}
    return Semilinear(grid, _dispersion, parameters=parameters)


def HyperDiffusion(grid: Grid, hyperdiffusivity: Any, power: int = 2) -> Semilinear:
    r"""Diffusion of higher order, u_t = -a (-lap)^p u, exact to round-off for any dt.

    Args:
        grid: nodes of one period.
        hyperdiffusivity: a > 0, a number; differentiable.
        power: p, 2 for the biharmonic equation, 1 for `Diffusion`.

    Raises:
        ValueError: if the coefficient is not a positive number or the power not a whole one of at least 1.

    Example:
        >>> import solvers as sv, jax.numpy as jnp, numpy as np
        >>> grid = sv.Grid(shape=32, spacing=2 * np.pi / 32)
        >>> run = sv.simulate(sv.HyperDiffusion(grid, 0.01), jnp.cos(3 * grid.axes()[0]), steps=2, dt=1.0)
        >>> round(float(run.final[0]), 4), round(float(np.exp(-0.01 * 81 * 2)), 4)
        (0.1979, 0.1979)
    """
    if isinstance(power, bool) or not isinstance(power, int) or power < 1:
        raise ValueError(f"`power` must be a whole number of at least 1, got {power!r}.")
    parameters = {"hyperdiffusivity": coefficient(hyperdiffusivity, "hyperdiffusivity", positive=True)}
    return Semilinear(grid, _Power(power), parameters=parameters)


class PeriodicWave(eqx.Module):
    r"""The wave equation u_tt = c^2 lap u in a periodic box with constant speed, exact to round-off for any dt.

        u(t) = cos(w t) u(0) + (sin(w t) / w) v(0),    v(t) = -w sin(w t) u(0) + cos(w t) v(0),    w = c |k|

    The state holds u and v = u_t as its two channels. For speeds that vary, sources and faces see `Wave`.

    Args:
        grid: nodes of one period, at least 4 per axis.
        speed: c > 0, a number; differentiable.

    Raises:
        ValueError: if the speed is not a positive number, or the grid too small.

    Example:
        >>> import solvers as sv, jax.numpy as jnp, numpy as np
        >>> grid = sv.Grid(shape=64, spacing=1 / 64)
        >>> pulse = jnp.exp(-200 * (grid.axes()[0] - 0.5) ** 2)
        >>> wave = sv.PeriodicWave(grid, speed=1.0)
        >>> run = sv.simulate(wave, wave.state(pulse), steps=1, dt=0.25)      # splits into two halves
        >>> [round(float(run.final[0, i]), 3) for i in (16, 32, 48)]
        [0.5, 0.0, 0.5]

    Reference:
        Evans, Partial Differential Equations (2010), section 4.3.1.
    """

    speed: Array
    space: Modes

    def __init__(self, grid: Grid, speed: Any):
        if min(check_grid(grid).shape) < 4:
            raise ValueError(f"A periodic equation needs at least 4 nodes per axis, got shape={grid.shape}.")
        self.speed, self.space = coefficient(speed, "speed", positive=True), Modes(grid, "none")

    @property
    def grid(self) -> Grid:
        """The nodes."""
        return self.space.grid

    def state(self, displacement: Any, velocity: Any = 0.0) -> Array:
        """A state from u and u_t on the nodes, each of shape `grid.shape`."""
        u = as_field(displacement, "displacement", self.grid.shape)
        return jnp.stack([u, as_field(velocity, "velocity", self.grid.shape, u.dtype)])

    def energy(self, state: Array) -> Array:
        """Mean of (u_t^2 + c^2 |grad u|^2) / 2, conserved to round-off."""
        u, v = self.space.to_modes(state)
        stretch = self.space.squared(u.real.dtype) * u
        return 0.5 * (self.space.inner(v, v) + self.speed.astype(u.real.dtype) ** 2 * self.space.inner(u, stretch))

    def tendency(self, state: Array, inputs: Any = None) -> Array:
        """(v, c^2 lap u) on the nodes."""
        u, v = self.space.to_modes(state)
        return self.space.to_field(
            jnp.stack([v, -(self.speed.astype(state.dtype) ** 2) * self.space.squared(state.dtype) * u])
        )

    def step(self, state: Array, inputs: Any, dt: Any) -> Array:
        """The state dt later."""
        stepper = self.stepper(jnp.asarray(dt, state.dtype))
        return stepper.leave(stepper.step(stepper.enter(state), inputs))

    def stepper(self, dt: Array) -> "Rotation":
        """What does not change from step to step, computed once."""
        k = jnp.sqrt(self.space.squared(dt.dtype))
        w = self.speed.astype(dt.dtype) * k
        # Double `where`: sin(w t) / w is t at w = 0, and its derivative must be finite there.
        lag = jnp.where(k > 0, jnp.sin(w * dt) / jnp.where(k > 0, w, 1), dt)
        return Rotation(jnp.cos(w * dt), lag, -w * jnp.sin(w * dt), self.space)

    def check(self, state: Any, *, steps: int, dt: Any, inputs: Any) -> None:
        """Raise ValueError for what cannot run."""
        check_state(state, (2, *self.grid.shape), real=True)
        if inputs is not None:
            raise ValueError("`PeriodicWave` takes no `inputs`; a wave with sources is `Wave`.")


class Rotation(eqx.Module):
    """One exact step of `PeriodicWave` on Fourier modes."""

    swing: Array
    lag: Array
    pull: Array
    space: Modes

    def enter(self, state: Array) -> Array:
        """Modes of both fields."""
        return self.space.to_modes(state)

    def leave(self, modes: Array) -> Array:
        """Both fields on the nodes."""
        return self.space.to_field(modes)

    def step(self, modes: Array, inputs: Any) -> Array:
        """Advance by one step."""
        u, v = modes
        return jnp.stack([self.swing * u + self.lag * v, self.pull * u + self.swing * v])


class _Power(eqx.Module):
    """Symbol of -a (-lap)^power."""

    power: int = eqx.field(static=True)

    def __call__(self, d: Symbols, p: dict) -> Array:
        return -p["hyperdiffusivity"] * (-d.laplacian) ** self.power


def _advection(d: Symbols, p: dict) -> Array:
    return -_total([p["velocity"][i] * d.along(i) for i in range(d.space.ndim)])


def _dispersion(d: Symbols, p: dict) -> Array:
    return _total([p["dispersivity"][i] * d.along(i, 3) for i in range(d.space.ndim)])


def _diffusion(d: Symbols, p: dict) -> Array:
    tensor, axes = p["diffusivity"], range(d.space.ndim)
    ks = [jnp.asarray(k) for k in d.space.wavenumbers(d.dtype)]
    return -_total([ks[i] * ks[j] * tensor[i, j] for i in axes for j in axes])


def _total(terms: list[Array]) -> Array:
    """Sum of arrays that broadcast."""
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def _advection_diffusion(d: Symbols, p: dict) -> Array:
    return _advection(d, p) + _diffusion(d, p)


def _diffusivity(grid: Grid, value: Any) -> Array:
    """The diffusivity as a tensor."""
    n = check_grid(grid).ndim
    if np.ndim(value) < 2:
        return jnp.diag(coefficient(value, "diffusivity", (n,), positive=True))
    tensor = as_field(value, "diffusivity", (n, n))
    if is_known(value):
        given = np.asarray(value, float)
        if not np.allclose(given, given.T, rtol=1e-6, atol=0) or not np.linalg.eigvalsh(given).min() > 0:
            raise ValueError(f"`diffusivity` must be a symmetric positive definite tensor, got {given.tolist()}.")
    return tensor
