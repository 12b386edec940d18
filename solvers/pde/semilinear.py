"""Semilinear equations u_t = L u + N(u) on periodic grids: the general struct, and what formulas see."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.adjoint import remat
from ..core.checks import as_field, check_finite, check_positive, is_known
from ..core.fourier import Modes
from ..core.grid import Grid, check_grid
from .etdrk import STEPPERS, ExponentialEuler
from .step_inverse import StepInverse


class Symbols(eqx.Module):
    """What the formulas of a `Semilinear` see: derivatives as factors of Fourier modes, and the way to the nodes.

    A derivative multiplies the mode k by a number, its symbol: d/dx by i k, the Laplacian by -|k|^2.

    Example:
        >>> import solvers as sv, numpy as np
        >>> d = Symbols(sv.Modes(sv.Grid(shape=8, spacing=2 * np.pi / 8)), "float32")
        >>> d.laplacian.tolist(), [complex(x) for x in d.along(0)]
        ([-0.0, -1.0, -4.0], [0j, 1j, 2j])
    """

    space: Modes
    dtype: str = eqx.field(static=True)

    @property
    def laplacian(self) -> Array:
        """Symbol of the Laplacian, -|k|^2, real."""
        return -self.space.squared(self.dtype)

    def along(self, axis: int, order: int = 1) -> Array:
        """Symbol of the derivative of an order along an axis, (i k)^order: real for even orders."""
        k = self.space.wavenumbers()[axis] ** order
        unit = (1, 1j, -1, -1j)[order % 4]
        dtype = jnp.result_type(self.dtype, jnp.complex64) if order % 2 else self.dtype
        return jnp.asarray((unit * k).astype(dtype))

    def field(self, modes: Array) -> Array:
        """Values on the nodes where products are formed (more nodes than those of the grid with padding)."""
        return self.space.to_points(modes)

    def modes(self, field: Array) -> Array:
        """Modes of a product formed on those nodes; what dealiasing drops is gone."""
        return self.space.from_points(field)


class Semilinear(eqx.Module):
    r"""A semilinear equation u_t = L u + N(u) + f in a periodic box, by exponential time differencing.

    L is linear with constant coefficients, so that in Fourier space it is one factor per mode, its symbol; it is
    integrated exactly and limits no time step. N is integrated by ETDRK4 or ETDRK2. A linear equation (N None) is exact
    to round-off for any dt.

    The state is u on the nodes; a run marches its Fourier modes and transforms for observers alone. Modes above the cut
    of `dealias` are dropped from the initial state. Reverse mode keeps the modes of each step and computes the step
    again. Not for shocks without viscosity. L has constant coefficients: what varies in space belongs into N, where it
    limits dt.

    The precision is that of the state. Parameters are leaves: differentiate them, change them without a new trace. The
    length of the box is part of the grid and no leaf; to differentiate with respect to it, rescale coefficients and,
    where N has no coefficient of its own, u: in units of the length L, u_t = nu u_xx - u u_x keeps its form with
    nu / L^2 and u / L.

    Args:
        grid: nodes of one period, at least 4 per axis.
        linear_symbol: function (d, parameters) -> symbol of L, an array that broadcasts against the modes; with
            channels it has a leading axis. d is a `Symbols`.
        nonlinear: function (u, d, parameters) -> modes of N, both in Fourier space; None for a linear equation. Go to
            the nodes by `d.field(u)` and back by `d.modes(...)`.
        parameters: pytree of numbers and arrays that both functions get, such as a dict of coefficients or a network.
        stepper: "etdrk4" or "etdrk2".
        dealias: how products stay free of aliasing, see `Modes`: "2/3" and "3/2" for squares, "1/2" and "2" for cubes,
            "none". By default "2/3", and "none" for a linear equation.
        channels: number of components on a leading axis of the state; None for one without that axis.
        real: False for complex fields.

    Raises:
        ValueError: for a grid with fewer than four nodes on an axis, an unknown stepper or dealiasing, parameters that
            are not finite.
        TypeError: if a formula cannot be called.

    Example:
        >>> import solvers as sv, jax.numpy as jnp, numpy as np
        >>> grid = sv.Grid(shape=64, spacing=2 * np.pi / 64)
        >>> def symbol(d, p):                                           # u_t = nu u_xx - u u_x
        ...     return p["viscosity"] * d.laplacian
        >>> def steepening(u, d, p):
        ...     return -0.5 * d.along(0) * d.modes(d.field(u) ** 2)
        >>> burgers = sv.Semilinear(grid, symbol, steepening, {"viscosity": 0.1})
        >>> run = sv.simulate(burgers, jnp.sin(grid.axes()[0]), steps=100, dt=0.01).check()
        >>> run.final.shape, round(float(jnp.max(run.final)), 3)
        ((64,), 0.901)

    Reference:
        Cox and Matthews, Journal of Computational Physics 176 (2002), 430; Kassam and Trefethen, SIAM Journal on
        Scientific Computing 26 (2005), 1214.
    """

    parameters: Any
    space: Modes
    linear_symbol: Callable = eqx.field(static=True)
    nonlinear: Callable | None = eqx.field(static=True)
    method: str = eqx.field(static=True)
    channels: int | None = eqx.field(static=True)

    def __init__(
        self,
        grid: Grid,
        linear_symbol: Callable,
        nonlinear: Callable | None = None,
        parameters: Any = None,
        *,
        stepper: str = "etdrk4",
        dealias: str | None = None,
        channels: int | None = None,
        real: bool = True,
    ):
        check_grid(grid)
        if min(grid.shape) < 4:
            raise ValueError(f"A periodic equation needs at least 4 nodes per axis, got shape={grid.shape}.")
        if stepper not in STEPPERS:
            raise ValueError(f"`stepper` must be one of {', '.join(map(repr, STEPPERS))}, got {stepper!r}.")
        if not callable(linear_symbol) or not (nonlinear is None or callable(nonlinear)):
            raise TypeError(
                "`linear_symbol` must be a function (d, parameters) and `nonlinear` a function (u, d, parameters) or "
                f"None, got {linear_symbol!r} and {nonlinear!r}."
            )
        if channels is not None and (isinstance(channels, bool) or not isinstance(channels, int) or channels < 1):
            raise ValueError(f"`channels` must be a whole number of at least 1 or None, got {channels!r}.")
        if dealias is None:
            dealias = "none" if nonlinear is None else "2/3"
        self.space, self.linear_symbol, self.nonlinear = Modes(grid, dealias, real), linear_symbol, nonlinear
        self.method, self.channels = stepper, channels
        self.parameters = jax.tree_util.tree_map_with_path(_parameter, parameters)

    @property
    def grid(self) -> Grid:
        """The nodes."""
        return self.space.grid

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a state."""
        return self.grid.shape if self.channels is None else (self.channels, *self.grid.shape)

    def tendency(self, state: Array, inputs: Any = None) -> Array:
        """L u + N(u) + f on the nodes, of the modes that are kept: what the method of lines needs."""
        stepper = self.stepper(jnp.ones((), state.real.dtype))
        u = stepper.enter(state)
        rate = stepper.linear() * u
        force = stepper.force(u, inputs)
        return stepper.leave(rate if force is None else rate + force)

    def step(self, state: Array, inputs: Any, dt: Any) -> Array:
        """One step from t to t + dt; `inputs` are f, held over it."""
        stepper = self.stepper(jnp.asarray(dt, state.real.dtype))
        return stepper.leave(stepper.step(stepper.enter(state), inputs))

    def preconditioner(self, dt: Any, shift: Any = 0.0) -> StepInverse:
        """The linear part of a step, inverted mode by mode: the `preconditioner` of `steady_state` for this stepper.

        Approximates A^-1 with A = 1 - dstep/du, see `StepInverse`. L alone says little where N holds it in balance, as
        in a pattern: give as `shift` what N takes away on average, -N'; for N = -u^3 that is 3 mean(u^2).

        Args:
            dt: time step, as in `step`.
            shift: number that is subtracted from L.

        Example:
            >>> import solvers as sv, jax.numpy as jnp, numpy as np
            >>> grid = sv.Grid(shape=32, spacing=2 * np.pi / 32)
            >>> heat = sv.Diffusion(grid, 0.1)
            >>> x = grid.axes()[0]
            >>> v = jnp.sin(2 * x)                           # decays to exp(-0.1 * 4 * dt) of itself within a step
            >>> inverse = heat.preconditioner(0.5)(v - heat.step(v, None, 0.5))
            >>> bool(jnp.allclose(inverse, v, atol=1e-5))
            True
        """
        stepper = self.stepper(jnp.asarray(dt, jnp.result_type(float)))
        return StepInverse(stepper.linear(), dt, shift, self.space)

    def stepper(self, dt: Array) -> "SemilinearStepper":
        """What does not change from step to step, computed once."""
        return SemilinearStepper(self, dt)

    def check(self, state: Any, *, steps: int, dt: Any, inputs: Any) -> None:
        """Raise ValueError for what cannot run; values are looked at where they are known."""
        check_state(state, self.shape, self.space.real)
        if is_known(dt) and not float(dt) > 0:
            raise ValueError(f"`dt` must be positive, got {dt}.")
        if inputs is None:
            return
        if not hasattr(inputs, "shape") or inputs.shape != (steps, *self.shape):
            raise ValueError(
                f"`inputs` are the term f on the nodes, shape (steps, *state.shape) = {(steps, *self.shape)}, "
                f"got {jnp.shape(inputs) if hasattr(inputs, 'shape') else type(inputs).__name__}."
            )
        if jnp.iscomplexobj(inputs) and self.space.real:
            raise ValueError("`inputs` are complex, but the field is real.")
        if is_known(inputs):
            check_finite(np.asarray(inputs), "inputs")


class SemilinearStepper(eqx.Module):
    """A semilinear equation made ready for one time step; marches Fourier modes."""

    equation: Semilinear
    scheme: Any
    dtype: str = eqx.field(static=True)
    unroll: int = eqx.field(static=True, default=1)

    def __init__(self, equation: Semilinear, dt: Array):
        # The precision of the state rules.
        cast = jax.tree.map(lambda x: _cast(x, dt.dtype), equation.parameters)
        self.equation = eqx.tree_at(lambda e: e.parameters, equation, cast, is_leaf=lambda x: x is None)
        self.dtype, self.unroll = str(dt.dtype), 1
        self.scheme = (ExponentialEuler if equation.nonlinear is None else STEPPERS[equation.method])(self.linear(), dt)

    def enter(self, state: Array) -> Array:
        """Modes of a field on the nodes."""
        return self.equation.space.to_modes(state)

    def leave(self, modes: Array) -> Array:
        """The field on the nodes."""
        return self.equation.space.to_field(modes)

    def step(self, modes: Array, inputs: Any) -> Array:
        """Advance the modes by one step."""
        if self.equation.nonlinear is None:
            return self._advance(modes, inputs)
        return remat(lambda u, i: self._advance(u, i))(modes, inputs)

    def linear(self) -> Array:
        """The symbol of L."""
        equation = self.equation
        symbol = jnp.asarray(equation.linear_symbol(self._symbols(), equation.parameters))
        lead = () if equation.channels is None else (equation.channels,)
        try:
            return jnp.broadcast_to(symbol, (*lead, *equation.space.shape))
        except ValueError:
            raise ValueError(
                f"`linear_symbol` must return an array that broadcasts to {(*lead, *equation.space.shape)}, "
                f"it returned shape {symbol.shape}."
            ) from None

    def force(self, modes: Array, inputs: Any) -> Array | None:
        """N(u) + f; None for none."""
        equation, total = self.equation, None
        if equation.nonlinear is not None:
            total = equation.nonlinear(modes, self._symbols(), equation.parameters)
            if total.shape != modes.shape:
                raise ValueError(
                    f"`nonlinear` must return modes of the shape {modes.shape}, it returned {total.shape}; "
                    "d.modes(...) brings a product back from the nodes."
                )
        if inputs is not None:
            more = self.enter(inputs)
            total = more if total is None else total + more
        return total

    def _advance(self, modes: Array, inputs: Any) -> Array:
        def force(u: Array) -> Array:
            total = self.force(u, inputs)
            return jnp.zeros_like(u) if total is None else total

        return self.scheme.step(modes, force)

    def _symbols(self) -> Symbols:
        return Symbols(self.equation.space, self.dtype)


def coefficient(value: Any, name: str, shape: tuple[int, ...] = (), positive: bool = False) -> Array:
    """A real coefficient of an equation as an array of a shape; a number is spread over it.

    Raises:
        ValueError: for a wrong shape, complex numbers, values that are not finite, or not positive where they must be.
    """
    if isinstance(value, list | tuple):
        value = np.asarray(value, float) if all(map(is_known, value)) else jnp.stack(value)
    if jnp.iscomplexobj(value):
        raise ValueError(f"`{name}` must be real, got {value!r}.")
    field = as_field(value, name, shape)
    if positive:
        check_positive(value, name)
    return field


def check_state(state: Any, shape: tuple[int, ...], real: bool) -> None:
    """Raise ValueError unless the state is a finite field of the shape, real or complex as it must be."""
    if not hasattr(state, "shape") or state.shape != shape:
        given = state.shape if hasattr(state, "shape") else type(state).__name__
        raise ValueError(f"The state must be a field on the nodes of shape {shape}, got {given}.")
    if jnp.iscomplexobj(state) == real:
        raise ValueError(
            f"The state must be {'real' if real else 'complex'}, got dtype {state.dtype}; take "
            + ("its real part." if real else "state + 0j.")
        )
    if not jnp.issubdtype(state.dtype, jnp.inexact) or jnp.finfo(state.dtype).bits < 32:
        raise ValueError(f"The state must be single or double precision, which can be transformed, got {state.dtype}.")
    if is_known(state):
        check_finite(np.asarray(state), "state")


def _parameter(path: Any, value: Any) -> Any:
    """Numbers become arrays; arrays must be finite where they are known; anything else is a choice."""
    dtype = getattr(value, "dtype", None)
    number = isinstance(value, int | float | complex) and not isinstance(value, bool)
    if not number and not (dtype is not None and jnp.issubdtype(dtype, jnp.inexact)):
        return value
    if is_known(value):
        check_finite(np.asarray(value), f"parameters{jax.tree_util.keystr(path)}")
    return jnp.asarray(float(value) if isinstance(value, int) else value)


def _cast(value: Any, dtype: Any) -> Any:
    if not eqx.is_inexact_array(value):
        return value
    return value.astype(jnp.result_type(dtype, jnp.complex64) if jnp.iscomplexobj(value) else dtype)
