"""Acoustic waves in one, two and three dimensions."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.checks import as_field, check_finite, check_positive, check_real, is_known, warn_of_truncation
from ..core.grid import Grid, check_grid
from .boundary import Absorbing, Face, Free, Rigid, layer_widths
from .layer import damping, slabs, start_memory
from .operators import second_difference
from .points import POINTS, Geometry, Receivers, axis_window, check_positions, geometry, receivers_at
from .wave_general import GeneralLeapFrog, density_bound, half_node_inverses
from .wave_stepper import Injection, LeapFrog, WaveState
from .wavelets import ORDERS


class Wave(eqx.Module):
    r"""Acoustic wave equation u_tt = c^2 (lap u + source), or u_tt = rho c^2 (div((1/rho) grad u) + source).

    A point source at x_s with signal s(t) is source = s(t) delta(x - x_s), so that amplitudes are those of the
    Green's function. Leapfrog in time, central differences of order 2, 4, 6 or 8 in space on the nodes of a grid; with
    a density, staggered differences of the flux. Explicit: stable for dt <= `max_dt()`, which is the exact limit.
    Energy is conserved to round-off with lossless faces.

    Every array is differentiable: speed, density, source positions (and signals, initial state, receiver positions
    through `simulate`). With constant density and `time_order=2` the reverse sweep is the hand-derived discrete
    adjoint, at about the cost of two forward runs plus recomputation, one field kept per step; the other choices go
    through automatic differentiation and are several times slower backwards.

    Args:
        grid: nodes; speeds and pressures live on them.
        speed: c, m/s, a number or an array of `grid.shape`; positive. Its dtype is that of the run. A Python number
            takes the dtype of the density if that is an array, else JAX's default: write `np.float32(1500)` for single
            precision where double precision is switched on.
        density: rho, kg/m^3, likewise; None for constant.
        order: order in space. Order 8 needs a third of the points of order 2.
        time_order: 2, or 4 for the modified equation: two Laplacians per step, time step up to sqrt(3) larger.
            Sources enter to second order.
        boundary: one entry for all faces, or a tuple with one per axis, each for both faces or a pair (lower, upper),
            of `Absorbing(width)`, `Free()`, `Rigid()`, `Periodic()`.
        sources: positions of point sources, shape (n, axes), in the unit of the spacing; their signals are the
            `inputs` of `simulate`, shape (steps, n), or (steps,) for all.

    Raises:
        ValueError: for values that are not positive or not finite, wrong shapes, integer arrays, a source outside of
            the grid, a grid too small for the order.

    Example:
        >>> import solvers as sv, jax.numpy as jnp
        >>> grid = sv.Grid(shape=(40, 60), spacing=10.0)
        >>> wave = sv.Wave(grid, 1500.0, boundary=((sv.Free(), sv.Absorbing(10)), sv.Absorbing(10)),
        ...                sources=[[100.0, 300.0]])
        >>> dt = 0.9 * wave.max_dt()
        >>> run = sv.simulate(wave, wave.at_rest(), steps=100, dt=dt, inputs=sv.ricker(15.0, steps=100, dt=dt),
        ...                   observe=wave.receivers([[200.0, 300.0], [200.0, 400.0]])).check()
        >>> run.observed.shape
        (100, 2)

    Reference:
        Alford, Kelly and Boore, Geophysics 39 (1974), 834; Dablain, Geophysics 51 (1986), 54 (higher orders).
    """

    grid: Grid
    speed: Array
    density: Array | None
    sources: Array | None
    order: int = eqx.field(static=True)
    time_order: int = eqx.field(static=True)
    boundary: tuple[tuple[Face, Face], ...] = eqx.field(static=True)

    def __init__(
        self,
        grid: Grid,
        speed: Any,
        *,
        density: Any = None,
        order: int = 8,
        time_order: int = 2,
        boundary: Any = Absorbing(20),
        sources: Any = None,
    ):
        if order not in ORDERS:
            raise ValueError(f"`order` must be one of {ORDERS}, got {order!r}.")
        if time_order not in (2, 4):
            raise ValueError(f"`time_order` must be 2 or 4, got {time_order!r}.")
        self.grid, self.order, self.time_order = check_grid(grid), order, time_order
        where = geometry(grid, boundary)
        self.boundary = where.faces
        fewest = order // 2 + 1 if density is None else order
        for axis, n in enumerate(grid.shape):
            if n < fewest:
                raise ValueError(f"Order {order} needs at least {fewest} nodes per axis, axis {axis} has {n}.")
        # A number has no precision of its own: the field beside it decides.
        own = getattr(density, "dtype", None) if isinstance(speed, int | float) else None
        single = own is not None and jnp.issubdtype(own, jnp.floating)
        self.speed = as_field(speed, "speed", grid.shape, jax.dtypes.canonicalize_dtype(own) if single else None)
        check_real(self.speed, "speed")
        check_positive(speed, "speed")
        self.density = None
        if density is not None:
            check_real(density, "density")
            self.density = as_field(density, "density", grid.shape, self.speed.dtype)
            check_positive(density, "density")
        self.sources = None
        if sources is not None:
            warn_of_truncation(sources, "sources")
            self.sources = jnp.asarray(check_positions(sources, where, "sources"), self.speed.dtype)
            self._room_for_points("sources", where)

    # ---- States

    def state(self, pressure: Any, velocity: Any = None) -> WaveState:
        """A state with given pressure u and rate of change du/dt at t = 0, each on the grid; zero in the layers.

        Args:
            pressure: shape `grid.shape`.
            velocity: the same, or None for zero.

        Raises:
            ValueError: for a wrong shape, integers, values that are not finite.
        """
        dtype = self.speed.dtype
        fields = []
        for name, value in (("pressure", pressure), ("velocity", 0.0 if velocity is None else velocity)):
            check_real(value, name)
            field = as_field(value, name, self.grid.shape, dtype)
            fields.append(jnp.pad(field, layer_widths(self.boundary)))
        return WaveState(fields[0], fields[1], self._memory(), jnp.zeros((), dtype))

    def at_rest(self) -> WaveState:
        """The state with no pressure and no motion."""
        zeros = jnp.zeros(self._where.extended, self.speed.dtype)
        return WaveState(zeros, zeros, self._memory(), jnp.zeros((), self.speed.dtype))

    def pressure(self, state: WaveState) -> Array:
        """Pressure on the grid, shape `grid.shape`."""
        return self._crop(state.pressure)

    def velocity(self, state: WaveState) -> Array:
        """Rate of change of the pressure on the grid (central in time, exact to second order)."""
        return self._crop(state.velocity)

    def receivers(self, positions: Any) -> Receivers:
        """An observer that reads the pressure at positions, shape (n, axes), in the unit of the spacing.

        It is a pytree with the positions as leaves: fresh ones of the same number do not retrace, and gradients with
        respect to them are exact. The reading is a windowed sinc over 12 nodes per axis: error below 1.3e-4 of a wave
        at half of the Nyquist wavenumber. A position outside of the grid that is traced, so that no check can see it,
        reads NaN, and the status of the run is NONFINITE; so it is with sources.

        Raises:
            ValueError: for a wrong shape or a receiver outside of the grid.
        """
        warn_of_truncation(positions, "positions")
        self._room_for_points("receivers", self._where)
        return receivers_at(positions, self._where, self.speed.dtype)

    # ---- What to know before running

    def max_dt(self) -> float:
        """The largest stable time step; needs concrete speeds.

        Leapfrog is stable for dt^2 lambda <= 4 (12 with `time_order=4`), lambda the largest eigenvalue of c^2 L. The
        bound of lambda used here, the largest sum of absolute values in a row, is attained on a homogeneous medium
        by the checkerboard wave: the limit is exact there and safe, by little, elsewhere.

        Raises:
            ValueError: under `jit` or `grad`, where values are not known.
        """
        if not (is_known(self.speed) and is_known(self.density)):
            raise ValueError("max_dt() needs concrete speeds; compute dt outside of jit and grad.")
        return float(np.sqrt((12 if self.time_order == 4 else 4) / self._largest_eigenvalue()))

    def courant(self, dt: Any) -> float:
        """Courant number max(c) dt sqrt(sum 1 / h^2); needs concrete speeds.

        Raises:
            ValueError: under `jit` or `grad`, where values are not known.
        """
        if not (is_known(self.speed) and is_known(dt)):
            raise ValueError("courant(dt) needs concrete speeds and dt; compute it outside of jit and grad.")
        return float(np.max(np.asarray(self.speed)) * dt * np.sqrt(sum(h**-2 for h in self.grid.spacing)))

    def energy(self, state: WaveState, dt: Any) -> Array:
        """The discrete energy, conserved to round-off by lossless faces without sources.

        E = 1/2 sum M ((u_(n+1) - u_n) / dt)^2 - 1/2 sum u_(n+1) L u_n with M = D / c^2 (or D / (rho c^2)) and the
        trapezoidal weights D h^d: the energy 1/2 integral(u_t^2 / c^2 + |grad u|^2) to second order in dt.

        Args:
            state: any state of this wave.
            dt: the time step of the run.
        """
        stepper = self.stepper(jnp.asarray(dt, self.speed.dtype))
        leap = stepper.enter(state)
        u = leap.u
        mass = jnp.where(stepper.kappa > 0, stepper.dt**2 / jnp.where(stepper.kappa > 0, stepper.kappa, 1), 0)
        rate = stepper.acceleration(leap.u) / stepper.dt**2
        v = (u - leap.previous) / stepper.dt + stepper.dt * rate / 2
        density = v**2 - u * rate - stepper.dt**2 / 4 * rate**2
        return 0.5 * jnp.sum(mass * density) * math.prod(self.grid.spacing)

    # ---- For the loop

    def step(self, state: WaveState, inputs: Any, dt: Any) -> WaveState:
        """One step from t to t + dt; `inputs` are the signals of the sources at t."""
        stepper = self.stepper(jnp.asarray(dt, self.speed.dtype))
        return stepper.leave(stepper.step(stepper.enter(state), inputs))

    def stepper(self, dt: Array) -> LeapFrog | GeneralLeapFrog:
        """What does not change from step to step, computed once."""
        where = self._where
        speed = jnp.pad(self.speed, layer_widths(self.boundary), mode="edge")
        m = jnp.where(self._surface(), 0, (speed * dt) ** 2)
        layers = [damping(s, self.speed, dt, self.grid.spacing[s.axis]) for s in self._slabs()]
        if self.density is None and self.time_order == 2:
            kappa = m / self._weights()
            return LeapFrog(m, kappa, dt, layers, self._injection(), where, self.order)
        inverse = None
        if self.density is not None:
            density = jnp.pad(self.density, layer_widths(self.boundary), mode="edge")
            m = m * density
            inverse = half_node_inverses(density, self.boundary, self.order)
        kappa = m / self._weights()
        base = LeapFrog(m, kappa, dt, layers, self._injection(), where, self.order, inverse is not None)
        return GeneralLeapFrog(base, inverse, self.time_order)

    def check(self, state: Any, *, steps: int, dt: Any, inputs: Any) -> None:
        """Raise ValueError for what cannot run; values are looked at where they are known."""
        if not isinstance(state, WaveState):
            raise ValueError(
                f"The state of a wave comes from wave.state(...) or wave.at_rest(), got {type(state).__name__}."
            )
        if state.pressure.shape != self._where.extended or state.pressure.dtype != self.speed.dtype:
            raise ValueError(
                f"The state does not belong to this wave: it has {state.pressure.dtype}{list(state.pressure.shape)}, "
                f"the wave needs {self.speed.dtype}{list(self._where.extended)} (grid and absorbing layers)."
            )
        own = jax.eval_shape(self._memory)
        if [x.shape for x in jax.tree.leaves(state.memory)] != [x.shape for x in jax.tree.leaves(own)]:
            raise ValueError("The state does not belong to this wave: its absorbing layers are others.")
        for name in ("pressure", "velocity"):
            if is_known(getattr(state, name)):
                check_finite(np.asarray(getattr(state, name)), f"state.{name}")
        if (self.sources is None) != (inputs is None):
            what = "sources but no `inputs` (their signals)" if inputs is None else "`inputs` but no sources"
            raise ValueError(f"The simulation has {what}; give both or neither.")
        if inputs is not None:
            n = self.sources.shape[0]  # type: ignore[union-attr]
            if not hasattr(inputs, "ndim") or inputs.shape not in ((steps,), (steps, n)):
                raise ValueError(
                    f"`inputs` must have shape (steps,) or (steps, sources) = ({steps}, {n}), got {jnp.shape(inputs)}."
                )
            if not jnp.issubdtype(inputs.dtype, jnp.floating):
                raise ValueError(f"`inputs` must hold floating numbers, got dtype {inputs.dtype}.")
            if is_known(inputs):
                check_finite(np.asarray(inputs), "inputs")
        if is_known(dt) and float(dt) <= 0:
            raise ValueError(f"`dt` must be positive, got {float(dt)}.")
        if is_known(dt) and is_known(self.speed) and is_known(self.density):
            self._check_step(float(dt))

    def _check_step(self, dt: float) -> None:
        # The time step has been rounded to the working precision.
        largest = self.max_dt() * (1 + 4 * float(jnp.finfo(self.speed.dtype).eps))
        if dt > largest:
            number = self.courant(dt)
            raise ValueError(
                f"Courant number {number:.3g} > {number * largest / dt:.3g}, the limit of order {self.order} in space "
                f"and {self.time_order} in time; largest stable dt is {self.max_dt():.4g} (you gave {dt:.4g}). Take a "
                "smaller dt or a coarser grid."
            )

    # ---- Parts

    @property
    def _where(self) -> Geometry:
        return Geometry(self.grid, self.boundary)

    def _slabs(self) -> list:
        return slabs(self.boundary, self.order, self.grid.spacing, self.density is not None)

    def _memory(self) -> list[tuple[Array, Array]]:
        return [start_memory(s, self._where.extended, self.speed.dtype) for s in self._slabs()]

    def _crop(self, field: Array) -> Array:
        index = tuple(slice(w[0], w[0] + n) for w, n in zip(layer_widths(self.boundary), self.grid.shape, strict=True))
        return field[index]

    def _on_faces(self, kind: type) -> list[tuple[int, int]]:
        """(axis, node) of the faces of a kind."""
        return [
            (axis, 0 if side == 0 else n - 1)
            for axis, (pair, n) in enumerate(zip(self.boundary, self._where.extended, strict=True))
            for side, face in enumerate(pair)
            if isinstance(face, kind)
        ]

    def _surface(self) -> np.ndarray:
        """True on the nodes of free surfaces."""
        mask = np.zeros(self._where.extended, bool)
        for axis, node in self._on_faces(Free):
            np.moveaxis(mask, axis, 0)[node] = True
        return mask

    def _weights(self) -> Array:
        """Trapezoidal weights D: one half on a rigid wall, a quarter on its edges."""
        weights = np.ones(self._where.extended)
        for axis, node in self._on_faces(Rigid):
            np.moveaxis(weights, axis, 0)[node] *= 0.5
        return jnp.asarray(weights, self.speed.dtype)

    def _largest_eigenvalue(self) -> float:
        """Bound of the eigenvalues of c^2 L or rho c^2 L_rho by absolute row sums."""
        speed = np.asarray(self.speed, np.float64)
        if self.density is not None:
            density = np.asarray(self.density, np.float64)
            return density_bound(speed, density, self.boundary, self.order, self.grid.spacing)
        c = second_difference(self.order)
        row = abs(c[0]) + 2 * sum(abs(x) for x in c[1:])
        return float(speed.max() ** 2 * row * sum(h**-2 for h in self.grid.spacing))

    def _injection(self) -> Injection | None:
        """Windows of the sources, with delta(x - x_s) normalised to integral 1."""
        if self.sources is None:
            return None
        where, n = self._where, self.sources.shape[0]
        index, weights = [], jnp.ones((n, *[1] * self.grid.ndim), self.speed.dtype)
        for axis, h in enumerate(self.grid.spacing):
            nodes, w = axis_window(where, axis, self.sources[:, axis])
            lift = [n] + [POINTS if a == axis else 1 for a in range(self.grid.ndim)]
            weights = weights * (w / h).reshape(lift)
            index.append(nodes.reshape(lift))
        return Injection(tuple(index), weights, (1 / self._weights())[tuple(index)])

    def _room_for_points(self, what: str, where: Geometry) -> None:
        for axis, n in enumerate(where.extended):
            if n < POINTS:
                raise ValueError(f"{what.capitalize()} need at least {POINTS} nodes per axis, axis {axis} has {n}.")
